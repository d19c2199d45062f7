//! The standard variables `OTEL_*`.
//!
//! As the specification wants it, a value that cannot be used is told in the log and passed over:
//! telemetry is no reason not to deliver. Neither a header's value nor an endpoint's user or query
//! is ever shown.

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// One event in a thousand: at 20,000 events a second still 20 spans a second.
const DEFAULT_RATIO: f64 = 0.001;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_METRIC_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_SPAN_DELAY: Duration = Duration::from_secs(5);

/// What to export, and where to.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Attributes of who sends, in the order of the variables.
    pub(super) resource: Vec<(String, String)>,
    pub(super) traces: Option<Traces>,
    pub(super) metrics: Option<Metrics>,
    /// What was passed over, a line each.
    pub(super) warnings: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Traces {
    pub(super) target: Target,
    /// The part of all events that is sampled.
    pub(super) ratio: f64,
    /// How often spans are sent.
    pub(super) delay: Duration,
}

#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) target: Target,
    /// How often metrics are sent.
    pub(super) interval: Duration,
}

/// Where one kind of telemetry goes.
pub(super) struct Target {
    pub(super) url: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) timeout: Duration,
    /// Authorities to trust instead of the machine's.
    pub(super) certificate: Option<PathBuf>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.url.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}", self.url.host().unwrap_or_default())?;
        if let Some(port) = self.url.port_u16() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.url.path())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Settings {
    /// Reads the variables through `variable`.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Settings {
        let mut reader = Reader {
            variable,
            warnings: Vec::new(),
        };
        if reader.word("OTEL_SDK_DISABLED").as_deref() == Some("true") {
            return Settings::default();
        }
        let traces = reader.target("TRACES").map(|target| Traces {
            target,
            ratio: reader.ratio(),
            delay: reader.millis("OTEL_BSP_SCHEDULE_DELAY", DEFAULT_SPAN_DELAY),
        });
        let metrics = reader.target("METRICS").map(|target| Metrics {
            target,
            interval: reader.millis("OTEL_METRIC_EXPORT_INTERVAL", DEFAULT_METRIC_INTERVAL),
        });
        let any = traces.is_some() || metrics.is_some();
        Settings {
            resource: if any { reader.resource() } else { vec![] },
            traces,
            metrics,
            warnings: reader.warnings,
        }
    }
}

struct Reader<F> {
    variable: F,
    warnings: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    /// A variable that is set and not empty.
    fn text(&self, name: &str) -> Option<String> {
        let text = (self.variable)(name)?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    fn word(&self, name: &str) -> Option<String> {
        self.text(name).map(|text| text.to_ascii_lowercase())
    }

    /// The variable of one signal, else that of all, with the name it has.
    fn option(&self, signal: &str, option: &str) -> Option<(String, String)> {
        let names = [
            format!("OTEL_EXPORTER_OTLP_{signal}_{option}"),
            format!("OTEL_EXPORTER_OTLP_{option}"),
        ];
        names
            .into_iter()
            .find_map(|name| self.text(&name).map(|text| (name, text)))
    }

    fn warn(&mut self, name: &str, what: &str) {
        self.warnings.push(format!("{name}: {what}"));
    }

    fn target(&mut self, signal: &str) -> Option<Target> {
        let exporter = format!("OTEL_{signal}_EXPORTER");
        match self.word(&exporter).as_deref() {
            None | Some("otlp") => {}
            Some("none") => return None,
            Some(_) => {
                self.warn(
                    &exporter,
                    "only otlp and none are known; nothing is exported",
                );
                return None;
            }
        }
        let url = self.url(signal)?;
        if let Some((name, protocol)) = self.option(signal, "PROTOCOL")
            && protocol != "http/protobuf"
        {
            self.warn(&name, "only http/protobuf is built in; nothing is exported");
            return None;
        }
        if let Some((name, compression)) = self.option(signal, "COMPRESSION")
            && compression != "none"
        {
            self.warn(&name, "no compression is built in; sent as it is");
        }
        let timeout = match self.option(signal, "TIMEOUT") {
            Some((name, _)) => self.millis(&name, DEFAULT_TIMEOUT),
            None => DEFAULT_TIMEOUT,
        };
        Some(Target {
            url,
            headers: self.headers(signal),
            timeout,
            certificate: self
                .option(signal, "CERTIFICATE")
                .map(|(_, file)| file.into()),
        })
    }

    /// The endpoint of the signal as it stands, or the one of all with the signal's path.
    fn url(&mut self, signal: &str) -> Option<Uri> {
        let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
        let (name, text) = match self.text(&own) {
            Some(text) => (own, text),
            None => {
                let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
                let base = self.text(name)?;
                let base = base.trim_end_matches('/');
                let path = format!("{base}/v1/{}", signal.to_ascii_lowercase());
                (name.to_owned(), path)
            }
        };
        let usable = |url: &Uri| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.host().is_some_and(|host| !host.is_empty())
        };
        let url = Uri::from_str(&text).ok().filter(usable);
        if url.is_none() {
            self.warn(
                &name,
                "not a URL such as http://host:4318; nothing is exported",
            );
        }
        url
    }

    /// `name=value,name=value`, values percent-encoded.
    fn headers(&mut self, signal: &str) -> Vec<(HeaderName, HeaderValue)> {
        let Some((name, text)) = self.option(signal, "HEADERS") else {
            return vec![];
        };
        let header = |(key, value): (String, String)| {
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_str(&key).ok()?, value))
        };
        let headers: Option<Vec<_>> =
            pairs(&text).and_then(|pairs| pairs.into_iter().map(header).collect());
        headers.unwrap_or_else(|| {
            self.warn(
                &name,
                "not of the form name=value,name=value; no header is sent",
            );
            vec![]
        })
    }

    fn millis(&mut self, name: &str, default: Duration) -> Duration {
        let Some(text) = self.text(name) else {
            return default;
        };
        match text.parse() {
            Ok(millis @ 1..) => Duration::from_millis(millis),
            _ => {
                self.warn(
                    name,
                    "not a number of milliseconds above 0; the default holds",
                );
                default
            }
        }
    }

    /// The part of events that is sampled. Events have no parents, so `parentbased_x` is `x`.
    fn ratio(&mut self) -> f64 {
        let name = "OTEL_TRACES_SAMPLER";
        let sampler = self.word(name);
        let sampler = sampler.as_deref().map(|sampler| {
            let plain = sampler.strip_prefix("parentbased_");
            plain.unwrap_or(sampler)
        });
        match sampler {
            Some("always_on") => 1.0,
            Some("always_off") => 0.0,
            Some("traceidratio") => self.argument().unwrap_or(1.0),
            None => self.argument().unwrap_or(DEFAULT_RATIO),
            Some(_) => {
                self.warn(name, "unknown sampler; the default holds");
                DEFAULT_RATIO
            }
        }
    }

    fn argument(&mut self) -> Option<f64> {
        let name = "OTEL_TRACES_SAMPLER_ARG";
        let text = self.text(name)?;
        let ratio = text
            .parse()
            .ok()
            .filter(|ratio: &f64| (0.0..=1.0).contains(ratio));
        if ratio.is_none() {
            self.warn(name, "not a number from 0 to 1; the default holds");
        }
        ratio
    }

    fn resource(&mut self) -> Vec<(String, String)> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let named = self.text(name).map(|text| pairs(&text));
        let mut attributes = match named {
            None => vec![],
            Some(Some(pairs)) => pairs,
            Some(None) => {
                self.warn(name, "not of the form name=value,name=value; passed over");
                vec![]
            }
        };
        let mut set = |key: &str, value: String, wins: bool| {
            let there = attributes.iter().position(|(name, _)| name == key);
            match there {
                Some(there) if wins => attributes[there].1 = value,
                Some(_) => {}
                None => attributes.push((key.to_owned(), value)),
            }
        };
        let service = self.text("OTEL_SERVICE_NAME");
        let wins = service.is_some();
        set(
            "service.name",
            service.unwrap_or_else(|| "mrcond".into()),
            wins,
        );
        set("service.version", env!("CARGO_PKG_VERSION").into(), false);
        attributes
    }
}

fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let key = key.trim();
        (!key.is_empty()).then(|| (key.to_owned(), value.into_owned()))
    };
    parts.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Settings {
        Settings::read(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    fn ratio(variables: &[(&str, &str)]) -> f64 {
        let all: Vec<_> = [BASE].iter().chain(variables).copied().collect();
        read(&all).traces.unwrap().ratio
    }

    #[test]
    fn something_is_exported_without_an_endpoint() {
        let settings = read(&[
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ]);
        assert!(settings.traces.is_none() && settings.metrics.is_none());
        assert!(settings.warnings.is_empty());
        let disabled = read(&[BASE, ("OTEL_SDK_DISABLED", "TRUE")]);
        assert!(disabled.traces.is_none() && disabled.metrics.is_none());
    }

    #[test]
    fn endpoints_are_not_those_of_the_specification() {
        let settings = read(&[BASE]);
        let (traces, metrics) = (settings.traces.unwrap(), settings.metrics.unwrap());
        assert_eq!(traces.target.to_string(), "http://collector:4318/v1/traces");
        assert_eq!(
            metrics.target.to_string(),
            "http://collector:4318/v1/metrics"
        );
        assert_eq!(metrics.interval, Duration::from_secs(60));
        assert_eq!(traces.target.timeout, Duration::from_secs(10));
        let settings = read(&[
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "https://user:canary@host/in?key=canary",
            ),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "500"),
        ]);
        let traces = settings.traces.unwrap();
        assert_eq!(format!("{:?}", traces.target), "https://host/in");
        assert_eq!(traces.target.url.query(), Some("key=canary"));
        assert_eq!(traces.target.timeout, Duration::from_millis(500));
        assert!(settings.metrics.is_none());
        let off = read(&[BASE, ("OTEL_TRACES_EXPORTER", "none")]);
        assert!(off.traces.is_none() && off.metrics.is_some() && off.warnings.is_empty());
    }

    #[test]
    fn sampler_is_passed_over() {
        let sampler = |name| ("OTEL_TRACES_SAMPLER", name);
        let argument = |text| ("OTEL_TRACES_SAMPLER_ARG", text);
        assert_eq!(ratio(&[]), DEFAULT_RATIO);
        assert_eq!(ratio(&[argument("0.5")]), 0.5);
        assert_eq!(ratio(&[sampler("always_on")]), 1.0);
        assert_eq!(
            ratio(&[sampler("parentbased_always_off"), argument("1")]),
            0.0
        );
        assert_eq!(
            ratio(&[sampler("parentbased_traceidratio"), argument("0.25")]),
            0.25
        );
        assert_eq!(ratio(&[sampler("traceidratio")]), 1.0);
        assert_eq!(ratio(&[sampler("jaeger_remote")]), DEFAULT_RATIO);
    }

    #[test]
    fn headers_are_wrong_or_shown() {
        let name = "OTEL_EXPORTER_OTLP_HEADERS";
        let settings = read(&[BASE, (name, "x-key=can%20ary, authorization=Bearer canary")]);
        let headers = &settings.traces.as_ref().unwrap().target.headers;
        assert_eq!(headers[0].1.to_str().unwrap(), "can ary");
        assert_eq!(headers[1].0.as_str(), "authorization");
        assert!(!format!("{settings:?}").contains("canary"));
        let wrong = read(&[BASE, (name, "canary")]);
        assert!(wrong.traces.unwrap().target.headers.is_empty());
        assert!(wrong.warnings[0].starts_with(name), "{:?}", wrong.warnings);
        assert!(!wrong.warnings.concat().contains("canary"));
    }

    #[test]
    fn resource_does_not_say_who_sends() {
        let attributes = |variables: &[(&str, &str)]| {
            let all: Vec<_> = [BASE].iter().chain(variables).copied().collect();
            read(&all).resource
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let version = pair("service.version", env!("CARGO_PKG_VERSION"));
        let list = (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=a,deployment.environment.name=te%2Cst",
        );
        let environment = pair("deployment.environment.name", "te,st");
        assert_eq!(
            attributes(&[]),
            [pair("service.name", "mrcond"), version.clone()]
        );
        assert_eq!(
            attributes(&[list]),
            [
                pair("service.name", "a"),
                environment.clone(),
                version.clone()
            ]
        );
        assert_eq!(
            attributes(&[list, ("OTEL_SERVICE_NAME", "b")]),
            [pair("service.name", "b"), environment, version]
        );
    }

    #[test]
    fn value_that_cannot_be_used_goes_unsaid() {
        let wrong = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
            ("OTEL_TRACES_SAMPLER", "some"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "nothing"),
            ("OTEL_METRICS_EXPORTER", "prometheus"),
        ];
        for (name, value) in wrong {
            let settings = read(&[(name, value), BASE]);
            assert!(
                settings.warnings.iter().any(|line| line.starts_with(name)),
                "{name}: {:?}",
                settings.warnings
            );
        }
    }
}
