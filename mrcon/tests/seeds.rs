//! What the fuzzer begins with, and what it checks, on stable Rust. See `fuzz/README.md`.

#[path = "../../fuzz/checks/mod.rs"]
mod checks;
#[path = "envelope/values.rs"]
#[expect(dead_code, reason = "what the values must become is for other tests")]
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use values::{document_bytes, element, string};

/// The elements are those of a `fullDocument`, in an event with a token; see `checks/encode.rs`.
const FULL_DOCUMENT: u8 = 1;
/// They are those of the event itself, without a token.
const EVENT: u8 = 128;

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The files of a folder, by name.
fn files(path: &str) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(&path).unwrap())
    };
    let found = fs::read_dir(folder(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    found.map(read).collect()
}

/// A name as a file may have it.
fn slug(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.chars().map(plain).collect()
}

/// A value of each type of BSON, every strange key, and a whole event.
fn encode_seeds() -> BTreeMap<String, Vec<u8>> {
    let mut kinds = BTreeSet::new();
    let mut seeds = BTreeMap::new();
    let mut add = |name: &str, shape: u8, elements: &[u8]| {
        seeds.insert(slug(name), [&[shape], elements].concat());
    };
    for value in values::values() {
        if kinds.insert(value.kind) || value.lossy {
            let elements = element(value.kind, b"v", &value.bytes);
            add(value.name, FULL_DOCUMENT, &elements);
        }
    }
    for elements in values::elements() {
        add(elements.name, FULL_DOCUMENT, &elements.bytes);
    }
    add("an event", EVENT, &event());
    seeds
}

fn event() -> Vec<u8> {
    let document = |key: &[u8], elements: &[u8]| element(0x03, key, &document_bytes(elements));
    let text = |key: &[u8], value: &[u8]| element(0x02, key, &string(value));
    let id = element(0x12, b"_id", &7_i64.to_le_bytes());
    let inside = document(b"a", &element(0x10, b"b", &5_i32.to_le_bytes()));
    [
        document(b"_id", &text(b"_data", b"8266670F7B")),
        text(b"operationType", b"insert"),
        element(0x11, b"clusterTime", &[1, 0, 0, 0, 2, 0, 0, 0]),
        element(0x09, b"wallTime", &1_718_000_123_456_i64.to_le_bytes()),
        document(b"fullDocument", &[&id[..], &inside].concat()),
        document(
            b"ns",
            &[text(b"db", b"shop"), text(b"coll", b"orders")].concat(),
        ),
        document(b"documentKey", &id),
    ]
    .concat()
}

/// What masking looks into: every value in a document, and an update; see `checks/mask.rs`.
fn mask_seeds() -> BTreeMap<String, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    for (name, seed) in encode_seeds() {
        let elements = &seed[1..];
        let shape = match seed[0] {
            FULL_DOCUMENT => 128,
            _ => 0,
        };
        seeds.insert(name, [&[shape], elements].concat());
    }
    let document = |key: &[u8], elements: &[u8]| element(0x03, key, &document_bytes(elements));
    let list = |key: &[u8], elements: &[u8]| element(0x04, key, &document_bytes(elements));
    let text = |key: &[u8], value: &[u8]| element(0x02, key, &string(value));
    let fields = [
        text(b"a.b", b"x"),
        text(b"a.0.c", b"x"),
        text(b"b.5.c.x", b"x"),
        document(b"a.5", &text(b"b", b"x")),
        list(b"a", &document(b"0", &text(b"c", b"x"))),
    ]
    .concat();
    let array = [
        text(b"field", b"a.b"),
        element(0x10, b"newSize", &[1, 0, 0, 0]),
    ]
    .concat();
    let described = [
        document(b"updatedFields", &fields),
        list(
            b"removedFields",
            &[text(b"0", b"a.b.c"), text(b"1", b"d")].concat(),
        ),
        list(b"truncatedArrays", &document(b"0", &array)),
        document(b"disambiguatedPaths", &list(b"a.0", &text(b"0", b"a"))),
    ]
    .concat();
    let update = [
        text(b"operationType", b"update"),
        document(b"documentKey", &text(b"_id", b"x")),
        document(b"updateDescription", &described),
    ]
    .concat();
    let index = document(
        b"0",
        &[document(b"key", &text(b"a.b", b"x")), text(b"name", b"n")].concat(),
    );
    let created = [
        text(b"operationType", b"createIndexes"),
        document(b"operationDescription", &list(b"indexes", &index)),
    ]
    .concat();
    let gap = [
        text(b"operationType", b"gap"),
        document(
            b"gap",
            &document(b"lastPosition", &document(b"token", &text(b"_data", b"82"))),
        ),
    ]
    .concat();
    for (name, event) in [("update", update), ("created", created), ("gap", gap)] {
        for rules in 0..4 {
            seeds.insert(format!("{name}-{rules}"), [&[rules], &event[..]].concat());
        }
    }
    seeds
}

/// Whole URIs, and what stands before and behind a password.
fn uri_seeds() -> BTreeMap<String, Vec<u8>> {
    let seeds = [
        (
            "amqp",
            "amqp://user:pa%40ss@host:5672/v%2fh?heartbeat=5&channel_max=7",
        ),
        (
            "amqps",
            "amqps://h?cacertfile=/ca.pem&certfile=/c.pem&keyfile=/k.pem&verify=verify_none\
             &server_name_indication=b&auth_mechanism=EXTERNAL&connection_timeout=2500&frame_max=8192",
        ),
        ("stream", "rabbitmq-stream+tls://user@[::1]:5551/%2F"),
        (
            "mongodb",
            "mongodb://u:p%2F@a:27017,b:27018/db?replicaSet=rs0&tls=true",
        ),
        ("mongodb-srv", "mongodb+srv://cluster.example.net/"),
        ("lines", "user\n@x\nhost:5672/vhost?heartbeat=5"),
        ("lines-of-several-hosts", "user\n%\na:1,b:2/db?w=1"),
        ("lines-with-a-mark", "us#er\n?/\n[::1]:0"),
        // Found by the fuzzer: delimiters that are escaped, so that another URI is shown.
        ("escaped-slash-in-the-host", "amqp://0h%2fel"),
        ("escaped-comma-in-the-host", "\n\ne%2certfile"),
    ];
    let seeds = seeds.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
    seeds.into_iter().collect()
}

/// Set `UPDATE_SEEDS=1` to write them anew.
#[test]
fn a_seed_is_not_what_the_corpus_makes_of_it() {
    for (target, seeds) in [
        ("encode", encode_seeds()),
        ("mask", mask_seeds()),
        ("uri", uri_seeds()),
    ] {
        let path = format!("fuzz/seeds/{target}");
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            let folder = folder(&path);
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            for (name, seed) in &seeds {
                fs::write(folder.join(name), seed).unwrap();
            }
        }
        assert!(files(&path) == seeds, "{path}: see UPDATE_SEEDS");
    }
}

/// Runs every file of a folder, and says which one it was that fails.
fn run(path: &str, check: fn(&[u8])) {
    let files = files(path);
    assert!(!files.is_empty(), "{path} is empty");
    for (name, bytes) in files {
        let outcome = std::panic::catch_unwind(|| check(&bytes));
        assert!(outcome.is_ok(), "{path}/{name}");
    }
}

#[test]
fn an_event_that_was_a_seed_breaks_what_must_hold() {
    run("fuzz/seeds/encode", |seed| {
        assert!(checks::encode(seed), "it is no event at all");
    });
}

#[test]
fn an_event_that_is_masked_breaks_what_must_hold() {
    let mut masked = 0;
    for seed in files("fuzz/seeds/mask").values() {
        for rules in 0..4 {
            let shape = seed[0] & 128 | rules;
            masked += u32::from(checks::mask(&[&[shape], &seed[1..]].concat()));
        }
    }
    assert!(masked > 100, "{masked}");
}

#[test]
fn a_uri_that_was_a_seed_breaks_what_must_hold() {
    run("fuzz/seeds/uri", checks::uri);
}

#[test]
fn a_configuration_breaks_what_must_hold() {
    run("mrcon/tests/configs/valid", checks::config);
    run("mrcon/tests/configs/invalid", checks::config);
    checks::config(&fs::read(folder("config.yaml")).unwrap());
}
