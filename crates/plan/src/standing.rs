//! How a hook stands: what is attached to its interface, and whose it is.

use pointsman_model::HookId;
use pointsman_model::chain::{ChainRecord, Sequence};
use pointsman_model::observed::{
    AttachMode, Attachment, Observed, ObservedDispatcher, ObservedHook, ObservedInterface,
    ObservedLink,
};

/// How a hook stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Standing<'a> {
    /// The interface does not exist, and no chain of the hook runs. There may be pins from when it
    /// did.
    Missing,
    /// The interface does not exist, and the hook's chain runs on: its interface was renamed, or
    /// moved to another network namespace.
    Away(Running<'a>),
    /// Nothing is attached, and no link of ours is pinned.
    Vacant(&'a ObservedInterface),
    /// Nothing is attached, and the pinned link is detached: its interface is gone, or somebody
    /// detached it.
    Dead(&'a ObservedInterface),
    /// Nothing is attached, and the pinned link runs elsewhere: its interface was renamed or moved,
    /// and this one got its name.
    Astray(&'a ObservedInterface, &'a ObservedLink),
    /// Our link runs on the interface.
    Running(&'a ObservedInterface, Running<'a>),
    /// A dispatcher of others is attached, which our slots can join.
    Joinable(&'a ObservedInterface, &'a ObservedDispatcher),
    /// Something that is not this hook's is attached, and why nothing can join it, if it is a
    /// dispatcher.
    Foreign(&'a Attachment, Option<&'a str>),
}

/// What our link runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running<'a> {
    /// The link.
    pub(crate) link: &'a ObservedLink,
    /// Where it is attached; `None`: on an interface that cannot be seen from here.
    pub(crate) mode: Option<AttachMode>,
    /// The chain; `None`: the program is none of the pinned chains.
    pub(crate) chain: Option<(Sequence, Option<&'a ChainRecord>)>,
}

impl<'a> Standing<'a> {
    pub(crate) fn of(hook: &HookId, observed: &'a Observed) -> Self {
        let pins = observed.hooks.get(hook);
        let link = pins.and_then(|pins| pins.link.as_ref());
        let running = |link: &'a ObservedLink| Running {
            link,
            mode: observed.interface_of(link).and_then(|(_, i)| Some(i.attached.as_ref()?.mode)),
            chain: pins.and_then(live),
        };
        let Some(interface) = observed.interfaces.get(&hook.interface) else {
            return match link {
                Some(link) if !link.is_detached() => Self::Away(running(link)),
                _ => Self::Missing,
            };
        };
        match (link, &interface.attached) {
            (Some(link), Some(_)) if link.runs_on(interface) => {
                Self::Running(interface, running(link))
            }
            (_, Some(attached)) => match &interface.dispatcher {
                Some(dispatcher) => match &dispatcher.fixed {
                    None => Self::Joinable(interface, dispatcher),
                    Some(why) => Self::Foreign(attached, Some(why)),
                },
                None => Self::Foreign(attached, None),
            },
            (Some(link), None) if !link.is_detached() => Self::Astray(interface, link),
            (Some(_), None) => Self::Dead(interface),
            (None, None) => Self::Vacant(interface),
        }
    }

    fn running(&self) -> Option<Running<'a>> {
        match self {
            Self::Running(_, running) | Self::Away(running) => Some(*running),
            _ => None,
        }
    }

    /// What holds the chain that runs.
    pub(crate) fn link(&self) -> Option<&'a ObservedLink> {
        self.running().map(|running| running.link)
    }

    /// The sequence number of the chain that packets run through.
    pub(crate) fn live(&self) -> Option<Sequence> {
        Some(self.running()?.chain?.0)
    }

    /// The record of the chain that packets run through.
    pub(crate) fn record(&self) -> Option<&'a ChainRecord> {
        self.running()?.chain?.1
    }

    /// Where our chain is attached.
    pub(crate) fn mode(&self) -> Option<AttachMode> {
        self.running()?.mode
    }
}

fn live(pins: &ObservedHook) -> Option<(Sequence, Option<&ChainRecord>)> {
    pins.live().map(|(sequence, chain)| (sequence, chain.record.as_ref()))
}
