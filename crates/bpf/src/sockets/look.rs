//! What an AF_XDP socket is bound to.
//!
//! The kernel takes any such socket into a map, and later drops without a word what comes from
//! another interface or queue than the socket's own (`xsk_rcv_check`, net/xdp/xsk.c). So whoever
//! puts a socket into a map for somebody else looks first. `bpf/xsk_look.c` says how.

use crate::error::Error;
use crate::kernel::owned;
use crate::messages;
use crate::object::Object;
use libbpf_sys as sys;
use std::io::Read as _;
use std::mem::size_of;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// Looks at the AF_XDP sockets that this process has open.
#[derive(Debug)]
pub struct Looker {
    /// The program goes with it.
    link: OwnedFd,
}

/// What there is behind a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No AF_XDP socket.
    NoSocket,
    /// One that was never bound, or whose interface is gone.
    Unbound,
    /// One that is bound.
    Bound(Bound),
}

/// What a socket is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The kernel's number of the interface, in the interface's network namespace.
    pub index: u32,
    /// The queue.
    pub queue: u32,
    /// The inode of that namespace, as `/proc/PID/ns/net` has it.
    pub namespace: u64,
}

/// `struct record` of the program: five numbers of four bytes.
const RECORD: usize = 20;
/// `BOUND` of its `state`.
const BOUND: u32 = 1;
/// More than all records that a process can have open descriptors for (`fs.nr_open`).
const MOST: u64 = (1 << 20) * RECORD as u64;

impl Looker {
    /// Loads the program.
    ///
    /// # Errors
    /// This kernel cannot tell: it has no BTF, or is older than Linux 6.1.
    pub fn new() -> Result<Self, Error> {
        let what = "have the kernel tell what AF_XDP sockets are bound to";
        let object = Object::open(include_bytes!(concat!(env!("OUT_DIR"), "/xsk_look.o")))?;
        // SAFETY: the object is open.
        let (code, said) = messages::capture(|| unsafe { sys::bpf_object__load(object.as_ptr()) });
        if code < 0 {
            let message = said.unwrap_or_else(|| Error::code(what, code).to_string());
            return Err(Error::Prepare { message });
        }
        let programs = object.programs();
        let program = programs.first().map(|program| program.as_ptr());
        // SAFETY: the object is open and loaded; libbpf answers an error for no program.
        let program = unsafe { sys::bpf_program__fd(program.unwrap_or(std::ptr::null_mut())) };
        let mut info = sys::bpf_iter_link_info::default();
        info.task.pid = std::process::id();
        let mut opts = sys::bpf_link_create_opts {
            sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
            iter_info: &raw mut info,
            iter_info_len: size_of::<sys::bpf_iter_link_info>() as u32,
            ..Default::default()
        };
        // SAFETY: the options, and what they point to, live for the call.
        let link = unsafe { sys::bpf_link_create(program, 0, sys::BPF_TRACE_ITER, &raw mut opts) };
        Ok(Self { link: owned(link).map_err(|e| Error::os(what, e))? })
    }

    /// Looks at one descriptor of this process.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn look(&self, socket: BorrowedFd<'_>) -> Result<Found, Error> {
        let failed = |error| Error::os("look at the AF_XDP sockets of this process", error);
        // SAFETY: no pointers; the descriptor is open.
        let list = unsafe { sys::bpf_iter_create(self.link.as_fd().as_raw_fd()) };
        let list = std::fs::File::from(owned(list).map_err(failed)?);
        let mut records = Vec::new();
        list.take(MOST).read_to_end(&mut records).map_err(failed)?;
        let descriptor = u32::try_from(socket.as_raw_fd()).unwrap_or(u32::MAX);
        find(&records, descriptor)
    }
}

/// What the records say of a descriptor.
fn find(records: &[u8], descriptor: u32) -> Result<Found, Error> {
    let mut rest = records;
    while let Some((record, behind)) = rest.split_first_chunk::<RECORD>() {
        rest = behind;
        let mut numbers = [0; RECORD / 4];
        for (number, bytes) in numbers.iter_mut().zip(record.as_chunks().0) {
            *number = u32::from_ne_bytes(*bytes);
        }
        let [of, state, index, queue, namespace] = numbers;
        if of == descriptor {
            let bound = Bound { index, queue, namespace: namespace.into() };
            return Ok(match (state, index) {
                (BOUND, 1..) => Found::Bound(bound),
                _ => Found::Unbound,
            });
        }
    }
    if rest.is_empty() {
        return Ok(Found::NoSocket);
    }
    // What was cut off may have been about this one.
    let why = format!("{} bytes are behind the last whole record", rest.len());
    Err(Error::os("look at the AF_XDP sockets of this process", std::io::Error::other(why)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(numbers: [u32; 5]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    #[test]
    fn a_descriptor_is_found_among_others() {
        let records = [
            record([3, 1, 7, 2, 99]),
            record([4, 0, 0, 0, 0]),
            record([5, 2, 7, 2, 99]),
            record([6, 1, 0, 2, 0]),
        ];
        let records = records.concat();
        let bound = Bound { index: 7, queue: 2, namespace: 99 };
        assert_eq!(find(&records, 3).unwrap(), Found::Bound(bound));
        // Never bound, its interface gone, and on the way out.
        for descriptor in [4, 5, 6] {
            assert_eq!(find(&records, descriptor).unwrap(), Found::Unbound);
        }
        assert_eq!(find(&records, 7).unwrap(), Found::NoSocket);
        assert_eq!(find(&[], 3).unwrap(), Found::NoSocket);
    }

    #[test]
    fn what_is_cut_off_is_never_taken_for_nothing() {
        let records = [record([3, 1, 7, 2, 99]), record([4, 1, 8, 3, 99])].concat();
        for cut in 0..records.len() {
            let (first, second) = (find(&records[..cut], 3), find(&records[..cut], 4));
            assert_eq!(first.is_ok(), cut == 0 || cut >= RECORD, "{cut}: {first:?}");
            assert_eq!(second.is_ok(), cut % RECORD == 0, "{cut}: {second:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200), of: u32) {
            let found = find(&bytes, of);
            if let Ok(Found::Bound(bound)) = found {
                prop_assert!(bound.index > 0);
            }
        }
    }
}
