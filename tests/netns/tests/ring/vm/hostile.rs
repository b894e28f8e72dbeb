//! Objects that nobody would write: damaged anywhere, with types that contradict themselves. They
//! may open or be refused; the process that looks at them must live, soon go on, and stay small.

use pointsman_bpf::{Chain, Error, Member, inspect_object};
use pointsman_model::document::MapEntry;
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{MapName, Sha256};
use pointsman_netns::members::{resolved, rounding, slot};
use pointsman_netns::random::{Random, full};
use pointsman_netns::{object, skip};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const OBJECTS: [&str; 12] = [
    "verdict",
    "order",
    "runconfig",
    "tailcall",
    "subprogs",
    "timer",
    "spinlock",
    "percpu",
    "mapinmap",
    "globals",
    "sections",
    "nobtf",
];
/// Longer than any object takes on a slow machine.
const SOON: Duration = Duration::from_secs(20);

/// The bytes of the ELF section header table, which says where all else is.
fn section_headers(bytes: &[u8]) -> std::ops::Range<usize> {
    let start = u64::from_le_bytes(bytes[40..48].try_into().expect("eight bytes")) as usize;
    let count = u16::from_le_bytes(bytes[60..62].try_into().expect("two bytes"));
    start..start + 64 * usize::from(count)
}

/// Where the BTF's header is.
fn btf(bytes: &[u8]) -> Option<usize> {
    let magic = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
    bytes.windows(magic.len()).position(|window| window == magic)
}

/// Damages some bytes, where types are described more often than elsewhere.
fn damage(random: &mut Random, bytes: &mut Vec<u8>, headers_too: bool) {
    let spared = section_headers(bytes);
    let types = btf(bytes);
    for _ in 0..1 + random.below(6) {
        let at = match types {
            Some(types) if !random.one_in(3) => types + 4 * random.below(300),
            _ => random.below(bytes.len() / 4) * 4,
        };
        if at + 4 > bytes.len() || !headers_too && (spared.contains(&at) || at < 64) {
            continue;
        }
        match random.below(4) {
            0 => bytes[at + random.below(4)] ^= 1 << random.below(8),
            1 => bytes[at + random.below(4)] = random.next() as u8,
            2 => {
                let odd = random.of(&[0, 1, 2, 3, 7, 0xff, 0xffff, 0x10000, 0x7fff_ffff, u32::MAX]);
                bytes[at..at + 4].copy_from_slice(&odd.to_le_bytes());
            }
            // A word from elsewhere: types that refer to other types.
            _ => {
                let from = random.below(bytes.len() / 4) * 4;
                bytes.copy_within(from..from + 4, at);
            }
        }
    }
    if headers_too && random.one_in(10) {
        bytes.truncate(random.below(bytes.len()));
    }
}

/// Of the object's own globals and maps, with values of any kind.
fn program(random: &mut Random, bytes: &[u8]) -> Option<ResolvedProgram> {
    let report = inspect_object(bytes).ok()?;
    // Nobody has that much memory; the kernel would have to find out slowly.
    let large = |map: &pointsman_model::facts::MapFacts| {
        let map = &map.definition;
        let entry = u64::from(map.key_size) + u64::from(map.value_size) + 64;
        entry.saturating_mul(map.max_entries.into()) > 64 << 20
    };
    if report.maps.iter().any(large) {
        return None;
    }
    let value = |random: &mut Random| -> Value {
        let numbers = [json!(0), json!(-1), json!(5), json!(u64::MAX), json!(true), json!("GREEN")];
        match random.below(4) {
            0 => json!([1, 2, 3, 4]),
            1 => json!({"x": 1, "colour": "BLUE", "number": 7, "packets": 1}),
            _ => random.of(&numbers).clone(),
        }
    };
    let entry = report.programs.first().map(|program| program.name.clone()).unwrap_or_default();
    let mut wanted = ResolvedProgram::new(Sha256::of(bytes), "damaged");
    if pointsman_model::EntryName::new(&entry).is_ok() {
        wanted = resolved(bytes, &entry, Value::Null);
    }
    for global in &report.globals {
        if random.one_in(report.globals.len()) {
            wanted.globals.insert(global.name.clone(), value(random));
        }
    }
    for map in &report.maps {
        if random.one_in(2)
            && let Ok(name) = MapName::new(map.name.as_str())
        {
            let entry = MapEntry { key: value(random), value: value(random) };
            wanted.maps.insert(name, vec![entry]);
        }
    }
    Some(wanted)
}

fn prepare(bytes: &[u8], program: &ResolvedProgram) -> Result<Member, Error> {
    Member::prepare(bytes, program, &pointsman_bpf::MapHome::Anonymous, rounding(), None)
}

/// Kilobytes of memory that the process has in use at most until now.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn damaged_objects_are_refused_or_open_and_nothing_breaks() {
    let mut random = Random::new("hostile");
    // Opening is libbpf's work and the same everywhere: emulated, fewer say as much.
    let emulated = std::env::var("POINTSMAN_RING").is_ok_and(|ring| ring == "vm");
    let rounds = match (full(), emulated) {
        (true, false) => 20_000,
        (true, true) => 2_000,
        (false, _) => 400,
    };
    let originals = OBJECTS.map(object);
    let (mut opened, mut prepared) = (0, 0);
    for round in 0..rounds {
        let mut bytes = random.of(&originals).clone();
        // Sizes of sections are sizes of maps: those are only looked at.
        let load = round % 2 == 0;
        damage(&mut random, &mut bytes, !load);
        let started = Instant::now();
        opened += usize::from(inspect_object(&bytes).is_ok());
        if load && let Some(program) = program(&mut random, &bytes) {
            prepared += usize::from(prepare(&bytes, &program).is_ok());
        }
        assert!(started.elapsed() < SOON, "round {round} took {:?}", started.elapsed());
    }
    println!("hostile: of {rounds} objects {opened} opened and {prepared} loaded");
    assert!(peak() < 1 << 20, "{} kB of memory", peak());
    // Damage that is always found at once would try nothing.
    assert!(opened * 20 > rounds && prepared > 0, "{opened} opened, {prepared} loaded");
}

#[test]
fn an_object_cannot_choose_an_address_in_this_process() {
    let bytes = object("arena");
    let error = prepare(&bytes, &resolved(&bytes, "shares", Value::Null)).unwrap_err();
    assert!(error.to_string().starts_with("map \"arena\""), "{error}");
}

#[test]
fn a_member_that_names_its_types_by_number_is_not_fused() {
    let bytes = object("allocates");
    let allocates = match prepare(&bytes, &resolved(&bytes, "allocates", Value::Null)) {
        Ok(member) => member,
        // Whichever of its two functions libbpf looks for first.
        Err(e) if e.to_string().contains("'bpf_obj_") => {
            return skip("bpf_obj_new", "this kernel does not have it (6.2 and later do)");
        }
        Err(e) => panic!("{e}\n{}", e.log().unwrap_or("")),
    };
    let chain = Chain::fuse(&[slot("allocates", &allocates)], rounding(), true);
    let error = chain.unwrap_err().to_string();
    assert!(error.contains("bpf_obj_new"), "{error}");
}
