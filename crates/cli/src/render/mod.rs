//! Answers of the node and of the control plane as text for people. Pure: values in, text out; no
//! function here does I/O.
//!
//! Everything fits into 100 columns with names of usual length; longer names wrap inside tables.
//! Lines that quote the node (messages, verifier logs) are not wrapped, so that they can be
//! searched for.

pub(crate) mod apply;
pub(crate) mod counters;
pub(crate) mod diff;
pub(crate) mod dispatcher;
pub(crate) mod doctor;
pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod fleet;
pub(crate) mod glass;
pub(crate) mod inspect;
pub(crate) mod instances;
pub(crate) mod lcores;
pub(crate) mod plan;
pub(crate) mod preflight;
pub(crate) mod refusal;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod text;

#[cfg(test)]
pub(crate) mod samples;
