//! What will not work, or not as one would think, said before it is done.
//!
//! In: what a plan does to a hook, and what is known of the interface's driver, queues and
//! offloads and of the chain's programs. Out: warnings. They never keep a step from being tried:
//! the kernel has the last word, and what it refuses changes nothing. What is not known is not
//! warned of, but for the cost of attaching, where silence would be a promise.

mod doctor;
mod drivers;
mod host;
mod rules;

pub use doctor::{examine, unseen};
pub use host::examine_host;

use crate::Caps;
use crate::catalog::Catalog;
use crate::hook::HookPlan;
use pointsman_model::ProgramName;
use pointsman_model::chain::ChainSpec;
use pointsman_model::facts::ProgramFacts;
use pointsman_model::observed::{AttachMode, Observed, ObservedInterface};
use pointsman_model::plan::{HookChange, HookDiff};
use pointsman_model::preflight::{
    MemberBudget, PreflightKind, Severity, VERIFIER_LIMIT, VerifierBudget, Warning,
};

/// What a plan warns of, and what its chains take of what the verifier allows.
pub(crate) fn preflight(
    hooks: &[HookPlan],
    catalog: &Catalog<'_>,
    observed: &Observed,
    caps: &Caps,
) -> (Vec<Warning>, Vec<VerifierBudget>) {
    let (mut warnings, mut budgets) = (Vec::new(), Vec::new());
    for HookPlan { diff, .. } in hooks {
        let interface = observed.interfaces.get(&diff.hook.interface);
        // What runs on there is of an earlier document, whose programs are not known here.
        if diff.change == HookChange::Pending {
            continue;
        }
        if diff.change == HookChange::Refused {
            // It stays as it is, and what would help the new chain is worth knowing.
            let subject = |interface| Subject { diff, interface, chain: None, caps };
            warnings.extend(interface.map(subject).as_ref().and_then(rules::veth_queues));
            continue;
        }
        let budget = diff.after.as_ref().map(|spec| budget(diff, spec, catalog));
        let mut of_hook: Vec<_> = budget.iter().filter_map(exceeds).collect();
        if let Some(interface) = interface {
            let chain = diff
                .after
                .as_ref()
                .map(|spec| Chain { frags: spec.frags, members: members(spec, catalog).collect() });
            let subject = Subject { diff, interface, chain: chain.as_ref(), caps };
            of_hook.extend(rules::all(&subject));
        }
        of_hook.sort_by_key(|warning| (warning.severity, warning.kind));
        warnings.extend(of_hook);
        budgets.extend(budget);
    }
    (warnings, budgets)
}

/// What the rules look at.
#[derive(Debug, Clone, Copy)]
struct Subject<'a> {
    diff: &'a HookDiff,
    interface: &'a ObservedInterface,
    /// The chain that will run.
    chain: Option<&'a Chain<'a>>,
    caps: &'a Caps,
}

/// A chain with what is known of its programs.
#[derive(Debug)]
struct Chain<'a> {
    frags: bool,
    members: Vec<(&'a ProgramName, &'a ProgramFacts)>,
}

impl Subject<'_> {
    /// Whether the chain will run in the driver.
    fn native(&self) -> bool {
        self.diff.mode == Some(AttachMode::Native)
    }

    /// Whether the chain comes where none was.
    fn attaches(&self) -> bool {
        matches!(self.diff.change, HookChange::Attach | HookChange::Reattach)
    }

    /// Whether the driver is given a program.
    fn changes(&self) -> bool {
        self.attaches() || self.diff.change == HookChange::Swap
    }

    fn driver(&self) -> Option<&'static drivers::Driver> {
        self.interface.nic.driver.as_ref().and_then(|driver| drivers::driver(&driver.name))
    }

    /// The driver as a sentence names it.
    fn driver_name(&self) -> String {
        match &self.interface.nic.driver {
            Some(driver) => format!("driver {}", driver.name),
            None => "its driver".to_owned(),
        }
    }

    fn warning(
        &self,
        kind: PreflightKind,
        severity: Severity,
        program: Option<&ProgramName>,
        message: String,
    ) -> Warning {
        let hook = self.diff.hook.clone();
        Warning { kind, severity, hook, program: program.cloned(), message }
    }
}

fn members<'a>(
    spec: &'a ChainSpec,
    catalog: &'a Catalog<'_>,
) -> impl Iterator<Item = (&'a ProgramName, &'a ProgramFacts)> {
    // A chain that stays without being wanted has programs of an earlier document.
    let known = |program| catalog.find(program).map(|usable| (program, usable.facts));
    spec.members.iter().filter_map(move |member| known(&member.program))
}

fn budget(diff: &HookDiff, spec: &ChainSpec, catalog: &Catalog<'_>) -> VerifierBudget {
    let member = |(program, facts): (&ProgramName, &ProgramFacts)| MemberBudget {
        program: program.clone(),
        processed: facts.verified_instructions,
    };
    let members: Vec<_> = members(spec, catalog).map(member).collect();
    let processed = members.iter().map(|member| u64::from(member.processed)).sum();
    VerifierBudget { hook: diff.hook.clone(), processed, limit: VERIFIER_LIMIT, members }
}

/// Warns of a chain that takes half of what there is: the members together can take half as much
/// again as each alone (measured: 170,182 for 115,421 in a chain of eight), because the verifier
/// walks a member once for each state that the one before it leaves.
fn exceeds(budget: &VerifierBudget) -> Option<Warning> {
    let VerifierBudget { hook, processed, limit, members } = budget;
    let limit = u64::from(*limit);
    if *processed < limit / 2 {
        return None;
    }
    let largest = members.iter().max_by_key(|member| member.processed)?;
    let (program, largest) = (&largest.program, largest.processed);
    let follows = match *processed >= limit {
        true => "it will hardly load",
        false => "it may not load, or not with another member",
    };
    let message = format!(
        "the verifier walks {processed} instructions for the members alone, of {limit} for a \
         whole chain: {follows}; the largest is {program} with {largest}: bound its loops, or \
         split the chain"
    );
    Some(Warning {
        kind: PreflightKind::VerifierBudget,
        severity: Severity::Warning,
        hook: hook.clone(),
        program: Some(program.clone()),
        message,
    })
}
