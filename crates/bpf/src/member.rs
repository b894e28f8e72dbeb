//! A program made ready to join a chain: relocated against real maps, loaded alone, its facts
//! known.

use crate::error::Error;
use crate::kernel::{self, Load, Refused};
use crate::maps::{self, MapHome};
use crate::messages;
use crate::object::{Object, ProgramRef};
use libbpf_rs::MapType;
use libbpf_sys as sys;
use pointsman_fuse::assemble::{Function, Line, MAX_INLINED};
use pointsman_fuse::insn::{Call, Insn};
use pointsman_fuse::layout::StackRounding;
use pointsman_fuse::shape::{Malformed, Shape};
use pointsman_model::facts::{MapFacts, ProgramFacts};
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{EntryName, MapName, Sha256};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// A program ready to be fused. Holds its object open, and with it the maps.
#[derive(Debug)]
pub struct Member {
    object: Object,
    entry: String,
    facts: ProgramFacts,
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

    /// Opens, sets globals and map contents as `program` wants, creates or reuses its maps as
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
        let has_array = configure(&object, selected)?;
        let kept = maps::adopt(&object, home)?;
        prepare(&object)?;
        maps::pin(&object, home)?;
        let selected = object.select(Some(&entry))?;
        let code = Code::of(selected)?;
        let facts = match known {
            Some(facts) => facts.clone(),
            None => {
                let alone =
                    Alone { object: &object, program: selected, entry: &entry, code: &code };
                alone.load(rounding)?
            }
        };
        // What a program array holds may have changed since it was made: a new chain around it is
        // no reason to start over.
        let fill = has_array && !kept;
        let targets = if fill { Some(fill_arrays(&object, &entry)?) } else { None };
        Ok(Self { object, entry, facts, code, _targets: targets })
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

    pub(crate) fn code(&self) -> &Code {
        &self.code
    }
}

/// Says what libbpf shall load, and as what. Returns whether the object has a program array.
fn configure(object: &Object, entry: ProgramRef<'_>) -> Result<bool, Error> {
    let has_array = object.maps().iter().any(|map| map.kind() == MapType::ProgArray);
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
    Ok(has_array)
}

fn prepare(object: &Object) -> Result<(), Error> {
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
    fn of(program: ProgramRef<'_>) -> Result<Self, Error> {
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
unsafe fn slice<'a, T>(start: *const T, len: usize) -> &'a [T] {
    if start.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// Helpers that programs of any licence may call (`gpl_only = false` in net/core/filter.c and
/// kernel/bpf/helpers.c of all kernels since 5.10): map_lookup_elem, map_update_elem,
/// map_delete_elem, get_prandom_u32, get_smp_processor_id, tail_call, redirect, csum_diff,
/// xdp_adjust_head, redirect_map, xdp_adjust_meta, xdp_adjust_tail, spin_lock, spin_unlock,
/// xdp_get_buff_len, xdp_load_bytes, xdp_store_bytes.
const FREE_HELPERS: [i32; 17] = [1, 2, 3, 7, 8, 12, 23, 28, 44, 51, 54, 65, 93, 94, 188, 189, 190];

/// One program about to be loaded by itself.
struct Alone<'a> {
    object: &'a Object,
    program: ProgramRef<'a>,
    entry: &'a str,
    code: &'a Code,
}

impl Alone<'_> {
    fn load(&self, rounding: StackRounding) -> Result<ProgramFacts, Error> {
        let (fd, stats) = self.attempt(self.object.licence()).map_err(|refused| {
            // libbpf knows more about failed relocations: it rewrites the log.
            let log = self.libbpf_log().unwrap_or(refused.log);
            verifier_error(self.entry, &refused.error, &log)
        })?;
        let tag = kernel::program_info(fd.as_fd())?.tag;
        let gpl_compatible = is_gpl_compatible(self.object.licence());
        let needs_gpl = gpl_compatible && self.needs_gpl();
        let shape = self
            .code
            .shape()
            .map_err(|e| Error::Prepare { message: format!("{}: {e}", self.entry) })?;
        let frames = stack_depths(&stats);
        let main_stack = frames.first().copied().unwrap_or(0);
        // Loading alone proves that this much is enough, whatever this arithmetic thinks of
        // callbacks that have a stack of their own.
        let proven = pointsman_fuse::layout::MAX_STACK.saturating_sub(rounding.round(main_stack));
        let main = shape.main_len(self.code.instructions.len());
        let unfusable = self.unfusable(&shape);
        Ok(ProgramFacts {
            entry: EntryName::new(self.entry)
                .map_err(|e| Error::Prepare { message: e.to_string() })?,
            tag,
            main_instructions: main as u32,
            instructions: self.code.instructions.len() as u32,
            verified_instructions: number_after(&stats, "processed ").unwrap_or(0),
            main_stack,
            called_stack: shape.called_stack(&frames, rounding).min(proven),
            // A main function too long for the jumps at its exits is called like one that
            // tail-calls.
            tail_calls: shape.tail_calls[0] || main > MAX_INLINED,
            tail_call_depth: shape.tail_call_depth(&frames, rounding),
            frags: self.program.frags(),
            gpl_compatible,
            needs_gpl,
            side_effects: shape.side_effects.iter().copied().collect(),
            maps: map_facts(self.object),
            used_maps: self.used_maps(),
            unfusable,
        })
    }

    fn used_maps(&self) -> u32 {
        let maps = self.code.instructions.iter().filter_map(|insn| insn.map());
        u32::try_from(maps.collect::<BTreeSet<_>>().len()).unwrap_or(u32::MAX)
    }

    /// Whether the kernel would refuse the program under another licence. Asked of the verifier
    /// only where the program calls something that is not known to be free for all.
    fn needs_gpl(&self) -> bool {
        let mut calls = self.code.instructions.iter().filter_map(|insn| insn.called());
        let unsure = calls.any(|call| match call {
            Call::Helper(id) => !FREE_HELPERS.contains(&id),
            Call::Kernel { .. } => true,
        });
        unsure && self.attempt("Proprietary").is_err()
    }

    fn attempt(&self, licence: &str) -> Result<(OwnedFd, String), Refused> {
        // SAFETY: the object is prepared; the descriptor of its BTF lives as long as it does.
        let btf = unsafe {
            let fd = sys::bpf_object__btf_fd(self.object.as_ptr());
            (fd >= 0 && !self.code.functions.is_empty()).then(|| BorrowedFd::borrow_raw(fd))
        };
        let load = Load {
            name: kernel_name(self.entry),
            licence,
            instructions: &self.code.instructions,
            btf,
            functions: &self.code.functions,
            lines: &self.code.lines,
            frags: self.program.frags(),
        };
        load.load()
    }

    /// Lets libbpf load the program, which fails too, and takes its log.
    fn libbpf_log(&self) -> Option<String> {
        let mut log = vec![0u8; 4 << 20];
        // SAFETY: the object is prepared. libbpf looks at the buffer in this load alone: it keeps
        // the pointer, and an object that was loaded, successfully or not, never loads again.
        let code = unsafe {
            let ptr = self.program.as_ptr();
            sys::bpf_program__set_log_level(ptr, 1);
            sys::bpf_program__set_log_buf(ptr, log.as_mut_ptr().cast(), log.len() as sys::size_t);
            messages::capture(|| sys::bpf_object__load(self.object.as_ptr())).0
        };
        let end = log.iter().position(|&byte| byte == 0)?;
        (code < 0 && end > 0).then(|| String::from_utf8_lossy(&log[..end]).into_owned())
    }

    fn unfusable(&self, shape: &Shape) -> Option<String> {
        if shape.module_functions {
            return Some("it calls a function of a kernel module".into());
        }
        let calls = self.code.instructions.iter().filter_map(|insn| match insn.called() {
            Some(Call::Kernel { id, module: 0 }) => Some(id),
            _ => None,
        });
        let called: BTreeSet<i32> = calls.collect();
        // Reading the kernel's types takes a while, and few programs call any.
        if called.is_empty() {
            return None;
        }
        let calls = |function: &&(i32, &str)| called.contains(&function.0);
        let (_, why) = unfusable_functions().iter().find(calls)?;
        Some((*why).to_owned())
    }
}

/// Kernel functions that no member of a chain may call, where this kernel has them: their BTF ids
/// and why.
fn unfusable_functions() -> &'static [(i32, &'static str)] {
    use std::sync::OnceLock;
    const THROWS: &str = "it throws exceptions (bpf_throw), which would leave the whole chain";
    // These take a type by its id in the program's BTF: a number like any other in the
    // instructions, and another type's in the BTF of the chain.
    const ALLOCATES: &str = "it allocates objects of its own types (bpf_obj_new)";
    const FUNCTIONS: [(&CStr, &str); 5] = [
        (c"bpf_throw", THROWS),
        (c"bpf_obj_new_impl", ALLOCATES),
        (c"bpf_obj_new", ALLOCATES),
        (c"bpf_percpu_obj_new_impl", ALLOCATES),
        (c"bpf_percpu_obj_new", ALLOCATES),
    ];
    static KNOWN: OnceLock<Vec<(i32, &str)>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        // SAFETY: libbpf answers a new BTF object, which it takes back, or null, which it does
        // not take for one to look into. Names are zero-terminated.
        unsafe {
            let btf = sys::btf__load_vmlinux_btf();
            if btf.is_null() {
                return Vec::new();
            }
            let id =
                |name: &CStr| sys::btf__find_by_name_kind(btf, name.as_ptr(), sys::BTF_KIND_FUNC);
            let known = FUNCTIONS.iter().map(|&(name, why)| (id(name), why));
            let known = known.filter(|&(id, _)| id > 0).collect();
            sys::btf__free(btf);
            known
        }
    })
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

/// The licences that the kernel counts as GPL-compatible (include/linux/license.h).
fn is_gpl_compatible(licence: &str) -> bool {
    let list = [
        "GPL",
        "GPL v2",
        "GPL and additional rights",
        "Dual BSD/GPL",
        "Dual MIT/GPL",
        "Dual MPL/GPL",
    ];
    list.contains(&licence)
}

/// Reads `stack depth A+B+C` of the verifier's statistics: one number per function.
fn stack_depths(stats: &str) -> Vec<u32> {
    let Some(line) = stats.lines().find_map(|line| line.strip_prefix("stack depth ")) else {
        return Vec::new();
    };
    line.split('+').map_while(|number| number.trim().parse().ok()).collect()
}

fn number_after(text: &str, label: &str) -> Option<u32> {
    let rest = &text[text.find(label)? + label.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

fn map_facts(object: &Object) -> Vec<MapFacts> {
    let facts = |map: crate::object::MapRef<'_>| {
        Some(MapFacts {
            name: MapName::new(map.name()).ok()?,
            kind: maps::kind_name(map.kind()),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries(),
        })
    };
    object.maps().into_iter().filter_map(facts).collect()
}

/// Makes an error of a refused program: who, in one line why, and the log's end.
pub(crate) fn verifier_error(program: &str, error: &std::io::Error, log: &str) -> Error {
    const LONGEST: usize = 32 << 10;
    let verdict = log.lines().rev().find(|line| {
        let line = line.trim();
        let statistics = ["processed ", "verification time", "stack depth", "-- ", "peak_states"];
        !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start))
    });
    let source = log.lines().rev().find_map(|line| line.strip_prefix("; "));
    let mut summary = verdict.map_or_else(|| error.to_string(), |line| line.trim().to_owned());
    if let Some(source) = source {
        summary = format!("{summary}, at: {source}");
    }
    let cut = log.len().saturating_sub(LONGEST);
    let start = (cut..=log.len()).find(|&at| log.is_char_boundary(at)).unwrap_or(0);
    let mut shown = log[start..].to_owned();
    if start > 0 {
        shown.insert_str(0, "[the beginning is left out]\n");
    }
    Error::Verifier { program: program.to_owned(), summary, log: shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_all_kernels_are_read() {
        let stats = "verification time 42 usec\nstack depth 16+0+264\nprocessed 14 insns (limit 1000000) max_states_per_insn 0\n";
        assert_eq!(stack_depths(stats), [16, 0, 264]);
        assert_eq!(number_after(stats, "processed "), Some(14));
        assert_eq!(stack_depths(""), Vec::<u32>::new());
        assert_eq!(number_after("processed x", "processed "), None);
    }

    #[test]
    fn a_refusal_is_summed_up_with_its_source_line() {
        let log = "0: R1=ctx()\n; return *(int *)data; @ a.c:9\n2: (61) r0 = *(u32 *)(r1 +0)\n\
                   invalid access to packet, off=0 size=4, R1(id=0,off=0,r=0)\n\
                   R1 offset is outside of the packet\nverification time 10 usec\nstack depth 0\n\
                   processed 3 insns (limit 1000000)\n";
        let error = verifier_error("bad", &std::io::Error::from_raw_os_error(13), log);
        assert_eq!(
            error.to_string(),
            "the verifier refuses program \"bad\": R1 offset is outside of the packet, at: return \
             *(int *)data; @ a.c:9"
        );
        let huge = "é".repeat(40_000);
        let shown = verifier_error("bad", &std::io::Error::from_raw_os_error(7), &huge);
        assert!(shown.log().is_some_and(|log| log.len() < 33 << 10));
    }
}
