//! `pointsman-bench chain`: what a chain costs per packet, in all its forms, interleaved in one
//! run; wall time over many repeats, medians. Called by `cargo xtask bench chain`.

#![forbid(unsafe_code)]

mod adding;
mod forms;
mod instructions;
mod swap;
mod xsk;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use forms::{Form, Loaded, Work};
use serde::Serialize;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Print one JSON object a row.
    #[arg(long)]
    json: bool,
    /// How often every form is timed; the figure is the median.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Milliseconds that one timing takes, about: many times what the clock can tell apart.
    #[arg(long, default_value_t = 200)]
    milliseconds: u32,
    /// Lengths of the chain.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 5, 10, 30, 64])]
    lengths: Vec<usize>,
    /// Count instructions instead of timing: only where a nanosecond is an instruction, as in the
    /// machine of `cargo xtask bench vm`.
    #[arg(long)]
    instructions: bool,
    /// Time adding a program to a chain of nine instead, as libxdp's tool does it, as we do in this
    /// process, and as this `pointsman` does: in the machine of `cargo xtask bench vm`, which has
    /// BPF filesystem and interfaces of its own.
    #[arg(long, value_name = "POINTSMAN")]
    adding: Option<PathBuf>,
    /// Swap chains under live frames instead, for this many seconds.
    #[arg(long, value_name = "SECONDS")]
    swap: Option<u64>,
    /// Forms to time; all by default.
    #[arg(long, value_delimiter = ',')]
    forms: Vec<Form>,
    #[command(flatten)]
    xsk: xsk::Options,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
struct Row {
    form: &'static str,
    members: &'static str,
    n: usize,
    ns_per_packet: f64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.instructions {
        return instructions::run(options.json);
    }
    if let Some(tool) = &options.adding {
        return adding::run(tool, options.json);
    }
    if let Some(seconds) = options.swap {
        return swap::run(seconds, options.json);
    }
    if options.xsk.is_wanted() {
        return xsk::run(&options.xsk, options.rounds, options.milliseconds, options.json);
    }
    let mut rows = Vec::new();
    for work in [Work::Trivial, Work::Parsing] {
        for &length in &options.lengths {
            let timed = time(&options, work, length)?;
            if options.json {
                for row in &timed {
                    println!("{}", serde_json::to_string(row)?);
                }
            }
            rows.extend(timed);
        }
    }
    if !options.json {
        print(&rows);
    }
    Ok(())
}

/// Times all forms of one chain, in turn, so that whatever else the machine does hits all alike.
fn time(options: &Options, work: Work, length: usize) -> Result<Vec<Row>> {
    let rounding = pointsman_bpf::probe()?.stack_rounding;
    let forms = if options.forms.is_empty() { &Form::ALL[..] } else { &options.forms };
    // A tail call chain is at most 33 long (MAX_TAIL_CALL_CNT).
    let fits = |form: &&Form| **form != Form::TailCall || length <= 33;
    let mut timed = Vec::new();
    for &form in forms.iter().filter(fits) {
        timed.push((form, forms::load(form, work, length, rounding)?, 0, Vec::new()));
    }
    let packet = packet();
    for (_, loaded, repeat, _) in &mut timed {
        // Warms up as well.
        let packet_takes = once(loaded, &packet, 500_000)?;
        *repeat = (f64::from(options.milliseconds) * 1e6 / packet_takes.max(1.0)) as u32;
    }
    for _ in 0..options.rounds {
        for (_, loaded, repeat, samples) in &mut timed {
            samples.push(once(loaded, &packet, *repeat)?);
        }
    }
    let row = |(form, _, _, mut samples): (Form, Loaded, u32, Vec<f64>)| {
        samples.sort_by(f64::total_cmp);
        let ns_per_packet = samples[samples.len() / 2];
        Row { form: form.name(), members: work.name(), n: length, ns_per_packet }
    };
    Ok(timed.into_iter().map(row).collect())
}

/// Nanoseconds per packet: wall time, because the kernel's own measure is in whole ones.
fn once(loaded: &Loaded, packet: &[u8], repeat: u32) -> Result<f64> {
    let start = Instant::now();
    let run = loaded.run(packet, repeat)?;
    let elapsed = start.elapsed().as_nanos() as f64 / f64::from(repeat);
    anyhow::ensure!(run.verdict == 2, "the chain answers {} instead of PASS", run.verdict);
    Ok(elapsed)
}

/// Runs `ip`.
pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status().context("run ip")?;
    if !status.success() {
        bail!("ip {} failed", arguments.join(" "));
    }
    Ok(())
}

/// A UDP datagram over IPv4.
pub(crate) fn packet() -> Vec<u8> {
    let mut packet = vec![0u8; 64];
    packet[12..14].copy_from_slice(&[0x08, 0x00]);
    packet[14] = 0x45;
    packet[16..18].copy_from_slice(&50u16.to_be_bytes());
    packet[22..24].copy_from_slice(&[64, 17]);
    packet[34..38].copy_from_slice(&[0x9c, 0x40, 0x4e, 0x20]);
    packet[38..40].copy_from_slice(&30u16.to_be_bytes());
    packet
}

fn print(rows: &[Row]) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let mut header = vec!["members".to_owned(), "n".to_owned()];
    header.extend(Form::ALL.iter().map(|form| form.name().to_owned()));
    table.set_header(header);
    let mut keys: Vec<(&str, usize)> = Vec::new();
    for row in rows {
        if !keys.contains(&(row.members, row.n)) {
            keys.push((row.members, row.n));
        }
    }
    for (members, n) in keys {
        let mut line = vec![members.to_owned(), n.to_string()];
        for form in Form::ALL {
            let mut found =
                rows.iter().filter(|r| (r.members, r.n, r.form) == (members, n, form.name()));
            line.push(found.next().map_or("-".into(), |row| format!("{:.1}", row.ns_per_packet)));
        }
        table.add_row(line);
    }
    println!("nanoseconds per packet, medians\n{table}");
    ratios(rows);
}

/// The figures that are promised.
fn ratios(rows: &[Row]) {
    let at = |form: Form, work: Work, n: usize| {
        let mut found =
            rows.iter().filter(|r| (r.form, r.members, r.n) == (form.name(), work.name(), n));
        found.next().map(|row| row.ns_per_packet)
    };
    let over = |form: Form, n| {
        let bare = at(Form::Bare, Work::Trivial, n)?;
        Some(at(form, Work::Trivial, n)? - bare)
    };
    if let (Some(fused), Some(called)) = (over(Form::FusedCounted, 30), over(Form::Called, 30)) {
        println!(
            "trivial, n = 30: (fused_counted - bare) / (called - bare) = {:.3}",
            fused / called
        );
    }
    let parsing = |form| at(form, Work::Parsing, 10);
    if let (Some(fused), Some(merged)) = (parsing(Form::FusedCounted), parsing(Form::Merged)) {
        println!("parsing, n = 10: fused_counted / merged = {:.3}", fused / merged);
    }
}
