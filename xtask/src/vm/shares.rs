//! Which tests run, and on which of the machines that run side by side.

use crate::libtest::Tally;
use crate::process::capture;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// Tests of one module in one binary: one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) binary: PathBuf,
    /// Their full names, in the binary's order.
    pub(super) tests: Vec<String>,
}

/// The tests that `filters` name, as each binary lists them.
///
/// # Errors
/// A binary does not run.
pub(super) fn listed(binaries: &[PathBuf], filters: &[String]) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    for binary in binaries {
        let mut list = Command::new(binary);
        list.args(filters).args(["--list", "--format", "terse"]);
        let output = capture(&mut list).with_context(|| format!("{}", binary.display()))?;
        let names = output.lines().filter_map(|line| line.strip_suffix(": test"));
        groups.extend(grouped(names).into_iter().map(|tests| {
            let tests = tests.into_iter().map(str::to_owned).collect();
            Group { binary: binary.clone(), tests }
        }));
    }
    Ok(groups)
}

/// Neighbours of one module together.
fn grouped<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Vec<&'a str>> {
    let mut groups: Vec<Vec<&str>> = Vec::new();
    for name in names {
        match groups.last_mut() {
            Some(group) if module(group[0]) == module(name) => group.push(name),
            _ => groups.push(vec![name]),
        }
    }
    groups
}

/// What one machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// How many CPUs the machine has.
    pub(super) cpus: u32,
    /// Whether it has network cards that QEMU emulates, for the kernel's own drivers.
    pub(super) cards: bool,
    pub(super) groups: Vec<Group>,
}

impl Share {
    /// What it comes to if none of its tests is begun.
    pub(super) fn left_out(&self, why: &str) -> Tally {
        let mut tally = Tally::default();
        for test in self.groups.iter().flat_map(|group| &group.tests) {
            println!("skipped: {test}: {why}");
            tally.skip(test, why);
        }
        tally
    }
}

/// Modules about what happens at the same moment, which takes two CPUs.
const CONCURRENT: &[&str] = &[
    "vm::daemon::kills",
    "vm::dispatcher::chain_kills",
    "vm::dispatcher::chains",
    "vm::dispatcher::kills",
    "vm::dispatcher::races",
    "vm::survive",
    "vm::xsk",
];

/// The module about network cards with drivers of the kernel's. All others see a machine without.
const HARDWARE: &str = "vm::hardware";

/// Tests that take minutes, and in a long run most of its time: each starts first and for itself.
const LONG: &str = "vm::equivalence::chains_do_in_every_";

/// How many machines the other tests are for, at most, and how many tests are worth one: it takes
/// five seconds to come up.
const PARTS: usize = 4;
const WORTH: usize = 4;

/// Divides tests among machines. Those that take longest come first.
pub(super) fn dealt(groups: Vec<Group>) -> Vec<Share> {
    let is_of = |group: &Group, modules: &[&str]| {
        group.tests.iter().any(|it| modules.contains(&module(it)))
    };
    let (hardware, groups) = split(groups, |group| is_of(group, &[HARDWARE]));
    let (concurrent, mut others) = split(groups, |group| is_of(group, CONCURRENT));
    let single = |test: String, binary: &PathBuf| Share {
        cpus: 1,
        cards: false,
        groups: vec![Group { binary: binary.clone(), tests: vec![test] }],
    };
    let mut long = Vec::new();
    for Group { binary, tests } in &mut others {
        let taken = tests.extract_if(.., |test| test.starts_with(LONG));
        long.extend(taken.map(|test| single(test, binary)));
    }
    others.retain(|group| !group.tests.is_empty());
    let count: usize = others.iter().map(|group| group.tests.len()).sum();
    let parts = count.div_ceil(WORTH).min(PARTS);
    let plain = |groups| Share { cpus: 1, cards: false, groups };
    let others = parted(&others, parts).into_iter().map(plain);
    let concurrent = Share { cpus: 2, cards: false, groups: concurrent };
    // Drivers make as many queues as there are CPUs.
    let hardware = Share { cpus: 2, cards: true, groups: hardware };
    let shares = [concurrent].into_iter().chain(long).chain([hardware]).chain(others);
    shares.filter(|share| !share.groups.is_empty()).collect()
}

fn split(groups: Vec<Group>, is: impl Fn(&Group) -> bool) -> (Vec<Group>, Vec<Group>) {
    groups.into_iter().partition(is)
}

/// Deals tests out as cards are: modules are alike in themselves and unlike each other, so that
/// each part gets its share of the long ones.
fn parted(groups: &[Group], parts: usize) -> Vec<Vec<Group>> {
    let mut dealt = vec![Vec::new(); parts];
    let mut next = (0..parts).cycle();
    for group in groups {
        let mut hands = vec![Vec::new(); parts];
        for (test, at) in group.tests.iter().zip(&mut next) {
            hands[at].push(test.clone());
        }
        for (part, tests) in dealt.iter_mut().zip(hands) {
            if !tests.is_empty() {
                part.push(Group { binary: group.binary.clone(), tests });
            }
        }
    }
    dealt
}

fn module(test: &str) -> &str {
    test.rsplit_once("::").map_or("", |(module, _)| module)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(tests: &[&str]) -> Group {
        let tests = tests.iter().map(|&test| test.to_owned()).collect();
        Group { binary: PathBuf::from("ring"), tests }
    }

    #[test]
    fn tests_of_one_module_share_a_process() {
        let names = ["vm::a::one", "vm::a::two", "vm::b::c::one", "vm::b::two", "alone"];
        let expected: [&[&str]; 4] =
            [&["vm::a::one", "vm::a::two"], &["vm::b::c::one"], &["vm::b::two"], &["alone"]];
        assert_eq!(grouped(names.into_iter()), expected);
    }

    #[test]
    fn each_test_is_dealt_to_one_machine() {
        let groups = [group(&["a::1", "a::2", "a::3"]), group(&["b::1"]), group(&["c::1"])];
        assert_eq!(parted(&groups, 1), [groups.to_vec()]);
        let first = vec![group(&["a::1", "a::3"]), group(&["c::1"])];
        assert_eq!(parted(&groups, 2), [first, vec![group(&["a::2"]), group(&["b::1"])]]);
        let cpus = |shares: Vec<Share>| shares.iter().map(|share| share.cpus).collect::<Vec<_>>();
        assert_eq!(cpus(dealt(groups.to_vec())), [1, 1]);
        let races = group(&["vm::dispatcher::races::one"]);
        assert_eq!(cpus(dealt(vec![groups[1].clone(), races.clone()])), [2, 1]);
        assert_eq!(
            dealt(vec![races.clone()]),
            [Share { cpus: 2, cards: false, groups: vec![races] }]
        );
        let hardware = group(&["vm::hardware::one"]);
        let with_cards = |share: &Share| share.cards == (share.groups == [hardware.clone()]);
        assert!(dealt(vec![hardware.clone(), groups[0].clone()]).iter().all(with_cards));
        let long = format!("{LONG}form");
        let shares = dealt(vec![group(&[&long, "vm::equivalence::other"])]);
        let tests: Vec<_> = shares.iter().map(|share| &share.groups[0].tests[..]).collect();
        assert_eq!(tests, [[long], ["vm::equivalence::other".to_owned()]]);
        assert!(dealt(Vec::new()).is_empty());
    }
}
