//! Running a program on a packet of one's own (`BPF_PROG_TEST_RUN`).

use crate::error::Error;
use libbpf_sys as sys;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// What a program did with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRun {
    /// Its verdict.
    pub verdict: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// The kernel's own measure, in whole nanoseconds a run.
    pub nanoseconds: u32,
}

/// Runs `program` on `packet`, `repeat` times, as if it had come in on `interface_index` (0: the
/// loopback interface of this network namespace).
///
/// # Errors
/// The kernel's answer: it wants at least 14 bytes.
pub fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    repeat: u32,
    interface_index: u32,
) -> Result<TestRun, Error> {
    // Room for what adjust_head and adjust_tail may add.
    let mut out = vec![0u8; packet.len() + 4096];
    let (length, context) = arriving(packet, interface_index);
    let mut opts = sys::bpf_test_run_opts {
        sz: size_of::<sys::bpf_test_run_opts>() as sys::size_t,
        data_in: packet.as_ptr().cast(),
        data_size_in: length,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: u32::try_from(out.len()).unwrap_or(u32::MAX),
        repeat: i32::try_from(repeat).unwrap_or(i32::MAX),
        ..Default::default()
    };
    if interface_index != 0 {
        opts.ctx_in = (&raw const context).cast();
        opts.ctx_size_in = size_of::<sys::xdp_md>() as u32;
    }
    // SAFETY: all buffers outlive the call and have the lengths given.
    let code = unsafe { sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut opts) };
    if code < 0 {
        let error = io::Error::from_raw_os_error(-code);
        return Err(Error::os(format!("run a program on a packet of {length} bytes"), error));
    }
    out.truncate(opts.data_size_out as usize);
    Ok(TestRun { verdict: opts.retval, packet: out, nanoseconds: opts.duration })
}

/// The packet's length, and the context of a packet that comes in on `interface_index`.
fn arriving(packet: &[u8], interface_index: u32) -> (u32, sys::xdp_md) {
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    let context =
        sys::xdp_md { data_end: length, ingress_ifindex: interface_index, ..Default::default() };
    (length, context)
}

/// Sends `packet` through `program` `count` times as real frames that come in on
/// `interface_index`: what the program answers is done (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18).
///
/// # Errors
/// The kernel's answer.
pub fn live_frames(
    program: BorrowedFd<'_>,
    packet: &[u8],
    count: u32,
    interface_index: u32,
) -> Result<(), Error> {
    let (length, context) = arriving(packet, interface_index);
    let mut opts = sys::bpf_test_run_opts {
        sz: size_of::<sys::bpf_test_run_opts>() as sys::size_t,
        data_in: packet.as_ptr().cast(),
        data_size_in: length,
        ctx_in: (&raw const context).cast(),
        ctx_size_in: size_of::<sys::xdp_md>() as u32,
        repeat: i32::try_from(count).unwrap_or(i32::MAX),
        flags: sys::BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: 64,
        ..Default::default()
    };
    // SAFETY: packet and context outlive the call and have the lengths given.
    let code = unsafe { sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut opts) };
    if code < 0 {
        return Err(Error::code(format!("send {count} live frames"), code));
    }
    Ok(())
}
