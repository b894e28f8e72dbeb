//! The pool: each program in all its makes, and the maps of each make.

use super::tail_calls::TailCalls;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject};
use pointsman_bpf::{MapHome, Member, builtin, dispatcher};
use pointsman_model::document::Builtin;
use pointsman_model::plan::ResolvedProgram;
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::members::{resolved, rounding};
use pointsman_netns::object;
use pointsman_netns::pool::{POOL, Pooled};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// All programs, and what joins them by tail calls.
pub(super) struct Pool {
    pub(super) programs: Vec<Program>,
    pub(super) tail_calls: TailCalls,
    _bpffs: Bpffs,
}

/// A program in all its makes, each with maps of its own.
pub(super) struct Program {
    /// `object:entry#n`.
    pub(super) name: String,
    pub(super) object: &'static str,
    pub(super) entry: &'static str,
    /// Whether it takes packets of several buffers.
    pub(super) frags: bool,
    /// Its verdict is the first word of `.data`, which changes between packets.
    pub(super) live: bool,
    /// As a member of fused chains.
    pub(super) member: Member,
    /// As libbpf loads it.
    pub(super) alone: Object,
    /// As steps of tail-call chains: for chains without and with frags.
    pub(super) steps: [Option<Object>; 2],
    maps: Vec<Map>,
    source: Source,
}

/// What it takes to prepare a member of the same maps once more.
struct Source {
    bytes: Vec<u8>,
    resolved: ResolvedProgram,
    home: MapHome,
}

/// Which of a program's makes runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Make<'a> {
    Member,
    Alone,
    Step,
    /// As somebody else loaded it.
    Loaded(&'a Handles),
}

/// The maps of a program that change, in the order of the program's own; `None`: it has no use for
/// that one.
pub(super) type Handles = Vec<Option<MapHandle>>;

/// A map of a program that changes: as [`Make::Member`], [`Make::Alone`] and [`Make::Step`].
struct Map {
    name: String,
    handles: [MapHandle; 3],
    initial: Entries,
}

/// Key and values: one, or one per CPU.
type Entries = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

/// What a program left in its maps, by the maps' names.
pub(super) type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

impl Pool {
    /// The programs of the pool that `wanted` takes.
    pub(super) fn new(wanted: impl Fn(&Pooled) -> bool) -> Self {
        let bpffs = Bpffs::mount().expect("root");
        let tail_calls = TailCalls::new();
        let mut programs: Vec<Program> = Vec::new();
        for pooled in POOL.iter().filter(|pooled| wanted(pooled)) {
            for _ in 0..pooled.copies {
                let same = |known: &&Program| {
                    known.name.rsplit_once('#').is_some_and(|(name, _)| {
                        name.split_once(':') == Some((pooled.object, pooled.entry))
                    })
                };
                let number = programs.iter().filter(same).count();
                let name = format!("{}:{}#{number}", pooled.object, pooled.entry);
                let home = bpffs.path().join(programs.len().to_string());
                programs.push(Program::new(name, pooled, &home, &tail_calls));
            }
        }
        Self { programs, tail_calls, _bpffs: bpffs }
    }

    pub(super) fn program(&self, name: &str) -> Option<&Program> {
        self.programs.iter().find(|program| program.name == name)
    }
}

fn bytes_of(name: &str) -> Vec<u8> {
    match name {
        "udp_port_filter" => builtin(Builtin::UdpPortFilter).to_vec(),
        "cidr_blocklist" => builtin(Builtin::CidrBlocklist).to_vec(),
        "counting_pass" => builtin(Builtin::CountingPass).to_vec(),
        "xskmap_redirect" => builtin(Builtin::XskmapRedirect).to_vec(),
        name => object(name),
    }
}

impl Program {
    fn new(name: String, pooled: &Pooled, home: &Path, tail_calls: &TailCalls) -> Self {
        let Pooled { object, entry, globals, .. } = *pooled;
        let bytes = bytes_of(object);
        let globals = match globals {
            "" => Value::Null,
            text => serde_json::from_str(text).expect("globals are JSON"),
        };
        let pinned = MapHome::Pinned(home.to_owned());
        let resolved = resolved(&bytes, entry, globals);
        let member = Member::prepare(&bytes, &resolved, &pinned, rounding(), None)
            .unwrap_or_else(|e| panic!("{name}: {e}\n{}", e.log().unwrap_or("")));
        let mut open = ObjectBuilder::default().open_memory(&bytes).expect("libbpf opens it");
        for mut program in open.progs_mut() {
            let is_entry = program.name() == entry;
            program.set_autoload(is_entry || object == "tailcall");
        }
        take_globals(&mut open, home);
        let alone = open.load().unwrap_or_else(|e| panic!("{name} alone: {e}"));
        let frags = member.facts().frags;
        let steps = tail_calls.steps(pooled, frags, |open| take_globals(open, home));
        let first = steps[0].as_ref().expect("the step for chains without frags");
        let maps = maps(home, &alone, first);
        let source = Source { bytes, resolved, home: pinned };
        let live = entry == "v_live";
        Self { name, object, entry, frags, live, member, alone, steps, maps, source }
    }

    /// Whether it is what its file says, no globals set, and its maps can be found by what the
    /// kernel tells of the program: maps in maps cannot.
    pub(super) fn is_plain(&self) -> bool {
        self.source.resolved.globals.is_empty() && self.object != "mapinmap"
    }

    /// The same program for a slot of a dispatcher, with the maps of [`Make::Member`].
    pub(super) fn for_slot(&self) -> dispatcher::Program {
        let Source { bytes, resolved, home } = &self.source;
        let facts = Some(self.member.facts());
        let again = Member::prepare(bytes, resolved, home, rounding(), facts);
        dispatcher::Program::of_member(again.unwrap_or_else(|e| panic!("{} again: {e}", self.name)))
    }

    /// The maps of the program that others loaded, among those with these ids.
    pub(super) fn handles(&self, ids: &[u32]) -> Handles {
        let found: Vec<_> =
            ids.iter().map(|&id| MapHandle::from_map_id(id).expect("a map in use")).collect();
        let same = |name: &str, map: &MapHandle| {
            let full = map.name().to_string_lossy().into_owned();
            section(&full).unwrap_or(full) == name
        };
        let handle = |map: &Map| {
            let found = found.iter().find(|found| same(&map.name, found))?;
            Some(MapHandle::try_from(found).expect("a handle"))
        };
        self.maps.iter().map(handle).collect()
    }

    /// Puts all maps of a make back to what they were at first.
    pub(super) fn reset(&self, make: Make<'_>) {
        for (at, Map { name, initial, .. }) in self.maps.iter().enumerate() {
            let Some(map) = self.map(at, make) else { continue };
            for key in map.keys().filter(|key| !initial.contains_key(key)).collect::<Vec<_>>() {
                map.delete(&key).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.name));
            }
            for (key, values) in initial {
                let written = match map.map_type().is_percpu() {
                    true => map.update_percpu(key, values, MapFlags::ANY),
                    false => map.update(key, &values[0], MapFlags::ANY),
                };
                written.unwrap_or_else(|e| panic!("{}: {name}: {e}", self.name));
            }
        }
    }

    /// Makes a program whose verdict can be set answer `verdict` from now on.
    pub(super) fn answer(&self, make: Make<'_>, verdict: i32) {
        let data = self.maps.iter().position(|map| map.name == "data").expect("a data section");
        let map = self.map(data, make).expect("a program that reads it");
        map.update(&[0; 4], &verdict.to_ne_bytes(), MapFlags::ANY).expect("an update");
    }

    /// What a make has in its maps.
    pub(super) fn contents(&self, make: Make<'_>) -> Contents {
        let contents = |(at, map): (usize, &Map)| {
            // Where the program has no use for a map, nobody has written it.
            let entries = self.map(at, make).map_or_else(|| map.initial.clone(), entries);
            let comparable = |(key, values): (_, Vec<_>)| (key, comparable(&map.name, &values));
            (map.name.clone(), entries.into_iter().map(comparable).collect())
        };
        self.maps.iter().enumerate().map(contents).collect()
    }

    /// One of its maps as a make has it.
    fn map<'a>(&'a self, at: usize, make: Make<'a>) -> Option<&'a MapHandle> {
        let handles = &self.maps[at].handles;
        match make {
            Make::Member => Some(&handles[0]),
            Make::Alone => Some(&handles[1]),
            Make::Step => Some(&handles[2]),
            Make::Loaded(handles) => handles[at].as_ref(),
        }
    }
}

/// Globals are as the member has them: setting them is tried elsewhere.
fn take_globals(open: &mut OpenObject, home: &Path) {
    for mut map in open.maps_mut() {
        let Some(section) = section(&map.name().to_string_lossy()) else { continue };
        let pin = home.join(pin_of(&format!(".{section}")));
        let pinned = MapHandle::from_pinned_path(&pin).expect("a pinned section");
        let value = pinned.lookup(&[0; 4], MapFlags::ANY).expect("a value").expect("a value");
        let initial = map.initial_value_mut().expect("a section has a value");
        initial.copy_from_slice(&value[..initial.len()]);
    }
}

/// The section of a map of globals: libbpf puts the object's name before it.
fn section(map: &str) -> Option<String> {
    map.split_once('.').map(|(_, section)| section.to_owned())
}

/// Whether two names are of the same map of an object that was opened twice.
pub(super) fn same_map(one: &str, other: &str) -> bool {
    one == other || section(one).is_some() && section(one) == section(other)
}

/// The name under which a map is pinned: a BPF filesystem takes no dots.
fn pin_of(map: &str) -> String {
    map.replace('.', "%2e")
}

/// The maps that programs write. Values of the others are ids of maps and programs, or are written
/// by nobody.
fn maps(home: &Path, alone: &Object, step: &Object) -> Vec<Map> {
    let mut maps = Vec::new();
    for own in alone.maps() {
        let full = own.name().to_string_lossy().into_owned();
        let section = section(&full);
        let name = section.clone().unwrap_or_else(|| full.clone());
        if ["outer", "targets", "nothing", "xsks_map", "ports"].contains(&name.as_str())
            || name.starts_with("blocklist")
            || name.starts_with("rodata")
        {
            continue;
        }
        let pin = match &section {
            Some(section) => pin_of(&format!(".{section}")),
            None => full.clone(),
        };
        let same = |map: &libbpf_rs::Map<'_>| same_map(&map.name().to_string_lossy(), &full);
        let of_step = step.maps().find(same).unwrap_or_else(|| panic!("no {name} in the step"));
        let handles = [
            MapHandle::from_pinned_path(home.join(pin)).expect("a pinned map"),
            MapHandle::try_from(&own).expect("a map"),
            MapHandle::try_from(&of_step).expect("a map"),
        ];
        let initial = entries(&handles[0]);
        maps.push(Map { name, handles, initial });
    }
    maps
}

fn entries(map: &MapHandle) -> Entries {
    let values = |key: &Vec<u8>| match map.map_type().is_percpu() {
        true => map.lookup_percpu(key, MapFlags::ANY).expect("a lookup").expect("values"),
        false => vec![map.lookup(key, MapFlags::ANY).expect("a lookup").expect("a value")],
    };
    map.keys().map(|key| (key.clone(), values(&key))).collect()
}

/// A value as it is compared. Those per CPU are added up word by word: tests run on any CPU.
fn comparable(map: &str, values: &[Vec<u8>]) -> Vec<u8> {
    if let [value] = values {
        // A timer's own words, and how often it fired meanwhile, are its own affair.
        return if map == "clocks" { value[16..24].to_vec() } else { value.clone() };
    }
    let mut sum = vec![0u64; values[0].len() / 8];
    for value in values {
        for (sum, word) in sum.iter_mut().zip(value.chunks_exact(8)) {
            *sum += u64::from_ne_bytes(word.try_into().expect("eight bytes"));
        }
    }
    sum.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
