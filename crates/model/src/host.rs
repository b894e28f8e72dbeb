//! What a host can do, beyond its interfaces: facts, found out by trying. What follows from them
//! is said elsewhere.

use std::path::PathBuf;

/// What was found out about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The kernel's release.
    pub kernel: String,
    /// What loading programs told; else why none loads.
    pub loads: Result<Loads, String>,
    /// Where the pins go.
    pub bpffs: Mount,
    /// What `net.core.bpf_jit_enable` says; `None`: it cannot be read, as in a network namespace.
    pub jit_setting: Option<u32>,
    /// Where the kernel's type information (BTF) is looked for.
    pub btf: PathBuf,
    /// Whether it is there.
    pub has_btf: bool,
    /// Whether programs can replace functions of others, as dispatchers need it; else why not.
    pub freplace: Result<(), String>,
    /// How far the kernel is locked down, such as `integrity`; `None`: it does not say.
    pub lockdown: Option<String>,
    /// Whether programs attach to TC by links (TCX); else what the kernel answered.
    pub tcx: Result<(), String>,
    /// The libxdp that is installed; `None`: there is none of a known version.
    pub libxdp: Option<Libxdp>,
    /// The version of the protocol that new dispatchers have.
    pub dispatcher_version: u8,
}

/// What loading small programs told of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loads {
    /// Whether programs become machine code.
    pub jited: bool,
    /// In steps of how many bytes the verifier counts stack frames.
    pub stack_step: u32,
    /// Whether the kernel tells which interfaces have native XDP (6.3 and later).
    pub tells_features: bool,
}

/// A directory that should be on a BPF filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The directory, or the nearest one above that exists.
    pub path: PathBuf,
    /// Whether it is; else why that cannot be told.
    pub is_bpffs: Result<bool, String>,
}

/// An installed libxdp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Libxdp {
    /// The file that its version was read from.
    pub file: PathBuf,
    /// The version of the dispatcher protocol that it speaks.
    pub version: u8,
}
