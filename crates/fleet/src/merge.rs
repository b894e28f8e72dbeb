//! Joins policies into one document.

use crate::{Library, NamedPolicy};
use pointsman_model::document::{
    Builtin, DocumentError, DriftPolicy, Engine, MAX_BYTES, MAX_CHAIN, Mode, SlotChoice,
};
use pointsman_model::fleet::{MAX_RECORD, PolicyEntry, ProgramRef, RecordObject};
use pointsman_model::{Document, InterfaceId, NodeName, ProgramName};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How many errors are told of one document.
const MOST_ERRORS: usize = 50;

/// What a record holds beside document and objects, at most: signature, comments, names.
const AROUND: usize = 4 << 10;

/// An object's entry in a record, at most: hash, size and field names.
const OBJECT_ENTRY: usize = 128;

/// The longest name of a node.
const LONGEST_NODE: usize = 253;

/// What several policies make together: a document that has no name of a node yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Composed {
    programs: Map<String, Value>,
    interfaces: Map<String, Value>,
    /// The objects that the node needs in its store, ordered by hash.
    pub objects: Vec<RecordObject>,
    /// Whether no chain has a program.
    pub is_empty: bool,
}

impl Composed {
    /// The document of a node. [`Document::parse`] takes it, whatever the name and for every
    /// generation from 1 to [`pointsman_model::document::MAX_GENERATION`].
    #[must_use]
    pub fn document(&self, node: &NodeName, generation: u64, allow_empty: bool) -> Value {
        let mut document = self.said();
        document.insert("node".into(), json!(node));
        document.insert("generation".into(), json!(generation));
        if allow_empty {
            document.insert("allow_empty".into(), json!(true));
        }
        Value::Object(document)
    }

    /// The document without what is different for each node and each time.
    pub(crate) fn said(&self) -> Map<String, Value> {
        let mut said = Map::new();
        said.insert("schema".into(), json!("pointsman.node/v1"));
        said.insert("programs".into(), Value::Object(self.programs.clone()));
        said.insert("interfaces".into(), Value::Object(self.interfaces.clone()));
        said
    }
}

/// Joins policies, which come ordered by name.
pub(crate) fn merge<'a>(
    policies: impl Iterator<Item = &'a NamedPolicy>,
    library: &'a Library,
) -> Result<Composed, Vec<DocumentError>> {
    let mut joint = Joint::default();
    for policy in policies {
        joint.add(policy, library);
    }
    let Joint { programs, interfaces, mut errors } = joint;
    for (id, interface) in &interfaces {
        interface.check(id, &mut errors);
    }
    if !errors.is_empty() {
        return Err(few(errors));
    }
    let composed = Composed {
        objects: objects(&programs),
        is_empty: interfaces.values().all(|interface| interface.chain.is_empty()),
        programs: programs.iter().map(|(name, used)| (name.to_string(), used.json())).collect(),
        interfaces: interfaces.iter().map(|(id, of)| (id.to_string(), of.json())).collect(),
    };
    check_whole(&composed).map_err(few)?;
    Ok(composed)
}

/// What the parts make together must be a document, and fit into a record.
fn check_whole(composed: &Composed) -> Result<(), Vec<DocumentError>> {
    let longest = NodeName::new("n".repeat(LONGEST_NODE))
        .expect("invariant: a name of letters up to the limit is a name");
    let highest = pointsman_model::document::MAX_GENERATION;
    let text = composed.document(&longest, highest, true).to_string();
    let objects = composed.objects.len() * OBJECT_ENTRY;
    if text.len() > MAX_BYTES || text.len() + objects + AROUND > MAX_RECORD {
        return Err(vec![error(
            String::new(),
            format!(
                "the policies of this node make a document of {} bytes with {} objects, and a \
                 record has room for {MAX_BYTES} bytes and some hundred objects: let fewer \
                 policies select the node, or list fewer map entries",
                text.len(),
                composed.objects.len()
            ),
        )]);
    }
    // Each value was read as JSON before, but here it may lie deeper than a reader goes.
    Document::parse(text.as_bytes()).map(drop)
}

/// A program's place in the chain of a policy.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    policy: &'a NamedPolicy,
    index: usize,
    entry: &'a PolicyEntry,
}

impl Place<'_> {
    /// The place among all policies, as a JSON pointer.
    fn at(&self, field: &str) -> String {
        at(self.policy, &self.inside(field))
    }

    /// The place inside of the policy.
    fn inside(&self, field: &str) -> String {
        format!("/chain/{}{field}", self.index)
    }

    fn policy(&self) -> &str {
        self.policy.name.as_str()
    }
}

/// Where the bytes of a program are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source<'a> {
    Object(&'a RecordObject),
    Builtin(Builtin),
}

/// A program as the document has it, and where it is said first.
#[derive(Debug)]
struct Used<'a> {
    place: Place<'a>,
    source: Source<'a>,
}

impl Used<'_> {
    fn json(&self) -> Value {
        let mut program = Map::new();
        match self.source {
            Source::Object(object) => {
                program.insert("object".into(), json!({"sha256": object.sha256}));
            }
            Source::Builtin(builtin) => {
                program.insert("builtin".into(), json!(builtin));
            }
        }
        let PolicyEntry { entry, globals, maps, .. } = self.place.entry;
        if let Some(entry) = entry {
            program.insert("entry".into(), json!(entry));
        }
        if !globals.is_empty() {
            program.insert("globals".into(), json!(globals));
        }
        if !maps.is_empty() {
            program.insert("maps".into(), json!(maps));
        }
        Value::Object(program)
    }

    /// The field in which another entry with the same name says something else.
    fn differs(&self, entry: &PolicyEntry, source: Source<'_>) -> Option<String> {
        let first = self.place.entry;
        if self.source != source {
            return Some("/program".to_owned());
        }
        if first.entry != entry.entry {
            return Some("/entry".to_owned());
        }
        let global = first_difference(&first.globals, &entry.globals);
        let global = global.map(|name| format!("/globals/{}", escape(name)));
        let map = || first_difference(&first.maps, &entry.maps).map(|name| format!("/maps/{name}"));
        global.or_else(map)
    }
}

/// The first key under which two maps differ.
fn first_difference<'a, K: Ord, V: PartialEq>(
    a: &'a BTreeMap<K, V>,
    b: &'a BTreeMap<K, V>,
) -> Option<&'a K> {
    let one_sided = b.keys().filter(|key| !a.contains_key(key));
    a.keys().filter(|key| a.get(key) != b.get(key)).chain(one_sided).min()
}

/// A choice that policies leave open or agree on.
#[derive(Debug)]
struct Choice<'a, T>(Option<(T, &'a NamedPolicy)>);

impl<T> Default for Choice<'_, T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'a, T: Copy + PartialEq + Serialize> Choice<'a, T> {
    fn choose(
        &mut self,
        field: &str,
        wanted: Option<T>,
        policy: &'a NamedPolicy,
        errors: &mut Vec<DocumentError>,
    ) {
        let Some(wanted) = wanted else { return };
        match self.0 {
            None => self.0 = Some((wanted, policy)),
            Some((chosen, _)) if chosen == wanted => {}
            Some((chosen, first)) => errors.push(error(
                at(policy, &format!("/{field}")),
                format!(
                    "policy {:?} wants {field} {} on {}, and policy {:?} wants {}: leave it out \
                     in one of them",
                    policy.name.as_str(),
                    json!(wanted),
                    policy.spec.interface,
                    first.name.as_str(),
                    json!(chosen),
                ),
            )),
        }
    }

    fn chosen(&self) -> Option<T> {
        self.0.map(|(chosen, _)| chosen)
    }
}

/// The chain of an interface, and what is chosen for it.
#[derive(Debug, Default)]
struct Interface<'a> {
    engine: Choice<'a, Engine>,
    mode: Choice<'a, Mode>,
    drift: Choice<'a, DriftPolicy>,
    chain: BTreeMap<ProgramName, Place<'a>>,
}

impl Interface<'_> {
    fn check(&self, id: &InterfaceId, errors: &mut Vec<DocumentError>) {
        if self.chain.len() > MAX_CHAIN {
            let last = self.chain.values().max_by_key(|place| &place.policy.name);
            let Some(last) = last else { return };
            let found = self.chain.len();
            let why = format!(
                "the policies for {id} make a chain of {found} programs; expected at most \
                 {MAX_CHAIN}"
            );
            errors.push(error(at(last.policy, "/chain"), why));
        }
        let Some((Engine::Fused, fused_by)) = self.engine.0 else { return };
        for place in self.chain.values() {
            if place.entry.slot == SlotChoice::Own {
                let why = format!(
                    "policy {:?} wants a slot of its own on {id}, which needs a dispatcher, and \
                     policy {:?} wants the engine fused: leave one of the two out",
                    place.policy(),
                    fused_by.name.as_str()
                );
                errors.push(error(place.at("/slot"), why));
            }
        }
    }

    fn json(&self) -> Value {
        let mut xdp = Map::new();
        let chosen = [
            ("engine", self.engine.chosen().map(|engine| json!(engine))),
            ("mode", self.mode.chosen().map(|mode| json!(mode))),
            ("drift", self.drift.chosen().map(|drift| json!(drift))),
        ];
        for (field, value) in chosen {
            xdp.extend(value.map(|value| (field.to_owned(), value)));
        }
        // The node goes by priority, and where it is the same by names: so does the list.
        let mut ordered: Vec<_> = self.chain.iter().collect();
        ordered.sort_by_key(|(_, place)| place.entry.priority);
        let entry = |(name, place): (&ProgramName, &Place<'_>)| {
            let mut entry = json!({
                "program": name,
                "priority": place.entry.priority,
                "chain_call_actions": place.entry.chain_call_actions,
            });
            if !place.entry.enforce {
                entry["enforce"] = json!(false);
            }
            if place.entry.slot != SlotChoice::default() {
                entry["slot"] = json!(place.entry.slot);
            }
            entry
        };
        xdp.insert("chain".into(), ordered.into_iter().map(entry).collect());
        json!({ "xdp": xdp })
    }
}

/// What the policies read so far say.
#[derive(Debug, Default)]
struct Joint<'a> {
    programs: BTreeMap<ProgramName, Used<'a>>,
    interfaces: BTreeMap<InterfaceId, Interface<'a>>,
    errors: Vec<DocumentError>,
}

impl<'a> Joint<'a> {
    fn add(&mut self, policy: &'a NamedPolicy, library: &'a Library) {
        let Self { programs, interfaces, errors } = self;
        let spec = &policy.spec;
        let interface = interfaces.entry(spec.interface.clone()).or_default();
        interface.engine.choose("engine", spec.engine, policy, errors);
        interface.mode.choose("mode", spec.mode, policy, errors);
        interface.drift.choose("drift", spec.drift, policy, errors);
        for (index, entry) in spec.chain.iter().enumerate() {
            let place = Place { policy, index, entry };
            let name = entry.name_on_nodes();
            check_maps(place, errors);
            if let Some(first) = interface.chain.get(&name) {
                errors.push(twice(&name, first, place));
                continue;
            }
            interface.chain.insert(name.clone(), place);
            let Some(source) = source(place, library, errors) else { continue };
            match programs.get(&name) {
                None => drop(programs.insert(name, Used { place, source })),
                Some(first) => errors.extend(first.differs(entry, source).map(|field| {
                    let first = first.place;
                    error(
                        place.at(&field),
                        format!(
                            "policy {:?} calls a program {:?} that is not the one of policy {:?}: \
                             compare {} with {} there; programs that differ need different names",
                            policy.name.as_str(),
                            name.as_str(),
                            first.policy(),
                            place.inside(&field),
                            first.inside(&field),
                        ),
                    )
                })),
            }
        }
    }
}

fn source<'a>(
    place: Place<'a>,
    library: &'a Library,
    errors: &mut Vec<DocumentError>,
) -> Option<Source<'a>> {
    let name = match &place.entry.program {
        ProgramRef::Builtin(builtin) => return Some(Source::Builtin(*builtin)),
        ProgramRef::Library(name) => name,
    };
    let object = library.find(name).map(Source::Object);
    if object.is_none() {
        let why = format!(
            "policy {:?} names the program {:?}, and the library has none of that name: upload \
             it, or name another one",
            place.policy(),
            name.as_str()
        );
        errors.push(error(place.at("/program"), why));
    }
    object
}

fn twice(name: &ProgramName, first: &Place<'_>, second: Place<'_>) -> DocumentError {
    let by = if first.policy.name == second.policy.name {
        format!("at {} already", first.inside(""))
    } else {
        format!("by policy {:?} at {} already", first.policy(), first.inside(""))
    };
    let why = format!(
        "policy {:?} puts {:?} into the chain of {}, and it is put there {by}: to run a program \
         twice, give it a second `name`",
        second.policy(),
        name.as_str(),
        second.policy.spec.interface
    );
    error(second.at(""), why)
}

fn check_maps(place: Place<'_>, errors: &mut Vec<DocumentError>) {
    for (name, map) in &place.entry.maps {
        if map.entries.is_none() && map.on_upgrade.is_none() {
            let why = format!(
                "policy {:?} says nothing about this map: expected `entries`, `on_upgrade`, or both",
                place.policy()
            );
            errors.push(error(place.at(&format!("/maps/{name}")), why));
        }
    }
}

fn objects(programs: &BTreeMap<ProgramName, Used<'_>>) -> Vec<RecordObject> {
    let object = |used: &Used<'_>| match used.source {
        Source::Object(object) => Some(object.clone()),
        Source::Builtin(_) => None,
    };
    let mut objects: Vec<_> = programs.values().filter_map(object).collect();
    objects.sort_unstable();
    objects.dedup();
    objects
}

/// A place in a policy, as a JSON pointer into all of them. Names of policies need no escapes.
fn at(policy: &NamedPolicy, inside: &str) -> String {
    format!("/policies/{}{inside}", policy.name)
}

fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

fn error(pointer: String, message: String) -> DocumentError {
    DocumentError { pointer, message }
}

fn few(mut errors: Vec<DocumentError>) -> Vec<DocumentError> {
    if errors.len() > MOST_ERRORS {
        let more = errors.len() - MOST_ERRORS;
        errors.truncate(MOST_ERRORS);
        errors.push(error(String::new(), format!("and {more} more")));
    }
    errors
}
