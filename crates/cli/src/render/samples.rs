//! Hand-made values for the tests of this module's siblings.

use crate::output::Look;
use pointsman_model::chain::{ChainSpec, Form, MemberSpec};
use pointsman_model::plan::{Refusal, RefusalReason};
use pointsman_model::preflight::{
    MemberBudget, PreflightKind, Severity, VERIFIER_LIMIT, VerifierBudget, Warning,
};
use pointsman_model::{
    Action, EntryName, Fingerprint, HookId, InterfaceId, ProgramName, Sha256, Verdicts,
};

/// What a pipe gets.
pub(crate) const PLAIN: Look = Look { width: 100, colour: false };

/// What a terminal gets.
pub(crate) const COLOUR: Look = Look { width: 100, colour: true };

pub(crate) fn program(name: &str) -> ProgramName {
    ProgramName::new(name).unwrap()
}

pub(crate) fn interface(name: &str) -> InterfaceId {
    name.parse().unwrap()
}

pub(crate) fn hook(name: &str) -> HookId {
    HookId::xdp(interface(name))
}

pub(crate) fn drops_and_passes(drop: u64, pass: u64) -> Verdicts {
    Verdicts { drop, pass, ..Verdicts::default() }
}

/// A member whose object and tag follow from its name.
pub(crate) fn member(name: &str, entry: &str, priority: u32) -> MemberSpec {
    let object = Sha256::of(name.as_bytes());
    let entry = EntryName::new(entry).unwrap();
    MemberSpec {
        program: program(name),
        fingerprint: Fingerprint::new(&object, Some(&entry), "{}"),
        object,
        source: format!("/usr/lib/bpf/{name}.o"),
        entry,
        tag: object.to_string()[48..].to_owned(),
        priority,
        chain_call_actions: [Action::Pass].into_iter().collect(),
        enforce: true,
        form: Form::Inlined,
    }
}

pub(crate) fn chain(members: &[MemberSpec]) -> ChainSpec {
    ChainSpec { members: members.to_vec(), frags: false, slots: vec![] }
}

pub(crate) fn verifier_refusal() -> Refusal {
    Refusal {
        reason: RefusalReason::ProgramUnusable,
        pointer: "/interfaces/eth0/xdp/chain/1".into(),
        hook: Some(hook("eth0")),
        program: Some(program("ddos")),
        message: "program ddos: the verifier refuses ddos_main (ddos.c:17): check the packet's \
                  end before reading"
            .into(),
        log: Some(
            "; __u8 kind = *(__u8 *)data; @ ddos.c:17\n3: (71) r1 = *(u8 *)(r2 +0)\n\n\
             invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)\n"
                .into(),
        ),
    }
}

pub(crate) fn foreign_program() -> Refusal {
    Refusal {
        reason: RefusalReason::ForeignProgram,
        pointer: "/interfaces/eth9/xdp".into(),
        hook: Some(hook("eth9")),
        program: None,
        message: "eth9 carries XDP program xdp_dispatcher (id 55, native), which is not ours and \
                  stays untouched"
            .into(),
        log: None,
    }
}

pub(crate) fn warning(name: &str, severity: Severity) -> Warning {
    Warning {
        kind: PreflightKind::Disruptive,
        severity,
        hook: hook(name),
        program: None,
        message: "attaching the first chain with driver ixgbe takes the interface down and up"
            .into(),
    }
}

pub(crate) fn budget(name: &str, members: &[(&str, u32)]) -> VerifierBudget {
    let member =
        |&(name, processed): &(&str, u32)| MemberBudget { program: program(name), processed };
    VerifierBudget {
        hook: hook(name),
        processed: members.iter().map(|(_, processed)| u64::from(*processed)).sum(),
        limit: VERIFIER_LIMIT,
        members: members.iter().map(member).collect(),
    }
}
