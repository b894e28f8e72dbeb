//! Objects as libbpf opens them: programs, maps and globals of an ELF file.

use crate::error::Error;
use crate::messages;
use crate::types::{self, Suggestion, Variable};
use crate::value::TypeLayout;
use libbpf_rs::btf::TypeId;
use libbpf_rs::{Btf, MapType};
use libbpf_sys as sys;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::NonNull;

/// The section prefix that says a program takes packets of several buffers.
const FRAGS_SECTION: &str = "xdp.frags";

/// An open object.
#[derive(Debug)]
pub struct Object {
    ptr: NonNull<sys::bpf_object>,
    licence: String,
    /// The maps whose slots the object fills with programs or maps of its own.
    filled: BTreeSet<String>,
}

// SAFETY: a bpf_object has no ties to the thread that opened it, and `Object` is the only owner
// of the pointer: whoever has it is alone with it.
unsafe impl Send for Object {}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the pointer came from bpf_object__open_mem and is closed once, here.
        unsafe { sys::bpf_object__close(self.ptr.as_ptr()) }
    }
}

/// One program of an open object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProgramRef<'o> {
    ptr: NonNull<sys::bpf_program>,
    _object: std::marker::PhantomData<&'o Object>,
}

/// One map of an open object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapRef<'o> {
    ptr: NonNull<sys::bpf_map>,
    _object: std::marker::PhantomData<&'o Object>,
}

impl Object {
    /// Opens the bytes of an ELF object. Nothing reaches the kernel yet.
    ///
    /// # Errors
    /// What the bytes are instead of a BPF object, or libbpf's words.
    pub fn open(bytes: &[u8]) -> Result<Self, Error> {
        Self::open_as(bytes, c"pm")
    }

    /// The same with a name of its own, which shows in the names of the maps that hold globals
    /// ("NAME.rodata").
    pub(crate) fn open_as(bytes: &[u8], name: &CStr) -> Result<Self, Error> {
        check_elf(bytes)?;
        let opts = sys::bpf_object_open_opts {
            sz: size_of::<sys::bpf_object_open_opts>() as sys::size_t,
            object_name: name.as_ptr(),
            // Empty: no BPF token, for which libbpf would ask at every object. Whoever runs this
            // has the capabilities or is refused by the kernel.
            bpf_token_path: c"".as_ptr(),
            ..Default::default()
        };
        let (ptr, said) = messages::capture(|| {
            // SAFETY: buffer and options live for the call; libbpf copies what it keeps.
            unsafe {
                sys::bpf_object__open_mem(
                    bytes.as_ptr().cast(),
                    bytes.len() as sys::size_t,
                    &raw const opts,
                )
            }
        });
        let ptr = NonNull::new(ptr).ok_or_else(|| {
            let os = std::io::Error::last_os_error();
            Error::Open { message: said.unwrap_or_else(|| os.to_string()) }
        })?;
        Ok(Self { ptr, licence: licence(bytes), filled: filled_maps(bytes) })
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::bpf_object {
        self.ptr.as_ptr()
    }

    pub(crate) fn programs(&self) -> Vec<ProgramRef<'_>> {
        let mut programs = Vec::new();
        let mut last = std::ptr::null_mut();
        loop {
            // SAFETY: the object is open, `last` is null or a program of it.
            last = unsafe { sys::bpf_object__next_program(self.as_ptr(), last) };
            match NonNull::new(last) {
                Some(ptr) => programs.push(ProgramRef { ptr, _object: std::marker::PhantomData }),
                None => return programs,
            }
        }
    }

    pub(crate) fn maps(&self) -> Vec<MapRef<'_>> {
        let mut maps = Vec::new();
        let mut last = std::ptr::null_mut();
        loop {
            // SAFETY: the object is open, `last` is null or a map of it.
            last = unsafe { sys::bpf_object__next_map(self.as_ptr(), last) };
            match NonNull::new(last) {
                Some(ptr) => maps.push(MapRef { ptr, _object: std::marker::PhantomData }),
                None => return maps,
            }
        }
    }

    /// Descriptors of the object's maps, for whoever outlives this value.
    pub(crate) fn map_descriptors(&self) -> Result<Vec<OwnedFd>, Error> {
        let mut all = Vec::new();
        for map in self.maps() {
            // SAFETY: the object is open; without a map in the kernel libbpf answers an error.
            let fd = unsafe { sys::bpf_map__fd(map.as_ptr()) };
            if fd >= 0 {
                // SAFETY: the object's descriptors live as long as it does.
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                let own = fd.try_clone_to_owned();
                all.push(own.map_err(|e| Error::os(format!("hold map {:?}", map.name()), e))?);
            }
        }
        Ok(all)
    }

    /// The object's type information; `None` where it was built without `-g`.
    pub(crate) fn btf(&self) -> Option<Btf<'_>> {
        // SAFETY: the object is open for as long as the borrow lasts.
        let object = unsafe { self.ptr.as_ref() };
        Btf::from_bpf_object(object).ok().flatten()
    }

    /// The declared licence; empty where the object declares none.
    #[must_use]
    pub fn licence(&self) -> &str {
        &self.licence
    }

    /// Whether the object fills slots of `map` with programs or maps of its own.
    pub(crate) fn fills(&self, map: MapRef<'_>) -> bool {
        self.filled.contains(&map.name())
    }

    /// What the author suggests for `entry`.
    #[must_use]
    pub fn suggestion(&self, entry: &str) -> Option<Suggestion> {
        types::suggestion(&self.btf()?, entry)
    }

    /// Chooses the program to run: the named one, or the only XDP program.
    pub(crate) fn select(&self, entry: Option<&str>) -> Result<ProgramRef<'_>, Error> {
        let programs = self.programs();
        let names = |list: &[ProgramRef<'_>]| {
            let names: Vec<_> =
                list.iter().map(|p| format!("{} ({})", p.name(), p.section())).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let chosen = match entry {
            Some(wanted) => *programs.iter().find(|p| p.name() == wanted).ok_or_else(|| {
                Error::NoSuchEntry { wanted: wanted.to_owned(), available: names(&programs) }
            })?,
            None => {
                let of_kind = |kind| -> Vec<ProgramRef<'_>> {
                    programs.iter().copied().filter(|p| p.kind() == kind).collect()
                };
                let mut candidates = of_kind(sys::BPF_PROG_TYPE_XDP);
                if candidates.is_empty() {
                    candidates = of_kind(sys::BPF_PROG_TYPE_UNSPEC);
                }
                match candidates.as_slice() {
                    [only] => *only,
                    [] => {
                        let wanted = "an XDP program".to_owned();
                        return Err(Error::NoSuchEntry { wanted, available: names(&programs) });
                    }
                    several => return Err(Error::AmbiguousEntry { available: names(several) }),
                }
            }
        };
        let kind = chosen.kind();
        // "xdp/devmap" and "xdp/cpumap" programs are XDP by type and run elsewhere.
        let elsewhere = ["xdp/devmap", "xdp/cpumap", "xdp.frags/devmap", "xdp.frags/cpumap"];
        let known = kind == sys::BPF_PROG_TYPE_XDP || kind == sys::BPF_PROG_TYPE_UNSPEC;
        if !known || elsewhere.contains(&chosen.section().as_str()) {
            return Err(Error::NotXdp { entry: chosen.name(), section: chosen.section() });
        }
        Ok(chosen)
    }

    /// All global variables that can be set: of every data section but the kernel's own.
    pub(crate) fn variables(&self) -> Vec<(MapRef<'_>, Variable)> {
        let Some(btf) = self.btf() else { return Vec::new() };
        let mut all = Vec::new();
        for map in self.maps().into_iter().filter(|map| map.is_internal()) {
            let variables = types::variables(&btf, map.value_type());
            all.extend(variables.into_iter().filter(|v| v.section != ".kconfig").map(|v| (map, v)));
        }
        all
    }

    /// Sets global variables. Before anything is loaded.
    ///
    /// # Errors
    /// A variable that does not exist, or a value that does not fit it.
    pub fn set_globals(&mut self, globals: &BTreeMap<String, Value>) -> Result<(), Error> {
        if globals.is_empty() {
            return Ok(());
        }
        let variables = self.variables();
        let btf = self.btf();
        for (name, value) in globals {
            let mut found = variables.iter().filter(|(_, variable)| variable.name == *name);
            let (map, variable) = match (found.next(), found.next()) {
                (Some(only), None) => only,
                (None, _) => {
                    let names: Vec<_> = variables.iter().map(|(_, v)| v.name.as_str()).collect();
                    let available = if names.is_empty() { "none".into() } else { names.join(", ") };
                    return Err(Error::NoSuchGlobal { name: name.clone(), available });
                }
                (Some(_), Some(_)) => {
                    let what = format!("global {name:?}");
                    let why = "several static variables have this name; rename one";
                    return Err(Error::Map { map: what, why: why.into() });
                }
            };
            let Some(btf) = &btf else { continue };
            let layout = types::layout(btf, variable.ty);
            map.with_initial_value(|bytes| {
                let end = variable.offset.saturating_add(variable.size);
                let place = bytes.get_mut(variable.offset..end).unwrap_or_default();
                layout.encode(value, place)
            })
            .map_err(|source| Error::Global { name: name.clone(), source })?;
        }
        Ok(())
    }
}

impl ProgramRef<'_> {
    pub(crate) fn as_ptr(self) -> *mut sys::bpf_program {
        self.ptr.as_ptr()
    }

    pub(crate) fn name(self) -> String {
        // SAFETY: the program belongs to an open object, its name lives as long.
        unsafe { text(sys::bpf_program__name(self.as_ptr())) }
    }

    pub(crate) fn section(self) -> String {
        // SAFETY: as above.
        unsafe { text(sys::bpf_program__section_name(self.as_ptr())) }
    }

    pub(crate) fn kind(self) -> sys::bpf_prog_type {
        // SAFETY: the program belongs to an open object.
        unsafe { sys::bpf_program__type(self.as_ptr()) }
    }

    pub(crate) fn autoload(self) -> bool {
        // SAFETY: as above.
        unsafe { sys::bpf_program__autoload(self.as_ptr()) }
    }

    pub(crate) fn instructions(self) -> usize {
        // SAFETY: as above.
        unsafe { sys::bpf_program__insn_cnt(self.as_ptr()) as usize }
    }

    /// Whether it takes packets of several buffers. libbpf learns it from the section's name when
    /// it loads, and has no function that tells.
    pub(crate) fn frags(self) -> bool {
        let section = self.section();
        section
            .trim_start_matches('?')
            .strip_prefix(FRAGS_SECTION)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl<'o> MapRef<'o> {
    pub(crate) fn as_ptr(self) -> *mut sys::bpf_map {
        self.ptr.as_ptr()
    }

    /// The map's name in the object: for maps that hold globals the section's.
    pub(crate) fn name(self) -> String {
        // SAFETY: the map belongs to an open object, its name lives as long.
        let name = unsafe { text(sys::bpf_map__name(self.as_ptr())) };
        match name.split_once('.') {
            Some((_, section)) if self.is_internal() => format!(".{section}"),
            _ => name,
        }
    }

    pub(crate) fn is_internal(self) -> bool {
        // SAFETY: the map belongs to an open object.
        unsafe { sys::bpf_map__is_internal(self.as_ptr()) }
    }

    pub(crate) fn kind(self) -> MapType {
        // SAFETY: as above.
        MapType::from(unsafe { sys::bpf_map__type(self.as_ptr()) })
    }

    pub(crate) fn key_size(self) -> u32 {
        // SAFETY: as above.
        unsafe { sys::bpf_map__key_size(self.as_ptr()) }
    }

    pub(crate) fn value_size(self) -> u32 {
        // SAFETY: as above.
        unsafe { sys::bpf_map__value_size(self.as_ptr()) }
    }

    pub(crate) fn max_entries(self) -> u32 {
        // SAFETY: as above.
        unsafe { sys::bpf_map__max_entries(self.as_ptr()) }
    }

    pub(crate) fn key_type(self) -> TypeId {
        // SAFETY: as above.
        TypeId::from(unsafe { sys::bpf_map__btf_key_type_id(self.as_ptr()) })
    }

    pub(crate) fn value_type(self) -> TypeId {
        // SAFETY: as above.
        TypeId::from(unsafe { sys::bpf_map__btf_value_type_id(self.as_ptr()) })
    }

    /// The flags that the object asks for.
    pub(crate) fn flags(self) -> u32 {
        // SAFETY: as above.
        unsafe { sys::bpf_map__map_flags(self.as_ptr()) }
    }

    /// What the flags have no room for.
    pub(crate) fn extra(self) -> u64 {
        // SAFETY: as above.
        unsafe { sys::bpf_map__map_extra(self.as_ptr()) }
    }

    /// What the maps in a map of maps look like. Gone when the object is prepared.
    pub(crate) fn inner(self) -> Option<MapRef<'o>> {
        // SAFETY: as above; libbpf answers null where there is none, else a map that lives as long
        // as the outer one is not created.
        let ptr = NonNull::new(unsafe { sys::bpf_map__inner_map(self.as_ptr()) })?;
        Some(MapRef { ptr, _object: std::marker::PhantomData })
    }

    /// Whether its author wants it pinned by name.
    pub(crate) fn wants_pin(self) -> bool {
        // SAFETY: the map belongs to an open object.
        unsafe { !sys::bpf_map__pin_path(self.as_ptr()).is_null() }
    }

    /// Lets libbpf use the map that is pinned under its name in `directory`, or pin a new one.
    pub(crate) fn pin_in(self, directory: &Path) -> Result<(), Error> {
        let path = directory.join(self.name());
        let failed = |e: std::io::Error| Error::os(format!("pin a map at {}", path.display()), e);
        let text = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| failed(std::io::ErrorKind::InvalidInput.into()))?;
        // SAFETY: the map belongs to an object that is open and not yet loaded; libbpf copies the
        // zero-terminated path.
        let code = unsafe { sys::bpf_map__set_pin_path(self.as_ptr(), text.as_ptr()) };
        crate::kernel::done(code).map_err(failed)
    }

    pub(crate) fn with_initial_value<T>(self, write: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut size: sys::size_t = 0;
        // SAFETY: the map belongs to an open object; libbpf answers its buffer and the size of it,
        // or null, and nobody else looks at the buffer until the object is loaded.
        let bytes = unsafe {
            let start = sys::bpf_map__initial_value(self.as_ptr(), &raw mut size);
            if start.is_null() {
                &mut []
            } else {
                std::slice::from_raw_parts_mut(start.cast::<u8>(), size as usize)
            }
        };
        write(bytes)
    }

    /// Layouts of key and value; `None` where the map has no BTF for it.
    pub(crate) fn layouts(self, object: &Object) -> (Option<TypeLayout>, Option<TypeLayout>) {
        let btf = object.btf();
        let of = |id: TypeId| {
            (id != TypeId::from(0))
                .then(|| btf.as_ref().map(|btf| types::layout(btf, id)))
                .flatten()
        };
        (of(self.key_type()), of(self.value_type()))
    }
}

/// Says what bytes are that are no BPF object, before libelf says "invalid argument".
fn check_elf(bytes: &[u8]) -> Result<(), Error> {
    const EM_NONE: u16 = 0;
    const EM_BPF: u16 = 247;
    const HEADER: usize = 64;
    let not = |why: String| Err(Error::NotAnObject { why });
    if bytes.is_empty() {
        return not("the file is empty".into());
    }
    if !bytes.starts_with(b"\x7fELF") {
        return not(
            "the file is not an ELF object (compile with clang -target bpf -g -O2 -c)".into()
        );
    }
    if bytes.len() < HEADER {
        return not(format!("the ELF header is truncated at {} bytes", bytes.len()));
    }
    if bytes[4] != 2 {
        return not("the ELF object is not of class 64".into());
    }
    let little = bytes[5] == 1;
    if little != cfg!(target_endian = "little") {
        return not("the ELF object has the other byte order than this machine".into());
    }
    let machine = u16::from_ne_bytes([bytes[18], bytes[19]]);
    if machine != EM_BPF && machine != EM_NONE {
        let name = match machine {
            3 => "i386",
            40 => "arm",
            62 => "x86_64",
            183 => "aarch64",
            243 => "riscv",
            _ => "another machine",
        };
        return not(format!(
            "the ELF object is for {name} (machine {machine}), expected BPF (247)"
        ));
    }
    Ok(())
}

/// The text of section `license`. libbpf reads it too and has no function that tells.
fn licence(bytes: &[u8]) -> String {
    use object::{Object as _, ObjectSection as _};
    let read = || -> Option<String> {
        let file = object::File::parse(bytes).ok()?;
        let data = file.section_by_name("license")?.data().ok()?;
        let end = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
        Some(String::from_utf8_lossy(&data[..end]).into_owned())
    };
    read().unwrap_or_default()
}

/// The maps whose definition refers to programs or other maps (`.values`): libbpf takes every
/// relocation in section `.maps` for that, and has no function that tells.
fn filled_maps(bytes: &[u8]) -> BTreeSet<String> {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
    let read = || -> Option<BTreeSet<String>> {
        let file = object::File::parse(bytes).ok()?;
        let section = file.section_by_name(".maps")?;
        let places: Vec<u64> = section.relocations().map(|(place, _)| place).collect();
        let maps = file.symbols().filter(|symbol| symbol.section_index() == Some(section.index()));
        let filled = maps.filter(|map| {
            let end = map.address().saturating_add(map.size());
            places.iter().any(|place| (map.address()..end).contains(place))
        });
        Some(filled.filter_map(|map| Some(map.name().ok()?.to_owned())).collect())
    };
    read().unwrap_or_default()
}

/// # Safety
/// `string` is null or a zero-terminated string that lives during the call.
pub(crate) unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}
