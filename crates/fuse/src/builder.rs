//! The instructions of a fused program, put down in order: prologue, members with their epilogues,
//! the ways out, subprograms. Used by [`crate::assemble`] alone.

use crate::assemble::{AssembleError, Counter, Frame, Function, Fused, Line, Member, Place};
use crate::insn::{HELPER_SMP_PROCESSOR_ID, Insn};
use crate::layout::ContextHome;
use crate::shape::{Shape, slots};
use pointsman_model::chain::Form;
use pointsman_model::{ActionSet, Verdicts};

/// How far a jump out of the chain may have to go before the code it goes to is put nearer: a jump
/// reaches 32,767 instructions.
const ISLAND_REACH: usize = 30_000;

/// Where a verdict is kept while it is counted: r6 may hold the context, r0 to r5 do not survive a
/// call. Every packet pays for saving and restoring each register above r5 that is used anywhere in
/// the program, so there is one.
const VERDICT: u8 = 7;

/// The most instructions of the code through which packets leave the chain at one member.
const LEAVE: usize = 20;

/// Puts down a whole program.
pub(crate) fn build(
    members: &[Member<'_>],
    shapes: &[Shape],
    frame: &Frame,
) -> Result<Fused, AssembleError> {
    let mut builder = Builder { frame, fused: Fused::default(), leaving: vec![], calls: vec![] };
    builder.chain(members, shapes)?;
    Ok(builder.fused)
}

struct Builder<'a> {
    frame: &'a Frame,
    fused: Fused,
    /// Jumps that leave the chain and have no target yet.
    leaving: Vec<Leaving>,
    /// Calls of members' main functions: instruction and member.
    calls: Vec<(usize, usize)>,
}

/// Packets that leave the chain at a member come from one jump or by falling through.
struct Leaving {
    jump: usize,
    member: usize,
    glue: Line,
}

impl Builder<'_> {
    fn chain(&mut self, members: &[Member<'_>], shapes: &[Shape]) -> Result<(), AssembleError> {
        self.fused.functions.push(Function { offset: 0, type_id: self.frame.chain_type });
        self.line(self.frame.glue);
        match self.frame.context {
            ContextHome::Nowhere => {}
            ContextHome::Slot { slot } => self.push(Insn::store64(10, 1, slot)),
            ContextHome::R6 => self.push(Insn::mov64(6, 1)),
        }
        let mut ends = true;
        // Whether r1 holds the context without being told again.
        let mut context_at_hand = true;
        for (at, (member, shape)) in members.iter().zip(shapes).enumerate() {
            self.islands_before(member)?;
            self.line(member.glue);
            if !context_at_hand {
                match self.frame.context {
                    ContextHome::Nowhere => {}
                    ContextHome::Slot { slot } => self.push(Insn::load64(1, 10, slot)),
                    ContextHome::R6 => self.push(Insn::mov64(1, 6)),
                }
            }
            self.body(at, member, shape);
            context_at_hand = keeps_context(member, shape);
            ends = self.epilogue(at, member);
            if !ends {
                break;
            }
        }
        if ends {
            self.line(self.frame.glue);
            self.count_constant(Counter::cell(None));
            self.push(Insn::mov32_imm(0, self.frame.end.cast_signed()));
            self.push(Insn::exit());
        }
        self.island()?;
        self.subprograms(members, shapes);
        Ok(())
    }

    fn push(&mut self, insn: Insn) {
        self.fused.instructions.push(insn);
    }

    fn here(&self) -> usize {
        self.fused.instructions.len()
    }

    fn here32(&self) -> u32 {
        u32::try_from(self.here()).expect("invariant: a program has fewer than 2^32 instructions")
    }

    /// Records that what follows belongs to `line`. Two lines at one instruction are refused by
    /// the kernel: the later one wins.
    fn line(&mut self, line: Line) {
        let offset = self.here32();
        if self.fused.lines.last().is_some_and(|last| last.offset == offset) {
            self.fused.lines.pop();
        }
        self.fused.lines.push(Line { offset, ..line });
    }

    /// The member's main function, or a call of it.
    fn body(&mut self, at: usize, member: &Member<'_>, shape: &Shape) {
        let start = self.here();
        match member.form {
            Form::Called => {
                self.calls.push((start, at));
                self.push(Insn::call_subprogram());
            }
            Form::Inlined => {
                let len = shape.main_len(member.instructions.len());
                self.copy_lines(member, 0..len, start);
                self.fused.instructions.extend_from_slice(&member.instructions[..len]);
                for (exit, _) in slots(&member.instructions[..len]).filter(|(_, i)| i.is_exit()) {
                    let over = i16::try_from(len - 1 - exit)
                        .expect("invariant: inlined members are at most MAX_INLINED long");
                    self.fused.instructions[start + exit] = Insn { off: over, ..Insn::jump() };
                }
            }
        }
        let end = self.here();
        self.fused.places.push(Some(Place { main: start..end, subprograms: 0..0 }));
    }

    /// What happens with the member's verdict in r0. Returns whether the chain can go on.
    fn epilogue(&mut self, at: usize, member: &Member<'_>) -> bool {
        self.line(member.glue);
        if !member.enforce {
            self.count_variable(at);
            return true;
        }
        let mut actions = member.actions.iter();
        match (actions.next(), actions.next()) {
            (None, _) => {
                self.leave(at, member, Insn::jump());
                false
            }
            (Some(only), None) => {
                self.leave(at, member, Insn::jne32_imm(0, only.code() as i32));
                true
            }
            (Some(_), Some(_)) => {
                self.counted_choice(at, member.actions);
                true
            }
        }
    }

    /// Several continue actions: which one it was must be counted before going on.
    fn counted_choice(&mut self, at: usize, actions: ActionSet) {
        let verdict = match self.frame.counter {
            Some(_) => {
                self.count_variable(at);
                VERDICT
            }
            None => 0,
        };
        let first = self.here();
        for action in actions.iter() {
            self.push(Insn::jeq32_imm(verdict, action.code() as i32));
        }
        if verdict != 0 {
            self.push(Insn::mov32(0, verdict));
        }
        self.push(Insn::exit());
        let next = self.here();
        for jump in first..first + actions.len() {
            let distance = next - jump - 1;
            self.fused.instructions[jump].off =
                i16::try_from(distance).expect("invariant: at most seven instructions");
        }
    }

    fn leave(&mut self, member: usize, spec: &Member<'_>, jump: Insn) {
        self.leaving.push(Leaving { jump: self.here(), member, glue: spec.glue });
        self.push(jump);
    }

    /// Puts the code that leaves the chain here if it would be out of reach behind `next`.
    fn islands_before(&mut self, next: &Member<'_>) -> Result<(), AssembleError> {
        let Some(first) = self.leaving.first() else { return Ok(()) };
        let behind = self.here() + next.instructions.len() + self.island_len();
        if behind - first.jump < ISLAND_REACH {
            return Ok(());
        }
        let over = self.here();
        self.push(Insn::jump());
        self.island()?;
        self.aim(over, self.here())
    }

    /// A generous estimate of the next island's length.
    fn island_len(&self) -> usize {
        64 + LEAVE * self.leaving.len()
    }

    /// The code through which packets leave the chain: each member's own, because a place known in
    /// advance needs no register.
    fn island(&mut self) -> Result<(), AssembleError> {
        let leaving = std::mem::take(&mut self.leaving);
        for leave in &leaving {
            self.aim(leave.jump, self.here())?;
            if self.frame.counter.is_some() {
                self.line(leave.glue);
                self.count_variable(leave.member);
                self.push(Insn::mov32(0, VERDICT));
                self.push(Insn::exit());
            }
        }
        if !leaving.is_empty() && self.frame.counter.is_none() {
            self.line(self.frame.glue);
            self.push(Insn::exit());
        }
        Ok(())
    }

    fn aim(&mut self, jump: usize, target: usize) -> Result<(), AssembleError> {
        let distance = target - jump - 1;
        self.fused.instructions[jump].off =
            i16::try_from(distance).map_err(|_| AssembleError::TooFar { distance })?;
        Ok(())
    }

    /// Counts the verdict in r0 for `member` and leaves it in the verdict register. A verdict above
    /// the actions is counted as invalid.
    fn count_variable(&mut self, member: usize) {
        let Some(counter) = self.frame.counter else { return };
        const LAST: i32 = Verdicts::LEN as i32 - 1;
        const INDEX: u8 = 1;
        self.push(Insn::mov32(VERDICT, 0));
        self.row(counter);
        self.push(Insn::mov32(INDEX, VERDICT));
        self.push(Insn::jle64_imm(INDEX, LAST, 1));
        self.push(Insn::mov32_imm(INDEX, LAST));
        self.push(Insn::shl64_imm(INDEX, 3));
        self.push(Insn::add64(0, INDEX));
        self.increment(counter, Counter::cell(Some(member)));
    }

    /// Counts one packet at a place known now. Leaves nothing in registers.
    fn count_constant(&mut self, offset: usize) {
        let Some(counter) = self.frame.counter else { return };
        self.row(counter);
        self.increment(counter, offset);
    }

    /// r0 = offset of this CPU's row. The mask shows the verifier that the row exists; XDP runs
    /// with bottom halves off, so nothing else counts on this CPU meanwhile.
    fn row(&mut self, counter: Counter) {
        let row = i32::try_from(Counter::row_bytes(counter.members))
            .expect("invariant: a chain is at most MAX_CHAIN long");
        self.push(Insn::call_helper(HELPER_SMP_PROCESSOR_ID));
        self.push(Insn::and32_imm(0, counter.rows as i32 - 1));
        self.push(Insn::mul64_imm(0, row));
    }

    /// Adds one at r0 + `offset` of the value.
    fn increment(&mut self, counter: Counter, offset: usize) {
        let offset = i16::try_from(offset).expect("invariant: a chain is at most MAX_CHAIN long");
        for half in Insn::map_value(1, counter.map) {
            self.push(half);
        }
        self.push(Insn::add64(1, 0));
        self.push(Insn::load64(2, 1, offset));
        self.push(Insn::add64_imm(2, 1));
        self.push(Insn::store64(1, 2, offset));
    }

    /// Appends what is called, and leads all calls to where their targets are now.
    fn subprograms(&mut self, members: &[Member<'_>], shapes: &[Shape]) {
        for at in 0..self.fused.places.len() {
            let (member, shape) = (&members[at], &shapes[at]);
            let main = shape.main_len(member.instructions.len());
            let kept = match member.form {
                Form::Inlined => main,
                Form::Called => 0,
            };
            let start = self.here();
            for (index, &offset) in shape.starts.iter().enumerate() {
                if offset as usize >= kept {
                    self.function(member, index, start + offset as usize - kept);
                }
            }
            self.copy_lines(member, kept..member.instructions.len(), start);
            self.ensure_lines(member, shape, kept, start);
            self.fused.instructions.extend_from_slice(&member.instructions[kept..]);
            let end = self.here();
            if let Some(place) = &mut self.fused.places[at] {
                place.subprograms = start..end;
                let inlined_at = place.main.start;
                rebase_calls(&mut self.fused.instructions, member, kept, inlined_at, start);
            }
            if let Some(&(call, _)) = self.calls.iter().find(|&&(_, member)| member == at) {
                let distance = start - call - 1;
                self.fused.instructions[call].imm =
                    i32::try_from(distance).expect("invariant: a program has fewer than 2^31");
            }
        }
    }

    fn function(&mut self, member: &Member<'_>, index: usize, offset: usize) {
        let type_id = match (index, member.functions.get(index)) {
            (0, _) => member.called_type,
            (_, Some(function)) => function.type_id,
            (_, None) => self.frame.unknown_type,
        };
        let offset = u32::try_from(offset).expect("invariant: a program has fewer than 2^32");
        self.fused.functions.push(Function { offset, type_id });
    }

    /// Copies the line records of `range`, moved to `start`.
    fn copy_lines(&mut self, member: &Member<'_>, range: std::ops::Range<usize>, start: usize) {
        for line in member.lines.iter().filter(|line| range.contains(&(line.offset as usize))) {
            let offset = u32::try_from(start + line.offset as usize - range.start)
                .expect("invariant: a program has fewer than 2^32 instructions");
            if self.fused.lines.last().is_some_and(|last| last.offset == offset) {
                self.fused.lines.pop();
            }
            self.fused.lines.push(Line { offset, ..*line });
        }
    }

    /// The kernel wants a line record where each function starts.
    fn ensure_lines(&mut self, member: &Member<'_>, shape: &Shape, kept: usize, start: usize) {
        let first = self.fused.lines.partition_point(|line| (line.offset as usize) < start);
        let mut tail = self.fused.lines.split_off(first);
        for &offset in shape.starts.iter().filter(|&&offset| offset as usize >= kept) {
            let offset = u32::try_from(start + offset as usize - kept)
                .expect("invariant: a program has fewer than 2^32 instructions");
            if tail.iter().all(|line| line.offset != offset) {
                tail.push(Line { offset, ..member.glue });
            }
        }
        tail.sort_by_key(|line| line.offset);
        self.fused.lines.extend(tail);
    }
}

/// Whether r1 is still the context after the member and its epilogue.
fn keeps_context(member: &Member<'_>, shape: &Shape) -> bool {
    let main = &member.instructions[..shape.main_len(member.instructions.len())];
    let counts_itself = !member.enforce || member.actions.len() > 1;
    member.form == Form::Inlined && !counts_itself && slots(main).all(|(_, insn)| insn.keeps(1))
}

/// Corrects the distances in a member's calls: its first `kept` instructions lie at `inlined_at`,
/// the others at `start`.
fn rebase_calls(
    fused: &mut [Insn],
    member: &Member<'_>,
    kept: usize,
    inlined_at: usize,
    start: usize,
) {
    let place = |at: usize| if at < kept { inlined_at + at } else { start + at - kept };
    for (at, insn) in slots(member.instructions).filter(|(_, insn)| insn.refers_to_function()) {
        // Shape::of has checked that the target lies inside.
        let target = (at as i64 + 1 + i64::from(insn.imm)) as usize;
        let distance = place(target) as i64 - place(at) as i64 - 1;
        fused[place(at)].imm =
            i32::try_from(distance).expect("invariant: a program has fewer than 2^31 instructions");
    }
}
