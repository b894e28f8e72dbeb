//! Chains of slots: into the dispatcher of an interface, and out of it.

use super::Store;
use super::build::refused;
use super::links::HookLink;
use super::look::read;
use crate::dispatcher::{
    Changed, Component, DispatcherError, FLAG_FRAGS, Holder, Lone, Mode, Options, SlotConfig,
    Source, Wanted,
};
use crate::error::Error;
use crate::kernel;
use crate::pins;
use pointsman_model::HookId;
use pointsman_model::chain::{ChainId, ChainRecord, Sequence};
use pointsman_model::observed::{AttachMode, ObservedHook, ObservedLink};
use pointsman_model::plan::{Dispatch, OtherChange};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

impl Store {
    /// Puts a built chain of slots into the dispatcher of an interface of the calling thread's
    /// network namespace, in place of all other slots of the hook, in one swap. Programs of others
    /// stay, and change as `to` says; one of those that is gone by now is left out. A link of the
    /// hook that is pinned, dead or on another interface, ends.
    ///
    /// With `mode` the chain runs there or nowhere; without, where the dispatcher runs that is there.
    ///
    /// # Errors
    /// What runs there cannot be changed, or not to this. Then nothing has changed.
    pub fn dispatch(
        &self,
        chain: &ChainId,
        to: &Dispatch,
        mode: Option<AttachMode>,
    ) -> Result<(), Error> {
        let ours = self.all_slots(&chain.hook)?;
        let slots = self.built_slots(chain)?;
        let mode = mode.map_or(Mode::Auto, Mode::Exactly);
        let changed = self.dispatcher.change(
            to.interface_index,
            &Options { mode, company: to.company, take_empty: true, ..Options::default() },
            |running| {
                if mode == Mode::Auto && running.is_empty() {
                    return Err(DispatcherError::Gone { interface_index: to.interface_index });
                }
                let others = running.iter().filter(|component| !ours.contains(&component.id));
                let others = others.map(|component| decided(component, &to.others));
                Ok(others.chain(slots.iter().map(Wanted::loaded)).collect())
            },
        );
        let changed = changed.map_err(|e| refused(&to.interface.to_string(), e))?;
        tell_leftover(&changed);
        let ids = slots.iter().map(|slot| slot.id).collect();
        self.held.slots().insert(chain.hook.clone(), ids);
        // Only now, so that what is refused changes nothing.
        self.detach(&chain.hook)
    }

    /// Takes all slots of a hook out of the dispatcher of an interface of the calling thread's
    /// network namespace. Programs of others stay as they are, and as libxdp would have them; without
    /// any the dispatcher goes too.
    ///
    /// # Errors
    /// What runs there cannot be changed; or `alone` says that the dispatcher must go with them, and a
    /// program of somebody else's is in it. Then nothing has changed.
    pub fn withdraw(&self, hook: &HookId, from: &Dispatch, alone: bool) -> Result<(), Error> {
        let ours = self.all_slots(hook)?;
        let options = Options { lone: Lone::AsLibxdp, take_empty: true, ..Options::default() };
        let changed = self.dispatcher.change(from.interface_index, &options, |running| {
            let others = running.iter().filter(|component| !ours.contains(&component.id));
            let mut strangers = others.clone().filter(|component| !component.passes());
            match strangers.next().filter(|_| alone) {
                Some(Component { id, name, .. }) => {
                    Err(DispatcherError::Joined { id: *id, name: name.clone() })
                }
                None => Ok(others.map(Wanted::kept).collect()),
            }
        });
        match changed {
            Ok(changed) => tell_leftover(&changed),
            // With the interface went what was attached.
            Err(DispatcherError::NoInterface { .. }) => {}
            Err(e) => return Err(refused(&from.interface.to_string(), e)),
        }
        self.held.slots().remove(hook);
        Ok(())
    }

    /// Finds the dispatchers of those of `hooks` whose chains of slots run where nobody looked, such
    /// as in a network namespace that cannot be looked into, and remembers what runs.
    ///
    /// A hook of which that cannot be told stays as it was found, and is said once for each reason:
    /// whoever holds the lock of all dispatchers must not hide the host.
    pub fn settle(&self, hooks: &mut BTreeMap<HookId, ObservedHook>) {
        let mut looks = self.dispatcher.for_looks();
        let mut unsettled = BTreeMap::new();
        for (hook, observed) in &mut *hooks {
            let links = observed.link.as_ref().is_some_and(|link| !link.is_detached());
            let pinned = observed.chains.values().flat_map(|chain| &chain.slots);
            let ours: BTreeSet<u32> = pinned.chain(&observed.held).copied().collect();
            if links || ours.is_empty() {
                continue;
            }
            let holders = looks.holders(&ours).unwrap_or_else(|e| {
                if let DispatcherError::Locked { .. } = e {
                    // The next hook finds the same; all of them together must not wait long.
                    looks = looks.clone().with_patience(Duration::ZERO);
                }
                unsettled.insert(hook.clone(), (e.to_string(), observed.held.clone()));
                Vec::new()
            });
            if let Some(holder) = holders.into_iter().next() {
                observed.link = Some(ObservedLink {
                    program_id: holder.dispatcher,
                    interface_index: holder.interface_index,
                    pinned: true,
                    slots: Some(holder.programs),
                });
            }
        }
        let slots = hooks.iter().filter_map(|(hook, observed)| {
            let slots = observed.link.as_ref()?.slots.clone()?;
            Some((hook.clone(), slots))
        });
        let mut slots: BTreeMap<_, _> = slots.collect();
        let mut told = self.held.unsettled();
        for (hook, (why, held)) in &unsettled {
            if told.get(hook) != Some(why) {
                tracing::warn!(%hook, "whether its slots run cannot be told now: {why}");
            }
            // What is held is known for as long as nothing else is.
            if !held.is_empty() {
                slots.entry(hook.clone()).or_insert_with(|| held.clone());
            }
        }
        *told = unsettled.into_iter().map(|(hook, (why, _))| (hook, why)).collect();
        *self.held.slots() = slots;
    }

    /// The chain that packets run through.
    pub(super) fn live(&self, hook: &HookId) -> Result<Option<Sequence>, Error> {
        let link = self.link(hook)?;
        let attached = link.is_some_and(|HookLink { info, .. }| info.interface_index != 0);
        if !attached {
            let running = self.running_slots(hook)?;
            for sequence in self.sequences(hook)?.into_iter().rev() {
                let path = self.chain(&ChainId { hook: hook.clone(), sequence });
                if !slots_in(&path)?.is_disjoint(&running) {
                    return Ok(Some(sequence));
                }
            }
        }
        Ok(self.live_program(hook)?.map(|(sequence, _)| sequence))
    }

    /// The slots of a hook that run, as was last seen or done.
    fn running_slots(&self, hook: &HookId) -> Result<BTreeSet<u32>, Error> {
        if let Some(known) = self.held.slots().get(hook) {
            return Ok(known.clone());
        }
        let holders = self.holders(hook, &self.all_slots(hook)?)?;
        let running: BTreeSet<u32> = holders.into_iter().flat_map(|it| it.programs).collect();
        if !running.is_empty() {
            self.held.slots().insert(hook.clone(), running.clone());
        }
        Ok(running)
    }

    /// The dispatchers that run any of a hook's programs, asked of the kernel.
    pub(super) fn holders(
        &self,
        hook: &HookId,
        programs: &BTreeSet<u32>,
    ) -> Result<Vec<Holder>, Error> {
        if programs.is_empty() {
            return Ok(Vec::new());
        }
        self.dispatcher.holders(programs).map_err(|e| refused(&hook.interface.to_string(), e))
    }

    /// The programs of all slots of all chains of a hook, and those that somebody unpinned.
    pub(super) fn all_slots(&self, hook: &HookId) -> Result<BTreeSet<u32>, Error> {
        let mut ids = self.held.slots().get(hook).cloned().unwrap_or_default();
        for sequence in self.sequences(hook)? {
            ids.append(&mut slots_in(&self.chain(&ChainId { hook: hook.clone(), sequence }))?);
        }
        Ok(ids)
    }

    /// The programs of a built chain's slots, with what a dispatcher is told about them.
    fn built_slots(&self, chain: &ChainId) -> Result<Vec<Component>, Error> {
        let path = self.chain(chain);
        let missing = |path: &Path| Error::Pin {
            path: path.display().to_string(),
            why: "is not there: the chain was not built".into(),
        };
        let record: ChainRecord =
            read(&path.join("record")).ok_or_else(|| missing(&path.join("record")))?;
        let mut slots = Vec::with_capacity(record.spec.slots.len());
        for (at, slot) in record.spec.slots.iter().enumerate() {
            let pin = slot_path(&path, at).join("program");
            let program = kernel::open_pin(&pin)?.ok_or_else(|| missing(&pin))?;
            let config = SlotConfig {
                priority: slot.priority,
                actions: slot.actions.into(),
                flags: if slot.frags { FLAG_FRAGS } else { 0 },
            };
            slots.push(Component::of(program, &config)?);
        }
        if slots.is_empty() {
            return Err(missing(&path.join("slots")));
        }
        Ok(slots)
    }
}

/// A program of somebody else's that stays, as is decided about it. Verdicts that the kernel does
/// not know and that programs use among themselves are nobody's to decide.
fn decided<'a>(component: &Component, others: &[OtherChange]) -> Wanted<'a> {
    let kept = Wanted::kept(component);
    match others.iter().find(|change| change.id == component.id) {
        Some(change) => Wanted {
            source: Source::Kept(component.id),
            priority: change.priority,
            actions: component.actions.with_known(change.chain_call_actions),
        },
        None => kept,
    }
}

fn tell_leftover(changed: &Changed) {
    if let Some(why) = &changed.leftover {
        tracing::warn!("pins of the dispatcher before stay until they are cleaned: {why}");
    }
}

/// Where the pins of a slot of the chain at `path` are.
pub(super) fn slot_path(path: &Path, at: usize) -> std::path::PathBuf {
    path.join("slots").join(at.to_string())
}

/// The programs that are pinned in slots of the chain at `path`, whole or not.
pub(super) fn slots_in(path: &Path) -> Result<BTreeSet<u32>, Error> {
    let slots = path.join("slots");
    let mut ids = BTreeSet::new();
    for slot in pins::list(&slots)? {
        if let Some(program) = kernel::open_pin(&slots.join(slot).join("program"))? {
            ids.insert(id(&program)?);
        }
    }
    Ok(ids)
}

/// The programs of all slots of the chain at `path`, in order; none if one is missing.
pub(super) fn whole(path: &Path, record: &ChainRecord) -> Result<Vec<u32>, Error> {
    let mut ids = Vec::with_capacity(record.spec.slots.len());
    for at in 0..record.spec.slots.len() {
        match kernel::open_pin(&slot_path(path, at).join("program"))? {
            Some(program) => ids.push(id(&program)?),
            None => return Ok(Vec::new()),
        }
    }
    Ok(ids)
}

fn id(program: &OwnedFd) -> Result<u32, Error> {
    Ok(kernel::program_info(program.as_fd())?.id)
}
