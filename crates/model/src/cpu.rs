//! The processors of a host: sets of CPUs as the kernel writes them, and how CPUs hang together.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// One more than the highest CPU number of a host: the largest `NR_CPUS` of any architecture
/// (`arch/x86/Kconfig`, `MAXSMP`).
pub const MAX_CPUS: u32 = 8192;

/// A set of CPUs. As text it is the kernel's list format, such as `0-3,8`; the empty set is empty
/// text (`Documentation/core-api/printk-formats.rst`, `%*pbl`).
#[derive(
    Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "0-3,8")]
pub struct CpuSet(BTreeSet<u32>);

/// Text that is no list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} in a list of CPUs: expected numbers and ranges such as 0-3,8, below {MAX_CPUS}")]
pub struct InvalidCpuList {
    /// The item that is wrong, cut where it is long.
    pub found: String,
}

impl CpuSet {
    /// Whether `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.contains(&cpu)
    }

    /// The CPUs, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The CPU at place `at` of the ascending order.
    #[must_use]
    pub fn nth(&self, at: usize) -> Option<u32> {
        self.iter().nth(at)
    }

    /// Whether some CPU is in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let (few, many) = if self.len() <= other.len() { (self, other) } else { (other, self) };
        few.iter().any(|cpu| many.contains(cpu))
    }

    /// The CPUs that are in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.iter().filter(|cpu| other.contains(*cpu)).collect()
    }

    /// Adds all of `other`.
    pub fn join(&mut self, other: &Self) {
        self.0.extend(other.iter());
    }
}

impl FromIterator<u32> for CpuSet {
    /// Numbers from [`MAX_CPUS`] on are left out: no host has them.
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self(cpus.into_iter().filter(|cpu| *cpu < MAX_CPUS).collect())
    }
}

impl FromStr for CpuSet {
    type Err = InvalidCpuList;

    fn from_str(text: &str) -> Result<Self, InvalidCpuList> {
        let mut cpus = BTreeSet::new();
        for item in text.trim().split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let wrong = || InvalidCpuList { found: item.chars().take(40).collect() };
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let number = |text: &str| {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse::<u32>().ok().filter(|cpu| digits && *cpu < MAX_CPUS).ok_or_else(wrong)
            };
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }
}

impl TryFrom<String> for CpuSet {
    type Error = InvalidCpuList;
    fn try_from(text: String) -> Result<Self, InvalidCpuList> {
        text.parse()
    }
}

impl From<CpuSet> for String {
    fn from(cpus: CpuSet) -> Self {
        cpus.to_string()
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let mut cpus = self.iter().peekable();
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if_eq(&(last + 1)) {
                last = next;
            }
            let comma = if text.is_empty() { "" } else { "," };
            text += &match last - first {
                0 => format!("{comma}{first}"),
                _ => format!("{comma}{first}-{last}"),
            };
        }
        f.pad(&text)
    }
}

/// The processors of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Topology {
    /// All CPUs that are there, also those that are offline, ascending by number.
    pub cpus: Vec<Cpu>,
    /// Distances between NUMA nodes: from a node to each node, as firmware tells them (10: itself).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub distances: BTreeMap<u32, BTreeMap<u32, u32>>,
}

/// One CPU: what the kernel schedules on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cpu {
    /// Its number.
    pub id: u32,
    /// Whether it runs. Of one that does not, the kernel tells no place but its NUMA node.
    pub online: bool,
    /// Whether the scheduler leaves it alone: `isolcpus=`, or an isolated cpuset partition.
    pub isolated: bool,
    /// Its NUMA node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// Its socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<u32>,
    /// The CPUs of its core, itself included; empty: not known.
    #[serde(default, skip_serializing_if = "CpuSet::is_empty")]
    pub siblings: CpuSet,
    /// What kind of core it is, on hosts that have several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<CoreKind>,
}

/// The kinds of cores of a hybrid host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CoreKind {
    /// Fast.
    Performance,
    /// Small.
    Efficiency,
}

impl Topology {
    /// The CPU with this number.
    #[must_use]
    pub fn cpu(&self, id: u32) -> Option<&Cpu> {
        self.cpus.binary_search_by_key(&id, |cpu| cpu.id).ok().map(|at| &self.cpus[at])
    }

    /// The CPUs that run.
    #[must_use]
    pub fn online(&self) -> CpuSet {
        self.cpus.iter().filter(|cpu| cpu.online).map(|cpu| cpu.id).collect()
    }

    /// How far node `to` is from node `from`: firmware's number, or else 10 for the same and 20
    /// for another, as the kernel assumes (`include/linux/topology.h`).
    #[must_use]
    pub fn distance(&self, from: u32, to: u32) -> u32 {
        let told = self.distances.get(&from).and_then(|row| row.get(&to)).copied();
        told.unwrap_or(if from == to { 10 } else { 20 })
    }
}

impl Cpu {
    /// The CPUs of its core; of one whose core is not known, itself.
    #[must_use]
    pub fn core(&self) -> CpuSet {
        if self.siblings.contains(self.id) {
            self.siblings.clone()
        } else {
            [self.id].into_iter().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_list_is_named() {
        for bad in ["a", "1-", "-1", "3-1", "1,x", "8192", "0-99999999999", "+1", "1 2"] {
            assert!(bad.parse::<CpuSet>().is_err(), "{bad}");
        }
        let error = format!("0-3,{}", "9".repeat(100)).parse::<CpuSet>().unwrap_err();
        assert_eq!(error.found.len(), 40);
        for (good, text) in [("", ""), ("\n", ""), ("0-3,8\n", "0-3,8"), ("3,2,1", "1-3")] {
            assert_eq!(good.parse::<CpuSet>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn a_list_says_what_the_set_holds(
            a in prop::collection::btree_set(0..MAX_CPUS, 0..40),
            b in prop::collection::btree_set(0..64u32, 0..40),
        ) {
            let [left, right] = [&a, &b].map(|set| set.iter().copied().collect::<CpuSet>());
            prop_assert_eq!(left.to_string().parse::<CpuSet>().unwrap(), left.clone());
            prop_assert_eq!(left.meets(&right), !left.and(&right).is_empty());
            prop_assert_eq!(left.meets(&right), a.intersection(&b).next().is_some());
        }
    }
}
