//! What this kernel can do, found out by trying.

use crate::chain::possible_cpus;
use crate::error::Error;
use crate::kernel::{self, Load, Place};
use libbpf_sys as sys;
use pointsman_fuse::insn::Insn;
use pointsman_fuse::layout::StackRounding;
use std::os::fd::{AsFd as _, OwnedFd};

/// What the planner must know of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// How the verifier counts stack frames.
    pub stack_rounding: StackRounding,
    /// Whether programs can replace functions of others (`BPF_PROG_TYPE_EXT`); else why not.
    pub freplace: Result<(), String>,
    /// Whether programs become machine code.
    pub jit: bool,
    /// Whether the kernel tells which interfaces have native XDP (6.3 and later).
    pub tells_features: bool,
    /// Bytes of a memory page.
    pub page_size: u32,
    /// CPUs that there can be.
    pub cpus: u32,
}

/// Tries what the kernel takes.
///
/// # Errors
/// It takes no XDP program at all from this process.
pub fn probe() -> Result<Probe, Error> {
    let trivial = try_load(&[Insn::mov32_imm(0, 2), Insn::exit()]).map_err(|e| {
        Error::os("load an XDP program (this takes root, or CAP_BPF and CAP_NET_ADMIN)", e)
    })?;
    // The main function's 8 bytes count 16 or 32, and its callee needs 496 of the 512.
    let store = |off| Insn { code: 0x7a, dst: 10, src: 0, off, imm: 0 };
    let call = Insn { code: 0x85, dst: 0, src: 1, off: 0, imm: 2 };
    let pass = [Insn::mov32_imm(0, 2), Insn::exit()];
    let program = [store(-8), call, pass[0], pass[1], store(-496), pass[0], pass[1]];
    let stack_rounding = match try_load(&program) {
        Ok(_) => StackRounding::To16,
        Err(_) => StackRounding::To32,
    };
    Ok(Probe {
        stack_rounding,
        freplace: crate::dispatcher::freplace(),
        jit: kernel::program_info(trivial.as_fd())?.jited_bytes > 0,
        tells_features: release_at_least(6, 3),
        page_size: u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX),
        cpus: possible_cpus().map_err(|e| Error::os("count the CPUs", std::io::Error::other(e)))?,
    })
}

fn try_load(instructions: &[Insn]) -> std::io::Result<OwnedFd> {
    let load = Load {
        name: "pm_probe",
        licence: "GPL",
        instructions,
        btf: None,
        functions: &[],
        lines: &[],
        frags: false,
        place: Place::Anywhere,
    };
    load.load().map(|(program, _)| program).map_err(|refused| refused.error)
}

/// The release of libbpf that is built in, such as `1.7`.
#[must_use]
pub fn libbpf_version() -> String {
    // SAFETY: no arguments; constants of the library.
    let (major, minor) = unsafe { (sys::libbpf_major_version(), sys::libbpf_minor_version()) };
    format!("{major}.{minor}")
}

/// The kernel's release, such as `6.1.0-50-amd64`.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Whether the running kernel is of this release or later: for what a kernel does not tell otherwise.
#[must_use]
pub fn release_at_least(major: u32, minor: u32) -> bool {
    let release = kernel_release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// The kernel's number of an interface of this thread's network namespace.
///
/// # Errors
/// There is no such interface.
pub fn interface_index(name: &str) -> std::io::Result<u32> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    Ok(netdevice::name_to_index(&any, name)?)
}
