//! `mrcond check --sample`: the message that the next event would become.

use super::{Servers, rig, things};
use bson::doc;
use serde_json::{Value, json};
use std::slice::from_ref;

#[tokio::test]
async fn sample_is_another_message_or_is_published() {
    let rig = rig("doctor-sample").await;
    let servers = Servers::of(&rig);
    let entry = rig
        .entry_for("orders", &rig.name)
        .with("format", "document")
        .with("mask", json!([{"path": "card", "action": "drop"}]))
        .with("rabbitmq.exchange", format!("{}-events", rig.name))
        .with(
            "rabbitmq.headers",
            json!({"region": "{fullDocument.region}"}),
        );
    let sample = async |arguments: &[&str]| {
        let (code, told, complaint) = servers.run(from_ref(&entry), arguments).await;
        assert_eq!(code, Some(0), "{complaint}");
        told
    };
    let empty = sample(&["--sample"]).await;
    assert!(empty.contains("no message: there is no event"), "{empty}");
    let orders = rig.collection();
    for number in 1..=3 {
        let order = doc! {"_id": number, "region": "eu", "card": "4111", "about": 1};
        orders.insert_one(order).await.unwrap();
    }
    let told = sample(&["--json", "--sample"]).await;
    assert!(
        told.find("\"region\": \"eu\"") < told.find("\"about\""),
        "in another order: {told}"
    );
    let told: Value = serde_json::from_str(&told).unwrap();
    let one = &told[0];
    assert_eq!(one["exchange"], format!("{}-events", rig.name));
    assert_eq!(one["routing_key"], format!("{}.orders.insert", rig.name));
    assert_eq!(one["body"], json!({"_id": 3, "region": "eu", "about": 1}));
    assert_eq!(one["headers"]["region"], "eu");
    assert_eq!(one["headers"]["x-mrcon-coll"], "orders");
    assert_eq!(one["properties"]["content_type"], "application/json");
    assert_eq!(one["properties"]["type"], "insert");
    let name = format!("{}.orders", rig.name);
    let told = sample(&["--sample", &name]).await;
    assert!(
        told.contains("routing key:  ") && told.contains("\"_id\": 3"),
        "{told}"
    );
    assert!(!told.contains("4111"), "{told}");
    assert_eq!(
        things(&rig).await,
        Vec::<String>::new(),
        "nothing is declared"
    );
    // The event that waits behind a saved position comes first.
    let daemon = rig.start(from_ref(&entry)).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    orders.delete_one(doc! {"_id": 2}).await.unwrap();
    let told = sample(&["--json", "--sample"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told[0]["properties"]["type"], "delete", "{told}");
    assert_eq!(
        told[0]["routing_key"],
        format!("{}.orders.delete", rig.name)
    );
    let (code, _, complaint) = servers
        .run(from_ref(&entry), &["--sample", "shop.none"])
        .await;
    assert_eq!(code, Some(64));
    assert!(complaint.contains(&entry.name()), "{complaint}");
    // Without one it is the newest document again, with the number that comes next.
    let exchange = format!("{}-events", rig.name);
    rig.broker.declare(&rig.name, &[]).await;
    rig.broker.bind(&rig.name, &exchange, "#", &[]).await;
    let daemon = rig.start(from_ref(&entry)).await;
    daemon.confirmed(&entry.name(), 1).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    let told = sample(&["--json", "--sample"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told[0]["headers"]["x-mrcon-seq"], 2, "{told}");
    // Of a whole database, by the name of a collection.
    let wide = rig.entry_for("*", &format!("{}-{{coll}}", rig.name));
    let (_, told, _) = servers.run(&[wide], &["--json", "--sample", &name]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told[0]["routing_key"], format!("{}-orders", rig.name));
    rig.broker
        .delete_exchange(&format!("{}-events", rig.name))
        .await;
    rig.clean().await;
}
