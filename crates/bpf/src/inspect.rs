//! What an object holds, told without loading anything and without privileges.

use crate::error::Error;
use crate::maps;
use crate::object::Object;
use crate::types::{self, Suggestion};
use libbpf_sys as sys;
use pointsman_model::Sha256;
use pointsman_model::facts::MapFacts;
use serde::Serialize;

/// The contents of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectReport {
    /// The hash by which the store knows it.
    pub sha256: Sha256,
    /// The declared licence.
    pub licence: String,
    /// Whether it carries BTF (`clang -g`): globals and maps are typed by it.
    pub has_btf: bool,
    /// Its programs.
    pub programs: Vec<ProgramReport>,
    /// Its maps, without those that hold globals.
    pub maps: Vec<MapFacts>,
    /// Its global variables.
    pub globals: Vec<GlobalReport>,
}

/// A program of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgramReport {
    /// The function's name: what a document calls `entry`.
    pub name: String,
    /// Its section.
    pub section: String,
    /// `xdp`, `unspecified` (can be used as XDP), or libbpf's name of another type.
    pub kind: String,
    /// Instructions before relocation.
    pub instructions: usize,
    /// Whether it takes packets of several buffers.
    pub frags: bool,
    /// What the author suggests. Shown, never applied.
    pub suggestion: Option<Suggestion>,
}

/// A global variable of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GlobalReport {
    /// Its name: a key of `globals` in a document.
    pub name: String,
    /// Its type as an error message would name it.
    pub kind: String,
    /// The section: `.rodata` is fixed once loaded.
    pub section: String,
    /// Its size in bytes.
    pub size: usize,
}

/// Looks into an object.
///
/// # Errors
/// The bytes are no BPF object, or libbpf cannot open it.
pub fn inspect_object(bytes: &[u8]) -> Result<ObjectReport, Error> {
    let object = Object::open(bytes)?;
    let programs = object.programs().into_iter().map(|program| ProgramReport {
        suggestion: object.suggestion(&program.name()),
        name: program.name(),
        section: program.section(),
        kind: program_kind(program.kind()),
        instructions: program.instructions(),
        frags: program.frags(),
    });
    let mut maps = maps::facts(&object);
    let internal: Vec<_> = object.maps().into_iter().filter(|map| map.is_internal()).collect();
    maps.retain(|map| !internal.iter().any(|other| other.name() == map.name.as_str()));
    let btf = object.btf();
    let globals = object.variables().into_iter().map(|(_, variable)| GlobalReport {
        kind: btf
            .as_ref()
            .map_or_else(String::new, |btf| types::layout(btf, variable.ty).to_string()),
        name: variable.name,
        section: variable.section,
        size: variable.size,
    });
    Ok(ObjectReport {
        sha256: Sha256::of(bytes),
        licence: object.licence().to_owned(),
        has_btf: btf.is_some(),
        programs: programs.collect(),
        maps,
        globals: globals.collect(),
    })
}

fn program_kind(kind: sys::bpf_prog_type) -> String {
    if kind == sys::BPF_PROG_TYPE_UNSPEC {
        return "unspecified".into();
    }
    // SAFETY: libbpf answers null or a string that lives for ever.
    let name = unsafe { crate::object::text(sys::libbpf_bpf_prog_type_str(kind)) };
    if name.is_empty() { format!("type {kind}") } else { name }
}
