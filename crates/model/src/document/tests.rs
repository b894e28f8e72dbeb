use super::*;
use serde_json::json;

fn good() -> Value {
    json!({
        "schema": "pointsman.node/v1", "node": "edge-17", "generation": 42,
        "programs": {
            "ddos": {"object": {"path": "/srv/ddos.o"}, "entry": "ddos_main",
                     "globals": {"rate": 5000, "name": "x", "list": [1, 2], "pair": {"a": true}},
                     "maps": {"blocked": {"entries": [{"key": "192.0.2.0/24", "value": 1}]}}},
            "ports": {"builtin": "udp-port-filter"}
        },
        "interfaces": {
            "eth0": {"xdp": {"engine": "fused", "mode": "skb", "chain": [
                {"program": "ddos", "priority": 10, "chain_call_actions": ["pass", "tx"],
                 "enforce": false},
                {"program": "ports"}
            ]}},
            "eth1": {}
        }
    })
}

/// Changes one place of a good document.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(fields) => drop(fields.insert(key.to_owned(), value)),
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        other => panic!("{parent} is {other}"),
    }
    document
}

fn errors(text: &str) -> Vec<String> {
    let errors = Document::parse(text.as_bytes()).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refused(document: &Value, start: &str) {
    let errors = errors(&document.to_string());
    assert!(errors.iter().any(|error| error.starts_with(start)), "{start:?} not in {errors:?}");
}

#[test]
fn a_good_document_is_read_whole() {
    let document = Document::parse(good().to_string().as_bytes()).unwrap();
    assert_eq!((document.generation, document.node.as_str()), (42, "edge-17"));
    let ddos = &document.programs[&ProgramName::new("ddos").unwrap()];
    assert_eq!(ddos.object, ObjectSource::Path("/srv/ddos.o".into(), None));
    assert_eq!(ddos.globals.len(), 4);
    let xdp = document.interfaces[&"eth0".parse().unwrap()].xdp.as_ref().unwrap();
    assert_eq!((xdp.engine, xdp.mode, xdp.chain.len()), (Engine::Fused, Mode::Skb, 2));
    assert!(!xdp.chain[0].enforce);
    // What is left out comes from here, and from nowhere else.
    let omitted = &xdp.chain[1];
    assert_eq!((omitted.priority, omitted.actions, omitted.enforce), (50, ActionSet::PASS, true));
    assert!(!document.is_empty());
}

#[test]
fn what_is_no_document_is_refused() {
    assert_eq!(errors("")[0], "document: EOF while parsing a value at line 1 column 0");
    assert!(errors("chain: [a, b]")[0].starts_with("document: expected value"));
    assert!(errors("{\"schema\": ")[0].contains("EOF while parsing"));
    assert!(errors(&format!("{} trailing", good()))[0].contains("trailing characters"));
    assert!(errors("[]")[0].contains("expected an object"));
    assert!(errors("\"text\"")[0].contains("expected an object"));
    let deep = "[".repeat(100_000);
    assert!(errors(&deep)[0].starts_with("document: "));
    assert!(Document::parse(b"\xff\xfe{}").is_err());
}

#[test]
fn a_huge_document_is_refused_before_it_is_read() {
    let mut text = good().to_string().into_bytes();
    text.resize(10 << 20, b' ');
    let errors = Document::parse(&text).unwrap_err();
    assert!(errors[0].message.starts_with("10485760 bytes is larger than the limit of 8388608"));
}

#[test]
fn unknown_fields_and_wrong_types_are_named_with_their_place() {
    for (pointer, value, start) in [
        ("/colour", json!(1), "/colour: unknown field `colour`, expected one of"),
        ("/interfaces/eth0/xdp/chan", json!([]), "/interfaces/eth0/xdp/chan: unknown field"),
        ("/schema", json!("pointsman.node/v2"), "/schema: unknown variant"),
        ("/node", json!("two words"), "/node: \"two words\" is not a valid node name"),
        ("/generation", json!("42"), "/generation: invalid type: string \"42\", expected u64"),
        ("/generation", json!(0), "/generation: expected a number of at least 1"),
        ("/generation", json!(-1), "/generation: invalid value: integer `-1`"),
        (
            "/generation",
            json!(1u64 << 53),
            "/generation: expected a number of at most 9007199254740991",
        ),
        ("/programs", json!([]), "/programs: invalid type: sequence, expected an object"),
        (
            "/programs/ddos",
            json!(["x"]),
            "/programs/ddos: invalid type: sequence, expected an object",
        ),
        ("/programs/a b", json!({}), "/programs"),
        ("/programs/ports/builtin", json!("nat"), "/programs/ports/builtin: unknown variant"),
        (
            "/interfaces/eth0/xdp/mode",
            json!("offload"),
            "/interfaces/eth0/xdp/mode: unknown variant",
        ),
        ("/interfaces/eth0/xdp/engine", json!("bpfman"), "/interfaces/eth0/xdp/engine: unknown"),
        (
            "/interfaces/eth0/xdp/chain/1/priority",
            json!(-1),
            "/interfaces/eth0/xdp/chain/1/priority: ",
        ),
        (
            "/interfaces/eth0/xdp/chain/1/chain_call_actions",
            json!(["pass", "pass"]),
            "/interfaces/eth0/xdp/chain/1/chain_call_actions: pass is listed twice",
        ),
        (
            "/interfaces/eth0/xdp/chain/1/chain_call_actions",
            json!(["accept"]),
            "/interfaces/eth0/xdp/chain/1/chain_call_actions/0: unknown variant `accept`",
        ),
        ("/interfaces/two words", json!({}), "/interfaces"),
    ] {
        refused(&with(pointer, value), start);
    }
}

#[test]
fn a_key_given_twice_is_refused_at_every_level() {
    let text = good().to_string();
    let twice = |from: &str, to: &str| errors(&text.replacen(from, to, 1)).remove(0);
    let again = twice("\"ports\":{\"builtin\"", "\"ddos\":{\"builtin\"");
    assert!(again.starts_with("/programs") && again.contains("duplicate key \"ddos\""), "{again}");
    let again = twice("\"generation\":42", "\"generation\":42,\"generation\":43");
    assert!(again.contains("duplicate field `generation`"), "{again}");
    let again = twice("\"a\":true", "\"a\":true,\"a\":false");
    assert!(again.contains("duplicate key \"a\""), "{again}");
}

#[test]
fn sections_that_are_not_acted_on_are_refused_by_name() {
    for pointer in ["/companions", "/interfaces/eth1/tc"] {
        let wanted = format!("{pointer}: this version does not act on this section");
        refused(&with(pointer, json!({})), &wanted);
    }
}

#[test]
fn what_needs_a_dispatcher_is_refused_where_there_can_be_none() {
    refused(
        &with("/interfaces/eth0/xdp/chain/0/slot", json!("own")),
        "/interfaces/eth0/xdp/chain/0/slot: ",
    );
    let others = json!([{"name": "xdp_drop", "priority": 3}]);
    refused(&with("/interfaces/eth0/xdp/others", others.clone()), "/interfaces/eth0/xdp/others: ");
    let mut document = with("/interfaces/eth0/xdp/others", others);
    document["interfaces"]["eth0"]["xdp"]["engine"] = json!("auto");
    document["interfaces"]["eth0"]["xdp"]["chain"][0]["slot"] = json!("own");
    let document = Document::parse(document.to_string().as_bytes()).unwrap();
    let xdp = document.interfaces[&"eth0".parse().unwrap()].xdp.as_ref().unwrap();
    assert_eq!((xdp.chain[0].slot, xdp.chain[1].slot), (SlotChoice::Own, SlotChoice::Shared));
    let which = Which::Name("xdp_drop".into());
    assert_eq!(xdp.others, [OtherSpec { which, priority: Some(3), actions: None }]);
}

#[test]
fn a_decision_about_others_names_them_once_and_says_something() {
    let at = "/interfaces/eth0/xdp/others";
    for (others, place) in [
        (json!([{"name": "a"}]), "0: "),
        (json!([{"priority": 1}]), "0: "),
        (json!([{"name": "a", "tag": "0123456789abcdef", "priority": 1}]), "0: "),
        (json!([{"tag": "0123456789ABCDEF", "priority": 1}]), "0/tag: "),
        (json!([{"tag": "0123", "priority": 1}]), "0/tag: "),
        (json!([{"name": "two words", "priority": 1}]), "0/name: "),
        (json!([{"name": "", "priority": 1}]), "0/name: "),
        (json!([{"name": "a", "priority": 1}, {"name": "a", "priority": 2}]), "1: "),
        (json!([{"name": "a", "priority": -1}]), "0/priority: "),
        (json!([{"name": "a", "prio": 1}]), "0/prio: "),
    ] {
        refused(&with(at, others), &format!("{at}/{place}"));
    }
    let many: Vec<_> = (0..65).map(|n| json!({"name": format!("p{n}"), "priority": n})).collect();
    refused(&with(at, json!(many)), &format!("{at}: expected at most 64"));
}

#[test]
fn a_map_has_entries_or_a_word_on_upgrades_or_both() {
    let maps = |value: Value| {
        let document = with("/programs/ddos/maps", value).to_string();
        let document = Document::parse(document.as_bytes()).unwrap();
        let ddos = &document.programs[&ProgramName::new("ddos").unwrap()];
        (ddos.maps.len(), ddos.on_upgrade.values().copied().collect::<Vec<_>>())
    };
    assert_eq!(maps(json!({"a": {"entries": []}})), (1, vec![]));
    assert_eq!(maps(json!({"a": {"on_upgrade": "fresh"}})), (0, vec![OnUpgrade::Fresh]));
    let both = json!({"a": {"entries": [], "on_upgrade": "keep"}, ".bss": {"on_upgrade": "keep"}});
    assert_eq!(maps(both), (1, vec![OnUpgrade::Keep; 2]));
    for (value, start) in [
        (json!({}), "/programs/ddos/maps/a: expected `entries`, `on_upgrade`, or both"),
        (json!({"on_upgrade": "drop"}), "/programs/ddos/maps/a/on_upgrade: unknown variant"),
        (json!({"on_upgrade": 1}), "/programs/ddos/maps/a/on_upgrade"),
        (json!({"on_update": "keep"}), "/programs/ddos/maps/a/on_update: unknown field"),
    ] {
        refused(&with("/programs/ddos/maps", json!({ "a": value })), start);
    }
}

#[test]
fn references_must_resolve_and_all_errors_are_told_at_once() {
    let mut document = with("/interfaces/eth0/xdp/chain/0/program", json!("nowhere"));
    document["programs"]["ports"] = json!({});
    document["generation"] = json!(0);
    let errors = errors(&document.to_string());
    assert_eq!(
        errors,
        [
            "/generation: expected a number of at least 1",
            "/programs/ports: expected `object` or `builtin`",
            "/interfaces/eth0/xdp/chain/0/program: expected a name from /programs, found \"nowhere\"",
        ]
    );
    refused(
        &with("/interfaces/eth0/xdp/chain/0/program", json!("ports")),
        "/interfaces/eth0/xdp/chain/1/program: \"ports\" is in this chain already",
    );
    let many: Vec<_> = (0..=MAX_CHAIN).map(|_| json!({"program": "ports"})).collect();
    refused(
        &with("/interfaces/eth0/xdp/chain", json!(many)),
        "/interfaces/eth0/xdp/chain: expected at most 128 programs, found 129",
    );
}

#[test]
fn an_object_has_exactly_one_source() {
    let hash = Sha256::of(b"object").to_string();
    let object = |value| with("/programs/ddos/object", value);
    let source = |value: Value| {
        let document = Document::parse(object(value).to_string().as_bytes()).unwrap();
        document.programs[&ProgramName::new("ddos").unwrap()].object.clone()
    };
    assert_eq!(source(json!({"sha256": hash})), ObjectSource::Stored(Sha256::of(b"object")));
    assert_eq!(source(json!({"inline": "b2JqZWN0"})), ObjectSource::Inline(b"object".into()));
    let url = source(json!({"url": "https://example/x.o", "sha256": hash}));
    assert_eq!(url, ObjectSource::Url("https://example/x.o".into(), Sha256::of(b"object")));
    for (value, start) in [
        (json!({}), "/programs/ddos/object: expected exactly one of"),
        (json!({"path": "/x", "inline": ""}), "/programs/ddos/object: expected exactly one of"),
        (json!({"path": "x.o"}), "/programs/ddos/object/path: expected an absolute path"),
        (json!({"inline": "*"}), "/programs/ddos/object/inline: expected base64"),
        (json!({"inline": "", "sha256": hash}), "/programs/ddos/object/sha256: differs"),
        (json!({"url": "https://x/"}), "/programs/ddos/object: expected `sha256` beside `url`"),
        (json!({"url": "ftp://x/", "sha256": hash}), "/programs/ddos/object/url: expected an http"),
        (json!({"sha256": "9F86"}), "/programs/ddos/object/sha256: \"9F86\" is not a valid sha256"),
    ] {
        refused(&object(value), start);
    }
}

#[test]
fn the_schema_agrees_with_the_parser() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    assert!(schema.is_valid(&good()), "{:?}", schema.iter_errors(&good()).collect::<Vec<_>>());
    for (pointer, value) in [
        ("/colour", json!(1)),
        ("/schema", json!("pointsman.node/v2")),
        ("/generation", json!("42")),
        ("/generation", json!(0)),
        ("/generation", json!(1u64 << 53)),
        ("/programs", json!([])),
        ("/programs/ddos", json!([])),
        ("/programs/ports/builtin", json!("nat")),
        ("/programs/ddos/maps/blocked/on_upgrade", json!("drop")),
        ("/programs/ddos/object/path", json!("x.o")),
        ("/companions", json!({})),
        ("/interfaces/eth1/tc", json!({})),
        ("/interfaces/eth0/xdp/mode", json!("offload")),
        ("/interfaces/eth0/xdp/chain/1/chain_call_actions", json!(["accept"])),
        ("/interfaces/eth0/xdp/chain/1/priority", json!(-1)),
    ] {
        let document = with(pointer, value);
        assert!(!schema.is_valid(&document), "the schema takes {pointer}");
        assert!(Document::parse(document.to_string().as_bytes()).is_err(), "parsed: {pointer}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_a_document_or_an_error(cut in 0usize..900, at in 0usize..900, byte: u8) {
        let mut text = good().to_string().into_bytes();
        let at = at % text.len();
        text[at] = byte;
        text.truncate(cut.max(1));
        let _ = Document::parse(&text);
    }
}
