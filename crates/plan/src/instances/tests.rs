use super::*;
use pointsman_model::NamespaceName;
use proptest::prelude::*;
use serde_json::json;

/// A document with chains on some of four interfaces, from a seed.
fn document(chains: &[Option<Vec<(u8, u32)>>]) -> Document {
    const NAMES: [&str; 6] =
        ["a", "b", "mtl_dp_filter", "xsk_def_prog", "mtl_dp_filter.1", "xsk_def_prog.2"];
    let programs: serde_json::Map<_, _> = NAMES
        .iter()
        .map(|name| ((*name).to_owned(), json!({"builtin": "counting-pass"})))
        .collect();
    let mut interfaces = serde_json::Map::new();
    for (at, chain) in chains.iter().enumerate() {
        let Some(chain) = chain else { continue };
        let mut used = BTreeSet::new();
        let entries: Vec<_> = chain
            .iter()
            .filter(|(program, _)| used.insert(program % 6))
            .map(|(program, priority)| {
                let name = NAMES[usize::from(program % 6)];
                json!({"program": name, "priority": priority})
            })
            .collect();
        interfaces.insert(format!("eth{at}"), json!({"xdp": {"chain": entries}}));
    }
    let text = json!({
        "schema": "pointsman.node/v1", "node": "n", "generation": 1, "allow_empty": true,
        "programs": programs, "interfaces": interfaces,
    });
    Document::parse(text.to_string().as_bytes()).unwrap()
}

fn there() -> BTreeMap<InterfaceId, u32> {
    (0..4).map(|at| (format!("eth{at}").parse().unwrap(), at + 1)).collect()
}

fn place(index: u32) -> Place {
    Place { namespace: None, index }
}

fn chain<'a>(document: &'a Document, name: &str) -> &'a [ChainEntry] {
    let interface = &document.interfaces[&name.parse::<InterfaceId>().unwrap()];
    &interface.xdp.as_ref().unwrap().chain
}

#[test]
fn the_two_programs_join_behind_and_before_the_operators() {
    let before = document(&[Some(vec![(0, 10), (1, 50)])]);
    let Effective { document, hooks, left_out } = effective(before, &[place(1)], &there());
    assert_eq!(left_out, BTreeMap::new());
    assert_eq!(hooks[&place(1)].to_string(), "eth0/xdp");
    let chain: Vec<_> = chain(&document, "eth0")
        .iter()
        .map(|entry| (entry.program.as_str(), entry.priority, entry.actions.to_string()))
        .collect();
    let pass = || "pass".to_owned();
    assert_eq!(
        chain,
        [
            ("a", 10, pass()),
            ("b", 50, pass()),
            // An operator has a program of this name, and keeps it.
            ("mtl_dp_filter.1-1", 19, "drop".into()),
            ("xsk_def_prog.1", 20, pass()),
        ]
    );
    let filter = &document.programs[&ProgramName::new("mtl_dp_filter.1-1").unwrap()];
    assert_eq!(filter.object, ObjectSource::Instances(InstanceProgram::PortFilter));
    assert!(filter.globals.is_empty(), "its verdicts are in the program");
}

#[test]
fn what_an_operator_has_placed_himself_is_not_placed_again() {
    let before = document(&[Some(vec![(2, 5), (0, 10)])]);
    let after = effective(before, &[place(1)], &there()).document;
    let names: Vec<_> = chain(&after, "eth0").iter().map(|entry| entry.program.as_str()).collect();
    assert_eq!(names, ["mtl_dp_filter", "a", "xsk_def_prog.1"]);
}

#[test]
fn other_namespaces_are_named_and_long_names_fit() {
    let namespace = NamespaceName::new("n".repeat(64)).unwrap();
    let interface = InterfaceId {
        namespace: Some(namespace.clone()),
        name: pointsman_model::InterfaceName::new("eth0").unwrap(),
    };
    let there = BTreeMap::from([(interface.clone(), u32::MAX)]);
    let place = Place { namespace: Some(namespace.clone()), index: u32::MAX };
    let after = effective(document(&[]), [&place], &there);
    assert_eq!(after.left_out, BTreeMap::new());
    assert_eq!(after.document.namespaces[&namespace], NamespaceSpec::Name(namespace.clone()));
    assert_eq!(after.document.interfaces[&interface].xdp.as_ref().unwrap().chain.len(), 2);
    // The same number in the daemon's own is another interface.
    let own = effective(document(&[]), [&Place { namespace: None, ..place.clone() }], &there);
    assert_eq!(own.left_out.len(), 1);
}

#[test]
fn a_full_chain_is_left_as_it_is() {
    let mut full = document(&[Some(vec![(0, 10)])]);
    let xdp = full.interfaces.values_mut().next().unwrap().xdp.as_mut().unwrap();
    xdp.chain = vec![xdp.chain[0].clone(); MAX_CHAIN - 1];
    let after = effective(full.clone(), [&place(1)], &there());
    assert_eq!(after.left_out[&place(1)], LeftOut::ChainFull);
    assert_eq!(after.document, full);
}

proptest! {
    #[test]
    fn the_operators_part_stays_and_ours_is_there_once(
        chains in prop::collection::vec(
            prop::option::of(prop::collection::vec((any::<u8>(), 0u32..100), 0..5)), 0..4),
        mut wanted in prop::collection::vec(0u32..7, 0..8),
    ) {
        let before = document(&chains);
        let places: Vec<_> = wanted.iter().copied().map(place).collect();
        let after = effective(before.clone(), &places, &there());
        // Who came first makes no difference, nor who wants it twice.
        wanted.reverse();
        let again: Vec<_> = wanted.iter().copied().map(place).collect();
        prop_assert_eq!(&after, &effective(before.clone(), &again, &there()));
        for (name, index) in there() {
            let ours = places.contains(&place(index));
            let of = |document: &Document| {
                let interface = document.interfaces.get(&name);
                interface.and_then(|i| i.xdp.as_ref()).map(|x| x.chain.clone()).unwrap_or_default()
            };
            let (operators, all) = (of(&before), of(&after.document));
            prop_assert_eq!(&all[..operators.len()], &operators[..]);
            for program in InstanceProgram::ALL {
                let is_it = |entry: &&ChainEntry| {
                    let object = &after.document.programs[&entry.program].object;
                    *object == ObjectSource::Instances(program)
                        || entry.program.as_str() == program.entry()
                };
                let count = all.iter().filter(is_it).count();
                prop_assert!(count == 1 || !ours && count <= 1, "{count} of {program:?}");
            }
            prop_assert_eq!(after.hooks.contains_key(&place(index)), ours);
        }
        for (program, spec) in &before.programs {
            prop_assert_eq!(&after.document.programs[program], spec);
        }
        let gone = places.iter().filter(|it| !(1..=4).contains(&it.index)).collect::<BTreeSet<_>>();
        prop_assert_eq!(after.left_out.keys().collect::<BTreeSet<_>>(), gone);
        if places.is_empty() {
            prop_assert_eq!(&after.document, &before);
        }
    }
}
