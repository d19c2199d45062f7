//! No way of printing a URI or a secret shows what is in it.

use mrcon::uri::{AmqpUri, MongoUri, Secret, StreamUri};
use proptest::prelude::*;

const CANARY: &str = "5up3rS3cr3t";

/// Every text that can come out of parsing `uri` both ways.
fn everything_printed(uri: &str) -> String {
    let mut printed = String::new();
    match AmqpUri::parse(uri) {
        Ok(parsed) => printed += &format!("{parsed} {parsed:?} {parsed:#?} {:?}", parsed.password),
        Err(error) => printed += &format!("{error} {error:?} {error:#?}"),
    }
    match StreamUri::parse(uri) {
        Ok(parsed) => printed += &format!("{parsed} {parsed:?} {parsed:#?} {:?}", parsed.password),
        Err(error) => printed += &format!("{error} {error:?} {error:#?}"),
    }
    match MongoUri::parse(uri) {
        Ok(parsed) => printed += &format!("{parsed} {parsed:?} {parsed:#?}"),
        Err(error) => printed += &format!("{error} {error:?} {error:#?}"),
    }
    printed
}

#[test]
fn a_secret_prints_as_stars_everywhere() {
    let secret = Secret::new(CANARY);
    assert_eq!(
        format!("{secret} {secret:?} {secret:#?} {secret:>20}"),
        "*** *** *** ***"
    );
    assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    assert_eq!(format!("{:?}", Some(&secret)), "Some(***)");
    assert_eq!(secret.expose(), CANARY);
}

#[test]
fn a_secret_of_the_wrong_type_is_not_repeated() {
    let error = serde_json::from_str::<Secret>("5318008").unwrap_err();
    assert!(!error.to_string().contains("5318008"), "{error}");
}

#[test]
fn the_password_of_a_good_uri_is_not_printed() {
    for uri in [
        "amqp://user:5up3rS3cr3t@broker:5672/",
        "amqps://user:5up3rS3cr3t@broker?heartbeat=5&server_name_indication=5up3rS3cr3t",
        "rabbitmq-stream://user:5up3rS3cr3t@broker:5552/",
        "rabbitmq-stream+tls://user:5up3rS3cr3t@broker?server_name_indication=5up3rS3cr3t",
        "mongodb://user:5up3rS3cr3t@a,b/?replicaSet=rs0",
        "mongodb://a/?tlsCertificateKeyFilePassword=5up3rS3cr3t",
        "mongodb+srv://5up3rS3cr3t:x@cluster.example.net/db",
    ] {
        let printed = everything_printed(uri);
        assert!(!printed.contains(CANARY), "{uri}: {printed}");
    }
}

#[test]
fn the_password_of_a_bad_uri_is_not_printed() {
    let separators = [
        "", "@", "/", "?", "#", "%", ":", "&", "=", ",", " ", "[", "]", "\n", "@@",
    ];
    for scheme in [
        "amqp://",
        "amqps://",
        "rabbitmq-stream://",
        "mongodb://",
        "mongodb+srv://",
        "http://",
        "amqp:",
        "",
    ] {
        for before in separators {
            for after in separators {
                for rest in [
                    "@broker:5672/",
                    "@broker:port",
                    "@",
                    "@broker?x=y",
                    "@a,b:99999",
                ] {
                    let uri = format!("{scheme}user:12{before}{CANARY}{after}{rest}");
                    let printed = everything_printed(&uri);
                    assert!(!printed.contains(CANARY), "{uri:?}: {printed}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(text in ".{0,80}") {
        let _ = everything_printed(&text);
        let _ = everything_printed(&format!("amqps://{text}"));
        let _ = everything_printed(&format!("rabbitmq-stream+tls://{text}"));
        let _ = everything_printed(&format!("mongodb://{text}"));
    }

    #[test]
    fn an_encoded_password_comes_back_as_it_was(password in "\\PC{1,30}") {
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let uri = AmqpUri::parse(&format!("amqp://user:{encoded}@broker:5672/")).unwrap();
        prop_assert_eq!(uri.password.expose(), password);
    }
}
