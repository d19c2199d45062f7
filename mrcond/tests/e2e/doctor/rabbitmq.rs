//! What can be wrong with RabbitMQ as a whole.

use super::{CANARY, Servers, create, rig};
use crate::common::daemon::free_address;
use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::tls;
use std::slice::from_ref;

#[tokio::test]
async fn rabbitmq_that_does_not_let_us_in_is_taken_for_another_fault() {
    let rig = rig("doctor-broker").await;
    let servers = Servers::of(&rig).over_amqp();
    create(&rig, "orders", false).await;
    let entry = rig.entry();
    let (server, _) = servers.rabbit.rsplit_once('/').unwrap();
    let vhost = servers
        .rabbit(format!("{server}/nowhere"))
        .check(from_ref(&entry))
        .await;
    vhost.only(&["rabbitmq_login"]).exits(1);
    vhost.has(
        "rabbitmq_login",
        "error",
        "nowhere",
        "rabbitmqctl add_vhost 'nowhere'",
    );
    let wrong = servers
        .rabbit
        .replace("guest:guest@", &format!("guest:{CANARY}@"));
    let wrong = servers.rabbit(wrong).check(from_ref(&entry)).await;
    wrong.only(&["rabbitmq_login"]).exits(1);
    wrong.has(
        "rabbitmq_login",
        "error",
        "ACCESS_REFUSED",
        "change_password",
    );
    let away = format!("amqp://guest:{CANARY}@{}", free_address());
    let away = servers.rabbit(away).check(from_ref(&entry)).await;
    away.only(&["rabbitmq_reachable"]).exits(69);
    away.has(
        "rabbitmq_reachable",
        "error",
        "refused",
        "see that RabbitMQ runs",
    );
    // Certificates: one that has expired, and a name that is not in it.
    for (ip, certificate, authority, cause, remedy) in [
        (
            "127.0.0.1",
            "expired",
            "expired-ca",
            "certificate expired",
            "renew the server's certificate",
        ),
        (
            "127.0.0.2",
            "localhost",
            "ca",
            "not valid for name",
            "by a name that stands in",
        ),
        (
            "127.0.0.1",
            "localhost",
            "expired-ca",
            "UnknownIssuer",
            "cacertfile",
        ),
    ] {
        let address = tls::impostor(ip, certificate).await;
        let authority = tls::file(&format!("{authority}.pem"));
        let uri = format!("amqps://guest:{CANARY}@{address}/?cacertfile={authority}");
        let report = servers.rabbit(uri).check(from_ref(&entry)).await;
        report.exits(69).has("rabbitmq_tls", "error", cause, remedy);
        let uri = format!(
            "mongodb://root:{CANARY}@{address}/?tls=true&tlsCAFile={authority}&serverSelectionTimeoutMS=500"
        );
        let report = servers.mongo(uri).check(from_ref(&entry)).await;
        report.exits(69).has("mongodb_tls", "error", cause, remedy);
    }
    // A user who may do nothing, and the port of streams closed.
    let user = format!("{}-user", rig.name);
    rig.broker.ctl(&["add_user", &user, CANARY]).await;
    let nothing = ["set_permissions", "-p", "/", &user, "^$", "^$", "^$"];
    rig.broker.ctl(&nothing).await;
    let login = servers
        .rabbit
        .replace("guest:guest@", &format!("{user}:{CANARY}@"));
    let report = servers.rabbit(login).check(from_ref(&entry)).await;
    report.exits(1);
    let grant = format!(
        "rabbitmqctl set_permissions -p '/' USER '^{}$' '^amq\\.default$' READ",
        rig.name
    );
    for (cause, remedy) in [
        ("write on the exchange amq.default", grant.as_str()),
        (
            "lacks the permission configure to declare it",
            "have somebody declare the queue, or run the command of the first finding",
        ),
    ] {
        report.has("rabbitmq_permissions", "error", cause, remedy);
    }
    let untouched = servers.check(from_ref(&entry)).await;
    untouched.has("queue", "info", "there is no queue", "");
    rig.broker.ctl(&["delete_user", &user]).await;
    let mut closed = servers.clone();
    closed.stream = format!("rabbitmq-stream://guest:{CANARY}@{}", free_address());
    let entry = entry
        .with("rabbitmq.protocol", "stream")
        .with("rabbitmq.queue_type", "stream");
    let closed = closed.check(from_ref(&entry)).await;
    closed.only(&["stream_protocol"]).exits(69);
    closed.has(
        "stream_protocol",
        "error",
        "refused",
        "rabbitmq-plugins enable rabbitmq_stream",
    );
    let mut refused = servers.clone();
    refused.stream = refused
        .stream
        .replace("guest:guest@", &format!("guest:{CANARY}@"));
    let report = refused.check(from_ref(&entry)).await;
    report.only(&["stream_protocol"]).exits(1).has(
        "stream_protocol",
        "error",
        "the login",
        "of the RabbitMQ stream URI (MRCON_RABBITMQ_STREAM_URI)",
    );
    // A port of something else, and one without TLS.
    let management = rig.broker.management().replace("http://", "");
    let other = servers.rabbit(format!("amqp://guest:{CANARY}@{management}"));
    let report = other.check(&[rig.entry()]).await;
    report.only(&["rabbitmq_reachable"]).exits(69).has(
        "rabbitmq_reachable",
        "error",
        &management,
        "does not answer as RabbitMQ does",
    );
    let plain = servers.rabbit(servers.rabbit.replace("amqp://", "amqps://"));
    let report = plain.check(&[rig.entry()]).await;
    report.only(&["rabbitmq_tls"]).exits(69).has(
        "rabbitmq_tls",
        "error",
        "the server does not speak TLS there",
        "the port for TLS",
    );
    rig.clean().await;
}

#[tokio::test]
async fn alarm_is_not_found() {
    let broker = Broker::private().await;
    let rig = Rig::on(&Mongo::shared().await, &broker, "doctor-alarm").await;
    let servers = Servers::of(&rig);
    rig.mark(&rig.collection()).await;
    broker.block().await;
    let report = servers.check(&[rig.entry()]).await;
    report.exits(1).has(
        "alarm",
        "error",
        "memory on",
        "set_vm_memory_high_watermark",
    );
    broker.unblock().await;
    rig.clean().await;
}
