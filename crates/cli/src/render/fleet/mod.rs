//! Answers of the control plane. What it and the nodes say is untrusted text: it is shown in one
//! line and without control characters.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod changes;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod program;
pub(crate) mod publish;
#[cfg(test)]
pub(crate) mod samples;
pub(crate) mod snapshot;
pub(crate) mod status;

use super::text::Tone;
use crate::output::Look;
use pointsman_model::fleet::{Labels, NodeHealth};

/// What stands where there is nothing to tell.
const NOTHING: &str = "-";

fn health(look: Look, health: NodeHealth) -> String {
    look.paint(tone(health), health.name())
}

fn tone(health: NodeHealth) -> Tone {
    match health {
        NodeHealth::Failing | NodeHealth::Silent => Tone::Bad,
        NodeHealth::Behind => Tone::Warn,
        NodeHealth::Well => Tone::Good,
        NodeHealth::New => Tone::Faint,
    }
}

fn labels(labels: &Labels) -> String {
    if labels.is_empty() {
        return NOTHING.to_owned();
    }
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(", ")
}

/// Names, as many as fit a line; the rest is counted.
fn some_of<T: ToString>(names: &[T], most: usize) -> String {
    let shown: Vec<_> = names.iter().take(most).map(ToString::to_string).collect();
    let text = shown.join(", ");
    match names.len().saturating_sub(most) {
        0 => text,
        more => format!("{text} and {} more", super::text::grouped(more as u64)),
    }
}

/// The question before something is taken away.
pub(crate) fn go_on(what: &str) -> String {
    format!("{what}\ngo on? [y/N] ")
}
