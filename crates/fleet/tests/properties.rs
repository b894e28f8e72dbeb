//! What holds of every set of policies.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use pointsman_fleet::{Composer, Library, Policies, compose};
use pointsman_model::document::{MAX_GENERATION, ObjectSource, SlotChoice};
use pointsman_model::fleet::{Labels, PolicySpec, ProgramRef, RecordObject};
use pointsman_model::{Document, NodeName, PolicyName, ProgramName, Sha256};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Specs = BTreeMap<PolicyName, PolicySpec>;

fn library() -> Library {
    let object = |n: u8| {
        let object = RecordObject { sha256: Sha256::of(&[n]), bytes: n.into() };
        (ProgramName::new(format!("prog-{n}")).unwrap(), object)
    };
    (0..6).map(object).collect()
}

fn node(n: u8) -> NodeName {
    NodeName::new(format!("edge-{n}")).unwrap()
}

fn labels() -> impl Strategy<Value = Labels> {
    let label = (0..2u8, 0..2u8).prop_map(|(key, value)| {
        (format!("k{key}").try_into().unwrap(), format!("v{value}").try_into().unwrap())
    });
    vec(label, 0..3).prop_map(|labels| labels.into_iter().collect())
}

fn selector() -> impl Strategy<Value = Value> {
    let parts = (any::<bool>(), labels(), vec(0..3u8, 0..2)).prop_map(|(all, labels, nodes)| {
        let nodes: BTreeSet<_> = nodes.into_iter().map(node).collect();
        json!({"all": all, "labels": labels, "nodes": nodes})
    });
    prop_oneof![2 => Just(json!({"all": true})), 1 => parts]
}

/// Mostly the same under one name, so that most compositions succeed; `odd` is what is not.
fn entry() -> impl Strategy<Value = Value> {
    let program = prop_oneof![
        20 => (0..6u8).prop_map(|n| format!("prog-{n}")),
        4 => Just("builtin:counting-pass".to_owned()),
        1 => Just("missing".to_owned()),
    ];
    let odd = prop_oneof![
        30 => Just(json!({})),
        1 => Just(json!({"entry": "other"})),
        1 => Just(json!({"globals": {"g": 1}})),
        1 => Just(json!({"globals": {"g": [1, {"x": "ü"}]}})),
        1 => Just(json!({"maps": {"m": {"entries": []}}})),
        1 => Just(json!({"maps": {"m": {}}})),
        1 => Just(json!({"slot": "own"})),
    ];
    let priority = prop_oneof![Just(50), 0..3u32, Just(u32::MAX)];
    (program, priority, any::<bool>(), vec(0..5usize, 0..3), option::weighted(0.7, 0..8u8), odd)
        .prop_map(|(program, priority, enforce, actions, name, odd)| {
            let actions: BTreeSet<_> = actions
                .into_iter()
                .map(|n| ["aborted", "drop", "pass", "tx", "redirect"][n])
                .collect();
            let mut entry = json!({"program": program, "priority": priority, "enforce": enforce,
                                   "chain_call_actions": actions});
            if let Some(name) = name {
                entry["name"] = json!(format!("{}-{name}", program.replace(':', "-")));
            }
            let Value::Object(odd) = odd else { unreachable!() };
            entry.as_object_mut().unwrap().extend(odd);
            entry
        })
}

fn policy() -> impl Strategy<Value = PolicySpec> {
    let choice =
        |names: &'static [&'static str]| option::weighted(0.1, proptest::sample::select(names));
    (
        (selector(), 0..3usize, proptest::bool::weighted(0.9)),
        (choice(&["auto", "fused"]), choice(&["skb", "native"]), choice(&["repair", "leave"])),
        vec(entry(), 0..4),
    )
        .prop_map(|((selector, interface, enabled), (engine, mode, drift), chain)| {
            let interface = ["eth0", "eth1", "blue/eth0"][interface];
            let mut spec = json!({"selector": selector, "enabled": enabled,
                                  "interface": interface, "chain": chain});
            for (field, value) in [("engine", engine), ("mode", mode), ("drift", drift)] {
                if let Some(value) = value {
                    spec[field] = json!(value);
                }
            }
            serde_json::from_value(spec).unwrap()
        })
}

fn policies() -> impl Strategy<Value = Specs> {
    let name = (0..20u8).prop_map(|n| PolicyName::new(format!("policy-{n}")).unwrap());
    btree_map(name, policy(), 0..6)
}

fn selected<'a>(specs: &'a Specs, node: &NodeName, labels: &Labels) -> Vec<&'a PolicySpec> {
    specs.values().filter(|spec| spec.enabled && spec.selector.finds(node, labels)).collect()
}

proptest! {
    /// What is composed is a document, for every generation, and holds every entry of every
    /// policy that selects the node, once, in order, and nothing else.
    #[test]
    fn a_composition_is_a_document_of_all_that_was_asked_for(
        specs in policies(), labels in labels(), generation in 1..=MAX_GENERATION, allowed: bool,
    ) {
        let Ok(composed) = compose(&node(1), &labels, specs.clone(), &library()) else {
            return Ok(());
        };
        let text = composed.document(&node(1), generation, allowed).to_string();
        let document = Document::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(&document.node, &node(1));
        prop_assert_eq!((document.generation, document.allow_empty), (generation, allowed));
        prop_assert_eq!(document.is_empty(), composed.is_empty);

        let mut wanted = BTreeSet::new();
        let selected = selected(&specs, &node(1), &labels);
        for spec in &selected {
            for entry in &spec.chain {
                wanted.insert((
                    spec.interface.clone(), entry.name_on_nodes(), entry.priority,
                    entry.chain_call_actions, entry.enforce, entry.slot == SlotChoice::Own,
                ));
                let program = &document.programs[&entry.name_on_nodes()];
                prop_assert_eq!(&program.entry, &entry.entry);
                prop_assert_eq!(&program.globals, &entry.globals);
                match &entry.program {
                    ProgramRef::Builtin(builtin) =>
                        prop_assert_eq!(&program.object, &ObjectSource::Builtin(*builtin)),
                    ProgramRef::Library(name) => prop_assert_eq!(
                        &program.object,
                        &ObjectSource::Stored(library().find(name).unwrap().sha256)
                    ),
                }
            }
        }
        let mut found = BTreeSet::new();
        let mut in_chains = 0;
        for (id, interface) in &document.interfaces {
            let chain = &interface.xdp.as_ref().unwrap().chain;
            in_chains += chain.len();
            prop_assert!(chain.is_sorted_by_key(|entry| (entry.priority, entry.program.clone())));
            found.extend(chain.iter().map(|e| {
                (id.clone(), e.program.clone(), e.priority, e.actions, e.enforce, e.slot == SlotChoice::Own)
            }));
            let of_this = || selected.iter().filter(|spec| spec.interface == *id);
            prop_assert!(of_this().next().is_some());
            let xdp = interface.xdp.as_ref().unwrap();
            prop_assert!(of_this().all(|spec| spec.engine.is_none_or(|e| e == xdp.engine)));
            prop_assert!(of_this().all(|spec| spec.mode.is_none_or(|m| m == xdp.mode)));
            prop_assert!(of_this().all(|spec| spec.drift.is_none_or(|d| d == xdp.drift)));
        }
        prop_assert_eq!(in_chains, found.len());
        prop_assert_eq!(found, wanted);
        let stored: BTreeSet<_> = document.programs.values().filter_map(|p| match p.object {
            ObjectSource::Stored(hash) => Some(hash),
            _ => None,
        }).collect();
        prop_assert!(composed.objects.iter().map(|o| o.sha256).eq(stored));
    }

    /// Policies that do not select the node, or are not enabled, make no difference, and neither
    /// does what was composed before.
    #[test]
    fn only_what_selects_a_node_matters(
        specs in policies(), labels in labels(), others in vec((0..3u8, labels()), 0..4),
    ) {
        let whole = compose(&node(1), &labels, specs.clone(), &library());
        let names: Vec<_> = specs.iter()
            .filter(|(_, spec)| spec.enabled && spec.selector.finds(&node(1), &labels))
            .map(|(name, _)| name.clone()).collect();
        let alone: Specs = names.iter().map(|name| (name.clone(), specs[name].clone())).collect();
        prop_assert_eq!(&compose(&node(1), &labels, alone.clone(), &library()), &whole);

        let [policies, of_alone] = [specs, alone].map(|specs| Arc::new(Policies::new(specs)));
        let mut composer = Composer::new(policies, Arc::new(library()));
        for (n, labels) in others {
            let selection = composer.select(&node(n), &labels);
            drop(composer.compose(&selection));
        }
        let selection = composer.select(&node(1), &labels);
        let composed = composer.compose(&selection);
        prop_assert_eq!(composed.map(|c| (*c).clone()).map_err(|e| e.to_vec()), whole);
        let mut second = Composer::new(of_alone, Arc::new(library()));
        prop_assert_eq!(second.select(&node(1), &labels).inputs, selection.inputs);
    }

    /// Equal hashes of inputs mean equal results; and what makes another document has another.
    #[test]
    fn inputs_tell_documents_apart(one in policies(), other in policies(), labels in labels()) {
        let [a, b] = [one, other].map(|specs| {
            let policies = Arc::new(Policies::new(specs));
            let mut composer = Composer::new(policies, Arc::new(library()));
            let selection = composer.select(&node(1), &labels);
            (selection.inputs, composer.compose(&selection))
        });
        prop_assert!(a.0 != b.0 || a.1 == b.1);
    }

    /// Every error points at something that a policy says, and every conflict is found.
    #[test]
    fn errors_point_into_policies(specs in policies(), labels in labels()) {
        let composed = compose(&node(1), &labels, specs.clone(), &library());
        let selected = selected(&specs, &node(1), &labels);
        let entries = || selected.iter().flat_map(|spec| &spec.chain);
        let mut known: BTreeMap<ProgramName, _> = BTreeMap::new();
        let conflict = entries().any(|entry| {
            let says = (&entry.program, &entry.entry, &entry.globals, &entry.maps);
            *known.entry(entry.name_on_nodes()).or_insert(says) != says
        });
        let missing = entries().any(|entry| entry.program.to_string() == "missing");
        prop_assert!(composed.is_err() || !(conflict || missing));
        let Err(errors) = composed else { return Ok(()) };
        let mut all = Map::new();
        all.insert("policies".into(), serde_json::to_value(&specs).unwrap());
        let all = Value::Object(all);
        for error in errors {
            // A field that is left out is pointed at as well: then what it is a field of is there.
            let above = |pointer: &str| pointer.rsplit_once('/').unwrap().0.to_owned();
            let parent = above(&error.pointer);
            let place = all.pointer(&error.pointer).or_else(|| all.pointer(&parent));
            let place = place.or_else(|| {
                let left_out = parent.ends_with("/globals") || parent.ends_with("/maps");
                left_out.then(|| all.pointer(&above(&parent))).flatten()
            });
            prop_assert!(place.is_some(), "{error}");
            let policy = error.pointer.split('/').nth(2).unwrap();
            prop_assert!(error.message.contains(policy) || error.pointer.ends_with("/chain"), "{error}");
        }
    }
}

/// The properties above would hold of nothing at all as well.
#[test]
fn most_of_what_is_tried_is_a_composition_of_several_programs() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut composed, mut conflicts) = (0, 0);
    for _ in 0..400 {
        let (specs, labels) = (policies(), labels()).new_tree(&mut runner).unwrap().current();
        match compose(&node(1), &labels, specs, &library()) {
            Ok(one) => {
                let document = one.document(&node(1), 1, false);
                composed += u32::from(document["programs"].as_object().unwrap().len() > 1);
            }
            Err(_) => conflicts += 1,
        }
    }
    assert!(composed > 100 && conflicts > 50, "{composed} {conflicts}");
}
