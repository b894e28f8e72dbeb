//! A status as text.

use super::*;
use crate::render::samples::{self, COLOUR, PLAIN, drops_and_passes, member};
use pointsman_model::chain::Form;
use pointsman_model::document::DocumentError;
use pointsman_model::glass::{BypassStatus, UnconfirmedStatus};
use pointsman_model::observed::{AttachMode, Attachment};
use pointsman_model::plan::Note;
use pointsman_model::preflight::Severity;
use pointsman_model::{Action, ActionSet, NodeName, Verdicts};

fn running(name: &str, entry: &str, priority: u32, verdicts: Verdicts) -> MemberStatus {
    let member = member(name, entry, priority);
    MemberStatus {
        program: member.program,
        entry: member.entry,
        priority,
        chain_call_actions: member.chain_call_actions,
        enforce: true,
        form: Form::Inlined,
        from_instances: false,
        tag: member.tag,
        object: member.object,
        source: member.source,
        fingerprint: member.fingerprint,
        maps: String::new(),
        runs: verdicts.total(),
        verdicts,
    }
}

/// A node with one hook that runs two programs.
pub(crate) fn status() -> Status {
    let mut ports = running("ports", "mtl_dp_filter", 19, drops_and_passes(4_567, 0));
    ports.enforce = false;
    ports.form = Form::Called;
    ports.chain_call_actions = ActionSet::PASS.with(Action::Drop).with(Action::Redirect);
    Status {
        version: "0.1.0".into(),
        pid: 4711,
        uptime_seconds: 270_000,
        node: Some(NodeName::new("edge-17").unwrap()),
        generation: Some(42),
        drained: false,
        checks: 7,
        unconfirmed: None,
        document: "/var/lib/pointsman/node.json".into(),
        fleet: None,
        refused_document: None,
        hooks: vec![HookStatus {
            dispatcher: None,
            up: Some(true),
            hook: samples::hook("eth0"),
            interface_index: Some(2),
            state: HookState::Running,
            engine: "fused: this kernel has no freplace (locked down)".into(),
            mode: Some(AttachMode::Native),
            generation: Some(42),
            fused: Some(FusedProgram {
                id: 123,
                tag: "0123456789abcdef".into(),
                sequence: 7,
                translated_bytes: 2_344,
                jited_bytes: 1_420,
                frags: true,
                verified_instructions: 12_345,
            }),
            members: vec![
                running("ddos", "ddos_main", 10, drops_and_passes(12, 1_234_567_890)),
                ports,
            ],
            passed_end: 1_234_567_890,
            refusals: vec![],
            pending: None,
            drift: None,
            bypass: None,
        }],
        foreign: vec![],
        cards: vec![],
        refusals: vec![],
        notes: vec![],
        warnings: vec![],
    }
}

#[test]
fn an_interface_that_is_down_or_not_there_is_said() {
    let mut status = status();
    let hook = &mut status.hooks[0];
    (hook.up, hook.members, hook.fused) = (Some(false), vec![], None);
    let mut waits = hook.clone();
    waits.hook = samples::hook("blue/eth9");
    (waits.state, waits.interface_index, waits.up) = (HookState::Pending, None, None);
    (waits.mode, waits.generation) = (None, None);
    waits.pending =
        Some("network namespace blue cannot be looked into: /run/netns/blue does not exist".into());
    status.hooks.push(waits);
    let text = super::status(PLAIN, &status);
    let hooks: Vec<_> = text.lines().skip(4).collect();
    insta::assert_snapshot!(hooks.join("\n"), @"
    eth0/xdp  running  native  generation 42  interface 2  down
      engine  fused: this kernel has no freplace (locked down)

    blue/eth9/xdp  pending: attached when its interface appears  the interface is not there
      waits   network namespace blue cannot be looked into: /run/netns/blue does not exist
      engine  fused: this kernel has no freplace (locked down)
    ");
}

#[test]
fn a_running_node_fits_into_100_columns() {
    let text = super::status(PLAIN, &status());
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    insta::assert_snapshot!(text, @"
    edge-17  generation 42
    watches /var/lib/pointsman/node.json
    pointsman-node 0.1.0, process 4711, up 3 d 3 h

    eth0/xdp  running  native  generation 42  interface 2
      engine  fused: this kernel has no freplace (locked down)
      fused   id 123  tag 0123456789abcdef  chain 7  xlated 2,344 B  jited 1,420 B  frags
      verifier  walked 12,345 of 1,000,000 instructions (1.2 %)
      prio  program        actions    form     tag                        runs  verdicts
            entry          verdict             object
        10  ddos           pass       inlined  f6723c4ec0b8ecf0  1,234,567,902  drop 12
            ddos_main      enforced            deeb92f091ca                     pass 1,234,567,890
        19  ports          drop pass  called   ca84c6397aba93e2          4,567  drop 4,567
            mtl_dp_filter  redirect            87afb3f7f383
                           observed
      passed at the end: 1,234,567,890 (every program said: go on)
    ");
}

#[test]
fn what_a_card_does_not_do_is_said_with_its_place() {
    let mut status = status();
    status.hooks.clear();
    status.cards = vec![
        CardProblem {
            interface: "eth0".into(),
            pointer: "/interfaces/eth0/flows".into(),
            message: "eth0: its driver cannot list flow rules".into(),
        },
        CardProblem {
            interface: "interface number 7".into(),
            pointer: String::new(),
            message: "eth1: the card is busy: cannot delete a flow rule now".into(),
        },
    ];
    let text = super::status(PLAIN, &status);
    let lines: Vec<_> = text.lines().skip(6).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    cards: 2 problems of the document
      /interfaces/eth0/flows: eth0: its driver cannot list flow rules
      interface number 7: cannot be as it was before: eth1: the card is busy: cannot delete a flow rule now
    ");
}

#[test]
fn what_is_not_as_it_should_be_is_in_full() {
    let mut status = status();
    status.refused_document = Some(RefusedDocument {
        source: "/var/lib/pointsman/node.json".into(),
        at_unix_ms: 1_735_689_600_123,
        errors: vec![DocumentError {
            pointer: "/generation".into(),
            message: "41 is older than the generation in force, 42".into(),
        }],
    });
    let hook = &mut status.hooks[0];
    hook.state = HookState::Outdated;
    hook.generation = Some(41);
    hook.members.truncate(1);
    hook.refusals.push(samples::verifier_refusal());
    status.hooks.push(HookStatus {
        dispatcher: None,
        up: None,
        hook: samples::hook("eth9"),
        interface_index: None,
        state: HookState::Absent,
        engine: String::new(),
        mode: None,
        generation: None,
        fused: None,
        members: vec![],
        passed_end: 0,
        refusals: vec![samples::foreign_program()],
        pending: None,
        drift: None,
        bypass: None,
    });
    status.foreign.push(ForeignProgram {
        dispatcher: None,
        interface: samples::interface("eth5"),
        attachment: Attachment {
            program_id: 55,
            name: Some("xdp_dispatcher".into()),
            mode: AttachMode::Native,
        },
        owner: "libxdp".into(),
    });
    status.warnings.push(samples::warning("eth5", Severity::Warning));
    status.notes.push(Note { hook: None, program: None, message: "text".into() });
    insta::assert_snapshot!(super::status(PLAIN, &status), @"
    edge-17  generation 42
    watches /var/lib/pointsman/node.json
    pointsman-node 0.1.0, process 4711, up 3 d 3 h

    refused: a document at 2025-01-01 00:00:00.123 UTC (source: /var/lib/pointsman/node.json)
      /generation: 41 is older than the generation in force, 42
      the document in force stays

    eth0/xdp  outdated: an older chain runs  native  generation 41  interface 2
      engine  fused: this kernel has no freplace (locked down)
      fused   id 123  tag 0123456789abcdef  chain 7  xlated 2,344 B  jited 1,420 B  frags
      verifier  walked 12,345 of 1,000,000 instructions (1.2 %)
      prio  program    actions   form     tag                        runs  verdicts
            entry      verdict            object
        10  ddos       pass      inlined  f6723c4ec0b8ecf0  1,234,567,902  drop 12
            ddos_main  enforced           deeb92f091ca                     pass 1,234,567,890
      passed at the end: 1,234,567,890 (every program said: go on)
      refused: program unusable  hook eth0/xdp  program ddos  at /interfaces/eth0/xdp/chain/1
        program ddos: the verifier refuses ddos_main (ddos.c:17): check the packet's end before reading
        verifier log:
        | ; __u8 kind = *(__u8 *)data; @ ddos.c:17
        | 3: (71) r1 = *(u8 *)(r2 +0)
        |
        | invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)

    eth9/xdp  absent: nothing of ours runs  the interface is not there
      refused: foreign program  hook eth9/xdp  at /interfaces/eth9/xdp
        eth9 carries XDP program xdp_dispatcher (id 55, native), which is not ours and stays untouched

    not ours, never touched: 1 program
      eth5  native  id 55  xdp_dispatcher  owner: libxdp

    warning: eth5/xdp: disruptive: attaching the first chain with driver ixgbe takes the interface down and up

    note: text
    ");
}

#[test]
fn a_node_without_a_document_says_so() {
    let mut status = status();
    status.node = None;
    status.generation = None;
    status.hooks.clear();
    status.drained = true;
    insta::assert_snapshot!(super::status(PLAIN, &status), @"
    no document is in force  drained: waits for a document to be applied
    watches /var/lib/pointsman/node.json
    pointsman-node 0.1.0, process 4711, up 3 d 3 h

    no hook is wanted, none is ours
    ");
}

#[test]
fn a_bypassed_hook_and_an_unconfirmed_generation_are_loud() {
    let mut status = status();
    status.hooks[0].state = HookState::Bypassed;
    status.hooks[0].members.clear();
    status.hooks[0].bypass = Some(BypassStatus {
        since_unix_ms: 1_735_689_600_000,
        until_unix_ms: None,
        remaining_ms: None,
        uid: None,
    });
    status.unconfirmed = Some(UnconfirmedStatus {
        generation: 42,
        until_unix_ms: 1_735_689_660_000,
        remaining_ms: 59_000,
        back_to: Some(41),
    });
    let text = super::status(PLAIN, &status);
    for line in [
        "edge-17  generation 42  1 hook BYPASSED\n",
        "UNCONFIRMED: generation 42 goes at 2025-01-01 00:01:00.000 UTC (59 s left)",
        "eth0/xdp  BYPASSED: every packet passes  native",
        "  bypass  since 2025-01-01 00:00:00.000 UTC, until it is ended\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn an_emptied_chain_says_what_runs() {
    let mut status = status();
    status.hooks[0].members.clear();
    status.hooks[0].passed_end = 5;
    let text = super::status(PLAIN, &status);
    assert!(text.ends_with("passed at the end: 5 (an empty program passes every packet)\n"));
}

#[test]
fn long_names_wrap_and_hashes_stay_whole() {
    let mut status = status();
    let long = running(&"n".repeat(64), &"e".repeat(127), 4_294_967_295, Verdicts::default());
    let tag = long.tag.clone();
    status.hooks[0].members.push(long);
    let text = super::status(PLAIN, &status);
    assert!(text.contains(&tag), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn colour_is_used_only_where_it_is_wanted() {
    assert!(super::status(COLOUR, &status()).contains('\u{1b}'));
    assert!(!super::status(PLAIN, &status()).contains('\u{1b}'));
}
