//! Bytes to a configuration, or to lines that say what is wrong.

use mrcon::config::{Config, ValidConfig};

use super::CANARY;

/// Longest line that a person can be asked to read.
const MAX_LINE_BYTES: usize = 4096;

/// Behind every `://` a secret is put in.
pub(crate) fn config(data: &[u8]) {
    let marked = with_canary(data);
    let parsed = ValidConfig::from_yaml("config.yaml", &marked);
    // The same in two steps, as for a configuration that is built in code.
    if let Ok(text) = std::str::from_utf8(&marked) {
        let in_steps = Config::from_yaml(text).and_then(Config::validate);
        assert_eq!(parsed.as_ref().ok(), in_steps.as_ref().ok());
        in_steps.err().iter().flatten().for_each(check_problem);
    }
    match parsed {
        Ok(config) => check_reads_back(&config.into_inner()),
        Err(problems) => {
            assert!(!problems.is_empty(), "it is refused without a word");
            for problem in &problems {
                assert!(problem.line().is_some_and(|line| line > 0), "{problem}");
                check_problem(problem);
            }
        }
    }
}

fn with_canary(data: &[u8]) -> Vec<u8> {
    let mut marked = Vec::with_capacity(data.len());
    for &byte in data {
        marked.push(byte);
        if marked.ends_with(b"://") {
            marked.extend_from_slice(CANARY.as_bytes());
            marked.push(b'@');
        }
    }
    marked
}

fn check_problem(problem: &mrcon::config::Problem) {
    let line = problem.to_string();
    assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    assert!(line.len() <= MAX_LINE_BYTES, "{} bytes: {line}", line.len());
    let shown = format!("{line} {problem:?} {}", problem.key());
    assert!(!shown.contains(CANARY), "{shown}");
}

/// What is valid and written down is read as the same.
fn check_reads_back(config: &Config) {
    let text = serde_json::to_string(config).expect("a configuration can be written");
    let read = Config::from_yaml(&text).expect("JSON is YAML");
    // A small int64 of a pipeline comes back as an int32, so the texts are compared.
    let again = serde_json::to_string(&read).expect("a configuration can be written");
    assert_eq!(again, text);
}
