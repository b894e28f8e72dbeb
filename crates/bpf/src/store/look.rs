//! Looking at the pins: hooks, programs, counts. Changes nothing.

use super::links::HookLink;
use super::programs::observe;
use super::slots::{slot_path, whole};
use super::{HookCounts, Store};
use crate::chain::Counters;
use crate::error::Error;
use crate::kernel::{self, ProgramInfo};
use crate::pins;
use libbpf_rs::MapHandle;
use pointsman_model::chain::{ChainId, ChainRecord, ExitCounts, Sequence, Totals};
use pointsman_model::ids::HookKind;
use pointsman_model::observed::{ObservedChain, ObservedHook, ObservedLink, ObservedProgram};
use pointsman_model::{Fingerprint, HookId, InterfaceId, ProgramName, Verdicts};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

impl Store {
    /// All hooks of which there are pins.
    ///
    /// # Errors
    /// The pins cannot be read.
    pub fn hooks(&self) -> Result<BTreeMap<HookId, ObservedHook>, Error> {
        self.keep_root()?;
        let mut hooks = BTreeMap::new();
        for file in pins::list(&self.root.join("hooks"))? {
            let Ok(interface) = InterfaceId::try_from(pins::name_of(&file)) else { continue };
            let hook = HookId { interface, kind: HookKind::Xdp };
            if pins::exists(&self.hook(&hook)) {
                let observed = self.observe_hook(&hook)?;
                hooks.insert(hook, observed);
            }
        }
        // Those of which somebody removed all pins.
        let mut held: Vec<_> = self.held.links().keys().cloned().collect();
        held.extend(self.held.slots().keys().cloned());
        for hook in held {
            if hooks.contains_key(&hook) {
                continue;
            }
            let observed = self.observe_hook(&hook)?;
            if observed.link.is_some() || !observed.held.is_empty() {
                hooks.insert(hook, observed);
            }
        }
        Ok(hooks)
    }

    fn observe_hook(&self, hook: &HookId) -> Result<ObservedHook, Error> {
        let link = self.link(hook)?.map(|HookLink { info, pinned, .. }| ObservedLink {
            program_id: info.program_id,
            interface_index: info.interface_index,
            pinned,
            slots: None,
        });
        let mut chains = BTreeMap::new();
        for sequence in self.sequences(hook)? {
            let path = self.chain(&ChainId { hook: hook.clone(), sequence });
            let program = kernel::open_pin(&path.join("program"))?;
            let program_id = match program {
                Some(fd) => Some(kernel::program_info(fd.as_fd())?.id),
                None => None,
            };
            let record = read::<ChainRecord>(&path.join("record"));
            let slots = record.as_ref().map(|record| whole(&path, record)).transpose()?;
            let slots = slots.unwrap_or_default();
            chains.insert(sequence, ObservedChain { program_id, slots, record });
        }
        let held = self.held.slots().get(hook).cloned().unwrap_or_default();
        Ok(ObservedHook { link, chains, folded: self.totals(hook).folded, held })
    }

    pub(super) fn sequences(&self, hook: &HookId) -> Result<Vec<Sequence>, Error> {
        let files = pins::list(&self.hook(hook).join("chains"))?;
        Ok(files.iter().filter_map(|file| file.parse().ok()).collect())
    }

    pub(super) fn totals(&self, hook: &HookId) -> Totals {
        read(&self.hook(hook).join("totals")).unwrap_or_default()
    }

    /// All programs of which there are pinned maps.
    ///
    /// # Errors
    /// The pins cannot be read.
    pub fn programs(&self) -> Result<BTreeMap<(ProgramName, Fingerprint), ObservedProgram>, Error> {
        let mut programs = BTreeMap::new();
        let root = self.root.join("programs");
        for file in pins::list(&root)? {
            let Ok(name) = ProgramName::new(pins::name_of(&file)) else { continue };
            for fingerprint in pins::list(&root.join(&file))? {
                let Some(fingerprint) = Fingerprint::from_pin(&fingerprint) else { continue };
                let directory = self.program(&name, &fingerprint);
                if pins::exists(&directory.join("entries")) {
                    let observed = observe(&directory);
                    programs.insert((name.clone(), fingerprint), observed);
                }
            }
        }
        Ok(programs)
    }

    /// The live chain of a hook with its counts, and the totals.
    ///
    /// # Errors
    /// The pins cannot be read.
    pub fn counts(&self, hook: &HookId) -> Result<HookCounts, Error> {
        let totals = self.totals(hook);
        let live = match self.live(hook)? {
            Some(sequence) => {
                let path = self.chain(&ChainId { hook: hook.clone(), sequence });
                match read::<ChainRecord>(&path.join("record")) {
                    Some(record) => {
                        let exits = exits(&path, &record);
                        Some((sequence, record, exits))
                    }
                    None => None,
                }
            }
            None => None,
        };
        Ok(HookCounts { live, totals })
    }

    /// The fused program that a link runs on a hook; `None`: there is none, or slots of a dispatcher
    /// run there.
    ///
    /// # Errors
    /// The pins cannot be read.
    pub fn fused(&self, hook: &HookId) -> Result<Option<(Sequence, ProgramInfo)>, Error> {
        match self.live_program(hook)? {
            Some((sequence, fd)) => Ok(Some((sequence, kernel::program_info(fd.as_fd())?))),
            None => Ok(None),
        }
    }

    /// The chain whose program the link runs.
    pub(super) fn live_program(&self, hook: &HookId) -> Result<Option<(Sequence, OwnedFd)>, Error> {
        let Some(HookLink { info, .. }) = self.link(hook)? else { return Ok(None) };
        for sequence in self.sequences(hook)? {
            let path = self.chain(&ChainId { hook: hook.clone(), sequence });
            if let Some(fd) = kernel::open_pin(&path.join("program"))?
                && kernel::program_info(fd.as_fd())?.id == info.program_id
            {
                return Ok(Some((sequence, fd)));
            }
        }
        Ok(None)
    }
}

/// What each part of a chain has counted so far.
pub(super) fn exits(path: &Path, record: &ChainRecord) -> Vec<ExitCounts> {
    let parts = record.spec.parts().enumerate().map(|(at, (members, slot))| {
        let directory = slot.map_or_else(|| path.to_owned(), |_| slot_path(path, at));
        exits_of_part(&directory.join("counters"), members.len())
    });
    parts.collect()
}

/// What a program has counted so far. Counters that somebody unpinned count nothing any more: that
/// is said, and stands in nobody's way.
fn exits_of_part(path: &Path, members: usize) -> ExitCounts {
    let read = || {
        let map = MapHandle::from_pinned_path(path)
            .map_err(|e| Error::Pin { path: path.display().to_string(), why: e.to_string() })?;
        Counters::open(map, members)?.read()
    };
    read().unwrap_or_else(|e| {
        tracing::warn!("{e}; what this chain counts is not known");
        ExitCounts { members: vec![Verdicts::default(); members], end: 0 }
    })
}

/// Reads a JSON record; one that cannot be read counts as absent, and is said.
pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = match pins::read_record(path) {
        Ok(bytes) => bytes?,
        Err(e) => {
            tracing::warn!("{e}");
            return None;
        }
    };
    serde_json::from_slice(&bytes)
        .inspect_err(|e| tracing::warn!("{}: unreadable record: {e}", path.display()))
        .ok()
}
