//! Where a chain goes: the interface, the mode, and whether it can get there without a gap.

use crate::Options;
use crate::engine::Kind;
use crate::standing::{Running, Standing};
use pointsman_model::document::Mode;
use pointsman_model::observed::{
    AttachMode, Attachment, Observed, ObservedInterface, ObservedLink,
};
use pointsman_model::plan::{Refusal, RefusalReason};
use pointsman_model::{HookId, InterfaceId};

/// Where a chain goes, and how it gets there.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) way: Way,
    /// `None`: the chain runs where it cannot be seen, and keeps its mode.
    pub(crate) mode: Option<AttachMode>,
    pub(crate) note: Option<String>,
}

/// How a new chain takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Nothing is attached to the interface of this number. A link of the hook that is dead, or
    /// runs elsewhere, goes.
    Attach(u32, AttachMode),
    /// A chain of ours runs and is replaced without a gap.
    Swap,
    /// A chain of ours runs in another mode: it must go before the new one can come.
    Reattach(u32, AttachMode),
}

/// What a chain comes as, and beside what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) kind: Kind,
    /// The engine in words, and why that one.
    pub(crate) engine: &'a str,
    /// How many programs of others are in the dispatcher that it is in.
    pub(crate) others: usize,
}

/// Why a chain cannot go where it is wanted.
#[derive(Debug)]
pub(crate) enum Hindrance {
    /// The interface is not there yet: one line that names what is missing.
    Pending(String),
    /// It would have to be changed by somebody.
    Obstacle(Obstacle),
}

/// What stands in the way of a chain.
#[derive(Debug)]
pub(crate) struct Obstacle {
    reason: RefusalReason,
    /// The JSON pointer below the interface.
    inner: &'static str,
    message: String,
}

impl Obstacle {
    pub(crate) fn new(reason: RefusalReason, inner: &'static str, message: String) -> Self {
        Self { reason, inner, message }
    }

    pub(crate) fn refusal(self, hook: &HookId) -> Refusal {
        let Self { reason, inner, message } = self;
        Refusal {
            reason,
            pointer: format!("{}{inner}", hook.interface.pointer()),
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
    Beside { kind, others, engine }: Beside<'_>,
    observed: &Observed,
    options: Options,
) -> Result<Place, Hindrance> {
    let name = &hook.interface;
    let obstacle =
        |reason, inner, message| Hindrance::Obstacle(Obstacle { reason, inner, message });
    let unsupported = |message| obstacle(RefusalReason::ModeUnsupported, "/xdp/mode", message);
    let link = observed.hooks.get(hook).and_then(|pins| pins.link.as_ref());
    // A link can be changed from anywhere, and a dispatcher only where its interface is.
    let out_of_reach = |link: &&ObservedLink| {
        link.is_dispatcher() && !link.is_detached() && observed.interface_of(link).is_none()
    };
    if link.filter(out_of_reach).is_some() {
        return Err(Hindrance::Pending(format!(
            "the interface that was {name} is in a network namespace that cannot be looked into, \
             and its slots run on there: they stay until they can be reached, or end with that \
             interface"
        )));
    }
    match standing {
        Standing::Missing => Err(Hindrance::Pending(missing(hook, observed))),
        // What it runs as can only change where it is wanted.
        Standing::Away(Running { link, .. }) if link.is_dispatcher() == (kind == Kind::Fused) => {
            Err(Hindrance::Pending(missing(hook, observed)))
        }
        Standing::Away(running) => {
            let note = Some(away(hook, observed, running.link));
            Ok(Place { way: Way::Swap, mode: running.mode, note })
        }
        Standing::Foreign(attachment, why) => {
            Err(obstacle(RefusalReason::ForeignProgram, "/xdp", foreign(hook, attachment, why)))
        }
        Standing::Joinable(interface, _) => {
            let attached = interface.attached.as_ref();
            let attached = attached.expect("invariant: a dispatcher is attached");
            if kind == Kind::Fused {
                let why = "one fused program, attached by a BPF link, cannot join a dispatcher";
                let message = foreign(hook, attached, Some(why));
                return Err(obstacle(RefusalReason::ForeignProgram, "/xdp", message));
            }
            let note = joins(hook, mode, attached.mode).map_err(unsupported)?;
            let way = Way::Attach(interface.index, attached.mode);
            Ok(Place { way, mode: Some(attached.mode), note })
        }
        Standing::Vacant(interface)
        | Standing::Dead(interface)
        | Standing::Astray(interface, _) => {
            let Chosen { mode, note } = choose(hook, mode, interface).map_err(unsupported)?;
            let note = match standing {
                Standing::Astray(_, link) => Some(astray(hook, observed, link)),
                _ => note,
            };
            Ok(Place { way: Way::Attach(interface.index, mode), mode: Some(mode), note })
        }
        Standing::Running(interface, Running { link, mode: now, .. }) => {
            let now = now.expect("invariant: a running link's interface says its mode");
            let same = link.is_dispatcher() == (kind != Kind::Fused);
            let Chosen { mode: to, note } = match (mode, now) {
                // It opens a gap in any case.
                _ if !same => choose(hook, mode, interface).map_err(unsupported)?,
                (Mode::Auto, now) => keep(hook, interface, now),
                (Mode::Native, AttachMode::Native) => AttachMode::Native.into(),
                (Mode::Native | Mode::Skb, _) => {
                    choose(hook, mode, interface).map_err(unsupported)?
                }
            };
            if same && now == to {
                return Ok(Place { way: Way::Swap, mode: Some(to), note });
            }
            // The reason for an engine is not always in the document.
            let because = if same { String::new() } else { format!(" (engine {engine})") };
            let (inner, is, needs) = match (same, kind) {
                (true, _) => ("/xdp/mode", format!("in {now} mode"), format!("{to} mode")),
                (false, Kind::Slots { .. }) => {
                    ("/xdp/engine", "by a BPF link".into(), "a dispatcher".to_owned())
                }
                (false, Kind::Fused) => {
                    ("/xdp/engine", "in a dispatcher".into(), "a fused program".to_owned())
                }
            };
            if others > 0 {
                let count = match others {
                    1 => "a program".to_owned(),
                    more => format!("{more} programs"),
                };
                let message = format!(
                    "{name} runs {count} of others beside the chain, {is}, and {needs} would need \
                     them gone{because}: `xdp-loader status {}` lists them",
                    name.name
                );
                return Err(obstacle(RefusalReason::ForeignProgram, inner, message));
            }
            if !options.allow_gap {
                let message = format!(
                    "the chain on {name} is attached {is}, and {needs} needs it detached \
                     first{because}: packets would pass without a chain for a moment; allow that \
                     with `apply --allow-gap`"
                );
                return Err(obstacle(RefusalReason::NeedsGap, inner, message));
            }
            Ok(Place { way: Way::Reattach(interface.index, to), mode: Some(to), note })
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

/// A chain that joins a dispatcher runs where that does.
fn joins(hook: &HookId, wanted: Mode, now: AttachMode) -> Result<Option<String>, String> {
    let name = &hook.interface;
    match (wanted, now) {
        (Mode::Auto, AttachMode::Skb) => Ok(Some(format!(
            "mode auto takes skb on {name}, in which the dispatcher that is there runs"
        ))),
        (Mode::Auto, _) | (Mode::Native, AttachMode::Native) | (Mode::Skb, AttachMode::Skb) => {
            Ok(None)
        }
        (Mode::Native | Mode::Skb, now) => {
            let wanted = if wanted == Mode::Skb { AttachMode::Skb } else { AttachMode::Native };
            Err(format!(
                "{name} runs a dispatcher of others in {now} mode, and the chain is wanted in \
                 {wanted} mode; `\"mode\": \"auto\"` joins it as it is"
            ))
        }
    }
}

fn foreign(hook: &HookId, attachment: &Attachment, why: Option<&str>) -> String {
    let name = &hook.interface;
    let Attachment { program_id, name: program, mode } = attachment;
    let program = program.as_deref().unwrap_or("without a name");
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let InterfaceId { namespace, name: bare } = name;
    let there = namespace.as_ref().map(|it| format!(" in network namespace {it}"));
    let there = there.unwrap_or_default();
    let flag = match mode {
        AttachMode::Native => "xdpdrv",
        AttachMode::Skb => "xdpgeneric",
        AttachMode::Offload => "xdpoffload",
    };
    format!(
        "{name} carries XDP program {program} (id {program_id}, {mode}), which is not ours and \
         stays untouched{why}; to make room, stop what attached it, or remove it with `xdp-loader \
         unload {bare} --all` or `ip link set dev {bare} {flag} off`{there}, and apply again"
    )
}

fn missing(hook: &HookId, observed: &Observed) -> String {
    let InterfaceId { namespace, name } = &hook.interface;
    let Some(namespace) = namespace else {
        return format!("interface {name} does not exist in the daemon's network namespace");
    };
    match observed.unreachable.get(namespace) {
        Some(why) => format!("network namespace {namespace} cannot be looked into: {why}"),
        None => format!("interface {name} does not exist in network namespace {namespace}"),
    }
}

fn away(hook: &HookId, observed: &Observed, link: &ObservedLink) -> String {
    let name = &hook.interface;
    let unreachable = |namespace| observed.unreachable.get(namespace);
    if let Some(why) = name.namespace.as_ref().and_then(unreachable) {
        return format!(
            "the chain of {name} runs on, and its network namespace cannot be looked into: {why}"
        );
    }
    match observed.interface_of(link) {
        Some((now, _)) => format!(
            "{name} is called {now} now, and its chain runs on there; it stays until an interface \
             {name} appears, or the document names {now}"
        ),
        None => format!(
            "{name} was moved to another network namespace, and its chain runs on there; it stays \
             until an interface {name} appears, or the document does not name it any more"
        ),
    }
}

fn astray(hook: &HookId, observed: &Observed, link: &ObservedLink) -> String {
    let name = &hook.interface;
    match observed.interface_of(link) {
        Some((now, _)) => format!(
            "the interface that was {name} is called {now} now, which the document does not name; \
             its chain ends there and is attached to the {name} of today"
        ),
        None => format!(
            "the interface that was {name} is in another network namespace now; its chain ends \
             there and is attached to the {name} of today"
        ),
    }
}
