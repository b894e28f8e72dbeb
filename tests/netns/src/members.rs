//! Members and chains in one line each.

use pointsman_bpf::{Chain, Error, MapHome, Member, Slot, TestRun, test_run};
use pointsman_fuse::layout::StackRounding;
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{Action, EntryName, Sha256};
use serde_json::Value;
use std::sync::OnceLock;

/// A program of a test object with globals (a JSON object, or null).
#[must_use]
pub fn resolved(bytes: &[u8], entry: &str, globals: Value) -> ResolvedProgram {
    let globals = match globals {
        Value::Object(fields) => fields.into_iter().collect(),
        _ => std::collections::BTreeMap::new(),
    };
    ResolvedProgram {
        object: Sha256::of(bytes),
        source: "test".into(),
        entry: (!entry.is_empty()).then(|| EntryName::new(entry).expect("a valid entry name")),
        globals,
        maps: std::collections::BTreeMap::new(),
        on_upgrade: std::collections::BTreeMap::new(),
    }
}

/// How this kernel counts stack frames.
///
/// # Panics
/// This process may not load programs.
#[must_use]
pub fn rounding() -> StackRounding {
    static KNOWN: OnceLock<StackRounding> = OnceLock::new();
    *KNOWN.get_or_init(|| pointsman_bpf::probe().expect("root").stack_rounding)
}

/// Prepares a program with anonymous maps.
///
/// # Errors
/// Whatever is wrong with it.
pub fn prepare(bytes: &[u8], entry: &str, globals: Value) -> Result<Member, Error> {
    Member::prepare(bytes, &resolved(bytes, entry, globals), &MapHome::Anonymous, rounding(), None)
}

/// Prepares a program of a test object, which must work.
///
/// # Panics
/// It does not.
#[must_use]
pub fn member(object: &str, entry: &str) -> Member {
    member_with(object, entry, Value::Null)
}

/// The same with globals.
///
/// # Panics
/// It does not work.
#[must_use]
pub fn member_with(object: &str, entry: &str, globals: Value) -> Member {
    prepare(&crate::object(object), entry, globals)
        .unwrap_or_else(|e| panic!("{object}:{entry}: {e}\n{}", e.log().unwrap_or("")))
}

/// A member that goes on after PASS and is enforced.
#[must_use]
pub fn slot<'a>(name: &'a str, member: &'a Member) -> Slot<'a> {
    Slot::new(name, member)
}

/// A member that goes on after `actions`.
#[must_use]
pub fn slot_on<'a>(name: &'a str, member: &'a Member, actions: &[Action]) -> Slot<'a> {
    Slot { actions: actions.iter().copied().collect(), ..slot(name, member) }
}

/// Fuses with counters, in the order given, which must work.
///
/// # Panics
/// It does not.
#[must_use]
pub fn fuse<'a>(slots: &[Slot<'a>]) -> Chain {
    let in_order = |(at, slot): (usize, &Slot<'a>)| Slot { priority: at as u32, ..*slot };
    let slots: Vec<_> = slots.iter().enumerate().map(in_order).collect();
    Chain::fuse(&slots, rounding(), true)
        .unwrap_or_else(|e| panic!("{e}\n{}", e.log().unwrap_or("")))
}

/// Runs a chain once on a packet.
///
/// # Panics
/// The kernel refuses.
#[must_use]
pub fn run(chain: &Chain, packet: &[u8]) -> TestRun {
    test_run(chain.program(), packet, 1, 0).expect("a test run")
}

/// A packet of no particular kind.
#[must_use]
pub fn any_packet() -> Vec<u8> {
    crate::packets::Frame::udp(
        "192.0.2.1:1000".parse().expect("an address"),
        "192.0.2.2:2000".parse().expect("an address"),
    )
    .payload(&[0; 64])
    .build()
}
