//! What users of the chart write into their values, and what comes of it.

use crate::chart::{check, helm, object, objects};
use crate::tools::{Folder, MRCOND, everything, fails, fetch, repository, run, succeeds};
use serde_json::{Value, json};
use std::process::Command;

/// `helm template` with this file of values.
fn template(folder: &Folder, values: &str) -> Command {
    let mut command = helm("template", &[]);
    command.arg("-f").arg(folder.file("my-values.yaml", values));
    command
}

/// What comes of these values, which Kubernetes takes.
fn made_of(values: &str) -> Vec<Value> {
    let folder = Folder::new();
    let file = folder.file("made.yaml", &succeeds(&mut template(&folder, values)));
    succeeds(&mut check(&file));
    objects(&file)
}

/// Why these values are refused.
fn refusal(values: &str) -> String {
    fails(&mut template(&Folder::new(), values))
}

fn config_of(objects: &[Value]) -> String {
    let text = &object(objects, "ConfigMap")["data"]["config.yaml"];
    text.as_str().unwrap().to_owned()
}

fn pod_of(objects: &[Value]) -> &Value {
    &object(objects, "Deployment")["spec"]["template"]
}

fn container_of(objects: &[Value]) -> &Value {
    &pod_of(objects)["spec"]["containers"][0]
}

/// What the daemon says of a configuration, and whether it takes it.
fn judged(config: &str) -> (bool, String) {
    let folder = Folder::new();
    let mut command = Command::new(MRCOND);
    command.args(["check", "--offline", "-c"]);
    command.arg(folder.file("config.yaml", config));
    let output = run(&mut command);
    (output.status.success(), everything(&output))
}

const WORDS: &str = "
  # A comment that stays.
  collections:
    - watched: {db_name: shop, coll_name: orders, full_document_before_change: off}
      rabbitmq: {stream_name: orders, headers: {on: y, number: '010'}}
";

#[test]
fn text_of_the_configuration_arrives_as_another_one() {
    let config = config_of(&made_of(&format!("config: |{WORDS}")));
    assert_eq!(config.trim(), WORDS.replace("\n  ", "\n").trim());
    let (taken, told) = judged(&config);
    assert!(taken, "{told}");
    // Where the text begins further in than it goes on, and has spaces at an end of a line.
    let odd = "config: \"\\n   # Comment \\ncollections:\\n- watched: {db_name: a, coll_name: b}\\n  rabbitmq: {stream_name: c}\\n\"\n";
    let (taken, told) = judged(&config_of(&made_of(odd)));
    assert!(taken, "{told}");
}

#[test]
fn word_that_helm_takes_for_a_boolean_stops_the_daemon() {
    let with = |value: &str| {
        format!(
            "config:\n  collections:\n    - watched: {{db_name: shop, coll_name: orders, full_document_before_change: {value}}}\n      rabbitmq: {{stream_name: orders}}\n"
        )
    };
    for off in ["off", "\"off\"", "'off'"] {
        let config = config_of(&made_of(&with(off)));
        assert!(config.contains("full_document_before_change: \"off\""));
        let (taken, told) = judged(&config);
        assert!(taken, "{off}: {told}");
    }
    // What it was cannot be known, so the daemon says why it may be wrong.
    let (taken, _) = judged(&config_of(&made_of(&with("on"))));
    assert!(!taken);
    let (taken, told) = judged(&with("false").replace("config:\n", "").replace("\n  ", "\n"));
    assert!(!taken && told.contains("quote it (\"off\")"), "{told}");
}

#[test]
fn key_that_helm_takes_for_a_boolean_reaches_the_daemon() {
    let told = refusal(&format!("config:{WORDS}"));
    let place = "config.collections[0].rabbitmq.headers has a key that Helm reads as true";
    assert!(told.contains(place), "{told}");
    let quoted = WORDS.replace("on: y", "\"on\": \"y\"");
    let (taken, told) = judged(&config_of(&made_of(&format!("config:{quoted}"))));
    assert!(taken, "{told}");
}

#[test]
fn text_that_cannot_be_a_configuration_becomes_a_pod() {
    for (values, why) in [
        ("config: |\n  a: [\n", "config is no YAML"),
        ("config: |\n  server: {}\n", "config has no collections"),
        (
            "config: |\n  server: {listen: 127.0.0.1:1}\n  collections: [{}]\n",
            "config has server.listen",
        ),
    ] {
        let told = refusal(values);
        assert!(told.contains(why), "{values}: {told}");
    }
}

#[test]
fn changed_text_is_no_other_pod() {
    let checksum = |values: &str| {
        let made = made_of(values);
        let annotations = &pod_of(&made)["metadata"]["annotations"];
        annotations["checksum/config"].as_str().unwrap().to_owned()
    };
    let one = format!("config: |{WORDS}");
    assert_ne!(checksum(&one), checksum(&one.replace("orders", "returns")));
    assert_eq!(checksum(&one), checksum(&one));
}

#[test]
fn secret_in_a_variable_stands_in_the_deployment() {
    const SECRET: &str = "this is a secret";
    const URI: &str = "the URIs are files of secrets";
    for (name, value, why) in [
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=x", SECRET),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=x", SECRET),
        (
            "MRCON_RABBITMQ_MANAGEMENT_URL",
            "http://u:p@host:15672",
            SECRET,
        ),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://u:p@host", SECRET),
        ("MRCON_MONGO_URI", "mongodb://host", URI),
        ("MRCON_RABBITMQ_URI_FILE", "/elsewhere", URI),
    ] {
        let told = refusal(&format!("env: {{{name}: \"{value}\"}}\n"));
        let expected = format!("env.{name}: {why}");
        assert!(told.contains(&expected), "{told}");
        let listed = format!("extraEnv: [{{name: {name}, value: \"{value}\"}}]\n");
        let told = refusal(&listed);
        assert!(told.contains(&format!("extraEnv.{name}: {why}")), "{told}");
    }
    let made = made_of(
        "env: {MRCON_RABBITMQ_MANAGEMENT_URL: 'http://host:15672'}\n\
         extraEnv:\n\
         - {name: OTEL_EXPORTER_OTLP_HEADERS, valueFrom: {secretKeyRef: {name: otlp, key: headers}}}\n\
         - {name: RUST_BACKTRACE, value: '1'}\n\
         envFrom: [{secretRef: {name: more}}]\n",
    );
    let container = container_of(&made);
    let variables = container["env"].as_array().unwrap();
    let variable = |name: &str| variables.iter().find(|one| one["name"] == name).unwrap();
    let from = &variable("OTEL_EXPORTER_OTLP_HEADERS")["valueFrom"]["secretKeyRef"];
    assert_eq!(*from, json!({"name": "otlp", "key": "headers"}));
    assert_eq!(variable("RUST_BACKTRACE")["value"], "1");
    let url = &variable("MRCON_RABBITMQ_MANAGEMENT_URL")["value"];
    assert_eq!(url, "http://host:15672");
    assert_eq!(container["envFrom"][0]["secretRef"]["name"], "more");
}

#[test]
fn own_config_map_is_not_mounted_or_not_watched() {
    let own = made_of("existingConfigMap: mine\n");
    assert!(own.iter().all(|object| object["kind"] != "ConfigMap"));
    let pod = pod_of(&own);
    assert_eq!(pod["spec"]["volumes"][0]["configMap"]["name"], "mine");
    let arguments = container_of(&own)["args"].as_array().unwrap();
    assert_eq!(arguments[2..], ["run", "--watch-config"]);
    // Nothing, and not a key without a value.
    assert_eq!(pod["metadata"].get("annotations"), None);
    let annotated = made_of("existingConfigMap: mine\npodAnnotations: {a: b}\n");
    assert_eq!(
        pod_of(&annotated)["metadata"]["annotations"],
        json!({"a": "b"})
    );
    // Another one of the chart's own is another pod.
    let arguments = container_of(&made_of("{}"))["args"].clone();
    assert_eq!(arguments.as_array().unwrap()[2..], ["run"]);
    let help = succeeds(Command::new(MRCOND).args(["run", "--help"]));
    assert!(help.contains("--watch-config"), "{help}");
}

#[test]
fn name_that_looks_like_a_number_is_one() {
    made_of(
        "fullnameOverride: '123'\nnameOverride: '4'\nexistingConfigMap: '1'\npriorityClassName: '2'\n\
         secrets: {mongoUri: {name: '7'}, rabbitmqStreamUri: {name: '8'}}\n\
         serviceAccount: {name: '9'}\nserviceMonitor: {enabled: true}\n",
    );
    let folder = Folder::new();
    let mut command = Command::new(fetch("helm").join("helm"));
    command.args(["template", "123"]);
    command.arg(repository("deploy/helm/mrcond"));
    let file = folder.file("made.yaml", &succeeds(&mut command));
    succeeds(&mut check(&file));
    let made = objects(&file);
    let selector = &object(&made, "Deployment")["spec"]["selector"]["matchLabels"];
    assert_eq!(selector["app.kubernetes.io/instance"], "123");
}

#[test]
fn image_is_another_than_the_one_asked_for() {
    let image = |values: &str| container_of(&made_of(values))["image"].clone();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(image("{}"), format!("mrcond:{version}"));
    assert_eq!(image("image: {repository: r/m, tag: x}"), "r/m:x");
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let asked = format!("image: {{repository: r/m, tag: x, digest: '{digest}'}}");
    assert_eq!(image(&asked), format!("r/m@{digest}"));
}

#[test]
fn what_a_user_adds_is_lost() {
    let made = made_of(
        "serviceAccount: {create: false, name: theirs}\n\
         affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone}]}}\n\
         extraVolumes: [{name: ca, secret: {secretName: ca}}]\n\
         extraVolumeMounts: [{name: ca, mountPath: /etc/certificates, readOnly: true}]\n\
         serviceMonitor: {enabled: true, interval: 1h, scrapeTimeout: 10s}\n",
    );
    assert!(made.iter().all(|object| object["kind"] != "ServiceAccount"));
    let pod = &pod_of(&made)["spec"];
    assert_eq!(pod["serviceAccountName"], "theirs");
    let terms = "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    assert_eq!(pod.pointer(terms), Some(&json!([{"topologyKey": "zone"}])));
    assert_eq!(pod["volumes"][2]["secret"]["secretName"], "ca");
    let mount = &pod["containers"][0]["volumeMounts"][2];
    assert_eq!(mount["mountPath"], "/etc/certificates");
    let endpoint = &object(&made, "ServiceMonitor")["spec"]["endpoints"][0];
    assert_eq!(endpoint["interval"], "1h");
    assert_eq!(endpoint["scrapeTimeout"], "10s");
    let nobodys = made_of("serviceAccount: {create: false}\n");
    assert_eq!(pod_of(&nobodys)["spec"]["serviceAccountName"], "default");
}
