//! What a program's instructions tell: where its functions are, who calls whom, what it touches.

use crate::insn::{Call, HELPER_TAIL_CALL, Insn};
use crate::layout::StackRounding;
use pointsman_model::facts::SideEffect;
use std::collections::BTreeSet;

/// The functions of a program as libbpf hands it over: the main function first, then the
/// subprograms it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Where each function starts, ascending; the first is 0.
    pub starts: Vec<u32>,
    /// Per function the functions it calls or whose address it takes, as indices of `starts`.
    pub calls: Vec<BTreeSet<usize>>,
    /// Per function whether it tail-calls.
    pub tail_calls: Vec<bool>,
    /// What the program does besides giving a verdict.
    pub side_effects: BTreeSet<SideEffect>,
    /// Whether it calls a function of a kernel module: those need an array of file descriptors
    /// that libbpf keeps to itself.
    pub module_functions: bool,
}

/// Instructions that are not a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No instruction.
    #[error("the program has no instructions")]
    Empty,
    /// A call leads outside, into the middle of a load, or back to the main function.
    #[error("instruction {at} refers to a function at {target}, where none starts")]
    BadCall {
        /// The instruction.
        at: usize,
        /// Where it leads.
        target: i64,
    },
}

impl Shape {
    /// Looks at `instructions`. `functions` are the starts from the object's function records,
    /// empty where the object has none; then every call target is taken for a start.
    ///
    /// # Errors
    /// [`Malformed`] where the instructions contradict themselves.
    pub fn of(instructions: &[Insn], functions: &[u32]) -> Result<Self, Malformed> {
        if instructions.is_empty() {
            return Err(Malformed::Empty);
        }
        let references = references(instructions)?;
        let mut starts: BTreeSet<u32> = functions.iter().copied().collect();
        starts.insert(0);
        if functions.is_empty() {
            starts.extend(references.iter().map(|&(_, target)| target));
        }
        let starts: Vec<u32> = starts.into_iter().collect();
        let mut calls = vec![BTreeSet::new(); starts.len()];
        for (at, target) in references {
            match starts.binary_search(&target) {
                Ok(callee) if callee > 0 => drop(calls[owner(&starts, at)].insert(callee)),
                _ => return Err(Malformed::BadCall { at, target: target.into() }),
            }
        }
        let mut tail_calls = vec![false; starts.len()];
        let mut side_effects = BTreeSet::new();
        let mut module_functions = false;
        for (at, insn) in slots(instructions) {
            if insn.called() == Some(Call::Helper(HELPER_TAIL_CALL)) {
                tail_calls[owner(&starts, at)] = true;
            }
            side_effects.extend(side_effect(insn));
            module_functions |= matches!(insn.called(), Some(Call::Kernel { module: 1.., .. }));
        }
        Ok(Self { starts, calls, tail_calls, side_effects, module_functions })
    }

    /// Instructions of the main function, in slots.
    #[must_use]
    pub fn main_len(&self, total: usize) -> usize {
        self.starts.get(1).map_or(total, |&start| start as usize)
    }

    /// Stack bytes of the deepest path of calls below the main function, given every function's
    /// own frame (`frames`, in the order of `starts`).
    #[must_use]
    pub fn called_stack(&self, frames: &[u32], rounding: StackRounding) -> u32 {
        self.depths(frames, rounding).into_iter().flatten().max().unwrap_or(0)
    }

    /// Stack bytes of the frames between the main function's and that of the deepest subprogram
    /// that tail-calls, both excluded; `None` where no subprogram does.
    #[must_use]
    pub fn tail_call_depth(&self, frames: &[u32], rounding: StackRounding) -> Option<u32> {
        let depths = self.depths(frames, rounding);
        let above = |at: usize| Some(depths[at]? - rounding.round(own(frames, at)));
        (1..self.starts.len()).filter(|&at| self.tail_calls[at]).filter_map(above).max()
    }

    /// Per function the bytes of the deepest frames from the first one below the main function's
    /// to its own; `None` for functions that nothing reaches. The verifier limits paths to eight
    /// frames and forbids recursion, so longer ones are not followed.
    fn depths(&self, frames: &[u32], rounding: StackRounding) -> Vec<Option<u32>> {
        const MAX_FRAMES: usize = 8;
        let mut depths = vec![None; self.starts.len()];
        depths[0] = Some(0);
        for _ in 1..MAX_FRAMES {
            for (caller, callees) in self.calls.iter().enumerate() {
                let Some(depth) = depths[caller] else { continue };
                for &callee in callees {
                    let own = rounding.round(own(frames, callee));
                    depths[callee] = depths[callee].max(Some(depth + own));
                }
            }
        }
        depths
    }
}

fn own(frames: &[u32], at: usize) -> u32 {
    frames.get(at).copied().unwrap_or(0)
}

/// Which function instruction `at` belongs to.
fn owner(starts: &[u32], at: usize) -> usize {
    starts.partition_point(|&start| start as usize <= at) - 1
}

/// The instructions without the second halves of 64-bit loads.
pub(crate) fn slots(instructions: &[Insn]) -> impl Iterator<Item = (usize, Insn)> {
    let mut second_half = false;
    instructions.iter().copied().enumerate().filter(move |(_, insn)| {
        let skip = second_half;
        second_half = !skip && insn.is_wide();
        !skip
    })
}

/// Every call of a subprogram and every load of its address, with where it leads.
fn references(instructions: &[Insn]) -> Result<Vec<(usize, u32)>, Malformed> {
    let found = slots(instructions).filter(|(_, insn)| insn.refers_to_function());
    found
        .map(|(at, insn)| {
            let target = at as i64 + i64::from(insn.imm) + 1;
            match u32::try_from(target) {
                Ok(inside) if (inside as usize) < instructions.len() => Ok((at, inside)),
                _ => Err(Malformed::BadCall { at, target }),
            }
        })
        .collect()
}

/// What one instruction does besides computing. Numbers are helper ids of `linux/bpf.h`.
fn side_effect(insn: Insn) -> Option<SideEffect> {
    const FRAME_POINTER: u8 = 10;
    if insn.stores() && insn.dst != FRAME_POINTER {
        return Some(SideEffect::WritesPacket);
    }
    let Call::Helper(id) = insn.called()? else { return None };
    match id {
        // xdp_store_bytes
        190 => Some(SideEffect::WritesPacket),
        // xdp_adjust_head, xdp_adjust_meta, xdp_adjust_tail
        44 | 54 | 65 => Some(SideEffect::ResizesPacket),
        // map_update_elem, map_delete_elem, map_push_elem, map_pop_elem, perf_event_output,
        // ringbuf_output, ringbuf_submit
        2 | 3 | 87 | 88 | 25 | 130 | 132 => Some(SideEffect::WritesMaps),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(imm: i32) -> Insn {
        Insn { imm, ..Insn::call_subprogram() }
    }

    #[test]
    fn functions_are_found_with_and_without_records() {
        // 0: call 3, 1: call 4, 2: exit | 3: exit | 4: tail call, 5: exit
        let exit = Insn::exit();
        let program = [call(2), call(2), exit, exit, Insn::call_helper(HELPER_TAIL_CALL), exit];
        let shape = Shape::of(&program, &[]).unwrap();
        assert_eq!(shape, Shape::of(&program, &[0, 3, 4]).unwrap());
        assert_eq!((shape.starts.as_slice(), shape.main_len(6)), ([0, 3, 4].as_slice(), 3));
        assert_eq!(shape.tail_calls, [false, false, true]);
        let frames = [8, 40, 16];
        assert_eq!(shape.called_stack(&frames, StackRounding::To32), 64);
        assert_eq!(shape.called_stack(&frames, StackRounding::To16), 48);
        assert_eq!(shape.tail_call_depth(&frames, StackRounding::To32), Some(0));
    }

    #[test]
    fn calls_to_nowhere_are_malformed() {
        for imm in [-1, -5, 7, i32::MAX, i32::MIN] {
            assert!(Shape::of(&[call(imm), Insn::exit()], &[]).is_err(), "{imm}");
        }
        assert_eq!(Shape::of(&[], &[]), Err(Malformed::Empty));
    }

    #[test]
    fn the_second_half_of_a_load_is_data() {
        let [first, mut second] = Insn::map_value(1, 3);
        second.code = 0x95;
        let program = [first, second, Insn::exit()];
        assert_eq!(slots(&program).count(), 2);
    }
}
