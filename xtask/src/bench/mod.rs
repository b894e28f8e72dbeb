//! `cargo xtask bench`: figures, many times each, with their spread.

mod affected;
mod chain;
mod fleet;
mod imtl;
mod node;
mod stats;
mod vm;

use crate::workspace::Workspace;
use anyhow::Result;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
    /// Print one JSON object a row instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A chain's nanoseconds per packet, in all its forms. Needs root.
    Chain(chain::Options),
    /// Swaps under live frames: whether any is lost or goes past a member, and how long a swap
    /// takes. Needs root and two CPUs.
    Swap(chain::SwapOptions),
    /// Packets that an AF_XDP socket receives behind our chain, beside a bare XSKMAP program on the
    /// same veth. Needs root and two CPUs.
    Xsk(chain::XskOptions),
    /// Requests on libmtl's socket: how many a second, how long each takes, and the memory of keeper
    /// and daemon. Needs root.
    Imtl(imtl::Options),
    /// A chain's instructions per packet, beside libxdp's, counted exactly in an emulated machine
    /// with Debian's kernel; and how long adding a program takes there. Needs root.
    Vm(vm::Options),
    /// A fleet: publishes, polls, reports and memory of a control plane with many simulated nodes; or,
    /// with --latency, from a change of the API to packets on three real hosts, which needs root.
    Fleet(fleet::Options),
    /// The daemon: document to packets affected, no-op apply, idle memory. Needs root.
    Node(node::Options),
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    match &options.what {
        What::Chain(chain) => return chain::run(workspace, chain, options.json),
        What::Swap(swap) => return chain::swap(workspace, swap, options.json),
        What::Xsk(xsk) => return chain::xsk(workspace, xsk, options.json),
        What::Fleet(fleet) => return fleet::run(workspace, fleet, options.json),
        What::Imtl(imtl) => imtl::run(workspace, imtl, options.json)?,
        What::Vm(vm) => vm::run(workspace, vm, options.json)?,
        What::Node(node) => {
            let rows = node::measure(workspace, node)?;
            stats::print(&rows, options.json);
        }
    }
    Ok(ExitCode::SUCCESS)
}
