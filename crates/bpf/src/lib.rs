//! BPF for Pointsman, usable alone: open programs, set their globals, fuse several into one
//! chain, attach it, read its counters.
//!
//! In: the bytes of ELF objects, and decisions of others (order, actions, forms). Out: programs,
//! maps and links in the kernel, and facts about them. This crate is the only user of libbpf;
//! it takes no decisions of its own beyond [`pointsman_fuse::layout`].

mod alone;
mod btf;
mod builtin;
mod chain;
pub mod dispatcher;
mod error;
mod host;
mod inspect;
mod kernel;
mod maps;
mod member;
mod messages;
mod object;
pub mod pins;
mod probe;
pub mod sockets;
mod store;
mod testrun;
mod types;
pub mod value;

pub use builtin::{PORTS_OF_INSTANCES, builtin, instance_filter, instance_program, xsk_redirect};
pub use chain::{Chain, Counters, PROGRAM_NAME, Slot};
pub use error::Error;
pub use host::{Places, host_facts};
pub use inspect::{GlobalReport, ObjectReport, ProgramReport, inspect_object};
pub use kernel::{Link, LinkInfo, ProgramInfo, program_by_id};
pub use maps::MapHome;
pub use member::Member;
pub use object::Object;
pub use probe::{Probe, interface_index, kernel_release, libbpf_version, probe, release_at_least};
pub use store::{ChainMember, HookCounts, Store};
pub use testrun::{TestRun, live_frames, test_run};
pub use types::Suggestion;
