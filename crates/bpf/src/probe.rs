//! What this kernel can do, found out by trying.

use crate::chain::possible_cpus;
use crate::error::Error;
use crate::kernel::{self, Load, Place};
use crate::pins;
use libbpf_sys as sys;
use pointsman_fuse::insn::Insn;
use pointsman_fuse::layout::StackRounding;
use pointsman_model::api::{Check, Doctor, Health};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

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
        freplace: freplace(),
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

fn freplace() -> Result<(), String> {
    let (code, _) = crate::messages::capture(|| {
        // SAFETY: no options.
        unsafe { sys::libbpf_probe_bpf_prog_type(sys::BPF_PROG_TYPE_EXT, std::ptr::null()) }
    });
    match code {
        1.. => Ok(()),
        _ => Err("the kernel refuses program type EXT".into()),
    }
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

pub(crate) fn release_at_least(major: u32, minor: u32) -> bool {
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

/// Looks at the host, with `bpffs` where the pins would go.
#[must_use]
pub fn doctor(bpffs: &Path) -> Doctor {
    let probed = probe();
    let mut checks = vec![check_privileges(&probed), check_bpffs(bpffs), check_btf()];
    if let Ok(probe) = &probed {
        checks.push(check_jit(probe));
        checks.push(check_freplace(probe));
        checks.push(check_stack(probe));
        checks.push(check_features(probe));
    }
    Doctor { kernel: kernel_release(), checks }
}

fn check(name: &str, health: Health, found: impl Into<String>, consequence: &str) -> Check {
    Check { name: name.into(), health, found: found.into(), consequence: consequence.into() }
}

fn check_privileges(probed: &Result<Probe, Error>) -> Check {
    match probed {
        Ok(_) => check("load programs", Health::Ok, "XDP programs load", "chains can be built"),
        Err(e) => {
            let advice = "run pointsman-node as root; nothing works without this";
            check("load programs", Health::Broken, e.to_string(), advice)
        }
    }
}

fn check_bpffs(root: &Path) -> Check {
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match pins::is_bpffs(existing) {
        Ok(true) => check(
            "BPF filesystem",
            Health::Ok,
            format!("{} is one", existing.display()),
            "chains survive the daemon",
        ),
        Ok(false) => check(
            "BPF filesystem",
            Health::Broken,
            format!("{} is not one", existing.display()),
            "mount -t bpf bpf /sys/fs/bpf, or name a mounted one with --bpffs",
        ),
        Err(e) => check(
            "BPF filesystem",
            Health::Broken,
            format!("{}: {e}", existing.display()),
            "name a directory on a BPF filesystem with --bpffs",
        ),
    }
}

fn check_jit(probe: &Probe) -> Check {
    if probe.jit {
        return check(
            "JIT",
            Health::Ok,
            "programs become machine code",
            "chains run at full speed",
        );
    }
    let consequence = "programs are interpreted and slow: sysctl net.core.bpf_jit_enable=1";
    check("JIT", Health::Limited, "programs stay bytecode", consequence)
}

fn check_btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        let consequence = "programs that adapt to the kernel (CO-RE) load";
        return check("kernel BTF", Health::Ok, path, consequence);
    }
    let consequence = "programs that use CO-RE relocations or kernel functions are refused";
    check("kernel BTF", Health::Limited, format!("no {path}"), consequence)
}

fn check_freplace(probe: &Probe) -> Check {
    match &probe.freplace {
        Ok(()) => {
            check("freplace", Health::Ok, "program type EXT loads", "not used by this version")
        }
        Err(why) => check(
            "freplace",
            Health::Limited,
            format!("{why} (locked down, older than 5.6, or without trampolines)"),
            "chains are fused (the only engine of this version); libxdp's dispatcher cannot run here",
        ),
    }
}

fn check_stack(probe: &Probe) -> Check {
    let (found, consequence) = match probe.stack_rounding {
        StackRounding::To16 => ("frames count in steps of 16 bytes", "512 bytes a call path"),
        StackRounding::To32 => {
            ("frames count in steps of 32 bytes, at least 32", "480 bytes below a chain's frame")
        }
    };
    check("stack", Health::Ok, found, consequence)
}

fn check_features(probe: &Probe) -> Check {
    if probe.tells_features {
        let found = "the kernel tells which interfaces have native XDP";
        return check("xdp-features", Health::Ok, found, "`mode: auto` chooses by it");
    }
    check(
        "xdp-features",
        Health::Limited,
        "the kernel does not tell which interfaces have native XDP (6.3 and later do)",
        "`mode: auto` tries native on all but loopback; set `\"mode\": \"skb\"` where that fails",
    )
}
