//! Instructions per packet, counted by the machine: a difference of one is real.

use crate::vm::{count, quoted};
use crate::workspace::Workspace;
use crate::{lab, setup};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::Duration;

const BENCH_PACKAGE: &str = "pointsman-bench";
/// Emulation with counting is slow; this is a hundred times what it takes.
const LIMIT: Duration = Duration::from_secs(1200);

/// Builds the benchmark, runs it in the machine and prints its rows.
pub(super) fn run(workspace: &Workspace, json: bool) -> Result<()> {
    lab::require_root()?;
    setup::ensure(&[setup::BUILD, setup::NETNS, setup::INTEROP, setup::VM])?;
    let built = workspace.build(&["build", "--release", "--package", BENCH_PACKAGE])?;
    let binary = built.first().context("cargo built no benchmark")?;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let script =
        format!("export PATH={path} HOME=/tmp\nexec {} --instructions --json\n", quoted(binary)?);
    let mut rows = Vec::new();
    let mut said = Vec::new();
    count(workspace, &script, LIMIT, |line| match serde_json::from_str::<Value>(line) {
        Ok(row) if row.is_object() => rows.push(row),
        _ => said.push(line.to_owned()),
    })?;
    if rows.is_empty() {
        bail!("the benchmark printed no row: {}", said.join("; "));
    }
    if json {
        rows.iter().for_each(|row| println!("{row}"));
    } else {
        print(&rows);
    }
    Ok(())
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
