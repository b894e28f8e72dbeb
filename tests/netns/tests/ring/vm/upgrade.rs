//! Maps that one load of a program takes over from another: the same maps of the kernel, whatever
//! becomes of the load that made them; and what happens if the pins are not what they were.

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapInfo, MapType};
use pointsman_bpf::{MapHome, Member, Store, inspect_object};
use pointsman_model::document::MapEntry;
use pointsman_model::facts::{InitialContents, MapFacts};
use pointsman_model::observed::MadeMap;
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{Fingerprint, MapName, ProgramName};
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::members::{any_packet, fuse, resolved, rounding, run, slot};
use pointsman_netns::object;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

/// A store, and the two versions of the program.
struct Scene {
    bpffs: Bpffs,
    store: Store,
    first: (Vec<u8>, ResolvedProgram),
    second: (Vec<u8>, ResolvedProgram),
}

type Version = (Vec<u8>, ResolvedProgram);

fn version(source: &str, entry: &str, globals: Value) -> Version {
    let bytes = object(source);
    let program = resolved(&bytes, entry, globals);
    (bytes, program)
}

fn scene() -> Scene {
    let bpffs = Bpffs::mount().expect("root");
    let store = Store::open(&bpffs.path().join("pointsman")).expect("an empty store");
    Scene {
        bpffs,
        store,
        first: version("upgrade_1", "counts", Value::Null),
        second: version("upgrade_2", "counts", Value::Null),
    }
}

fn name() -> ProgramName {
    ProgramName::new("p").expect("a name")
}

fn map_name(map: &str) -> MapName {
    MapName::new(map).expect("a name")
}

impl Scene {
    fn prepare(
        &self,
        (bytes, program): &Version,
        keeps: &BTreeMap<MapName, Fingerprint>,
    ) -> Result<(), pointsman_bpf::Error> {
        self.store.prepare_program(&name(), program, bytes, rounding(), None, keeps)
    }

    /// Prepares `new`, taking over what `maps` names from `old`.
    fn upgrade(
        &self,
        old: &Version,
        new: &Version,
        maps: &[&str],
    ) -> Result<(), pointsman_bpf::Error> {
        let from = old.1.fingerprint();
        self.prepare(new, &maps.iter().map(|map| (map_name(map), from.clone())).collect())
    }

    fn pin(&self, (_, program): &Version, map: &str) -> PathBuf {
        let directory = self.store.map_directory(&name(), &program.fingerprint());
        directory.join(pointsman_bpf::pins::file_name(map))
    }

    fn map(&self, version: &Version, map: &str) -> MapHandle {
        MapHandle::from_pinned_path(self.pin(version, map)).expect("a pinned map")
    }

    fn id(&self, version: &Version, map: &str) -> u32 {
        let map = self.map(version, map);
        MapInfo::new(map.as_fd()).expect("a map").info.id
    }

    fn made(&self, (_, program): &Version) -> BTreeMap<MapName, MadeMap> {
        let mut programs = self.store.programs().expect("programs");
        let program = programs.remove(&(name(), program.fingerprint())).expect("prepared");
        program.made.expect("definitions").maps
    }

    fn facts(&self, version: &Version, map: &str) -> MapFacts {
        self.made(version)[&map_name(map)].facts.clone()
    }

    /// Runs the program on so many packets, as a chain with its pinned maps.
    fn run(&self, (bytes, program): &Version, packets: u32) {
        let home = MapHome::Pinned(self.store.map_directory(&name(), &program.fingerprint()));
        let member = Member::prepare(bytes, program, &home, rounding(), None).expect("a member");
        let chain = fuse(&[slot("p", &member)]);
        (0..packets).for_each(|_| assert_eq!(run(&chain, &any_packet()).verdict, 2));
    }

    fn sum(&self, version: &Version, map: &str) -> u64 {
        let map = self.map(version, map);
        let number = |bytes: Vec<u8>| u64::from_ne_bytes(bytes[..8].try_into().expect("8 bytes"));
        if map.map_type().is_percpu() {
            let all = map.lookup_percpu(&[0; 4], MapFlags::ANY).expect("a lookup");
            return all.expect("a value").into_iter().map(number).sum();
        }
        number(map.lookup(&[0; 4], MapFlags::ANY).expect("a lookup").expect("a value"))
    }
}

const KEPT: [&str; 7] = ["flows", "recent", "packets", "tables", "only", "sockets", "events"];

#[test]
fn definitions_tell_what_changed_from_what_did_not() {
    let scene = scene();
    for version in [&scene.first, &scene.second] {
        scene.prepare(version, &BTreeMap::new()).expect("prepare");
    }
    let both = |map| (scene.facts(&scene.first, map), scene.facts(&scene.second, map));
    for map in KEPT {
        let (one, two) = both(map);
        assert_eq!(one, two);
        assert_eq!(one.initial, InitialContents::Nothing, "{map}");
    }
    for map in ["limits", "slots", "flagged"] {
        let (one, two) = both(map);
        assert_ne!(one.definition, two.definition, "{map}");
    }
    for map in ["outer", "targets"] {
        assert_eq!(both(map).0.initial, InitialContents::Slots, "{map}");
    }
    assert_eq!(both(".rodata").0.initial, InitialContents::Constants);
    assert!(matches!(both(".bss").0.initial, InitialContents::Variables(_)));
    let flows = both("flows").0.definition;
    assert_eq!(
        flows.key.as_deref(),
        Some("struct flow{u32 address@0;u16 port@4;u8 protocol@6;u8 pad@7;} of 8 bytes")
    );
    assert_eq!(both("untyped").0.definition.value, None);
    assert_eq!(both("tables").0.definition.inner.expect("inner maps").value_size, 8);
    // They are told alike without loading anything.
    let report = inspect_object(&scene.first.0).expect("a report");
    for map in report.maps {
        assert_eq!(map, scene.facts(&scene.first, map.name.as_str()));
    }
}

#[test]
fn kept_maps_are_the_same_maps_there_and_back() {
    let scene = scene();
    let (first, second) = (&scene.first, &scene.second);
    scene.prepare(first, &BTreeMap::new()).expect("prepare");
    // What a companion does: it writes entries, and puts a map of its own into a map of maps.
    let (flow, sum) = ([7; 8], [9; 16]);
    scene.map(first, "flows").update(&flow, &sum, MapFlags::ANY).expect("an update");
    scene.map(first, "recent").update(&[7; 4], &sum, MapFlags::ANY).expect("an update");
    let opts = no_options();
    let table = MapHandle::create(MapType::Array, Some("table"), 4, 8, 1, &opts).expect("a map");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&table.as_fd()).to_ne_bytes();
    scene.map(first, "tables").update(&[0; 4], &fd, MapFlags::ANY).expect("an update");
    drop(table);
    scene.run(first, 3);
    let before: Vec<_> = KEPT.iter().map(|map| scene.id(first, map)).collect();

    scene.upgrade(first, second, &KEPT).expect("upgrade");
    scene.store.release_program(&name(), &first.1.fingerprint()).expect("release");
    let after: Vec<_> = KEPT.iter().map(|map| scene.id(second, map)).collect();
    assert_eq!(before, after);
    scene.run(second, 2);
    assert_eq!(scene.sum(second, "packets"), 3 + 2000, "per CPU");
    assert_eq!(scene.sum(second, "only"), 3 + 2000, "through the map of maps that was made anew");
    assert_eq!(scene.sum(second, ".bss"), 2000, "of another object");
    for (map, key) in [("flows", &flow[..]), ("recent", &[7; 4])] {
        let found = scene.map(second, map).lookup(key, MapFlags::ANY).expect("a lookup");
        assert_eq!(found.as_deref(), Some(&sum[..]), "{map}");
    }

    scene.upgrade(second, first, &KEPT).expect("back");
    scene.store.release_program(&name(), &second.1.fingerprint()).expect("release");
    let back: Vec<_> = KEPT.iter().map(|map| scene.id(first, map)).collect();
    assert_eq!(before, back);
    scene.run(first, 1);
    assert_eq!(scene.sum(first, "packets"), 3 + 2000 + 1);
    // The table that only the map of maps holds has counted all along.
    let id = scene.map(first, "tables").lookup(&[0; 4], MapFlags::ANY).expect("a lookup");
    let id = u32::from_ne_bytes(id.expect("an id").try_into().expect("four bytes"));
    let table = MapHandle::from_map_id(id).expect("the table");
    let sum = table.lookup(&[0; 4], MapFlags::ANY).expect("a lookup").expect("a value");
    assert_eq!(sum, (3u64 + 2000 + 1).to_ne_bytes());
    scene.store.release_program(&name(), &first.1.fingerprint()).expect("release");
    assert_eq!(scene.bpffs.list().expect("a list"), [PathBuf::from("pointsman")]);
}

#[test]
fn a_program_array_of_the_object_jumps_to_the_new_version() {
    let scene = scene();
    let jumping = |source| version(source, "jumps", Value::Null);
    let (first, second) = (jumping("upgrade_1"), jumping("upgrade_2"));
    scene.prepare(&first, &BTreeMap::new()).expect("prepare");
    scene.run(&first, 1);
    scene.upgrade(&first, &second, &["packets"]).expect("upgrade");
    scene.run(&second, 1);
    // The old one jumps to its own target still.
    scene.run(&first, 1);
    assert_eq!(scene.sum(&second, "packets"), 1 + 1000 + 1);
}

#[test]
fn variables_are_taken_over_by_another_entry_of_the_object() {
    let scene = scene();
    let other = version("upgrade_1", "counts_too", json!({"verdict": 2}));
    scene.prepare(&scene.first, &BTreeMap::new()).expect("prepare");
    scene.run(&scene.first, 5);
    scene.upgrade(&scene.first, &other, &[".bss", ".data", "untyped"]).expect("upgrade");
    scene.run(&other, 1);
    assert_eq!(scene.sum(&other, ".bss"), 6);
    let (old, new) = (scene.facts(&scene.first, ".data"), scene.facts(&other, ".data"));
    assert_eq!(old, new);
    let constants = |version| scene.made(version)[&map_name(".rodata")].id;
    assert_ne!(constants(&scene.first), constants(&other));
    // A global of `.data` changes the first values of that section alone.
    let changed = version("upgrade_1", "counts", json!({"limit": 11}));
    scene.prepare(&changed, &BTreeMap::new()).expect("prepare");
    assert_ne!(scene.facts(&changed, ".data"), old);
    assert_eq!(scene.facts(&changed, ".bss"), scene.facts(&scene.first, ".bss"));
}

#[test]
fn a_map_that_is_not_the_promised_one_is_refused_and_nothing_is_left() {
    let scene = scene();
    let (first, second) = (&scene.first, &scene.second);
    scene.prepare(first, &BTreeMap::new()).expect("prepare");
    let pins = scene.bpffs.list().expect("a list");
    // One that is alike is not the one that the running program has.
    let pin = scene.pin(first, "flows");
    let opts = no_options();
    let mut other = MapHandle::create(MapType::Hash, Some("flows"), 8, 16, 64, &opts).expect("map");
    std::fs::remove_file(&pin).expect("a pin");
    other.pin(&pin).expect("another pin");
    let made = scene.made(first);
    assert_eq!(made[&map_name("flows")].id, None, "seen when it is looked at");
    assert!(made[&map_name("recent")].id.is_some());
    let error = scene.upgrade(first, second, &["recent", "flows"]).unwrap_err().to_string();
    assert!(error.contains("flows") && error.contains("planned again"), "{error}");
    assert_eq!(scene.bpffs.list().expect("a list"), pins);
    std::fs::remove_file(&pin).expect("a pin");
    let error = scene.upgrade(first, second, &["recent", "flows"]).unwrap_err().to_string();
    assert!(error.contains("flows") && error.contains("planned again"), "{error}");
    // A map that differs is refused also if somebody asks for it.
    let error = scene.upgrade(first, second, &["slots"]).unwrap_err().to_string();
    assert!(error.contains("another map than the object's"), "{error}");
    // Where nothing is in the way it goes on.
    scene.upgrade(first, second, &["recent"]).expect("upgrade");
}

#[test]
fn an_interrupted_preparation_or_release_leaves_one_load_whole() {
    let Scene { bpffs, store, first, second } = scene();
    let root = bpffs.path().join("pointsman");
    let scene = Scene { bpffs, store, first, second };
    scene.prepare(&scene.first, &BTreeMap::new()).expect("prepare");
    scene.map(&scene.first, "flows").update(&[7; 8], &[9; 16], MapFlags::ANY).expect("an update");
    let id = scene.id(&scene.first, "flows");
    scene.upgrade(&scene.first, &scene.second, &KEPT).expect("upgrade");
    // Without the last pin the second load was never prepared; its next preparation starts over.
    let new = scene.second.1.fingerprint();
    let record = root.join("programs/p").join(new.as_str()).join("entries");
    std::fs::remove_file(&record).expect("a pin");
    scene.upgrade(&scene.first, &scene.second, &["recent"]).expect("upgrade");
    assert_ne!(scene.id(&scene.second, "flows"), id, "nothing is left of the first attempt");
    std::fs::remove_file(&record).expect("a pin");
    let Scene { bpffs, store, first, second } = scene;
    drop(store);
    let store = Store::open(&root).expect("the same store");
    let scene = Scene { bpffs, store, first, second };
    assert_eq!(scene.store.programs().expect("programs").len(), 1);
    assert_eq!(scene.id(&scene.first, "flows"), id);
    assert!(scene.map(&scene.first, "flows").lookup(&[7; 8], MapFlags::ANY).unwrap().is_some());
    // What an earlier version prepared tells no definitions, and gives none away.
    let old = scene.first.1.fingerprint();
    std::fs::remove_file(root.join("programs/p").join(old.as_str()).join("definitions")).unwrap();
    let programs = scene.store.programs().expect("programs");
    assert_eq!(programs[&(name(), old)].made, None);
    assert!(scene.upgrade(&scene.first, &scene.second, &["flows"]).is_err());
}

#[test]
fn what_a_shared_map_was_told_is_forgotten_by_all_loads_that_have_it() {
    let mut scene = scene();
    let flow = json!({"address": 1, "port": 2, "protocol": 3, "pad": 0});
    let entries = |packets: u64| {
        let value = json!({"packets": packets, "bytes": 0});
        vec![MapEntry { key: flow.clone(), value }]
    };
    let flows = map_name("flows");
    scene.first.1.maps.insert(flows.clone(), entries(1));
    scene.second.1.maps.insert(flows.clone(), entries(1));
    let fill = |scene: &Scene, (bytes, program): &Version| {
        scene.store.set_map_entries(&name(), program, &flows, bytes).expect("entries");
    };
    let told = |scene: &Scene, (_, program): &Version| {
        let programs = scene.store.programs().expect("programs");
        programs[&(name(), program.fingerprint())].entries.get(&flows).copied()
    };
    scene.prepare(&scene.first, &BTreeMap::new()).expect("prepare");
    fill(&scene, &scene.first);
    scene.upgrade(&scene.first, &scene.second, &["flows"]).expect("upgrade");
    assert!(told(&scene, &scene.second).is_some(), "taken over with the map");
    assert_eq!(told(&scene, &scene.second), told(&scene, &scene.first));
    scene.second.1.maps.insert(flows.clone(), entries(2));
    fill(&scene, &scene.second);
    assert_eq!(told(&scene, &scene.first), None);
    assert!(told(&scene, &scene.second).is_some());
}

fn no_options() -> libbpf_rs::libbpf_sys::bpf_map_create_opts {
    libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
        ..Default::default()
    }
}
