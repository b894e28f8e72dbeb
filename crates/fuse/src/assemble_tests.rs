//! The fused program run by a tiny interpreter, against the documented rule.

use super::*;
use crate::insn::HELPER_SMP_PROCESSOR_ID;
use pointsman_model::{Action, Verdicts};
use proptest::prelude::*;

const LINE: Line = Line { offset: 0, file: 1, text: 1, position: 0 };
/// What the interpreter takes for the packet's context and for the counter's address.
const CONTEXT: u64 = 0xc0de_0000_0000;
const COUNTER: u64 = 0x7000_0000_0000;

fn member(instructions: &[Insn], form: Form, actions: ActionSet, enforce: bool) -> Member<'_> {
    let none: (&[Function], &[Line]) = (&[], &[]);
    Member {
        instructions,
        functions: none.0,
        lines: none.1,
        form,
        actions,
        enforce,
        glue: LINE,
        called_type: 7,
    }
}

fn frame(context: ContextHome, members: usize) -> Frame {
    let counter = Some(Counter { map: 5, rows: 4, members });
    Frame { context, counter, chain_type: 1, unknown_type: 2, end: 2, glue: LINE }
}

/// What a test member does besides giving its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing: the context stays in r1.
    Clean,
    /// Leaves every register it may spoilt.
    Spoils,
    /// Calls a subprogram.
    Calls,
}

/// `if r1 != context return 31; [call f]; [clobber r1-r9]; r0 = verdict; exit`, with two exits.
fn program(verdict: i32, kind: Kind) -> Vec<Insn> {
    let mut code = vec![Insn::mov64(6, 1)];
    for half in wide(7, CONTEXT) {
        code.push(half);
    }
    code.push(Insn { code: 0x1d, dst: 6, src: 7, off: 2, imm: 0 }); // if r6 == r7 goto +2
    code.push(Insn::mov32_imm(0, 31));
    code.push(Insn::exit());
    let call = code.len();
    if kind == Kind::Calls {
        code.push(Insn::call_subprogram());
    }
    if kind != Kind::Clean {
        code.extend((1..10).map(|register| Insn::mov32_imm(register, -1)));
    }
    code.push(Insn::mov32_imm(0, verdict));
    code.push(Insn::exit());
    if kind == Kind::Calls {
        code[call].imm = i32::try_from(code.len() - call - 1).unwrap();
        code.extend([Insn::mov32_imm(0, 99), Insn::exit()]);
    }
    code
}

fn wide(dst: u8, value: u64) -> [Insn; 2] {
    let low = Insn { code: 0x18, dst, src: 0, off: 0, imm: value as u32 as i32 };
    [low, Insn { imm: (value >> 32) as u32 as i32, ..Insn::default() }]
}

/// Runs `program` and returns its verdict; counts go to `counts`, by byte offset.
fn run(program: &[Insn], cpu: u64, counts: &mut std::collections::BTreeMap<u64, u64>) -> u32 {
    let (mut pc, mut stack, mut frames) = (0usize, [0u64; 65], Vec::new());
    let mut r = [0u64; 11];
    r[1] = CONTEXT;
    for _ in 0..1_000_000 {
        let i = program[pc];
        let (d, s, imm) = (i.dst as usize, i.src as usize, i64::from(i.imm) as u64);
        pc += 1;
        let jump =
            |yes: bool, pc: usize| if yes { (pc as i64 + i64::from(i.off)) as usize } else { pc };
        match i.code {
            0xb4 => r[d] = u64::from(i.imm as u32),
            0xbc => r[d] = u64::from(r[s] as u32),
            0xbf => r[d] = r[s],
            0x54 => r[d] = u64::from(r[d] as u32 & i.imm as u32),
            0x67 => r[d] <<= imm,
            0x27 => r[d] = r[d].wrapping_mul(imm),
            0x0f => r[d] = r[d].wrapping_add(r[s]),
            0x07 => r[d] = r[d].wrapping_add(imm),
            0x18 if i.src == 2 => (r[d], pc) = (COUNTER, pc + 1),
            0x18 => (r[d], pc) = (u64::from(i.imm as u32) | (program[pc].imm as u64) << 32, pc + 1),
            0x79 if s == 10 => r[d] = stack[(512 + i64::from(i.off)) as usize / 8],
            0x7b if d == 10 => stack[(512 + i64::from(i.off)) as usize / 8] = r[s],
            0x79 => r[d] = *counts.get(&(r[s] - COUNTER + i.off as u64)).unwrap_or(&0),
            0x7b => drop(counts.insert(r[d] - COUNTER + i.off as u64, r[s])),
            0x05 => pc = jump(true, pc),
            0x16 => pc = jump(r[d] as u32 == i.imm as u32, pc),
            0x56 => pc = jump(r[d] as u32 != i.imm as u32, pc),
            0x1d => pc = jump(r[d] == r[s], pc),
            0xb5 => pc = jump(r[d] <= imm, pc),
            0x85 if i.src == 1 => {
                frames.push((pc, [r[6], r[7], r[8], r[9]]));
                pc = (pc as i64 + i64::from(i.imm)) as usize;
            }
            0x85 => {
                assert_eq!(i.imm, HELPER_SMP_PROCESSOR_ID);
                r[0] = cpu;
                r[1..6].fill(u64::MAX);
            }
            0x95 => match frames.pop() {
                Some((back, saved)) => {
                    r[6..10].copy_from_slice(&saved);
                    pc = back;
                }
                None => return r[0] as u32,
            },
            other => panic!("the interpreter does not know {other:#x}"),
        }
    }
    panic!("the program does not end");
}

/// What the chain must answer, and the cell and verdict index of every count.
fn expected(chain: &[(i32, ActionSet, bool, bool, Kind)]) -> (u32, Vec<(Option<usize>, usize)>) {
    let mut counts = Vec::new();
    for (at, &(verdict, actions, enforce, ..)) in chain.iter().enumerate() {
        let action = Action::ALL.get(verdict as usize);
        let goes_on = !enforce || action.is_some_and(|&action| actions.contains(action));
        let index = (verdict as usize).min(Verdicts::LEN - 1);
        if !goes_on || !enforce || actions.len() > 1 {
            counts.push((Some(at), index));
        }
        if !goes_on {
            return (verdict as u32, counts);
        }
    }
    counts.push((None, 0));
    (Action::Pass.code(), counts)
}

proptest! {
    #[test]
    fn any_chain_answers_and_counts_as_documented(
        chain in prop::collection::vec(
            (0i32..8, 0u8..32, prop::bool::ANY, prop::bool::ANY, 0usize..3), 0..12),
        cpu in 0u64..4,
    ) {
        let kinds = [Kind::Clean, Kind::Spoils, Kind::Calls];
        let chain: Vec<_> = chain.into_iter().map(|(verdict, bits, enforce, called, kind)| {
            let actions = Action::ALL.into_iter().filter(|&a| bits & (1 << a as u8) != 0).collect();
            (verdict, actions, enforce, called, kinds[kind])
        }).collect();
        let codes: Vec<_> = chain.iter().map(|&(v, _, _, _, kind)| program(v, kind)).collect();
        let members: Vec<_> = chain.iter().zip(&codes).map(|(&(_, actions, enforce, called, _), code)| {
            let form = if called { Form::Called } else { Form::Inlined };
            member(code, form, actions, enforce)
        }).collect();
        let all_called = chain.iter().all(|&(.., called, _)| called);
        let context = match (chain.len(), all_called) {
            (0 | 1, _) => ContextHome::Nowhere,
            (_, true) => ContextHome::R6,
            (_, false) => ContextHome::Slot { slot: -8 },
        };
        let fused = assemble(&members, &frame(context, chain.len())).unwrap();
        let mut counts = std::collections::BTreeMap::new();
        let verdict = run(&fused.instructions, cpu, &mut counts);
        let (wanted, cells) = expected(&chain);
        prop_assert_eq!(verdict, wanted);
        let row = cpu * Counter::row_bytes(chain.len()) as u64;
        let wanted: std::collections::BTreeMap<_, _> = cells.into_iter()
            .map(|(cell, index)| (row + (Counter::cell(cell) + 8 * index) as u64, 1)).collect();
        prop_assert_eq!(counts, wanted);
        // The kernel refuses records out of order, and functions without a line.
        prop_assert!(fused.lines.is_sorted_by(|a, b| a.offset < b.offset));
        prop_assert!(fused.functions.is_sorted_by(|a, b| a.offset < b.offset));
        for function in &fused.functions {
            prop_assert!(fused.lines.iter().any(|line| line.offset == function.offset));
        }
    }
}

#[test]
fn a_lone_member_costs_a_few_instructions() {
    let code = [Insn::mov32_imm(0, 2), Insn::exit()];
    let alone = [member(&code, Form::Inlined, ActionSet::PASS, true)];
    let uncounted = Frame { counter: None, ..frame(ContextHome::Nowhere, 1) };
    assert_eq!(assemble(&alone, &uncounted).unwrap().instructions.len(), 6);
    assert_eq!(assemble(&alone, &frame(ContextHome::Nowhere, 1)).unwrap().instructions.len(), 31);
}

#[test]
fn counting_takes_one_register_that_every_packet_has_to_save() {
    let code = [Insn::mov32_imm(0, 2), Insn::exit()];
    let several = ActionSet::PASS.with(Action::Tx);
    let chain = [
        member(&code, Form::Inlined, ActionSet::PASS, true),
        member(&code, Form::Inlined, several, true),
        member(&code, Form::Inlined, ActionSet::PASS, false),
    ];
    let fused = assemble(&chain, &frame(ContextHome::Slot { slot: -8 }, 3)).unwrap();
    let saved = |insn: &Insn| (6..10).contains(&insn.dst).then_some(insn.dst);
    let used: std::collections::BTreeSet<u8> =
        fused.instructions.iter().filter_map(saved).collect();
    assert_eq!(used, [7].into());
}

#[test]
fn what_is_never_reached_is_left_out() {
    let code = program(1, Kind::Calls);
    let both = [
        member(&code, Form::Inlined, ActionSet::EMPTY, true),
        member(&code, Form::Inlined, ActionSet::PASS, true),
    ];
    let fused = assemble(&both, &frame(ContextHome::Slot { slot: -8 }, 2)).unwrap();
    assert_eq!(fused.places.len(), 1);
    assert_eq!(run(&fused.instructions, 0, &mut Default::default()), 1);
}

#[test]
fn long_chains_get_their_exits_in_reach() {
    let mut long = vec![Insn::mov32_imm(3, 0); 20_000];
    long.extend([Insn::mov32_imm(0, 2), Insn::exit()]);
    let mut last = long.clone();
    last[20_000].imm = 1;
    let mut chain = vec![member(&long, Form::Inlined, ActionSet::PASS, true); 9];
    chain.push(member(&last, Form::Inlined, ActionSet::PASS, true));
    let fused = assemble(&chain, &frame(ContextHome::Slot { slot: -8 }, 10)).unwrap();
    let mut counts = Default::default();
    assert_eq!(run(&fused.instructions, 1, &mut counts), 1);
    assert_eq!(counts.len(), 1);
}
