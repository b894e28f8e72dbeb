//! Whether one map's contents can be read as another's, from their definitions.

use pointsman_model::facts::{InitialContents, MapDefinition, MapFacts, is_named_section};

/// Why the contents of `old` could mean something else in `new`; `None`: they mean the same. Says
/// one reason, in few words. `same_object`: both come from the same bytes.
pub(super) fn difference(old: &MapFacts, new: &MapFacts, same_object: bool) -> Option<String> {
    // Of sections that their author named, as `.data.ports`, it is known which variables lie where.
    let is_known =
        |map: &MapFacts| is_named_section(map.name.as_str()) && map.definition.value.is_some();
    let known = is_known(old) && is_known(new);
    match (old.initial, new.initial) {
        (InitialContents::Variables(_), InitialContents::Variables(_))
            if !same_object && !known =>
        {
            return Some("its variables may lie elsewhere in another object".to_owned());
        }
        (InitialContents::Variables(was), InitialContents::Variables(is)) if was != is => {
            return Some("a global variable in it has another value now".to_owned());
        }
        (InitialContents::Variables(_), InitialContents::Variables(_))
        | (InitialContents::Nothing, InitialContents::Nothing) => {}
        // The object used to fill it, or does so now.
        _ => return Some("its first contents come from elsewhere now".to_owned()),
    }
    between(&old.definition, &new.definition, same_object)
}

fn between(old: &MapDefinition, new: &MapDefinition, same_object: bool) -> Option<String> {
    if old.kind != new.kind {
        return Some(format!("its type was {}, is {} now", old.kind, new.kind));
    }
    if is_bound(&new.kind) {
        return Some(format!("a map of type {} belongs to one program", new.kind));
    }
    let numbers = [
        ("bytes of its keys", u64::from(old.key_size), u64::from(new.key_size)),
        ("bytes of its values", u64::from(old.value_size), u64::from(new.value_size)),
        ("entries", u64::from(old.max_entries), u64::from(new.max_entries)),
        ("flags", u64::from(old.flags), u64::from(new.flags)),
        ("extra flags", old.extra, new.extra),
    ];
    if let Some((what, was, is)) = numbers.into_iter().find(|(_, was, is)| was != is) {
        return Some(format!("{what}: {was} before, {is} now"));
    }
    let (keys_count, values_count) = typed(&new.kind);
    let texts =
        [("key", keys_count, &old.key, &new.key), ("value", values_count, &old.value, &new.value)];
    // The same bytes define the same types, also where they do not tell them.
    for (what, _, old, new) in texts.into_iter().filter(|(_, counts, ..)| *counts && !same_object) {
        match (old, new) {
            (Some(was), Some(is)) if was == is => {}
            (Some(was), Some(is)) => {
                let (was, is) = first_difference(was, is);
                return Some(format!("its {what} had `{was}`, has `{is}` now"));
            }
            _ => return Some(format!("the type of its {what} is not known from BTF")),
        }
    }
    match (&old.inner, &new.inner) {
        (Some(old), Some(new)) => {
            between(old, new, same_object).map(|why| format!("its inner maps: {why}"))
        }
        (None, None) if same_object || !is_outer(&new.kind) => None,
        _ => Some("its inner maps are not defined by the object".to_owned()),
    }
}

/// Maps that the kernel ties to one program, or fills when that is loaded.
fn is_bound(kind: &str) -> bool {
    matches!(
        kind,
        "unspec"
            | "unknown"
            | "struct_ops"
            | "insn_array"
            | "cgroup_storage"
            | "percpu_cgroup_storage"
            | "arena"
    )
}

fn is_outer(kind: &str) -> bool {
    matches!(kind, "array_of_maps" | "hash_of_maps")
}

/// Whether the types of keys and of values decide. They do not where the kernel defines what lies
/// there (an index, descriptors, interfaces, CPUs) or where nothing does: objects seldom type these.
fn typed(kind: &str) -> (bool, bool) {
    match kind {
        "prog_array"
        | "perf_event_array"
        | "cgroup_array"
        | "array_of_maps"
        | "devmap"
        | "cpumap"
        | "xskmap"
        | "sockmap"
        | "reuseport_sockarray"
        | "stack_trace"
        | "ringbuf"
        | "user_ringbuf" => (false, false),
        "array" | "percpu_array" | "queue" | "stack" | "bloom_filter" => (false, true),
        "hash_of_maps" | "devmap_hash" | "sockhash" => (true, false),
        _ => (true, true),
    }
}

/// The first members in which two types differ; whole types where they have none.
fn first_difference<'a>(was: &'a str, is: &'a str) -> (&'a str, &'a str) {
    let mut parts = split(was).zip(split(is));
    parts.find(|(was, is)| was != is).unwrap_or((clip(was), clip(is)))
}

/// The members of a type's text, then a word for its end.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(['{', ';', '}']).map(str::trim).filter(|part| !part.is_empty());
    parts.map(clip).chain(std::iter::once("nothing more"))
}

fn clip(text: &str) -> &str {
    const LONGEST: usize = 60;
    let end = (0..=LONGEST.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
#[path = "difference_tests.rs"]
mod tests;
