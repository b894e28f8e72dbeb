//! From a chain in the document to the chain as it is built.

use crate::catalog::{Catalog, Usable};
use pointsman_fuse::layout::{DoesNotFit, Layout, StackRounding, layout};
use pointsman_model::chain::{ChainSpec, Form, MemberSpec};
use pointsman_model::document::{ChainEntry, XdpSpec};
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
    let named: Vec<_> =
        members.iter().map(|member| (member.name().as_str(), member.program.facts)).collect();
    let layout =
        layout(&named, rounding).map_err(|problem| vec![does_not_fit(hook, &members, &problem)])?;
    let notes = notes(hook, &members, &layout);
    let Layout { forms, frags, .. } = layout;
    let members = members.iter().zip(forms).map(|(member, form)| member.spec(form)).collect();
    Ok(Chain { spec: ChainSpec { members, frags, slots: Vec::new() }, notes })
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
    Refusal {
        reason: RefusalReason::DoesNotFit,
        pointer: format!("{}/xdp/chain", hook.interface.pointer()),
        hook: Some(hook.clone()),
        program: named.map(|member| member.name().clone()),
        message: problem.to_string(),
        log: None,
    }
}

fn notes(hook: &HookId, members: &[Candidate<'_>], layout: &Layout) -> Vec<Note> {
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
    for (member, &form) in members.iter().zip(&layout.forms) {
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
