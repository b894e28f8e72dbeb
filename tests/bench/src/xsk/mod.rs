//! Packets that an AF_XDP socket takes behind our chain, beside a bare XSKMAP program, on the same
//! veth and the same socket, in turns.
//!
//! One CPU makes frames in the kernel (`BPF_F_TEST_XDP_LIVE_FRAMES`), more of them than can be
//! taken, and the veth's ring drops the rest. On the other is all that receiving is: the kernel's
//! thread for the interface (threaded NAPI), which runs the program and copies packets into the
//! socket's memory, and the application's, which takes them out of its ring and gives memory back.
//! Packets over the CPU time of both is the figure: what other processes do meanwhile does not
//! count, and neither does making frames.

mod forms;
mod stage;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use forms::{Form, Forms};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use stage::{Count, Stage, Taker};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// After a swap: until everything is as it will be.
const SETTLE: Duration = Duration::from_millis(5);
/// Frames that one call makes: the sender looks whether it is done between calls.
const BURST: u32 = 1 << 14;
/// How much more than was taken has to be offered for the receiver to be what limits.
const ENOUGH: f64 = 1.05;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Compare what an AF_XDP socket receives behind the chain and behind a bare XSKMAP program.
    #[arg(long)]
    xsk: bool,
    /// The length of a frame in bytes, for --xsk.
    #[arg(long, default_value_t = 1400, value_parser = clap::value_parser!(u16).range(60..=1514))]
    bytes: u16,
}

impl Options {
    pub(crate) fn is_wanted(&self) -> bool {
        self.xsk
    }
}

/// One figure.
#[derive(Debug, Serialize)]
struct Row {
    form: &'static str,
    /// Of the receiving CPU's time; the geometric mean of the rounds that count.
    packets_per_second: u64,
}

/// One round of one form.
#[derive(Debug, Clone, Copy)]
struct Sample {
    packets_per_second: f64,
    /// Frames made for each that was taken.
    offered: f64,
    /// How much of its CPU receiving had.
    share: f64,
    /// Packets without room in the socket's rings, of all that came that far.
    lost: f64,
}

/// Takes turns and prints rows.
pub(crate) fn run(options: &Options, rounds: usize, milliseconds: u32, json: bool) -> Result<()> {
    ensure!(rounds > 0 && milliseconds > 0, "no rounds, no figures");
    let [sending, receiving] = two_cpus()?;
    let stage = Stage::set()?;
    let mut taker = Taker::open(&stage)?;
    let mut forms = Forms::attach(&stage, &taker)?;
    let packet = frame(options.bytes);
    let (done, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut samples = [Vec::new(), Vec::new()];
    let measured = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            stage.pair.left.run(|| -> Result<()> {
                pin(sending)?;
                while !done.load(Ordering::Acquire) {
                    stage.make(&packet, BURST)?;
                    made.fetch_add(BURST.into(), Ordering::Relaxed);
                }
                Ok(())
            })
        });
        let mut turns = || -> Result<()> {
            stage.receive_on(receiving)?;
            for round in 0..rounds {
                // Each comes first as often as the other: what drifts meets both alike.
                for turn in 0..Form::ALL.len() {
                    let at = (turn + round) % Form::ALL.len();
                    let (form, samples) = (Form::ALL[at], &mut samples[at]);
                    forms.swap(form)?;
                    taker.take(&stage, SETTLE)?;
                    let before = made.load(Ordering::Relaxed);
                    let count = taker.take(&stage, Duration::from_millis(milliseconds.into()))?;
                    let made = made.load(Ordering::Relaxed) - before;
                    forms.took(form, count.packets);
                    samples.push(sample(form, count, made)?);
                }
            }
            Ok(())
        };
        let turned = turns();
        done.store(true, Ordering::Release);
        let sent = sender.join();
        turned?;
        sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    measured?;
    forms.check()?;
    print(&samples, options.bytes, json)
}

fn sample(form: Form, count: Count, made: u64) -> Result<Sample> {
    let Count { packets, lost, spent, elapsed } = count;
    ensure!(packets > 0, "no packet came through {}: is the machine that busy?", form.name());
    Ok(Sample {
        packets_per_second: packets as f64 / spent.as_secs_f64(),
        offered: made as f64 / packets as f64,
        share: spent.as_secs_f64() / elapsed.as_secs_f64(),
        lost: lost as f64 / (packets + lost) as f64,
    })
}

fn print(samples: &[Vec<Sample>; 2], bytes: u16, json: bool) -> Result<()> {
    let of = |of: fn(&Sample) -> f64| samples.each_ref().map(|samples| sorted(samples, of));
    let (rates, offered) = (of(|s| s.packets_per_second), of(|s| s.offered));
    let (shares, lost) = (of(|s| s.share), of(|s| s.lost));
    let counted = counting(samples);
    let rows = Form::ALL.into_iter().zip(samples).map(|(form, samples)| {
        let rates = counted.iter().map(|at| samples[*at].packets_per_second);
        Row { form: form.name(), packets_per_second: geometric_mean(rates) as u64 }
    });
    let rows: Vec<Row> = rows.collect();
    let least = offered.iter().map(|offered| middle(offered)).fold(f64::INFINITY, f64::min);
    let limit = if least >= ENOUGH {
        format!("not the sender limits: {least:.2} frames were offered for each that was taken")
    } else {
        format!("the sender limits, the figures are too low: {least:.2} frames for each taken")
    };
    if json {
        for row in &rows {
            println!("{}", serde_json::to_string(row)?);
        }
        eprintln!("{limit}");
        return Ok(());
    }
    println!("frames of {bytes} bytes, packets per second of the receiving CPU's time");
    let heads = ["mean", "p25", "p75", "offered", "share", "lost"];
    let [mean, p25, p75, of, share, without] = heads;
    println!("{:<12} {mean:>10} {p25:>10} {p75:>10} {of:>8} {share:>8} {without:>8}", "form");
    for (at, Row { form, packets_per_second }) in rows.iter().enumerate() {
        let rates = &rates[at];
        let [low, high] =
            [1, 3].map(|quarter| rates[(rates.len() * quarter / 4).min(rates.len() - 1)]);
        let [offered, share, lost] = [&offered, &shares, &lost].map(|values| middle(&values[at]));
        println!(
            "{form:<12} {packets_per_second:>10} {low:>10.0} {high:>10.0} {offered:>8.2} \
             {share:>8.2} {lost:>8.4}"
        );
    }
    let ratio = rows[1].packets_per_second as f64 / rows[0].packets_per_second as f64;
    println!(
        "chain / bare_xskmap = {ratio:.3}; by medians {:.3}",
        middle(&rates[1]) / middle(&rates[0])
    );
    println!("{limit}");
    Ok(())
}

/// The rounds that count: without the tenth in which the chain did best beside the other form, and
/// the tenth in which it did worst. Something else happened in one of their two turns.
fn counting(samples: &[Vec<Sample>; 2]) -> Vec<usize> {
    let ratio =
        |at: &usize| samples[1][*at].packets_per_second / samples[0][*at].packets_per_second;
    let mut rounds: Vec<usize> = (0..samples[0].len()).collect();
    rounds.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let few = rounds.len() / 10;
    rounds[few..rounds.len() - few].to_vec()
}

/// With it the ratio of two forms is that of neighbouring turns: how fast the machine was at the
/// time, which changes by half and more, does not matter.
fn geometric_mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    (values.map(f64::ln).sum::<f64>() / count).exp()
}

fn sorted(samples: &[Sample], of: fn(&Sample) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn middle(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// The benchmark's datagram, as long as was asked for.
fn frame(bytes: u16) -> Vec<u8> {
    let mut frame = crate::packet();
    frame.resize(bytes.into(), 0);
    // Lengths of IPv4 and UDP.
    frame[16..18].copy_from_slice(&(bytes - 14).to_be_bytes());
    frame[38..40].copy_from_slice(&(bytes - 34).to_be_bytes());
    frame
}

/// Two CPUs that this process may use.
fn two_cpus() -> Result<[usize; 2]> {
    let may = sched_getaffinity(None).context("ask which CPUs there are")?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| may.is_set(cpu));
    let two = [cpus.next(), cpus.next()];
    let [Some(one), Some(other)] = two else {
        anyhow::bail!("sender and receiver each need a CPU, and there is one");
    };
    Ok([one, other])
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("stay on CPU {cpu}"))
}
