//! What the emulated machine with Debian's kernel tells: instructions per packet, counted by it, so
//! that a difference of one is real, and what it costs to add a program beside libxdp's tool.

use crate::vm::{self, Speed, quoted};
use crate::workspace::Workspace;
use crate::{lab, setup};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::Value;
use std::time::Duration;

/// Emulation with counting is slow; this is a hundred times what it takes.
const LIMIT: Duration = Duration::from_secs(1200);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// These figures only.
    #[arg(long, value_enum)]
    only: Option<Figures>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figures {
    /// Instructions per packet.
    Instructions,
    /// Adding a program to a chain of nine.
    Adding,
}

/// Builds the benchmark, runs it in the machine and prints its rows: once counting instructions,
/// and once as fast as the machine can, where time is time.
pub(super) fn run(workspace: &Workspace, options: &Options, json: bool) -> Result<()> {
    lab::require_root()?;
    setup::ensure(&[setup::BUILD, setup::NETNS, setup::INTEROP, setup::VM])?;
    let is_wanted = |figures| options.only.is_none_or(|only| only == figures);
    let benchmark = release(workspace, "pointsman-bench")?;
    if is_wanted(Figures::Instructions) {
        let command = format!("{benchmark} --instructions --json");
        let rows = measure(workspace, Speed::Counted, &command, json)?;
        if !json {
            print(&rows);
        }
    }
    if is_wanted(Figures::Adding) {
        let command =
            format!("{benchmark} --adding {} --json", release(workspace, "pointsman-cli")?);
        let rows = measure(workspace, Speed::Timed, &command, json)?;
        if !json {
            print_times(&rows);
        }
    }
    Ok(())
}

/// Builds a package's program as it is delivered; its path, for a shell.
fn release(workspace: &Workspace, package: &str) -> Result<String> {
    let built = workspace.build(&["build", "--release", "--package", package])?;
    quoted(built.first().with_context(|| format!("cargo built no program of {package}"))?)
}

/// Runs a command that prints rows.
fn measure(workspace: &Workspace, speed: Speed, command: &str, json: bool) -> Result<Vec<Value>> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let script = format!("export PATH={path} HOME=/tmp\nexec {command}\n");
    let mut rows = Vec::new();
    let mut said = Vec::new();
    let ran = vm::measure(workspace, speed, &script, LIMIT, |line| {
        match serde_json::from_str::<Value>(line) {
            Ok(row) if row.is_object() => rows.push(row),
            _ => said.push(line.to_owned()),
        }
    });
    ran.with_context(|| said.join("; "))?;
    if rows.is_empty() {
        bail!("the benchmark printed no row: {}", said.join("; "));
    }
    if json {
        rows.iter().for_each(|row| println!("{row}"));
    }
    Ok(rows)
}

fn print_times(rows: &[Value]) {
    println!("\nadding a program to a chain of nine\n{:<24} {:>12}", "form", "milliseconds");
    for row in rows {
        let milliseconds = row["milliseconds"].as_f64().unwrap_or(f64::NAN);
        println!("{:<24} {milliseconds:>12.1}", row["form"].as_str().unwrap_or("?"));
    }
}

fn print(rows: &[Value]) {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or("?").to_owned();
    let number = |row: &Value, field: &str| row[field].as_u64().unwrap_or(0);
    println!("instructions per packet\n{:<15} {:>4} {:>7}", "form", "n", "count");
    for row in rows {
        let (n, count) = (number(row, "n"), number(row, "instructions_per_packet"));
        println!("{:<15} {n:>4} {count:>7}", text(row, "form"));
    }
    let at = |form: &str, n: u64| {
        let found = rows.iter().find(|row| row["form"] == form && number(row, "n") == n);
        found.map(|row| number(row, "instructions_per_packet") as f64)
    };
    if let (Some(fused), Some(libxdp), Some(bare)) =
        (at("fused_counted", 10), at("libxdp", 10), at("bare", 10))
    {
        let ratio = (fused - bare) / (libxdp - bare);
        println!("n = 10: (fused_counted - bare) / (libxdp - bare) = {ratio:.3}");
    }
    if let (Some(ours), Some(theirs)) = (at("dispatcher", 10), at("libxdp", 10)) {
        println!("n = 10: dispatcher - libxdp = {}", ours - theirs);
    }
    if let (Some(slot), Some(fused)) = (at("fused_slot", 10), at("fused_counted", 10)) {
        println!("n = 10: fused_slot - fused_counted = {}", slot - fused);
    }
}
