//! TLS on both sides and over both protocols: certificates that are good, and those that are not.

use crate::common::certificates::{Authority, CLIENT, Identity};
use crate::common::config::{Config, Entry};
use crate::common::daemon::{Daemon, Uris, free_address};
use crate::common::load;
use crate::common::mongo::Mongo;
use crate::common::oracle::{self, AT_LEAST_ONCE, NOTHING_TWICE};
use crate::common::rabbit::{Broker, Collector};
use crate::common::rig::Rig;
use crate::common::tls::TlsFront;
use crate::common::{services, stream};
use bson::doc;
use std::net::SocketAddr;

const USER: &str = "connector";
const PASSWORD: &str = "s3cret";

/// Servers that speak TLS, and want to see a certificate of everybody who does.
pub(crate) struct Servers {
    authority: Authority,
    client: Identity,
    pub(crate) rig: Rig,
    broker: Broker,
    mongo: Mongo,
    amqp_port: u16,
    stream_port: u16,
}

/// How a client shows who it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    /// By its certificate alone.
    Certificate,
    /// By user and password, and a certificate besides.
    Password,
    /// By user and password alone.
    NoCertificate,
}

impl Servers {
    pub(crate) async fn start() -> Servers {
        let authority = Authority::new();
        let server = authority.server();
        let (amqp_port, stream_port) = (free_address().port(), free_address().port());
        let settings = [
            format!("listeners.ssl.1 = 127.0.0.1:{amqp_port}"),
            format!("stream.listeners.ssl.1 = 127.0.0.1:{stream_port}"),
            format!("ssl_options.cacertfile = {}", authority.file()),
            format!("ssl_options.certfile = {}", server.certificate()),
            format!("ssl_options.keyfile = {}", server.key()),
            "ssl_options.verify = verify_peer".to_owned(),
            "ssl_options.fail_if_no_peer_cert = true".to_owned(),
            "auth_mechanisms.1 = PLAIN".to_owned(),
            "auth_mechanisms.2 = EXTERNAL".to_owned(),
        ];
        let of_mongo = [
            "--auth".to_owned(),
            "--option=tlsMode=preferTLS".to_owned(),
            format!("--option=tlsCertificateKeyFile={}", server.both()),
            format!("--option=tlsCAFile={}", authority.file()),
        ];
        let of_mongo: Vec<&str> = of_mongo.iter().map(String::as_str).collect();
        let (broker, mongo) = tokio::join!(
            Broker::with_settings(&settings),
            Mongo::start(services::unique("mongo-tls"), &of_mongo)
        );
        let rig = Rig::on(&mongo, &broker, "tls").await;
        let servers = Servers {
            client: authority.client(),
            authority,
            rig,
            broker,
            mongo,
            amqp_port,
            stream_port,
        };
        servers.make_users().await;
        servers
    }

    async fn make_users(&self) {
        let roles = ["root"];
        let external =
            doc! {"createUser": format!("CN={CLIENT}"), "roles": [{"role": "root", "db": "admin"}]};
        let of_password = doc! {
            "createUser": USER, "pwd": PASSWORD, "roles": roles.to_vec(), "mechanisms": ["SCRAM-SHA-256"],
        };
        for (database, command) in [("$external", external), ("admin", of_password)] {
            let database = self.rig.client.database(database);
            database.run_command(command).await.unwrap();
        }
        for user in [&format!("CN={CLIENT}"), USER] {
            self.broker.ctl(&["add_user", user, PASSWORD]).await;
            self.broker
                .ctl(&["set_permissions", user, ".*", ".*", ".*"])
                .await;
        }
    }

    /// What a client shows that is known.
    pub(crate) fn client(&self) -> &Identity {
        &self.client
    }

    pub(crate) fn mongo_port(&self) -> u64 {
        self.mongo.members[0].0
    }

    pub(crate) fn uris(&self, login: Login) -> Uris {
        let (authority, client) = (self.authority.file(), &self.client);
        let user = match login {
            Login::Certificate => String::new(),
            Login::Password | Login::NoCertificate => format!("{USER}:{PASSWORD}@"),
        };
        let mut of_mongo = format!("tls=true&tlsCAFile={authority}");
        let mut of_rabbit = format!("cacertfile={authority}");
        if login != Login::NoCertificate {
            of_mongo += &format!("&tlsCertificateKeyFile={}", client.both());
            of_rabbit += &format!(
                "&certfile={}&keyfile={}",
                client.certificate(),
                client.key()
            );
        }
        match login {
            Login::Certificate => {
                of_mongo += "&authMechanism=MONGODB-X509&authSource=$external";
                of_rabbit += "&auth_mechanism=external";
            }
            Login::Password | Login::NoCertificate => {
                of_mongo += "&authMechanism=SCRAM-SHA-256&authSource=admin";
            }
        }
        let port = self.mongo_port();
        let (amqp, stream) = (self.amqp_port, self.stream_port);
        Uris {
            mongo: format!("mongodb://{user}127.0.0.1:{port}/?replicaSet=rs0&{of_mongo}"),
            rabbit: format!("amqps://{user}localhost:{amqp}/%2f?{of_rabbit}"),
            stream: Some(format!(
                "rabbitmq-stream+tls://{user}localhost:{stream}/%2f?{of_rabbit}"
            )),
        }
    }

    pub(crate) async fn end(self) {
        self.rig.clean().await;
        self.broker.remove().await;
        self.mongo.remove().await;
    }
}

pub(crate) fn over_streams(rig: &Rig) -> Entry {
    let stream = format!("{}-stream", rig.name);
    rig.entry_for("orders", &stream)
        .with("rabbitmq.protocol", "stream")
        .with("rabbitmq.queue_type", "stream")
}

#[tokio::test]
async fn login_by_certificate_or_by_scram_over_tls_carries_no_events() {
    let servers = Servers::start().await;
    let rig = &servers.rig;
    let entries = [rig.entry(), over_streams(rig)];
    let mut written = 0;
    for login in [Login::Certificate, Login::Password] {
        let mut daemon = Daemon::spawn(&Config::new(entries.clone()), &servers.uris(login));
        daemon.ready().await;
        load::insert(&rig.collection(), written, 200).await;
        written += 200;
        let truth = rig.truth().await;
        for entry in &entries {
            daemon.confirmed(&entry.name(), truth.len()).await;
        }
        assert_eq!(daemon.terminate().await.code, Some(0));
    }
    let truth = rig.truth().await;
    let mut daemon = Daemon::spawn(
        &Config::new(entries.clone()),
        &servers.uris(Login::Certificate),
    );
    daemon.ready().await;
    for entry in &entries {
        daemon.confirmed(&entry.name(), truth.len()).await;
    }
    let deliveries = Collector::drain(&servers.broker, &rig.name).await;
    assert_eq!(rig.judge(&truth, &deliveries, AT_LEAST_ONCE), NOTHING_TWICE);
    let of_stream = stream::read(&servers.broker, &format!("{}-stream", rig.name)).await;
    let verdict = oracle::judge(&truth, &of_stream, AT_LEAST_ONCE);
    assert_eq!(verdict.unwrap(), NOTHING_TWICE);
    assert_eq!(daemon.terminate().await.code, Some(0));
    servers.broker.delete(&format!("{}-stream", rig.name)).await;
    servers.end().await;
}

#[tokio::test]
async fn client_certificate_that_a_server_demands_is_not_asked_for() {
    let servers = Servers::start().await;
    let rig = &servers.rig;
    let (right, wrong) = (
        servers.uris(Login::Password),
        servers.uris(Login::NoCertificate),
    );
    let of_mongo = Uris {
        mongo: wrong.mongo.clone(),
        ..right.clone()
    };
    complains(
        &of_mongo,
        &rig.entry(),
        &["demand a client certificate", "set tlsCertificateKeyFile"],
    )
    .await;
    let of_rabbit = Uris {
        mongo: right.mongo,
        ..wrong
    };
    for entry in [rig.entry(), over_streams(rig)] {
        let words = ["certificate", "equired", "set certfile and keyfile"];
        complains(&of_rabbit, &entry, &words).await;
    }
    servers.end().await;
}

/// Waits until the daemon says all this on one line, and that it tries again.
async fn complains(uris: &Uris, entry: &Entry, words: &[&str]) {
    let daemon = Daemon::spawn(&Config::new([entry.clone()]), uris);
    let name = entry.name();
    let words = [&[name.as_str(), "restarting", "remedy: "], words].concat();
    daemon.unhealthy(&words).await;
    let ended = daemon.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let said = ended.log.lines();
    let said = said.filter(|line| line.contains("remedy=")).count();
    assert!(said > 0, "the log does not tell: {}", ended.log);
}

pub(crate) fn local(uri: &str) -> SocketAddr {
    let port = uri.split("//").nth(1).and_then(|rest| {
        let host = rest.split(['/', '?']).next()?;
        host.rsplit(':').next()?.parse().ok()
    });
    SocketAddr::from(([127, 0, 0, 1], port.unwrap()))
}

#[tokio::test]
async fn bad_certificate_of_a_server_is_taken_or_not_named() {
    let rig = Rig::new("tls-bad").await;
    let plain = rig.uris();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let file = authority.file();
    let good = authority.server();
    let front = async |uri: &str| TlsFront::before(local(uri), &good).await;
    let broker_stream = plain.stream.clone().unwrap();
    let (mongo, amqp, streams) = (
        front(&plain.mongo).await,
        front(&plain.rabbit).await,
        front(&broker_stream).await,
    );
    let encrypted = Uris {
        mongo: format!(
            "mongodb://{}/?directConnection=true&tls=true&tlsCAFile={file}",
            mongo.address
        ),
        rabbit: format!("amqps://guest:guest@{}/%2f?cacertfile={file}", amqp.address),
        stream: Some(format!(
            "rabbitmq-stream+tls://guest:guest@{}/%2f?cacertfile={file}",
            streams.address
        )),
    };
    let bad = [
        (authority.expired(), "xpired", "renew a certificate"),
        (
            authority.elsewhere(),
            "elsewhere.example",
            "use a name that it has",
        ),
        (
            stranger.server(),
            "UnknownIssuer",
            "for an unknown issuer or a bad signature set",
        ),
    ];
    for (identity, reason, remedy) in &bad {
        mongo.present(identity);
        complains(
            &encrypted,
            &rig.entry(),
            &["MongoDB", reason, remedy, "tlsCAFile"],
        )
        .await;
        mongo.present(&good);
        for (front, entry) in [(&amqp, rig.entry()), (&streams, over_streams(&rig))] {
            front.present(identity);
            complains(&encrypted, &entry, &[reason, remedy, "cacertfile"]).await;
            front.present(&good);
        }
    }
    // The name that is looked for in the certificate may be another than the one to connect to.
    amqp.present(&authority.elsewhere());
    let uris = Uris {
        rabbit: format!(
            "{}&server_name_indication=elsewhere.example",
            encrypted.rabbit
        ),
        ..encrypted.clone()
    };
    let entry = rig.entry();
    let mut daemon = Daemon::spawn(&Config::new([entry.clone()]), &uris);
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 100).await;
    let verdict = rig.judge_all(&daemon, &entry, AT_LEAST_ONCE).await;
    assert_eq!(verdict, NOTHING_TWICE);
    assert_eq!(daemon.terminate().await.code, Some(0));
    // Without TLS on the other side.
    for (uris, entry) in [
        (
            Uris {
                mongo: encrypted
                    .mongo
                    .replace(&mongo.address.to_string(), &local(&plain.mongo).to_string()),
                ..plain.clone()
            },
            rig.entry(),
        ),
        (
            Uris {
                rabbit: encrypted
                    .rabbit
                    .replace(&amqp.address.to_string(), &local(&plain.rabbit).to_string()),
                ..plain.clone()
            },
            rig.entry(),
        ),
    ] {
        complains(&uris, &entry, &["TLS ", "speaks no TLS"]).await;
    }
    rig.broker.delete(&format!("{}-stream", rig.name)).await;
    rig.clean().await;
}
