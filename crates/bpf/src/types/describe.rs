//! Types as canonical text, by which the maps of two objects are compared.
//!
//! Equal texts mean equal types: kinds, sizes, names, offsets, bit-fields, array lengths and
//! enumerators are all in the text. What C calls the same type by another name (typedefs) and what
//! changes no byte (`const`, `volatile`) is not.

use super::skip_modifiers;
use libbpf_rs::btf::types::{
    Array, Composite, DataSec, Enum, Enum64, Float, Int, IntEncoding, MemberAttr, Ptr, Var,
};
use libbpf_rs::btf::{BtfKind, BtfType, TypeId};
use libbpf_rs::{Btf, HasSize as _};
use pointsman_model::Sha256;
use std::ffi::OsStr;
use std::fmt::{self, Write as _};

/// Types nested deeper than this have no description: BTF of an object is anybody's input.
const MAX_DEPTH: usize = 16;
/// The longest text that is made, in bytes, for the same reason.
const MAX_TEXT: usize = 1 << 20;
/// The longest text that is told and kept, in bytes. Of a longer one it is the beginning and a
/// hash of all of it.
const MAX_TOLD: usize = 1 << 10;

/// Structures in which the kernel keeps who is called back (kernel/bpf/helpers.c).
const CALLBACKS: [&str; 3] = ["bpf_timer", "bpf_wq", "bpf_task_work"];

/// A type in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    /// Equal exactly for equal types.
    pub(crate) text: String,
    /// Whether the kernel keeps callbacks in values of it.
    pub(crate) callbacks: bool,
}

/// Describes type `id`; `None`: it is broken, nested too deep, or too large.
pub(crate) fn describe(btf: &Btf<'_>, id: TypeId) -> Option<Description> {
    let mut writer = Writer { text: String::new(), callbacks: false };
    writer.describe(btf, id, MAX_DEPTH).ok()?;
    let Writer { mut text, callbacks } = writer;
    if text.len() > MAX_TOLD {
        let hash = Sha256::of(text.as_bytes());
        // All of the text is ASCII: names are escaped.
        text.truncate(MAX_TOLD);
        text.push_str(&format!("... sha256:{hash}"));
    }
    Some(Description { text, callbacks })
}

struct Writer {
    text: String,
    callbacks: bool,
}

impl fmt::Write for Writer {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.text.len() + part.len() > MAX_TEXT {
            return Err(fmt::Error);
        }
        self.text.push_str(part);
        Ok(())
    }
}

impl Writer {
    fn describe(&mut self, btf: &Btf<'_>, id: TypeId, depth: usize) -> fmt::Result {
        let ty = btf.type_by_id::<BtfType<'_>>(id).ok_or(fmt::Error)?;
        let ty = skip_modifiers(ty).filter(|_| depth > 0).ok_or(fmt::Error)?;
        if let Ok(int) = Int::try_from(ty) {
            return self.integer(&int);
        }
        if let Ok(list) = Enum::try_from(ty) {
            let values = list.iter().map(|e| (e.name, i128::from(e.value)));
            return self.enumeration(list.name(), list.size(), values);
        }
        if let Ok(list) = Enum64::try_from(ty) {
            let values = list.iter().map(|e| (e.name, e.value));
            return self.enumeration(list.name(), list.size(), values);
        }
        if let Ok(array) = Array::try_from(ty) {
            self.describe(btf, array.ty(), depth - 1)?;
            return write!(self, "[{}]", array.capacity());
        }
        if let Ok(composite) = Composite::try_from(ty) {
            return self.composite(btf, &composite, depth);
        }
        if let Ok(float) = Float::try_from(ty) {
            return write!(self, "f{}", float.size() * 8);
        }
        if let Ok(pointer) = Ptr::try_from(ty) {
            return self.pointer(&pointer);
        }
        if let Ok(section) = DataSec::try_from(ty) {
            return self.section(btf, &section, depth);
        }
        // Nothing else has a size, so nothing else can be in a map.
        Err(fmt::Error)
    }

    fn integer(&mut self, int: &Int<'_>) -> fmt::Result {
        let kind = match int.encoding {
            IntEncoding::Bool => "bool",
            IntEncoding::Char => "char",
            IntEncoding::Signed => "s",
            IntEncoding::None => "u",
        };
        write!(self, "{kind}{}", int.bits)
    }

    fn enumeration<'n>(
        &mut self,
        name: Option<&OsStr>,
        bytes: usize,
        values: impl Iterator<Item = (Option<&'n OsStr>, i128)>,
    ) -> fmt::Result {
        self.write_str("enum ")?;
        self.name(name)?;
        self.write_str("{")?;
        for (name, value) in values {
            self.name(name)?;
            write!(self, "={value};")?;
        }
        write!(self, "}} of {bytes} bytes")
    }

    /// Variables with their places.
    fn section(&mut self, btf: &Btf<'_>, section: &DataSec<'_>, depth: usize) -> fmt::Result {
        self.write_str("variables{")?;
        for place in section.iter() {
            let variable = btf.type_by_id::<Var<'_>>(place.ty).ok_or(fmt::Error)?;
            let ty = variable.next_type().ok_or(fmt::Error)?.type_id();
            self.describe(btf, ty, depth - 1)?;
            self.write_str(" ")?;
            self.name(variable.name())?;
            write!(self, "@{};", place.offset)?;
        }
        self.write_str("}")
    }

    fn composite(&mut self, btf: &Btf<'_>, composite: &Composite<'_>, depth: usize) -> fmt::Result {
        let name = composite.name();
        self.callbacks |= CALLBACKS.iter().any(|known| name == Some(OsStr::new(known)));
        self.write_str(if composite.is_struct { "struct " } else { "union " })?;
        self.name(name)?;
        self.write_str("{")?;
        for member in composite.iter() {
            self.describe(btf, member.ty, depth - 1)?;
            self.write_str(" ")?;
            self.name(member.name)?;
            match member.attr {
                MemberAttr::Normal { offset } if offset % 8 == 0 => write!(self, "@{}", offset / 8),
                MemberAttr::Normal { offset } => write!(self, "@bit {offset}"),
                MemberAttr::BitField { size, offset } => write!(self, ":{size}@bit {offset}"),
            }?;
            self.write_str(";")?;
        }
        write!(self, "}} of {} bytes", composite.size())
    }

    /// What a pointer in a map points to lives elsewhere: only what the kernel makes of it counts,
    /// which its tags say (kptr, kptr_untrusted, percpu_kptr, uptr), and the name behind it.
    fn pointer(&mut self, pointer: &Ptr<'_>) -> fmt::Result {
        self.write_str("pointer")?;
        let mut target = pointer.next_type();
        while let Some(ty) = target.filter(|ty| ty.kind() == BtfKind::TypeTag) {
            self.write_str(" ")?;
            self.name(ty.name())?;
            target = ty.next_type();
        }
        if let Some(ty) = target.and_then(skip_modifiers).filter(|ty| ty.name().is_some()) {
            self.write_str(" to ")?;
            self.name(ty.name())?;
        }
        Ok(())
    }

    /// A name that no object can make look like anything else of the text.
    fn name(&mut self, name: Option<&OsStr>) -> fmt::Result {
        let name = name.unwrap_or_default().to_string_lossy();
        for letter in name.chars() {
            if letter.is_ascii_alphanumeric() || letter == '_' {
                self.write_char(letter)?;
            } else {
                write!(self, "\\{:x}.", u32::from(letter))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "describe_tests.rs"]
mod tests;
