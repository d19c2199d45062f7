//! The configuration as a user meets it: files that are accepted, files that are refused, and the
//! lines that say why.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mrcon::config::limits::*;
use mrcon::config::*;
use proptest::prelude::*;

#[path = "configs/table.rs"]
mod table;

/// The files of a folder that end in `.yaml`, in order.
fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/configs")
        .join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no files in {}", folder.display());
    files
}

fn load(path: &Path) -> Result<ValidConfig, Vec<Problem>> {
    let name = path.file_name().unwrap().to_str().unwrap();
    ValidConfig::from_yaml(name, &fs::read(path).unwrap())
}

fn valid(name: &str) -> ValidConfig {
    let path = format!(
        "{}/tests/configs/valid/{name}.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    load(Path::new(&path)).unwrap()
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

#[test]
fn every_valid_file_is_accepted() {
    for path in yaml_files("valid") {
        if let Err(problems) = load(&path) {
            panic!("{}:\n{}", path.display(), lines(&problems));
        }
    }
}

#[test]
fn custom_metrics_are_not_what_the_file_says() {
    use mrcon::event::Operation;

    let config = valid("custom_metrics");
    let [orders, revenue, price, size, score] = &config.metrics().custom[..] else {
        panic!("five metrics");
    };
    assert_eq!(orders.operations, [Operation::Insert, Operation::Update]);
    assert_eq!(orders.labels["kind"], "fullDocument._type");
    assert_eq!(revenue.kind, CustomMetricType::Counter);
    let path = CustomValue::Path("fullDocument.lines.price".into());
    assert_eq!(revenue.value, Some(path));
    assert_eq!(price.buckets, Some(vec![-1.0, 0.5, 1000.0]));
    assert_eq!(size.buckets, None);
    assert_eq!(score.operations[1], Operation::DropDatabase);
    let history = &config.metrics().history;
    assert_eq!(history.retention.as_secs(), 366 * 24 * 3600);
    assert!(!valid("history_off").metrics().history.enabled);
}

#[test]
fn stream_is_created_otherwise_than_the_file_says() {
    let config = valid("stream_protocol");
    let [orders, customers, articles, prices] = config.collections() else {
        panic!("four entries");
    };
    assert_eq!(orders.rabbitmq.protocol, Protocol::Stream);
    assert_eq!(
        (&orders.rabbitmq.stream, &prices.rabbitmq.stream),
        (&None, &None)
    );
    let mut expected = StreamOptions::default();
    expected.max_age = Some(std::time::Duration::from_secs(7 * 24 * 3600));
    expected.max_bytes = Some(10 << 30);
    expected.segment_size = Some(500_000_000);
    expected.partitions = Some(3);
    expected.partition_by = "fullDocument.region".to_owned();
    assert_eq!(customers.rabbitmq.stream, Some(expected));
    let articles = articles.rabbitmq.stream.as_ref().unwrap();
    assert_eq!(articles.max_bytes, Some(1_000_000_000));
    assert_eq!(
        (articles.partitions, articles.partition_by.as_str()),
        (None, "documentKey")
    );
}

/// Set `UPDATE_EXPECTED=1` to write the expected files anew, and read the difference.
#[test]
fn every_invalid_file_gives_exactly_its_lines() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for path in yaml_files("invalid") {
        let problems = load(&path).expect_err(&path.display().to_string());
        let found = lines(&problems);
        let expected_path = path.with_extension("expected");
        if update {
            fs::write(&expected_path, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{}\n{found}instead of\n{expected}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a name in the table, which may end in `*`, is that of a file.
fn means(name: &str, file: &str) -> bool {
    match name.strip_suffix('*') {
        Some(beginning) => file.starts_with(beginning),
        None => file == name,
    }
}

/// The text of a test, as far as the next item of its file.
fn source_of(test: &str) -> String {
    let (file, name) = test.split_once("::").unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{test}: {error}"));
    let after = source.split_once(&format!("fn {name}()"));
    let (_, after) = after.unwrap_or_else(|| panic!("there is no {test}"));
    after.split("#[tokio::test]").next().unwrap().to_owned()
}

#[test]
fn a_row_of_the_table_has_no_proof_or_other_words() {
    let mut files: Vec<String> = yaml_files("invalid")
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let all = files.clone();
    let mut wrong = Vec::new();
    for row in table::rows() {
        match row.kind.as_str() {
            "file" => {
                let meant: Vec<_> = all.iter().filter(|file| means(&row.name, file)).collect();
                assert!(!meant.is_empty(), "{row}: no such file");
                for file in meant {
                    let path = format!("tests/configs/invalid/{file}.expected");
                    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
                    let said = fs::read_to_string(path).unwrap();
                    if !said.contains(&row.says) {
                        wrong.push(format!("{row}: {said}"));
                    }
                }
                files.retain(|file| !means(&row.name, file));
            }
            "test" => {
                if !source_of(&row.name).contains(&row.says) {
                    wrong.push(format!("{row}: not in the test"));
                }
            }
            // The daemon's own tests run these.
            "cli" => {}
            other => panic!("{row}: no kind of proof: {other}"),
        }
    }
    wrong.extend(files.iter().map(|file| format!("{file}: no row")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_two_invalid_files_give_the_same_message() {
    let files = yaml_files("invalid");
    assert!(files.len() >= 25, "{} files", files.len());
    let mut seen = BTreeMap::new();
    for path in files {
        let problems = load(&path).unwrap_err();
        // Without file and line, which would make every message distinct.
        let message = lines(&problems)
            .lines()
            .map(|line| line.splitn(3, ':').nth(2).unwrap().to_owned())
            .collect::<Vec<_>>();
        if let Some(other) = seen.insert(message, path.clone()) {
            panic!("{} and {} say the same", path.display(), other.display());
        }
    }
}

#[test]
fn every_message_is_one_line_with_file_and_line() {
    for path in yaml_files("invalid") {
        let bytes = fs::read(&path).unwrap();
        let file_lines = bytes.split(|byte| *byte == b'\n').count();
        for problem in load(&path).unwrap_err() {
            let text = problem.to_string();
            assert!(!text.contains(['\n', '\r', '\0']), "{text:?}");
            let line = problem.line().unwrap();
            assert!((1..=file_lines).contains(&line), "{text}");
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(text.starts_with(&format!("{name}:{line}: ")), "{text}");
        }
    }
}

#[test]
fn a_mask_key_is_never_shown() {
    for path in yaml_files("invalid") {
        let shown = format!("{:?}", load(&path).unwrap_err());
        assert!(
            !shown.contains("5up3r") && !shown.contains("5318008"),
            "{shown}"
        );
    }
}

#[test]
fn a_file_of_existing_users_means_the_same_as_before() {
    let config = valid("existing_users");
    let mut expected = CollectionConfig::new("test", "testcoll", "teststream");
    expected.resume_tokens.tokens_db_name = "test".to_owned();
    expected.resume_tokens.tokens_coll_capped = true;
    assert_eq!(config.collections(), [expected]);
    assert_eq!(config.server(), &ServerConfig::default());
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = valid("smallest");
    assert_eq!(
        config.collections(),
        [CollectionConfig::new("shop", "orders", "orders")]
    );
    let entry = &config.collections()[0];
    assert_eq!(entry.rabbitmq.max_unconfirmed, DEFAULT_MAX_UNCONFIRMED);
    assert_eq!(entry.resume_tokens.save_interval, DEFAULT_SAVE_INTERVAL);
}

#[test]
fn an_alias_stands_for_its_section() {
    let config = valid("aliases");
    let [first, second] = config.collections() else {
        panic!("two entries");
    };
    assert_eq!(first.resume_tokens, second.resume_tokens);
    assert_eq!(second.resume_tokens.tokens_db_name, "ops");
}

#[test]
fn pipeline_values_have_the_types_that_mongodb_expects() {
    use bson::{Bson, DateTime, doc, oid::ObjectId};

    let config = valid("pipeline_values");
    let at = DateTime::parse_rfc3339_str("2024-05-01T00:00:00Z").unwrap();
    let id = ObjectId::parse_str("65f000000000000000000000").unwrap();
    let name: Bson = serde_json::json!({"$regularExpression": {"pattern": "^a", "options": "i"}})
        .try_into()
        .unwrap();
    assert!(matches!(name, Bson::RegularExpression(_)));
    let expected = [
        doc! {"$match": {
            "fullDocument.at": {"$gte": at},
            "documentKey._id": {"$ne": id},
            "fullDocument.big": 5_i64,
            "fullDocument.small": 5_i32,
            "fullDocument.large": 5_000_000_000_i64,
            "fullDocument.price": 1.5,
            "fullDocument.name": name,
        }},
        doc! {"$project": {"_id": 1, "fullDocument": 1}},
        doc! {"$replaceWith": {"_id": "$_id", "doc": "$fullDocument"}},
    ];
    assert_eq!(config.collections()[0].watched.pipeline, expected);
}

#[test]
fn images_are_asked_for_where_they_are_switched_on() {
    let mut watched = Watched::default();
    let off = watched.images();
    assert_eq!(
        (off.enable, off.full_document),
        (false, FullDocument::Default)
    );
    assert_eq!(off.before_change, FullDocumentBeforeChange::Off);

    watched.change_stream_pre_and_post_images = true;
    let on = watched.images();
    assert_eq!(
        (on.enable, on.full_document),
        (true, FullDocument::WhenAvailable)
    );
    assert_eq!(on.before_change, FullDocumentBeforeChange::WhenAvailable);

    watched.full_document = FullDocument::UpdateLookup;
    watched.full_document_before_change = FullDocumentBeforeChange::Required;
    let stronger = watched.images();
    assert_eq!(stronger.full_document, FullDocument::UpdateLookup);
    assert_eq!(stronger.before_change, FullDocumentBeforeChange::Required);
}

#[test]
fn a_configuration_built_in_code_is_checked_too() {
    let config = Config::new([CollectionConfig::new("admin", "users", "users")]);
    let problems = config.validate().unwrap_err();
    assert_eq!(
        lines(&problems),
        "collections[0].watched.db_name: is \"admin\", which MongoDB keeps for itself; must not \
         be admin, config or local\n"
    );
}

#[test]
fn parsing_alone_reports_lines_without_a_file() {
    let problems = Config::from_yaml("server:\n  listne: 1.2.3.4:80\n").unwrap_err();
    assert_eq!(
        lines(&problems),
        "line 2: server.listne: unknown key; did you mean `listen`?\n"
    );
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let bytes = vec![b'#'; MAX_FILE_BYTES + 1];
    let problems = ValidConfig::from_yaml("big.yaml", &bytes).unwrap_err();
    assert_eq!(
        lines(&problems),
        "big.yaml:1: the file has more than 1048576 bytes; at most 1048576 are allowed\n"
    );
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_change_nothing() {
    let path = format!(
        "{}/tests/configs/valid/existing_users.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = fs::read_to_string(path).unwrap();
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let config = ValidConfig::from_yaml("config.yaml", windows.as_bytes()).unwrap();
    assert_eq!(config, valid("existing_users"));
}

#[test]
fn what_is_serialized_reads_back_the_same() {
    for path in yaml_files("valid") {
        let config = load(&path).unwrap().into_inner();
        let text = serde_json::to_string(&config).unwrap();
        // JSON is YAML, so this goes through both readers. The texts are compared, because a small
        // int64 in `pipeline` comes back as an int32.
        for read in [
            Config::from_yaml(&text).unwrap(),
            serde_json::from_str(&text).unwrap(),
        ] {
            assert_eq!(
                serde_json::to_string(&read).unwrap(),
                text,
                "{}",
                path.display()
            );
        }
    }
}

/// The commented example that a user starts with.
fn example() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../config.yaml")).unwrap()
}

/// In the example a commented key has no space after `#`, and a sentence has one.
fn commented_key(line: &str) -> Option<String> {
    let indent = line.len() - line.trim_start().len();
    let key = line.trim_start().strip_prefix('#')?;
    (!key.is_empty() && !key.starts_with(' ')).then(|| format!("{}{key}", &line[..indent]))
}

#[test]
fn format_of_documents_gets_none_of_updates() {
    let images = |format, full_document, enable, data| {
        let mut entry = CollectionConfig::new("shop", "orders", "orders");
        entry.format = format;
        entry.watched.full_document = full_document;
        entry.watched.change_stream_pre_and_post_images = enable;
        entry.cloudevents = (format == Format::Cloudevents).then(|| {
            let mut cloudevents = CloudEvents::default();
            cloudevents.data = data;
            cloudevents
        });
        let config = Config::new([entry]);
        let valid = config.validate().unwrap();
        valid.collections()[0].watched.images().full_document
    };
    use CloudEventsData::{Document, Event};
    use FullDocument::{Default, Required, UpdateLookup, WhenAvailable};
    let expected = [
        (Format::Relaxed, Default, false, Event, Default),
        (Format::Document, Default, false, Event, UpdateLookup),
        (Format::Debezium, Default, false, Event, UpdateLookup),
        (Format::Cloudevents, Default, false, Event, Default),
        (Format::Cloudevents, Default, false, Document, UpdateLookup),
        (Format::Document, WhenAvailable, false, Event, WhenAvailable),
        (Format::Document, Required, false, Event, Required),
        (Format::Document, Default, true, Event, WhenAvailable),
    ];
    for (format, wish, enable, data, expected) in expected {
        let found = images(format, wish, enable, data);
        assert_eq!(found, expected, "{format:?}, {wish:?}, {enable}, {data:?}");
    }
}

#[test]
fn the_example_works_as_it_is() {
    let config = ValidConfig::from_yaml("config.yaml", example().as_bytes()).unwrap();
    assert_eq!(
        config.collections(),
        [CollectionConfig::new("shop", "orders", "orders")]
    );
    assert_eq!(config.server(), &ServerConfig::default());
    assert_eq!(config.metrics(), &MetricsConfig::default());
    assert_eq!(config.topology(), &Topology::default());
}

#[test]
fn each_key_of_the_example_shows_its_default() {
    let text: String = example()
        .lines()
        .map(|line| commented_key(line).unwrap_or_else(|| line.to_owned()) + "\n")
        .collect();
    let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
    assert_eq!(
        config.collections(),
        [CollectionConfig::new("shop", "orders", "orders")]
    );
    assert_eq!(config.server(), &ServerConfig::default());
    assert_eq!(config.metrics(), &MetricsConfig::default());
    assert_eq!(config.topology(), &Topology::default());
}

#[test]
fn the_custom_metrics_of_the_example_are_refused_or_mean_something_else() {
    let lines = example();
    let shown = lines
        .lines()
        .skip_while(|line| !line.contains("- name: shop_orders_total"))
        .map_while(|line| line.strip_prefix("  #   "));
    let shown: String = shown.map(|line| format!("    {line}\n")).collect();
    let text = lines.replace("  #custom: []", &format!("  custom:\n{shown}"));
    let config = ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap();
    let [orders, price] = &config.metrics().custom[..] else {
        panic!("{:?}", config.metrics());
    };
    let labels = |metric: &CustomMetric| metric.labels.keys().cloned().collect::<Vec<_>>();
    assert_eq!(labels(orders), ["kind", "status"]);
    assert_eq!(orders.value, Some(CustomValue::One));
    assert_eq!(orders.max_series, DEFAULT_MAX_SERIES);
    assert_eq!(price.kind, CustomMetricType::Histogram);
    assert_eq!(price.buckets, Some(vec![10.0, 100.0, 1000.0]));
}

/// The example with the topology that it shows in a comment.
fn example_topology() -> ValidConfig {
    let lines = example();
    let shown = lines
        .lines()
        .skip_while(|line| !line.starts_with("#   exchanges:"))
        .map_while(|line| line.strip_prefix("#   "));
    let shown: String = shown.map(|line| format!("  {line}\n")).collect();
    let text = lines.replace("  #exchanges: []\n", &shown);
    ValidConfig::from_yaml("config.yaml", text.as_bytes()).unwrap()
}

#[test]
fn the_topology_of_the_example_is_refused_or_means_something_else() {
    let config = example_topology();
    let topology = config.topology();
    let mut orders = TopologyQueue::default();
    orders.name = "orders".into();
    orders.max_length = Some(100_000);
    orders.max_length_bytes = Some(1 << 30);
    orders.overflow = Some(Overflow::RejectPublish);
    orders.dead_letter_exchange = Some("dlx".into());
    orders.dead_letter_routing_key = Some("orders".into());
    orders.dead_letter_strategy = Some(DeadLetterStrategy::AtLeastOnce);
    orders.delivery_limit = Some(20);
    orders.single_active_consumer = true;
    orders.message_ttl = Some(std::time::Duration::from_secs(3600));
    orders.arguments = [("x-quorum-initial-group-size".into(), Argument::Number(3))].into();
    assert_eq!(topology.queues[0], orders);
    let mut events = TopologyExchange::default();
    events.name = "events".into();
    events.alternate_exchange = Some("unrouted".into());
    assert_eq!(topology.exchanges[0], events);
    assert!(topology.declare && topology.exchanges[3].passive);
    assert_eq!(topology.super_streams[0].partitions, 3);
    assert_eq!(topology.bindings.len(), 5);
    assert_eq!(topology.bindings[2].to_exchange, "legacy");
    assert_eq!(topology.streams[0].max_bytes, Some(10 << 30));
}

#[test]
fn the_topology_of_topology_md_is_refused() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../TOPOLOGY.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let (topology, _) = rest.split_once("```").unwrap();
    let entry = "collections:\n  - watched: {db_name: shop, coll_name: orders}\n    rabbitmq: {stream_name: orders}\n";
    let text = format!("{entry}{topology}");
    let config = ValidConfig::from_yaml("TOPOLOGY.md", text.as_bytes()).unwrap();
    assert_eq!(config.topology().bindings.len(), 4);
}

#[test]
fn the_example_shows_not_every_key_of_the_topology() {
    let mut keys = Vec::new();
    let config = serde_json::to_value(example_topology().into_inner()).unwrap();
    keys_of(&config["topology"], "topology", &mut keys);
    let example = example();
    for path in keys {
        let key = path.rsplit('.').next().unwrap();
        assert!(example.contains(&format!("{key}:")), "{path}");
    }
    let valid = valid("topology");
    let [orders, _, dead, ..] = &valid.topology().queues[..] else {
        panic!("queues");
    };
    assert_eq!(orders.arguments["x-flag"], Argument::Bool(true));
    assert_eq!(orders.arguments["x-note"], Argument::Text("text".into()));
    assert!(dead.drops() && !orders.drops());
    assert_eq!(
        valid.topology().exchanges[2].broker_type(),
        "x-consistent-hash"
    );
}

#[test]
fn the_business_metrics_of_metrics_md_are_refused() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../METRICS.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, section) = page.split_once("## Business metrics").unwrap();
    let (_, rest) = section.split_once("```yaml\n").unwrap();
    let (metrics, _) = rest.split_once("```").unwrap();
    let entry = |coll: &str| {
        format!(
            "  - watched: {{db_name: shop, coll_name: {coll}}}\n    rabbitmq: {{stream_name: q}}\n"
        )
    };
    let text = format!(
        "collections:\n{}{}{metrics}",
        entry("orders"),
        entry("articles")
    );
    let config = ValidConfig::from_yaml("METRICS.md", text.as_bytes()).unwrap();
    assert_eq!(config.metrics().custom.len(), 4);
}

/// Paths of all keys below `value`, such as `server.listen`.
fn keys_of(value: &serde_json::Value, at: &str, keys: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{at}.{key}");
                keys_of(value, &path, keys);
                keys.push(path);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys_of(item, at, keys)),
        _ => {}
    }
}

#[test]
fn the_example_shows_every_key_that_works() {
    // Known, and good for nothing else than their default yet.
    const NOT_YET: [&str; 0] = [];
    let config = Config::new([CollectionConfig::new("shop", "orders", "orders")]);
    let mut keys = Vec::new();
    keys_of(&serde_json::to_value(config).unwrap(), "", &mut keys);
    let example = example();
    for path in keys {
        let key = path.rsplit('.').next().unwrap();
        let shown = example.lines().any(|line| {
            let line = commented_key(line).unwrap_or_else(|| line.to_owned());
            line.trim_start()
                .trim_start_matches("- ")
                .starts_with(&format!("{key}:"))
        });
        let expected = !NOT_YET.contains(&key) || key == "split_large_events";
        assert_eq!(shown, expected, "{path}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = ValidConfig::from_yaml("config.yaml", &bytes);
    }

    #[test]
    fn garbage_made_of_yaml_never_panics(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)
    ) {
        let text = pieces.concat();
        if let Err(problems) = ValidConfig::from_yaml("config.yaml", text.as_bytes()) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                let shown = problem.to_string();
                prop_assert!(!shown.contains(['\n', '\r']), "{shown:?}");
                prop_assert!(problem.line().is_some_and(|line| line > 0), "{shown}");
            }
        }
    }

    #[test]
    fn a_damaged_file_never_panics(
        position in 0_usize..1200,
        removed in 0_usize..30,
        inserted in prop::sample::select(PIECES),
    ) {
        let path = format!(
            "{}/tests/configs/valid/everything_supported.yaml",
            env!("CARGO_MANIFEST_DIR")
        );
        let mut bytes = fs::read(path).unwrap();
        let start = position.min(bytes.len());
        let end = (start + removed).min(bytes.len());
        bytes.splice(start..end, inserted.bytes());
        let _ = ValidConfig::from_yaml("config.yaml", &bytes);
    }
}

/// Pieces that make text look like a configuration, and that trip parsers.
const PIECES: &[&str] = &[
    "collections:",
    "server:",
    "watched:",
    "rabbitmq:",
    "resume_tokens:",
    "mask:",
    "metrics:",
    "custom:",
    "topology:",
    "exchanges:",
    "queues: [{name: q",
    "bindings: [{from: x, to: q",
    "arguments: {x-a: ",
    "labels: {",
    "collection: shop.(",
    "value: 1",
    "buckets: [",
    "pipeline:",
    "db_name: shop",
    "coll_name: orders",
    "stream_name: orders",
    "listen: ",
    "format: relaxed",
    "save_interval: 1s",
    "include: [",
    "start: now",
    "$match: ",
    "$date: ",
    "{$oid: 1}",
    "key: ",
    "\n",
    "\n  ",
    "\n    ",
    "\n      ",
    "\n- ",
    "\n  - ",
    "- ",
    ": ",
    "? ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "!!str ",
    "!x ",
    "|",
    ">",
    "|-\n",
    "\"",
    "'",
    "\\",
    "#",
    "# c\n",
    "---",
    "...",
    "%YAML 1.2\n",
    "~",
    "null",
    "true",
    "0",
    "-1",
    "1e99",
    ".nan",
    "99999999999999999999",
    "\t",
    "\r\n",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\u{0}",
    "\u{1F600}",
    "<<: *a",
    "\u{7}",
];
