//! Dispatchers: what runs in them, and what a plan changes about it.

use super::table::{Column, cell, lines, table};
use super::text::{Tone, count, grouped};
use crate::output::Look;
use pointsman_model::chain::{ChainSpec, MemberSpec};
use pointsman_model::plan::OtherChange;
use pointsman_model::status::{DispatchedProgram, DispatcherStatus};
use std::fmt::Write as _;

/// A dispatcher with all its programs, in the order they run.
pub(crate) fn all(look: Look, dispatcher: &DispatcherStatus) -> String {
    let DispatcherStatus { program_id, version, fixed, runs, run_nanoseconds, programs } =
        dispatcher;
    let mut text = format!(
        "dispatcher id {program_id}  version {version}  {}",
        count(programs.len(), "program")
    );
    if let (Some(runs), Some(time)) = (runs, run_nanoseconds) {
        let each = time.checked_div(*runs).unwrap_or(0);
        let _ = write!(text, "  {} runs of {each} ns", grouped(*runs));
    }
    text.push('\n');
    if let Some(why) = fixed {
        text += &look.paint(Tone::Warn, &format!("nothing can join it: {why}"));
        text.push('\n');
    }
    if programs.is_empty() {
        return text;
    }
    let mut table = table(
        look,
        &[
            ("prio", Column::Number),
            ("program", Column::Text),
            ("id", Column::Number),
            ("actions", Column::Text),
            ("whose", Column::Text),
        ],
    );
    for program in programs {
        let DispatchedProgram { id, name, priority, members, owner, .. } = program;
        let actions = program.chain_call_actions.to_string().replace(',', " ");
        let names: Vec<_> = members.iter().map(ToString::to_string).collect();
        let whose =
            if names.is_empty() { owner.clone() } else { format!("ours: {}", names.join(" ")) };
        table.add_row([cell(priority), cell(name), cell(id), cell(actions), cell(whose)]);
    }
    text += &lines(&table);
    text
}

/// How a chain is divided into slots, if that changes.
pub(crate) fn slots(look: Look, before: Option<&ChainSpec>, after: Option<&ChainSpec>) -> String {
    let (old, new) =
        (before.map(divided).unwrap_or_default(), after.map(divided).unwrap_or_default());
    if old == new || new.is_empty() {
        return String::new();
    }
    let line = match old.is_empty() {
        true => format!("  ~ slots of the dispatcher: {new}"),
        false => format!("  ~ slots of the dispatcher: {old} -> {new}"),
    };
    look.paint(Tone::Warn, &line) + "\n"
}

/// Programs of others that move.
pub(crate) fn moved(look: Look, others: &[OtherChange]) -> String {
    let mut text = String::new();
    for OtherChange { id, name, priority, chain_call_actions } in others {
        let line = format!(
            "  ~ {name} (id {id}, not ours): priority {priority}, goes on after {chain_call_actions}"
        );
        let _ = writeln!(text, "{}", look.paint(Tone::Warn, &line));
    }
    text
}

/// Each slot's members in brackets; one of its own with a mark.
fn divided(chain: &ChainSpec) -> String {
    if chain.slots.is_empty() {
        return String::new();
    }
    let name = |member: &MemberSpec| member.program.to_string();
    let slots = chain.parts().map(|(members, slot)| {
        let names: Vec<_> = members.iter().map(name).collect();
        let own = if slot.is_some_and(|slot| slot.own) { " alone" } else { "" };
        format!("[{}{own}]", names.join(" "))
    });
    slots.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::PLAIN;
    use pointsman_model::{Action, ActionSet, ProgramName};

    #[test]
    fn all_programs_are_shown_with_whose_they_are() {
        let program = |priority, name: &str, members: &[&str]| DispatchedProgram {
            id: priority + 100,
            name: name.into(),
            tag: "0123456789abcdef".into(),
            priority,
            chain_call_actions: ActionSet::PASS.with(Action::Drop),
            members: members.iter().map(|&name| ProgramName::new(name).unwrap()).collect(),
            owner: if members.is_empty() { "libxdp (AF_XDP default program)" } else { "this node" }
                .into(),
        };
        let mut dispatcher = DispatcherStatus {
            program_id: 77,
            version: 2,
            fixed: None,
            runs: Some(1_234_567),
            run_nanoseconds: Some(98_765_432),
            programs: vec![
                program(10, "ddos_main", &["ddos", "ports"]),
                program(20, "xsk_def_prog", &[]),
            ],
        };
        insta::assert_snapshot!(all(PLAIN, &dispatcher), @"
        dispatcher id 77  version 2  2 programs  1,234,567 runs of 80 ns
          prio  program        id  actions    whose
            10  ddos_main     110  drop pass  ours: ddos ports
            20  xsk_def_prog  120  drop pass  libxdp (AF_XDP default program)
        ");
        dispatcher.programs.clear();
        (dispatcher.runs, dispatcher.run_nanoseconds) = (None, None);
        dispatcher.fixed = Some("it is attached by a BPF link".into());
        insta::assert_snapshot!(all(PLAIN, &dispatcher), @"
        dispatcher id 77  version 2  0 programs
        nothing can join it: it is attached by a BPF link
        ");
    }
}
