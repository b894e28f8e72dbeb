use super::*;
use pointsman_model::{MapName, Sha256};

fn hash() -> MapFacts {
    MapFacts {
        name: MapName::new("map").unwrap(),
        definition: MapDefinition {
            kind: "hash".into(),
            key_size: 4,
            value_size: 8,
            max_entries: 16,
            key: Some("u32".into()),
            value: Some("struct v{u32 a@0;u32 b@4;} of 8 bytes".into()),
            ..MapDefinition::default()
        },
        initial: InitialContents::Nothing,
    }
}

fn changed(change: impl FnOnce(&mut MapDefinition)) -> MapFacts {
    let mut map = hash();
    change(&mut map.definition);
    map
}

fn variables(value: &str) -> MapFacts {
    let mut map = changed(|map| (map.key, map.value) = (None, None));
    map.initial = InitialContents::Variables(Sha256::of(value.as_bytes()));
    map
}

#[test]
fn every_part_of_a_definition_decides_and_is_named() {
    assert_eq!(difference(&hash(), &hash(), false), None);
    let inner =
        |entries| Some(Box::new(MapDefinition { max_entries: entries, ..hash().definition }));
    for (new, why) in [
        (changed(|map| map.kind = "lru_hash".into()), "its type was hash, is lru_hash now"),
        (changed(|map| map.key_size = 8), "bytes of its keys: 4 before, 8 now"),
        (changed(|map| map.value_size = 12), "bytes of its values: 8 before, 12 now"),
        (changed(|map| map.max_entries = 8), "entries: 16 before, 8 now"),
        (changed(|map| map.flags = 1), "flags: 0 before, 1 now"),
        (changed(|map| map.extra = 1), "extra flags: 0 before, 1 now"),
        (changed(|map| map.key = Some("s32".into())), "its key had `u32`, has `s32` now"),
        (
            changed(|map| map.value = Some("struct v{u32 a@0;s32 b@4;} of 8 bytes".into())),
            "its value had `u32 b@4`, has `s32 b@4` now",
        ),
        (
            changed(|map| map.value = Some("struct v{u32 a@0;} of 8 bytes".into())),
            "its value had `u32 b@4`, has `of 8 bytes` now",
        ),
        (changed(|map| map.value = None), "the type of its value is not known from BTF"),
    ] {
        assert_eq!(difference(&hash(), &new, false).as_deref(), Some(why));
        assert!(difference(&new, &hash(), false).is_some(), "{why}: the other way round");
    }
    let outer =
        |entries| changed(|map| (map.kind, map.inner) = ("hash_of_maps".into(), inner(entries)));
    let why = difference(&outer(1), &outer(2), false).unwrap();
    assert_eq!(why, "its inner maps: entries: 1 before, 2 now");
    assert_eq!(difference(&outer(1), &outer(1), false), None);
}

#[test]
fn types_that_are_not_told_agree_in_one_object_only() {
    let untyped = changed(|map| (map.key, map.value) = (None, None));
    assert!(difference(&untyped, &untyped, false).is_some());
    assert_eq!(difference(&untyped, &untyped, true), None);
    // The kernel says what is in these.
    for kind in ["xskmap", "prog_array", "ringbuf"] {
        let map = changed(|map| (map.kind, map.key, map.value) = (kind.into(), None, None));
        assert_eq!(difference(&map, &map, false), None, "{kind}");
    }
    let of_unknown_maps = changed(|map| map.kind = "array_of_maps".into());
    assert!(difference(&of_unknown_maps, &of_unknown_maps, false).is_some());
}

#[test]
fn what_belongs_to_one_program_is_never_kept() {
    for kind in ["struct_ops", "unknown", "insn_array"] {
        let map = changed(|map| map.kind = kind.into());
        assert!(difference(&map, &map, true).is_some(), "{kind}");
    }
}

#[test]
fn variables_agree_in_one_object_with_the_same_first_values() {
    assert_eq!(difference(&variables("0"), &variables("0"), true), None);
    assert!(difference(&variables("0"), &variables("0"), false).is_some());
    assert!(difference(&variables("0"), &variables("1"), true).is_some());
    assert!(difference(&hash(), &variables("0"), true).is_some());
}

#[test]
fn variables_of_a_named_section_agree_where_they_lie_alike() {
    let named = |value: &str, places: &str| {
        let mut map = variables(value);
        (map.definition.kind, map.definition.value) = ("array".into(), Some(places.to_owned()));
        map.name = MapName::new(".data.ports").unwrap();
        map
    };
    let ports = || named("0", "variables{u8[65536] ports@0;}");
    assert_eq!(difference(&ports(), &ports(), false), None);
    let more = named("0", "variables{u8[65532] ports@0;u32 more@65532;}");
    assert!(difference(&ports(), &more, false).is_some());
    let filled = named("1", "variables{u8[65536] ports@0;}");
    assert!(difference(&ports(), &filled, false).is_some());
    let unknown = variables("0");
    assert!(difference(&ports(), &unknown, false).is_some());
    assert!(difference(&unknown, &ports(), false).is_some());
    let mut everybodys = ports();
    everybodys.name = MapName::new(".data").unwrap();
    assert!(difference(&everybodys, &everybodys, false).is_some());
}
