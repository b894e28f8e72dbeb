//! The nouns of Pointsman.
//!
//! In: bytes of a node document ([`document::Document::parse`]), facts about programs and kernel
//! objects gathered elsewhere. Out: values that cannot be wrong, shared by the planner, the kernel
//! side, the daemon and the command line. No I/O, no unsafe code, no async.
#![forbid(unsafe_code)]

pub mod action;
pub mod api;
pub mod chain;
pub mod cpu;
pub mod deadline;
pub mod document;
pub mod event;
pub mod facts;
pub mod fleet;
pub mod flow;
pub mod glass;
pub mod host;
pub mod ids;
pub mod lease;
pub mod nic;
pub mod observed;
pub mod plan;
pub mod preflight;
pub mod status;

pub use action::{Action, ActionSet, Verdicts};
pub use document::Document;
pub use ids::{
    EntryName, Fingerprint, FleetName, HookId, InterfaceId, InterfaceName, LabelKey, LabelValue,
    MapName, NamespaceName, NodeName, PolicyName, ProgramName, Sha256, TokenName,
};
