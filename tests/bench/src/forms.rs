//! The same chain in its forms, each a loaded program.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use libbpf_rs::{MapCore as _, MapFlags, Object, ObjectBuilder, OpenObject};
use pointsman_bpf::{Chain, MapHome, Member, Slot, TestRun, test_run};
use pointsman_fuse::layout::{ContextHome, StackRounding, layout};
use pointsman_model::chain::Form as Built;
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{ActionSet, Sha256};
use serde::Serialize;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;

/// How a chain is made of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Form {
    /// One member alone, whatever the length: what nothing can be cheaper than.
    Bare,
    /// One program written by hand that does the work of all.
    Merged,
    /// Fused, members inlined, nothing counted.
    Fused,
    /// Fused, members inlined, every packet counted: what is used.
    FusedCounted,
    /// Fused, members called, every packet counted: what a dispatcher pays too.
    Called,
    /// Each member tail-calls the next.
    TailCall,
}

impl Form {
    pub(crate) const ALL: [Self; 6] =
        [Self::Bare, Self::Merged, Self::Fused, Self::FusedCounted, Self::Called, Self::TailCall];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Merged => "merged",
            Self::Fused => "fused",
            Self::FusedCounted => "fused_counted",
            Self::Called => "called",
            Self::TailCall => "tail_call",
        }
    }
}

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// Gives a verdict that the verifier cannot know.
    Trivial,
    /// Parses to UDP and bumps a per-CPU map.
    Parsing,
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trivial => "trivial",
            Self::Parsing => "parsing",
        }
    }
}

/// A loaded chain. Holds what keeps it alive.
pub(crate) enum Loaded {
    Fused(Chain),
    Plain(Vec<Object>),
}

impl Loaded {
    /// Runs it on a packet.
    pub(crate) fn run(&self, packet: &[u8], repeat: u32) -> Result<TestRun> {
        match self {
            Self::Fused(chain) => Ok(test_run(chain.program(), packet, repeat, 0)?),
            Self::Plain(objects) => {
                let first = objects.first().and_then(|object| object.progs().next());
                let program = first.context("an object without a program")?;
                Ok(test_run(program.as_fd(), packet, repeat, 0)?)
            }
        }
    }
}

/// Loads a chain of `length` members of `work` in `form`.
pub(crate) fn load(
    form: Form,
    work: Work,
    length: usize,
    rounding: StackRounding,
) -> Result<Loaded> {
    match form {
        Form::Bare => plain("member", work, 1),
        Form::Merged => plain("merged", work, length),
        Form::TailCall => tail_calls(work, length),
        Form::Fused => fused(work, length, rounding, false, false),
        Form::FusedCounted => fused(work, length, rounding, false, true),
        Form::Called => fused(work, length, rounding, true, true),
    }
}

pub(crate) fn path(source: &str, work: Work, count: usize) -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join(format!("{source}-{}-{count}.o", work.name()))
}

fn open(source: &str, work: Work, count: usize) -> Result<OpenObject> {
    let path = path(source, work, count);
    ObjectBuilder::default().open_file(&path).with_context(|| path.display().to_string())
}

fn plain(source: &str, work: Work, count: usize) -> Result<Loaded> {
    let object = open(source, work, count)?.load();
    let object = object.with_context(|| format!("load {}", path(source, work, count).display()))?;
    Ok(Loaded::Plain(vec![object]))
}

/// The first program's array is shared by all, and filled with all.
fn tail_calls(work: Work, length: usize) -> Result<Loaded> {
    let mut objects: Vec<Object> = Vec::with_capacity(length);
    for place in 0..length {
        let mut object = open("tailcalls", work, length)?;
        for mut map in object.maps_mut() {
            match map.name().to_str() {
                Some("next") => {
                    if let Some(first) = objects.first() {
                        let next = first.maps().find(|map| map.name() == "next");
                        map.reuse_fd(next.context("the program array")?.as_fd())?;
                    }
                }
                Some(name) if name.ends_with(".rodata") => {
                    let value = map.initial_value_mut().context("a section with values")?;
                    value[..4].copy_from_slice(&(place as u32).to_ne_bytes());
                }
                _ => {}
            }
        }
        let object = object.load();
        objects.push(object.with_context(|| format!("load the program at place {place}"))?);
    }
    let next = objects[0].maps().find(|map| map.name() == "next").context("the program array")?;
    for (place, object) in objects.iter().enumerate() {
        let program = object.progs().next().context("a program")?;
        let fd = program.as_fd().as_raw_fd().to_ne_bytes();
        next.update(&(place as u32).to_ne_bytes(), &fd, MapFlags::ANY)?;
    }
    Ok(Loaded::Plain(objects))
}

fn fused(
    work: Work,
    length: usize,
    rounding: StackRounding,
    called: bool,
    counted: bool,
) -> Result<Loaded> {
    let bytes = std::fs::read(path("member", work, 1))?;
    let program = ResolvedProgram::new(Sha256::of(&bytes), "bench");
    let member = || Member::prepare(&bytes, &program, &MapHome::Anonymous, rounding, None);
    // Each with a map of its own, as long as one program may refer to so many (64).
    let distinct = length.min(32);
    let members: Vec<_> = (0..distinct).map(|_| member()).collect::<Result<_, _>>()?;
    let slots: Vec<_> = (0..length)
        .map(|at| Slot {
            name: "member",
            member: &members[at % distinct],
            actions: ActionSet::PASS,
            enforce: true,
            priority: at as u32,
        })
        .collect();
    let named: Vec<_> = members.iter().map(|member| ("member", member.facts())).collect();
    let mut layout = layout(&named, rounding)?;
    layout.forms.resize(length, Built::Inlined);
    if called {
        layout.forms.fill(Built::Called);
        layout.context = if length < 2 { ContextHome::Nowhere } else { ContextHome::R6 };
    }
    Ok(Loaded::Fused(Chain::fuse_as(&slots, layout, counted)?))
}
