//! Servers to break: a replica set of three, and servers behind a network that can fail.

use crate::common::mongo::Mongo;
pub(crate) use crate::common::mongo::{oldest, roll_over};
use crate::common::pool::{Lease, Pool};
use crate::common::proxy::Proxy;
use crate::common::rabbit::Broker;
use crate::common::services;
use crate::common::wait::{PATIENTLY, eventually};
use crate::frames::{FrameProxy, Protocol};
use bson::{Bson, Document, doc};
use mongodb::Client;
use std::net::SocketAddr;

static SETS: Pool<Mongo> = Pool::new();
static SMALL_OPLOGS: Pool<Mongo> = Pool::new();
static BEHIND_A_PROXY: Pool<ProxiedMongo> = Pool::new();

/// A replica set of three for one scenario at a time. A scenario leaves it whole.
pub(crate) async fn set_of_three() -> Lease<Mongo> {
    SETS.lease(Mongo::of_three).await
}

/// Who is primary, as `host:port`.
pub(crate) async fn primary(client: &Client) -> String {
    eventually(PATIENTLY, "there is a primary", async || {
        crate::common::mongo::primary(client).await
    })
    .await
}

/// Sends a signal to one member, named by `host:port`.
pub(crate) async fn signal_member(mongo: &Mongo, address: &str, name: &str) {
    let port = address.rsplit(':').next().unwrap_or_default();
    let found = mongo
        .members
        .iter()
        .find(|(its, _)| its.to_string() == port);
    let (_, pid) = found.unwrap_or_else(|| panic!("{address} is no member: {:?}", mongo.members));
    services::signal(name, *pid).await;
}

/// Makes commands of the daemon fail: a failpoint as MongoDB has it, `mode` and `how` included.
pub(crate) async fn fail(client: &Client, commands: &[&str], mode: impl Into<Bson>, how: Document) {
    let mut data = doc! {"failCommands": commands, "appName": "mrcon"};
    data.extend(how);
    let set = doc! {"configureFailPoint": "failCommand", "mode": mode.into(), "data": data};
    let done = client.database("admin").run_command(set).await;
    done.unwrap_or_else(|error| panic!("set a failpoint: {error}"));
}

/// A client of one member alone.
pub(crate) async fn member(address: &str) -> Client {
    let client = Client::with_uri_str(format!("mongodb://{address}/?directConnection=true")).await;
    client.unwrap_or_else(|error| panic!("use {address}: {error}"))
}

/// Makes the primary give up its office, and waits until there is another.
pub(crate) async fn step_down(client: &Client) -> String {
    let former = primary(client).await;
    // Only this long, so that two elections later it may be the primary again.
    let command = doc! {"replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 4, "force": true};
    // The server may close the connection instead of answering.
    let _ = client.database("admin").run_command(command).await;
    another_primary(client, &former).await
}

/// Waits until there is another primary than the one before.
pub(crate) async fn another_primary(client: &Client, former: &str) -> String {
    eventually(PATIENTLY, "there is another primary", async || {
        let now = crate::common::mongo::primary(client).await?;
        match now == former {
            true => Err(format!("{now} still")),
            false => Ok(now),
        }
    })
    .await
}

/// A replica set of one whose oplog holds some megabytes: what takes days elsewhere takes seconds here.
pub(crate) async fn small_oplog() -> Lease<Mongo> {
    let start = async || Mongo::start(services::unique("mongo-oplog"), &["--oplog-mb", "16"]).await;
    SMALL_OPLOGS.lease(start).await
}

/// A replica set of one that is known to its clients by the address of a proxy.
pub(crate) struct ProxiedMongo {
    /// Leads past the proxy.
    pub(crate) mongo: Mongo,
    /// What the daemon gets.
    pub(crate) uri: String,
    pub(crate) proxy: Proxy,
}

/// One for one scenario at a time; its network is as it should be.
pub(crate) async fn mongo_behind_a_proxy() -> Lease<ProxiedMongo> {
    let lease = BEHIND_A_PROXY.lease(ProxiedMongo::start).await;
    lease.proxy.heal();
    lease
}

impl ProxiedMongo {
    async fn start() -> ProxiedMongo {
        let mut mongo = Mongo::start(services::unique("mongo-proxied"), &[]).await;
        let port = mongo.members[0].0;
        let address = local(port);
        let proxy = Proxy::before(address);
        let uri = mongo
            .uri
            .replace(&format!(":{port}"), &format!(":{}", proxy.address.port()));
        // The server tells its clients where it is, and they believe it rather than the URI.
        let client = mongo.client().await;
        let admin = client.database("admin");
        let reply = admin.run_command(doc! {"replSetGetConfig": 1}).await;
        let reply = reply.unwrap_or_else(|error| panic!("read the replica set: {error}"));
        let mut config = reply
            .get_document("config")
            .cloned()
            .unwrap_or_else(|error| panic!("{error}: {reply}"));
        let version = config.get_i32("version").unwrap_or_default() + 1;
        config.insert("version", version);
        let id = 0;
        let member = doc! {"_id": id, "host": proxy.address.to_string()};
        config.insert("members", vec![member]);
        let reconfig = doc! {"replSetReconfig": config, "force": true};
        let done = admin.run_command(reconfig).await;
        done.unwrap_or_else(|error| panic!("move the replica set behind a proxy: {error}"));
        mongo.uri = format!("mongodb://{address}/?directConnection=true");
        ProxiedMongo { mongo, uri, proxy }
    }
}

/// A proxy before a broker, and the URI that leads there.
pub(crate) fn proxy_before(broker: &Broker) -> (Proxy, String) {
    proxied(&broker.uri)
}

/// A proxy before the server of this URI, and the URI that leads there.
pub(crate) fn proxied(uri: &str) -> (Proxy, String) {
    let port = port_of(uri);
    let proxy = Proxy::before(local(u64::from(port)));
    let uri = proxy.uri(uri, port);
    (proxy, uri)
}

/// A proxy that knows frames before the server of this URI, and the URI that leads there.
pub(crate) async fn framed(uri: &str, protocol: Protocol) -> (FrameProxy, String) {
    let port = port_of(uri);
    let proxy = FrameProxy::before(local(u64::from(port)), protocol).await;
    let uri = uri.replace(&format!(":{port}"), &format!(":{}", proxy.address.port()));
    (proxy, uri)
}

/// The port of the server that an URI names.
pub(crate) fn port_of(uri: &str) -> u16 {
    let authority = uri.split("//").nth(1).unwrap_or_default();
    let host = authority.split(['/', '?']).next().unwrap_or_default();
    let port = host.rsplit(':').next().and_then(|port| port.parse().ok());
    port.unwrap_or_else(|| panic!("no port in the URI of a private broker"))
}

fn local(port: u64) -> SocketAddr {
    let port = u16::try_from(port).unwrap_or_else(|_| unreachable!("a port"));
    SocketAddr::from(([127, 0, 0, 1], port))
}
