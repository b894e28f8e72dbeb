//! What one part of a document says about another.

use super::strict::Fields;
use super::{
    Builtin, ChainEntry, Document, DocumentError, Engine, InterfaceSpec, MAX_CHAIN, MAX_GENERATION,
    MapEntry, NamespaceSpec, Namespaces, ObjectSource, OtherSpec, ProgramSpec, SlotChoice, Which,
    XdpSpec, error, host, namespace, queues, raw,
};
use crate::{ProgramName, Sha256};
use base64::Engine as _;
use std::collections::{BTreeMap, BTreeSet};

/// What one part of a document says about another.
pub(super) fn check(raw: raw::RawDocument) -> Result<Document, Vec<DocumentError>> {
    let mut errors = Vec::new();
    if raw.generation == 0 {
        errors.push(error("/generation", "expected a number of at least 1"));
    }
    if raw.generation > MAX_GENERATION {
        errors.push(error("/generation", format!("expected a number of at most {MAX_GENERATION}")));
    }
    let mut programs = BTreeMap::new();
    for (name, Fields(program)) in raw.programs.0 {
        match check_program(program) {
            Ok(program) => drop(programs.insert(name, program)),
            Err((inner, message)) => {
                errors.push(error(&format!("/programs/{name}{inner}"), message));
                // A placeholder, so that chains that use the name are not blamed too.
                programs.insert(name, ProgramSpec::placeholder());
            }
        }
    }
    let mut namespaces = Namespaces::new();
    for (name, Fields(namespace)) in raw.namespaces.0 {
        match namespace::check(namespace) {
            Ok(spec) => drop(namespaces.insert(name, spec)),
            Err((inner, message)) => {
                errors.push(error(&format!("/namespaces/{name}{inner}"), message));
            }
        }
    }
    let mut interfaces = BTreeMap::new();
    for (name, Fields(interface)) in raw.interfaces.0 {
        if let Some(namespace) = &name.namespace {
            let spec = || NamespaceSpec::of(namespace);
            namespaces.entry(namespace.clone()).or_insert_with(spec);
        }
        let at = format!("{}/xdp", name.pointer());
        let raw::RawInterface { xdp, queues, flows, .. } = interface;
        let xdp = xdp.map(|Fields(xdp)| check_chain(xdp, &at, &programs, &mut errors));
        let at = format!("{}/queues", name.pointer());
        let queues = queues.map(|Fields(raw)| queues::check_queues(raw, &at, &mut errors));
        let at = format!("{}/flows", name.pointer());
        let flows = queues::check_flows(&flows, &at, &mut errors);
        interfaces.insert(name, InterfaceSpec { xdp, queues, flows });
    }
    let lcores = raw.lcores.map(|Fields(lcores)| host::check_lcores(lcores, &mut errors));
    if !errors.is_empty() {
        return Err(errors);
    }
    let raw::SchemaVersion::V1 = raw.schema;
    Ok(Document {
        node: raw.node,
        generation: raw.generation,
        allow_empty: raw.allow_empty,
        programs,
        namespaces,
        interfaces,
        lcores: lcores.unwrap_or_default(),
        access: raw.access.map(|Fields(access)| access.into()).unwrap_or_default(),
    })
}

impl ProgramSpec {
    fn placeholder() -> Self {
        Self {
            object: ObjectSource::Builtin(Builtin::CountingPass),
            entry: None,
            globals: BTreeMap::new(),
            maps: BTreeMap::new(),
            on_upgrade: BTreeMap::new(),
        }
    }
}

fn check_program(raw: raw::RawProgram) -> Result<ProgramSpec, (String, String)> {
    let whole = |why: &str| Err((String::new(), why.to_owned()));
    let object = match (raw.object, raw.builtin) {
        (Some(Fields(object)), None) => {
            check_object(object).map_err(|(at, why)| (at.to_owned(), why.to_owned()))?
        }
        (None, Some(builtin)) => ObjectSource::Builtin(builtin),
        (None, None) => return whole("expected `object` or `builtin`"),
        (Some(_), Some(_)) => return whole("expected one of `object` and `builtin`, found both"),
    };
    let entry = |Fields(e): Fields<raw::RawEntry>| MapEntry { key: e.key.0, value: e.value.0 };
    let (mut maps, mut on_upgrade) = (BTreeMap::new(), BTreeMap::new());
    for (name, Fields(map)) in raw.maps.0 {
        if map.entries.is_none() && map.on_upgrade.is_none() {
            let why = "expected `entries`, `on_upgrade`, or both".to_owned();
            return Err((format!("/maps/{name}"), why));
        }
        if let Some(entries) = map.entries {
            maps.insert(name.clone(), entries.into_iter().map(entry).collect());
        }
        on_upgrade.extend(map.on_upgrade.map(|wanted| (name, wanted)));
    }
    Ok(ProgramSpec {
        object,
        entry: raw.entry,
        globals: raw.globals.0.into_iter().map(|(name, value)| (name, value.0)).collect(),
        maps,
        on_upgrade,
    })
}

fn check_object(raw: raw::RawObject) -> Result<ObjectSource, (&'static str, &'static str)> {
    let raw::RawObject { path, sha256, inline, url } = raw;
    match (path, inline, url, sha256) {
        (Some(path), None, None, hash) => {
            if !path.starts_with('/') || path.contains('\0') {
                return Err(("/object/path", "expected an absolute path"));
            }
            Ok(ObjectSource::Path(path.into(), hash))
        }
        (None, Some(text), None, hash) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(text.as_bytes())
                .map_err(|_| ("/object/inline", "expected base64 (RFC 4648, with padding)"))?;
            if hash.is_some_and(|hash| hash != Sha256::of(&bytes)) {
                return Err(("/object/sha256", "differs from the hash of the inline object"));
            }
            Ok(ObjectSource::Inline(bytes))
        }
        (None, None, Some(url), Some(hash)) => {
            if !(url.starts_with("https://") || url.starts_with("http://")) {
                return Err(("/object/url", "expected an http or https URL"));
            }
            Ok(ObjectSource::Url(url, hash))
        }
        (None, None, Some(_), None) => {
            Err(("/object", "expected `sha256` beside `url`: a download is checked against it"))
        }
        (None, None, None, Some(hash)) => Ok(ObjectSource::Stored(hash)),
        _ => Err(("/object", "expected exactly one of `path`, `inline`, `url`, or `sha256` alone")),
    }
}

fn check_chain(
    raw: raw::RawXdp,
    at: &str,
    programs: &BTreeMap<ProgramName, ProgramSpec>,
    errors: &mut Vec<DocumentError>,
) -> XdpSpec {
    if raw.chain.len() > MAX_CHAIN {
        let found = raw.chain.len();
        let why = format!("expected at most {MAX_CHAIN} programs, found {found}");
        errors.push(error(&format!("{at}/chain"), why));
    }
    let mut seen = BTreeSet::new();
    let mut chain = Vec::with_capacity(raw.chain.len());
    for (index, Fields(entry)) in raw.chain.into_iter().enumerate() {
        let place = format!("{at}/chain/{index}/program");
        if entry.slot == SlotChoice::Own && raw.engine == Engine::Fused {
            let why = "a slot of its own needs a dispatcher, and `engine` is fused: write \
                       `\"engine\": \"auto\"`, or leave `slot` away";
            errors.push(error(&format!("{at}/chain/{index}/slot"), why));
        }
        if !programs.contains_key(&entry.program) {
            let message =
                format!("expected a name from /programs, found {:?}", entry.program.as_str());
            errors.push(error(&place, message));
        } else if !seen.insert(entry.program.clone()) {
            let message = format!(
                "{:?} is in this chain already; to run an object twice, give it a second name",
                entry.program.as_str()
            );
            errors.push(error(&place, message));
        }
        chain.push(ChainEntry {
            program: entry.program,
            priority: entry.priority,
            actions: entry.chain_call_actions,
            enforce: entry.enforce,
            slot: entry.slot,
        });
    }
    let place = format!("{at}/others");
    if raw.engine == Engine::Fused && !raw.others.is_empty() {
        let why = "others can only be in a dispatcher, and `engine` is fused: write `\"engine\": \
                   \"auto\"`, or leave `others` away";
        errors.push(error(&place, why));
    }
    let others = check_others(raw.others, &place, errors);
    XdpSpec { engine: raw.engine, mode: raw.mode, drift: raw.drift, chain, others }
}

/// The most decisions about programs of others: a dispatcher has ten slots, and a host few kinds
/// of programs.
const MAX_OTHERS: usize = 64;
/// `KSYM_NAME_LEN` of `linux/kallsyms.h` before 6.1, without the terminating zero: the kernel
/// takes no longer name of a function in BTF.
const LONGEST_NAME: usize = 127;

fn check_others(
    raw: Vec<Fields<raw::RawOther>>,
    at: &str,
    errors: &mut Vec<DocumentError>,
) -> Vec<OtherSpec> {
    if raw.len() > MAX_OTHERS {
        let found = raw.len();
        errors.push(error(at, format!("expected at most {MAX_OTHERS} of them, found {found}")));
    }
    let mut seen = BTreeSet::new();
    let mut others = Vec::with_capacity(raw.len());
    for (index, Fields(other)) in raw.into_iter().enumerate() {
        let raw::RawOther { name, tag, priority, chain_call_actions: actions } = other;
        let place = format!("{at}/{index}");
        let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let which = match (name, tag) {
            (Some(name), None) => {
                let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
                if name.is_empty() || name.len() > LONGEST_NAME || !printable {
                    let why = "expected the name of a function: 1 to 127 characters without spaces";
                    errors.push(error(&format!("{place}/name"), why));
                }
                Which::Name(name)
            }
            (None, Some(tag)) => {
                if tag.len() != 16 || !is_hex(&tag) {
                    let why = "expected 16 hexadecimal digits, in lower case";
                    errors.push(error(&format!("{place}/tag"), why));
                }
                Which::Tag(tag)
            }
            _ => {
                errors.push(error(&place, "expected exactly one of `name` and `tag`"));
                continue;
            }
        };
        if priority.is_none() && actions.is_none() {
            let why = "expected `priority`, `chain_call_actions`, or both";
            errors.push(error(&place, why));
        }
        if !seen.insert(which.clone()) {
            errors.push(error(&place, "these programs are decided about already"));
        }
        others.push(OtherSpec { which, priority, actions });
    }
    others
}
