//! From a chain in the document to the chain as it is built.

use crate::catalog::{Catalog, Usable};
use crate::engine::Kind;
use crate::slots::{MAX_SLOTS, Other, divide, slot, tie, visible};
use pointsman_fuse::layout::{DoesNotFit, Layout, StackRounding, layout};
use pointsman_model::chain::{ChainSpec, Form, MemberSpec, SlotSpec};
use pointsman_model::document::{ChainEntry, SlotChoice, XdpSpec};
use pointsman_model::facts::ProgramProblem;
use pointsman_model::plan::{Note, Refusal, RefusalReason};
use pointsman_model::{HookId, ProgramName};

/// A chain that can be built, and what is worth knowing of it.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) spec: ChainSpec,
    pub(crate) notes: Vec<Note>,
}

/// Orders the members of `xdp` and decides how each is built in.
pub(crate) fn chain(
    hook: &HookId,
    xdp: &XdpSpec,
    kind: Kind,
    others: &[Other],
    catalog: &Catalog<'_>,
    rounding: StackRounding,
) -> Result<Chain, Vec<Refusal>> {
    let mut members = Vec::with_capacity(xdp.chain.len());
    let mut refusals = Vec::new();
    for entry in &xdp.chain {
        match catalog.get(&entry.program) {
            Ok(program) => members.push(Candidate { entry, program }),
            Err(problem) => refusals.push(unusable(hook, &entry.program, problem)),
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    members.sort_by_key(|member| {
        let Candidate { entry, program } = member;
        (entry.priority, &program.facts.entry, &entry.program)
    });
    let mut specs = Vec::with_capacity(members.len());
    let mut slots = Vec::new();
    let mut frags = true;
    let (mut rest, mut forms) = (&members[..], Vec::with_capacity(members.len()));
    for (count, choice) in parts(&members, kind, others) {
        let (part, behind) = rest.split_at(count);
        rest = behind;
        let layout =
            fit(part, rounding).map_err(|problem| vec![does_not_fit(hook, &members, &problem)])?;
        let start = specs.len();
        specs.extend(part.iter().zip(&layout.forms).map(|(member, &form)| member.spec(form)));
        frags &= layout.frags;
        if kind != Kind::Fused {
            slots.push(slot(&specs[start..], choice, layout.frags));
        }
        forms.extend(layout.forms);
    }
    let chance = slots
        .windows(2)
        .find(|two| (two[0].priority, &two[0].name) == (two[1].priority, &two[1].name));
    let visible = visible(&slots, others);
    let refused = |message| vec![refusal(hook, None, message)];
    if let Some([first, _]) = chance {
        let SlotSpec { name, priority, .. } = first;
        return Err(refused(format!(
            "two slots would have the priority {priority} and the name {name}, and which of them \
             comes first would be chance: give the programs different priorities"
        )));
    }
    if visible > MAX_SLOTS {
        return Err(refused(format!(
            "the dispatcher would have {visible} programs, {} of them of others, and it has room \
             for {MAX_SLOTS}: let neighbours share a slot (`\"engine\": \"auto\"`, no `\"slot\": \
             \"own\"`), or remove some",
            others.len()
        )));
    }
    let mut notes = notes(hook, &members, &forms, kind, &slots);
    notes.extend(tie(&slots, others).map(|name| Note {
        hook: Some(hook.clone()),
        program: None,
        message: format!(
            "a program of others has the priority and the name {name} of a slot of ours, and which \
             of them comes first is chance: give ours another priority, or decide about theirs in \
             `others`"
        ),
    }));
    Ok(Chain { spec: ChainSpec { members: specs, frags, slots }, notes })
}

/// How many members each program of the chain has, and how it answers.
fn parts(members: &[Candidate<'_>], kind: Kind, others: &[Other]) -> Vec<(usize, SlotChoice)> {
    let each = match kind {
        Kind::Fused => return vec![(members.len(), SlotChoice::Shared)],
        Kind::Slots { .. } if members.is_empty() => return vec![(0, SlotChoice::Shared)],
        Kind::Slots { each } => each,
    };
    let choice = |slot| if each { SlotChoice::Own } else { slot };
    let keys = members.iter().map(|Candidate { entry, program }| {
        (entry.priority, &program.facts.entry, choice(entry.slot))
    });
    divide(&keys.collect::<Vec<_>>(), others)
}

fn fit(members: &[Candidate<'_>], rounding: StackRounding) -> Result<Layout, DoesNotFit> {
    let named = members.iter().map(|member| (member.name().as_str(), member.program.facts));
    layout(&named.collect::<Vec<_>>(), rounding)
}

/// A place in a chain with its program.
struct Candidate<'a> {
    entry: &'a ChainEntry,
    program: &'a Usable<'a>,
}

impl<'a> Candidate<'a> {
    fn name(&self) -> &'a ProgramName {
        &self.entry.program
    }

    fn spec(&self, form: Form) -> MemberSpec {
        let Self { entry, program } = self;
        MemberSpec {
            program: entry.program.clone(),
            fingerprint: program.fingerprint.clone(),
            object: program.resolved.object,
            source: program.resolved.source.clone(),
            entry: program.facts.entry.clone(),
            tag: program.facts.tag.clone(),
            priority: entry.priority,
            chain_call_actions: entry.actions,
            enforce: entry.enforce,
            form,
        }
    }

    /// Whether every verdict of it is final.
    fn ends_the_chain(&self) -> bool {
        self.entry.enforce && self.entry.actions.is_empty()
    }
}

fn unusable(hook: &HookId, name: &ProgramName, problem: &ProgramProblem) -> Refusal {
    let ProgramProblem { message, log } = problem;
    Refusal {
        reason: RefusalReason::ProgramUnusable,
        pointer: format!("/programs/{name}"),
        hook: Some(hook.clone()),
        program: Some(name.clone()),
        message: message.clone(),
        log: log.clone(),
    }
}

fn does_not_fit(hook: &HookId, members: &[Candidate<'_>], problem: &DoesNotFit) -> Refusal {
    let guilty = match problem {
        DoesNotFit::Stack { member, .. }
        | DoesNotFit::TailCall { member, .. }
        | DoesNotFit::Member { member, .. } => Some(member),
        // Two programs, neither of which is wrong by itself: the message names both.
        DoesNotFit::Maps { .. } | DoesNotFit::Licence { .. } | DoesNotFit::Frags { .. } => None,
    };
    let named = guilty.and_then(|guilty| members.iter().find(|m| m.name().as_str() == guilty));
    refusal(hook, named.map(Candidate::name), problem.to_string())
}

fn refusal(hook: &HookId, program: Option<&ProgramName>, message: String) -> Refusal {
    Refusal {
        reason: RefusalReason::DoesNotFit,
        pointer: format!("{}/xdp/chain", hook.interface.pointer()),
        hook: Some(hook.clone()),
        program: program.cloned(),
        message,
        log: None,
    }
}

fn notes(
    hook: &HookId,
    members: &[Candidate<'_>],
    forms: &[Form],
    kind: Kind,
    slots: &[SlotSpec],
) -> Vec<Note> {
    let note = |program: &ProgramName, message| Note {
        hook: Some(hook.clone()),
        program: Some(program.clone()),
        message,
    };
    let mut notes = Vec::new();
    if let Some(end) = members.iter().position(Candidate::ends_the_chain)
        && let behind @ [_, ..] = &members[end + 1..]
    {
        let last = members[end].name();
        let message = format!(
            "every verdict of {last} is final, because it has no chain_call_actions; never \
             reached: {}",
            list(behind.iter().map(|member| member.name().as_str()))
        );
        notes.push(note(last, message));
    }
    for (member, &form) in members.iter().zip(forms) {
        let (name, facts) = (member.name(), member.program.facts);
        if !member.entry.enforce && !facts.side_effects.is_empty() {
            let effects = list(facts.side_effects.iter().map(ToString::to_string));
            let message =
                format!("{name} is observed only, but it {effects}, which observing cannot undo");
            notes.push(note(name, message));
        }
        if form == Form::Called && !facts.tail_calls {
            let message = format!(
                "{name} is called, not inlined, so that the stack fits; the call costs several \
                 nanoseconds a packet"
            );
            notes.push(note(name, message));
        }
    }
    if kind == Kind::Fused
        && let Some(member) = members.iter().find(|m| m.entry.slot == SlotChoice::Own)
    {
        let name = member.name();
        let message =
            format!("{name} has no slot of its own: without a dispatcher the chain is one program");
        notes.push(note(name, message));
    }
    for (member, slot) in members.iter().zip(slots).filter(|_| slots.len() == members.len()) {
        if member.entry.slot == SlotChoice::Own && !slot.own {
            let name = member.name();
            let message = format!(
                "{name} is observed only: in its slot it answers PASS, whatever its verdict is"
            );
            notes.push(note(name, message));
        }
    }
    let with_frags = members.iter().any(|member| member.program.facts.frags);
    if let Some(without) = members.iter().find(|member| !member.program.facts.frags)
        && with_frags
    {
        let name = without.name();
        let message = format!(
            "the chain takes no packets of several buffers: {name} is not built as xdp.frags"
        );
        notes.push(note(name, message));
    }
    notes
}

/// Joins names as a sentence needs them.
pub(crate) fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    let mut items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    match items.pop() {
        Some(last) if !items.is_empty() => format!("{} and {last}", items.join(", ")),
        Some(only) => only,
        None => String::new(),
    }
}
