//! The status of a node.

use super::plan::separated;
use super::preflight::warnings;
use super::refusal::{LogLines, notes, refusals};
use super::table::{Column, cell, lines, table};
use super::text::{Tone, count, given, grouped, indent, share, uptime, utc};
use crate::output::Look;
use pointsman_model::fleet::{NodeFleetStatus, RefusedSnapshot};
use pointsman_model::preflight::VERIFIER_LIMIT;
use pointsman_model::status::{
    CardProblem, DriftStatus, ForeignProgram, FusedProgram, HookState, HookStatus, MemberStatus,
    RefusedDocument, Status,
};
use std::fmt::Write as _;

/// A whole status.
pub(crate) fn status(look: Look, status: &Status) -> String {
    let Status {
        version,
        pid,
        uptime_seconds,
        node,
        generation,
        drained,
        checks: _,
        unconfirmed,
        document,
        fleet,
        refused_document,
        hooks,
        foreign,
        cards,
        refusals: refused,
        notes: noted,
        warnings: warned,
    } = status;
    let mut text = match node {
        Some(node) => look.paint(Tone::Heading, node.as_str()),
        None => look.paint(Tone::Heading, "no document is in force"),
    };
    if let Some(generation) = generation {
        let _ = write!(text, "  generation {generation}");
    }
    if *drained {
        text += "  ";
        text += &look.paint(Tone::Warn, "drained: waits for a document to be applied");
    }
    let bypassed = hooks.iter().filter(|hook| hook.bypass.is_some()).count();
    if bypassed > 0 {
        text += "  ";
        text += &look.paint(Tone::Bad, &format!("{} BYPASSED", count(bypassed, "hook")));
    }
    let up = uptime(*uptime_seconds);
    let _ =
        write!(text, "\nwatches {document}\npointsman-node {version}, process {pid}, up {up}\n");
    if let Some(fleet) = fleet {
        text += &of_fleet(look, fleet);
    }
    if let Some(waiting) = unconfirmed {
        text += &separated(super::glass::unconfirmed(look, waiting));
    }
    if let Some(refused) = refused_document {
        text += &separated(refused_whole(look, refused));
    }
    for status in hooks {
        text += &separated(hook(look, status));
    }
    if hooks.is_empty() {
        text += "\nno hook is wanted, none is ours\n";
    }
    text += &separated(of_cards(look, cards));
    text += &separated(others(look, foreign));
    text += &separated(refusals(look, &refused.iter().collect::<Vec<_>>(), LogLines::REMINDER));
    text += &separated(warnings(look, warned));
    text += &separated(notes(look, noted));
    text
}

fn of_fleet(look: Look, status: &NodeFleetStatus) -> String {
    let NodeFleetStatus { fleet, node, key_id, generation, refused } = status;
    let last = match generation {
        Some(generation) => format!("last record: generation {generation}"),
        None => "no record so far".to_owned(),
    };
    let mut text = format!("fleet {fleet}, as {node}, key {key_id}; {last}\n");
    if let Some(RefusedSnapshot { at_unix_ms, kind, message }) = refused {
        let line = format!("refused a snapshot at {} ({kind}): {message}", utc(*at_unix_ms));
        text += &look.paint(Tone::Bad, &line);
        text.push('\n');
    }
    text
}

fn refused_whole(look: Look, refused: &RefusedDocument) -> String {
    let RefusedDocument { source, at_unix_ms, errors } = refused;
    let head = format!("refused: a document at {} (source: {source})", utc(*at_unix_ms));
    let lines = errors.iter().map(|error| indent(&error.to_string(), "  "));
    format!(
        "{}\n{}  the document in force stays\n",
        look.paint(Tone::Bad, &head),
        lines.collect::<String>()
    )
}

fn hook(look: Look, status: &HookStatus) -> String {
    let HookStatus {
        hook,
        interface_index,
        up,
        state,
        engine,
        mode,
        generation,
        fused,
        dispatcher,
        members,
        passed_end,
        refusals: refused,
        pending,
        drift,
        bypass,
    } = status;
    let (tone, state) = match state {
        HookState::Running => (Tone::Good, "running"),
        HookState::Outdated => (Tone::Warn, "outdated: an older chain runs"),
        HookState::Absent => (Tone::Bad, "absent: nothing of ours runs"),
        HookState::Pending => (Tone::Warn, "pending: attached when its interface appears"),
        HookState::Drifted => (Tone::Bad, "drifted: somebody else changed it"),
        HookState::Bypassed => (Tone::Bad, "BYPASSED: every packet passes"),
    };
    let mut text = look.paint(Tone::Heading, &hook.to_string());
    text += "  ";
    text += &look.paint(tone, state);
    if let Some(mode) = mode {
        let _ = write!(text, "  {mode}");
    }
    if let Some(generation) = generation {
        let _ = write!(text, "  generation {generation}");
    }
    match interface_index {
        Some(index) => {
            let _ = write!(text, "  interface {index}");
            if *up == Some(false) {
                text += "  ";
                text += &look.paint(Tone::Warn, "down");
            }
        }
        None => text += "  the interface is not there",
    }
    text.push('\n');
    if let Some(bypass) = bypass {
        let _ = writeln!(text, "  bypass  {}", super::glass::bypassed(bypass));
    }
    if let Some(pending) = pending {
        let _ = writeln!(text, "  waits   {pending}");
    }
    if let Some(DriftStatus { kind, message, at_unix_ms, repairs, .. }) = drift {
        let _ = writeln!(
            text,
            "  drift   {kind} at {}, repaired {repairs} times: {message}",
            utc(*at_unix_ms)
        );
    }
    if !engine.is_empty() {
        let _ = writeln!(text, "  engine  {engine}");
    }
    if let Some(fused) = fused {
        let FusedProgram {
            id,
            tag,
            sequence,
            translated_bytes,
            jited_bytes,
            frags,
            verified_instructions,
        } = fused;
        let jited = match jited_bytes {
            0 => "not jited".to_owned(),
            bytes => format!("jited {} B", grouped(u64::from(*bytes))),
        };
        let _ = writeln!(
            text,
            "  fused   id {id}  tag {tag}  chain {sequence}  xlated {} B  {jited}{}",
            grouped(u64::from(*translated_bytes)),
            if *frags { "  frags" } else { "" }
        );
        // Daemons of earlier versions do not say.
        if *verified_instructions > 0 {
            let verified = u64::from(*verified_instructions);
            let (walked, limit) = (grouped(verified), grouped(u64::from(VERIFIER_LIMIT)));
            let share = share(verified, VERIFIER_LIMIT);
            let _ = writeln!(text, "  verifier  walked {walked} of {limit} instructions ({share})");
        }
    }
    if !members.is_empty() {
        text += &chain(look, members);
    }
    if let Some(dispatcher) = dispatcher {
        text += &indent(&super::dispatcher::all(look, dispatcher), "  ");
    }
    if fused.is_some() || dispatcher.is_some() {
        let meaning = match members.len() {
            0 => "an empty program passes every packet",
            _ => "every program said: go on",
        };
        let _ = writeln!(text, "  passed at the end: {} ({meaning})", grouped(*passed_end));
    }
    let refused: Vec<_> = refused.iter().collect();
    text + &indent(&refusals(look, &refused, LogLines::REMINDER), "  ")
}

/// The programs of a chain, two lines each.
fn chain(look: Look, members: &[MemberStatus]) -> String {
    let mut table = table(
        look,
        &[
            ("prio", Column::Number),
            ("program\nentry", Column::Text),
            ("actions\nverdict", Column::Text),
            ("form", Column::Whole),
            ("tag\nobject", Column::Whole),
            ("runs", Column::Number),
            ("verdicts", Column::Whole),
        ],
    );
    for member in members {
        let MemberStatus {
            program,
            entry,
            priority,
            chain_call_actions,
            enforce,
            form,
            from_instances,
            tag,
            object,
            source: _,
            fingerprint: _,
            maps: _,
            runs,
            verdicts,
        } = member;
        let acted = if *enforce { "enforced" } else { "observed" };
        // Nobody finds it in the document.
        let whose = if *from_instances { "\nfor instances" } else { "" };
        let verdicts: Vec<_> =
            given(*verdicts).map(|(name, count)| format!("{name} {}", grouped(count))).collect();
        table.add_row([
            cell(priority),
            cell(format!("{program}\n{entry}{whose}")),
            // Spaces, because a cell wraps at them.
            cell(format!("{}\n{acted}", chain_call_actions.to_string().replace(',', " "))),
            cell(form),
            cell(format!("{tag}\n{}", object.short())),
            cell(grouped(*runs)),
            cell(if verdicts.is_empty() { "none".to_owned() } else { verdicts.join("\n") }),
        ]);
    }
    lines(&table)
}

fn of_cards(look: Look, problems: &[CardProblem]) -> String {
    if problems.is_empty() {
        return String::new();
    }
    let head = format!("cards: {} of the document", count(problems.len(), "problem"));
    let mut text = look.paint(Tone::Bad, &head) + "\n";
    for problem in problems {
        text += &indent(&problem.to_string(), "  ");
    }
    text
}

fn others(look: Look, foreign: &[ForeignProgram]) -> String {
    if foreign.is_empty() {
        return String::new();
    }
    let head = format!("not ours, never touched: {}", count(foreign.len(), "program"));
    let mut text = look.paint(Tone::Heading, &head) + "\n";
    for ForeignProgram { interface, attachment, owner, dispatcher } in foreign {
        let name = attachment.name.as_deref().unwrap_or("(no name)");
        let (id, mode) = (attachment.program_id, attachment.mode);
        let owner = if owner.is_empty() { "unknown" } else { owner };
        let _ = writeln!(text, "  {interface}  {mode}  id {id}  {name}  owner: {owner}");
        if let Some(dispatcher) = dispatcher {
            text += &indent(&super::dispatcher::all(look, dispatcher), "    ");
        }
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
