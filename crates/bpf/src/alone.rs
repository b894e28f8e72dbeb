//! Loading one program by itself: that names the guilty one while it is one, and gives its facts.

use crate::error::Error;
use crate::kernel::{self, Load, Place, Refused};
use crate::member::{Code, kernel_name};
use crate::messages;
use crate::object::{Object, ProgramRef};
use libbpf_sys as sys;
use pointsman_fuse::assemble::MAX_INLINED;
use pointsman_fuse::insn::Call;
use pointsman_fuse::layout::StackRounding;
use pointsman_fuse::shape::Shape;
use pointsman_model::EntryName;
use pointsman_model::facts::{MapFacts, ProgramFacts};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Helpers that programs of any licence may call (`gpl_only = false` in net/core/filter.c and
/// kernel/bpf/helpers.c of all kernels since 5.10): map_lookup_elem, map_update_elem,
/// map_delete_elem, get_prandom_u32, get_smp_processor_id, tail_call, redirect, csum_diff,
/// xdp_adjust_head, redirect_map, xdp_adjust_meta, xdp_adjust_tail, spin_lock, spin_unlock,
/// xdp_get_buff_len, xdp_load_bytes, xdp_store_bytes.
const FREE_HELPERS: [i32; 17] = [1, 2, 3, 7, 8, 12, 23, 28, 44, 51, 54, 65, 93, 94, 188, 189, 190];

/// One program about to be loaded by itself.
pub(crate) struct Alone<'a> {
    pub(crate) object: &'a Object,
    pub(crate) program: ProgramRef<'a>,
    pub(crate) entry: &'a str,
    pub(crate) code: &'a Code,
    /// The object's maps, as they were before it was prepared.
    pub(crate) maps: &'a [MapFacts],
}

impl Alone<'_> {
    pub(crate) fn load(&self, rounding: StackRounding) -> Result<ProgramFacts, Error> {
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
            redirects: self.redirects(),
            gpl_compatible,
            needs_gpl,
            side_effects: shape.side_effects.iter().copied().collect(),
            maps: self.maps.to_vec(),
            used_maps: self.used_maps(),
            unfusable,
        })
    }

    fn used_maps(&self) -> u32 {
        let maps = self.code.instructions.iter().filter_map(|insn| insn.map());
        u32::try_from(maps.collect::<BTreeSet<_>>().len()).unwrap_or(u32::MAX)
    }

    fn redirects(&self) -> bool {
        /// `bpf_redirect` and `bpf_redirect_map`.
        const REDIRECT: [i32; 2] = [23, 51];
        let mut calls = self.code.instructions.iter().filter_map(|insn| insn.called());
        calls.any(|call| matches!(call, Call::Helper(id) if REDIRECT.contains(&id)))
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
            place: Place::Anywhere,
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
