//! Servers that speak TLS, and want to see certificates themselves.

use super::{Report, Servers};
use crate::common::certificates::Authority;
use crate::common::config::Entry;
use crate::common::daemon::Uris;
use crate::common::mongo::Mongo;
use crate::common::tls::TlsFront;
use crate::tls::{self, Login, local, over_streams};
use std::time::Duration;

/// As the daemon would find them.
fn at(uris: &Uris) -> Servers {
    Servers {
        mongo: format!("{}&serverSelectionTimeoutMS=3000", uris.mongo),
        rabbit: uris.rabbit.clone(),
        stream: uris.stream.clone().unwrap(),
        management: None,
    }
}

/// Where a MongoDB listens that speaks no TLS.
async fn plain_port() -> u16 {
    local(&Mongo::shared().await.uri).port()
}

async fn check(uris: &Uris, entries: &[Entry]) -> Report {
    at(uris).check(entries).await
}

#[tokio::test]
async fn certificate_that_is_good_raises_a_warning_or_a_missing_one_is_not_named() {
    let servers = tls::Servers::start().await;
    let rig = &servers.rig;
    let entries = [rig.entry(), over_streams(rig)];
    rig.mark(&rig.collection()).await;
    for login in [Login::Certificate, Login::Password] {
        let report = check(&servers.uris(login), &entries).await;
        report.is_sound();
        for side in ["mongodb_tls", "rabbitmq_tls"] {
            report.has(side, "info", "are good until", "");
        }
    }
    let (right, wrong) = (
        servers.uris(Login::Password),
        servers.uris(Login::NoCertificate),
    );
    let of_mongo = Uris {
        mongo: wrong.mongo.clone(),
        ..right.clone()
    };
    let report = check(&of_mongo, &entries).await;
    report.only(&["mongodb_tls"]).exits(69).has(
        "mongodb_tls",
        "error",
        "demand a client certificate",
        "tlsCertificateKeyFile in the MongoDB URI",
    );
    let of_rabbit = Uris {
        mongo: right.mongo.clone(),
        ..wrong
    };
    let report = check(&of_rabbit, &entries).await;
    report.exits(69).has(
        "rabbitmq_tls",
        "error",
        "ertificate",
        "certfile and keyfile in the RabbitMQ URI",
    );
    // A server that speaks no TLS.
    let plain = Uris {
        mongo: right.mongo.replace(
            &servers.mongo_port().to_string(),
            &plain_port().await.to_string(),
        ),
        ..right.clone()
    };
    let report = check(&plain, &entries).await;
    report.exits(69).has(
        "mongodb_tls",
        "error",
        "TLS with MongoDB",
        "whether the port speaks TLS",
    );
    // One that servers do not know the authority of.
    let strangers = Authority::new();
    let stranger = strangers.client();
    let known = servers.client();
    let swap = |uri: &str| {
        uri.replace(&known.both(), &stranger.both())
            .replace(&known.certificate(), &stranger.certificate())
            .replace(&known.key(), &stranger.key())
    };
    let strange = Uris {
        rabbit: swap(&right.rabbit),
        ..right.clone()
    };
    let report = check(&strange, &entries[..1]).await;
    report.exits(69).has(
        "rabbitmq_tls",
        "error",
        "received fatal alert",
        "certfile and keyfile in the RabbitMQ URI",
    );
    servers.end().await;
}

#[tokio::test]
async fn certificate_that_ends_soon_or_has_ended_is_not_found() {
    let rig = super::rig("doctor-tls").await;
    rig.mark(&rig.collection()).await;
    let plain = Servers::of(&rig).over_amqp();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let soon = authority.ending_in(Duration::from_secs(10 * 24 * 3600));
    let mongo = TlsFront::before(local(&plain.mongo.replace(super::ROOT, "")), &soon).await;
    let amqp = TlsFront::before(local(&plain.rabbit.replace("guest:guest@", "")), &soon).await;
    let servers = |file: &str| Servers {
        mongo: format!(
            "mongodb://{}{}/?directConnection=true&authSource=admin&tls=true&tlsCAFile={file}&serverSelectionTimeoutMS=1000",
            super::ROOT,
            mongo.address
        ),
        rabbit: format!("amqps://guest:guest@{}/%2f?cacertfile={file}", amqp.address),
        ..plain.clone()
    };
    let entries = [rig.entry()];
    let good = servers(&authority.file());
    let report = good.check(&entries).await;
    report.only(&["mongodb_tls", "rabbitmq_tls"]).exits(0);
    for side in ["mongodb_tls", "rabbitmq_tls"] {
        report.has(side, "warning", "in 9 days", "renew it");
    }
    // Named as it is written.
    let insecure = good.mongo(format!("{}&tlsInsecure=true", good.mongo));
    let report = insecure.check(&entries).await;
    report.has(
        "mongodb_tls",
        "warning",
        "tlsInsecure: anyone",
        "leave it out",
    );
    for (identity, cause, remedy) in [
        (authority.expired(), "xpired", "renew"),
        (
            authority.elsewhere(),
            "elsewhere.example",
            "by a name that stands in",
        ),
        (stranger.server(), "UnknownIssuer", "tlsCAFile"),
        (
            authority.itself(),
            "it is the certificate of an authority",
            "signed by this one",
        ),
    ] {
        mongo.present(&identity);
        amqp.present(&identity);
        let report = good.check(&entries).await;
        report.exits(69);
        for side in ["mongodb_tls", "rabbitmq_tls"] {
            report.has(side, "error", cause, remedy);
        }
    }
    rig.clean().await;
}
