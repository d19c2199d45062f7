//! The Helm chart: rendered by Helm, held against the schemas of Kubernetes and the Prometheus operator.

use crate::tools::{Folder, MRCOND, fails, fetch, read, repository, schema_check, succeeds};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const ALL: [&str; 22] = [
    "serviceMonitor.enabled=true",
    "serviceMonitor.labels.release=prometheus",
    "serviceMonitor.interval=1m30s",
    "serviceMonitor.scrapeTimeout=10s",
    "prometheusRule.enabled=true",
    "prometheusRule.runbookBase=https://git.example.com/mrcon/",
    "secrets.rabbitmqStreamUri.name=streams",
    "imagePullSecrets[0].name=registry",
    "priorityClassName=high",
    "nodeSelector.disk=fast",
    "tolerations[0].operator=Exists",
    "extraVolumes[0].name=ca",
    "extraVolumes[0].secret.secretName=ca",
    "extraVolumeMounts[0].name=ca",
    "extraVolumeMounts[0].mountPath=/etc/certificates",
    "extraEnv[0].name=OTEL_EXPORTER_OTLP_HEADERS",
    "extraEnv[0].valueFrom.secretKeyRef.name=otlp",
    "extraEnv[0].valueFrom.secretKeyRef.key=headers",
    "envFrom[0].secretRef.name=otlp",
    "podAnnotations.team=orders",
    "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=zone",
    "podLabels.team=orders",
];

pub(crate) fn helm(command: &str, settings: &[&str]) -> Command {
    let mut helm = Command::new(fetch("helm").join("helm"));
    helm.arg(command);
    if command == "template" {
        helm.arg("test");
    }
    helm.arg(repository("deploy/helm/mrcond"));
    for setting in settings {
        helm.args(["--set", setting]);
    }
    helm
}

/// What Helm makes of the chart, as it would give it to Kubernetes.
fn rendered(folder: &Folder, settings: &[&str]) -> std::path::PathBuf {
    folder.file("rendered.yaml", &succeeds(&mut helm("template", settings)))
}

pub(crate) fn objects(file: &Path) -> Vec<Value> {
    let lines = succeeds(schema_check().arg("json").arg(file));
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn object<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut of_kind = objects.iter().filter(|object| object["kind"] == kind);
    let found = of_kind.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(of_kind.next().is_none(), "two of {kind}");
    found
}

pub(crate) fn check(file: &Path) -> Command {
    let mut command = schema_check();
    command.arg("kubernetes");
    command.arg(fetch("kubernetes-schemas").join("definitions.json"));
    command.arg(file);
    command
}

#[test]
fn kubernetes_refuses_what_the_chart_makes() {
    succeeds(helm("lint", &ALL).arg("--strict"));
    let folder = Folder::new();
    for settings in [&[][..], &ALL] {
        let file = rendered(&folder, settings);
        succeeds(&mut check(&file));
    }
    // The check itself finds a key that Kubernetes does not know, and a wrong type of the operator's.
    let text = read(&rendered(&folder, &ALL));
    for (from, to, named) in [
        (
            "readOnlyRootFilesystem",
            "readonlyRootFilesystem",
            "Deployment",
        ),
        ("endpoints:\n", "endpoints: 3\n  more:\n", "ServiceMonitor"),
    ] {
        assert!(text.contains(from));
        let bad = folder.file("bad.yaml", &text.replace(from, to));
        let told = fails(&mut check(&bad));
        assert!(told.contains(named), "{told}");
    }
}

#[test]
fn chart_makes_a_configuration_that_the_daemon_refuses() {
    let folder = Folder::new();
    let all = objects(&rendered(&folder, &[]));
    let config = object(&all, "ConfigMap")["data"]["config.yaml"]
        .as_str()
        .unwrap();
    let file = folder.file("config.yaml", config);
    succeeds(
        Command::new(MRCOND)
            .args(["check", "--offline", "-c"])
            .arg(file),
    );
}

#[test]
fn probe_asks_for_a_path_that_is_not_served_or_a_secret_stands_in_the_chart() {
    let folder = Folder::new();
    let all = objects(&rendered(&folder, &ALL));
    assert!(all.iter().all(|object| object["kind"] != "Secret"));
    let pod = &object(&all, "Deployment")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    for (probe, path) in [
        ("livenessProbe", "/livez"),
        ("startupProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(
            container[probe]["httpGet"]["port"],
            container["ports"][0]["name"]
        );
    }
    assert_eq!(container["ports"][0]["containerPort"], 3000);
    let variables = container["env"].as_array().unwrap();
    let uris: Vec<&str> = variables
        .iter()
        .filter(|one| one["name"].as_str().unwrap().contains("_URI"))
        .map(|one| one["value"].as_str().unwrap())
        .collect();
    let mounted: Vec<String> = pod["volumes"][1]["projected"]["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            one["secret"]["items"][0]["path"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        mounted,
        ["mongo_uri", "rabbitmq_uri", "rabbitmq_stream_uri"]
    );
    let expected: Vec<String> = mounted
        .iter()
        .map(|name| format!("/run/secrets/mrcond/{name}"))
        .collect();
    assert_eq!(uris, expected);
    // More than server.shutdown_timeout.
    assert_eq!(pod["terminationGracePeriodSeconds"], 30);
    // The pod that fails is the one whose metrics are wanted.
    assert_eq!(
        object(&all, "Service")["spec"]["publishNotReadyAddresses"],
        true
    );
    let selector = &object(&all, "Service")["spec"]["selector"];
    for (kind, place) in [
        ("ServiceMonitor", "/spec/selector/matchLabels"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("Deployment", "/spec/selector/matchLabels"),
    ] {
        assert_eq!(object(&all, kind).pointer(place), Some(selector), "{kind}");
    }
}

#[test]
fn chart_has_other_alerts_than_prometheus() {
    let folder = Folder::new();
    let all = objects(&rendered(&folder, &ALL));
    let rule = &object(&all, "PrometheusRule")["spec"];
    let named = |value: &Value| {
        let groups = value["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap().clone());
        let rules = rules.map(|rule| {
            (
                rule["alert"].clone(),
                rule["record"].clone(),
                rule["expr"].clone(),
            )
        });
        rules.collect::<Vec<_>>()
    };
    let shipped = ["mrcon.alerts.yml", "mrcon.rules.yml"]
        .map(|name| repository("deploy/prometheus/rules").join(name))
        .map(|file| objects(&file).remove(0));
    let shipped: Vec<_> = shipped.iter().flat_map(named).collect();
    assert!(shipped.len() > 15);
    assert_eq!(named(rule), shipped);
    // As Prometheus reads them.
    let file = folder.file("rules.json", &rule.to_string());
    let mut promtool = Command::new(fetch("prometheus").join("promtool"));
    succeeds(promtool.args(["check", "rules"]).arg(&file));
    let text = rule.to_string();
    let books = text.matches("\"runbook_url\":\"").count();
    let mine = text.matches("\"runbook_url\":\"https://git.example.com/mrcon/docs/RUNBOOK.md#");
    assert_eq!(mine.count(), books);
    // They ask for this job, whatever the release's name.
    let monitor = object(&all, "ServiceMonitor")["spec"]["endpoints"][0].clone();
    assert_eq!(monitor["relabelings"][0]["replacement"], "mrcond");
}

#[test]
fn chart_takes_a_password_or_a_setting_that_breaks_it() {
    for setting in [
        "secrets.mongoUri=mongodb://user:secret@host",
        "secrets.mongoUri.value=mongodb://user:secret@host",
        "secrets.mongoUri.name=",
        "config=",
        "image.digest=latest",
        "extraEnv[0].value=nameless",
        "serviceMonitor.interval=soon",
        "serviceMonitor.scrapeTimeout=soon",
        "config.server.listen=127.0.0.1:4000",
        "config.collections=null",
        "podDisruptionBudget.maxUnavailable=2",
        "serviceMonitor.intervall=1s",
        "replicas=2",
    ] {
        let told = fails(&mut helm("template", &[setting]));
        assert!(told.contains("schema"), "{setting}: {told}");
    }
}

#[test]
fn chart_is_of_another_version_than_the_daemon() {
    let chart = read(&repository("deploy/helm/mrcond/Chart.yaml"));
    let version = env!("CARGO_PKG_VERSION");
    assert!(chart.contains(&format!("\nversion: {version}\n")));
    assert!(chart.contains(&format!("\nappVersion: \"{version}\"\n")));
}
