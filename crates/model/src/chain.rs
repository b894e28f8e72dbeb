//! A chain as it is built: the record that lies pinned beside every chain in the kernel.

use crate::{Action, ActionSet, EntryName, Fingerprint, HookId, ProgramName, Sha256, Verdicts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use utoipa::ToSchema;

/// A whole chain: what is fused, in which order, and how.
///
/// Two equal specs make the same program, so a plan needs no step between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChainSpec {
    /// The members in the order they run.
    pub members: Vec<MemberSpec>,
    /// Whether the fused program takes packets of several buffers (`BPF_F_XDP_HAS_FRAGS`); of slots,
    /// whether all of them do.
    pub frags: bool,
    /// How the members are divided into slots of a dispatcher, in order. None: all of them are one
    /// program, attached by a BPF link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<SlotSpec>,
}

/// A slot of a dispatcher: neighbouring members fused into one program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SlotSpec {
    /// How many members it has.
    pub members: usize,
    /// Whether its only member answers as its author wrote it, and the slot has that member's
    /// actions. Otherwise the slot answers "continue" with one verdict for all its members.
    pub own: bool,
    /// The name of its program: the entry of its first member, so that libxdp's order is ours.
    pub name: EntryName,
    /// Its priority: that of its first member.
    pub priority: u32,
    /// The verdicts after which the dispatcher goes on.
    pub actions: ActionSet,
    /// Whether it takes packets of several buffers.
    pub frags: bool,
}

/// One program in a chain, with all that decides what its part of the fused program does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberSpec {
    /// The operator's name for it. Counters belong to this name.
    pub program: ProgramName,
    /// Object, entry and globals in one value.
    pub fingerprint: Fingerprint,
    /// The object in the store.
    pub object: Sha256,
    /// Where the object came from, for people.
    pub source: String,
    /// The function it starts at.
    pub entry: EntryName,
    /// The kernel's tag of the program as loaded alone: 16 hexadecimal digits.
    pub tag: String,
    /// Its priority.
    pub priority: u32,
    /// The verdicts after which the chain goes on.
    pub chain_call_actions: ActionSet,
    /// `false`: its verdict is only counted.
    pub enforce: bool,
    /// How it is built in.
    pub form: Form,
}

/// How a member is built into the fused program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Its main function runs in the chain's own frame.
    Inlined,
    /// Its main function is called: for programs that tail-call.
    Called,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Inlined => "inlined",
            Self::Called => "called",
        })
    }
}

/// What lies pinned beside a chain, as JSON in a frozen one-entry map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainRecord {
    /// The generation of the document that asked for the chain.
    pub generation: u64,
    /// The chain.
    pub spec: ChainSpec,
}

/// What left a chain where, read from its counters. Index = member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// Per member: final verdicts, and for members with a counter of their own all verdicts.
    pub members: Vec<Verdicts>,
    /// Packets for which the last member said "continue": passed to the stack.
    pub end: u64,
}

impl MemberSpec {
    /// Whether the member counts every verdict itself: when "continue" would not tell which
    /// verdict it was. All others are known from where packets leave the chain.
    #[must_use]
    pub fn counts_itself(&self) -> bool {
        !self.enforce || self.chain_call_actions.len() > 1
    }
}

impl ChainSpec {
    /// The parts that are one program each, with their slots: the whole chain where there are none.
    pub fn parts(&self) -> impl Iterator<Item = (&[MemberSpec], Option<&SlotSpec>)> {
        let whole = self.slots.is_empty().then_some((&self.members[..], None));
        let mut rest = &self.members[..];
        let slots = self.slots.iter().map(move |slot| {
            let (part, behind) = rest.split_at(slot.members.min(rest.len()));
            rest = behind;
            (part, Some(slot))
        });
        whole.into_iter().chain(slots)
    }

    /// Per member all verdicts, and those that were final. `exits`: of each part.
    #[must_use]
    pub fn counted(&self, exits: &[ExitCounts]) -> Vec<Counted> {
        let parts = self.parts().zip(exits);
        parts.flat_map(|((members, _), exits)| counted(members, exits)).collect()
    }

    /// Packets that passed the end of the last part. `exits`: of each part.
    #[must_use]
    pub fn passed_end(&self, exits: &[ExitCounts]) -> u64 {
        let Some(((members, slot), exits)) = self.parts().zip(exits).last() else { return 0 };
        match (members, slot) {
            // It has no end of its own: whether the dispatcher goes on is decided by its verdict.
            ([member], Some(slot)) if slot.own => {
                let goes_on = |action: Action| member.chain_call_actions.contains(action);
                let counts = exits.members.first().copied().unwrap_or_default().to_array();
                let on = Action::ALL.into_iter().filter(|&action| goes_on(action));
                on.map(|action| counts[action as usize]).fold(exits.end, u64::wrapping_add)
            }
            _ => exits.end,
        }
    }
}

/// Turns exit counts of one program into what each of its members answered.
///
/// A packet that left at a later member, or at the end, got "continue" from every earlier one; a
/// member with one continue action therefore gave that verdict.
fn verdicts(members: &[MemberSpec], exits: &ExitCounts) -> Vec<Verdicts> {
    let mut later = exits.end;
    let mut all = Vec::with_capacity(members.len());
    for (member, &own) in members.iter().zip(&exits.members).rev() {
        let mut verdicts = own;
        if member.counts_itself() {
            // Of its own count, what did not continue left here; it all came in here.
            later = verdicts.total();
        } else {
            if let Some(action) = member.chain_call_actions.iter().next() {
                let mut counts = verdicts.to_array();
                counts[action as usize] = counts[action as usize].wrapping_add(later);
                verdicts = Verdicts::from_array(counts);
            }
            later = later.wrapping_add(own.total());
        }
        all.push(verdicts);
    }
    all.reverse();
    all
}

/// Per member of one program all verdicts, and those that were final.
fn counted(members: &[MemberSpec], exits: &ExitCounts) -> Vec<Counted> {
    let with_own = members.iter().zip(&exits.members).zip(verdicts(members, exits));
    let counted = with_own.map(|((member, own), verdicts)| {
        let mut finals = if member.enforce { own.to_array() } else { [0; Verdicts::LEN] };
        for action in member.chain_call_actions.iter() {
            finals[action as usize] = 0;
        }
        Counted { verdicts, finals: Verdicts::from_array(finals) }
    });
    counted.collect()
}

/// What one program answered, and with which answers it ended a packet's way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// All its verdicts.
    pub verdicts: Verdicts,
    /// Those that were final.
    pub finals: Verdicts,
}

impl std::ops::Add for Counted {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { verdicts: self.verdicts + other.verdicts, finals: self.finals + other.finals }
    }
}

/// What the retired chains of a hook have counted: the base to which the live chain's counts
/// are added. Pinned as JSON, replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Chains up to this sequence number are in the sums.
    pub folded: u64,
    /// Per program, over all chains it was in.
    pub programs: BTreeMap<ProgramName, Counted>,
    /// Packets that passed the end of a chain.
    pub end: u64,
}

impl Totals {
    /// Adds a retired chain's counts, of each part.
    pub fn fold(&mut self, sequence: u64, spec: &ChainSpec, exits: &[ExitCounts]) {
        for (member, counted) in spec.members.iter().zip(spec.counted(exits)) {
            let sum = self.programs.entry(member.program.clone()).or_default();
            *sum = *sum + counted;
        }
        self.end = self.end.wrapping_add(spec.passed_end(exits));
        self.folded = sequence;
    }
}

/// A chain's place among the chains of its hook: later chains have higher numbers.
pub type Sequence = u64;

/// Names a chain: its hook and its sequence number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct ChainId {
    /// The hook.
    pub hook: HookId,
    /// Its number there.
    pub sequence: Sequence,
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.hook, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Action;

    fn member(name: &str, actions: &[Action], enforce: bool) -> MemberSpec {
        let object = Sha256::of(name.as_bytes());
        MemberSpec {
            program: ProgramName::new(name).unwrap(),
            fingerprint: Fingerprint::new(&object, None, ""),
            object,
            source: "test".into(),
            entry: EntryName::new("main").unwrap(),
            tag: "0".repeat(16),
            priority: 50,
            chain_call_actions: actions.iter().copied().collect(),
            enforce,
            form: Form::Inlined,
        }
    }

    /// Runs packets through a chain by the documented rule and counts as the fused program does.
    fn simulate(spec: &ChainSpec, packets: &[Vec<Action>]) -> (ExitCounts, Vec<Counted>) {
        let none = vec![[0; Verdicts::LEN]; spec.members.len()];
        let (mut exits, mut truth, mut finals, mut end) = (none.clone(), none.clone(), none, 0);
        'packets: for packet in packets {
            for (at, (member, &verdict)) in spec.members.iter().zip(packet).enumerate() {
                truth[at][verdict as usize] += 1;
                let goes_on = !member.enforce || member.chain_call_actions.contains(verdict);
                if !goes_on || member.counts_itself() {
                    exits[at][verdict as usize] += 1;
                }
                if !goes_on {
                    finals[at][verdict as usize] += 1;
                    continue 'packets;
                }
            }
            end += 1;
        }
        let of = Verdicts::from_array;
        let truth = truth.into_iter().zip(finals);
        let truth = truth.map(|(all, last)| Counted { verdicts: of(all), finals: of(last) });
        let exits = ExitCounts { members: exits.into_iter().map(of).collect(), end };
        (exits, truth.collect())
    }

    proptest::proptest! {
        #[test]
        fn every_verdict_follows_from_where_packets_leave(
            chain in proptest::collection::vec((0u8..32, proptest::bool::ANY), 0..8),
            packets in proptest::collection::vec(proptest::collection::vec(0usize..5, 8), 0..60),
        ) {
            let members = chain.iter().enumerate().map(|(at, &(bits, enforce))| {
                let actions: Vec<_> =
                    Action::ALL.into_iter().filter(|&a| bits & (1 << a as u8) != 0).collect();
                member(&format!("m{at}"), &actions, enforce)
            });
            let spec = ChainSpec { members: members.collect(), frags: false, slots: vec![] };
            let packets: Vec<Vec<_>> = packets
                .into_iter()
                .map(|packet| packet.into_iter().map(|code| Action::ALL[code]).collect())
                .collect();
            let (exits, truth) = simulate(&spec, &packets);
            proptest::prop_assert_eq!(spec.counted(&[exits]), truth);
        }
    }

    proptest::proptest! {
        #[test]
        fn slots_count_each_for_itself(
            own in 0u8..32, rest in proptest::collection::vec(0u8..32, 1..4),
            packets in proptest::collection::vec(proptest::collection::vec(0usize..5, 4), 0..60),
        ) {
            let set = |bits: u8| -> Vec<_> {
                Action::ALL.into_iter().filter(|&a| bits & (1 << a as u8) != 0).collect()
            };
            let first = member("own", &set(own), true);
            let second: Vec<_> =
                rest.iter().enumerate().map(|(at, &b)| member(&format!("m{at}"), &set(b), true)).collect();
            let slot = |members, own, actions: &[Action]| SlotSpec {
                members, own, name: EntryName::new("main").unwrap(), priority: 50,
                actions: actions.iter().copied().collect(), frags: false,
            };
            let slots = vec![slot(1, true, &set(own)), slot(rest.len(), false, &[])];
            let members: Vec<_> = std::iter::once(first.clone()).chain(second.clone()).collect();
            let spec = ChainSpec { members: members.clone(), frags: false, slots };
            let packets: Vec<Vec<_>> = packets
                .into_iter()
                .map(|packet| packet.into_iter().map(|code| Action::ALL[code]).collect())
                .collect();
            // The program in the first slot ends with every verdict, and the dispatcher decides.
            let alone = ChainSpec {
                members: vec![member("own", &[], true)], frags: false, slots: vec![],
            };
            let (first_exits, _) = simulate(&alone, &packets);
            let behind: Vec<Vec<_>> = packets.iter()
                .filter(|packet| first.chain_call_actions.contains(packet[0]))
                .map(|packet| packet[1..].to_vec()).collect();
            let second = ChainSpec { members: second, frags: false, slots: vec![] };
            let (second_exits, _) = simulate(&second, &behind);
            let whole = ChainSpec { members, frags: false, slots: vec![] };
            let (exits, truth) = simulate(&whole, &packets);
            let parts = [first_exits.clone(), second_exits];
            proptest::prop_assert_eq!(spec.counted(&parts), truth);
            proptest::prop_assert_eq!(spec.passed_end(&parts), exits.end);
            let slots = vec![slot(1, true, &set(own))];
            let only = ChainSpec { members: vec![first], frags: false, slots };
            proptest::prop_assert_eq!(only.passed_end(&[first_exits]), behind.len() as u64);
        }
    }

    #[test]
    fn folding_keeps_a_programs_counts_over_a_re_order() {
        let pass = [Action::Pass];
        let (a, b) = (member("a", &pass, true), member("b", &pass, true));
        let first = ChainSpec { members: vec![a.clone(), b.clone()], frags: false, slots: vec![] };
        let second = ChainSpec { members: vec![b, a], frags: false, slots: vec![] };
        let drops = |at: usize| {
            let mut members = vec![Verdicts::default(); 2];
            members[at].drop = 5;
            ExitCounts { members, end: 1 }
        };
        let mut totals = Totals::default();
        totals.fold(1, &first, &[drops(1)]);
        totals.fold(2, &second, &[drops(0)]);
        let of = |name: &str| totals.programs[&ProgramName::new(name).unwrap()];
        assert_eq!((of("a").verdicts.total(), of("b").verdicts.total()), (7, 12));
        assert_eq!((of("b").finals.drop, totals.end, totals.folded), (10, 2, 2));
        assert_eq!((of("a").finals.total(), of("b").finals.total()), (0, 10));
    }
}
