//! What a drain would remove, and what it removed.

use super::plan::results;
use super::text::{Tone, count, indent};
use crate::output::Look;
use pointsman_model::api::DrainReport;
use pointsman_model::status::{HookState, Status};

/// The question before a drain.
pub(crate) fn question(status: &Status) -> String {
    let node = status.node.as_ref().map_or("this node", |node| node.as_str());
    let hooks: Vec<_> = status
        .hooks
        .iter()
        .filter(|hook| hook.state != HookState::Absent)
        .map(|hook| format!("{} ({})", hook.hook, count(hook.members.len(), "program")))
        .collect();
    let what = match hooks.as_slice() {
        [] => "no chain runs; pins, maps and counters that are left are removed".to_owned(),
        hooks => format!(
            "{} taken off: {}; maps and counters are removed",
            if hooks.len() == 1 {
                "1 chain is".into()
            } else {
                format!("{} chains are", hooks.len())
            },
            hooks.join(", ")
        ),
    };
    format!("drain {node}: {what}\ngo on? [y/N] ")
}

/// The report of a drain.
pub(crate) fn drain(look: Look, report: &DrainReport) -> String {
    let DrainReport { results: steps, failures } = report;
    let (tone, how) = match (failures.len(), steps.len()) {
        (0, 0) => (Tone::Good, "drained: nothing of ours was there".to_owned()),
        (0, _) => (Tone::Good, "drained: nothing of ours is left".to_owned()),
        (left, _) => (
            Tone::Bad,
            format!(
                "drained in part: {} not be removed",
                if left == 1 { "1 thing could".into() } else { format!("{left} things could") }
            ),
        ),
    };
    let mut text = look.paint(tone, &how) + "\n";
    text += &results(look, steps);
    for failure in failures {
        text += &look.paint(Tone::Bad, "not removed:");
        text += &format!("\n{}", indent(failure, "  "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{samples::PLAIN, status::tests::status};
    use pointsman_model::api::{StepOutcome, StepResult};

    #[test]
    fn the_question_names_the_node_and_its_chains() {
        let mut status = status();
        assert_eq!(
            question(&status),
            "drain edge-17: 1 chain is taken off: eth0/xdp (2 programs); maps and counters are \
             removed\ngo on? [y/N] "
        );
        status.hooks.clear();
        status.node = None;
        assert!(question(&status).starts_with("drain this node: no chain runs;"));
    }

    #[test]
    fn what_could_not_be_removed_is_said() {
        let step = |step: &str, outcome| StepResult { step: step.into(), outcome, micros: 450 };
        let report = DrainReport {
            results: vec![
                step("detach eth0/xdp", StepOutcome::Done),
                step("release hook eth0/xdp", StepOutcome::Failed("unlink: read-only".into())),
            ],
            failures: vec!["/sys/fs/bpf/pointsman/hooks/eth0: read-only file system".into()],
        };
        insta::assert_snapshot!(drain(PLAIN, &report), @"
        drained in part: 1 thing could not be removed
          done       450 µs  detach eth0/xdp
          failed     450 µs  release hook eth0/xdp
              unlink: read-only
        not removed:
          /sys/fs/bpf/pointsman/hooks/eth0: read-only file system
        ");
        let clean = DrainReport { results: vec![], failures: vec![] };
        assert_eq!(drain(PLAIN, &clean), "drained: nothing of ours was there\n");
    }
}
