//! Swaps under live frames: is a frame lost, counted twice, or let past a member?
//!
//! Frames are made by the kernel (`BPF_F_TEST_XDP_LIVE_FRAMES`) on one CPU and sent over a veth
//! pair; on the other CPU chains are built and swapped all along: re-ordered, upgraded, longer,
//! shorter. A free-running sender beside other work would lose frames in the veth's ring, so each
//! side has its CPU, and nothing else (IPv6, ARP) sends.

use crate::forms::{self, Work};
use anyhow::{Context as _, Result, ensure};
use pointsman_bpf::{Chain, Link, MapHome, Member, Slot, live_frames};
use pointsman_fuse::layout::StackRounding;
use pointsman_model::observed::AttachMode;
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{ActionSet, Sha256};
use pointsman_netns::members::member;
use pointsman_netns::netns::Pair;
use rustix::thread::{CpuSet, MembarrierCommand, membarrier, sched_setaffinity};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Members that are in every chain; each counts what it sees in a map of its own.
const STEADY: usize = 10;
/// Members that come and go.
const CHANGING: usize = 5;
/// Frames sent by one call: the sender looks at the clock between calls.
const BURST: u32 = 1 << 20;

#[derive(Debug, Serialize)]
struct Report {
    seconds: f64,
    frames_sent: u64,
    frames_per_second: u64,
    /// Counted by the exit counters of all chains together.
    frames_counted: u64,
    /// Frames that some steady member did not see.
    skipped_a_member: u64,
    swaps: usize,
    /// Fusing and verifying a chain of ten to fifteen: our share of a swap.
    build_ms_median: f64,
    build_ms_p99: f64,
    /// The link's update: the kernel's share.
    update_ms_median: f64,
    update_ms_p99: f64,
}

/// Runs and prints the report.
pub(crate) fn run(seconds: u64, json: bool) -> Result<()> {
    let report = measure(Duration::from_secs(seconds))?;
    match json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    ensure!(report.frames_sent == report.frames_counted, "frames were lost or counted twice");
    ensure!(report.skipped_a_member == 0, "frames went past a member");
    Ok(())
}

fn measure(duration: Duration) -> Result<Report> {
    let pair = Pair::new()?;
    let (from, to) = (pair.left.index("v0"), pair.right.index("v1"));
    for (side, device) in [(&pair.left, "v0"), (&pair.right, "v1")] {
        side.ip(&["link", "set", device, "arp", "off"])?;
    }
    let mut chains = Chains::new()?;
    let first = chains.next()?;
    let mut link = pair.right.run(|| first.attach(to, AttachMode::Native)).context("attach")?;
    // XDP_TX on v0 needs native XDP there as well.
    let bounce = member("verdict", "v_tx");
    let sender = Chain::fuse(&[last(&bounce)], chains.rounding, false)?;
    let _sending = pair.left.run(|| sender.attach(from, AttachMode::Native)).context("attach")?;
    let done = AtomicBool::new(false);
    let start = Instant::now();
    let (swapped, sent) = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| swap_until(&done, first, &mut link, &mut chains));
        let sent = pair.left.run(|| send_for(duration, &sender, from));
        done.store(true, Ordering::Release);
        (swapper.join(), sent)
    });
    let (seconds, sent) = (start.elapsed().as_secs_f64(), sent?);
    let Swapped { counted, mut builds, mut updates } = match swapped {
        Ok(swapped) => swapped?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let seen = chains.seen()?;
    Ok(Report {
        seconds,
        frames_sent: sent,
        frames_per_second: (sent as f64 / seconds) as u64,
        frames_counted: counted,
        skipped_a_member: seen.iter().map(|&seen| sent.abs_diff(seen)).max().unwrap_or(0),
        swaps: updates.len(),
        build_ms_median: quantile(&mut builds, 0.5),
        build_ms_p99: quantile(&mut builds, 0.99),
        update_ms_median: quantile(&mut updates, 0.5),
        update_ms_p99: quantile(&mut updates, 0.99),
    })
}

/// Sends bursts from the first CPU until the time is over.
fn send_for(duration: Duration, sender: &Chain, from: u32) -> Result<u64> {
    pin(0)?;
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < duration {
        live_frames(sender.program(), &crate::packet(), BURST, from)?;
        sent += u64::from(BURST);
    }
    Ok(sent)
}

struct Swapped {
    counted: u64,
    builds: Vec<f64>,
    updates: Vec<f64>,
}

/// Builds and swaps on the second CPU, and adds up what each chain counted.
fn swap_until(
    done: &AtomicBool,
    mut running: Chain,
    link: &mut Link,
    chains: &mut Chains,
) -> Result<Swapped> {
    pin(1)?;
    let mut swapped = Swapped { counted: 0, builds: vec![], updates: vec![] };
    while !done.load(Ordering::Acquire) {
        let start = Instant::now();
        let next = chains.next()?;
        let built = start.elapsed();
        next.swap_into(link).context("swap")?;
        swapped.builds.push(built.as_secs_f64() * 1e3);
        swapped.updates.push((start.elapsed() - built).as_secs_f64() * 1e3);
        swapped.counted += retire(&running)?;
        running = next;
    }
    swapped.counted += retire(&running)?;
    Ok(swapped)
}

/// What a chain counted, once no frame is in it any more.
fn retire(chain: &Chain) -> Result<u64> {
    membarrier(MembarrierCommand::Global)?;
    let exits = chain.counters().context("a counted chain")?.read()?;
    let members: u64 = exits.members.iter().map(|verdicts| verdicts.total()).sum();
    Ok(members + exits.end)
}

/// Makes ever new chains of the same members.
struct Chains {
    steady: Vec<Member>,
    changing: Vec<Member>,
    /// Ends every chain: drops all.
    sink: Member,
    rounding: StackRounding,
    turn: usize,
}

impl Chains {
    fn new() -> Result<Self> {
        let rounding = pointsman_bpf::probe()?.stack_rounding;
        let bytes = std::fs::read(forms::path("member", Work::Parsing, 1))?;
        let program = ResolvedProgram::new(Sha256::of(&bytes), "bench");
        let counting = |_| Member::prepare(&bytes, &program, &MapHome::Anonymous, rounding, None);
        Ok(Self {
            steady: (0..STEADY).map(counting).collect::<Result<_, _>>()?,
            changing: (0..CHANGING).map(counting).collect::<Result<_, _>>()?,
            sink: member("verdict", "v_drop"),
            rounding,
            turn: 0,
        })
    }

    /// The next chain: another order, and as many of the changing members as its turn says. An
    /// upgrade is a changing member that gives way to another.
    fn next(&mut self) -> Result<Chain> {
        self.turn += 1;
        let extra = self.turn % (CHANGING + 1);
        let turned = |at: usize| (at + self.turn) % STEADY;
        let mut slots: Vec<_> =
            (0..STEADY).map(|at| slot("steady", &self.steady[turned(at)], at)).collect();
        for at in 0..extra {
            let member = &self.changing[(at + self.turn) % CHANGING];
            slots.push(slot("changing", member, (at * 7 + self.turn) % STEADY));
        }
        slots.push(last(&self.sink));
        Ok(Chain::fuse(&slots, self.rounding, true)?)
    }

    /// How many frames each steady member counted itself.
    fn seen(&self) -> Result<Vec<u64>> {
        self.steady.iter().map(seen).collect()
    }
}

fn slot<'a>(name: &'a str, member: &'a Member, place: usize) -> Slot<'a> {
    let priority = u32::try_from(place).unwrap_or(u32::MAX);
    Slot { name, member, actions: ActionSet::PASS, enforce: true, priority }
}

fn last(member: &Member) -> Slot<'_> {
    Slot { priority: u32::MAX, ..slot("last", member, 0) }
}

/// What a member's own map holds, over all CPUs.
fn seen(member: &Member) -> Result<u64> {
    let values = member.map_value("seen", &0u32.to_ne_bytes())?;
    let numbers = values.iter().filter_map(|value| value.as_slice().try_into().ok());
    Ok(numbers.map(u64::from_ne_bytes).sum())
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("stay on CPU {cpu}"))
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
