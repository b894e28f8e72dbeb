//! Kills at every step from the snapshot to the packets: before and after each file that is
//! written, at and within each step in the kernel. The node always runs something that was whole,
//! signed and not older; and the next start goes on.

use super::*;
use pointsman_plan::simulator::Fault;
use proptest::prelude::*;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

const OBJECT: &str = "OBJECT x";

/// Generation 6, with an object that comes beside it.
fn six() -> Vec<u8> {
    let mut next = document(6, &[("a", "xb"), ("b", "c")]);
    next["programs"]["x"] = json!({ "object": { "sha256": Sha256::of(OBJECT.as_bytes()) } });
    sign(&KEY, &payload(next, &[OBJECT])).unwrap()
}

/// What interfaces `a` and `b` may run: one generation or the other, each of them whole.
fn is_old_or_new(host: &TestHost, at: &str) {
    let (a, b) = (host.running("a"), host.running("b"));
    assert!(a == ["c", "u"] || a == ["x", "b"], "killed {at}: {a:?}");
    assert!(b == NONE || b == ["c"], "killed {at}: {b:?}");
}

fn goes_on(host: &TestHost, at: &str) {
    let node = host.start_in_fleet();
    assert_eq!(
        (host.running("a"), host.running("b")),
        (vec!["x".into(), "b".into()], vec!["c".to_owned()])
    );
    let status = node.status();
    assert_eq!(status.generation, Some(6), "killed {at}");
    let fleet = status.fleet.unwrap();
    assert_eq!((fleet.generation, fleet.refused), (Some(6), None), "killed {at}");
    assert_eq!(host.shared.sim().violations(), &[] as &[String]);
    // Nothing is left over: the documents and objects are those of the two generations.
    let aside = host.files().into_iter().filter(|file| file.ends_with(".aside"));
    assert_eq!(aside.collect::<Vec<_>>(), NONE);
    assert!(node.stop());
}

#[test]
fn a_kill_at_any_step_in_the_kernel_is_made_good() {
    let mut kills = 0;
    for fault in [Fault::Crash as fn(usize) -> Fault, Fault::CrashWithin] {
        for at in 0.. {
            let (host, node) = at_5();
            lay_down_object(&host, OBJECT);
            host.shared.dies.store(true, Ordering::SeqCst);
            host.shared.sim().plant(fault(at));
            lay_down(&host, &node, &six());
            let alive = node.stop();
            host.shared.dies.store(false, Ordering::SeqCst);
            host.shared.sim().restart();
            if alive {
                break;
            }
            kills += 1;
            is_old_or_new(&host, &format!("at step {at}"));
            goes_on(&host, &format!("at step {at}"));
        }
    }
    assert!(kills >= 10, "{kills} kills");
}

/// How many more files are created before the daemon dies.
static LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);

fn counts_down() -> bool {
    let left = LEFT.load(Ordering::SeqCst);
    if left != usize::MAX {
        LEFT.store(left.wrapping_sub(1), Ordering::SeqCst);
    }
    left == 0
}

fn dies_before(path: &Path) -> io::Result<fs::File> {
    assert!(!counts_down(), "killed before {} is created", path.display());
    fs::File::create(path)
}

fn dies_after(path: &Path) -> io::Result<fs::File> {
    let file = fs::File::create(path)?;
    fs::write(path, "half of what")?;
    assert!(!counts_down(), "killed after {} is created", path.display());
    file.set_len(0)?;
    Ok(file)
}

#[test]
fn a_kill_at_any_file_is_made_good() {
    let mut kills = 0;
    for dies in [dies_before as fn(&Path) -> io::Result<fs::File>, dies_after] {
        for at in 0.. {
            let (host, node) = at_5();
            assert!(node.stop());
            let node = host.start_in_fleet_with(dies).unwrap();
            lay_down_object(&host, OBJECT);
            LEFT.store(at, Ordering::SeqCst);
            lay_down(&host, &node, &six());
            let alive = node.stop();
            LEFT.store(usize::MAX, Ordering::SeqCst);
            if alive {
                break;
            }
            kills += 1;
            is_old_or_new(&host, &format!("at file {at}"));
            goes_on(&host, &format!("at file {at}"));
        }
    }
    assert!(kills >= 8, "{kills} kills");
}

/// What may happen to a node.
#[derive(Debug, Clone, Copy)]
enum Happens {
    /// The control plane publishes another document, and it arrives.
    Publish(u8),
    /// An earlier record is laid down again.
    Replay(u8),
    /// The record that arrived last, with something of it replaced.
    Garble(u16),
    /// A record for somebody else, or of somebody else.
    Foreign(bool),
    /// The drop directory is emptied.
    Vanish,
    /// The daemon is killed at this step of the next arrival, and started again.
    Kill(u8),
    Restart,
    Reboot,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => any::<u8>().prop_map(Happens::Publish),
        2 => any::<u8>().prop_map(Happens::Replay),
        3 => any::<u16>().prop_map(Happens::Garble),
        1 => any::<bool>().prop_map(Happens::Foreign),
        1 => Just(Happens::Vanish),
        2 => (0..8_u8).prop_map(Happens::Kill),
        1 => Just(Happens::Restart),
        1 => Just(Happens::Reboot),
    ]
}

/// One of the chains that are published.
fn chain(choice: u8) -> &'static str {
    ["c", "u", "b", "cu", "uc", "cub"][usize::from(choice) % 6]
}

fn programs(chain: &str) -> Vec<String> {
    chain.chars().map(String::from).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: what runs is the newest document that ever arrived
    /// whole, and never anything else.
    #[test]
    fn the_newest_whole_record_that_arrived_is_in_force(
        history in proptest::collection::vec(happens(), 1..14),
    ) {
        let host = enrolled();
        let mut node = host.start_in_fleet();
        let mut published: Vec<&'static str> = Vec::new();
        // The generation in force, counted from one.
        let mut in_force = 0;
        let of = |published: &[&'static str], generation: usize| {
            record(generation as u64, &[("a", published[generation - 1])])
        };
        for event in history {
            let last = in_force;
            match event {
                Happens::Publish(choice) => {
                    published.push(chain(choice));
                    lay_down(&host, &node, &of(&published, published.len()));
                    in_force = published.len();
                }
                Happens::Replay(which) if !published.is_empty() => {
                    let generation = usize::from(which) % published.len() + 1;
                    lay_down(&host, &node, &of(&published, generation));
                    in_force = in_force.max(generation);
                    // Signing has a random part, so this is another record of the same document.
                    let shown = if generation < in_force { "older" } else { "" };
                    prop_assert_eq!(kind(&node), shown);
                }
                Happens::Garble(how) if !published.is_empty() => {
                    let mut garbled = of(&published, published.len());
                    let at = usize::from(how) % garbled.len();
                    garbled[at] ^= 1 << (how % 8);
                    lay_down(&host, &node, &garbled);
                    prop_assert!(refusal(&node).is_some());
                }
                Happens::Foreign(key) => {
                    let generation = published.len() as u64 + 9;
                    let mut payload = payload(document(generation, &[("a", "b")]), &[]);
                    if key {
                        lay_down(&host, &node, &sign(&OTHER, &payload).unwrap());
                    } else {
                        payload.fleet = FleetName::new("prod").unwrap();
                        lay_down(&host, &node, &sign(&KEY, &payload).unwrap());
                    }
                    prop_assert!(refusal(&node).is_some());
                }
                Happens::Vanish => {
                    let _ = fs::remove_file(host.path("drop/snapshot.cdb"));
                    node.laid_down();
                }
                Happens::Kill(at) => {
                    published.push(chain(at));
                    host.shared.dies.store(true, Ordering::SeqCst);
                    host.shared.sim().plant(Fault::Crash(at.into()));
                    lay_down(&host, &node, &of(&published, published.len()));
                    node.stop();
                    host.shared.dies.store(false, Ordering::SeqCst);
                    host.shared.sim().restart();
                    node = host.start_in_fleet();
                    in_force = published.len();
                }
                Happens::Restart => {
                    node.stop();
                    node = host.start_in_fleet();
                }
                Happens::Reboot => {
                    node.stop();
                    host.reboot();
                    node = host.start_in_fleet();
                }
                Happens::Replay(_) | Happens::Garble(_) => {}
            }
            prop_assert!(in_force >= last);
            let expected = if in_force == 0 { vec![] } else { programs(published[in_force - 1]) };
            prop_assert_eq!(host.running("a"), expected);
            let generation = (in_force > 0).then_some(in_force as u64);
            prop_assert_eq!(node.status().generation, generation);
        }
        let violations = host.shared.sim().violations().to_vec();
        prop_assert_eq!(violations, Vec::<String>::new());
        node.stop();
    }
}
