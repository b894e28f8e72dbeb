//! From BTF to layouts, and the author's suggestion (XDP_RUN_CONFIG).

mod describe;

pub(crate) use self::describe::describe;

use crate::value::{Field, IntRole, TypeLayout};
use libbpf_rs::btf::types::{
    Array, Composite, DataSec, Enum, Enum64, Int, IntEncoding, MemberAttr, Ptr, Var,
};
use libbpf_rs::btf::{BtfKind, BtfType, TypeId};
use libbpf_rs::{Btf, HasSize as _, ReferencesType as _};
use pointsman_model::{Action, ActionSet};
use serde::Serialize;
use std::ffi::OsStr;

/// What an object's author suggests for a program (libxdp's XDP_RUN_CONFIG). Shown, never applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// The suggested priority; libxdp's default where the author is silent.
    pub priority: u32,
    /// The suggested chain-call actions.
    pub chain_call_actions: ActionSet,
}

/// Types nested deeper than this are not followed: BTF of an object is anybody's input.
const MAX_DEPTH: usize = 16;
/// The most fields and enumerators one type may have in all, for the same reason.
const MAX_NODES: usize = 20_000;

/// The layout of type `id`.
pub(crate) fn layout(btf: &Btf<'_>, id: TypeId) -> TypeLayout {
    let mut nodes = 0;
    resolve(btf, id, MAX_DEPTH, &mut nodes)
}

fn resolve(btf: &Btf<'_>, id: TypeId, depth: usize, nodes: &mut usize) -> TypeLayout {
    *nodes += 1;
    let unsupported = |what: &str| TypeLayout::Unsupported { bytes: 0, what: what.to_owned() };
    let Some(ty) = btf.type_by_id::<BtfType<'_>>(id) else {
        return unsupported("a type without BTF");
    };
    if depth == 0 || *nodes > MAX_NODES {
        return unsupported("a type this large");
    }
    let Some(ty) = skip_modifiers(ty) else { return unsupported("a type without BTF") };
    if let Ok(int) = Int::try_from(ty) {
        return integer(&int);
    }
    if let Ok(list) = Enum::try_from(ty) {
        // Enumerators count as well: thousands of fields can share one long enumeration.
        *nodes += list.len();
        if *nodes > MAX_NODES {
            return unsupported("a type this large");
        }
        let names = list.iter().map(|e| (text(e.name), i128::from(e.value))).collect();
        return TypeLayout::Enum { bytes: list.size(), names };
    }
    if let Ok(list) = Enum64::try_from(ty) {
        *nodes += list.len();
        if *nodes > MAX_NODES {
            return unsupported("a type this large");
        }
        let names = list.iter().map(|e| (text(e.name), e.value)).collect();
        return TypeLayout::Enum { bytes: list.size(), names };
    }
    if let Ok(array) = Array::try_from(ty) {
        let element = resolve(btf, array.ty(), depth - 1, nodes);
        return TypeLayout::Array { element: Box::new(element), count: array.capacity() };
    }
    if let Ok(composite) = Composite::try_from(ty) {
        return fields_of(btf, &composite, depth, nodes);
    }
    if Ptr::try_from(ty).is_ok() {
        return TypeLayout::Unsupported { bytes: 8, what: "a pointer".into() };
    }
    unsupported(&format!("a {:?}", ty.kind()).to_lowercase())
}

/// Follows typedefs and modifiers. They can form a ring in broken BTF; so many are never real.
fn skip_modifiers<'b>(mut ty: BtfType<'b>) -> Option<BtfType<'b>> {
    for _ in 0..64 {
        match ty.kind() {
            BtfKind::Typedef
            | BtfKind::Const
            | BtfKind::Volatile
            | BtfKind::Restrict
            | BtfKind::TypeTag => ty = ty.next_type()?,
            _ => return Some(ty),
        }
    }
    None
}

fn integer(int: &Int<'_>) -> TypeLayout {
    let name = int.name().and_then(OsStr::to_str).unwrap_or_default();
    let (signed, role) = match int.encoding {
        IntEncoding::Bool => (false, IntRole::Bool),
        IntEncoding::Char => (true, IntRole::Char),
        IntEncoding::Signed if name == "char" => (true, IntRole::Char),
        IntEncoding::Signed => (true, IntRole::Number),
        IntEncoding::None => (false, if name == "char" { IntRole::Char } else { IntRole::Number }),
    };
    let bytes = usize::from(int.bits).div_ceil(8);
    match bytes {
        1 | 2 | 4 | 8 | 16 => TypeLayout::Int { bytes, signed, role },
        _ => TypeLayout::Unsupported { bytes, what: format!("an integer of {} bits", int.bits) },
    }
}

fn fields_of(
    btf: &Btf<'_>,
    composite: &Composite<'_>,
    depth: usize,
    nodes: &mut usize,
) -> TypeLayout {
    let mut fields = Vec::new();
    for member in composite.iter() {
        let (offset, bit_field) = match member.attr {
            MemberAttr::Normal { offset } => (offset as usize / 8, false),
            MemberAttr::BitField { offset, .. } => (offset as usize / 8, true),
        };
        let mut layout = resolve(btf, member.ty, depth - 1, nodes);
        if bit_field {
            layout = TypeLayout::Unsupported { bytes: 0, what: "a bit-field".into() };
        }
        match (member.name.map(|name| text(Some(name))), layout) {
            (Some(name), layout) if !name.is_empty() => fields.push(Field { name, offset, layout }),
            (
                _,
                TypeLayout::Struct { fields: inner, .. } | TypeLayout::Union { fields: inner, .. },
            ) => {
                // C lets the fields of an anonymous member be named as if they were outside.
                fields.extend(inner.into_iter().map(|f| Field { offset: f.offset + offset, ..f }));
            }
            _ => {}
        }
    }
    let bytes = composite.size();
    if composite.is_struct {
        TypeLayout::Struct { bytes, fields }
    } else {
        TypeLayout::Union { bytes, fields }
    }
}

/// A global variable of an object.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) section: String,
    pub(crate) offset: usize,
    pub(crate) size: usize,
    pub(crate) ty: TypeId,
}

/// The variables of data section `id`.
pub(crate) fn variables(btf: &Btf<'_>, id: TypeId) -> Vec<Variable> {
    let Some(section) = btf.type_by_id::<DataSec<'_>>(id) else { return Vec::new() };
    let name = text(section.name());
    let variable = |info: libbpf_rs::btf::types::VarSecInfo| {
        let variable = btf.type_by_id::<Var<'_>>(info.ty)?;
        Some(Variable {
            name: text(variable.name()),
            section: name.clone(),
            offset: info.offset as usize,
            size: info.size,
            ty: variable.next_type()?.type_id(),
        })
    };
    section.iter().filter_map(variable).collect()
}

/// Reads what the author suggests for `entry`: a structure named `_ENTRY` in the data section
/// `.xdp_run_config`, each member a pointer to an array whose length is the value. Actions that
/// are not mentioned keep libxdp's default (pass).
pub(crate) fn suggestion(btf: &Btf<'_>, entry: &str) -> Option<Suggestion> {
    let section = btf.type_by_name::<DataSec<'_>>(".xdp_run_config")?;
    let wanted = format!("_{entry}");
    let config = section.iter().find_map(|info| {
        let variable = btf.type_by_id::<Var<'_>>(info.ty)?;
        (text(variable.name()) == wanted).then(|| variable.next_type())?
    })?;
    let config = Composite::try_from(skip_modifiers(config)?).ok()?;
    let mut found = Suggestion { priority: 50, chain_call_actions: ActionSet::PASS };
    for member in config.iter() {
        let pointer = skip_modifiers(btf.type_by_id::<BtfType<'_>>(member.ty)?)?;
        let target = skip_modifiers(Ptr::try_from(pointer).ok()?.referenced_type())?;
        let value = Array::try_from(target).ok()?.capacity();
        let name = text(member.name);
        if name == "priority" {
            found.priority = u32::try_from(value).ok()?;
        } else if let Some(action) = libxdp_action(&name) {
            let others = found.chain_call_actions.iter().filter(|&other| other != action);
            let others: ActionSet = others.collect();
            found.chain_call_actions = if value == 0 { others } else { others.with(action) };
        }
    }
    Some(found)
}

fn libxdp_action(name: &str) -> Option<Action> {
    let name = name.strip_prefix("XDP_")?.to_ascii_lowercase();
    Action::ALL.into_iter().find(|action| action.name() == name)
}

fn text(name: Option<&OsStr>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use libbpf_sys as sys;

    /// A structure of `fields` fields, all of one enumeration of `enumerators` names.
    fn wide(fields: u32, enumerators: u32) -> Vec<u8> {
        // SAFETY: the BTF is ours until it is freed, names are zero-terminated and copied, and
        // the raw bytes live as long as the BTF is not changed.
        unsafe {
            let btf = sys::btf__new_empty();
            let list = sys::btf__add_enum(btf, c"list".as_ptr(), 4);
            for number in 0..enumerators {
                sys::btf__add_enum_value(btf, c"name".as_ptr(), number.into());
            }
            sys::btf__add_struct(btf, c"wide".as_ptr(), 4 * fields);
            for field in 0..fields {
                sys::btf__add_field(btf, c"field".as_ptr(), list, 32 * field, 0);
            }
            let mut size = 0;
            let raw = sys::btf__raw_data(btf, &raw mut size);
            let bytes = std::slice::from_raw_parts(raw.cast::<u8>(), size as usize).to_vec();
            sys::btf__free(btf);
            bytes
        }
    }

    #[test]
    fn enumerators_count_for_the_size_of_a_type() {
        let path = std::env::temp_dir().join(format!("pointsman-types-{}", std::process::id()));
        let layout_of = |fields, enumerators| {
            std::fs::write(&path, wide(fields, enumerators)).unwrap();
            let btf = Btf::from_path(&path);
            std::fs::remove_file(&path).unwrap();
            match layout(&btf.unwrap(), TypeId::from(2)) {
                TypeLayout::Struct { fields, .. } => fields,
                other => panic!("{other:?}"),
            }
        };
        let unsupported = |fields: &[Field]| {
            let unsupported =
                |field: &&Field| matches!(field.layout, TypeLayout::Unsupported { .. });
            fields.iter().filter(unsupported).count()
        };
        assert_eq!(unsupported(&layout_of(9, 2000)), 0);
        // Without a limit of all together this would take gigabytes.
        let fields = layout_of(1000, 30_000);
        assert_eq!((fields.len(), unsupported(&fields)), (1000, 1000));
    }
}
