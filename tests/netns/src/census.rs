//! What the kernel holds of one test: its programs, maps and links, whoever else has some.
//!
//! Names do not tell one test's objects from another's that runs beside it. So the maps of some
//! objects get names that nobody else uses: what has them, or uses them, is this test's. Maps of
//! objects that a test does not bring, the daemon's own, are known by a program that uses them.
//!
//! Nobody should list maps with other tools meanwhile: that may make the kernel keep a program array
//! for ever (`objects/census.c` says how), which then counts as left over.

use libbpf_rs::query::{LinkInfoIter, ProgInfoIter, ProgInfoQueryOptions};
use libbpf_rs::{Iter, Link, Object, ObjectBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

/// Objects whose maps have names of this test.
#[derive(Debug)]
pub struct Census {
    /// Lists all maps (`census.c`).
    lister: Link,
    _object: Object,
    /// The names.
    marks: BTreeSet<String>,
    /// Maps that are this test's whatever their names are.
    adopted: BTreeSet<u32>,
    /// Every map seen so far that belongs to a program of this test.
    seen: BTreeSet<u32>,
}

/// What there is of a test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// How many maps there are by each name of this test.
    pub maps: BTreeMap<String, usize>,
    /// How many programs use one of them.
    pub programs: usize,
    /// How many links run one of those programs.
    pub links: usize,
}

impl Default for Census {
    /// Nothing is marked yet.
    fn default() -> Self {
        let bytes = crate::object("census");
        let open = ObjectBuilder::default().open_memory(&bytes).expect("libbpf opens it");
        let object = open.load().expect("root, and a kernel with BTF");
        let lister = object.progs_mut().next().expect("one program").attach().expect("an iterator");
        let (marks, adopted, seen) = Default::default();
        Self { lister, _object: object, marks, adopted, seen }
    }
}

impl Census {
    /// All maps of the kernel: id and name.
    ///
    /// # Panics
    /// The kernel does not tell.
    #[must_use]
    pub fn maps(&self) -> Vec<(u32, String)> {
        let mut text = String::new();
        let mut list = Iter::new(&self.lister).expect("an iterator");
        list.read_to_string(&mut text).expect("a list");
        let map = |line: &str| {
            let (id, name) = line.split_once(' ')?;
            Some((id.parse().ok()?, name.to_owned()))
        };
        text.lines().filter_map(map).collect()
    }

    /// Gives a map of an object a name of this test, of the same length. Returns the name.
    ///
    /// # Panics
    /// The object has no such map, or its name is too short.
    pub fn mark(&mut self, object: &mut [u8], map: &str) -> String {
        const FIRST: usize = 3;
        assert!(map.len() > FIRST, "{map} has no room for a number");
        let width = map.len() - FIRST;
        let number = (std::process::id().wrapping_add(crate::unique())) as usize;
        let number = number % 36usize.pow(u32::try_from(width).unwrap_or(1).min(6));
        let name = format!("{}{}", &map[..FIRST], digits(number, width));
        // In the symbols' names and in BTF's.
        let places: Vec<_> = (0..object.len().saturating_sub(map.len()))
            .filter(|&at| object[at..].starts_with(map.as_bytes()) && object[at + map.len()] == 0)
            .collect();
        assert!(places.len() > 1, "no map {map}");
        for at in places {
            object[at..at + map.len()].copy_from_slice(name.as_bytes());
        }
        self.marks.insert(name.clone());
        name
    }

    /// Takes the maps that a program uses for this test's, by whatever names.
    ///
    /// # Panics
    /// There is no such program.
    pub fn adopt(&mut self, program: u32) {
        let used = maps_of(program).expect("a program of this number");
        self.seen.extend(&used);
        self.adopted.extend(used);
    }

    /// Counts.
    pub fn take(&mut self) -> Held {
        let mut held = Held::default();
        let mut marked = BTreeSet::new();
        for (id, name) in self.maps() {
            if self.marks.contains(&name) || self.adopted.contains(&id) {
                marked.insert(id);
                *held.maps.entry(name).or_default() += 1;
            }
        }
        let mut programs = BTreeSet::new();
        for program in programs_with_maps() {
            if program.map_ids.iter().any(|map| marked.contains(map)) {
                programs.insert(program.id);
                self.seen.extend(program.map_ids);
            }
        }
        held.programs = programs.len();
        held.links =
            LinkInfoIter::default().filter(|link| programs.contains(&link.prog_id)).count();
        held
    }

    /// How many maps that programs of this test ever used are still there: those without a name
    /// of their own as well, such as counters.
    #[must_use]
    pub fn left(&self) -> usize {
        self.maps().iter().filter(|(id, _)| self.seen.contains(id)).count()
    }
}

fn programs_with_maps() -> ProgInfoIter {
    ProgInfoIter::with_query_opts(ProgInfoQueryOptions::default().include_map_ids(true))
}

/// The maps that a program uses, by number; `None`: there is no such program.
#[must_use]
pub fn maps_of(program: u32) -> Option<Vec<u32>> {
    programs_with_maps().find(|found| found.id == program).map(|found| found.map_ids)
}

/// `number` to the base of 36 in exactly `width` digits.
fn digits(mut number: usize, width: usize) -> String {
    let digit = |_| {
        let digit = char::from_digit((number % 36) as u32, 36).unwrap_or('0');
        number /= 36;
        digit
    };
    (0..width).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_object_has_its_map_by_another_name_only() {
        let mut census = Census::default();
        let mut object = crate::object("timer");
        let name = census.mark(&mut object, "clocks");
        let has = |name: &str| object.windows(name.len()).any(|part| part == name.as_bytes());
        assert!(has(&format!("{name}\0")) && !has("clocks\0"), "{name}");
        assert_eq!((name.len(), &name[..3]), (6, "clo"));
        assert_eq!(digits(35 + 36, 3), "z10");
    }
}
