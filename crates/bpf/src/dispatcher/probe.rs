//! What this kernel lets a dispatcher do. Asked once a process: libxdp asks again at each change.

use super::build::{Part, build};
use super::config::Version;
use super::error::DispatcherError;
use super::place::passing;
use super::program::Program;
use crate::kernel::{Load, Place};
use crate::messages;
use crate::probe::release_at_least;
use libbpf_sys as sys;
use pointsman_fuse::insn::Insn;
use std::sync::OnceLock;

/// Whether programs can replace functions of others (`BPF_PROG_TYPE_EXT`); else why not.
///
/// # Errors
/// Why not, in words.
pub fn freplace() -> Result<(), String> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    let can = *KNOWN.get_or_init(|| {
        let (code, _) = messages::capture(|| {
            // SAFETY: no options.
            unsafe { sys::libbpf_probe_bpf_prog_type(sys::BPF_PROG_TYPE_EXT, std::ptr::null()) }
        });
        code > 0
    });
    if can { Ok(()) } else { Err("the kernel refuses program type EXT".into()) }
}

/// Builds a dispatcher with two programs in place, which is attached nowhere and gone again with
/// this call: all that the kernel has to allow, tried. Of several it says what it refused.
///
/// # Errors
/// What the kernel refused.
pub fn try_dispatcher() -> Result<(), DispatcherError> {
    let (one, other) = (Program::pass()?, Program::pass()?);
    build(Version::V2, None, &[passing(Part::New(&one)), passing(Part::New(&other))]).map(drop)
}

/// Whether programs can take packets of several buffers (Linux 5.18).
pub(super) fn frags() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let pass = [Insn::mov32_imm(0, 2), Insn::exit()];
        let load = Load {
            name: "pm_probe",
            licence: "GPL",
            instructions: &pass,
            btf: None,
            functions: &[],
            lines: &[],
            frags: true,
            place: Place::Anywhere,
        };
        load.load().is_ok()
    })
}

/// Whether a function must be able to change packets for a program that does to replace it.
///
/// Checked since Linux 6.13 (commit 81f6d0530ba0), and in stable kernels from 6.6 on. Where it is
/// not checked it does no harm.
pub(super) fn functions_must_change_packets() -> bool {
    release_at_least(6, 6)
}
