//! What is told of dispatchers: all programs in them, ours and others'.

use super::Engine;
use crate::host::Kernel;
use pointsman_model::ProgramName;
use pointsman_model::chain::{ChainRecord, MemberSpec};
use pointsman_model::observed::{Observed, ObservedComponent, ObservedHook, ObservedInterface};
use pointsman_model::status::{DispatchedProgram, DispatcherStatus};

impl Engine {
    /// The dispatcher on an interface, with the hook whose slots are in it, if there is one.
    pub(super) fn dispatcher_status(
        &mut self,
        interface: &ObservedInterface,
        hook: Option<&ObservedHook>,
    ) -> Option<DispatcherStatus> {
        dispatcher_status(&mut *self.kernel, interface, hook)
    }

    /// Removes the pins of dispatchers whose interfaces went away since `before` was seen: libxdp
    /// leaves them, and the next interface with the number would inherit them.
    pub(super) fn clean_after(&mut self, before: &Observed, now: &Observed) {
        let had = before.interfaces.iter().filter(|(_, interface)| interface.dispatcher.is_some());
        let gone = had.filter(|(name, had)| {
            now.interfaces.get(name).is_none_or(|interface| interface.index != had.index)
        });
        for (_, interface) in gone {
            self.kernel.clean_dispatchers(Some(interface.index));
        }
    }
}

fn dispatcher_status(
    kernel: &mut dyn Kernel,
    interface: &ObservedInterface,
    hook: Option<&ObservedHook>,
) -> Option<DispatcherStatus> {
    let dispatcher = interface.dispatcher.as_ref()?;
    let program_id = interface.attached.as_ref()?.program_id;
    let counts = if kernel.run_statistics() { kernel.run_count(program_id) } else { None };
    let program = |component: &ObservedComponent| {
        let ObservedComponent { id, name, tag, priority, actions, passes, .. } = component;
        let link = hook.and_then(|hook| hook.link.as_ref());
        let ours = *passes || link.iter().flat_map(|link| &link.slots).flatten().any(|it| it == id);
        DispatchedProgram {
            id: *id,
            name: name.clone(),
            tag: tag.clone(),
            priority: *priority,
            chain_call_actions: *actions,
            members: hook.map(|hook| members(hook, *id)).unwrap_or_default(),
            owner: if ours { "this node" } else { super::status::owner(Some(name)) }.to_owned(),
        }
    };
    let programs = dispatcher.components.iter().map(program).collect();
    let (version, fixed) = (dispatcher.version, dispatcher.fixed.clone());
    let (runs, run_nanoseconds) = counts.map(|it| (it.runs, it.nanoseconds)).unzip();
    Some(DispatcherStatus { program_id, version, fixed, runs, run_nanoseconds, programs })
}

/// The members of the chain whose slot a program is.
fn members(hook: &ObservedHook, id: u32) -> Vec<ProgramName> {
    let of = |record: &ChainRecord, at: usize| -> Vec<ProgramName> {
        let part = record.spec.parts().nth(at);
        let name = |member: &MemberSpec| member.program.clone();
        part.map(|(members, _)| members.iter().map(name).collect()).unwrap_or_default()
    };
    let mut chains = hook.chains.values();
    let found = chains.find_map(|chain| {
        let at = chain.slots.iter().position(|slot| *slot == id)?;
        Some(of(chain.record.as_ref()?, at))
    });
    found.unwrap_or_default()
}
