//! Where a chain goes: the interface, the mode, and whether it can get there without a gap.

use crate::Options;
use crate::chain::pointer;
use crate::standing::{Running, Standing, owner};
use pointsman_model::HookId;
use pointsman_model::document::Mode;
use pointsman_model::observed::{
    AttachMode, Attachment, Observed, ObservedInterface, ObservedLink,
};
use pointsman_model::plan::{Refusal, RefusalReason};

/// Where a chain goes, and how it gets there.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) interface_index: u32,
    pub(crate) mode: AttachMode,
    pub(crate) way: Way,
    pub(crate) note: Option<String>,
}

/// How a new chain takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Nothing is attached.
    Attach,
    /// Nothing is attached, and a link that has lost its interface is in the way.
    Replace,
    /// Nothing is attached here; the link in the way runs elsewhere, and its chain ends there.
    Move,
    /// A chain of ours runs and is replaced without a gap.
    Swap,
    /// A chain of ours runs in another mode: it must go before the new one can come.
    Reattach,
}

/// Why a chain cannot go where it is wanted.
#[derive(Debug)]
pub(crate) struct Obstacle {
    reason: RefusalReason,
    /// The JSON pointer below the interface.
    inner: &'static str,
    message: String,
}

impl Obstacle {
    pub(crate) fn refusal(self, hook: &HookId) -> Refusal {
        let Self { reason, inner, message } = self;
        Refusal {
            reason,
            pointer: format!("{}{inner}", pointer(&hook.interface)),
            hook: Some(hook.clone()),
            program: None,
            message,
            log: None,
        }
    }
}

/// Decides where the chain of `hook` goes and how it gets there.
pub(crate) fn place(
    hook: &HookId,
    mode: Mode,
    standing: Standing<'_>,
    observed: &Observed,
    options: Options,
) -> Result<Place, Obstacle> {
    let name = &hook.interface;
    let obstacle = |reason, inner, message| Obstacle { reason, inner, message };
    let unsupported = |message| obstacle(RefusalReason::ModeUnsupported, "/xdp/mode", message);
    match standing {
        Standing::Missing => Err(obstacle(
            RefusalReason::InterfaceMissing,
            "",
            format!(
                "interface {name} does not exist in this network namespace; create it, or take it \
                 out of the document"
            ),
        )),
        Standing::Foreign(interface, attachment) => {
            let message = match owner(observed, interface, attachment) {
                Some(owner) => renamed(hook, owner),
                None => foreign(hook, attachment),
            };
            Err(obstacle(RefusalReason::ForeignProgram, "/xdp", message))
        }
        Standing::Astray(interface, link) if !options.allow_gap => {
            let message = astray(hook, observed, interface, link);
            Err(obstacle(RefusalReason::NeedsGap, "/xdp", message))
        }
        Standing::Vacant(interface)
        | Standing::Dead(interface)
        | Standing::Astray(interface, _) => {
            let Chosen { mode, note } = choose(hook, mode, interface).map_err(unsupported)?;
            let way = match standing {
                Standing::Dead(_) => Way::Replace,
                Standing::Astray(..) => Way::Move,
                _ => Way::Attach,
            };
            Ok(Place { interface_index: interface.index, mode, way, note })
        }
        Standing::Running(interface, Running { mode: now, .. }) => {
            let Chosen { mode: to, note } = match (mode, now) {
                (Mode::Auto, now) => keep(hook, interface, now),
                (Mode::Native, AttachMode::Native) => AttachMode::Native.into(),
                (Mode::Native | Mode::Skb, _) => {
                    choose(hook, mode, interface).map_err(unsupported)?
                }
            };
            let way = if now == to { Way::Swap } else { Way::Reattach };
            if way == Way::Reattach && !options.allow_gap {
                let message = format!(
                    "the chain on {name} is attached in {now} mode, and {to} mode needs it \
                     detached first: packets would pass without a chain for a moment; allow that \
                     with `apply --allow-gap`"
                );
                return Err(obstacle(RefusalReason::NeedsGap, "/xdp/mode", message));
            }
            Ok(Place { interface_index: interface.index, mode: to, way, note })
        }
    }
}

/// A mode, and why it is not native where that would be best.
struct Chosen {
    mode: AttachMode,
    note: Option<String>,
}

impl From<AttachMode> for Chosen {
    fn from(mode: AttachMode) -> Self {
        Self { mode, note: None }
    }
}

/// Chooses the mode for an interface that runs nothing of ours.
fn choose(hook: &HookId, mode: Mode, interface: &ObservedInterface) -> Result<Chosen, String> {
    let name = &hook.interface;
    // Where the kernel does not say what the driver can do, attaching will tell.
    let lacks = match (interface.loopback, interface.native_xdp) {
        (true, _) => Some("is the loopback interface and has no native XDP"),
        (false, Some(false)) => Some("has no native XDP: its driver does not support it"),
        (false, Some(true) | None) => None,
    };
    match (mode, lacks) {
        (Mode::Skb, _) => Ok(AttachMode::Skb.into()),
        (Mode::Native | Mode::Auto, None) => Ok(AttachMode::Native.into()),
        (Mode::Native, Some(lacks)) => {
            Err(format!("{name} {lacks}; `\"mode\": \"skb\"` works there"))
        }
        (Mode::Auto, Some(lacks)) => Ok(Chosen {
            mode: AttachMode::Skb,
            note: Some(format!("mode auto takes skb, because {name} {lacks}")),
        }),
    }
}

/// Mode `auto` never asks for a change of what runs: that would open a gap.
fn keep(hook: &HookId, interface: &ObservedInterface, now: AttachMode) -> Chosen {
    let note = match choose(hook, Mode::Auto, interface) {
        Ok(Chosen { mode, .. }) if mode != now => Some(format!(
            "mode auto keeps {now}, in which the chain is attached, though {} may run {mode}; a \
             change opens a gap: write `\"mode\": \"{mode}\"` and use `apply --allow-gap`",
            hook.interface
        )),
        Ok(Chosen { note, .. }) => note,
        Err(_) => None,
    };
    Chosen { mode: now, note }
}

fn foreign(hook: &HookId, attachment: &Attachment) -> String {
    let name = &hook.interface;
    let Attachment { program_id, name: program, mode } = attachment;
    let program = program.as_deref().unwrap_or("without a name");
    let flag = match mode {
        AttachMode::Native => "xdpdrv",
        AttachMode::Skb => "xdpgeneric",
        AttachMode::Offload => "xdpoffload",
    };
    format!(
        "{name} carries XDP program {program} (id {program_id}, {mode}), which is not ours and \
         stays untouched; to make room, stop what attached it, or remove it with `xdp-loader \
         unload {name} --all` or `ip link set dev {name} {flag} off`, and apply again"
    )
}

fn astray(
    hook: &HookId,
    observed: &Observed,
    interface: &ObservedInterface,
    link: &ObservedLink,
) -> String {
    let name = &hook.interface;
    let index = link.interface_index;
    let at = observed.interfaces.iter().find(|(_, other)| other.index == index);
    match at {
        Some((elsewhere, _)) if index != interface.index => format!(
            "the chain of {hook} runs on {elsewhere}: that interface was renamed, and {name} is \
             another one; to attach here takes the chain off {elsewhere}; allow that with `apply \
             --allow-gap`"
        ),
        _ => format!(
            "the pinned link of {hook} says that it runs on {name}, and {name} says that nothing \
             is attached: the chain may run in another network namespace; to attach here ends it \
             there; allow that with `apply --allow-gap`"
        ),
    }
}

fn renamed(hook: &HookId, owner: &HookId) -> String {
    let (name, before) = (&hook.interface, &owner.interface);
    format!(
        "{name} carries the chain of {owner}, attached before the interface was renamed; once \
         {before} is out of the document and that is applied, apply again"
    )
}
