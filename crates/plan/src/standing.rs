//! How a hook stands: what is attached to its interface, and whose it is.

use pointsman_model::HookId;
use pointsman_model::chain::{ChainRecord, Sequence};
use pointsman_model::observed::{
    AttachMode, Attachment, Observed, ObservedHook, ObservedInterface, ObservedLink,
};

/// How a hook stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Standing<'a> {
    /// The interface does not exist. There may be pins from when it did.
    Missing,
    /// Nothing is attached, and no link of ours is pinned.
    Vacant(&'a ObservedInterface),
    /// Nothing is attached, and the pinned link is on an interface that is gone.
    Dead(&'a ObservedInterface),
    /// Nothing is attached, and the pinned link runs elsewhere: its interface was renamed and this
    /// one got its name, or the kernel says two things at once.
    Astray(&'a ObservedInterface, &'a ObservedLink),
    /// Our link runs on the interface.
    Running(&'a ObservedInterface, Running<'a>),
    /// Something that is not this hook's is attached.
    Foreign(&'a ObservedInterface, &'a Attachment),
}

/// What our link runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running<'a> {
    /// Where it is attached.
    pub(crate) mode: AttachMode,
    /// The chain; `None`: the program is none of the pinned chains.
    pub(crate) chain: Option<(Sequence, Option<&'a ChainRecord>)>,
}

impl<'a> Standing<'a> {
    pub(crate) fn of(hook: &HookId, observed: &'a Observed) -> Self {
        let pins = observed.hooks.get(hook);
        let link = pins.and_then(|pins| pins.link.as_ref());
        let Some(interface) = observed.interfaces.get(&hook.interface) else {
            return Self::Missing;
        };
        let here = |link: &ObservedLink| link.interface_index == interface.index;
        // An index that no interface has is in another namespace, and none of this document's.
        let seen = |link: &ObservedLink| {
            observed.interfaces.values().any(|other| other.index == link.interface_index)
        };
        match (link, &interface.attached) {
            (Some(link), Some(attached))
                if here(link) && attached.program_id == link.program_id =>
            {
                let chain = pins.and_then(live);
                Self::Running(interface, Running { mode: attached.mode, chain })
            }
            (_, Some(attached)) => Self::Foreign(interface, attached),
            (Some(link), None) if seen(link) => Self::Astray(interface, link),
            (Some(_), None) => Self::Dead(interface),
            (None, None) => Self::Vacant(interface),
        }
    }

    /// The record of the chain that packets run through.
    pub(crate) fn record(&self) -> Option<&'a ChainRecord> {
        match self {
            Self::Running(_, Running { chain: Some((_, record)), .. }) => *record,
            _ => None,
        }
    }

    /// Where our chain is attached.
    pub(crate) fn mode(&self) -> Option<AttachMode> {
        match self {
            Self::Running(_, running) => Some(running.mode),
            _ => None,
        }
    }
}

fn live(pins: &ObservedHook) -> Option<(Sequence, Option<&ChainRecord>)> {
    pins.live().map(|(sequence, chain)| (sequence, chain.record.as_ref()))
}

/// The hook whose link holds `attachment` on `interface`: ours, attached under another name, which
/// the interface had before it was renamed.
pub(crate) fn owner<'a>(
    observed: &'a Observed,
    interface: &ObservedInterface,
    attachment: &Attachment,
) -> Option<&'a HookId> {
    let ours = ObservedLink { program_id: attachment.program_id, interface_index: interface.index };
    observed.hooks.iter().find(|(_, pins)| pins.link.as_ref() == Some(&ours)).map(|(hook, _)| hook)
}
