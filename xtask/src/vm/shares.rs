//! Which tests run, and on which of the machines that run side by side.

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
    let module = |name: &'a str| name.rsplit_once("::").map_or("", |(module, _)| module);
    let mut groups: Vec<Vec<&str>> = Vec::new();
    for name in names {
        match groups.last_mut() {
            Some(group) if module(group[0]) == module(name) => group.push(name),
            _ => groups.push(vec![name]),
        }
    }
    groups
}

/// Deals tests out to so many machines, as cards are: modules are alike in themselves and unlike
/// each other, so that each machine gets its part of the long ones.
pub(super) fn dealt(groups: &[Group], machines: usize) -> Vec<Vec<Group>> {
    let mut shares = vec![Vec::new(); machines];
    let mut next = (0..machines).cycle();
    for group in groups {
        let mut parts = vec![Vec::new(); machines];
        for (test, at) in group.tests.iter().zip(&mut next) {
            parts[at].push(test.clone());
        }
        for (share, tests) in shares.iter_mut().zip(parts) {
            if !tests.is_empty() {
                share.push(Group { binary: group.binary.clone(), tests });
            }
        }
    }
    shares.retain(|share| !share.is_empty());
    shares
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
        assert_eq!(dealt(&groups, 1), [groups.to_vec()]);
        let first = vec![group(&["a::1", "a::3"]), group(&["c::1"])];
        assert_eq!(dealt(&groups, 2), [first, vec![group(&["a::2"]), group(&["b::1"])]]);
        assert_eq!(dealt(&groups[1..2], 2).len(), 1, "no machine for nothing");
        assert!(dealt(&[], 2).is_empty());
    }
}
