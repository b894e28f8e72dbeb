//! Steps on programs and their maps, which hooks share.

use crate::catalog::{Catalog, Load};
use crate::hook::HookPlan;
use crate::upgrade::{Upgrade, latest, upgrade};
use pointsman_model::ProgramName;
use pointsman_model::observed::{Observed, ObservedProgram};
use pointsman_model::plan::{
    Note, PinMaps, PrepareProgram, ReleaseProgram, SetMapEntries, Step, entries_digest,
};
use std::collections::BTreeSet;

/// Pins the programs of `running` that are not pinned, or not whole, then fills maps that do not hold what they
/// should. Notes what becomes of map contents.
pub(crate) fn prepare(
    running: &BTreeSet<&Load>,
    catalog: &Catalog<'_>,
    observed: &Observed,
) -> (Vec<Step>, Vec<Note>) {
    let (mut prepare, mut fill, mut all_notes) = (Vec::new(), Vec::new(), Vec::new());
    for program in catalog.usable() {
        let load = program.load();
        if !running.contains(&load) {
            continue;
        }
        let pinned = observed.programs.get(&load);
        let (name, fingerprint) = load;
        // What its maps were told to hold, those that are taken over included.
        let mut told = pinned.map(|pinned| pinned.entries.clone()).unwrap_or_default();
        if pinned.is_none() {
            let Upgrade { keeps, loses, notes } = upgrade(program, observed);
            for (map, from) in &keeps {
                let from = observed.programs.get(&(name.clone(), from.clone()));
                let digest = from.and_then(|from| from.entries.get(map));
                told.extend(digest.map(|digest| (map.clone(), *digest)));
            }
            all_notes.extend(notes);
            prepare.push(Step::PrepareProgram(PrepareProgram {
                program: name.clone(),
                fingerprint: fingerprint.clone(),
                keeps,
                loses,
            }));
        }
        let unpinned: Vec<_> =
            pinned.into_iter().flat_map(ObservedProgram::unpinned).cloned().collect();
        if !unpinned.is_empty() {
            prepare.push(Step::PinMaps(PinMaps {
                program: name.clone(),
                fingerprint: fingerprint.clone(),
                maps: unpinned,
            }));
        }
        for (map, entries) in &program.resolved.maps {
            let digest = entries_digest(entries);
            if told.get(map) != Some(&digest) {
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
    (prepare, all_notes)
}

/// Releases the pinned programs that no chain uses afterwards; none, and a note, where it cannot
/// be known what a running chain uses. Of each of `waiting`, the programs that refused and pending hooks
/// want, one load stays: the upgrade takes its maps over when the obstacle is gone.
pub(crate) fn release(
    hooks: &[HookPlan],
    waiting: &BTreeSet<&ProgramName>,
    observed: &Observed,
) -> (Vec<Step>, Option<Note>) {
    let unknown = hooks.iter().find(|hook| hook.uses.is_none());
    let mut used: BTreeSet<&Load> =
        hooks.iter().flat_map(|hook| hook.uses.iter().flatten()).collect();
    for name in waiting {
        let mut loads = observed.programs.keys().filter(|(other, _)| other == *name);
        if !loads.clone().any(|load| used.contains(load)) {
            let latest = latest(name, observed);
            used.extend(loads.find(|(_, fingerprint)| Some(fingerprint) == latest));
        }
    }
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
