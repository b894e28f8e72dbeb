//! What is attached to an interface, and attaching over route netlink. Thin.
//!
//! Only this way: a program attached by a BPF link is one that libxdp can list, and not change.
//!
//! What a driver can do with XDP is a question for `pointsman_netdev`, which looks at interfaces as a
//! whole and at the one program that runs. Here it has to be known of one interface which programs
//! run, in the driver and on the card, and this crate depends on no netlink library, so that it can
//! be used alone: libbpf, which attaches, is asked.

use crate::error::Error;
use crate::kernel::done;
use libbpf_sys as sys;
use pointsman_model::observed::AttachMode;
use std::ffi::c_int;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

/// What is attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// The kernel's id of the program in the driver or, without one, behind the socket buffer.
    pub software: Option<(u32, AttachMode)>,
    /// The kernel's id of the program on the network card.
    pub offloaded: Option<u32>,
}

/// Asks what is attached to an interface of this thread's network namespace.
///
/// # Errors
/// The kernel's answer, such as that there is no such interface.
pub fn hook(interface_index: u32) -> Result<Hook, Error> {
    let mut opts = sys::bpf_xdp_query_opts {
        // Of this length libbpf does not ask for the driver's features as well, which
        // `pointsman_netdev` does.
        sz: offset_of!(sys::bpf_xdp_query_opts, feature_flags) as sys::size_t,
        ..Default::default()
    };
    // SAFETY: the options live for the call and say how much of them is used.
    let code = unsafe { sys::bpf_xdp_query(index(interface_index), 0, &raw mut opts) };
    done(code).map_err(|e| {
        Error::os(format!("ask what is attached to interface {interface_index}"), e)
    })?;
    let software = match (opts.drv_prog_id, opts.skb_prog_id) {
        (0, 0) => None,
        (0, skb) => Some((skb, AttachMode::Skb)),
        (driver, _) => Some((driver, AttachMode::Native)),
    };
    Ok(Hook { software, offloaded: (opts.hw_prog_id != 0).then_some(opts.hw_prog_id) })
}

/// Attaches `program`: in place of `expected`, and only of that, or where nothing is.
pub(super) fn attach(
    interface_index: u32,
    program: BorrowedFd<'_>,
    mode: AttachMode,
    expected: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    // Both flags together are an error: what exists cannot be replaced if it must not exist.
    let condition = match expected {
        Some(_) => sys::XDP_FLAGS_REPLACE,
        None => sys::XDP_FLAGS_UPDATE_IF_NOEXIST,
    };
    let opts = instead_of(expected);
    // SAFETY: the options live for the call.
    done(unsafe {
        sys::bpf_xdp_attach(
            index(interface_index),
            program.as_raw_fd(),
            condition | flag(mode),
            &raw const opts,
        )
    })
}

/// Takes `expected` off the interface, and only that.
pub(super) fn detach(
    interface_index: u32,
    mode: AttachMode,
    expected: BorrowedFd<'_>,
) -> io::Result<()> {
    let opts = instead_of(Some(expected));
    let flags = flag(mode) | sys::XDP_FLAGS_REPLACE;
    // SAFETY: the options live for the call.
    done(unsafe { sys::bpf_xdp_detach(index(interface_index), flags, &raw const opts) })
}

/// Attaches a program by itself, without a dispatcher, where nothing is attached.
///
/// # Errors
/// The kernel's answer: `EBUSY` where a program is attached.
pub fn attach_alone(
    interface_index: u32,
    program: BorrowedFd<'_>,
    mode: AttachMode,
) -> io::Result<()> {
    attach(interface_index, program, mode, None)
}

/// Takes the program with the kernel's id `program` off an interface, and only that one: what
/// runs without a dispatcher.
///
/// # Errors
/// The kernel's answer: `EEXIST` where another program is attached, `EBUSY` where a BPF link holds
/// it.
pub fn detach_alone(interface_index: u32, program: u32, mode: AttachMode) -> io::Result<()> {
    detach(interface_index, mode, super::sys::open_program(program)?.as_fd())
}

fn instead_of(expected: Option<BorrowedFd<'_>>) -> sys::bpf_xdp_attach_opts {
    sys::bpf_xdp_attach_opts {
        sz: size_of::<sys::bpf_xdp_attach_opts>() as sys::size_t,
        old_prog_fd: expected.map_or(0, |fd| fd.as_raw_fd()),
        ..Default::default()
    }
}

fn flag(mode: AttachMode) -> u32 {
    match mode {
        AttachMode::Native => sys::XDP_FLAGS_DRV_MODE,
        AttachMode::Skb => sys::XDP_FLAGS_SKB_MODE,
        AttachMode::Offload => sys::XDP_FLAGS_HW_MODE,
    }
}

fn index(interface_index: u32) -> c_int {
    // No interface has a number that large: the kernel answers that there is none.
    c_int::try_from(interface_index).unwrap_or(c_int::MAX)
}
