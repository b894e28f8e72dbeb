//! What can be said of a policy before any node sees it: whether what it names is there.

use pointsman_bpf::{builtin, inspect_object};
use pointsman_model::ProgramName;
use pointsman_model::document::{Builtin, DocumentError};
use pointsman_model::fleet::{
    LibraryProgram, ObjectProgram, ObjectSummary, PolicyEntry, PolicySpec, ProgramRef,
};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The longest description, in bytes.
const DESCRIPTION: usize = 4096;

/// How many names an error lists.
const NAMES: usize = 20;

/// What a built-in program's object holds.
///
/// # Panics
/// Never: these objects come with this program.
#[must_use]
pub fn builtin_summary(which: Builtin) -> &'static ObjectSummary {
    static ALL: LazyLock<BTreeMap<&'static str, ObjectSummary>> = LazyLock::new(|| {
        let look = |which: Builtin| {
            let report = inspect_object(builtin(which));
            let report = report.expect("invariant: built-in programs can be opened");
            (which.name(), crate::inspect::child::summary(report))
        };
        Builtin::ALL.into_iter().map(look).collect()
    });
    &ALL[which.name()]
}

/// Everything that is wrong with a policy by itself, each with its place.
#[must_use]
pub fn check_policy(
    spec: &PolicySpec,
    library: &BTreeMap<ProgramName, LibraryProgram>,
) -> Vec<DocumentError> {
    let mut errors = Errors(Vec::new());
    if spec.description.len() > DESCRIPTION {
        errors.add("/description", format!("is longer than {DESCRIPTION} bytes"));
    }
    if spec.selector.is_empty() {
        errors.add(
            "/selector",
            "selects nothing: give labels or names of nodes, or {\"all\": true} for every node",
        );
    }
    let mut names = BTreeMap::new();
    for (at, entry) in spec.chain.iter().enumerate() {
        let place = format!("/chain/{at}");
        let name = entry.name_on_nodes();
        if let Some(first) = names.insert(name.clone(), at) {
            let message = format!(
                "nodes would have two programs called {name}: /chain/{first} and this; give one of \
                 them another name"
            );
            errors.add(&format!("{place}/name"), message);
        }
        check_entry(entry, &place, library, &mut errors);
    }
    errors.0
}

fn check_entry(
    entry: &PolicyEntry,
    place: &str,
    library: &BTreeMap<ProgramName, LibraryProgram>,
    errors: &mut Errors,
) {
    let summary = match &entry.program {
        ProgramRef::Builtin(which) => builtin_summary(*which),
        ProgramRef::Library(name) => match library.get(name) {
            Some(program) => &program.summary,
            None => {
                let message = format!("there is no program {name} in the library: upload it first");
                return errors.add(&format!("{place}/program"), message);
            }
        },
    };
    let usable: Vec<_> = summary.programs.iter().filter(|program| is_xdp(program)).collect();
    let names = |programs: &[&ObjectProgram]| list(programs.iter().map(|p| p.name.as_str()));
    match &entry.entry {
        Some(wanted) if !usable.iter().any(|program| program.name == wanted.as_str()) => errors
            .add(
                &format!("{place}/entry"),
                format!("{} has no XDP program {wanted}; it has {}", entry.program, names(&usable)),
            ),
        None if usable.len() > 1 => errors.add(
            &format!("{place}/entry"),
            format!("{} has several XDP programs; choose from {}", entry.program, names(&usable)),
        ),
        None if usable.is_empty() => {
            errors
                .add(&format!("{place}/program"), format!("{} has no XDP program", entry.program));
        }
        _ => {}
    }
    for name in entry.globals.keys() {
        if !summary.globals.iter().any(|global| &global.name == name) {
            let there = list(summary.globals.iter().map(|global| global.name.as_str()));
            let message = format!("{} has no global {name:?}; it has {there}", entry.program);
            errors.add(&format!("{place}/globals/{}", escaped(name)), message);
        }
    }
    for name in entry.maps.keys() {
        if !summary.maps.iter().any(|map| map.name == name.as_str()) {
            let there = list(summary.maps.iter().map(|map| map.name.as_str()));
            let message = format!("{} has no map {name}; it has {there}", entry.program);
            errors.add(&format!("{place}/maps/{name}"), message);
        }
    }
}

/// Whether a program of an object can be in a chain.
pub(crate) fn is_xdp(program: &ObjectProgram) -> bool {
    matches!(program.kind.as_str(), "xdp" | "unspecified")
}

struct Errors(Vec<DocumentError>);

impl Errors {
    fn add(&mut self, pointer: &str, message: impl Into<String>) {
        self.0.push(DocumentError { pointer: pointer.to_owned(), message: message.into() });
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Some names, for people.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = names.collect();
    let more = names.len().saturating_sub(NAMES);
    names.truncate(NAMES);
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{}, and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::Sha256;
    use serde_json::{Value, json};

    fn library() -> BTreeMap<ProgramName, LibraryProgram> {
        let program = |name: &str, programs: &Value| {
            let summary = json!({"licence": "GPL", "has_btf": true, "programs": programs,
                "maps": [{"name": "blocklist", "kind": "hash", "max_entries": 8}],
                "globals": [{"name": "rate/limit", "kind": "u32", "section": ".data", "size": 4}]});
            let name = ProgramName::new(name).unwrap();
            let program = LibraryProgram {
                name: name.clone(),
                revision: 1,
                sha256: Sha256::of(b""),
                bytes: 0,
                uploaded_unix_ms: 0,
                uploaded_by: "ann".into(),
                summary: serde_json::from_value(summary).unwrap(),
            };
            (name, program)
        };
        let xdp = |name: &str| json!({"name": name, "section": "xdp", "kind": "xdp"});
        let tc = json!({"name": "cls", "section": "tc", "kind": "sched_cls"});
        BTreeMap::from([
            program("ddos", &json!([xdp("main"), tc])),
            program("two", &json!([xdp("one"), xdp("other")])),
            program("none", &json!([tc])),
        ])
    }

    fn errors(selector: &Value, chain: &Value) -> Vec<(String, String)> {
        let spec = json!({"selector": selector, "interface": "eth0", "chain": chain});
        let errors = check_policy(&serde_json::from_value(spec).unwrap(), &library());
        errors.into_iter().map(|error| (error.pointer, error.message)).collect()
    }

    #[test]
    fn what_is_there_is_good() {
        let chain = json!([
            {"program": "ddos", "globals": {"rate/limit": 1}, "maps": {"blocklist": {"entries": []}}},
            {"program": "ddos", "name": "again", "entry": "main"},
            {"program": "two", "entry": "other"},
            {"program": "builtin:udp-port-filter", "maps": {"ports": {}}},
        ]);
        assert_eq!(errors(&json!({"all": true}), &chain), []);
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let found = errors(
            &json!({}),
            &json!([
                {"program": "gone"},
                {"program": "ddos", "entry": "cls", "globals": {"a/b": 1}, "maps": {"m": {}}},
                {"program": "two"},
                {"program": "none"},
                {"program": "ddos"},
                {"program": "builtin:counting-pass", "globals": {"x": 1}},
            ]),
        );
        let places: Vec<_> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(
            places,
            [
                "/selector",
                "/chain/0/program",
                "/chain/1/entry",
                "/chain/1/globals/a~1b",
                "/chain/1/maps/m",
                "/chain/2/entry",
                "/chain/3/program",
                "/chain/4/name",
                "/chain/5/globals/x",
            ]
        );
        assert!(found[3].1.contains("it has rate/limit"), "{found:?}");
        assert!(found[5].1.contains("one, other"), "{found:?}");
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<_> = (0..30).map(|n| n.to_string()).collect();
        let told = list(names.iter().map(String::as_str));
        assert!(told.ends_with("19, and 10 more"), "{told}");
    }
}
