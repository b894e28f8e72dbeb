//! What to do: from what an operator wants and what a host has to ordered steps.
//!
//! In: a document whose objects were found and whose programs were inspected ([`Wanted`]), the
//! host as it was observed, and what its kernel can do ([`Caps`]). Out: a [`Plan`] of steps,
//! refusals and notes, which [`carry_out`] takes to a [`Host`]: the kernel, or the
//! [`simulator`]. The daemon calls all of it; nothing here does I/O, and equal input gives an
//! equal plan.
//!
//! * [`plan`] is total: what cannot be done is a refusal in the plan, and no refusal of one hook
//!   keeps another from its steps.
//! * A plan warns of what will not work or cost packets; [`examine`] does so for any
//!   interface, and [`examine_host`] for the host.
//! * [`drain`] plans the removal of all that is ours.
//! * [`relevant`] is what of a host a plan depends on.
//! * A hook that an operator bypassed ([`Wanted::bypassed`]) gets an empty chain, and its programs
//!   keep their maps.
//! * [`nic`] says what of a card goes to whom.
//! * [`instances`] joins what instances need to a document.
//! * [`guard`] keeps an accepted document from being replaced by an older or an emptied one.
#![forbid(unsafe_code)]

mod bypass;
mod catalog;
mod chain;
mod drift;
mod engine;
mod execution;
mod follow;
mod guard;
mod hook;
pub mod instances;
mod narrow;
pub mod nic;
mod place;
mod planner;
mod preflight;
mod programs;
mod relevant;
pub mod simulator;
mod slots;
mod standing;
mod upgrade;
mod wanted;

pub use drift::{Pace, Settled, drift};
pub use execution::{Host, carry_out};
pub use guard::{Current, Mark, guard, left_behind};
pub use narrow::{narrow, narrow_to};
pub use planner::{drain, plan};
pub use pointsman_model::plan::Plan;
pub use preflight::{examine, examine_host, unseen};
pub use relevant::relevant;
pub use wanted::{Caps, Options, Wanted};
