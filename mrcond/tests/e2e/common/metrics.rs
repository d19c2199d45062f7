//! Reading the Prometheus text format as strictly as `promtool check metrics` does.

use std::collections::{BTreeMap, BTreeSet};

/// The one gauge whose name ends like a counter's: it is fixed by its users.
const GAUGE_NAMED_TOTAL: &str = "mrcon_running_servers_total";

/// One scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metrics {
    families: BTreeMap<String, Family>,
}

type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Family {
    pub(crate) help: String,
    pub(crate) kind: String,
    /// Of a histogram, the counts.
    samples: BTreeMap<Labels, f64>,
    /// Of a histogram: upper bounds and the counts up to them, in the order of the text.
    buckets: BTreeMap<Labels, Vec<(f64, f64)>>,
    sums: BTreeMap<Labels, f64>,
}

impl Metrics {
    /// The error tells the first thing that is wrong, with its line.
    pub(crate) fn parse(text: &str) -> Result<Metrics, String> {
        if !text.ends_with('\n') {
            return Err("the last line has no end".into());
        }
        let mut metrics = Metrics::default();
        let mut current = String::new();
        for line in text.lines() {
            metrics
                .take(line, &mut current)
                .map_err(|error| format!("{error}: {line}"))?;
        }
        metrics.check()?;
        Ok(metrics)
    }

    fn take(&mut self, line: &str, current: &mut String) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("HELP without a text")?;
            if self.families.contains_key(name) {
                return Err("a family in two places".into());
            }
            *current = name.to_owned();
            self.families.insert(
                name.to_owned(),
                Family {
                    help: help.to_owned(),
                    ..Family::default()
                },
            );
            return Ok(());
        }
        let family = self
            .families
            .get_mut(current.as_str())
            .ok_or("no HELP before it")?;
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("TYPE without a type")?;
            if name != current || !family.kind.is_empty() {
                return Err("TYPE of another family".into());
            }
            family.kind = kind.to_owned();
            return Ok(());
        }
        let (name, labels, value) = sample(line)?;
        let part = name
            .strip_prefix(current.as_str())
            .ok_or_else(|| format!("a sample in the family {current}"))?;
        family
            .take(part, labels, value)
            .map_err(|error| format!("{error} in the family {current}"))
    }

    fn check(&self) -> Result<(), String> {
        for (name, family) in &self.families {
            let total = name.ends_with("_total");
            match family.kind.as_str() {
                "counter" if !total => {
                    return Err(format!("the counter {name} does not end in _total"));
                }
                "gauge" if total && name != GAUGE_NAMED_TOTAL => {
                    return Err(format!("the gauge {name} ends in _total"));
                }
                "counter" | "gauge" => {}
                "histogram" => family
                    .check_histogram()
                    .map_err(|error| format!("{name}: {error}"))?,
                other => return Err(format!("{name} is a {other:?}")),
            }
            if family.samples.is_empty() {
                return Err(format!("{name} has no samples"));
            }
            let keys = |labels: &Labels| labels.keys().cloned().collect::<Vec<_>>();
            let same: BTreeSet<Vec<String>> = family.samples.keys().map(keys).collect();
            if same.len() != 1 {
                return Err(format!("{name} has series with different labels: {same:?}"));
            }
        }
        Ok(())
    }

    pub(crate) fn family(&self, name: &str) -> &Family {
        self.families
            .get(name)
            .unwrap_or_else(|| panic!("no metric {name}; there are {:?}", self.names()))
    }

    pub(crate) fn family_or_none(&self, name: &str) -> Option<&Family> {
        self.families.get(name)
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.families.keys().map(String::as_str).collect()
    }

    /// The value of the series with exactly these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self.families.get(name)?.samples.get(&labels).copied()
    }

    /// The upper bounds of a histogram without labels and the counts up to them, and the sum.
    pub(crate) fn distribution(&self, name: &str) -> (Vec<(f64, f64)>, f64) {
        let (family, none) = (self.family(name), Labels::new());
        (family.buckets[&none].clone(), family.sums[&none])
    }

    /// The sum over all series that have these labels among theirs.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = |series: &Labels| {
            labels
                .iter()
                .all(|(name, value)| series.get(*name).is_some_and(|found| found == value))
        };
        let samples = self.family(name).samples.iter();
        samples
            .filter(|(series, _)| wanted(series))
            .map(|(_, value)| value)
            .sum()
    }

    /// The first counter that went back since `earlier`, which must be of the same process.
    pub(crate) fn gone_back(&self, earlier: &Metrics) -> Option<String> {
        earlier
            .families
            .iter()
            .filter(|(_, family)| family.kind != "gauge")
            .find_map(|(name, family)| {
                let now = self.families.get(name).map(|family| &family.samples);
                family.samples.iter().find_map(|(labels, before)| {
                    let value = now.and_then(|samples| samples.get(labels));
                    let fine = value.is_some_and(|value| value >= before);
                    (!fine).then(|| format!("{name}{labels:?} went from {before} to {value:?}"))
                })
            })
    }
}

impl Family {
    /// `part` is what stands behind the family's name.
    fn take(&mut self, part: &str, mut labels: Labels, value: f64) -> Result<(), String> {
        let twice = match (self.kind.as_str(), part) {
            ("counter" | "gauge", "") | ("histogram", "_count") => {
                self.samples.insert(labels, value).is_some()
            }
            ("histogram", "_sum") => self.sums.insert(labels, value).is_some(),
            ("histogram", "_bucket") => {
                let bound = labels.remove("le").ok_or("a bucket without a bound")?;
                let bound = bound.parse().map_err(|_| format!("the bound {bound:?}"))?;
                self.buckets.entry(labels).or_default().push((bound, value));
                false
            }
            _ => return Err("a sample".to_owned()),
        };
        if twice {
            Err("the same series twice".into())
        } else {
            Ok(())
        }
    }

    fn check_histogram(&self) -> Result<(), String> {
        let series =
            |labels: &Labels| self.sums.contains_key(labels) && self.buckets.contains_key(labels);
        if !self.samples.keys().all(series) || self.buckets.len() != self.samples.len() {
            return Err("a histogram without sum, count or buckets".into());
        }
        for (labels, buckets) in &self.buckets {
            let rising = buckets.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1);
            if !rising || buckets.last() != Some(&(f64::INFINITY, self.samples[labels])) {
                return Err(format!(
                    "buckets that do not add up: {labels:?} {buckets:?}"
                ));
            }
        }
        Ok(())
    }

    /// The values of one label over all series.
    pub(crate) fn label_values(&self, label: &str) -> BTreeSet<&str> {
        self.samples
            .keys()
            .filter_map(|labels| labels.get(label))
            .map(String::as_str)
            .collect()
    }

    pub(crate) fn labels(&self) -> BTreeSet<&str> {
        self.samples
            .keys()
            .flat_map(BTreeMap::keys)
            .map(String::as_str)
            .collect()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = f64> {
        self.samples.values().copied()
    }
}

type Sample = (String, Labels, f64);

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("a sample without a value")?;
    let (name, rest) = line.split_at(end);
    if name.is_empty()
        || !name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || char == '_' || char == ':')
    {
        return Err("not a name".into());
    }
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = value.strip_prefix(' ').ok_or("no space before the value")?;
    let number = value
        .parse()
        .map_err(|_| format!("{value:?} is not a number"))?;
    Ok((name.to_owned(), labels, number))
}

/// Reads `name="value",...}` and returns what is behind it.
fn labels(mut rest: &str) -> Result<(Labels, &str), String> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, after) = rest.split_once("=\"").ok_or("a label without a value")?;
        let (value, after) = quoted(after)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("the label {name} twice"));
        }
        match after.split_at_checked(1) {
            Some((",", more)) => rest = more,
            Some(("}", after)) => return Ok((labels, after)),
            _ => return Err("labels without an end".into()),
        }
    }
}

fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                _ => return Err("an unknown escape".into()),
            },
            other => value.push(other),
        }
    }
    Err("a label value without an end".into())
}

mod tests {
    use super::*;

    const FINE: &str = "# HELP a_total Some text\n# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"\\\\\\n\"} 3\na_total{x=\"2\",y=\"\"} 0\n# HELP b Other\n# TYPE b gauge\nb 1.5\n";

    #[test]
    fn values_or_labels_are_read_wrong() {
        let metrics = Metrics::parse(FINE).unwrap();
        assert_eq!(
            metrics.value("a_total", &[("x", "1"), ("y", "q\"\\\n")]),
            Some(3.0)
        );
        assert_eq!(metrics.value("a_total", &[("x", "1")]), None);
        assert_eq!(
            (
                metrics.sum("a_total", &[]),
                metrics.sum("a_total", &[("x", "2")])
            ),
            (3.0, 0.0)
        );
        assert_eq!(metrics.value("b", &[]), Some(1.5));
        assert_eq!(metrics.family("b").help, "Other");
        assert_eq!(
            metrics.family("a_total").label_values("x"),
            BTreeSet::from(["1", "2"])
        );
    }

    #[test]
    fn text_that_prometheus_refuses_passes() {
        let spoiled = [
            ("has no end", FINE.trim_end().to_owned()),
            ("no HELP", "a 1\n".to_owned()),
            (
                "twice",
                FINE.replace("x=\"2\",y=\"\"", "x=\"1\",y=\"q\\\"\\\\\\n\""),
            ),
            ("two places", format!("{FINE}# HELP a_total Again\n")),
            ("not a number", FINE.replace(" 3\n", " three\n")),
            ("does not end in _total", FINE.replace("a_total", "a")),
            (
                "ends in _total",
                FINE.replace("# HELP b", "# HELP b_total")
                    .replace("TYPE b", "TYPE b_total")
                    .replace("\nb ", "\nb_total "),
            ),
            ("a sample in the family", FINE.replace("\nb 1.5", "\nc 1.5")),
            ("no samples", FINE.replace("b 1.5\n", "")),
            ("different labels", FINE.replace(",y=\"\"", "")),
            ("no space", FINE.replace("} 0", "}0")),
        ];
        for (expected, text) in spoiled {
            let error = Metrics::parse(&text).expect_err(expected);
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn histogram_that_does_not_add_up_passes() {
        let fine = "# HELP h Seconds\n# TYPE h histogram\nh_bucket{a=\"1\",le=\"0.5\"} 2\nh_bucket{a=\"1\",le=\"+Inf\"} 3\nh_sum{a=\"1\"} 4.5\nh_count{a=\"1\"} 3\n";
        let metrics = Metrics::parse(fine).unwrap();
        assert_eq!(metrics.value("h", &[("a", "1")]), Some(3.0));
        let spoiled = [
            fine.replace("} 2\n", "} 4\n"),
            fine.replace("} 3\nh_sum", "} 2\nh_sum"),
            fine.replace("0.5", "+Inf"),
            fine.replace("h_sum{a=\"1\"} 4.5\n", ""),
            fine.replace("h_count{a=\"1\"} 3\n", ""),
            fine.replace("h_sum", "h_total"),
            fine.replace(",le=\"0.5\"", ""),
        ];
        for text in spoiled {
            assert!(Metrics::parse(&text).is_err(), "{text}");
        }
        let later = Metrics::parse(&fine.replace(" 3\n", " 2\n")).unwrap();
        assert!(later.gone_back(&metrics).is_some());
    }

    #[test]
    fn counter_that_goes_back_goes_unseen() {
        let earlier = Metrics::parse(FINE).unwrap();
        let later = |text: &str| Metrics::parse(text).unwrap().gone_back(&earlier);
        assert_eq!(
            later(&FINE.replace("} 3", "} 4").replace("b 1.5", "b 1")),
            None
        );
        assert!(later(&FINE.replace("} 3", "} 2")).is_some());
        assert!(later(&FINE.replace("x=\"2\"", "x=\"3\"")).is_some());
    }
}
