//! What a plan does to a hook's chain, in the manner of a diff: in the order programs run, one
//! line per program, and what changed about it.

use super::text::{Tone, count};
use crate::output::Look;
use pointsman_model::chain::{ChainSpec, MemberSpec};
use pointsman_model::plan::{HookChange, HookDiff};
use std::fmt::{self, Write as _};

/// How a hook's change ended that could not be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// What ran before runs still.
    Stays,
    /// What ran before was taken away, and what should run now is not there.
    Gone,
}

/// One hook's part of a plan, and of what became of it.
pub(crate) fn hook(look: Look, diff: &HookDiff, failed: Option<Failed>) -> String {
    let HookDiff { hook, change, before, after, mode, engine, pending, others } = diff;
    let (sign, tone, what) = match change {
        HookChange::Unchanged => (' ', Tone::Heading, "unchanged"),
        HookChange::Attach => ('+', Tone::Good, "attach a chain"),
        HookChange::Swap => ('~', Tone::Warn, "swap the chain"),
        HookChange::Reattach => ('!', Tone::Bad, "detach and attach again (opens a gap)"),
        HookChange::Detach => ('-', Tone::Bad, "take the chain away"),
        HookChange::Pending => ('…', Tone::Warn, "pending: attached when its interface appears"),
        HookChange::Refused => ('!', Tone::Bad, "refused: stays as it is"),
    };
    if let Some(failed) = failed {
        let (how, runs) = match failed {
            Failed::Stays => ("stays as it is", running(before.as_ref())),
            Failed::Gone => ("the old chain is gone", running(None)),
        };
        let line = format!("! {hook}  failed: {what}; {how}");
        return look.paint(Tone::Bad, &line) + "\n" + &runs;
    }
    let mut text = look.paint(tone, &format!("{sign} {hook}  {what}"));
    if let Some(mode) = mode {
        let _ = write!(text, "  {mode}");
    }
    text.push('\n');
    if let Some(pending) = pending {
        return text + "    " + pending + "\n";
    }
    if matches!(change, HookChange::Unchanged | HookChange::Refused) {
        return text + &running(before.as_ref());
    }
    if !engine.is_empty() {
        let _ = writeln!(text, "    engine {engine}");
    }
    text += &chain(look, before.as_ref(), after.as_ref());
    text += &super::dispatcher::slots(look, before.as_ref(), after.as_ref());
    text += &super::dispatcher::moved(look, others);
    text
}

/// Names a chain that stays.
fn running(chain: Option<&ChainSpec>) -> String {
    match chain {
        None => "    no chain runs\n".to_owned(),
        Some(chain) if chain.members.is_empty() => "    an empty program runs\n".to_owned(),
        Some(chain) => {
            let names: Vec<_> = chain.members.iter().map(|m| m.program.as_str()).collect();
            format!("    {}: {}\n", count(names.len(), "program"), names.join(", "))
        }
    }
}

fn chain(look: Look, before: Option<&ChainSpec>, after: Option<&ChainSpec>) -> String {
    let none = ChainSpec { members: Vec::new(), frags: false, slots: Vec::new() };
    let (old, new) = (before.unwrap_or(&none), after.unwrap_or(&none));
    let lines = lines(&old.members, &new.members);
    let all = || lines.iter().map(Line::member);
    let widths = Widths {
        priority: all().map(|m| m.priority.to_string().len()).max().unwrap_or(0),
        program: all().map(|m| m.program.as_str().len()).max().unwrap_or(0),
        entry: all().map(|m| m.entry.as_str().len()).max().unwrap_or(0),
        actions: all().map(|m| m.chain_call_actions.to_string().len()).max().unwrap_or(0),
    };
    let mut text: String = lines.iter().map(|line| line.render(look, widths)).collect();
    if after.is_some_and(|chain| chain.members.is_empty()) {
        text += "    an empty program stays attached and passes every packet\n";
    }
    if before.is_some() && after.is_some() && old.frags != new.frags {
        let frags = |on: bool| if on { "takes" } else { "does not take" };
        let line = format!(
            "  ~ the fused program {} packets of several buffers (before: {})",
            frags(new.frags),
            frags(old.frags)
        );
        let _ = writeln!(text, "{}", look.paint(Tone::Warn, &line));
    }
    text
}

#[derive(Debug, Clone, Copy)]
struct Widths {
    priority: usize,
    program: usize,
    entry: usize,
    actions: usize,
}

/// A program's line.
#[derive(Debug)]
enum Line<'a> {
    Same(&'a MemberSpec),
    Joins(&'a MemberSpec),
    Leaves(&'a MemberSpec),
    Changes { new: &'a MemberSpec, changes: Vec<Change> },
}

/// What changes about a program.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    what: &'static str,
    old: String,
    new: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, old, new } = self;
        if old == new { f.write_str(what) } else { write!(f, "{what} {old} -> {new}") }
    }
}

impl Line<'_> {
    fn member(&self) -> &MemberSpec {
        match self {
            Self::Same(member) | Self::Joins(member) | Self::Leaves(member) => member,
            Self::Changes { new, .. } => new,
        }
    }

    fn render(&self, look: Look, widths: Widths) -> String {
        let (sign, tone) = match self {
            Self::Same(_) => (' ', None),
            Self::Joins(_) => ('+', Some(Tone::Good)),
            Self::Leaves(_) => ('-', Some(Tone::Bad)),
            Self::Changes { .. } => ('~', Some(Tone::Warn)),
        };
        let member = self.member();
        let MemberSpec { program, entry, priority, chain_call_actions, enforce, form, .. } = member;
        let Widths { priority: wide, program: long, entry: longer, actions: all } = widths;
        let acted = if *enforce { "enforced" } else { "observed" };
        let mut line = format!(
            "  {sign} {priority:>wide$}  {program:<long$}  {entry:<longer$}  goes on after \
             {chain_call_actions:<all$}  {acted}  {form}  {}",
            member.object.short()
        );
        if let Some(tone) = tone {
            line = look.paint(tone, &line);
        }
        line.push('\n');
        if let Self::Changes { changes, .. } = self {
            for change in changes {
                let _ = writeln!(line, "      {change}");
            }
        }
        line
    }
}

/// Merges two chains into lines: the new one's programs in their order, and those that leave
/// where they were. Of the programs in both, the longest run that keeps its order stands still
/// and the others have moved, so that one program moved to the front is one change, not many.
fn lines<'a>(old: &'a [MemberSpec], new: &'a [MemberSpec]) -> Vec<Line<'a>> {
    let still = common_order(old, new);
    let mut lines = Vec::new();
    let mut from = 0;
    let leaves = |member: &&MemberSpec| place(new, member).is_none();
    for (at, member) in new.iter().enumerate() {
        let Some(was) = place(old, member) else {
            lines.push(Line::Joins(member));
            continue;
        };
        let moved = !still.contains(&was);
        if !moved {
            lines.extend(old[from..was].iter().filter(leaves).map(Line::Leaves));
            from = was;
        }
        let mut changes = changes(&old[was], member);
        if moved {
            let (old, new) = ((was + 1).to_string(), (at + 1).to_string());
            // A program can change its order and keep its number, when others join or leave.
            changes.insert(0, Change { what: "moves: place", old, new });
        }
        lines.push(match changes.is_empty() {
            true => Line::Same(member),
            false => Line::Changes { new: member, changes },
        });
    }
    lines.extend(old[from..].iter().filter(leaves).map(Line::Leaves));
    lines
}

fn place(chain: &[MemberSpec], member: &MemberSpec) -> Option<usize> {
    chain.iter().position(|other| other.program == member.program)
}

/// The places in `old` of the longest subsequence of programs that `new` has in the same order.
fn common_order(old: &[MemberSpec], new: &[MemberSpec]) -> Vec<usize> {
    // Of each program in both, in the new order, its old place: what is wanted is the longest
    // rising subsequence. Chains have at most 128 members, so the square of that is nothing.
    let places: Vec<usize> = new.iter().filter_map(|member| place(old, member)).collect();
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(places.len());
    for (at, &here) in places.iter().enumerate() {
        let before = (0..at).filter(|&b| places[b] < here).max_by_key(|&b| best[b].0);
        best.push((before.map_or(1, |b| best[b].0 + 1), before));
    }
    let mut at = (0..best.len()).max_by_key(|&at| best[at].0);
    let mut still = Vec::new();
    while let Some(here) = at {
        still.push(places[here]);
        at = best[here].1;
    }
    still
}

fn changes(old: &MemberSpec, new: &MemberSpec) -> Vec<Change> {
    // Named one by one, so that a new field cannot be forgotten here.
    let MemberSpec {
        program: _,
        fingerprint,
        object,
        source,
        entry,
        tag,
        priority,
        chain_call_actions,
        enforce,
        form,
    } = new;
    let mut changes = Vec::new();
    let mut compare = |what, old: String, new: String| {
        if old != new {
            changes.push(Change { what, old, new });
        }
    };
    compare("priority", old.priority.to_string(), priority.to_string());
    compare(
        "chain_call_actions",
        old.chain_call_actions.to_string(),
        chain_call_actions.to_string(),
    );
    compare("enforce", old.enforce.to_string(), enforce.to_string());
    compare("object", old.object.short(), object.short());
    compare("from", old.source.clone(), source.clone());
    compare("entry", old.entry.to_string(), entry.to_string());
    compare("built in as", old.form.to_string(), form.to_string());
    let same_code = old.object == *object && old.entry == *entry;
    if same_code && old.fingerprint != *fingerprint {
        changes.push(Change { what: "globals change", old: String::new(), new: String::new() });
    } else if same_code && old.tag != *tag {
        changes.push(Change { what: "tag", old: old.tag.clone(), new: tag.clone() });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::{self, PLAIN, chain, member};
    use pointsman_model::observed::AttachMode;
    use pointsman_model::{Action, ActionSet, Fingerprint, Sha256};

    fn diff(
        change: HookChange,
        before: Option<&[MemberSpec]>,
        after: Option<&[MemberSpec]>,
    ) -> String {
        let diff = HookDiff {
            others: vec![],
            hook: samples::hook("eth0"),
            change,
            before: before.map(chain),
            after: after.map(chain),
            mode: after.map(|_| AttachMode::Native),
            engine: after.map_or("", |_| "fused: this kernel has no freplace").to_owned(),
            pending: None,
        };
        hook(PLAIN, &diff, None)
    }

    fn four() -> [MemberSpec; 4] {
        [
            member("ddos", "ddos_main", 10),
            member("ports", "mtl_dp_filter", 19),
            member("count", "counting_pass", 50),
            member("log", "log_main", 100),
        ]
    }

    #[test]
    fn a_first_chain_is_all_plus_and_a_last_one_all_minus() {
        let [ddos, ports, ..] = four();
        insta::assert_snapshot!(
            diff(HookChange::Attach, None, Some(&[ddos.clone(), ports.clone()])), @"
        + eth0/xdp  attach a chain  native
            engine fused: this kernel has no freplace
          + 10  ddos   ddos_main      goes on after pass  enforced  inlined  deeb92f091ca
          + 19  ports  mtl_dp_filter  goes on after pass  enforced  inlined  87afb3f7f383
        ");
        insta::assert_snapshot!(diff(HookChange::Detach, Some(&[ddos, ports]), None), @"
        - eth0/xdp  take the chain away
          - 10  ddos   ddos_main      goes on after pass  enforced  inlined  deeb92f091ca
          - 19  ports  mtl_dp_filter  goes on after pass  enforced  inlined  87afb3f7f383
        ");
    }

    #[test]
    fn what_changes_about_a_program_is_named() {
        let [ddos, ports, count, log] = four();
        let mut newer = ports.clone();
        newer.object = Sha256::of(b"newer");
        newer.source = "/usr/lib/bpf/ports-2.o".into();
        newer.fingerprint = Fingerprint::new(&newer.object, None, "{}");
        newer.enforce = false;
        newer.chain_call_actions = ActionSet::PASS.with(Action::Drop);
        let mut tuned = count.clone();
        tuned.fingerprint = Fingerprint::new(&count.object, Some(&count.entry), "{\"a\":1}");
        let old = [ddos.clone(), ports, count, log.clone()];
        insta::assert_snapshot!(
            diff(HookChange::Swap, Some(&old), Some(&[ddos, newer, tuned, log])), @"
        ~ eth0/xdp  swap the chain  native
            engine fused: this kernel has no freplace
             10  ddos   ddos_main      goes on after pass       enforced  inlined  deeb92f091ca
          ~  19  ports  mtl_dp_filter  goes on after drop,pass  observed  inlined  804f51f71254
              chain_call_actions pass -> drop,pass
              enforce true -> false
              object 87afb3f7f383 -> 804f51f71254
              from /usr/lib/bpf/ports.o -> /usr/lib/bpf/ports-2.o
          ~  50  count  counting_pass  goes on after pass       enforced  inlined  6c35493a2b93
              globals change
            100  log    log_main       goes on after pass       enforced  inlined  836ff184e7b4
        ");
    }

    #[test]
    fn one_program_moved_to_the_front_is_one_change() {
        let [ddos, ports, count, log] = four();
        let mut first = log.clone();
        first.priority = 5;
        let old = [ddos.clone(), ports.clone(), count.clone(), log];
        insta::assert_snapshot!(
            diff(HookChange::Swap, Some(&old), Some(&[first, ddos, ports, count])), @"
        ~ eth0/xdp  swap the chain  native
            engine fused: this kernel has no freplace
          ~  5  log    log_main       goes on after pass  enforced  inlined  836ff184e7b4
              moves: place 4 -> 1
              priority 100 -> 5
            10  ddos   ddos_main      goes on after pass  enforced  inlined  deeb92f091ca
            19  ports  mtl_dp_filter  goes on after pass  enforced  inlined  87afb3f7f383
            50  count  counting_pass  goes on after pass  enforced  inlined  6c35493a2b93
        ");
    }

    #[test]
    fn programs_that_leave_stand_where_they_were() {
        let [ddos, ports, count, log] = four();
        let old = [ddos.clone(), ports, count.clone()];
        insta::assert_snapshot!(
            diff(HookChange::Swap, Some(&old), Some(&[ddos, log, count])), @"
        ~ eth0/xdp  swap the chain  native
            engine fused: this kernel has no freplace
             10  ddos   ddos_main      goes on after pass  enforced  inlined  deeb92f091ca
          + 100  log    log_main       goes on after pass  enforced  inlined  836ff184e7b4
          -  19  ports  mtl_dp_filter  goes on after pass  enforced  inlined  87afb3f7f383
             50  count  counting_pass  goes on after pass  enforced  inlined  6c35493a2b93
        ");
    }

    #[test]
    fn what_stays_is_one_line() {
        let [ddos, ports, ..] = four();
        let both = [ddos, ports];
        insta::assert_snapshot!(diff(HookChange::Unchanged, Some(&both), Some(&both)), @"
        eth0/xdp  unchanged  native
          2 programs: ddos, ports
        ");
        insta::assert_snapshot!(diff(HookChange::Refused, None, None), @"
        ! eth0/xdp  refused: stays as it is
            no chain runs
        ");
    }

    #[test]
    fn an_emptied_chain_says_that_a_program_stays() {
        let [ddos, ..] = four();
        insta::assert_snapshot!(diff(HookChange::Swap, Some(&[ddos]), Some(&[])), @"
        ~ eth0/xdp  swap the chain  native
            engine fused: this kernel has no freplace
          - 10  ddos  ddos_main  goes on after pass  enforced  inlined  deeb92f091ca
            an empty program stays attached and passes every packet
        ");
    }

    #[test]
    fn the_longest_common_order_stands_still() {
        let [a, b, c, d] = four();
        let old = [a.clone(), b.clone(), c.clone(), d.clone()];
        let moved = |new: &[MemberSpec]| {
            let mut still = common_order(&old, new);
            still.sort_unstable();
            still
        };
        assert_eq!(moved(&[d.clone(), a.clone(), b.clone(), c.clone()]), [0, 1, 2]);
        assert_eq!(moved(&[b.clone(), c.clone(), d.clone(), a.clone()]), [1, 2, 3]);
        assert_eq!(moved(&[d, c, b, a]).len(), 1);
        assert_eq!(moved(&[]), Vec::<usize>::new());
    }
}
