//! How long it takes to add a program to a chain of nine: libxdp's tool, our library in a process
//! that runs already, and our tool, which is a new process as well.

use crate::forms::{self, Work};
use anyhow::{Context as _, Result, bail};
use pointsman_bpf::dispatcher::{Attached, Dispatcher, Options, Pick, Program, Wanted};
use pointsman_model::ActionSet;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The interface that the chain is attached to.
const INTERFACE: &str = "pmbench0";
/// How many programs are there.
const THERE: usize = 9;
/// What the added one has, to be told from the others.
const PRIORITY: u32 = 99;
/// How often each is timed; the figure is the median.
const ROUNDS: usize = 21;

#[derive(Debug, Serialize)]
struct Row {
    form: &'static str,
    n: usize,
    milliseconds: f64,
}

/// Times all of them in turn, so that whatever else the machine does hits all alike. `tool` is
/// `pointsman`.
pub(crate) fn run(tool: &Path, json: bool) -> Result<()> {
    crate::ip(&["link", "add", INTERFACE, "type", "veth", "peer", "name", "pmbench1"])?;
    let timed = timed(tool);
    let deleted = crate::ip(&["link", "delete", INTERFACE]);
    for (form, mut samples) in timed? {
        samples.sort();
        let milliseconds = samples[samples.len() / 2].as_secs_f64() * 1e3;
        let row = Row { form, n: THERE, milliseconds };
        match json {
            true => println!("{}", serde_json::to_string(&row)?),
            false => println!("{form:<24} {THERE:>4} {milliseconds:>9.1} ms"),
        }
    }
    deleted
}

type Add<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

fn timed(tool: &Path) -> Result<Vec<(&'static str, Vec<Duration>)>> {
    let member = forms::path("member", Work::Trivial, 1);
    let mut nine = Command::new("xdp-loader");
    succeeds(nine.args(["load", INTERFACE]).args(std::iter::repeat_n(&member, THERE)))?;
    let index = pointsman_bpf::interface_index(INTERFACE)?;
    let dispatcher = Dispatcher::at(Path::new("/sys/fs/bpf"));
    let load = |program: &Path, verbs: &[&str]| {
        let mut command = Command::new(program);
        command.args(verbs).arg("-P").arg(PRIORITY.to_string()).arg(INTERFACE).arg(&member);
        command
    };
    let mut theirs = load(Path::new("xdp-loader"), &["load"]);
    let mut tool = load(tool, &["xdp-loader", "load"]);
    let ours = || {
        let bytes = std::fs::read(&member)?;
        let program = Program::open(&bytes, Pick::First, &BTreeMap::new(), None)?;
        let wanted = Wanted::new(&program, PRIORITY, ActionSet::PASS.into());
        dispatcher.add(index, &Options::default(), &[wanted])?;
        Ok(())
    };
    let mut ways: [(&str, Add<'_>, Vec<Duration>); 3] = [
        ("add_to_nine_xdp_loader", Box::new(|| succeeds(&mut theirs)), vec![]),
        ("add_to_nine_ours", Box::new(ours), vec![]),
        ("add_to_nine_tool", Box::new(|| succeeds(&mut tool)), vec![]),
    ];
    // The first round warms up.
    for round in 0..=ROUNDS {
        for (form, add, samples) in &mut ways {
            let start = Instant::now();
            add().with_context(|| (*form).to_owned())?;
            let taken = start.elapsed();
            remove(&dispatcher, index)?;
            if round > 0 {
                samples.push(taken);
            }
        }
    }
    Ok(ways.into_iter().map(|(form, _, samples)| (form, samples)).collect())
}

/// Removes what was added, and nothing else may have been.
fn remove(dispatcher: &Dispatcher, index: u32) -> Result<()> {
    let Attached::Chain(chain) = dispatcher.read(index)? else { bail!("no chain is attached") };
    match chain.components.as_slice() {
        [nine @ .., added] if nine.len() == THERE && added.priority == PRIORITY => {
            dispatcher.remove(index, &Options::default(), &[added.id])?;
            Ok(())
        }
        _ => bail!("nothing was added, or not as the last of ten: {chain:?}"),
    }
}

fn succeeds(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
