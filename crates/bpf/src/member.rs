//! A program made ready to join a chain: relocated against real maps, loaded alone, its facts
//! known.

use crate::alone::Alone;
use crate::error::Error;
use crate::kernel;
use crate::maps::{self, MapHome};
use crate::messages;
use crate::object::{MapRef, Object, ProgramRef};
use libbpf_rs::MapType;
use libbpf_sys as sys;
use pointsman_fuse::assemble::{Function, Line};
use pointsman_fuse::insn::Insn;
use pointsman_fuse::layout::StackRounding;
use pointsman_fuse::shape::{Malformed, Shape};
use pointsman_model::facts::{MapFacts, ProgramFacts};
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{EntryName, Sha256};
use std::os::fd::{BorrowedFd, OwnedFd};

/// A program ready to be fused. Holds its object open, and with it the maps.
#[derive(Debug)]
pub struct Member {
    object: Object,
    entry: String,
    facts: ProgramFacts,
    map_facts: Vec<MapFacts>,
    code: Code,
    /// Program array slots keep what is in them only while these programs or the array live; the
    /// array is pinned with the other maps, and these keep an unpinned one filled.
    _targets: Option<OwnedFd>,
}

/// Final instructions and records, as libbpf relocated them against the object's own BTF.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) instructions: Vec<Insn>,
    pub(crate) functions: Vec<Function>,
    pub(crate) lines: Vec<Line>,
}

impl Member {
    /// Opens the program `entry` of an object as its author wrote it, with maps of its own that
    /// live as long as it or a chain it is in. For globals, map contents and pins: [`prepare`].
    ///
    /// [`prepare`]: Self::prepare
    ///
    /// # Errors
    /// Whatever is wrong with the object or its program.
    pub fn open(object: &[u8], entry: &str, rounding: StackRounding) -> Result<Self, Error> {
        let mut program = ResolvedProgram::new(Sha256::of(object), "");
        let named = EntryName::new(entry).map_err(|e| Error::NoSuchEntry {
            wanted: entry.to_owned(),
            available: e.to_string(),
        })?;
        program.entry = Some(named);
        Self::prepare(object, &program, &MapHome::Anonymous, rounding, None)
    }

    /// Opens, sets globals and checks map entries as `program` wants, creates or reuses its maps as
    /// `home` says, and loads it alone: that names the guilty one while it is one, and gives the
    /// facts. `known` facts of the same program spare loading it alone again.
    ///
    /// # Errors
    /// Whatever is wrong with the object, its globals, its maps or its program.
    pub fn prepare(
        bytes: &[u8],
        program: &ResolvedProgram,
        home: &MapHome,
        rounding: StackRounding,
        known: Option<&ProgramFacts>,
    ) -> Result<Self, Error> {
        let mut object = Object::open(bytes)?;
        object.set_globals(&program.globals)?;
        let selected = object.select(program.entry.as_ref().map(EntryName::as_str))?;
        let entry = selected.name();
        for (name, entries) in &program.maps {
            maps::check_entries(&object, name, entries)?;
        }
        maps::check_names(&object, program.on_upgrade.keys())?;
        configure(&object, selected)?;
        let map_facts = maps::facts(&object);
        let unfilled = maps::adopt(&object, home)?;
        prepare(&object)?;
        maps::pin(&object, home)?;
        let selected = object.select(Some(&entry))?;
        let code = Code::of(selected)?;
        let facts = match known {
            Some(facts) => facts.clone(),
            None => {
                let alone = Alone {
                    object: &object,
                    program: selected,
                    entry: &entry,
                    code: &code,
                    maps: &map_facts,
                };
                alone.load(rounding)?
            }
        };
        // What a program array holds may have changed since it was made: a new chain around it is
        // no reason to start over.
        let targets = if unfilled { Some(fill_arrays(&object, &entry)?) } else { None };
        Ok(Self { object, entry, facts, map_facts, code, _targets: targets })
    }

    /// What is known of the program.
    #[must_use]
    pub fn facts(&self) -> &ProgramFacts {
        &self.facts
    }

    /// The object it comes from.
    #[must_use]
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The function it starts at.
    #[must_use]
    pub fn entry(&self) -> &str {
        &self.entry
    }

    /// What one of its maps holds under `key`: a value, of a per-CPU map one for each possible
    /// CPU; nothing where the key is not in the map.
    ///
    /// # Errors
    /// It has no such map, or the kernel's answer.
    pub fn map_value(&self, map: &str, key: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        maps::value(&self.object, map, key)
    }

    /// The object's maps as it defines them.
    pub(crate) fn map_facts(&self) -> &[MapFacts] {
        &self.map_facts
    }

    pub(crate) fn code(&self) -> &Code {
        &self.code
    }

    /// Its object, its final instructions, and what keeps its program arrays filled.
    pub(crate) fn into_parts(self) -> (Object, Code, Option<OwnedFd>) {
        (self.object, self.code, self._targets)
    }
}

/// Says what libbpf shall load, and as what.
pub(crate) fn configure(object: &Object, entry: ProgramRef<'_>) -> Result<(), Error> {
    let is_filled = |map: &MapRef<'_>| map.kind() == MapType::ProgArray && object.fills(*map);
    let has_array = object.maps().iter().any(is_filled);
    for program in object.programs() {
        let is_entry = program.as_ptr() == entry.as_ptr();
        // An array's initial content can be any XDP program of the object.
        let wanted = is_entry
            || (has_array && program.autoload() && program.kind() == sys::BPF_PROG_TYPE_XDP);
        // SAFETY: the program belongs to an object that is open and not yet loaded.
        let code = unsafe {
            if is_entry {
                sys::bpf_program__set_type(program.as_ptr(), sys::BPF_PROG_TYPE_XDP);
                sys::bpf_program__set_expected_attach_type(program.as_ptr(), sys::BPF_XDP);
            }
            sys::bpf_program__set_autoload(program.as_ptr(), wanted)
        };
        if code < 0 {
            return Err(Error::code(format!("choose program {:?}", program.name()), code));
        }
    }
    for map in object.maps() {
        // libbpf maps an arena into this process, at an address that the object chooses and over
        // whatever is there.
        if map.kind() == MapType::Arena {
            let why =
                "an arena is shared with one process by its address: it cannot be used".into();
            return Err(Error::Map { map: map.name(), why });
        }
        // The author may ask libbpf to pin a map by name in a common place. Where maps are pinned
        // is decided by the caller alone.
        // SAFETY: the map belongs to an object that is open and not yet loaded; null unsets.
        let code = unsafe { sys::bpf_map__set_pin_path(map.as_ptr(), std::ptr::null()) };
        if code < 0 {
            return Err(Error::code(format!("unset the pin of map {:?}", map.name()), code));
        }
    }
    Ok(())
}

pub(crate) fn prepare(object: &Object) -> Result<(), Error> {
    // SAFETY: the object is open and not yet loaded.
    let (code, said) = messages::capture(|| unsafe { sys::bpf_object__prepare(object.as_ptr()) });
    if code < 0 {
        let os = std::io::Error::from_raw_os_error(-code).to_string();
        let message = said.map_or(os.clone(), |said| format!("{said} ({os})"));
        return Err(Error::Prepare { message });
    }
    Ok(())
}

impl Code {
    pub(crate) fn of(program: ProgramRef<'_>) -> Result<Self, Error> {
        let ptr = program.as_ptr();
        // SAFETY: the object is prepared: its instructions and records are final and live as long
        // as it does; libbpf answers null with a count of zero.
        let (instructions, functions, lines) = unsafe {
            (
                slice(sys::bpf_program__insns(ptr), sys::bpf_program__insn_cnt(ptr) as usize),
                slice(
                    sys::bpf_program__func_info(ptr).cast_const(),
                    sys::bpf_program__func_info_cnt(ptr) as usize,
                ),
                slice(
                    sys::bpf_program__line_info(ptr).cast_const(),
                    sys::bpf_program__line_info_cnt(ptr) as usize,
                ),
            )
        };
        let code = Self {
            instructions: instructions.iter().map(kernel::from_sys).collect(),
            functions: functions
                .iter()
                .map(|f| Function { offset: f.insn_off, type_id: f.type_id })
                .collect(),
            lines: lines
                .iter()
                .map(|line| Line {
                    offset: line.insn_off,
                    file: line.file_name_off,
                    text: line.line_off,
                    position: line.line_col,
                })
                .collect(),
        };
        code.shape().map_err(|e| Error::Prepare { message: format!("{}: {e}", program.name()) })?;
        Ok(code)
    }

    pub(crate) fn shape(&self) -> Result<Shape, Malformed> {
        let starts: Vec<u32> = self.functions.iter().map(|function| function.offset).collect();
        Shape::of(&self.instructions, &starts)
    }
}

/// # Safety
/// `start` is null, or `len` values live there at least as long as the caller uses the result.
pub(crate) unsafe fn slice<'a, T>(start: *const T, len: usize) -> &'a [T] {
    if start.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// Lets libbpf load the object as a whole: only that fills the program arrays that the object
/// initialises. Returns the descriptor that keeps the entry loaded.
fn fill_arrays(object: &Object, entry: &str) -> Result<OwnedFd, Error> {
    // SAFETY: the object is prepared and not yet loaded.
    let (code, said) = messages::capture(|| unsafe { sys::bpf_object__load(object.as_ptr()) });
    if code < 0 {
        let os = std::io::Error::from_raw_os_error(-code).to_string();
        return Err(Error::Prepare {
            message: format!(
                "the programs of the object's program arrays: {}",
                said.map_or(os.clone(), |said| format!("{said} ({os})"))
            ),
        });
    }
    let program = object.select(Some(entry))?;
    // SAFETY: the object is loaded.
    let fd = unsafe { sys::bpf_program__fd(program.as_ptr()) };
    if fd < 0 {
        return Err(Error::code(format!("keep program {entry:?}"), fd));
    }
    // SAFETY: descriptors of an object live as long as it does; this one is not negative.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fd.try_clone_to_owned().map_err(|e| Error::os("keep the program of a program array", e))
}

/// Shortens a name to what the kernel takes: 15 characters.
pub(crate) fn kernel_name(name: &str) -> &str {
    let end = name.bytes().take(15).take_while(|b| b.is_ascii_alphanumeric() || b"_.".contains(b));
    &name[..end.count()]
}
