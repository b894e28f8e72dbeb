//! What will not work, or not as one would think, said before it is done.

use crate::{HookId, ProgramName};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// The most instructions that the verifier walks through for one program
/// (`BPF_COMPLEXITY_LIMIT_INSNS`, include/linux/bpf.h). A fused chain is one program.
pub const VERIFIER_LIMIT: u32 = 1_000_000;

/// Something about a hook that the operator should know before a plan is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Warning {
    /// What it is about.
    pub kind: PreflightKind,
    /// How bad it is.
    pub severity: Severity,
    /// The hook.
    pub hook: HookId,
    /// The program that decides it, where one does.
    pub program: Option<ProgramName>,
    /// One line: what there is, what follows, and what to do.
    pub message: String,
}

/// What a warning is about. Stable: scripts may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreflightKind {
    /// Packets can be larger than one buffer, and the chain takes one buffer a packet.
    MtuTooLarge,
    /// The card merges packets (LRO, GRO-HW).
    ReceiveMerging,
    /// The card takes VLAN tags out of packets.
    VlanStripped,
    /// There are too few queues for what XDP needs.
    Queues,
    /// The interface cannot do what the chain does.
    FeatureMissing,
    /// Packets are lost for a moment while the step is carried out.
    Disruptive,
    /// The chain takes much of what the verifier allows.
    VerifierBudget,
}

impl PreflightKind {
    /// Whether it is about a step, and over once the step is done.
    #[must_use]
    pub fn is_about_the_change(self) -> bool {
        self == Self::Disruptive
    }
}

impl fmt::Display for PreflightKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MtuTooLarge => "MTU too large",
            Self::ReceiveMerging => "receive merging",
            Self::VlanStripped => "VLAN tags stripped",
            Self::Queues => "queues",
            Self::FeatureMissing => "feature missing",
            Self::Disruptive => "disruptive",
            Self::VerifierBudget => "verifier budget",
        })
    }
}

/// How bad it is, from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The kernel or the driver will refuse the step.
    Failure,
    /// It may be refused, lose packets, or work with less.
    Warning,
    /// Works, but perhaps not as one would think.
    Info,
}

/// What a chain takes of what the verifier allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifierBudget {
    /// The hook.
    pub hook: HookId,
    /// The instructions that the verifier walked for the members, each alone. A chain is verified
    /// as a whole: chains of the built-in programs take between 0.99 and 1.5 times as much.
    pub processed: u64,
    /// The most it walks.
    pub limit: u32,
    /// The members in the order they run.
    pub members: Vec<MemberBudget>,
}

/// What one member takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberBudget {
    /// The member.
    pub program: ProgramName,
    /// The instructions that the verifier walked for it alone.
    pub processed: u32,
}
