//! Generated documents and updates in real collections, each under generated rules: everything that
//! the rules cover is a canary, and nothing else is.

use super::{MARK, check_daemon, check_messages, check_text};
use crate::common::config::{Config, Entry};
use crate::common::daemon::Daemon;
use crate::common::rabbit::Collector;
use crate::common::rig::Rig;
use bson::{Bson, Document, doc};
use fastrand::Rng;
use futures_util::future::join_all;
use mongodb::Collection;
use mongodb::options::UpdateModifications;
use serde_json::{Value, json};

/// Connectors, and what is written for each.
const COLLECTIONS: u64 = 8;
const DOCUMENTS: i64 = 1000;
const UPDATES: usize = 700;
const PLAIN: [&str; 5] = ["a", "b", "c", "items", "list"];
const MASKED: [&str; 3] = ["ssn", "card", "emails"];

/// Where a masked name may stand, by the rule for it.
enum Cover {
    Everywhere,
    At(Vec<&'static str>),
}

struct Maker {
    rng: Rng,
    covers: Vec<Cover>,
    masks_id: bool,
}

impl Maker {
    fn new(seed: u64) -> Maker {
        let mut rng = Rng::with_seed(seed);
        let cover = |rng: &mut Rng| match rng.bool() {
            true => Cover::Everywhere,
            false => {
                let depth = rng.usize(0..3);
                Cover::At(
                    (0..depth)
                        .map(|_| PLAIN[rng.usize(..PLAIN.len())])
                        .collect(),
                )
            }
        };
        let covers = MASKED.iter().map(|_| cover(&mut rng)).collect();
        let masks_id = rng.bool();
        Maker {
            rng,
            covers,
            masks_id,
        }
    }

    fn rules(&mut self) -> Value {
        let mut rules = Vec::new();
        let mut action = || match self.rng.u32(0..3) {
            0 => json!({"action": "drop"}),
            1 => json!({"action": "mask"}),
            _ => json!({"action": "hash", "key": super::KEY}),
        };
        for (name, cover) in MASKED.iter().zip(&self.covers) {
            let mut rule = action();
            match cover {
                Cover::Everywhere => rule["pattern"] = json!(format!("(^|\\.){name}$")),
                Cover::At(path) => rule["path"] = json!([path, &[*name][..]].concat().join(".")),
            }
            rules.push(rule);
        }
        if self.masks_id {
            let mut rule = action();
            rule["path"] = json!("_id");
            rules.push(rule);
        }
        json!(rules)
    }

    fn canary(&mut self) -> Bson {
        let text: String = (0..8).map(|_| self.rng.alphanumeric()).collect();
        format!("{MARK}{text}").into()
    }

    /// A value of which nothing may be seen, not even the names in it.
    fn hidden(&mut self, depth: u32) -> Bson {
        let count = self.rng.usize(0..3);
        match self.rng.u32(0..8) {
            0 if depth < 3 => (0..count)
                .map(|_| {
                    (
                        self.canary().as_str().unwrap_or_default().to_owned(),
                        self.hidden(depth + 1),
                    )
                })
                .collect::<Document>()
                .into(),
            1 if depth < 3 => (0..count)
                .map(|_| self.hidden(depth + 1))
                .collect::<Vec<_>>()
                .into(),
            2 => (super::NUMBER + self.rng.i64(0..1_000_000)).into(),
            3 => Bson::Binary(bson::Binary {
                subtype: bson::spec::BinarySubtype::Generic,
                bytes: self
                    .canary()
                    .as_str()
                    .unwrap_or_default()
                    .as_bytes()
                    .to_vec(),
            }),
            4 => Bson::Null,
            _ => self.canary(),
        }
    }

    fn id(&self, number: i64) -> Bson {
        match self.masks_id {
            true => format!("{MARK}id{number}").into(),
            false => number.into(),
        }
    }

    /// Masked names that are covered in the document at this path.
    fn covered(&self, path: &[&str]) -> Vec<&'static str> {
        let names = MASKED.iter().zip(&self.covers);
        let covered = names.filter(|(_, cover)| match cover {
            Cover::Everywhere => true,
            Cover::At(at) => at == path,
        });
        covered.map(|(name, _)| *name).collect()
    }

    fn document(&mut self, path: &mut Vec<&'static str>) -> Document {
        let mut document = Document::new();
        for name in self.covered(path) {
            if self.rng.u32(0..3) > 0 {
                document.insert(name, self.hidden(0));
            }
        }
        for _ in 0..self.rng.usize(0..4) {
            let name = PLAIN[self.rng.usize(..PLAIN.len())];
            path.push(name);
            let value = self.value(path);
            document.insert(name, value);
            path.pop();
        }
        document
    }

    fn value(&mut self, path: &mut Vec<&'static str>) -> Bson {
        match self.rng.u32(0..5) {
            0 | 1 if path.len() < 4 => self.document(path).into(),
            2 if path.len() < 4 => {
                let count = self.rng.usize(1..4);
                let documents = (0..count).map(|_| Bson::from(self.document(path)));
                documents.collect::<Vec<_>>().into()
            }
            3 => "plain".into(),
            _ => self.rng.i32(0..1000).into(),
        }
    }

    fn whole(&mut self, number: i64) -> Document {
        let mut document = doc! {"_id": self.id(number), "n": number};
        document.extend(self.document(&mut Vec::new()));
        document
    }

    /// A path to something that is covered, with indexes of arrays in it, or to something below that; and
    /// which elements there have to be, or MongoDB would make fields of these names.
    fn dotted(&mut self) -> Option<(String, Document)> {
        let mut elements = Document::new();
        let mut path = Vec::new();
        let mut parts: Vec<String> = Vec::new();
        loop {
            let covered = self.covered(&path);
            if !covered.is_empty() && (path.len() == 3 || self.rng.bool()) {
                parts.push(covered[self.rng.usize(..covered.len())].to_owned());
                match self.rng.u32(0..4) {
                    0 => parts.push(self.canary().as_str()?.to_owned()),
                    1 => parts.push(self.rng.u32(0..3).to_string()),
                    _ => {}
                }
                return Some((parts.join("."), elements));
            }
            if path.len() == 3 {
                return None;
            }
            let name = PLAIN[self.rng.usize(..PLAIN.len())];
            path.push(name);
            parts.push(name.to_owned());
            if self.rng.u32(0..3) == 0 {
                parts.push(self.rng.u32(0..3).to_string());
                elements.insert(parts.join("."), doc! {"$exists": true});
            }
        }
    }

    /// An update, which may be one that MongoDB refuses for a document that is not made like this.
    fn update(&mut self) -> Option<(Document, UpdateModifications)> {
        let (path, elements) = self.dotted()?;
        let set = path.clone();
        let update = match self.rng.u32(0..6) {
            0 => doc! {"$unset": {path: 1}, "$inc": {"n": 1}}.into(),
            1 => doc! {"$push": {path: self.hidden(1)}}.into(),
            2 => {
                let name = PLAIN[self.rng.usize(..PLAIN.len())];
                let value = self.value(&mut vec![name]);
                doc! {"$set": {name: value}}.into()
            }
            3 => {
                let name = ["items", "list", "a"][self.rng.usize(..3)];
                let array = doc! {"$cond": [{"$isArray": format!("${name}")}, {"$slice": [format!("${name}"), 1]}, 5]};
                UpdateModifications::Pipeline(vec![doc! {"$set": {name: array}}])
            }
            4 => {
                let mut name = vec!["items"];
                let value = self.document(&mut name);
                doc! {"$push": {"items": value}}.into()
            }
            _ => doc! {"$set": {set: self.hidden(0)}}.into(),
        };
        Some((elements, update))
    }
}

/// Writes, and says how many events that makes.
async fn write(collection: &Collection<Document>, maker: &mut Maker) -> usize {
    let documents: Vec<Document> = (0..DOCUMENTS).map(|number| maker.whole(number)).collect();
    collection.insert_many(documents).await.unwrap();
    let mut events = DOCUMENTS as usize;
    for _ in 0..UPDATES {
        let number = maker.rng.i64(0..DOCUMENTS);
        let mut key = doc! {"_id": maker.id(number)};
        events += match maker.rng.u32(0..12) {
            0 => collection.delete_one(key).await.unwrap().deleted_count as usize,
            1 => {
                let replaced = collection.replace_one(key, maker.whole(number)).await;
                replaced.unwrap().modified_count as usize
            }
            _ => {
                let Some((elements, update)) = maker.update() else {
                    continue;
                };
                key.extend(elements);
                let updated = collection.update_one(key, update).await;
                updated.map_or(0, |updated| updated.modified_count as usize)
            }
        };
    }
    events
}

fn labels(rig: &Rig) -> Value {
    let metric = |number: usize, name: &str| {
        json!({
            "name": format!("masked_{number}_total"), "help": "Masked", "type": "counter",
            "collection": format!("^{}\\.", rig.name), "max_series": 10_000,
            "labels": {
                "full": format!("fullDocument.{name}"), "deep": format!("fullDocument.a.{name}"),
                "updated": format!("updateDescription.updatedFields.{name}"), "id": "documentKey._id",
            },
        })
    };
    json!(
        MASKED
            .iter()
            .enumerate()
            .map(|(number, name)| metric(number, name))
            .collect::<Vec<_>>()
    )
}

#[tokio::test]
async fn value_of_a_generated_document_leaves() {
    let rig = Rig::new("mask-generated").await;
    let database = rig.client.database(&rig.name);
    let dead = format!("{}.dead", rig.name);
    let mut makers = Vec::new();
    let mut entries: Vec<Entry> = Vec::new();
    for seed in 0..COLLECTIONS {
        let name = format!("c{seed}");
        let images = doc! {"create": &name, "changeStreamPreAndPostImages": {"enabled": true}};
        database.run_command(images).await.unwrap();
        let mut maker = Maker::new(seed);
        let entry = rig
            .entry_for(&name, &format!("{}-{name}", rig.name))
            .with("mask", maker.rules())
            .with("format", ["relaxed", "canonical"][seed as usize % 2])
            .with("watched.change_stream_pre_and_post_images", true)
            .with("rabbitmq.max_message_bytes", 2_000)
            .with(
                "rabbitmq.on_oversize",
                ["dead_letter", "strip_images"][seed as usize / 2 % 2],
            )
            .with("rabbitmq.on_nack", "dead_letter")
            .with("rabbitmq.dead_letter", json!({"routing_key": &dead}));
        makers.push((name, maker));
        entries.push(entry);
    }
    let config = Config::new(entries.clone()).with_custom(labels(&rig));
    let uris = rig.uris();
    let variables = [
        ("MRCON_MONGO_URI", uris.mongo.as_str()),
        ("MRCON_RABBITMQ_URI", &uris.rabbit),
        ("MRCON_LOG", "trace"),
    ];
    let mut daemon = Daemon::spawn_with(&config, &variables, &[]);
    daemon.ready().await;
    let writers = makers.iter_mut().map(|(name, maker)| {
        let collection = rig.collection_named(name);
        async move { write(&collection, maker).await }
    });
    let written = join_all(writers).await;
    for (events, entry) in written.iter().zip(&entries) {
        daemon.confirmed(&entry.name(), *events).await;
    }
    let total: usize = written.iter().sum();
    assert!(total >= 10_000, "{total} events");
    check_daemon(&daemon, &rig).await;
    let ended = daemon.terminate().await;
    check_text("the log", &ended.log);
    let mut messages = 0;
    for (name, _) in &makers {
        let queue = format!("{}-{name}", rig.name);
        let deliveries = Collector::drain(&rig.broker, &queue).await;
        check_messages(name, &deliveries);
        messages += deliveries.len();
        rig.broker.delete(&queue).await;
    }
    let letters = Collector::drain(&rig.broker, &dead).await;
    check_messages("a dead letter", &letters);
    assert!(letters.len() > 10, "{} dead letters", letters.len());
    assert_eq!(messages + letters.len(), total);
    rig.broker.delete(&dead).await;
    rig.clean().await;
}
