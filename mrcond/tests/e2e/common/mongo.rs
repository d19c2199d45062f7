//! MongoDB: replica sets to use, and some to break.

use super::pool::{Lease, Pool};
use super::services;
use super::wait::{PATIENTLY, SOON, eventually};
use bson::{Document, Timestamp, doc};
use mongodb::Client;
use serde_json::Value;
use tokio::sync::OnceCell;

static SHARED: OnceCell<Mongo> = OnceCell::const_new();
static PRIVATE: Pool<Mongo> = Pool::new();

/// A replica set.
#[derive(Debug, Clone)]
pub(crate) struct Mongo {
    pub(crate) uri: String,
    /// Only of those that were started here.
    name: Option<String>,
    /// Port and process of each member.
    pub(crate) members: Vec<(u64, u32)>,
}

impl Mongo {
    /// The one that most tests share: the user's own if named in the environment.
    pub(crate) async fn shared() -> Mongo {
        let start = async || match std::env::var("MRCON_MONGO_URI") {
            Ok(uri) if !uri.is_empty() => Mongo {
                uri,
                name: None,
                members: Vec::new(),
            },
            _ => Mongo::start(services::unique("mongo"), &[]).await,
        };
        SHARED.get_or_init(start).await.clone()
    }

    /// One with a single member that a test may break.
    pub(crate) async fn private() -> Lease<Mongo> {
        PRIVATE
            .lease(async || Mongo::start(services::unique("mongo-private"), &[]).await)
            .await
    }

    /// A replica set of three, which can lose its primary and go on.
    pub(crate) async fn of_three() -> Mongo {
        Mongo::start(services::unique("mongo-set"), &["--members", "3"]).await
    }

    /// One that asks for a password; its URI has the right to everything.
    pub(crate) async fn with_users() -> Mongo {
        Mongo::start(services::unique("mongo-users"), &["--auth"]).await
    }

    /// One that is no replica set.
    pub(crate) async fn standalone() -> Mongo {
        Mongo::start(services::unique("mongo-standalone"), &["--standalone"]).await
    }

    /// One with a parameter set, `NAME=VALUE`.
    pub(crate) async fn with_parameter(parameter: &str) -> Mongo {
        let name = services::unique("mongo-parameter");
        Mongo::start(name, &["--set-parameter", parameter]).await
    }

    /// Stops it and removes what it has written.
    pub(crate) async fn remove(self) {
        let Some(name) = &self.name else {
            unreachable!("only private servers are removed")
        };
        services::remove(name).await;
    }

    pub(crate) async fn start(name: String, arguments: &[&str]) -> Mongo {
        let described = services::start("mongo", &name, arguments).await;
        let uri = described["uri"].as_str().unwrap_or_default().to_owned();
        Mongo {
            uri,
            name: Some(name),
            members: members(&described),
        }
    }

    /// Ends every member at once, as a power cut would.
    pub(crate) async fn kill(&self) {
        self.signal("KILL").await;
    }

    /// `STOP` freezes every member, `CONT` lets them go on.
    pub(crate) async fn signal(&self, name: &str) {
        for (_, pid) in &self.members {
            services::signal(name, *pid).await;
        }
    }

    /// Ends one member, named by `host:port`.
    pub(crate) async fn kill_member(&mut self, address: &str) {
        let of_member = |port: u64| address.ends_with(&format!(":{port}"));
        let found = self.members.iter().position(|(port, _)| of_member(*port));
        let found = found.unwrap_or_else(|| panic!("{address} is no member: {:?}", self.members));
        let (_, pid) = self.members.remove(found);
        services::signal("KILL", pid).await;
    }

    /// Starts what was killed.
    pub(crate) async fn restart(&mut self) {
        let Some(name) = self.name.clone() else {
            unreachable!("only private servers are killed")
        };
        self.members = members(&services::start("mongo", &name, &[]).await);
    }

    pub(crate) async fn client(&self) -> Client {
        Client::with_uri_str(&self.uri)
            .await
            .unwrap_or_else(|error| panic!("use MongoDB: {error}"))
    }
}

fn members(described: &Value) -> Vec<(u64, u32)> {
    let numbers = |list: Vec<&Value>| {
        list.into_iter()
            .filter_map(Value::as_u64)
            .collect::<Vec<_>>()
    };
    let ports = described["ports"]
        .as_object()
        .map(|ports| ports.values().collect());
    let pids = described["pids"]
        .as_array()
        .map(|pids| pids.iter().collect());
    let (ports, pids) = (
        numbers(ports.unwrap_or_default()),
        numbers(pids.unwrap_or_default()),
    );
    let process = |pid: u64| u32::try_from(pid).unwrap_or_else(|_| unreachable!("a process id"));
    ports
        .into_iter()
        .zip(pids.into_iter().map(process))
        .collect()
}

/// The server's cluster time.
pub(crate) async fn now(client: &Client) -> Timestamp {
    let reply = eventually(SOON, "MongoDB tells its time", async || {
        client
            .database("admin")
            .run_command(doc! {"ping": 1})
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    reply
        .get_timestamp("operationTime")
        .unwrap_or_else(|error| panic!("a reply without time: {error}: {reply}"))
}

/// Makes the primary give up its office.
pub(crate) async fn step_down(client: &Client) {
    // The server may close the connection instead of answering; whether it stepped down shows in
    // what the caller awaits.
    let _ = client
        .database("admin")
        .run_command(doc! {"replSetStepDown": 20, "force": true})
        .await;
}

/// Who is primary, as `host:port`.
pub(crate) async fn primary(client: &Client) -> Result<String, String> {
    let reply: Document = client
        .database("admin")
        .run_command(doc! {"hello": 1})
        .await
        .map_err(|error| error.to_string())?;
    reply
        .get_str("primary")
        .map(str::to_owned)
        .map_err(|error| error.to_string())
}

/// Writes elsewhere until nothing of what has happened so far is in the oplog.
pub(crate) async fn roll_over(client: &Client) {
    let now = now(client).await;
    let noise = client.database("noise").collection::<Document>("noise");
    // Nothing leaves the oplog that the server's last checkpoint may need; there is one a minute otherwise.
    let admin = client.database("admin");
    let often = admin
        .run_command(doc! {"setParameter": 1, "syncdelay": 1})
        .await;
    often.unwrap_or_else(|error| panic!("more checkpoints: {error}"));
    eventually(PATIENTLY, "the oplog rolls over", async || {
        let megabytes = (0..8).map(|_| doc! {"text": "x".repeat(1 << 20)});
        let written = noise.insert_many(megabytes).await;
        written.map_err(|error| error.to_string())?;
        noise.drop().await.map_err(|error| error.to_string())?;
        match oldest(client).await {
            oldest if oldest > now => Ok(()),
            oldest => Err(format!("the oldest entry is of {oldest}, now is {now}")),
        }
    })
    .await;
}

/// The time of the oldest entry of the oplog.
pub(crate) async fn oldest(client: &Client) -> Timestamp {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let first = oplog.find_one(doc! {}).sort(doc! {"$natural": 1}).await;
    let first = first.unwrap_or_else(|error| panic!("read the oplog: {error}"));
    let time = first
        .as_ref()
        .and_then(|first| first.get_timestamp("ts").ok());
    time.unwrap_or_else(|| panic!("an oplog without entries: {first:?}"))
}
