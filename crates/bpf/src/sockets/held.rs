//! Which queues of a map of owners have one. `bpf/owners_look.c` says why a program looks.

use crate::error::Error;
use crate::kernel::done;
use crate::messages;
use crate::object::{MapRef, Object, ProgramRef};
use crate::sockets::QUEUES;
use crate::testrun::test_run;
use libbpf_sys as sys;
use std::collections::BTreeSet;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `XDP_PASS`: the program saw them all.
const WHOLE: u32 = 2;

/// The queues that have an entry in `owners`.
pub(super) fn held(owners: BorrowedFd<'_>) -> Result<BTreeSet<u32>, Error> {
    let what = "look which queues have an owner";
    let object = Object::open(include_bytes!(concat!(env!("OUT_DIR"), "/owners_look.o")))?;
    let map = object.maps().into_iter().find(|map| map.name() == "owners");
    let map = map.map_or(std::ptr::null_mut(), MapRef::as_ptr);
    // SAFETY: the object is open and not loaded, and the map is its own; libbpf answers an error
    // for none, and holds a descriptor of its own.
    let code = unsafe { sys::bpf_map__reuse_fd(map, owners.as_raw_fd()) };
    done(code).map_err(|e| Error::os(what, e))?;
    // SAFETY: the object is open.
    let (code, said) = messages::capture(|| unsafe { sys::bpf_object__load(object.as_ptr()) });
    if code < 0 {
        let message = said.unwrap_or_else(|| Error::code(what, code).to_string());
        return Err(Error::Prepare { message });
    }
    let programs = object.programs();
    let program = programs.first().copied().map_or(std::ptr::null_mut(), ProgramRef::as_ptr);
    // SAFETY: the object is open and loaded; libbpf answers an error for no program.
    let program = unsafe { sys::bpf_program__fd(program) };
    if program < 0 {
        return Err(Error::code(what, program));
    }
    // SAFETY: the object's descriptors live as long as it does.
    let program = unsafe { BorrowedFd::borrow_raw(program) };
    let run = test_run(program, &[0; QUEUES as usize], 1, 0)?;
    if run.verdict != WHOLE {
        let why = format!("the program answered {}", run.verdict);
        return Err(Error::os(what, std::io::Error::other(why)));
    }
    Ok((0..QUEUES).zip(run.packet).filter(|(_, held)| *held != 0).map(|(queue, _)| queue).collect())
}
