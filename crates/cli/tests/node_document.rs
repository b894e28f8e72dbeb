//! Keeps docs/node-document.md true: its examples are documents, its field and error names real.

use pointsman_model::Document;
use pointsman_model::document::{MAX_BYTES, json_schema};
use serde_json::Value;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/node-document.md");

fn examples() -> Vec<&'static str> {
    let blocks = PAGE.split("```json\n").skip(1);
    blocks.map(|block| block.split_once("```").expect("a block that ends").0).collect()
}

#[test]
fn every_example_is_a_valid_document() {
    assert!(examples().len() >= 6, "{} examples", examples().len());
    for example in examples() {
        if let Err(errors) = Document::parse(example.as_bytes()) {
            panic!("{errors:?} in\n{example}");
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_page() {
    let [short, long, ..] = examples()[..] else { panic!("no two examples") };
    let [short, long] = [short, long].map(|text| Document::parse(text.as_bytes()).unwrap());
    assert_eq!(short, long);
}

#[test]
fn every_field_and_word_of_the_schema_is_explained() {
    fn names<'a>(schema: &'a Value, found: &mut BTreeSet<&'a str>) {
        match schema {
            Value::Object(fields) => {
                if let Some(Value::Object(properties)) = fields.get("properties") {
                    found.extend(properties.keys().map(String::as_str));
                }
                if let Some(Value::Array(words)) = fields.get("enum") {
                    found.extend(words.iter().filter_map(Value::as_str));
                }
                fields.values().for_each(|field| names(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| names(item, found)),
            _ => {}
        }
    }
    let schema = json_schema();
    let mut found = BTreeSet::new();
    names(&schema, &mut found);
    assert!(found.len() > 25, "{found:?}");
    let missing: Vec<_> = found
        .into_iter()
        .filter(|name| {
            !PAGE.contains(&format!("`{name}`")) && !PAGE.contains(&format!("`\"{name}\"`"))
        })
        .collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
}

/// A document with something wrong in it, and the row of the page's table that explains it.
#[test]
fn the_errors_of_the_page_are_real() {
    let head = r#""schema": "pointsman.node/v1", "node": "a", "generation": 1"#;
    let top = |rest: &str| format!("{{{head}, {rest}}}");
    let program = |rest: &str| top(&format!(r#""programs": {{"p": {{{rest}}}}}"#));
    let object = |rest: &str| program(&format!(r#""object": {{{rest}}}"#));
    let interface = |rest: &str| {
        let count = r#""programs": {"p": {"builtin": "counting-pass"}}"#;
        top(&format!(r#"{count}, "interfaces": {{"eth0": {{{rest}}}}}"#))
    };
    let chain = |rest: &str| interface(&format!(r#""xdp": {{"chain": [{rest}]}}"#));
    let others = |rest: &str| interface(&format!(r#""xdp": {{"chain": [], "others": [{rest}]}}"#));
    let decided: Vec<_> =
        (0..65).map(|n| format!(r#"{{"name": "p{n}", "priority": 1}}"#)).collect();
    let queues = |rest: &str| interface(&format!(r#""queues": {{{rest}}}"#));
    let tuning = |rest: &str| queues(&format!(r#""tuning": [{rest}]"#));
    let flows = |rest: &str| interface(&format!(r#""flows": [{rest}]"#));
    let rules: Vec<_> = (1..1026)
        .map(|port| format!(r#"{{"type": "udp4", "dst_port": {port}, "queue": 1}}"#))
        .collect();
    let many: Vec<_> = (0..129).map(|n| format!(r#"{{"program": "p{n}"}}"#)).collect();
    let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let cases = [
        ("missing field", "{}".into()),
        ("unknown field", top(r#""note": 1"#)),
        ("unknown variant", interface(r#""xdp": {"mode": "fast", "chain": []}"#)),
        ("duplicate field", top(r#""node": "b""#)),
        ("duplicate key", program(r#""builtin": "counting-pass", "globals": {"a": 1, "a": 2}"#)),
        ("invalid type", chain(r#"{"program": "p", "enforce": "no"}"#)),
        ("invalid value", chain(r#"{"program": "p", "priority": -1}"#)),
        ("this version does not act on this section", top(r#""companions": {}"#)),
        ("this version does not act on this section", interface(r#""tc": {}"#)),
        (
            "expected a number of at least 1",
            r#"{"schema": "pointsman.node/v1", "node": "a", "generation": 0}"#.into(),
        ),
        (
            "is not a valid node name",
            r#"{"schema": "pointsman.node/v1", "node": "a b", "generation": 1}"#.into(),
        ),
        ("is not a valid program name", top(r#""programs": {"": {}}"#)),
        ("is not a valid interface name", top(r#""interfaces": {"a:b": {}}"#)),
        ("is not a valid network namespace name", top(r#""interfaces": {"/a": {}}"#)),
        (
            "expected exactly one of `name`, `path` and `pid`",
            top(r#""namespaces": {"a": {"name": "a", "pid": 1}}"#),
        ),
        ("expected a number from 1 to 4194304", top(r#""namespaces": {"a": {"pid": 0}}"#)),
        ("expected the number of a CPU, below 8192", top(r#""lcores": {"reserve": [8192]}"#)),
        ("expected a number from 1 to 65536", top(r#""lcores": {"limit": 0}"#)),
        ("is not a valid entry name", program(r#""builtin": "counting-pass", "entry": "1a""#)),
        ("is not a valid sha256", object(r#""sha256": "9F86""#)),
        ("expected `object` or `builtin`", program("")),
        (
            "expected `entries`, `on_upgrade`, or both",
            program(r#""builtin": "counting-pass", "maps": {"counts": {}}"#),
        ),
        (
            "expected one of `object` and `builtin`, found both",
            program(r#""builtin": "counting-pass", "object": {"path": "/a"}"#),
        ),
        (
            "expected exactly one of `path`, `inline`, `url`, or `sha256` alone",
            object(r#""path": "/a", "inline": """#),
        ),
        ("expected `sha256` beside `url`", object(r#""url": "https://objects.example/a.o""#)),
        ("expected an absolute path", object(r#""path": "a.o""#)),
        ("expected base64", object(r#""inline": "f0VMRg""#)),
        (
            "expected an http or https URL",
            object(&format!(r#""url": "file:///a.o", "sha256": "{hash}""#)),
        ),
        (
            "differs from the hash of the inline object",
            object(&format!(r#""inline": "AAAA", "sha256": "{hash}""#)),
        ),
        ("expected a name from /programs", chain(r#"{"program": "q"}"#)),
        ("is in this chain already", chain(r#"{"program": "p"}, {"program": "p"}"#)),
        ("is listed twice", chain(r#"{"program": "p", "chain_call_actions": ["pass", "pass"]}"#)),
        ("expected at most 128 programs", chain(&many.join(", "))),
        (
            "a slot of its own needs a dispatcher",
            interface(r#""xdp": {"engine": "fused", "chain": [{"program": "p", "slot": "own"}]}"#),
        ),
        (
            "others can only be in a dispatcher",
            interface(
                r#""xdp": {"engine": "fused", "chain": [], "others": [{"name": "a", "priority": 1}]}"#,
            ),
        ),
        ("expected exactly one of `name` and `tag`", others(r#"{"priority": 1}"#)),
        ("expected `priority`, `chain_call_actions`, or both", others(r#"{"name": "a"}"#)),
        ("expected the name of a function", others(r#"{"name": "a b", "priority": 1}"#)),
        ("expected 16 hexadecimal digits", others(r#"{"tag": "9F", "priority": 1}"#)),
        (
            "these programs are decided about already",
            others(r#"{"name": "a", "priority": 1}, {"name": "a", "priority": 2}"#),
        ),
        ("expected at most 64 of them", others(&decided.join(", "))),
        ("expected a number from 1 to 65535", queues(r#""combined": 0"#)),
        ("expected `combined`, or `rx` and `tx`", queues(r#""combined": 1, "rx": 1"#)),
        ("queue 0 cannot be reserved", queues(r#""reserve": [0]"#)),
        ("is reserved twice", queues(r#""reserve": [1, 1]"#)),
        ("expected the number of a queue, below 65535", queues(r#""reserve": [65535]"#)),
        ("expected `busy_poll`, `interrupts`, or both", tuning("{}")),
        ("expected queues; leave it out for all", tuning(r#"{"queues": [], "interrupts": [0]}"#)),
        ("expected CPUs", tuning(r#"{"interrupts": []}"#)),
        (
            "is about all queues already",
            tuning(r#"{"interrupts": [0]}, {"interrupts": "beside_lcores"}"#),
        ),
        (
            "is in the entry 0 already",
            tuning(r#"{"queues": [1], "interrupts": [0]}, {"queues": [1], "interrupts": [1]}"#),
        ),
        (
            "expected a number from 1 to 2147483647",
            tuning(r#"{"busy_poll": {"napi_defer_hard_irqs": 0, "gro_flush_timeout_ns": 1}}"#),
        ),
        (
            "expected a number from 1 to 1000000000",
            tuning(r#"{"busy_poll": {"napi_defer_hard_irqs": 1, "gro_flush_timeout_ns": 0}}"#),
        ),
        (
            "\"beside_lcores\" or an array of numbers of CPUs",
            tuning(r#"{"interrupts": "anywhere"}"#),
        ),
        ("the rule says neither `queue` nor `drop`", flows(r#"{"type": "udp4"}"#)),
        (
            "the rule says both `queue` and `drop`",
            flows(r#"{"type": "udp4", "queue": 1, "drop": true}"#),
        ),
        (
            "is about the same packets",
            flows(r#"{"type": "udp4", "queue": 1}, {"type": "udp4", "drop": true}"#),
        ),
        (
            "does not fit a rule of type",
            flows(r#"{"type": "udp6", "src_ip": "10.0.0.1", "drop": true}"#),
        ),
        ("a rule of type", flows(r#"{"type": "ip4", "dst_port": 1, "drop": true}"#)),
        ("is beyond its range", flows(r#"{"type": "udp4", "dst_port": 0, "drop": true}"#)),
        ("is given without", flows(r#"{"type": "udp4", "tos_mask": 1, "drop": true}"#)),
        (
            "has bits outside of",
            flows(r#"{"type": "udp4", "tos": 3, "tos_mask": 1, "drop": true}"#),
        ),
        ("expected at most 1024 rules", flows(&rules.join(", "))),
        ("is larger than the limit of 8388608", " ".repeat(MAX_BYTES + 1)),
    ];
    let mut explained = BTreeSet::new();
    for (message, document) in cases {
        let errors = Document::parse(document.as_bytes()).expect_err(message);
        assert!(
            errors.iter().any(|error| error.to_string().contains(message)),
            "{message}: {errors:?}"
        );
        assert!(PAGE.contains(message), "not on the page: {message}");
        explained.insert(message);
    }
    // And every row of the page's table has its case above.
    let table = PAGE.split_once("| message | what to do |").expect("the table of errors").1;
    let rows: Vec<_> = table.lines().filter(|row| row.starts_with("| `")).collect();
    assert!(rows.len() > 15, "{rows:?}");
    for row in rows {
        assert!(explained.iter().any(|message| row.contains(message)), "no case for {row}");
    }
}
