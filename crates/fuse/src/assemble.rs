//! Making one program of several: the instructions between the members, the counter, and the
//! records that let the verifier and people read the result.

use crate::builder::build;
use crate::insn::Insn;
use crate::layout::ContextHome;
use crate::shape::{Malformed, Shape};
use pointsman_model::ActionSet;
use pointsman_model::chain::Form;

/// The longest main function that is inlined, in instructions: its exits jump to its end, and a
/// jump reaches 32,767 instructions.
pub const MAX_INLINED: usize = 30_000;

/// One program of a chain, opened and relocated.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Final instructions: the main function, then its subprograms.
    pub instructions: &'a [Insn],
    /// Function records, ascending, with type ids of the merged BTF; empty where the object has
    /// none.
    pub functions: &'a [Function],
    /// Line records, ascending, with string offsets of the merged BTF; may be empty.
    pub lines: &'a [Line],
    /// How it is built in.
    pub form: Form,
    /// The verdicts after which the chain goes on.
    pub actions: ActionSet,
    /// Whether its verdict is acted upon.
    pub enforce: bool,
    /// The line shown for the chain's own instructions around this member.
    pub glue: Line,
    /// The BTF id of the global function it becomes when it is called.
    pub called_type: u32,
}

/// One `struct bpf_func_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    /// Where it starts, in instructions.
    pub offset: u32,
    /// The BTF id of its FUNC.
    pub type_id: u32,
}

/// One `struct bpf_line_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The first instruction of the line.
    pub offset: u32,
    /// String offset of the file's name.
    pub file: u32,
    /// String offset of the line's text.
    pub text: u32,
    /// Line number and column as the kernel packs them.
    pub position: u32,
}

/// What the chain itself needs.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Where the context pointer is kept.
    pub context: ContextHome,
    /// The counter; `None` counts nothing.
    pub counter: Option<Counter>,
    /// The BTF id of the chain's own function.
    pub chain_type: u32,
    /// The BTF id given to subprograms of objects without function records.
    pub unknown_type: u32,
    /// What the chain answers for a packet after which every member said "continue".
    pub end: u32,
    /// The line shown for the chain's first and last instructions.
    pub glue: Line,
}

/// Where packets are counted: one value of an array map, with one row per CPU. A packet is
/// counted once, where it leaves the chain, by plain instructions and no map lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// The map's file descriptor.
    pub map: i32,
    /// Rows, a power of two, at least the possible CPUs.
    pub rows: u32,
    /// Members the rows have cells for.
    pub members: usize,
}

impl Counter {
    /// Bytes of one member's cell: a cache line, so that programs do not share one.
    pub const CELL: usize = 64;

    /// Bytes of one CPU's row: the end of the chain, then the members.
    #[must_use]
    pub const fn row_bytes(members: usize) -> usize {
        (members + 1) * Self::CELL
    }

    /// The smallest number of rows for `cpus` possible CPUs.
    #[must_use]
    pub const fn rows_for(cpus: u32) -> u32 {
        cpus.next_power_of_two()
    }

    /// Bytes of the whole value.
    #[must_use]
    pub const fn value_bytes(self) -> usize {
        self.rows as usize * Self::row_bytes(self.members)
    }

    /// Where in a row the counts of `member` start; `None`: of the end of the chain.
    #[must_use]
    pub const fn cell(member: Option<usize>) -> usize {
        match member {
            Some(at) => (at + 1) * Self::CELL,
            None => 0,
        }
    }
}

/// A fused program, ready to load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fused {
    /// The instructions.
    pub instructions: Vec<Insn>,
    /// Function records, ascending.
    pub functions: Vec<Function>,
    /// Line records, ascending.
    pub lines: Vec<Line>,
    /// Per member where its code is, for reading verifier logs: `None` for members that are never
    /// reached and left out.
    pub places: Vec<Option<Place>>,
}

/// Where a member's code lies in the fused program: ranges of instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its main function.
    pub main: std::ops::Range<usize>,
    /// Its subprograms.
    pub subprograms: std::ops::Range<usize>,
}

/// Members that cannot be assembled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A member's instructions are not a program.
    #[error("member {member}: {source}")]
    Malformed {
        /// Which member.
        member: usize,
        /// What is wrong.
        #[source]
        source: Malformed,
    },
    /// A jump of the chain itself is out of reach.
    #[error("the chain is too long: a jump over {distance} instructions is out of reach")]
    TooFar {
        /// How far it would have to go.
        distance: usize,
    },
}

/// Makes one program of `members`.
///
/// # Errors
/// [`AssembleError`] where a member's instructions contradict themselves.
pub fn assemble(members: &[Member<'_>], frame: &Frame) -> Result<Fused, AssembleError> {
    let shapes = members.iter().enumerate().map(|(member, m)| {
        let starts: Vec<u32> = m.functions.iter().map(|function| function.offset).collect();
        Shape::of(m.instructions, &starts)
            .map_err(|source| AssembleError::Malformed { member, source })
    });
    build(members, &shapes.collect::<Result<Vec<_>, _>>()?, frame)
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
