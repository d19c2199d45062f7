//! What there is in a MongoDB to watch, for whoever has to choose.
//!
//! ```no_run
//! use mrcon::inventory::Inventory;
//! use mrcon::uri::MongoUri;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let uri = MongoUri::parse("mongodb://127.0.0.1:27017/?replicaSet=rs0")?;
//! for found in Inventory::of(&uri).await?.found {
//!     let name = (&found.db, found.coll.as_deref().unwrap_or("*"));
//!     match &found.unfit {
//!         Some(reason) => println!("{name:?} cannot be watched: {reason}"),
//!         None => println!("{name:?}: {:?} documents", found.documents),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use crate::client::connect;
use crate::config::{CollectionConfig, Config, DEFAULT_TOKENS_DB_NAME, SYSTEM_DATABASES};
use crate::error::mongo::{Phase, server_code};
use crate::error::{Error, Result};
use crate::uri::MongoUri;
use bson::{Document, doc};
use futures_util::{StreamExt, TryStreamExt};
use mongodb::error::Result as DriverResult;
use mongodb::{Client, Database};
use std::time::Duration;
use tokio::time::timeout;

/// Most collections that are looked at; what comes beyond is counted.
pub const MAX_FOUND: usize = 10_000;

/// How long MongoDB may take for an answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// How many collections are counted at the same time: the way there and back is what takes long.
const COUNTED_AT_ONCE: usize = 8;

/// `Unauthorized`.
const UNAUTHORIZED: i32 = 13;

/// What a MongoDB has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inventory {
    /// Whether it has change streams at all: a replica set or a sharded cluster.
    pub has_change_streams: bool,
    /// Databases of which nothing can be watched, and collections, by name.
    pub found: Vec<Found>,
    /// How many there are beyond [`MAX_FOUND`].
    pub left_out: usize,
}

/// A database of which nothing can be watched, or a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// Name of the database.
    pub db: String,
    /// Name of the collection; `None` for a database as a whole.
    pub coll: Option<String>,
    /// Why it cannot be watched.
    pub unfit: Option<String>,
    /// How many documents it has, about; unknown without the right to count them.
    pub documents: Option<u64>,
    /// Whether MongoDB keeps images of its documents; unknown without the right to list collections.
    pub images: Option<bool>,
}

impl Inventory {
    #[doc(hidden)]
    /// Of databases, collections, and why they cannot be watched, with nothing known of them: for tests of what
    /// makes something of it.
    pub fn of_names<'a>(
        names: impl IntoIterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)>,
    ) -> Inventory {
        let found = names.into_iter().map(|(db, coll, unfit)| Found {
            db: db.to_owned(),
            coll: coll.map(str::to_owned),
            unfit: unfit.map(str::to_owned),
            documents: None,
            images: None,
        });
        Inventory {
            has_change_streams: true,
            found: found.collect(),
            left_out: 0,
        }
    }

    /// Looks at a MongoDB, with the rights that its URI has.
    ///
    /// # Errors
    /// When it cannot be reached, or lists no databases.
    pub async fn of(uri: &MongoUri) -> Result<Inventory> {
        let client = connect(uri, 0).await?;
        let admin = client.database("admin");
        let hello = admin.run_command(doc! {"hello": 1});
        let hello = answer("ask MongoDB who it is", hello.into_future()).await?;
        let is_router = hello.get_str("msg").is_ok_and(|words| words == "isdbgrid");
        let mut inventory = Inventory {
            has_change_streams: is_router || hello.contains_key("setName"),
            found: Vec::new(),
            left_out: 0,
        };
        let names = client.list_database_names().authorized_databases(true);
        let mut names = answer("list the databases", names.into_future()).await?;
        names.sort_unstable();
        for name in names {
            inventory.add_database(&client, &name).await?;
        }
        inventory.count(&client).await;
        Ok(inventory)
    }

    async fn add_database(&mut self, client: &Client, name: &str) -> Result<()> {
        if let Some(reason) = unfit_database(name) {
            self.found.push(Found {
                db: name.to_owned(),
                coll: None,
                unfit: Some(reason.to_owned()),
                documents: None,
                images: None,
            });
            return Ok(());
        }
        let listed = collections(&client.database(name)).await?;
        let mut listed: Vec<Found> = listed.iter().map(|one| found(name, one)).collect();
        listed.sort_unstable_by(|one, other| one.coll.cmp(&other.coll));
        let room = MAX_FOUND.saturating_sub(self.found.len());
        self.left_out += listed.len().saturating_sub(room);
        listed.truncate(room);
        self.found.append(&mut listed);
        Ok(())
    }

    /// What cannot be counted has no number, which keeps nobody from choosing it.
    async fn count(&mut self, client: &Client) {
        let fit = self
            .found
            .iter()
            .enumerate()
            .filter(|(_, one)| one.unfit.is_none());
        let counts = fit.filter_map(|(index, one)| {
            let name = one.coll.as_deref()?;
            let collection = client.database(&one.db).collection::<Document>(name);
            Some(async move {
                let count = collection.estimated_document_count().into_future();
                let count = timeout(DEADLINE, count).await;
                (index, count.ok().and_then(DriverResult::ok))
            })
        });
        let counts: Vec<_> = counts.collect();
        let counts = futures_util::stream::iter(counts).buffer_unordered(COUNTED_AT_ONCE);
        for (index, count) in counts.collect::<Vec<_>>().await {
            self.found[index].documents = count;
        }
    }
}

async fn answer<T>(what: &'static str, reply: impl Future<Output = DriverResult<T>>) -> Result<T> {
    let reply = timeout(DEADLINE, reply).await.map_err(|_| {
        let text = format!("{what}: no answer within {} s", DEADLINE.as_secs());
        Error::new(crate::ErrorKind::MongoConnection, text)
    })?;
    reply.map_err(|error| Error::mongo(Phase::Prepare, what, error))
}

/// The collections of a database as MongoDB describes them; by name only, where the user may not see more.
async fn collections(database: &Database) -> Result<Vec<Document>> {
    let list = async |name_only: bool| {
        let command =
            doc! {"listCollections": 1, "nameOnly": name_only, "authorizedCollections": true};
        let cursor = database.run_cursor_command(command).await?;
        cursor.try_collect::<Vec<Document>>().await
    };
    let whole = async {
        match list(false).await {
            Err(error) if server_code(&error) == Some(UNAUTHORIZED) => list(true).await,
            listed => listed,
        }
    };
    answer("list the collections", whole).await
}

fn found(db: &str, described: &Document) -> Found {
    let coll = described.get_str("name").unwrap_or_default();
    let images = described.get_document("options").ok().map(|options| {
        let images = options.get_document("changeStreamPreAndPostImages");
        images.is_ok_and(|images| images.get_bool("enabled").unwrap_or(false))
    });
    Found {
        db: db.to_owned(),
        coll: Some(coll.to_owned()),
        unfit: unfit_collection(db, coll, described.get_str("type").unwrap_or_default()),
        documents: None,
        images,
    }
}

fn unfit_database(name: &str) -> Option<&'static str> {
    if SYSTEM_DATABASES.contains(&name) {
        return Some("a database of MongoDB itself");
    }
    (name == DEFAULT_TOKENS_DB_NAME).then_some("positions and history of mrcon")
}

fn unfit_collection(db: &str, coll: &str, kind: &str) -> Option<String> {
    let reason = match kind {
        "view" => "a view, which has no change stream",
        "timeseries" => "a time series, which has no change stream",
        _ if coll.starts_with("system.") => "a collection of MongoDB itself",
        _ => return refused(db, coll),
    };
    Some(reason.to_owned())
}

/// What the rules of the configuration say of these names, and of a queue that is called after them.
fn refused(db: &str, coll: &str) -> Option<String> {
    let config = Config::new([CollectionConfig::new(db, coll, queue_name(db, coll))]);
    let problems = config.validate().err()?;
    let words = problems.iter().map(|problem| {
        let key = problem.key();
        let key = key.rsplit('.').next().unwrap_or_default();
        format!("{key} {}", problem.message())
    });
    Some(words.collect::<Vec<_>>().join(", "))
}

/// What a queue is called after a collection.
pub fn queue_name(db: &str, coll: &str) -> String {
    format!("{db}.{coll}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_watched_is_offered() {
        let unfit = |coll: &str, kind: &str| unfit_collection("shop", coll, kind);
        assert_eq!(unfit("orders", "collection"), None);
        // Of an older server, or without the right to see more.
        assert_eq!(unfit("orders", ""), None);
        for (coll, kind, words) in [
            ("totals", "view", "a view"),
            ("weather", "timeseries", "a time series"),
            ("system.views", "collection", "MongoDB itself"),
            ("a$b", "collection", "coll_name"),
            ("a.system.b", "collection", "coll_name"),
        ] {
            let reason = unfit(coll, kind).unwrap_or_else(|| panic!("{coll} is offered"));
            assert!(reason.contains(words), "{coll}: {reason}");
        }
        let long = "é".repeat(110);
        let reason = unfit(&long, "collection").unwrap_or_else(|| panic!("{long} is offered"));
        assert!(reason.contains("stream_name"), "{reason}");
        assert!(unfit_database("admin").is_some() && unfit_database("mrcon").is_some());
        assert_eq!(unfit_database("shop"), None);
    }

    #[test]
    fn images_are_taken_for_off_where_nobody_knows() {
        let found = |described: Document| found("shop", &described).images;
        assert_eq!(found(doc! {"name": "a", "type": "collection"}), None);
        assert_eq!(found(doc! {"name": "a", "options": {}}), Some(false));
        let on = doc! {"changeStreamPreAndPostImages": {"enabled": true}};
        assert_eq!(found(doc! {"name": "a", "options": on}), Some(true));
    }
}
