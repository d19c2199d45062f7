//! What can be wrong with MongoDB.

use super::{CANARY, ROOT, Servers, create, least, on, rig, user};
use crate::common::config::Entry;
use crate::common::daemon::free_address;
use crate::common::mongo::{self, Mongo};
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::services::unique;
use bson::doc;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::slice::from_ref;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn fault_of_mongodb_is_not_found() {
    let rig = rig("doctor-mongo").await;
    let servers = Servers::of(&rig);
    let entry = rig.entry();
    let name = |end: &str| format!("{}-{end}", rig.name);
    // No collection, and images that it will not keep.
    let required = entry
        .clone()
        .with("watched.full_document_before_change", "required");
    servers
        .check(from_ref(&entry))
        .await
        .only(&["collection"])
        .exits(0)
        .has(
            "collection",
            "warning",
            "there is no collection",
            "correct watched.db_name",
        );
    servers.check(from_ref(&required)).await.exits(1).has(
        "images",
        "error",
        "will keep none",
        "createCollection(\"orders\", {changeStreamPreAndPostImages: {enabled: true}})",
    );
    create(&rig, "orders", false).await;
    servers.check(from_ref(&required)).await.only(&["images"]).exits(1).has(
        "images",
        "error",
        "the first update or delete stops the connector",
        &format!(
            "db.getSiblingDB(\"{}\").runCommand({{collMod: \"orders\", changeStreamPreAndPostImages: {{enabled: true}}}})",
            rig.name
        ),
    );
    let wished = entry
        .clone()
        .with("watched.full_document", "when_available");
    servers
        .check(from_ref(&wished))
        .await
        .only(&["images"])
        .exits(0);
    // A pipeline that MongoDB refuses.
    let stage = json!([{"$match": {"$expr": {"$noSuchOperator": 1}}}]);
    let pipeline = entry.clone().with("watched.pipeline", stage);
    let report = servers.check(from_ref(&pipeline)).await;
    report
        .only(&["change_stream"])
        .has("change_stream", "error", "$noSuchOperator", "pipeline");
    // Rights: on the collection, and on the store.
    let mut rights = least(&rig);
    rights[0] = on(&rig.name, "orders", &["find"]);
    let login = user(&rig, &name("blind"), rights).await;
    let blind = servers.as_user(&login).check(from_ref(&entry)).await;
    blind.only(&["mongodb_rights", "change_stream"]).exits(1);
    let grant = format!(
        "privileges = [{{resource: {{db: \"{}\", collection: \"orders\"}}, actions: [\"changeStream\"]}}]; \
         admin.getRole(\"mrcon\") ? admin.grantPrivilegesToRole(\"mrcon\", privileges) : \
         admin.createRole({{role: \"mrcon\", privileges, roles: []}}); \
         db.getSiblingDB(\"admin\").grantRolesToUser(\"{}\", [{{role: \"mrcon\", db: \"admin\"}}])",
        rig.name,
        name("blind")
    );
    blind.has("mongodb_rights", "error", "lacks changeStream", &grant);
    let mut rights = least(&rig);
    rights[1] = on(&rig.tokens_database(), "resume_tokens", &["find"]);
    let login = user(&rig, &name("mute"), rights).await;
    let mute = servers.as_user(&login).check(from_ref(&entry)).await;
    mute.only(&["mongodb_rights", "token_store"]).exits(1);
    mute.has(
        "mongodb_rights",
        "error",
        "lacks insert, update on",
        "actions: [\"insert\", \"update\"]",
    );
    mute.has(
        "token_store",
        "error",
        "positions cannot be saved",
        "grant find, insert and update",
    );
    // Nothing is known of a position that may not be read.
    let mut rights = least(&rig);
    rights.remove(1);
    let login = user(&rig, &name("deaf"), rights).await;
    let deaf = servers.as_user(&login).check(from_ref(&entry)).await;
    deaf.only(&["mongodb_rights", "token_store", "position"])
        .exits(1)
        .has(
            "position",
            "error",
            "not authorized",
            "the command stands at mongodb_rights",
        );
    let of_position = |one: &&Value| one["check"] == "position";
    assert_eq!(deaf.findings.iter().filter(of_position).count(), 1);
    // Images that the user may not turn on.
    let enables = entry
        .clone()
        .with("watched.change_stream_pre_and_post_images", true);
    let login = user(&rig, &name("dull"), least(&rig)).await;
    let dull = servers.as_user(&login).check(from_ref(&enables)).await;
    dull.only(&["mongodb_rights"]).exits(1).has(
        "mongodb_rights",
        "error",
        "lacks collMod on",
        "actions: [\"collMod\"]",
    );
    // A position that is not this connector's, and one of other options.
    let daemon = rig.start(from_ref(&entry)).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // What is no collection has no stream, which is said once.
    let database = rig.client.database(&rig.name);
    for command in [
        doc! {"create": "view", "viewOn": "orders", "pipeline": []},
        doc! {"create": "series", "timeseries": {"timeField": "t"}},
    ] {
        database.run_command(command).await.unwrap();
    }
    for (collection, cause, remedy) in [
        ("view", "is a view", "that it is a view of"),
        ("series", "is a time series", "a plain collection"),
    ] {
        let entry = rig.entry_for(collection, &rig.name);
        let report = servers.check(&[entry]).await;
        report.only(&["collection"]).exits(1);
        report.has("collection", "error", cause, remedy);
    }
    servers.check(from_ref(&wished)).await.has(
        "position",
        "error",
        "other values of `full_document`",
        &format!("mrcond position accept '{}'", entry.name()),
    );
    rig.tokens()
        .update_one(doc! {}, doc! {"$set": {"seq": 77_i64}})
        .await
        .unwrap();
    let foreign = servers.check(from_ref(&entry)).await;
    foreign.only(&["position"]).exits(1).has(
        "position",
        "error",
        "edited by hand",
        "position accept",
    );
    rig.tokens()
        .update_one(doc! {}, doc! {"$set": {"token": "x"}})
        .await
        .unwrap();
    let corrupt = servers.check(from_ref(&entry)).await;
    corrupt
        .only(&["position"])
        .has("position", "error", "`token`", "position reset");
    rig.clean().await;
}

#[tokio::test]
async fn mongodb_that_does_not_let_us_in_is_taken_for_another_fault() {
    let rig = rig("doctor-login").await;
    let servers = Servers::of(&rig);
    let entry = rig.entry();
    rig.mark(&rig.collection()).await;
    let soon = |uri: &str| format!("{uri}&serverSelectionTimeoutMS=1000");
    let wrong = servers.as_user(&format!("root:{CANARY}@"));
    let wrong = wrong.check(from_ref(&entry)).await;
    wrong.only(&["mongodb_login"]).exits(1);
    let host = servers.mongo.split(['@', '/']).nth(3).unwrap();
    wrong.has(
        "mongodb_login",
        "error",
        &format!("{host}: ask MongoDB what it is: authentication failed"),
        "user, password and authSource",
    );
    let nobody = servers.mongo(
        servers
            .mongo
            .replace(ROOT, "")
            .replace("&authSource=admin", ""),
    );
    let nobody = nobody.check(from_ref(&entry)).await;
    nobody
        .only(&["mongodb_login"])
        .has("mongodb_login", "error", "has none", "user:password@host");
    let other = servers.mongo(soon(
        &servers.mongo.replace("replicaSet=rs0", "replicaSet=rs9"),
    ));
    let other = other.check(from_ref(&entry)).await;
    other.only(&["mongodb_reachable"]).exits(69);
    other.has(
        "mongodb_reachable",
        "error",
        "is called rs0, not rs9",
        "write replicaSet=rs0",
    );
    let address = free_address();
    let away = format!("mongodb://root:{CANARY}@{address}/?serverSelectionTimeoutMS=500");
    let away = servers.mongo(away).check(from_ref(&entry)).await;
    away.only(&["mongodb_reachable"]).exits(69);
    away.has(
        "mongodb_reachable",
        "error",
        &format!("no suitable MongoDB server: {address}: Connection refused"),
        &address.to_string(),
    );
    // A clock that is a minute ahead.
    let (host, _) = servers.mongo.split_once("/?").unwrap();
    let (login, real) = host.rsplit_once('@').unwrap();
    let ahead = ahead_by_a_minute(real.parse().unwrap()).await;
    let ahead = format!("{login}@{ahead}/?directConnection=true&authSource=admin");
    let ahead = servers.mongo(ahead).check(from_ref(&entry)).await;
    ahead.only(&["mongodb_clock"]).exits(0);
    ahead.has(
        "mongodb_clock",
        "warning",
        "s ahead of that of this machine",
        "NTP",
    );
    rig.clean().await;
}

/// A way to MongoDB on which its answers tell another time.
async fn ahead_by_a_minute(server: SocketAddr) -> SocketAddr {
    const FIELD: &[u8] = b"\x09localTime\0";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                // Whole messages, so that the field is never cut in two.
                while let Ok(size) = from_server.read_u32_le().await {
                    let mut message = size.to_le_bytes().to_vec();
                    message.resize(size as usize, 0);
                    from_server.read_exact(&mut message[4..]).await?;
                    let found = message.windows(FIELD.len()).position(|part| part == FIELD);
                    if let Some(at) = found.map(|at| at + FIELD.len()) {
                        let bytes = message[at..at + 8].try_into().unwrap_or_default();
                        let later = i64::from_le_bytes(bytes) + 60_000;
                        message[at..at + 8].copy_from_slice(&later.to_le_bytes());
                    }
                    to_client.write_all(&message).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    address
}

#[tokio::test]
async fn standalone_server_or_lost_position_is_not_found() {
    let broker = Broker::shared().await;
    let alone = async {
        let mongo = Mongo::standalone().await;
        let servers = Servers::at(&mongo.uri, &broker);
        let entry = Entry::new("shop", "orders", &unique("doctor-alone"));
        let report = servers.check(from_ref(&entry)).await;
        report.only(&["mongodb_topology"]).exits(1);
        report.has("mongodb_topology", "error", "standalone", "--replSet rs0");
        report.has("mongodb_topology", "error", "standalone", "rs.initiate()");
        // Also where the URI asks for a replica set.
        let set = format!(
            "{}&replicaSet=rs0&serverSelectionTimeoutMS=1000",
            servers.mongo
        );
        let set = match servers.mongo.contains('?') {
            true => set,
            false => set.replacen('&', "?", 1),
        };
        let report = servers.mongo(set).check(from_ref(&entry)).await;
        report.only(&["mongodb_topology"]).has(
            "mongodb_topology",
            "error",
            "standalone",
            "rs.initiate()",
        );
        mongo.remove().await;
    };
    let lost = async {
        let mongo = Mongo::start(unique("mongo-small"), &["--oplog-mb", "16"]).await;
        let rig = Rig::on(&mongo, &broker, "doctor-lost").await;
        let servers = Servers::at(&mongo.uri, &broker);
        let entry = rig.entry();
        rig.mark(&rig.collection()).await;
        let daemon = rig.start(from_ref(&entry)).await;
        assert_eq!(daemon.terminate().await.code, Some(0));
        rig.mark(&rig.collection()).await;
        mongo::roll_over(&rig.client).await;
        let report = servers.check(from_ref(&entry)).await;
        report.exits(1).has(
            "position",
            "error",
            "have left the oplog",
            &format!("mrcond position reset '{}' --yes", entry.name()),
        );
        report.has(
            "oplog_window",
            "warning",
            "is full and reaches back",
            "replSetResizeOplog",
        );
        let goes_on = entry.with("watched.on_history_lost", "now");
        let report = servers.check(from_ref(&goes_on)).await;
        report.exits(0).has(
            "position",
            "warning",
            "have left the oplog",
            "behind a gap record",
        );
        rig.broker.delete(&rig.name).await;
        mongo.remove().await;
    };
    tokio::join!(alone, lost);
}
