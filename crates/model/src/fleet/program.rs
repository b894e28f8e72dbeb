//! The fleet's library of programs.

use crate::{ActionSet, ProgramName, Sha256};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An uploaded object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LibraryProgram {
    /// Its name in the library.
    #[schema(value_type = String)]
    pub name: ProgramName,
    /// Rises with every upload; the resource's entity tag.
    pub revision: u64,
    /// The hash of the object.
    #[schema(value_type = String)]
    pub sha256: Sha256,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was uploaded, in milliseconds since the Unix epoch.
    pub uploaded_unix_ms: u64,
    /// Who uploaded it: the name of a token.
    pub uploaded_by: String,
    /// What it holds.
    pub summary: ObjectSummary,
}

/// What an ELF object holds, as `pointsman inspect --json` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectSummary {
    /// The declared licence.
    pub licence: String,
    /// Whether it carries BTF: globals and maps are typed by it.
    pub has_btf: bool,
    /// Its programs.
    pub programs: Vec<ObjectProgram>,
    /// Its maps, without those that hold globals.
    pub maps: Vec<ObjectMap>,
    /// Its global variables.
    pub globals: Vec<ObjectGlobal>,
}

/// A program of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectProgram {
    /// The function's name: what a policy calls `entry`.
    pub name: String,
    /// Its section.
    pub section: String,
    /// `xdp`, `unspecified` (can be used as XDP), or libbpf's name of another type.
    pub kind: String,
    /// The priority that its author suggests with `XDP_RUN_CONFIG`. Fills a form, decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggested_priority: Option<u32>,
    /// The actions that its author suggests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggested_actions: Option<ActionSet>,
}

/// A map of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectMap {
    /// Its name.
    pub name: String,
    /// Its type, such as `hash`.
    pub kind: String,
    /// How many entries it takes.
    pub max_entries: u32,
}

/// A global variable of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectGlobal {
    /// Its name.
    pub name: String,
    /// Its type as an error message would name it.
    pub kind: String,
    /// The section: `.rodata` is fixed once loaded.
    pub section: String,
    /// Its size in bytes.
    pub size: usize,
}
