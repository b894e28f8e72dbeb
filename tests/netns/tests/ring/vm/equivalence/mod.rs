//! The contract of fusing: any chain on any packet gives the verdict, the packet, the map contents
//! and the counts that its members give one after the other.
//!
//! Fused chains are compared in three forms: as laid out, with all members called, and mixed. The
//! references know nothing of fusing. In one, libbpf loads each program by itself and the
//! documented rule is played here, packet by packet. In the other, each program is compiled with
//! the rule behind it and the kernel's tail calls join them.
//!
//! In dispatchers, ours and libxdp's, chains do the same, whichever members share a slot: but for
//! what `docs/libxdp.md` says of chains of one, and of verdicts that a dispatcher takes for others.
//!
//! Chains and packets are random; `POINTSMAN_SEED` repeats a run, `POINTSMAN_FULL=1` makes a long
//! one. A case that fails is made small and kept in `cases`, where the next run begins.

mod case;
mod dispatched;
mod forms;
mod kept;
mod one_by_one;
mod pool;
mod seats;
mod shrink;
mod tail_calls;

use case::Case;
use dispatched::Bench;
use forms::{Outcome, Tried, compare};
use pointsman_netns::dispatcher::Stage;
use pointsman_netns::random::{Random, full};
use pool::Pool;
use shrink::shrink;

const CASES: usize = 250;
const CASES_FULL: usize = 10_000;

#[test]
fn chains_do_in_every_form_what_their_members_do_one_by_one() {
    let mut random = Random::new("equivalence");
    let pool = Pool::new(|_| true);
    for (name, case) in kept::all() {
        if let Err(why) = compare(&pool, &case, |_| {}) {
            panic!("{name}.json: {}: {why}", case.about);
        }
    }
    let cases = if full() { CASES_FULL } else { CASES };
    let (mut too_deep, mut called, mut only_inlined, mut several_buffers) = (0, 0, 0, 0);
    for number in 0..cases {
        let case = Case::random(&mut random, &pool);
        let tried: Tried = match compare(&pool, &case, |_| {}) {
            Ok(tried) => tried,
            Err(why) => {
                let fails = |case: &Case| compare(&pool, case, |_| {}).err();
                let (small, why) = shrink(&case, why, fails);
                panic!("case {number}: {why}\n{}", kept::keep(&small));
            }
        };
        too_deep += usize::from(tried.too_deep);
        called += usize::from(tried.called);
        only_inlined += usize::from(tried.only_inlined);
        several_buffers += tried.several_buffers;
    }
    println!(
        "equivalence: {} kept and {cases} random chains: {too_deep} did not fit, {only_inlined} \
         not with all members called, {called} with called members by need; {several_buffers} \
         packets of several buffers",
        kept::all().len()
    );
    // What is hardly ever tried is not tested.
    assert!(!kept::all().is_empty(), "no case is kept");
    assert!(too_deep * 4 < cases, "{too_deep} of {cases} chains did not fit");
    assert!(only_inlined * 4 < cases, "{only_inlined} of {cases} chains did not fit called");
    assert!(called * 10 > cases, "{called} of {cases} chains had a called member");
    assert!(several_buffers > 0, "no packet of several buffers");
}

const DISPATCHED: usize = 80;
const DISPATCHED_FULL: usize = 1_000;

#[test]
fn chains_do_in_every_dispatcher_what_their_members_do_one_by_one() {
    let Some(stage) = Stage::set("equivalence::dispatchers") else { return };
    let mut random = Random::new("equivalence::dispatchers");
    // Programs that tail-call cannot be in a dispatcher: `dispatcher::bad` has the answer.
    let pool = Pool::new(|program| program.object != "tailcall");
    let bench = Bench::new(&stage, &pool);
    let mut all = dispatched::Tried::default();
    let mut try_one = |what: &str, case: &Case| match bench.compare(case, |_, _| {}) {
        Ok(tried) => all.add(&tried),
        Err(why) => {
            println!("{what}: {why}");
            let fails = |case: &Case| bench.compare(case, |_, _| {}).err();
            let (small, why) = shrink(case, why, fails);
            panic!("{what}: {why}\n{}", kept::keep(&small));
        }
    };
    let possible = |case: &Case| case.members.iter().all(|p| pool.program(&p.program).is_some());
    for (name, case) in kept::all().iter().filter(|(_, case)| possible(case)) {
        try_one(name, case);
    }
    let cases = if full() { DISPATCHED_FULL } else { DISPATCHED };
    for number in 0..cases {
        try_one(&format!("case {number}"), &Case::random(&mut random, &pool));
    }
    println!("equivalence: {} kept and {cases} random chains: {all:?}", kept::all().len());
    // What is hardly ever tried is not tested.
    let dispatched::Tried { own, several, shared, theirs, lone, company, too_deep } = all;
    assert!(own * 2 > cases && several * 3 > cases && shared * 3 > cases, "{all:?}");
    assert!(theirs * 20 > cases && company * 5 > cases && lone > 0, "{all:?}");
    assert!(too_deep * 4 < cases, "{all:?}");
}

#[test]
fn a_dispatcher_that_lies_is_found() {
    let Some(stage) = Stage::set("equivalence::lies") else { return };
    let pool = Pool::new(|program| program.object == "verdict");
    let bench = Bench::new(&stage, &pool);
    let kept = kept::all().into_iter().find(|(name, _)| *name == "shared-own-theirs");
    let case = kept.expect("a kept case").1;
    for guilty in ["own slots", "slots", "libxdp's", "theirs in ours"] {
        let lie = |name: &str, outcome: &mut Outcome| {
            if name == guilty {
                outcome.packets[0].0 ^= 1;
            }
        };
        let why = bench.compare(&case, lie).expect_err("a lie");
        assert!(why.starts_with(&format!("{guilty}: packet 0: verdict")), "{why}");
    }
    bench.compare(&case, |_, _| {}).expect("no lie");
}

/// The fused form lies about one member: about long packets that leave the chain there.
fn lie(case: &Case, guilty: &str, outcome: &mut Outcome) {
    let last = case.members.iter().any(|place| place.program == guilty && place.enforce);
    for (packet, (verdict, _)) in case.packets.iter().zip(&mut outcome.packets) {
        if last && packet.bytes.len() >= 50 {
            *verdict = 4;
        }
    }
}

#[test]
fn a_planted_fault_is_found_and_made_small() {
    const GUILTY: &str = "order:mark#1";
    let mut random = Random::new("planted");
    let pool = Pool::new(|program| ["order", "subprogs"].contains(&program.object));
    let fails = |case: &Case| compare(&pool, case, |outcome| lie(case, GUILTY, outcome)).err();
    let mut found = None;
    for _ in 0..CASES {
        let case = Case::random(&mut random, &pool);
        if let Some(why) = fails(&case) {
            found = Some((case, why));
            break;
        }
    }
    let (case, why) = found.expect("a chain of the guilty member");
    let (small, why) = shrink(&case, why, fails);
    assert!(why.starts_with("fused: packet 0: verdict 4, one by one 2"), "{why}");
    let programs: Vec<_> = small.members.iter().map(|place| place.program.as_str()).collect();
    assert_eq!(programs, [GUILTY]);
    let lengths: Vec<_> = small.packets.iter().map(|packet| packet.bytes.len()).collect();
    assert_eq!(lengths, [50]);
}
