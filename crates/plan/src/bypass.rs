//! A hook that an operator bypassed: every packet passes, and our link stays where it is.

use crate::chain::chain;
use crate::engine::{self, Chosen};
use crate::hook::{Context, HookPlan, accept, keep, members};
use crate::place::{Beside, Hindrance, place};
use crate::slots::{host, others};
use crate::standing::Standing;
use pointsman_model::HookId;
use pointsman_model::document::{Mode, XdpSpec};
use pointsman_model::plan::{HookChange, Note};

/// Plans an empty chain where the document wants `xdp`.
///
/// What the document wants is looked at all the same: its programs are prepared, so that the end of
/// the bypass is one swap, and what is wrong with them is told. It keeps nobody from bypassing.
pub(crate) fn bypass(
    hook: &HookId,
    xdp: &XdpSpec,
    how_long: &str,
    context: &Context<'_>,
) -> HookPlan {
    let Context { catalog, caps, observed, options, .. } = *context;
    let standing = Standing::of(hook, observed);
    let others = others(host(standing, observed), standing.link(), &xdp.others);
    let tail_caller = engine::tail_caller(xdp, catalog);
    let Chosen { kind, words: engine, .. } = engine::keep(xdp.engine, standing, tail_caller, caps);
    let note = |message| Note { hook: Some(hook.clone()), program: None, message };
    // Changing the mode is the document's business, and may need a gap: not now.
    let mode = match standing {
        Standing::Running(..) | Standing::Away(_) => Mode::Auto,
        _ => xdp.mode,
    };
    let beside = Beside { kind, others: others.len(), engine: &engine };
    let place = match place(hook, mode, standing, beside, observed, options) {
        Ok(place) => place,
        Err(Hindrance::Pending(why)) => {
            let mut plan = keep(hook, xdp, standing, HookChange::Pending, engine, context);
            plan.diff.pending = Some(why);
            plan.notes.push(note(format!(
                "bypassed {how_long}: when its interface appears, an empty chain is \
                 attached"
            )));
            return plan;
        }
        Err(Hindrance::Obstacle(obstacle)) => {
            let mut plan = keep(hook, xdp, standing, HookChange::Refused, engine, context);
            plan.refusals.push(obstacle.refusal(hook));
            return plan;
        }
    };
    let nothing = XdpSpec { chain: Vec::new(), ..xdp.clone() };
    let wanted = chain(hook, xdp, kind, &others, catalog, caps.stack_rounding);
    let empty = match chain(hook, &nothing, kind, &others, catalog, caps.stack_rounding) {
        Ok(empty) => empty,
        // Ten programs of others, and none of ours among them.
        Err(refusals) => {
            let mut plan = keep(hook, xdp, standing, HookChange::Refused, engine, context);
            plan.refusals = refusals;
            return plan;
        }
    };
    let mut plan = accept(hook, standing, empty, place, &others, engine, context);
    plan.notes.push(note(format!(
        "bypassed {how_long}: its chain is empty and every packet passes; `pointsman \
         bypass {} --off` ends it",
        hook.interface
    )));
    match wanted {
        Ok(wanted) => plan.uses = Some(members(&wanted.spec).collect()),
        Err(refusals) => plan.refusals = refusals,
    }
    plan
}
