//! Instructions per packet, where the machine's clock counts them.

use crate::forms::{self, Form, Loaded, Work};
use anyhow::{Context as _, Result, bail};
use pointsman_bpf::test_run;
use serde::Serialize;
use std::os::fd::AsFd as _;
use std::process::Command;

const LENGTHS: [usize; 4] = [1, 2, 5, 10];
const REPEAT: u32 = 2000;
/// The interface that libxdp's chain is attached to.
const INTERFACE: &str = "pmbench0";

#[derive(Debug, Serialize)]
struct Row {
    form: &'static str,
    n: usize,
    instructions_per_packet: u32,
}

/// Counts all forms of chains of trivial members, and libxdp's dispatcher with the same members.
pub(crate) fn run(json: bool) -> Result<()> {
    let rounding = pointsman_bpf::probe()?.stack_rounding;
    for n in LENGTHS {
        for form in [Form::Bare, Form::Fused, Form::FusedCounted, Form::Called] {
            let loaded = forms::load(form, Work::Trivial, n, rounding)?;
            show(form.name(), n, || once(&loaded), json)?;
        }
        show("libxdp", n, libxdp(n)?, json)?;
        ip(&["link", "delete", INTERFACE])?;
    }
    Ok(())
}

fn show(form: &'static str, n: usize, count: impl Fn() -> Result<u32>, json: bool) -> Result<()> {
    // The smallest of several: a timer's interrupt is counted too.
    let mut least = u32::MAX;
    for _ in 0..7 {
        least = least.min(count()?);
    }
    let row = Row { form, n, instructions_per_packet: least };
    match json {
        true => println!("{}", serde_json::to_string(&row)?),
        false => println!("{form:<15} {n:>4} {least:>7}"),
    }
    Ok(())
}

fn once(loaded: &Loaded) -> Result<u32> {
    Ok(loaded.run(&crate::packet(), REPEAT)?.nanoseconds)
}

/// Attaches `n` members with xdp-loader and gives what runs the dispatcher it made.
fn libxdp(n: usize) -> Result<impl Fn() -> Result<u32>> {
    ip(&["link", "add", INTERFACE, "type", "veth", "peer", "name", "pmbench1"])?;
    let member = forms::path("member", Work::Trivial, 1);
    let mut load = Command::new("xdp-loader");
    load.args(["load", "--mode", "skb", INTERFACE]);
    load.args(std::iter::repeat_n(&member, n));
    let output = load.output().context("run xdp-loader: apt-get install xdp-tools")?;
    if !output.status.success() {
        bail!("xdp-loader: {}", String::from_utf8_lossy(&output.stderr));
    }
    let interface = pointsman_netdev::interfaces()?;
    let mut found = interface.into_iter().filter(|(name, _)| name.as_str() == INTERFACE);
    let attached = found.next().and_then(|(_, interface)| interface.xdp);
    let (id, _) = attached.context("xdp-loader attached nothing")?;
    let dispatcher = libbpf_rs::Program::fd_from_id(id)?;
    Ok(move || Ok(test_run(dispatcher.as_fd(), &crate::packet(), REPEAT, 0)?.nanoseconds))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status().context("run ip")?;
    if !status.success() {
        bail!("ip {} failed", arguments.join(" "));
    }
    Ok(())
}
