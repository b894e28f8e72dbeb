//! One BTF made of several: the types of all members, and the functions of the chain itself.

use crate::error::Error;
use crate::member::slice;
use crate::object::Object;
use libbpf_sys as sys;
use pointsman_fuse::assemble::{Function, Line};
use std::collections::BTreeMap;
use std::ffi::{CString, c_int};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// A BTF under construction.
#[derive(Debug)]
pub(crate) struct MergedBtf {
    ptr: NonNull<sys::btf>,
    /// `int (struct xdp_md *)`: what the verifier expects of a program and of a called member.
    program_type: u32,
    int: u32,
    /// By how much the type ids of an object's BTF, given whole, were moved.
    shifts: BTreeMap<Box<[u8]>, u32>,
}

// SAFETY: a btf has no ties to the thread that made it, and `MergedBtf` is the only owner of the
// pointer: whoever has it is alone with it.
unsafe impl Send for MergedBtf {}

impl Drop for MergedBtf {
    fn drop(&mut self) {
        // SAFETY: the pointer came from btf__new_empty and is freed once, here.
        unsafe { sys::btf__free(self.ptr.as_ptr()) }
    }
}

/// `BTF_FUNC_STATIC` and `BTF_FUNC_GLOBAL`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FunctionLinkage {
    Static = 0,
    Global = 1,
}

impl MergedBtf {
    pub(crate) fn new() -> Result<Self, Error> {
        // SAFETY: no arguments; the result is ours to free.
        let ptr = NonNull::new(unsafe { sys::btf__new_empty() })
            .ok_or_else(|| Error::os("make BTF", std::io::Error::last_os_error()))?;
        let mut btf = Self { ptr, program_type: 0, int: 0, shifts: BTreeMap::new() };
        let (int, context, argument) = (c_string("int"), c_string("xdp_md"), c_string("ctx"));
        // SAFETY: the BTF is ours, names are zero-terminated and copied. The verifier knows the
        // context by the structure's name alone.
        unsafe {
            let raw = btf.ptr.as_ptr();
            btf.int = added(sys::btf__add_int(raw, int.as_ptr(), 4, sys::BTF_INT_SIGNED as c_int))?;
            let structure = added(sys::btf__add_struct(raw, context.as_ptr(), 24))?;
            let pointer = added(sys::btf__add_ptr(raw, structure as c_int))?;
            btf.program_type = added(sys::btf__add_func_proto(raw, btf.int as c_int))?;
            added(sys::btf__add_func_param(raw, argument.as_ptr(), pointer as c_int))?;
        }
        Ok(btf)
    }

    /// Adds a function that takes the context and gives a verdict.
    pub(crate) fn add_program(
        &mut self,
        name: &str,
        linkage: FunctionLinkage,
    ) -> Result<u32, Error> {
        self.add_function(name, linkage, self.program_type)
    }

    /// Adds a function of unknown arguments, for subprograms of objects without BTF.
    pub(crate) fn add_unknown(&mut self) -> Result<u32, Error> {
        // SAFETY: the BTF is ours.
        let plain =
            added(unsafe { sys::btf__add_func_proto(self.ptr.as_ptr(), self.int as c_int) })?;
        self.add_function("subprogram", FunctionLinkage::Static, plain)
    }

    fn add_function(
        &mut self,
        name: &str,
        linkage: FunctionLinkage,
        ty: u32,
    ) -> Result<u32, Error> {
        let name = c_string(name);
        // SAFETY: the BTF is ours, the name is zero-terminated and copied.
        added(unsafe {
            sys::btf__add_func(self.ptr.as_ptr(), name.as_ptr(), linkage as u32, ty as c_int)
        })
    }

    /// Gives functions of this name another, so that the name is free. Who knows a name by the
    /// beginning that the kernel keeps looks for the only function that begins so.
    pub(crate) fn free_name(&mut self, name: &str) -> Result<(), Error> {
        let other = self.add_string(&format!("member_{name}"))?;
        // SAFETY: the BTF is ours, and knows the types with ids below the count.
        let count = unsafe { sys::btf__type_cnt(self.ptr.as_ptr()) };
        for id in 1..count {
            // SAFETY: as above; the type lives in memory of this BTF, which is being built and
            // which nobody else refers to. Its name is a string of this BTF.
            unsafe {
                let raw = self.ptr.as_ptr();
                let ty = sys::btf__type_by_id(raw, id).cast_mut();
                let kind = ((*ty).info >> 24) & 0x1f;
                if kind == sys::BTF_KIND_FUNC
                    && crate::object::text(sys::btf__str_by_offset(raw, (*ty).name_off)) == name
                {
                    (*ty).name_off = other;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn add_string(&mut self, text: &str) -> Result<u32, Error> {
        let text = c_string(text);
        // SAFETY: the BTF is ours, the text is zero-terminated and copied.
        added(unsafe { sys::btf__add_str(self.ptr.as_ptr(), text.as_ptr()) })
    }

    /// Adds an object's types, once even if several objects have the same, and moves its records to where they are now.
    pub(crate) fn adopt(
        &mut self,
        object: &Object,
        functions: &[Function],
        lines: &[Line],
    ) -> Result<(Vec<Function>, Vec<Line>), Error> {
        // SAFETY: the object is open, its BTF lives as long as it does.
        let source = unsafe { sys::bpf_object__btf(object.as_ptr()) };
        if source.is_null() {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut size = 0;
        // SAFETY: libbpf answers null, or so many bytes that live as long as the object's BTF.
        let types = unsafe {
            let start = sys::btf__raw_data(source, &raw mut size).cast::<u8>();
            slice(start, size as usize)
        };
        let shift = match self.shifts.get(types) {
            Some(&shift) => shift,
            None => {
                // SAFETY: both are valid; the source is only read.
                let first = added(unsafe { sys::btf__add_btf(self.ptr.as_ptr(), source) })?;
                self.shifts.insert(types.into(), first - 1);
                first - 1
            }
        };
        let moved = |f: &Function| Function { type_id: f.type_id + shift, ..*f };
        let mut strings = BTreeMap::new();
        let mut string = |offset: u32| -> Result<u32, Error> {
            if let Some(&known) = strings.get(&offset) {
                return Ok(known);
            }
            // SAFETY: libbpf answers null for an offset outside, else a string that lives as long
            // as the object.
            let text = unsafe { crate::object::text(sys::btf__str_by_offset(source, offset)) };
            let new = self.add_string(&text)?;
            strings.insert(offset, new);
            Ok(new)
        };
        let mut moved_lines = Vec::with_capacity(lines.len());
        for line in lines {
            let (file, text) = (string(line.file)?, string(line.text)?);
            moved_lines.push(Line { file, text, ..*line });
        }
        Ok((functions.iter().map(moved).collect(), moved_lines))
    }

    /// Loads the BTF into the kernel, which frees it with this value or the last program.
    pub(crate) fn load(&self) -> Result<BorrowedFd<'_>, Error> {
        let (code, said) = crate::messages::capture(|| {
            // SAFETY: the BTF is ours.
            unsafe { sys::btf__load_into_kernel(self.ptr.as_ptr()) }
        });
        if code < 0 {
            let os = std::io::Error::from_raw_os_error(-code).to_string();
            let message = said.map_or(os.clone(), |said| format!("{said} ({os})"));
            return Err(Error::Prepare {
                message: format!("the kernel refuses the chain's BTF: {message}"),
            });
        }
        // SAFETY: after loading the descriptor is open for as long as the BTF lives.
        Ok(unsafe { BorrowedFd::borrow_raw(sys::btf__fd(self.ptr.as_ptr())) })
    }
}

fn added(code: c_int) -> Result<u32, Error> {
    u32::try_from(code).map_err(|_| Error::code("build the chain's BTF", code))
}

/// A C string; what follows a zero byte is cut.
fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).expect("invariant: cut before the first zero byte")
}
