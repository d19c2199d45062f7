use super::super::validate_text as problems;
use super::*;

/// The text and the caret line of the first problem.
fn shown(text: &str) -> (String, String) {
    let problems = problems(text);
    let excerpt = problems[0]
        .excerpt()
        .unwrap_or_else(|| panic!("nothing is shown of {}", problems[0]));
    (excerpt.text.clone(), carets(excerpt))
}

fn carets(excerpt: &Excerpt) -> String {
    " ".repeat(excerpt.marked.start) + &"^".repeat(excerpt.marked.len())
}

/// An entry with these lines below `rabbitmq`.
fn entry(lines: &str) -> String {
    format!(
        "collections:\n  - watched: {{db_name: shop, coll_name: orders}}\n    rabbitmq:\n      stream_name: orders\n{lines}\n"
    )
}

#[test]
fn caret_is_under_something_else() {
    let cases = [
        (
            "      queue_type: quorm",
            "      queue_type: quorm",
            "                  ^^^^^",
        ),
        (
            "      queue_typ: quorum",
            "      queue_typ: …",
            "      ^^^^^^^^^",
        ),
        (
            "      \"queue_typ\" : {a: 1}",
            "      \"queue_typ\" : {…: …}",
            "      ^^^^^^^^^^^",
        ),
        (
            "      max_unconfirmed: 0 # many",
            "      max_unconfirmed: 0",
            "                       ^",
        ),
        ("      headers: [1]", "      headers: [1]", "      ^^^^^^^"),
        (
            "      dead_letter: {routing_key: a, exchang: b}",
            "      dead_letter: {routing_key: a, exchang: …}",
            "                                    ^^^^^^^",
        ),
        (
            "      max_unconfirmed:",
            "      max_unconfirmed:",
            "      ^^^^^^^^^^^^^^^",
        ),
        (
            "      stream_name: again",
            "      stream_name: …",
            "      ^^^^^^^^^^^",
        ),
        (
            "    overrides: [{collection: x, format: bsn}]",
            "    overrides: [{collection: x, format: bsn}]",
            "                                        ^^^",
        ),
    ];
    for (lines, text, caret) in cases {
        assert_eq!(
            shown(&entry(lines)),
            (text.to_owned(), caret.to_owned()),
            "{lines}"
        );
    }
    let missing = "collections:\n  - watched: {db_name: shop}\n    rabbitmq: {stream_name: x}\n";
    let below = (
        "  - watched: {db_name: shop}".to_owned(),
        "    ^^^^^^^".to_owned(),
    );
    assert_eq!(shown(missing), below);
}

#[test]
fn column_is_not_that_of_the_file() {
    let problems = problems(&entry("      queue_type: quorm"));
    assert_eq!(problems[0].line(), Some(5));
    assert_eq!(
        problems[0].excerpt().map(|excerpt| excerpt.column),
        Some(19)
    );
    assert_eq!(problems[0].hint(), Some("did you mean `quorum`?"));
}

#[test]
fn secret_is_shown_beside_what_is_wrong() {
    let lines = [
        "    mask: [{path: a, action: hsh, key: \"5up3r s3cret key\"}]",
        "    mask: [{path: a, acton: 5up3r, key: '5up3r s3cret key'}]",
        "    mask: [{path: a, action: hash, key: [5up3r, 5up3r]}]",
        "    mask: [{path: a, action: hash, key: 5up3r}]",
        "    mask: [{path: a, action: hash, keys: \"5up3r s3cret key\"}]",
        "    mask: [{path: a, action: hash, key: {5up3r: 1}}]",
        "    mask: [{path: a, action: hash, key: {{5up3r}}}]",
        "      password: {5up3r: 1}",
        "      unknown: {5up3r: 1}",
        "      password: 5up3r",
        "      exchange: {db_password: 5up3r}",
        "      queue_type: amqp://user:5up3r@host/",
        "      queue_type: quorm # amqp://user:5up3r@host/",
        "      queue_type: \"quorm # \\\" it\" # 5up3r",
        "      queue_type: 'quorm # '' it' # 5up3r",
        "      queue_type: 'quorm\n        it' # 5up3r",
        "      uri: amqp://user:5up3r@host/",
        "      ? amqp://user:5up3r@host/\n      : 1",
        "      ? [5up3r]\n      : 1",
        "      uri: [5up3r, {a: 5up3r}]",
        "      uri: |\n        5up3r\n",
        "    mask: [{path: a, action: hash, key: \"5up3r",
        "    mask:\n      - path: a\n        key:\n          \"5up3r\" x: 5up3r",
        "      queue_type: [quorum, 5up3r: 5up3r",
        "\tkey: 5up3r",
        "      headers: {a: *5up3r}",
        "      stream_name: 5up3r",
    ];
    for line in lines {
        for problem in problems(&entry(line)) {
            let Some(excerpt) = problem.excerpt() else {
                continue;
            };
            assert!(
                !excerpt.text.contains("5up3r"),
                "{line}: {problem}: {}",
                excerpt.text
            );
            assert!(
                !excerpt.text.contains("s3cret"),
                "{line}: {problem}: {}",
                excerpt.text
            );
        }
    }
}

#[test]
fn secret_over_several_lines_is_shown() {
    let text = entry(
        "    mask:\n      - {path: a, action: hash, key: 'first\n          5up3r 5up3r', acton: x}",
    );
    let problems = problems(&text);
    let told: Vec<_> = problems.iter().filter_map(Problem::excerpt).collect();
    assert!(!told.is_empty(), "{problems:?}");
    for excerpt in told {
        assert!(!excerpt.text.contains("5up3r"), "{}", excerpt.text);
        assert!(!excerpt.text.contains("first"), "{}", excerpt.text);
    }
}

#[test]
fn line_ends_of_other_systems_show_another_line() {
    let text = entry("      queue_type: quorm");
    let hidden = "# amqp://user:5up3r@host";
    for end in ["\n", "\r\n", "\r"] {
        // Each comment would be shown in the place of the line behind it.
        let text = text.replace('\n', &format!("{end}{hidden}{end}"));
        let (line, caret) = shown(&text);
        assert_eq!(
            (line.as_str(), caret.trim_start()),
            ("      queue_type: quorm", "^^^^^"),
            "{end:?}"
        );
    }
}

#[test]
fn long_line_is_shown_whole_or_without_its_mark() {
    let text = entry(&format!(
        "      headers: {{{}: 1, b: [1], {}: 2}}",
        "a".repeat(300),
        "c".repeat(300)
    ));
    let (text, caret) = shown(&text);
    assert!(text.chars().count() <= SHOWN + 2, "{text}");
    assert!(text.starts_with(HIDDEN) || text.ends_with(HIDDEN), "{text}");
    assert!(
        caret.chars().count() <= text.chars().count() + 1,
        "{text}\n{caret}"
    );
    let text = entry(&format!(
        "      max_unconfirmed: {}0",
        "0".repeat(LONGEST_LINE)
    ));
    assert!(problems(&text)[0].excerpt().is_none());
}

#[test]
fn control_character_reaches_the_terminal() {
    let text = entry("      queue_type: \"a\u{9b}31m\u{202e}\"");
    let (text, _) = shown(&text);
    assert!(!text.contains(['\u{9b}', '\u{202e}']), "{text:?}");
}

#[test]
fn broken_yaml_is_shown_without_its_place() {
    let (text, caret) = shown("collections: [\n  watched: {a: b]\n");
    assert!(text.starts_with("  watched: {"), "{text}");
    assert!(caret.ends_with('^'), "{caret}");
}
