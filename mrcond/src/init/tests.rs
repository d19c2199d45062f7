use super::*;
use mrcon::config::Config;

fn inventory() -> Inventory {
    Inventory::of_names([
        ("admin", None, Some("a database of MongoDB itself")),
        ("shop", Some("customers"), None),
        ("shop", Some("orders"), None),
        (
            "shop",
            Some("totals"),
            Some("a view, which has no change stream"),
        ),
        ("crm", Some("orders"), None),
        ("crm", Some("a \"b\"\\: #c"), None),
    ])
}

fn names(choices: &[Choice<'_>]) -> Vec<String> {
    let name = |choice: &Choice<'_>| match choice {
        Choice::Collection(found) => listing::name(found),
        Choice::Database { db, collections } => format!("{db}.* ({collections})"),
    };
    choices.iter().map(name).collect()
}

fn asked(answers: &str) -> (Result<Vec<String>, String>, String) {
    let mut screen = Vec::new();
    let inventory = inventory();
    let chosen = choice::ask(&inventory, &mut answers.as_bytes(), &mut screen);
    (
        chosen.map(|chosen| names(&chosen)),
        String::from_utf8(screen).unwrap(),
    )
}

#[test]
fn answer_chooses_something_else() {
    for (answer, expected) in [
        ("1\n", &["shop.customers"][..]),
        ("2-3\n", &["shop.orders", "crm.orders"]),
        ("3, 1\n", &["shop.customers", "crm.orders"]),
        ("shop.* crm.orders\n", &["shop.* (2)", "crm.orders"]),
        (
            "all\n",
            &[
                "shop.customers",
                "shop.orders",
                "crm.orders",
                "crm.a \"b\"\\: #c",
            ],
        ),
    ] {
        assert_eq!(asked(answer).0.unwrap(), expected, "{answer}");
    }
}

#[test]
fn wrong_answer_ends_it_or_counts() {
    for (wrong, why) in [
        ("9", "1 to 4"),
        ("0", "1 to 4"),
        ("3-2", "1 to 4"),
        ("shop.totals", "a view"),
        ("admin", "MongoDB itself"),
        ("shop.Orders", "did you mean shop.orders?"),
        ("customers", "did you mean shop.customers?"),
        ("", "at least one"),
        ("shop.*,2", "in shop.* already"),
    ] {
        let (chosen, screen) = asked(&format!("{wrong}\n1\n"));
        assert_eq!(chosen.unwrap(), ["shop.customers"], "{wrong}");
        assert!(screen.contains(why), "{wrong}: {screen}");
    }
    assert!(asked("").0.unwrap_err().contains("nothing is written"));
    assert!(asked(&"9\n".repeat(20)).0.is_err());
}

#[test]
fn nothing_to_watch_is_asked_for() {
    let nothing = Inventory::of_names([("admin", None, Some("a database of MongoDB itself"))]);
    let mut screen = Vec::new();
    let chosen = choice::ask(&nothing, &mut "all\n".as_bytes(), &mut screen);
    assert!(chosen.unwrap_err().contains("no collection"));
}

#[test]
fn listing_has_no_reason_or_forges_a_line() {
    let inventory = Inventory::of_names([
        ("admin", None, Some("a database of MongoDB itself")),
        ("shop", Some("a\nb\u{1b}[2J"), None),
        ("shop", Some("orders"), None),
    ]);
    assert_eq!(
        listing::lines(&inventory),
        [
            "#  COLLECTION          DOCUMENTS  IMAGES  REMARK",
            "-  admin                       -  -       a database of MongoDB itself",
            "1  shop.a\\nb\\u{1b}[2J          ?  ?",
            "2  shop.orders                 ?  ?",
        ]
    );
}

#[test]
fn odd_name_breaks_what_is_written() {
    let inventory = inventory();
    let text = written(&choice::all(&inventory).unwrap(), "SHOP")
        .unwrap_or_else(|failure| panic!("{:?}", failure.lines));
    let config = Config::from_yaml(&text).unwrap();
    let watched = config
        .collections
        .iter()
        .map(|entry| entry.watched.coll_name.as_str());
    assert_eq!(
        watched.collect::<Vec<_>>(),
        ["customers", "orders", "orders", "a \"b\"\\: #c"]
    );
    assert!(text.contains("SHOP_MONGO_URI"), "{text}");
    let database = written(
        &choice::named(&inventory, &["shop.*".to_owned()]).unwrap(),
        "MRCON",
    );
    let config = Config::from_yaml(&database.unwrap_or_default()).unwrap();
    assert_eq!(config.collections[0].rabbitmq.stream_name, "shop.{coll}");
}

/// What is written shows some keys with their defaults, as the example does.
#[test]
fn commented_key_is_not_at_its_default() {
    let inventory = inventory();
    let text = written(&choice::all(&inventory).unwrap(), "MRCON").unwrap_or_default();
    let uncommented = text.replace("#snapshot: never", "snapshot: never");
    assert_ne!(uncommented, text);
    assert_eq!(
        Config::from_yaml(&uncommented).unwrap(),
        Config::from_yaml(&text).unwrap()
    );
}

#[test]
fn example_is_no_configuration() {
    assert!(ValidConfig::from_yaml("config.yaml", EXAMPLE.as_bytes()).is_ok());
}
