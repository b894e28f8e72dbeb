//! What will not work, or not as one would think.

use super::text::{Tone, count, grouped, share};
use crate::output::Look;
use pointsman_model::preflight::{MemberBudget, Severity, VerifierBudget, Warning};

/// The most remarks that are shown: a host can have hundreds of interfaces. What fails or costs
/// packets is always shown.
const REMARKS: usize = 10;

/// Warnings, one line each, the worst first.
pub(crate) fn warnings(look: Look, warnings: &[Warning]) -> String {
    let (remarks, worse): (Vec<_>, Vec<_>) =
        warnings.iter().partition(|warning| warning.severity == Severity::Info);
    let (failures, warnings): (Vec<_>, Vec<_>) =
        worse.into_iter().partition(|warning| warning.severity == Severity::Failure);
    let left_out = remarks.len().saturating_sub(REMARKS);
    let shown = failures.into_iter().chain(warnings).chain(remarks.into_iter().take(REMARKS));
    let mut text: String = shown.map(|warning| line(look, warning)).collect();
    if left_out > 0 {
        let more = count(left_out, "more remark");
        text += &format!("{} {more} (--json has all)\n", look.paint(Tone::Faint, "remark:"));
    }
    text
}

fn line(look: Look, warning: &Warning) -> String {
    let Warning { kind, severity, hook, program: _, message } = warning;
    let (tone, word) = match severity {
        Severity::Failure => (Tone::Bad, "will fail:"),
        Severity::Warning => (Tone::Warn, "warning:"),
        Severity::Info => (Tone::Faint, "remark:"),
    };
    format!("{} {hook}: {kind}: {message}\n", look.paint(tone, word))
}

/// What chains take of what the verifier allows, each with its members.
pub(crate) fn budgets(look: Look, budgets: &[VerifierBudget]) -> String {
    let Some(VerifierBudget { limit, .. }) = budgets.first() else { return String::new() };
    let rows: Vec<_> = budgets.iter().flat_map(rows).collect();
    let names = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let numbers = rows.iter().map(|row| row.processed.len()).max().unwrap_or(0);
    let limit = grouped(u64::from(*limit));
    let heading =
        format!("verifier: instructions walked for each member alone, of {limit} for a chain");
    let mut text = look.paint(Tone::Heading, &heading) + "\n";
    for Row { name, processed, share } in rows {
        text += &format!("  {name:names$}  {processed:>numbers$}  {share:>7}\n");
    }
    text
}

struct Row {
    name: String,
    processed: String,
    share: String,
}

fn rows(budget: &VerifierBudget) -> impl Iterator<Item = Row> {
    let VerifierBudget { hook, processed, limit, members } = budget;
    let row = |name, processed| Row {
        name,
        processed: grouped(processed),
        share: share(processed, *limit),
    };
    let member = move |member: &MemberBudget| {
        row(format!("  {}", member.program), u64::from(member.processed))
    };
    std::iter::once(row(hook.to_string(), *processed)).chain(members.iter().map(member))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::{self, PLAIN};

    #[test]
    fn the_worst_comes_first_and_remarks_are_limited() {
        let mut all = vec![samples::warning("eth0", Severity::Info); 12];
        all.push(samples::warning("eth1", Severity::Warning));
        all.push(samples::warning("eth2", Severity::Failure));
        let text = warnings(PLAIN, &all);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("will fail: eth2/xdp: disruptive: "), "{text}");
        assert!(lines[1].starts_with("warning: eth1/xdp: disruptive: "), "{text}");
        assert!(lines[2].starts_with("remark: eth0/xdp: disruptive: "), "{text}");
        assert_eq!(lines[12..], ["remark: 2 more remarks (--json has all)"]);
        assert_eq!(warnings(PLAIN, &[]), "");
    }

    #[test]
    fn budgets_are_a_table_by_hook_and_member() {
        let all = [
            samples::budget("eth0", &[("ddos", 512_345), ("ports", 4)]),
            samples::budget("eth1", &[]),
        ];
        insta::assert_snapshot!(budgets(PLAIN, &all), @"
        verifier: instructions walked for each member alone, of 1,000,000 for a chain
          eth0/xdp  512,349   51.2 %
            ddos    512,345   51.2 %
            ports         4    0.0 %
          eth1/xdp        0    0.0 %
        ");
        assert_eq!(budgets(PLAIN, &[]), "");
    }
}
