//! Swaps under live frames: is a frame lost, counted twice, or let past a member?
//!
//! Frames are made by the kernel (`BPF_F_TEST_XDP_LIVE_FRAMES`) on one CPU and sent over a veth
//! pair; on the other CPU documents are planned and carried out all along: re-orders, upgrades and
//! changes of length, one after the other. A free-running sender beside other work would lose
//! frames in the veth's ring, so each side has its CPU, and nothing else (IPv6, ARP) sends.

mod edition;
mod host;

use anyhow::{Context as _, Result, ensure};
use edition::{Material, Turns};
use host::{Host, Times};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use pointsman_bpf::{Chain, Slot, live_frames};
use pointsman_model::observed::AttachMode;
use pointsman_model::status::HookCounters;
use pointsman_model::{HookId, InterfaceName};
use pointsman_netns::members::member;
use pointsman_netns::netns::{Netns, Pair};
use rustix::thread::{CpuSet, MembarrierCommand, membarrier, sched_setaffinity};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Frames sent by one call: the sender looks at the clock between calls.
const BURST: u32 = 1 << 20;
/// How long the last frames may take through the veth's ring.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
struct Report {
    seconds: f64,
    frames_sent: u64,
    frames_per_second: u64,
    /// Counted where they left a chain, over all chains.
    frames_counted: u64,
    /// Frames that the veth did not take.
    xmit_errors: u64,
    /// Frames that some steady member did not see, by its own map or by the chains' counters.
    skipped_a_member: u64,
    swaps: usize,
    #[serde(flatten)]
    turns: Turns,
    /// From the document to the link's update: our share of a swap.
    ours_ms: Spread,
    /// Its parts: verifying new programs alone, reading the host's state, planning, and fusing
    /// with verifying and pinning.
    inspect_ms: Spread,
    observe_ms: Spread,
    plan_ms: Spread,
    build_ms: Spread,
    /// The link's update: the kernel's share.
    update_ms: Spread,
    /// Afterwards: adding up what the chain before counted.
    retire_ms: Spread,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Spread {
    median: f64,
    p99: f64,
}

/// Runs and prints the report.
pub(crate) fn run(seconds: u64, json: bool) -> Result<()> {
    let report = measure(Duration::from_secs(seconds))?;
    match json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    ensure!(report.frames_sent == report.frames_counted, "frames were lost or counted twice");
    ensure!(report.xmit_errors == 0, "the veth did not take all frames");
    ensure!(report.skipped_a_member == 0, "frames went past a member");
    Ok(())
}

fn measure(duration: Duration) -> Result<Report> {
    let pair = Pair::new()?;
    let from = pair.left.index("v0");
    for (side, device) in [(&pair.left, "v0"), (&pair.right, "v1")] {
        side.ip(&["link", "set", device, "arp", "off"])?;
    }
    let (material, objects) = Material::new()?;
    let mut host = Host::new(objects)?;
    let mut turns = Turns::default();
    pair.right.run(|| host.apply(&material.edition(&turns)?)).context("the first chain")?;
    // XDP_TX on v0 needs native XDP there as well.
    let bounce = member("verdict", "v_tx");
    let rounding = pointsman_bpf::probe()?.stack_rounding;
    let sender = Chain::fuse(&[Slot::new("bounce", &bounce)], rounding, false)?;
    let _sending = pair.left.run(|| sender.attach(from, AttachMode::Native)).context("attach")?;

    let done = AtomicBool::new(false);
    let start = Instant::now();
    let (swapped, sent) = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let swap = || swap_until(&done, &mut host, &material, &mut turns);
            pair.right.run(swap)
        });
        let sent = pair.left.run(|| send_for(duration, &sender, from));
        done.store(true, Ordering::Release);
        (swapper.join(), sent)
    });
    let (seconds, sent) = (start.elapsed().as_secs_f64(), sent?);
    let times = match swapped {
        Ok(times) => times?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let counters = arrived(&mut host, sent)?;
    let spread = |part: fn(&Times) -> Duration| Spread::of(times.iter().map(part));
    Ok(Report {
        seconds,
        frames_sent: sent,
        frames_per_second: (sent as f64 / seconds) as u64,
        frames_counted: left(&counters),
        xmit_errors: dropped(&pair.left, "v0", "tx")? + dropped(&pair.right, "v1", "rx")?,
        skipped_a_member: skipped(&host, &material, &counters, sent)?,
        swaps: times.len(),
        turns,
        ours_ms: spread(Times::ours),
        inspect_ms: spread(|times| times.inspect),
        observe_ms: spread(|times| times.observe),
        plan_ms: spread(|times| times.plan),
        build_ms: spread(|times| times.build),
        update_ms: spread(|times| times.update),
        retire_ms: spread(|times| times.retire),
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

/// Swaps on the second CPU, one edition after the other.
fn swap_until(
    done: &AtomicBool,
    host: &mut Host,
    material: &Material,
    turns: &mut Turns,
) -> Result<Vec<Times>> {
    pin(1)?;
    let mut times = Vec::new();
    while !done.load(Ordering::Acquire) {
        turns.next();
        times.push(host.apply(&material.edition(turns)?)?);
    }
    Ok(times)
}

/// The counters once all frames have come out of the veth's ring, or the patience is over.
fn arrived(host: &mut Host, sent: u64) -> Result<HookCounters> {
    let hook = HookId::xdp(InterfaceName::new("v1")?);
    let start = Instant::now();
    loop {
        membarrier(MembarrierCommand::Global)?;
        let counters = host.counters(&hook)?;
        if left(&counters) >= sent || start.elapsed() > PATIENCE {
            return Ok(counters);
        }
    }
}

/// How many frames left the chains: at the end, or where a verdict was final.
fn left(counters: &HookCounters) -> u64 {
    let finals: u64 = counters.programs.iter().map(|program| program.finals.total()).sum();
    finals + counters.passed_end
}

/// The frames that the steady members did not see or saw twice: the worst of them.
fn skipped(host: &Host, material: &Material, counters: &HookCounters, sent: u64) -> Result<u64> {
    let mut worst = 0;
    for (name, program) in material.steady()? {
        let counted = counters.programs.iter().find(|counted| counted.program == name);
        let counted = counted.with_context(|| format!("no counters of {name}"))?.runs;
        let own = seen(&host.maps(&name, &program))?;
        worst = worst.max(sent.abs_diff(counted)).max(sent.abs_diff(own));
    }
    Ok(worst)
}

/// What a member's own map holds, over all CPUs.
fn seen(maps: &Path) -> Result<u64> {
    let map = MapHandle::from_pinned_path(maps.join("seen")).context("the member's map")?;
    let values = map.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)?.context("a value")?;
    let numbers = values.iter().filter_map(|value| value.as_slice().try_into().ok());
    Ok(numbers.map(u64::from_ne_bytes).sum())
}

/// Frames that a device dropped. For a veth that is what its peer's ring did not take, on both
/// sides (`veth_get_stats64` in drivers/net/veth.c: `peer_tq_xdp_xmit_err`, `xdp_tx_err`).
fn dropped(side: &Netns, device: &str, direction: &str) -> Result<u64> {
    let link: serde_json::Value = side.ip_json(&["-statistics", "link", "show", "dev", device])?;
    let dropped = &link[0]["stats64"][direction]["dropped"];
    dropped.as_u64().with_context(|| format!("no statistics of {device}: {link}"))
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("stay on CPU {cpu}"))
}

impl Spread {
    /// Of milliseconds.
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut sorted: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let at = (sorted.len() as f64 * part) as usize;
            sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
        };
        Self { median: at(0.5), p99: at(0.99) }
    }
}
