//! `pointsman-swarm`: what a control plane takes, and what a fleet costs it. A real control plane in a
//! process of its own, and as many nodes as wanted in this one, each with the courier's real code
//! and a daemon that only says how it stands. Called by `cargo xtask bench fleet`.
#![forbid(unsafe_code)]

mod control;
mod daemon;
mod figures;
mod fleet;

use anyhow::Result;
use clap::Parser;
use control::Control;
use figures::Figures;
use fleet::Fleet;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The control plane's program.
    #[arg(long, value_name = "FILE")]
    control: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    nodes: u32,
    /// How often each publish is repeated.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How many requests are under way at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    at_once: u32,
    /// The database: postgres://... [default: a file of SQLite]
    #[arg(long, value_name = "URL", env = "POINTSMAN_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// Print one JSON object a row.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&options))
}

async fn measure(options: &Options) -> Result<()> {
    let mut figures = Figures::new(options.json);
    let control = Control::start(&options.control, options.database.as_deref())?;
    figures.tell("control plane after its start, resident", "MiB", &[control.resident()?]);

    let started = Instant::now();
    let mut fleet = Fleet::enrol(&control, options.nodes, options.at_once as usize).await?;
    let rate = f64::from(options.nodes) / started.elapsed().as_secs_f64();
    figures.tell("nodes enrolled", "1/s", &[rate]);

    fleet.first_policies().await?;
    let report = fleet.publish_new(&mut figures, "first publish, all nodes").await?;
    figures.tell("  written", "MiB", &[report.written_mib()]);
    let document = fleet.document_bytes().await?;
    figures.tell("  a node's document", "B", &[document as f64]);
    fleet.fetch(&mut figures, "all nodes fetch their first record", None).await?;

    fleet.change_all(&mut figures, options.rounds).await?;
    fleet.change_one(&mut figures, options.rounds).await?;
    fleet.look(&mut figures).await?;
    fleet.report(&mut figures).await?;
    figures.tell("control plane, resident", "MiB", &[control.resident()?]);
    figures.tell("control plane, most it ever had resident", "MiB", &[control.peak()?]);
    Ok(())
}
