//! Instructions per packet, where the machine's clock counts them.

use crate::forms::{self, Form, Loaded, Work};
use crate::ip;
use anyhow::{Context as _, Result, bail};
use pointsman_bpf::dispatcher::{self, Dispatcher, Mode, Options, Pick, Program, Version, Wanted};
use pointsman_bpf::{MapHome, Member, Slot, test_run};
use pointsman_fuse::layout::StackRounding;
use pointsman_model::observed::AttachMode;
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{ActionSet, Sha256};
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;
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

/// Counts all forms of chains of trivial members; libxdp's dispatcher and ours with the same
/// members, and ours with all of them in one slot.
pub(crate) fn run(json: bool) -> Result<()> {
    let rounding = pointsman_bpf::probe()?.stack_rounding;
    for n in LENGTHS {
        for form in [Form::Bare, Form::Fused, Form::FusedCounted, Form::Called] {
            let loaded = forms::load(form, Work::Trivial, n, rounding)?;
            show(form.name(), n, || once(&loaded), json)?;
        }
        show("libxdp", n, libxdp(n)?, json)?;
        ip(&["link", "delete", INTERFACE])?;
        show("dispatcher", n, ours(&own_slots(n)?)?, json)?;
        ip(&["link", "delete", INTERFACE])?;
        show("fused_slot", n, ours(&[one_slot(n, rounding)?])?, json)?;
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
    attached()
}

/// What runs the program that is attached to the interface.
fn attached() -> Result<impl Fn() -> Result<u32>> {
    let hook = dispatcher::hook(pointsman_bpf::interface_index(INTERFACE)?)?;
    let (id, _) = hook.software.context("nothing is attached")?;
    let program = libbpf_rs::Program::fd_from_id(id)?;
    Ok(move || Ok(test_run(program.as_fd(), &crate::packet(), REPEAT, 0)?.nanoseconds))
}

/// Attaches programs in our dispatcher and gives what runs it. A lone program runs in its place,
/// as in libxdp's.
fn ours(programs: &[Program]) -> Result<impl Fn() -> Result<u32>> {
    ip(&["link", "add", INTERFACE, "type", "veth", "peer", "name", "pmbench1"])?;
    let index = pointsman_bpf::interface_index(INTERFACE)?;
    let actions = ActionSet::PASS.into();
    let wanted: Vec<_> = programs.iter().map(|p| Wanted::new(p, 50, actions)).collect();
    let options = Options { mode: Mode::Exactly(AttachMode::Skb), ..Options::default() };
    let bpffs = Dispatcher::at(Path::new("/sys/fs/bpf")).with_version(Version::V2);
    bpffs.add(index, &options, &wanted)?;
    attached()
}

/// Each member in a slot of its own.
fn own_slots(n: usize) -> Result<Vec<Program>> {
    let bytes = std::fs::read(forms::path("member", Work::Trivial, 1))?;
    let program = |_| Program::open(&bytes, Pick::Only, &BTreeMap::new(), None);
    Ok((0..n).map(program).collect::<Result<_, _>>()?)
}

/// All members fused in one slot.
fn one_slot(n: usize, rounding: StackRounding) -> Result<Program> {
    let bytes = std::fs::read(forms::path("member", Work::Trivial, 1))?;
    let program = ResolvedProgram::new(Sha256::of(&bytes), "bench");
    let prepare = |_| Member::prepare(&bytes, &program, &MapHome::Anonymous, rounding, None);
    let members: Vec<_> = (0..n).map(prepare).collect::<Result<_, _>>()?;
    let slots: Vec<_> = members.iter().map(|member| Slot::new("member", member)).collect();
    Ok(Program::fuse(&slots, rounding, true)?)
}
