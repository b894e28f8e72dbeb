//! The steps, with the refusals a kernel would give.

use super::maps::Pinned;
use super::{Chain, Fault, Hook, Interface, Link, Loaded, Program, Simulator};
use crate::Host;
use pointsman_model::chain::{ChainId, ChainRecord, ChainSpec, MemberSpec, Sequence};
use pointsman_model::observed::AttachMode;
use pointsman_model::plan::{
    Attach, BuildChain, Detach, PinLink, PrepareProgram, ReleaseHook, ReleaseProgram, RenameHook,
    RetireChain, SetMapEntries, Step, Swap,
};
use pointsman_model::{Fingerprint, HookId, MapName};

impl Host for Simulator {
    fn execute(&mut self, step: &Step) -> Result<(), String> {
        if self.crashed {
            return Err("the daemon has crashed".to_owned());
        }
        let at = self.operations;
        self.operations += 1;
        match self.fault {
            Some(Fault::Fail(when)) if when == at => return Err("fault was planted".to_owned()),
            Some(Fault::FailFrom(when)) if when <= at => {
                return Err("fault was planted".to_owned());
            }
            Some(Fault::Crash(when)) if when == at => {
                self.crashed = true;
                return Err("the daemon has crashed".to_owned());
            }
            Some(Fault::CrashWithin(when)) if when == at => {
                self.crashed = true;
                self.tear(step);
                return Err("the daemon has crashed".to_owned());
            }
            _ => {}
        }
        let result = match step {
            Step::RenameHook(step) => self.rename_hook(step),
            Step::PinLink(step) => self.pin_link(step),
            Step::PrepareProgram(step) => self.prepare_program(step),
            Step::PinMaps(step) => {
                let load = (step.program.clone(), step.fingerprint.clone());
                step.maps.iter().try_for_each(|map| self.pin_map(&load, map))
            }
            Step::SetMapEntries(step) => self.set_map_entries(step),
            Step::BuildChain(step) => self.build_chain(step),
            Step::Attach(step) => match &step.dispatcher {
                Some(place) => self.dispatch(&step.chain, place, Some(step.mode)),
                None => self.attach(step),
            },
            Step::Swap(step) => match &step.dispatcher {
                Some(place) => self.dispatch(&step.chain, place, None),
                None => self.swap(step),
            },
            Step::Detach(step) => match &step.dispatcher {
                Some(place) => self.withdraw(&step.hook, place, step.opens_gap),
                None => self.detach(step),
            },
            Step::RetireChain(step) => self.retire_chain(step),
            Step::ReleaseHook(step) => self.release_hook(step),
            Step::ReleaseProgram(step) => self.release_program(step),
        };
        self.free_maps();
        result
    }
}

impl Simulator {
    /// Does the part of a step that a crash in its middle leaves behind. Only steps of several
    /// system calls have a middle; the others are as if they had not begun.
    fn tear(&mut self, step: &Step) {
        match step {
            Step::BuildChain(step) => {
                let hook = self.hooks.entry(step.chain.hook.clone()).or_default();
                hook.chains.entry(step.chain.sequence).or_default();
            }
            Step::SetMapEntries(step) => {
                // The digest goes before the first entry is written and comes back after the last.
                let load = (step.program.clone(), step.fingerprint.clone());
                self.forget_entries(&load, &step.map);
                self.fill_map(&load, &step.map, None);
            }
            Step::RetireChain(step) => {
                let live = self.live(&step.chain.hook);
                if let Some(hook) = self.hooks.get_mut(&step.chain.hook)
                    && let Some(chain) = hook.chains.get_mut(&step.chain.sequence)
                {
                    *chain = Chain::default();
                    hook.fold(step.chain.sequence, live);
                }
            }
            Step::Attach(step) if step.dispatcher.is_none() => {
                // The new link ends with the process, and the old one is unpinned already.
                if let Some(hook) = self.hooks.get_mut(&step.chain.hook) {
                    hook.link = None;
                }
            }
            Step::Attach(_)
            | Step::RenameHook(_)
            | Step::PinLink(_)
            | Step::PinMaps(_)
            | Step::PrepareProgram(_)
            | Step::Swap(_)
            | Step::Detach(_)
            | Step::ReleaseHook(_)
            | Step::ReleaseProgram(_) => {}
        }
    }

    fn rename_hook(&mut self, step: &RenameHook) -> Result<(), String> {
        let RenameHook { from, to } = step;
        let Some(pins) = self.hooks.remove(from) else {
            return Err(format!("hook {from} has no pins (ENOENT)"));
        };
        let other = self.hooks.insert(to.clone(), pins);
        self.hooks.extend(other.map(|other| (from.clone(), other)));
        Ok(())
    }

    fn pin_link(&mut self, step: &PinLink) -> Result<(), String> {
        match &mut self.hook(&step.hook)?.link {
            Some(link) if !link.pinned => link.pinned = true,
            Some(_) => return Err(format!("the link of {} is pinned (EEXIST)", step.hook)),
            None => return Err(format!("there is no link of {} (ENOENT)", step.hook)),
        }
        Ok(())
    }

    fn prepare_program(&mut self, step: &PrepareProgram) -> Result<(), String> {
        let load = (step.program.clone(), step.fingerprint.clone());
        if self.programs.contains_key(&load) {
            return Err(format!("maps of program {} are pinned already (EEXIST)", step.program));
        }
        let maps = self.make_maps(step)?;
        let told = |(map, from): (&MapName, &Fingerprint)| {
            let from = self.programs.get(&(step.program.clone(), from.clone()))?;
            Some((map.clone(), *from.entries.get(map)?))
        };
        let entries = step.keeps.iter().filter_map(told).collect();
        let object = self.objects.get(&step.fingerprint).map(|object| object.hash);
        self.last_instance += 1;
        let program = Program { instance: self.last_instance, entries, object, maps };
        self.programs.insert(load, program);
        Ok(())
    }

    fn set_map_entries(&mut self, step: &SetMapEntries) -> Result<(), String> {
        let load = (step.program.clone(), step.fingerprint.clone());
        self.forget_entries(&load, &step.map);
        self.fill_map(&load, &step.map, Some(step.digest));
        let Some(program) = self.programs.get_mut(&load) else {
            return Err(format!("maps of program {} are not pinned (ENOENT)", step.program));
        };
        program.entries.insert(step.map.clone(), step.digest);
        Ok(())
    }

    fn build_chain(&mut self, step: &BuildChain) -> Result<(), String> {
        let BuildChain { chain: id, generation, spec } = step;
        let maps = self.maps_of(spec)?;
        let map_ids = spec.members.iter().flat_map(|m| self.map_ids_of(m)).collect();
        let hook = self.hooks.entry(id.hook.clone()).or_default();
        if hook.chains.contains_key(&id.sequence) {
            return Err(format!("chain {id} exists (EEXIST)"));
        }
        let last = hook.chains.keys().next_back().copied().unwrap_or(0).max(hook.folded);
        if id.sequence <= last {
            self.violations.push(format!("chain {id} is built after #{last}"));
        }
        let mut next = || {
            self.last_program_id += 1;
            self.last_program_id
        };
        let slots: Vec<u32> = spec.slots.iter().map(|_| next()).collect();
        let program_id = slots.is_empty().then(next);
        if spec.slots.iter().map(|slot| slot.members).sum::<usize>() != spec.members.len()
            && !slots.is_empty()
        {
            self.violations.push(format!("slots of {id} do not have all its members"));
        }
        let chain = Chain {
            program_id,
            slots,
            record: Some(ChainRecord { generation: *generation, spec: spec.clone() }),
            loaded: Some(Loaded { spec: spec.clone(), maps, map_ids }),
            ran: false,
        };
        hook.chains.insert(id.sequence, chain);
        Ok(())
    }

    fn maps_of(&self, spec: &ChainSpec) -> Result<Vec<u64>, String> {
        let instance = |member: &MemberSpec| {
            self.instance(&member.program, &member.fingerprint).ok_or_else(|| {
                format!("maps of program {} are not pinned (ENOENT)", member.program)
            })
        };
        spec.members.iter().map(instance).collect()
    }

    fn map_ids_of(&self, member: &MemberSpec) -> Vec<u32> {
        let program = self.programs.get(&(member.program.clone(), member.fingerprint.clone()));
        let maps = program.into_iter().flat_map(|program| program.maps.values());
        maps.filter_map(Pinned::id).collect()
    }

    fn attach(&mut self, step: &Attach) -> Result<(), String> {
        let Attach { chain: id, interface_index, mode, .. } = step;
        let name = &id.hook.interface;
        let (program_id, runs) = self.built(id)?;
        let interface = self
            .interfaces
            .get(name)
            .filter(|interface| interface.index == *interface_index)
            .ok_or_else(|| {
                format!("interface {name} (index {interface_index}) is gone (ENODEV)")
            })?;
        let taken = interface.foreign.is_some() || interface.dispatcher.is_some();
        if taken || self.link_on(*interface_index).is_some() {
            return Err(format!("interface {name} carries a program already (EBUSY)"));
        }
        if *mode == AttachMode::Native && !interface.runs_native() {
            return Err(format!("interface {name} has no native XDP (EOPNOTSUPP)"));
        }
        // What is pinned there is detached or runs elsewhere, and ends.
        self.hook(&id.hook)?.link = Some(Link {
            program_id,
            interface_index: *interface_index,
            mode: *mode,
            pinned: true,
            runs,
        });
        self.mark_run(id);
        Ok(())
    }

    fn swap(&mut self, step: &Swap) -> Result<(), String> {
        let id = &step.chain;
        let (program_id, runs) = self.built(id)?;
        let index = self.interfaces.get(&id.hook.interface).map(|interface| interface.index);
        let Some(link) = &mut self.hook(&id.hook)?.link else {
            return Err(format!("no link of {} is pinned (ENOENT)", id.hook));
        };
        if link.interface_index == 0 {
            return Err(format!("the interface of the link of {} is gone (ENOLINK)", id.hook));
        }
        // Where no interface has the name, the link's is the one that had it.
        let astray = index.is_some_and(|index| index != link.interface_index);
        link.program_id = program_id;
        link.runs = runs;
        self.mark_run(id);
        if astray {
            self.violations.push(format!("swap to {id} changes another interface"));
        }
        Ok(())
    }

    fn detach(&mut self, step: &Detach) -> Result<(), String> {
        let link = self.hook(&step.hook)?.link.take();
        link.map(drop).ok_or_else(|| format!("no link of {} is pinned (ENOENT)", step.hook))
    }

    fn retire_chain(&mut self, step: &RetireChain) -> Result<(), String> {
        let id = &step.chain;
        let live = self.live(&id.hook);
        let hook = self.hook(&id.hook)?;
        let Some(chain) = hook.chains.get(&id.sequence) else {
            return Err(format!("chain {id} does not exist (ENOENT)"));
        };
        if live == Some(id.sequence) {
            self.violations.push(format!("retire of {id}, which runs"));
            return Err(format!("chain {id} is running"));
        }
        // Counters are of use as long as a chain runs on the hook.
        let running = hook.link.is_some() || live.is_some();
        let counted = chain.ran && running;
        hook.chains.remove(&id.sequence);
        if !hook.fold(id.sequence, live) && counted {
            self.violations.push(format!("retire of {id} loses its counters"));
        }
        Ok(())
    }

    fn release_hook(&mut self, step: &ReleaseHook) -> Result<(), String> {
        let hook = self.hook(&step.hook)?;
        // Slots of ours are known by the pins of their chains alone.
        if hook.link.is_some() || !hook.chains.is_empty() {
            return Err(format!("hook {} is not empty (ENOTEMPTY)", step.hook));
        }
        self.hooks.remove(&step.hook);
        Ok(())
    }

    fn release_program(&mut self, step: &ReleaseProgram) -> Result<(), String> {
        let load = (step.program.clone(), step.fingerprint.clone());
        let is_it = |m: &MemberSpec| (&m.program, &m.fingerprint) == (&load.0, &load.1);
        let runs = self.running().flat_map(|runs| &runs.spec.members).any(is_it);
        if runs {
            self.violations.push(format!("release of program {}, which runs", step.program));
        }
        let gone = self.programs.remove(&load);
        gone.map(drop).ok_or_else(|| format!("program {} is not pinned (ENOENT)", step.program))
    }

    pub(super) fn hook(&mut self, hook: &HookId) -> Result<&mut Hook, String> {
        self.hooks.get_mut(hook).ok_or_else(|| format!("hook {hook} has no pins (ENOENT)"))
    }

    pub(super) fn mark_run(&mut self, id: &ChainId) {
        let chains = self.hooks.get_mut(&id.hook).map(|hook| &mut hook.chains);
        if let Some(chain) = chains.and_then(|chains| chains.get_mut(&id.sequence)) {
            chain.ran = true;
        }
    }

    fn built(&self, id: &ChainId) -> Result<(u32, Loaded), String> {
        let chain = self.hooks.get(&id.hook).and_then(|hook| hook.chains.get(&id.sequence));
        let built = chain.and_then(|chain| Some((chain.program_id?, chain.loaded.clone()?)));
        built.ok_or_else(|| format!("chain {id} is not built (ENOENT)"))
    }
}

impl Hook {
    /// Adds a chain's counters to the totals: once, in order, and never those of a chain that is
    /// later than the one that runs.
    fn fold(&mut self, sequence: Sequence, live: Option<Sequence>) -> bool {
        let folds = sequence > self.folded && live.is_some_and(|live| sequence < live);
        if folds {
            self.folded = sequence;
        }
        folds
    }
}

impl Interface {
    pub(super) fn runs_native(&self) -> bool {
        !self.loopback && self.native_xdp != Some(false)
    }
}
