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
    /// Our link runs on the interface.
    Running(&'a ObservedInterface, Running<'a>),
    /// Something that is not this hook's is attached.
    Foreign(&'a ObservedInterface, &'a Attachment),
}

/// What our link runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running<'a> {
    /// Where it is attached, where the kernel tells.
    pub(crate) mode: Option<AttachMode>,
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
        let on_it = link.filter(|link| link.interface_index == interface.index);
        match (on_it, &interface.attached) {
            (Some(link), Some(other)) if other.program_id != link.program_id => {
                Self::Foreign(interface, other)
            }
            (None, Some(other)) => Self::Foreign(interface, other),
            // A link that names the interface is attached to it, even where the kernel does not
            // say of the interface what it runs.
            (Some(_), attached) => Self::Running(
                interface,
                Running {
                    mode: attached.as_ref().map(|attached| attached.mode),
                    chain: pins.and_then(live),
                },
            ),
            (None, None) if link.is_some() => Self::Dead(interface),
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
            Self::Running(_, running) => running.mode,
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
