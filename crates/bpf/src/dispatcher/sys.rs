//! Thin calls: what the kernel tells of programs, maps and links, and links of freplace.

use super::recognise::SeenMap;
use crate::error::Error;
use crate::kernel::{done, owned};
use libbpf_rs::btf::TypeId;
use libbpf_rs::btf::types::{Array, DataSec, Func, Ptr, Var};
use libbpf_rs::{Btf, MapCore as _, MapFlags, MapHandle, ReferencesType as _};
use libbpf_sys as sys;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

/// What the kernel tells of a program.
#[derive(Debug, Clone)]
pub(super) struct Details {
    pub(super) id: u32,
    pub(super) kind: sys::bpf_prog_type,
    pub(super) name: String,
    pub(super) tag: [u8; 8],
    /// Nanoseconds since boot.
    pub(super) loaded_at: u64,
    pub(super) types: u32,
    pub(super) maps: Vec<u32>,
    pub(super) runs: u64,
    pub(super) run_nanoseconds: u64,
}

/// Asks the kernel about a program.
pub(super) fn details(program: BorrowedFd<'_>) -> Result<Details, Error> {
    /// A program refers to at most so many (`MAX_USED_MAPS`).
    const MAPS: usize = 64;
    let mut maps = [0u32; MAPS];
    let mut info = sys::bpf_prog_info {
        nr_map_ids: MAPS as u32,
        map_ids: maps.as_mut_ptr() as u64,
        ..Default::default()
    };
    let mut size = size_of::<sys::bpf_prog_info>() as u32;
    // SAFETY: the kernel writes at most `size` bytes into the structure, and at most `nr_map_ids`
    // numbers where `map_ids` says: both live in this frame.
    done(unsafe {
        sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut size)
    })
    .map_err(|e| Error::os("ask for a program's info", e))?;
    let name = info.name.iter().map(|&c| c.cast_unsigned()).take_while(|&c| c != 0).collect();
    let count = (info.nr_map_ids as usize).min(MAPS);
    Ok(Details {
        id: info.id,
        kind: info.type_,
        name: String::from_utf8(name).unwrap_or_default(),
        tag: info.tag,
        loaded_at: info.load_time,
        types: info.btf_id,
        maps: maps[..count].to_vec(),
        runs: info.run_cnt,
        run_nanoseconds: info.run_time_ns,
    })
}

/// Opens a program by the kernel's id.
pub(super) fn open_program(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    owned(unsafe { sys::bpf_prog_get_fd_by_id(id) })
}

/// Reads the first value of a map.
pub(super) fn seen_map(id: u32) -> Result<SeenMap, Error> {
    let failed = |e: libbpf_rs::Error| Error::Map { map: format!("{id}"), why: e.to_string() };
    let map = MapHandle::from_map_id(id).map_err(failed)?;
    let info = map.info().map_err(failed)?.info;
    let key = vec![0; info.key_size as usize];
    let value = map.lookup(&key, MapFlags::ANY).map_err(failed)?.unwrap_or_default();
    let (key_size, max_entries, flags) = (info.key_size, info.max_entries, info.map_flags);
    Ok(SeenMap { key_size, max_entries, flags, value })
}

/// The type information of a loaded program; `None`: it has none, or none that can be read.
pub(super) fn types_of(program: u32) -> Option<Btf<'static>> {
    Btf::from_prog_id(program).ok()
}

/// The names of all functions.
pub(super) fn functions(btf: &Btf<'_>) -> Vec<String> {
    let all = (1..=u32::try_from(btf.len()).unwrap_or(u32::MAX)).map(TypeId::from);
    let name = |id| Some(btf.type_by_id::<Func<'_>>(id)?.name()?.to_string_lossy().into_owned());
    all.filter_map(name).collect()
}

/// The version that `variable` says in the section `xdp_metadata`: the length of an array that it
/// points to.
pub(super) fn metadata(btf: &Btf<'_>, variable: &str) -> Option<u32> {
    let section = btf.type_by_name::<DataSec<'_>>("xdp_metadata")?;
    let found = section.iter().find_map(|info| {
        let found = btf.type_by_id::<Var<'_>>(info.ty)?;
        (found.name()? == variable).then_some(found)
    })?;
    let pointer = Ptr::try_from(found.next_type()?).ok()?;
    let array = Array::try_from(pointer.referenced_type()).ok()?;
    u32::try_from(array.capacity()).ok()
}

/// Puts a program of type EXT in place of the function `function` of `target`.
pub(super) fn replace_function(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    function: u32,
) -> io::Result<OwnedFd> {
    let opts = sys::bpf_link_create_opts {
        sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
        target_btf_id: function,
        ..Default::default()
    };
    // SAFETY: the options live for the call. The attach type of freplace is 0.
    owned(unsafe {
        sys::bpf_link_create(program.as_raw_fd(), target.as_raw_fd(), 0, &raw const opts)
    })
}

/// The XDP link that runs `program` on an interface of this thread's network namespace.
pub(super) fn xdp_link(program: u32, interface_index: u32) -> Option<(u32, OwnedFd)> {
    links().find(|(_, link)| link_info(link).is_some_and(|it| it.runs(program, interface_index)))
}

/// Whether any link lets a program replace a function of `program`: every slot that is in use has one.
pub(super) fn is_replaced_in(program: u32) -> bool {
    // One that cannot be looked at may be such a link.
    links().any(|(_, link)| link_info(&link).is_none_or(|it| it.leads_into(program)))
}

/// All links of the kernel, with their ids.
fn links() -> impl Iterator<Item = (u32, OwnedFd)> {
    let mut id = 0;
    std::iter::from_fn(move || {
        loop {
            // SAFETY: the kernel writes one number.
            if unsafe { sys::bpf_link_get_next_id(id, &raw mut id) } < 0 {
                return None;
            }
            // SAFETY: no pointers. One that is gone by now is left out.
            if let Ok(link) = owned(unsafe { sys::bpf_link_get_fd_by_id(id) }) {
                return Some((id, link));
            }
        }
    })
}

/// What the kernel says of a link.
struct LinkInfo(sys::bpf_link_info);

impl LinkInfo {
    fn runs(&self, program: u32, interface_index: u32) -> bool {
        // SAFETY: for XDP links the kernel fills this arm of the union; any bits are a number.
        let interface = || unsafe { self.0.__bindgen_anon_1.xdp.ifindex };
        self.0.type_ == sys::BPF_LINK_TYPE_XDP
            && self.0.prog_id == program
            && interface() == interface_index
    }

    fn leads_into(&self, program: u32) -> bool {
        // SAFETY: for links of functions the kernel fills this arm of the union; any bits are a
        // number.
        let target = || unsafe { self.0.__bindgen_anon_1.tracing.target_obj_id };
        self.0.type_ == sys::BPF_LINK_TYPE_TRACING && target() == program
    }
}

fn link_info(link: &OwnedFd) -> Option<LinkInfo> {
    let mut info = sys::bpf_link_info::default();
    let mut size = size_of::<sys::bpf_link_info>() as u32;
    let target = (&raw mut info).cast::<c_void>();
    // SAFETY: the kernel writes at most `size` bytes into the structure.
    done(unsafe { sys::bpf_obj_get_info_by_fd(link.as_raw_fd(), target, &raw mut size) }).ok()?;
    Some(LinkInfo(info))
}

/// Ends a link, whoever else holds it.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    done(unsafe { sys::bpf_link_detach(link.as_raw_fd()) })
}
