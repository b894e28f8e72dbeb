//! Steps on programs and their maps, which hooks share.

use crate::catalog::{Catalog, Load, Usable};
use crate::chain::list;
use crate::hook::HookPlan;
use pointsman_model::chain::MemberSpec;
use pointsman_model::observed::Observed;
use pointsman_model::plan::{
    Note, PrepareProgram, ReleaseProgram, SetMapEntries, Step, entries_digest,
};
use std::collections::{BTreeMap, BTreeSet};

/// Pins the programs of `running` that are not pinned, then fills maps that do not hold what they
/// should.
pub(crate) fn prepare(
    running: &BTreeSet<&Load>,
    catalog: &Catalog<'_>,
    observed: &Observed,
) -> Vec<Step> {
    let (mut prepare, mut fill) = (Vec::new(), Vec::new());
    for program in catalog.usable() {
        let load = program.load();
        if !running.contains(&load) {
            continue;
        }
        let pinned = observed.programs.get(&load);
        let (name, fingerprint) = load;
        if pinned.is_none() {
            prepare.push(Step::PrepareProgram(PrepareProgram {
                program: name.clone(),
                fingerprint: fingerprint.clone(),
            }));
        }
        for (map, entries) in &program.resolved.maps {
            let digest = entries_digest(entries);
            if pinned.and_then(|pinned| pinned.entries.get(map)) != Some(&digest) {
                fill.push(Step::SetMapEntries(SetMapEntries {
                    program: name.clone(),
                    fingerprint: fingerprint.clone(),
                    map: map.clone(),
                    entries: entries.len(),
                    digest,
                }));
            }
        }
    }
    prepare.append(&mut fill);
    prepare
}

/// Releases the pinned programs that no chain uses afterwards; none, and a note, where it cannot
/// be known what a running chain uses.
pub(crate) fn release(hooks: &[HookPlan], observed: &Observed) -> (Vec<Step>, Option<Note>) {
    let unknown = hooks.iter().find(|hook| hook.uses.is_none());
    let used: BTreeSet<&Load> = hooks.iter().flat_map(|hook| hook.uses.iter().flatten()).collect();
    let mut unused = observed.programs.keys().filter(|load| !used.contains(load)).peekable();
    if let Some(HookPlan { diff, .. }) = unknown {
        let note = unused.peek().is_some().then(|| Note {
            hook: Some(diff.hook.clone()),
            program: None,
            message: format!(
                "no program is released, because the record of the chain that runs on {} cannot \
                 be read and any program may be part of it",
                diff.hook
            ),
        });
        return (Vec::new(), note);
    }
    let step = |(program, fingerprint): &Load| {
        Step::ReleaseProgram(ReleaseProgram {
            program: program.clone(),
            fingerprint: fingerprint.clone(),
        })
    };
    (unused.map(step).collect(), None)
}

/// Notes which map contents an upgrade loses.
pub(crate) fn losses(hooks: &[HookPlan], catalog: &Catalog<'_>, observed: &Observed) -> Vec<Note> {
    let mut before: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for hook in hooks.iter().filter(|hook| hook.build.is_some()) {
        for MemberSpec { program, fingerprint, .. } in
            hook.diff.before.iter().flat_map(|spec| &spec.members)
        {
            before.entry(program).or_default().insert(fingerprint);
        }
    }
    let upgraded = catalog.usable().filter(|program| {
        let others = before.get(program.name).is_some_and(|before| {
            before.iter().any(|&fingerprint| *fingerprint != program.fingerprint)
        });
        // Where its maps are pinned already, they keep what they hold.
        others && !observed.programs.contains_key(&program.load())
    });
    upgraded.map(loss).collect()
}

fn loss(program: &Usable<'_>) -> Note {
    let name = program.name;
    let maps = program.facts.maps.iter().map(|map| &map.name);
    // Constants hold no state, and what the document lists is filled in before the swap.
    let constant = |map: &str| map.starts_with(".rodata") || map.starts_with(".kconfig");
    let lost: Vec<_> = maps
        .filter(|map| !constant(map.as_str()) && !program.resolved.maps.contains_key(map))
        .collect();
    let message = match lost.as_slice() {
        [] => format!("program {name} is upgraded; no map contents are lost"),
        [map] => format!("state lost: map {map} of program {name} starts empty"),
        maps => format!("state lost: maps {} of program {name} start empty", list(maps)),
    };
    Note { hook: None, program: Some(name.clone()), message }
}
