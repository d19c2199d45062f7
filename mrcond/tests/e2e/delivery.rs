//! What arrives when nothing fails.

use crate::common::load;
use crate::common::oracle::{AT_LEAST_ONCE, Verdict};
use crate::common::rabbit::Collector;
use crate::common::rig::Rig;
use bson::doc;

const NOTHING_TWICE: Verdict = Verdict { repeats: 0, replays: 0 };

#[tokio::test]
async fn insert_update_replace_or_delete_arrives_otherwise_than_mongodb_reports_it() {
    let rig = Rig::new("operations").await;
    let entry = rig.entry().with("rabbitmq.queue_type", "quorum");
    let daemon = rig.start(std::slice::from_ref(&entry)).await;
    let orders = rig.collection();
    load::insert(&orders, 0, 20).await;
    orders.update_one(doc! {"_id": 3_i64}, doc! {"$set": {"price": 1.0}, "$unset": {"note": ""}}).await.unwrap();
    orders.update_one(doc! {"_id": 4_i64}, vec![doc! {"$set": {"lines": {"$slice": ["$lines", 1]}}}]).await.unwrap();
    orders.replace_one(doc! {"_id": 5_i64}, doc! {"all": "new"}).await.unwrap();
    orders.delete_one(doc! {"_id": 6_i64}).await.unwrap();
    let truth = rig.truth().await;
    let mut kinds: Vec<&str> = truth.iter().map(|event| event.operation()).collect();
    kinds.dedup();
    assert_eq!(kinds, ["insert", "update", "replace", "delete", "insert"]);
    daemon.confirmed(&entry.name(), truth.len()).await;
    let collector = Collector::start(&rig.broker, &rig.name).await;
    let verdict = rig.judge(&truth, &collector.finish().await, AT_LEAST_ONCE);
    assert_eq!(verdict, NOTHING_TWICE);
    assert_eq!(daemon.terminate().await.code, Some(0));
    rig.clean().await;
}
