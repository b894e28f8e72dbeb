//! Which engine makes one chain of several programs, and why that one.

use crate::Caps;
use crate::catalog::Catalog;
use crate::place::Obstacle;
use crate::standing::Standing;
use pointsman_model::ProgramName;
use pointsman_model::document::{Engine, XdpSpec};
use pointsman_model::plan::RefusalReason;

/// How several programs become one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One program, attached by a BPF link.
    Fused,
    /// Programs in slots of a dispatcher: each in its own, or neighbours together.
    Slots {
        /// Whether each program has a slot of its own.
        each: bool,
    },
}

/// An engine, and why.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) kind: Kind,
    /// For people: the engine and the reason for it.
    pub(crate) words: String,
    /// What the operator should know of the choice.
    pub(crate) note: Option<String>,
}

const SHARED: &str = "dispatcher (auto: neighbours share a slot, and programs of libxdp can join)";

impl Chosen {
    fn new(kind: Kind, words: impl Into<String>) -> Self {
        Self { kind, words: words.into(), note: None }
    }
}

/// A program of a chain that makes tail calls.
pub(crate) fn tail_caller<'a>(xdp: &'a XdpSpec, catalog: &Catalog<'_>) -> Option<&'a ProgramName> {
    let mut programs = xdp.chain.iter().map(|entry| &entry.program);
    programs.find(|name| catalog.get(name).is_ok_and(|usable| usable.facts.has_tail_call()))
}

/// Chooses the engine for a hook. What runs is never changed for a better engine without being
/// asked for: that would open a gap. `tail_caller`: a member that makes tail calls, which the
/// kernel does not take from a slot (see `ProgramFacts::has_tail_call`).
pub(crate) fn choose(
    wanted: Engine,
    standing: Standing<'_>,
    tail_caller: Option<&ProgramName>,
    caps: &Caps,
) -> Result<Chosen, Obstacle> {
    let linked = standing.link().map(|link| !link.is_dispatcher());
    match (wanted, &caps.freplace) {
        (Engine::Fused, _) => Ok(Chosen::new(Kind::Fused, "fused (as the document says)")),
        (Engine::Dispatcher, Ok(())) if let Some(name) = tail_caller => Err(Obstacle::new(
            RefusalReason::EngineUnsupported,
            "/xdp/engine",
            format!(
                "{name} makes tail calls, and the kernel lets no program in a slot share a program \
                 array with XDP programs; `\"engine\": \"auto\"` makes one program of the chain"
            ),
        )),
        (Engine::Dispatcher, Ok(())) => {
            Ok(Chosen::new(Kind::Slots { each: true }, "dispatcher (as the document says)"))
        }
        (Engine::Dispatcher, Err(why)) => Err(Obstacle::new(
            RefusalReason::EngineUnsupported,
            "/xdp/engine",
            format!(
                "engine dispatcher needs programs that replace functions of others (freplace), and \
                 this kernel refuses them: {why}; `\"engine\": \"auto\"` makes one program of the \
                 chain here"
            ),
        )),
        (Engine::Auto, Err(why)) => {
            Ok(Chosen::new(Kind::Fused, format!("fused (auto: no freplace: {why})")))
        }
        (Engine::Auto, Ok(())) if let Some(name) = tail_caller => Ok(Chosen::new(
            Kind::Fused,
            format!("fused (auto: {name} makes tail calls, which the kernel takes from no slot)"),
        )),
        (Engine::Auto, Ok(())) if linked == Some(true) => Ok(Chosen {
            note: Some(
                "engine auto keeps the BPF link that the chain is attached by, which programs of \
                 libxdp cannot join; a change opens a gap: write `\"engine\": \"dispatcher\"`, \
                 use `apply --allow-gap`, and then `auto` again"
                    .to_owned(),
            ),
            ..Chosen::new(Kind::Fused, "fused (auto: it runs so)")
        }),
        (Engine::Auto, Ok(())) => Ok(Chosen::new(Kind::Slots { each: false }, SHARED)),
    }
}

/// The engine for a chain under `auto` that is detached and attached again for another reason: there
/// is nothing to keep then. `None`: it is the one that it has.
pub(crate) fn anew(
    wanted: Engine,
    chosen: &Chosen,
    tail_caller: Option<&ProgramName>,
    caps: &Caps,
) -> Option<Chosen> {
    let better = wanted == Engine::Auto && chosen.kind == Kind::Fused;
    (better && tail_caller.is_none() && caps.freplace.is_ok())
        .then(|| Chosen::new(Kind::Slots { each: false }, SHARED))
}

/// The engine that a hook has, or would get: for a change that must not wait.
pub(crate) fn keep(
    wanted: Engine,
    standing: Standing<'_>,
    tail_caller: Option<&ProgramName>,
    caps: &Caps,
) -> Chosen {
    let running = standing.link().map(|link| match link.is_dispatcher() {
        true => Chosen::new(Kind::Slots { each: false }, "dispatcher (it runs so)"),
        false => Chosen::new(Kind::Fused, "fused (it runs so)"),
    });
    running.unwrap_or_else(|| {
        choose(wanted, standing, tail_caller, caps)
            .unwrap_or_else(|_| Chosen::new(Kind::Fused, "fused (there is no freplace)"))
    })
}
