//! How everything stands: what is observed now, beside what the last plan wanted.

use super::Engine;
use crate::clock::unix_ms;
use pointsman_model::api::Problem;
use pointsman_model::observed::{Observed, ObservedHook, ObservedInterface};
use pointsman_model::plan::{HookChange, Note, Refusal};
use pointsman_model::preflight::Warning;
use pointsman_model::status::{
    Counters, ForeignProgram, HookCounters, HookState, HookStatus, MemberStatus, Status,
};
use pointsman_model::{HookId, InterfaceId};
use pointsman_plan::instances::is_for_instances;
use std::collections::{BTreeMap, BTreeSet};

impl Engine {
    pub(super) fn status(&mut self) -> Result<Status, Problem> {
        let observed = self.kernel_as_planned()?;
        let mut notes = self.last.notes.clone();
        let about_us = |message: &str| Note { hook: None, program: None, message: message.into() };
        notes.extend(self.kernel.no_chains().as_deref().map(about_us));
        notes.extend(self.watch_lost.iter().map(|why| about_us(why)));
        let refused = |hook: &HookId| {
            self.last.refusals.iter().any(|refusal| refusal.hook.as_ref() == Some(hook))
        };
        let returned = self.returned.iter().filter(|(hook, _)| refused(hook));
        notes.extend(
            returned.map(|(hook, line)| Note { hook: Some(hook.clone()), ..about_us(line) }),
        );
        notes.extend(self.stuck_words().as_deref().map(about_us));
        notes.extend(self.ignored.as_deref().map(about_us));
        notes.extend(self.fleet.notes().iter().map(|note| about_us(note)));
        notes.extend(self.events.not_on_disk().map(about_us));
        notes.extend(self.bypassed_nowhere().iter().map(|message| about_us(message)));
        let hooks: BTreeSet<_> =
            self.last.wanted.iter().chain(observed.hooks.keys()).cloned().collect();
        let hooks =
            hooks.into_iter().map(|hook| self.hook_status(hook, &observed, &mut notes)).collect();
        let foreign = self.foreign(&observed);
        let state = self.state.state();
        let of_no_hook = self.last.refusals.iter().filter(|refusal| refusal.hook.is_none());
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            node: state.current.as_ref().map(|edition| edition.node.clone()),
            generation: state.current.as_ref().map(|edition| edition.generation),
            drained: state.drained,
            checks: self.checks,
            unconfirmed: self.unconfirmed_status(),
            document: self.document.display().to_string(),
            fleet: self.fleet.status(),
            refused_document: self.refused.clone(),
            hooks,
            foreign,
            cards: Vec::new(),
            refusals: of_no_hook.cloned().collect(),
            notes,
            warnings: self.warnings(),
        })
    }

    /// What the last plan warned of, without what was over with its steps.
    fn warnings(&self) -> Vec<Warning> {
        let all = self.last.warnings.iter();
        all.filter(|warning| !warning.kind.is_about_the_change()).cloned().collect()
    }

    /// The host, as far as the document in force looks.
    fn kernel_as_planned(&mut self) -> Result<Observed, Problem> {
        let scope = std::mem::take(&mut self.last.scope);
        let observed = self.observe(&scope);
        self.last.scope = scope;
        observed
    }

    /// Bypasses of hooks that the document in force does not want: they wait for it.
    fn bypassed_nowhere(&self) -> Vec<String> {
        let state = self.state.state();
        let waiting = state.bypassed.iter().filter(|b| !self.last.wanted.contains(&b.hook));
        let words = waiting.map(|bypass| {
            let hook = &bypass.hook;
            format!(
                "{hook} is bypassed and the document in force wants no chain there; `pointsman \
                 bypass {} --off` ends it",
                hook.interface
            )
        });
        words.collect()
    }

    pub(super) fn counters(&mut self) -> Result<Counters, Problem> {
        let observed = self.kernel_as_planned()?;
        let at_unix_ms = unix_ms();
        let live = observed.hooks.iter().filter(|(_, hook)| hook.live().is_some());
        let mut hooks = Vec::new();
        for (hook, _) in live {
            match self.kernel.counters(hook) {
                Ok(counters) => hooks.push(counters),
                // One hook whose maps cannot be read must not hide all others.
                Err(error) => tracing::warn!(%hook, "cannot read counters: {error}"),
            }
        }
        Ok(Counters { at_unix_ms, hooks })
    }

    fn hook_status(
        &mut self,
        hook: HookId,
        observed: &Observed,
        notes: &mut Vec<Note>,
    ) -> HookStatus {
        let mut note = |message: String| {
            notes.push(Note { hook: Some(hook.clone()), program: None, message });
        };
        let pins = observed.hooks.get(&hook);
        let live = pins.and_then(ObservedHook::live);
        // A link runs as long as its interface lives, also where it cannot be seen.
        let link = pins.and_then(|pins| pins.link.as_ref()).filter(|link| !link.is_detached());
        let interface = match link {
            Some(link) => observed.interface_of(link).map(|(_, interface)| interface),
            None => observed.interfaces.get(&hook.interface),
        };
        let index = link.map(|link| link.interface_index).or(interface.map(|i| i.index));
        let record = live.and_then(|(_, chain)| chain.record.as_ref());
        if live.is_some() && record.is_none() {
            note(format!(
                "the record of the chain on {hook} is unreadable, so its programs cannot be \
                 listed; apply a document that changes it to build it anew"
            ));
        }
        let counters = live.and_then(|_| match self.kernel.counters(&hook) {
            Ok(counters) => Some(counters),
            Err(error) => {
                note(format!("cannot read the counters of {hook}: {error}"));
                None
            }
        });
        let fused = self.kernel.fused(&hook).unwrap_or_else(|error| {
            note(format!("cannot read the program on {hook}: {error}"));
            None
        });
        let dispatcher = match (interface, link) {
            (Some(interface), Some(link)) if link.is_dispatcher() => {
                self.dispatcher_status(interface, pins)
            }
            _ => None,
        };
        let diff = self.last.hooks.iter().find(|diff| diff.hook == hook);
        let refusals: Vec<Refusal> = (self.last.refusals.iter())
            .filter(|refusal| refusal.hook.as_ref() == Some(&hook))
            .cloned()
            .collect();
        let wanted =
            diff.filter(|d| d.change != HookChange::Refused).and_then(|d| d.after.as_ref());
        let pending = diff.and_then(|diff| diff.pending.clone());
        let drift = self.drifts.status(&hook);
        let bypass = self.bypass_status(&hook);
        let empty = record.is_some_and(|record| record.spec.members.is_empty());
        let state = match link.and(live) {
            _ if drift.as_ref().is_some_and(|drift| !drift.repaired) => HookState::Drifted,
            None if pending.is_some() => HookState::Pending,
            None => HookState::Absent,
            Some(_) if bypass.is_some() && empty => HookState::Bypassed,
            Some(_) if refusals.is_empty() && record.map(|r| &r.spec) == wanted => {
                HookState::Running
            }
            Some(_) => HookState::Outdated,
        };
        if state == HookState::Absent && refusals.is_empty() && wanted.is_some() {
            note(format!(
                "the chain that was applied on {hook} does not run any more; the next look at the \
                 host, within seconds, attaches it again"
            ));
        }
        HookStatus {
            dispatcher,
            interface_index: index,
            up: interface.map(|interface| interface.up),
            state,
            engine: diff.map(|diff| diff.engine.clone()).unwrap_or_default(),
            mode: link.and(interface).and_then(|i| i.attached.as_ref()).map(|a| a.mode),
            generation: record.map(|record| record.generation),
            fused,
            members: record.map_or_else(Vec::new, |r| self.members(r, counters.as_ref())),
            passed_end: counters.map_or(0, |counters| counters.passed_end),
            refusals,
            pending,
            drift,
            bypass,
            hook,
        }
    }

    fn members(
        &self,
        record: &pointsman_model::chain::ChainRecord,
        counters: Option<&HookCounters>,
    ) -> Vec<MemberStatus> {
        let counted: BTreeMap<_, _> = counters
            .into_iter()
            .flat_map(|counters| &counters.programs)
            .map(|program| (&program.program, program))
            .collect();
        let members = record.spec.members.iter();
        members
            .map(|member| {
                let counted = counted.get(&member.program);
                let maps = self.kernel.map_directory(&member.program, &member.fingerprint);
                MemberStatus {
                    program: member.program.clone(),
                    entry: member.entry.clone(),
                    priority: member.priority,
                    chain_call_actions: member.chain_call_actions,
                    enforce: member.enforce,
                    from_instances: is_for_instances(member),
                    form: member.form,
                    tag: member.tag.clone(),
                    object: member.object,
                    source: member.source.clone(),
                    fingerprint: member.fingerprint.clone(),
                    maps: maps.display().to_string(),
                    runs: counted.map_or(0, |counted| counted.runs),
                    verdicts: counted.map(|counted| counted.verdicts).unwrap_or_default(),
                }
            })
            .collect()
    }
}

impl Engine {
    /// The programs on interfaces that are not ours, with what they run.
    fn foreign(&mut self, observed: &Observed) -> Vec<ForeignProgram> {
        let mut all = foreign(observed);
        for foreign in &mut all {
            let interface = observed.interfaces.get(&foreign.interface);
            let dispatcher = interface.and_then(|it| self.dispatcher_status(it, None));
            foreign.dispatcher = dispatcher;
        }
        all
    }
}

/// The programs on interfaces that are not ours.
fn foreign(observed: &Observed) -> Vec<ForeignProgram> {
    let foreign = |(name, interface): (&InterfaceId, &ObservedInterface)| {
        let attachment = interface.attached.clone()?;
        // An interface takes its chain along when it is renamed, and keeps its pins' old name.
        let mut links = observed.hooks.values().filter_map(|pins| pins.link.as_ref());
        if links.any(|link| link.runs_on(interface)) {
            return None;
        }
        let owner = owner(attachment.name.as_deref()).to_owned();
        Some(ForeignProgram { interface: name.clone(), attachment, owner, dispatcher: None })
    };
    observed.interfaces.iter().filter_map(foreign).collect()
}

/// Guesses by its name whose a program is. The kernel cuts names to 15 characters.
pub(super) fn owner(name: Option<&str>) -> &'static str {
    const KNOWN: [(&str, &str); 7] = [
        ("xdp_dispatcher", "libxdp or bpfman"),
        ("xsk_def_", "libxdp (AF_XDP default program)"),
        ("xdpfilt_", "xdp-filter (xdp-tools)"),
        ("cil_xdp", "Cilium"),
        ("balancer_ingres", "Katran"),
        ("mtl_dp_filter", "MTL Manager"),
        ("pointsman", "another Pointsman"),
    ];
    let Some(name) = name else { return "unknown" };
    let known = KNOWN.iter().find(|(prefix, _)| name.starts_with(prefix));
    known.map_or("unknown", |(_, owner)| owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::nic::NicFacts;
    use pointsman_model::observed::{AttachMode, Attachment, ObservedLink};

    fn interface(program_id: Option<u32>) -> ObservedInterface {
        let attached = program_id.map(|program_id| Attachment {
            program_id,
            name: Some("xdp_dispatcher".into()),
            mode: AttachMode::Skb,
        });
        ObservedInterface {
            index: 3,
            native_xdp: None,
            loopback: false,
            mtu: 1500,
            up: true,
            attached,
            nic: NicFacts::default(),
            dispatcher: None,
        }
    }

    #[test]
    fn only_what_our_link_runs_is_ours() {
        let name = |text: &str| text.parse::<InterfaceId>().unwrap();
        let link = |program_id, interface_index| ObservedHook {
            link: Some(ObservedLink { program_id, interface_index, pinned: true, slots: None }),
            ..ObservedHook::default()
        };
        let mut observed = Observed::default();
        for (text, program) in [("ours", Some(7)), ("drift", Some(8)), ("none", None)] {
            observed.interfaces.insert(name(text), interface(program));
            observed.hooks.insert(HookId::xdp(name(text)), link(7, 3));
        }
        observed.interfaces.insert(name("moved"), interface(Some(6)));
        observed.hooks.insert(HookId::xdp(name("moved")), link(6, 9));
        observed.interfaces.insert(name("other"), interface(Some(9)));
        let found: Vec<_> =
            foreign(&observed).into_iter().map(|f| f.interface.to_string()).collect();
        assert_eq!(found, ["drift", "moved", "other"]);
    }

    #[test]
    fn a_chain_on_a_renamed_interface_stays_ours() {
        let mut observed = Observed::default();
        observed.interfaces.insert("new".parse().unwrap(), interface(Some(7)));
        let link =
            Some(ObservedLink { program_id: 7, interface_index: 3, pinned: true, slots: None });
        let pins = ObservedHook { link, ..ObservedHook::default() };
        observed.hooks.insert(HookId::xdp("old".parse::<InterfaceId>().unwrap()), pins);
        assert_eq!(foreign(&observed), []);
    }

    #[test]
    fn owners_are_guessed_by_name_and_never_made_up() {
        assert_eq!(owner(Some("xdp_dispatcher")), "libxdp or bpfman");
        assert_eq!(owner(Some("xsk_def_xdp_pro")), "libxdp (AF_XDP default program)");
        assert_eq!(owner(Some("my_filter")), "unknown");
        assert_eq!(owner(None), "unknown");
    }
}
