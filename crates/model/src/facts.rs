//! What is known of a program before it joins a chain, from opening it and loading it alone.

use crate::{EntryName, MapName, Sha256};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Facts about one program with its globals set, as the kernel's verifier saw it alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgramFacts {
    /// The function it starts at.
    pub entry: EntryName,
    /// The kernel's tag: 16 hexadecimal digits.
    pub tag: String,
    /// Instructions of the main function.
    pub main_instructions: u32,
    /// Instructions of main function and subprograms.
    pub instructions: u32,
    /// Instructions the verifier walked; the kernel's limit is one million a program.
    pub verified_instructions: u32,
    /// Stack use of the main function's own frame, in bytes.
    pub main_stack: u32,
    /// Stack use of the deepest path of calls below the main function, in bytes, each frame
    /// rounded as this kernel does, without the main function's own frame.
    pub called_stack: u32,
    /// Whether the main function tail-calls: it cannot be inlined then.
    pub tail_calls: bool,
    /// Where a subprogram tail-calls: bytes of the frames between the main function's and the
    /// deepest such subprogram's own, rounded likewise.
    pub tail_call_depth: Option<u32>,
    /// Whether it takes packets of several buffers (`xdp.frags`).
    pub frags: bool,
    /// Whether it calls a helper that redirects packets.
    pub redirects: bool,
    /// Whether its licence is GPL-compatible by the kernel's list.
    pub gpl_compatible: bool,
    /// Whether it calls what the kernel gives to GPL-compatible programs only.
    pub needs_gpl: bool,
    /// What it may do to packets or shared state, which observing cannot undo.
    pub side_effects: Vec<SideEffect>,
    /// The maps of its object.
    pub maps: Vec<MapFacts>,
    /// How many maps its instructions refer to; the kernel's limit is 64 a program.
    pub used_maps: u32,
    /// Why it cannot be fused at all, if so.
    pub unfusable: Option<String>,
}

impl ProgramFacts {
    /// Whether it tail-calls anywhere: it is called in a chain then, and cannot be in a slot of a
    /// dispatcher. There its program array would have to be one of programs of type EXT, and it is
    /// one of XDP programs (Linux 6.18, commit 4540aed51b12, and stable kernels from 6.1 on).
    #[must_use]
    pub fn has_tail_call(&self) -> bool {
        self.tail_calls || self.tail_call_depth.is_some()
    }
}

/// Something a program does besides giving a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SideEffect {
    /// Stores through pointers other than its stack: into packets or map values (which of the
    /// two only the verifier knows).
    WritesPacket,
    /// Moves the packet's head, tail or metadata.
    ResizesPacket,
    /// Adds, changes or removes map entries.
    WritesMaps,
}

impl std::fmt::Display for SideEffect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::WritesPacket => "writes packets or map values",
            Self::ResizesPacket => "resizes packets",
            Self::WritesMaps => "changes map entries",
        })
    }
}

/// One map of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MapFacts {
    /// Its name in the object.
    pub name: MapName,
    /// What kind of map it is.
    #[serde(flatten)]
    pub definition: MapDefinition,
    /// What it holds when it is made.
    #[serde(default)]
    pub initial: InitialContents,
}

/// A map as the object defines it, before libbpf and the kernel fill in what it leaves open. What
/// one map holds can be read as another's contents if their definitions are equal and tell the
/// types.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MapDefinition {
    /// The kernel's name of its type, such as `lru_hash`.
    pub kind: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// The most entries it can hold; 0: left open for the loader.
    pub max_entries: u32,
    /// `BPF_F_*` of `linux/bpf.h`.
    pub flags: u32,
    /// `map_extra` of `linux/bpf.h`; what it means depends on the type.
    pub extra: u64,
    /// The type of a key by BTF as canonical text: equal texts, equal types. `None`: not known.
    pub key: Option<String>,
    /// The type of a value, likewise.
    pub value: Option<String>,
    /// Whether values hold timers or work queues, which call a program back.
    pub callbacks: bool,
    /// The definition of the maps in a map of maps.
    #[schema(no_recursion)]
    pub inner: Option<Box<MapDefinition>>,
}

/// What a map holds when it is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InitialContents {
    /// Nothing, or zeros.
    #[default]
    Nothing,
    /// Programs or maps that the object names: its code refers to them by their place.
    Slots,
    /// Variables (`.data`, `.bss`). The hash is of their first values.
    Variables(Sha256),
    /// Constants (`.rodata`, `.kconfig`).
    Constants,
}

/// Whether a section of variables has a name of its author's (`.data.ports`), beside the ones that
/// all variables of an object share (`.data`, `.bss`).
#[must_use]
pub fn is_named_section(map: &str) -> bool {
    [".data.", ".bss."].iter().any(|start| map.starts_with(start))
}

/// Why a program cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgramProblem {
    /// One line that names the thing and says what to do.
    pub message: String,
    /// The verifier's log, with the program's source lines, when it was the verifier.
    pub log: Option<String>,
}
