//! A login whose password must not appear in anything that the daemon says.

use super::rabbit::{Broker, Delivery};
use super::wait::{PATIENTLY, eventually};
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, Cursor};
use std::collections::BTreeSet;
use tokio::sync::Mutex;

const USER: &str = "canary";
/// As it stands in a URI, and what it means: a character that has to be escaped, and one that JSON escapes.
const IN_URI: &str = "Zq9canary%22pw%40x";
const PLAIN: &str = "Zq9canary\"pw@x";
/// A secret of another kind.
pub(crate) const MASK_KEY: &str = "Zq9canary-key-of-a-mask";
/// What every form of it has: as it is, in base64 at any of three places, in hexadecimal.
const FORMS: [&str; 6] = [
    "Zq9canary",
    "WnE5Y2FuYXJ5",
    "pxOWNhbmFye",
    "acTljYW5hcnki",
    "5a713963616e617279",
    "5A713963616E617279",
];

/// Brokers that know the user.
static KNOWN: Mutex<BTreeSet<String>> = Mutex::const_new(BTreeSet::new());

/// Makes the user known to both servers, with the right to everything.
pub(crate) async fn admit(mongo: &Client, broker: &Broker) {
    let user = doc! {"createUser": USER, "pwd": PLAIN, "roles": ["root"]};
    let made = mongo.database("admin").run_command(user).await;
    if let Err(error) = made {
        // It is there already.
        let text = error.to_string();
        assert!(text.contains("51003"), "make the user {USER}: {text}");
    }
    let mut known = KNOWN.lock().await;
    if known.contains(&broker.uri) {
        return;
    }
    let make = format!(
        "rabbit_auth_backend_internal:put_user(#{{name => <<\"{USER}\">>, password => <<\"Zq9canary\\\"pw@x\">>, \
         tags => <<>>, permissions => #{{<<\"/\">> => #{{<<\"configure\">> => <<\".*\">>, <<\"write\">> => <<\".*\">>, \
         <<\"read\">> => <<\".*\">>}}}}}}, <<\"tests\">>)."
    );
    broker.ctl(&["eval", &make]).await;
    known.insert(broker.uri.clone());
}

/// The same server with this login, unless the URI has one of its own.
pub(crate) fn planted(uri: &str) -> String {
    let (scheme, rest) = uri
        .split_once("://")
        .unwrap_or_else(|| unreachable!("a URI has a scheme"));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((login, _)) if login != "guest:guest" => uri.to_owned(),
        Some((_, host)) => format!("{scheme}://{USER}:{IN_URI}@{host}{}", &rest[end..]),
        None => format!("{scheme}://{USER}:{IN_URI}@{rest}"),
    }
}

/// Fails if the password is in a text, in whatever form.
#[track_caller]
pub(crate) fn check(place: &str, text: &str) {
    for form in FORMS {
        if let Some(at) = text.find(form) {
            let begin = text[..at].rfind('\n').map_or(0, |line| line + 1);
            let line = text[begin..].lines().next().unwrap_or_default();
            panic!("{place} has a password: {line}");
        }
    }
}

/// The same for what consumers get.
#[track_caller]
pub(crate) fn check_delivery(delivery: &Delivery) {
    check("a message", &String::from_utf8_lossy(&delivery.body));
    check("a header", &format!("{:?}", delivery.headers));
}

/// What the broker shows of its clients and of what they have declared, once it shows the daemon.
pub(crate) async fn shown_by_broker(broker: &Broker) -> Vec<String> {
    eventually(PATIENTLY, "the broker shows the daemon", async || {
        let shown = shown_now(broker).await;
        match shown.is_empty() || shown.iter().any(|text| text.contains("\"mrcon\"")) {
            true => Ok(shown),
            false => Err(shown.join("\n")),
        }
    })
    .await
}

/// Nothing, of a broker that was not started here.
async fn shown_now(broker: &Broker) -> Vec<String> {
    let mut all = Vec::new();
    for kind in [
        "connections",
        "channels",
        "consumers",
        "queues",
        "exchanges",
        "bindings",
        "stream/connections",
        "stream/publishers",
    ] {
        all.extend(broker.shown(&format!("/api/{kind}")).await);
    }
    all
}

/// What MongoDB shows of its clients, and what was written into a database, each with its collection.
pub(crate) async fn shown_by_mongo(mongo: &Client, database: &str) -> Vec<String> {
    let clients = doc! {"$currentOp": {"allUsers": true, "idleConnections": true}};
    let clients = mongo.database("admin").aggregate([clients]).await;
    let clients = clients.unwrap_or_else(|error| panic!("list the clients: {error}"));
    let mut all = texts("client", clients).await;
    let database = mongo.database(database);
    let names = database.list_collection_names().await;
    for name in names.unwrap_or_else(|error| panic!("list the collections: {error}")) {
        let found = database.collection::<Document>(&name).find(doc! {}).await;
        let found = found.unwrap_or_else(|error| panic!("read {name}: {error}"));
        all.extend(texts(&name, found).await);
    }
    all
}

async fn texts(kind: &str, documents: Cursor<Document>) -> Vec<String> {
    let documents = documents.map_ok(|document| format!("{kind}: {document}"));
    let texts = documents.try_collect().await;
    texts.unwrap_or_else(|error| panic!("{kind}: {error}"))
}

#[test]
fn form_of_the_password_is_overlooked() {
    let forms = [
        PLAIN.to_owned(),
        IN_URI.to_owned(),
        format!("{PLAIN:?}"),
        "AGNhbmFyeQBacTljYW5hcnkicHdAeA==".to_owned(),
    ];
    for form in forms {
        let found = std::panic::catch_unwind(|| check("it", &form));
        assert!(found.is_err(), "{form}");
    }
    check("it", "canary@host");
    assert_eq!(
        planted("amqp://guest:guest@a:1/%2f"),
        format!("amqp://canary:{IN_URI}@a:1/%2f")
    );
    assert_eq!(
        planted("mongodb://a:1,b:2/?x=y@z"),
        format!("mongodb://canary:{IN_URI}@a:1,b:2/?x=y@z")
    );
    assert_eq!(planted("amqp://u:p@a/"), "amqp://u:p@a/");
}
