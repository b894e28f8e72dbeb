//! Maps of a program: where they are pinned, and what a document wants in them.

use crate::error::Error;
use crate::kernel;
use crate::object::{MapRef, Object, text};
use crate::pins;
use crate::types;
use crate::value::{TypeLayout, ValueError};
use libbpf_rs::btf::TypeId;
use libbpf_rs::{Btf, MapCore as _, MapFlags, MapHandle, MapInfo, MapType};
use libbpf_sys as sys;
use pointsman_model::document::MapEntry;
use pointsman_model::facts::{InitialContents, MapDefinition, MapFacts, is_named_section};
use pointsman_model::{MapName, Sha256};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

/// Where a program's maps live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapHome {
    /// With the program: they vanish when the last user does.
    Anonymous,
    /// Pinned in this directory, one file a map; maps found there are used again.
    Pinned(PathBuf),
}

/// The kernel's name of a map type.
pub(crate) fn kind_name(kind: MapType) -> String {
    // SAFETY: libbpf answers null or a string that lives for ever.
    let name = unsafe { text(sys::libbpf_bpf_map_type_str(u32::from(kind))) };
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// What an object says of its maps. Before it is prepared: libbpf then replaces definitions by what
/// it made of them, or took over.
pub(crate) fn facts(object: &Object) -> Vec<MapFacts> {
    let btf = object.btf();
    let facts = |map: MapRef<'_>| {
        Some(MapFacts {
            name: MapName::new(map.name()).ok()?,
            definition: definition(map, btf.as_ref()),
            initial: initial(object, map),
        })
    };
    object.maps().into_iter().filter_map(facts).collect()
}

fn definition(map: MapRef<'_>, btf: Option<&Btf<'_>>) -> MapDefinition {
    // Variables that everybody puts into one section move with any change of an object. A section
    // that an author has named is meant to stay what it is.
    let typed = btf.filter(|_| !map.is_internal() || is_named_section(&map.name()));
    // Number 0 is void, which has no description.
    let describe = |id: TypeId| types::describe(typed?, id);
    let (key, value) = (describe(map.key_type()), describe(map.value_type()));
    MapDefinition {
        kind: kind_name(map.kind()),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.flags(),
        extra: map.extra(),
        callbacks: value.as_ref().is_some_and(|value| value.callbacks),
        key: key.map(|key| key.text),
        value: value.map(|value| value.text),
        // The kernel takes no map of maps of maps.
        inner: map.inner().map(|inner| Box::new(definition(inner, btf))),
    }
}

fn initial(object: &Object, map: MapRef<'_>) -> InitialContents {
    let name = map.name();
    if object.fills(map) {
        InitialContents::Slots
    } else if !map.is_internal() {
        InitialContents::Nothing
    } else if name.starts_with(".data") || name.starts_with(".bss") {
        InitialContents::Variables(map.with_initial_value(|bytes| Sha256::of(bytes)))
    } else {
        InitialContents::Constants
    }
}

/// Makes the object use the maps that are pinned already. Returns whether it has program arrays to
/// fill that are new, or pinned and empty.
pub(crate) fn adopt(object: &Object, home: &MapHome) -> Result<bool, Error> {
    let mut unfilled = false;
    for map in object.maps() {
        let is_filled = map.kind() == MapType::ProgArray && object.fills(map);
        let MapHome::Pinned(directory) = home else {
            unfilled |= is_filled;
            continue;
        };
        let path = directory.join(pins::file_name(&map.name()));
        let Some(fd) = kernel::open_pin(&path)? else {
            unfilled |= is_filled;
            continue;
        };
        let wrong = |why: String| Error::Pin { path: path.display().to_string(), why };
        let info = MapInfo::new(fd.as_fd()).map_err(|_| wrong("is not a map".into()))?.info;
        let found = (info.type_, info.key_size, info.value_size, info.max_entries);
        // An object may leave the number of entries to the loader (0).
        let entries = if map.max_entries() == 0 { info.max_entries } else { map.max_entries() };
        let wanted = (u32::from(map.kind()), map.key_size(), map.value_size(), entries);
        if found != wanted {
            return Err(wrong(format!(
                "is another map than the object's: type, key, value and entries are {found:?}, \
                 expected {wanted:?}; remove the pin to start with an empty map"
            )));
        }
        // SAFETY: the object is open and not yet loaded; libbpf keeps a duplicate of the
        // descriptor.
        let code = unsafe { sys::bpf_map__reuse_fd(map.as_ptr(), fd.as_raw_fd()) };
        if code < 0 {
            return Err(Error::code(format!("use map {}", path.display()), code));
        }
        if is_filled {
            let map = MapHandle::from_pinned_path(&path).map_err(|e| wrong(e.to_string()))?;
            let slots = 0..info.max_entries;
            unfilled |= !slots
                .into_iter()
                .any(|slot| matches!(map.lookup(&slot.to_ne_bytes(), MapFlags::ANY), Ok(Some(_))));
        }
    }
    Ok(unfilled)
}

/// Pins the object's maps that are not pinned yet.
pub(crate) fn pin(object: &Object, home: &MapHome) -> Result<(), Error> {
    let MapHome::Pinned(directory) = home else { return Ok(()) };
    pins::make_directory(directory)?;
    for map in object.maps() {
        let path = directory.join(pins::file_name(&map.name()));
        // SAFETY: the object is prepared; the descriptor lives as long as it does.
        let fd = unsafe { sys::bpf_map__fd(map.as_ptr()) };
        if fd < 0 || pins::exists(&path) {
            continue;
        }
        // SAFETY: as above; not negative.
        kernel::pin(unsafe { BorrowedFd::borrow_raw(fd) }, &path)?;
    }
    Ok(())
}

/// Checks that the object has maps of these names.
pub(crate) fn check_names<'n>(
    object: &Object,
    names: impl Iterator<Item = &'n MapName>,
) -> Result<(), Error> {
    let maps: Vec<_> = object.maps().into_iter().map(MapRef::name).collect();
    match names.into_iter().find(|name| !maps.iter().any(|map| map == name.as_str())) {
        Some(name) => Err(Error::NoSuchMap { name: name.to_string(), available: in_words(&maps) }),
        None => Ok(()),
    }
}

fn in_words(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Reads one entry of a prepared object's map.
pub(crate) fn value(object: &Object, name: &str, key: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let failed = |why: String| Error::Map { map: name.to_owned(), why };
    let maps = object.maps();
    let map = maps.iter().find(|map| map.name() == name).ok_or_else(|| Error::NoSuchMap {
        name: name.to_owned(),
        available: maps.iter().map(|map| map.name()).collect::<Vec<_>>().join(", "),
    })?;
    // SAFETY: the object is prepared; the descriptor lives as long as it does.
    let fd = unsafe { sys::bpf_map__fd(map.as_ptr()) };
    if fd < 0 {
        return Err(failed("is not created".into()));
    }
    // SAFETY: as above; not negative.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let info = MapInfo::new(fd).map_err(|e| failed(e.to_string()))?;
    let map = MapHandle::from_map_id(info.info.id).map_err(|e| failed(e.to_string()))?;
    let found = if map.map_type().is_percpu() {
        map.lookup_percpu(key, MapFlags::ANY).map(Option::unwrap_or_default)
    } else {
        map.lookup(key, MapFlags::ANY).map(|value| value.into_iter().collect())
    };
    found.map_err(|e| failed(e.to_string()))
}

/// One entry, in the bytes of its map.
type Bytes = (Vec<u8>, Vec<u8>);

/// Checks that a map can hold `entries`, and gives their bytes.
pub(crate) fn check_entries(
    object: &Object,
    name: &MapName,
    entries: &[MapEntry],
) -> Result<Vec<Bytes>, Error> {
    let maps = object.maps();
    let fillable: Vec<_> = maps.iter().filter(|map| !map.is_internal()).collect();
    let Some(map) = fillable.iter().find(|map| map.name() == name.as_str()) else {
        let names: Vec<_> = fillable.iter().map(|map| map.name()).collect();
        return Err(Error::NoSuchMap { name: name.to_string(), available: in_words(&names) });
    };
    let refuse = |why: String| Error::Map { map: name.to_string(), why };
    if !is_fillable(map.kind()) {
        let kind = kind_name(map.kind());
        return Err(refuse(format!("a map of type {kind} cannot be filled from a document")));
    }
    if entries.len() > map.max_entries() as usize {
        let (found, room) = (entries.len(), map.max_entries());
        return Err(refuse(format!("{found} entries do not fit into a map of {room}")));
    }
    let (key_layout, value_layout) = map.layouts(object);
    let mut seen = BTreeSet::new();
    let mut all = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let wrong = |part, source| Error::Entry { map: name.to_string(), index, part, source };
        let key = encode_key(map, key_layout.as_ref(), &entry.key).map_err(|e| wrong("key", e))?;
        let size = map.value_size() as usize;
        let value =
            encode(value_layout.as_ref(), &entry.value, size).map_err(|e| wrong("value", e))?;
        if !seen.insert(key.clone()) {
            let message = format!("{} is listed twice", entry.key);
            return Err(wrong("key", ValueError { path: String::new(), message }));
        }
        all.push((key, value));
    }
    Ok(all)
}

fn is_fillable(kind: MapType) -> bool {
    matches!(
        kind,
        MapType::Hash
            | MapType::LruHash
            | MapType::PercpuHash
            | MapType::LruPercpuHash
            | MapType::Array
            | MapType::PercpuArray
            | MapType::LpmTrie
    )
}

fn is_array(kind: MapType) -> bool {
    matches!(kind, MapType::Array | MapType::PercpuArray)
}

fn encode_key(
    map: &MapRef<'_>,
    layout: Option<&TypeLayout>,
    key: &Value,
) -> Result<Vec<u8>, ValueError> {
    let size = map.key_size() as usize;
    if map.kind() == MapType::LpmTrie
        && let Value::String(text) = key
    {
        return prefix(text, size);
    }
    let bytes = encode(layout, key, size)?;
    if is_array(map.kind()) {
        let index = u32::from_ne_bytes(bytes.as_slice().try_into().unwrap_or_default());
        if index >= map.max_entries() {
            let last = map.max_entries().saturating_sub(1);
            let message = format!("expected an index of 0 to {last}, found {index}");
            return Err(ValueError { path: String::new(), message });
        }
    }
    Ok(bytes)
}

/// `192.0.2.0/24` as the kernel's `struct bpf_lpm_trie_key`: the prefix length in this machine's
/// byte order, then the address in the network's.
fn prefix(text: &str, size: usize) -> Result<Vec<u8>, ValueError> {
    let wrong = |message: String| ValueError { path: String::new(), message };
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address
        .parse()
        .map_err(|_| wrong(format!("expected a network such as 192.0.2.0/24, found {text:?}")))?;
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    if octets.len() + 4 != size {
        let family = if octets.len() == 4 { "IPv4" } else { "IPv6" };
        return Err(wrong(format!("{text:?} is {family}, and the map's keys are of {size} bytes")));
    }
    let bits = octets.len() * 8;
    let length: usize = if length.is_empty() { Some(bits) } else { length.parse().ok() }
        .filter(|&length| length <= bits)
        .ok_or_else(|| wrong(format!("expected a prefix length of 0 to {bits}, found {text:?}")))?;
    let host_bits = octets.iter().enumerate().any(|(at, octet)| {
        let kept = length.saturating_sub(at * 8).min(8);
        kept < 8 && octet & (0xff >> kept) != 0
    });
    if host_bits {
        return Err(wrong(format!("{text:?} has bits set behind its prefix length")));
    }
    let mut key = (length as u32).to_ne_bytes().to_vec();
    key.extend(octets);
    Ok(key)
}

/// A value by its BTF; without BTF an unsigned integer of the right size.
fn encode(layout: Option<&TypeLayout>, value: &Value, size: usize) -> Result<Vec<u8>, ValueError> {
    let mut bytes = vec![0; size];
    let integer =
        TypeLayout::Int { bytes: size, signed: false, role: crate::value::IntRole::Number };
    match layout {
        Some(layout) => layout.encode(value, &mut bytes)?,
        None if matches!(size, 1 | 2 | 4 | 8) => integer.encode(value, &mut bytes)?,
        None => {
            let message = format!("the object has no BTF for this type of {size} bytes");
            return Err(ValueError { path: String::new(), message });
        }
    }
    Ok(bytes)
}

/// Makes the map pinned at `directory` hold exactly what the document lists.
pub(crate) fn fill(
    object: &Object,
    directory: &Path,
    name: &MapName,
    entries: &[MapEntry],
) -> Result<(), Error> {
    let bytes = check_entries(object, name, entries)?;
    let path = directory.join(pins::file_name(name.as_str()));
    let map = MapHandle::from_pinned_path(&path)
        .map_err(|e| Error::Pin { path: path.display().to_string(), why: e.to_string() })?;
    set_entries(&map, name.as_str(), &bytes)
}

/// Entries moved by one system call where the kernel can move several.
const BATCH: u32 = 16_384;

/// Makes a map hold exactly `entries`: new and changed ones are written first, then those that
/// are not wanted go, so that no wanted entry is ever missing.
pub(crate) fn set_entries(map: &MapHandle, name: &str, entries: &[Bytes]) -> Result<(), Error> {
    let what = |e: libbpf_rs::Error| Error::Map { map: name.to_owned(), why: e.to_string() };
    let kind = map.map_type();
    if kind.is_percpu() {
        return set_per_cpu(map, entries).map_err(what);
    }
    let mut changed: BTreeMap<&[u8], &[u8]> =
        entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
    let wanted = changed.clone();
    let zero = vec![0; map.value_size() as usize];
    let mut unwanted = Vec::new();
    for_each(map, |key, value| match wanted.get(key.as_slice()) {
        Some(&new) if *new == value => drop(changed.remove(key.as_slice())),
        Some(_) => {}
        // All slots of an array are there for ever; an empty one holds zeros.
        None if is_array(kind) && value == zero => {}
        None => unwanted.push(key),
    })
    .map_err(what)?;
    let changed: Vec<_> = changed.into_iter().collect();
    write(map, &changed).map_err(what)?;
    if is_array(kind) {
        let cleared: Vec<_> =
            unwanted.iter().map(|key| (key.as_slice(), zero.as_slice())).collect();
        return write(map, &cleared).map_err(what);
    }
    unwanted.iter().try_for_each(|key| delete(map, key)).map_err(what)
}

/// Shows every entry of a map.
fn for_each(map: &MapHandle, mut show: impl FnMut(Vec<u8>, Vec<u8>)) -> libbpf_rs::Result<()> {
    // Arrays only: for hash maps the kernel's cursor has four bytes, and libbpf-rs 0.27 gives it
    // as many as a key has.
    if map.map_type() == MapType::Array {
        let mut slots = 0;
        for (key, value) in map.lookup_batch(BATCH, MapFlags::ANY, MapFlags::ANY)? {
            slots += 1;
            show(key, value);
        }
        if slots == map.max_entries() {
            return Ok(());
        }
    }
    // A program that adds and deletes meanwhile can make the walk start over.
    let most = map.max_entries() as usize * 2;
    for key in map.keys().take(most) {
        if let Some(value) = map.lookup(&key, MapFlags::ANY)? {
            show(key, value);
        }
    }
    Ok(())
}

fn write(map: &MapHandle, entries: &[(&[u8], &[u8])]) -> libbpf_rs::Result<()> {
    for batch in entries.chunks(BATCH as usize) {
        let keys: Vec<u8> = batch.iter().flat_map(|(key, _)| *key).copied().collect();
        let values: Vec<u8> = batch.iter().flat_map(|(_, value)| *value).copied().collect();
        let count = u32::try_from(batch.len()).unwrap_or(BATCH);
        if map.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY).is_err() {
            // What a batch cannot do is done one by one; what fails then says which and why.
            for (key, value) in batch {
                map.update(key, value, MapFlags::ANY)?;
            }
        }
    }
    Ok(())
}

/// Every CPU gets the same value.
fn set_per_cpu(map: &MapHandle, entries: &[Bytes]) -> libbpf_rs::Result<()> {
    let cpus = libbpf_rs::num_possible_cpus()?;
    for (key, value) in entries {
        map.update_percpu(key, &vec![value.clone(); cpus], MapFlags::ANY)?;
    }
    let wanted: BTreeSet<&[u8]> = entries.iter().map(|(key, _)| key.as_slice()).collect();
    let zero = vec![vec![0; map.value_size() as usize]; cpus];
    // Collected first: deleting while walking a hash map starts the walk over.
    let others: Vec<_> = map.keys().filter(|key| !wanted.contains(key.as_slice())).collect();
    for key in others {
        if is_array(map.map_type()) {
            map.update_percpu(&key, &zero, MapFlags::ANY)?;
        } else {
            delete(map, &key)?;
        }
    }
    Ok(())
}

fn delete(map: &MapHandle, key: &[u8]) -> libbpf_rs::Result<()> {
    match map.delete(key) {
        Err(e) if e.kind() != libbpf_rs::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_become_trie_keys() {
        assert_eq!(prefix("192.0.2.0/24", 8).unwrap()[4..], [192, 0, 2, 0]);
        assert_eq!(prefix("192.0.2.0/24", 8).unwrap()[..4], 24u32.to_ne_bytes());
        assert_eq!(prefix("192.0.2.7", 8).unwrap()[..4], 32u32.to_ne_bytes());
        assert_eq!(prefix("2001:db8::/32", 20).unwrap().len(), 20);
        assert_eq!(prefix("0.0.0.0/0", 8).unwrap(), [0; 8]);
        for (text, size, part) in [
            ("192.0.2.1/24", 8, "bits set behind"),
            ("192.0.2.0/33", 8, "0 to 32"),
            ("192.0.2.0/24", 20, "is IPv4"),
            ("::/0", 8, "is IPv6"),
            ("example", 8, "expected a network"),
            ("192.0.2.0/-1", 8, "0 to 32"),
        ] {
            let error = prefix(text, size).unwrap_err().message;
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn map_types_have_their_kernel_names() {
        assert_eq!(kind_name(MapType::LruPercpuHash), "lru_percpu_hash");
        assert_eq!(kind_name(MapType::RingBuf), "ringbuf");
        assert_eq!(kind_name(MapType::Unknown), "unknown");
    }
}
