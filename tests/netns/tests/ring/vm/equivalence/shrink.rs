//! Making a failing case small: fewer members, simpler rules, fewer and shorter packets, as long
//! as it fails. The same case always becomes the same.

use super::case::{Case, Seat};
use pointsman_model::ActionSet;

/// A test run takes no shorter packet: Ethernet's header.
const SHORTEST: usize = 14;
/// Enough for the longest case; a limit so that it ends on slow machines.
const ATTEMPTS: usize = 1_000;

/// The smallest case found that fails as `fails` says, with what it says of it.
pub(super) fn shrink(
    case: &Case,
    first: String,
    mut fails: impl FnMut(&Case) -> Option<String>,
) -> (Case, String) {
    let (mut smallest, mut why) = (case.clone(), first);
    let mut attempts = 0;
    'smaller: loop {
        for candidate in simpler(&smallest) {
            if attempts == ATTEMPTS {
                return (smallest, why);
            }
            attempts += 1;
            if let Some(still) = fails(&candidate) {
                (smallest, why) = (candidate, still);
                continue 'smaller;
            }
        }
        return (smallest, why);
    }
}

/// Simpler cases, the boldest first. None is equal to the case, and following them ends.
fn simpler(case: &Case) -> Vec<Case> {
    let mut found = Vec::new();
    let mut change = |change: &dyn Fn(&mut Case)| {
        let mut other = case.clone();
        change(&mut other);
        if other != *case {
            found.push(other);
        }
    };
    for range in parts(case.members.len()) {
        change(&|case| {
            case.members.drain(range.clone());
            let left: Vec<_> = case.members.iter().map(|place| place.program.clone()).collect();
            for packet in &mut case.packets {
                packet.answers.retain(|program, _| left.contains(program));
            }
        });
    }
    for range in parts(case.packets.len()) {
        change(&|case| drop(case.packets.drain(range.clone())));
    }
    change(&|case| case.counted = true);
    for at in 0..case.members.len() {
        change(&|case| case.members[at].enforce = true);
        // The defaults of a document are simplest.
        let actions = case.members[at].actions;
        if !actions.is_empty() {
            change(&|case| case.members[at].actions = ActionSet::PASS);
        }
        for action in actions.iter().filter(|_| actions.len() > 1) {
            let left = actions.iter().filter(|&other| other != action);
            let left: ActionSet = left.collect();
            change(&|case| case.members[at].actions = left);
        }
        change(&|case| case.members[at].priority = 0);
        change(&|case| case.members[at].seat = Seat::Shared);
    }
    for at in 0..case.packets.len() {
        let length = case.packets[at].bytes.len();
        for shorter in [SHORTEST, (length + SHORTEST) / 2, length.saturating_sub(1)] {
            if (SHORTEST..length).contains(&shorter) {
                change(&|case| case.packets[at].bytes.truncate(shorter));
            }
        }
        for range in parts(length) {
            change(&|case| case.packets[at].bytes[range.clone()].fill(0));
        }
        for program in case.packets[at].answers.keys() {
            change(&|case| {
                // What a program answers whose verdict nobody set.
                case.packets[at].answers.insert(program.clone(), 2);
            });
        }
    }
    found
}

/// The whole of `length`, its halves, quarters and so on down to single ones.
fn parts(length: usize) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut size = length;
    while size > 0 {
        found.extend((0..length).step_by(size).map(|start| start..length.min(start + size)));
        size /= 2;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::equivalence::case::{Packet, Place};
    use pointsman_model::Action;
    use pointsman_netns::random::Random;

    /// A case of twelve members and four packets of any bytes.
    fn case(random: &mut Random) -> Case {
        let place = |at: usize, random: &mut Random| Place {
            program: format!("p{at}"),
            name: format!("m{at:02}"),
            actions: ActionSet::PASS.with(*random.of(&Action::ALL)),
            enforce: random.one_in(2),
            priority: random.below(4) as u32,
            seat: *random.of(&[Seat::Shared, Seat::Own, Seat::Theirs]),
        };
        let packet = |random: &mut Random| Packet {
            answers: [("p3".to_owned(), 1), ("p5".to_owned(), 7)].into(),
            bytes: (0..100 + random.below(100)).map(|_| random.next() as u8 | 1).collect(),
        };
        Case {
            about: String::new(),
            counted: random.one_in(2),
            members: (0..12).map(|at| place(at, random)).collect(),
            packets: (0..4).map(|_| packet(random)).collect(),
        }
    }

    /// A fault of one member, with packets of at least 60 bytes whose 40th is odd, behind another.
    fn fault(case: &Case) -> Option<String> {
        let at = |name: &str| case.members.iter().position(|place| place.program == name);
        let (first, guilty) = (at("p3")?, at("p9")?);
        let packet = |packet: &Packet| packet.bytes.len() >= 60 && packet.bytes[40] & 1 == 1;
        let fails = first < guilty
            && case.members[guilty].actions.contains(Action::Pass)
            && case.packets.iter().any(packet);
        fails.then(|| "planted".to_owned())
    }

    #[test]
    fn what_is_left_is_what_the_fault_needs() {
        let mut random = Random::new("shrink");
        for _ in 0..20 {
            let large = case(&mut random);
            let why = fault(&large).expect("the fault is planted");
            let (small, why) = shrink(&large, why, fault);
            assert_eq!(why, "planted");
            let programs: Vec<_> = small.members.iter().map(|place| &place.program).collect();
            assert_eq!(programs, ["p3", "p9"]);
            for place in &small.members {
                assert_eq!((place.enforce, place.priority, place.seat), (true, 0, Seat::Shared));
                assert_eq!(place.actions, ActionSet::PASS);
            }
            let [packet] = small.packets.as_slice() else { panic!("{small:?}") };
            assert_eq!(packet.bytes.len(), 60);
            assert_eq!(packet.bytes.iter().filter(|&&byte| byte != 0).count(), 1);
            assert_eq!(packet.answers, [("p3".to_owned(), 2)].into());
            let again = shrink(&large, String::new(), fault).0;
            assert_eq!(again, small, "the same case becomes the same");
        }
    }

    #[test]
    fn a_fault_that_needs_nothing_leaves_nothing() {
        let large = case(&mut Random::new("shrink"));
        let (small, _) = shrink(&large, String::new(), |_| Some(String::new()));
        assert_eq!((small.members.len(), small.packets.len(), small.counted), (0, 0, true));
    }

    #[test]
    fn a_case_that_fails_no_more_stays_as_it_is() {
        let large = case(&mut Random::new("shrink"));
        let (small, why) = shrink(&large, "once".to_owned(), |_| None);
        assert_eq!((small, why.as_str()), (large, "once"));
    }
}
