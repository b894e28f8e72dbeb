//! How several BPF programs become one.
//!
//! In: facts about programs ([`layout`]) and their final instructions ([`assemble`]). Out: a
//! decision how each member is built in, or the figures why they do not go together; and the
//! instructions, function and line records of the fused program. The planner calls the first, the
//! kernel side both. No kernel is needed for either.
#![forbid(unsafe_code)]

pub mod assemble;
mod builder;
pub mod insn;
pub mod layout;
pub mod shape;
pub mod slot;
