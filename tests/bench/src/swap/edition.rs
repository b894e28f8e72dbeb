//! The documents that follow one another: each differs from the one before in one way.

use crate::forms::{self, Work};
use anyhow::Result;
use pointsman_model::facts::ProgramProblem;
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{EntryName, ProgramName, Sha256};
use pointsman_netns::object;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Members that are in every chain; each counts what it sees in a map of its own.
const STEADY: usize = 8;
/// Members that come and go.
const CHANGING: usize = 4;

/// How many swaps of each kind there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Turns {
    /// To another order.
    pub(super) re_orders: usize,
    /// To a member with other globals, so with other code and new maps.
    pub(super) upgrades: usize,
    /// To another length.
    pub(super) length_changes: usize,
}

/// What all editions are made of.
pub(super) struct Material {
    parsing: ResolvedProgram,
    port: ResolvedProgram,
    sink: ResolvedProgram,
}

/// A chain of ten to fourteen programs: steady ones, one that is upgraded, some that come and go,
/// and one that drops all.
pub(super) struct Edition {
    pub(super) programs: BTreeMap<ProgramName, Result<ResolvedProgram, ProgramProblem>>,
    /// In the order they run.
    order: Vec<ProgramName>,
}

impl Material {
    /// The programs, and the bytes of their objects.
    pub(super) fn new() -> Result<(Self, Vec<Vec<u8>>)> {
        let parsing = std::fs::read(forms::path("member", Work::Parsing, 1))?;
        let verdict = object("verdict");
        let of = |bytes: &[u8], entry: Option<&str>| -> Result<ResolvedProgram> {
            let mut program = ResolvedProgram::new(Sha256::of(bytes), "bench");
            program.entry = entry.map(EntryName::new).transpose()?;
            Ok(program)
        };
        let material = Self {
            parsing: of(&parsing, None)?,
            port: of(&verdict, Some("v_port"))?,
            sink: of(&verdict, Some("v_drop"))?,
        };
        Ok((material, vec![parsing, verdict]))
    }

    /// The steady programs, by name.
    pub(super) fn steady(&self) -> Result<Vec<(ProgramName, ResolvedProgram)>> {
        (0..STEADY).map(|at| Ok((name("steady", at)?, self.parsing.clone()))).collect()
    }

    /// The edition after so many turns.
    pub(super) fn edition(&self, turns: &Turns) -> Result<Edition> {
        let mut members = self.steady()?;
        let mut port = self.port.clone();
        // Nobody sends to these ports.
        port.globals.insert("port".into(), json!(30_000 + turns.upgrades % 30_000));
        members.push((ProgramName::new("upgraded")?, port));
        for at in 0..turns.length_changes % (CHANGING + 1) {
            members.push((name("changing", at)?, self.parsing.clone()));
        }
        let length = members.len();
        members.rotate_left(turns.re_orders % length);
        members.push((ProgramName::new("sink")?, self.sink.clone()));
        let order = members.iter().map(|(name, _)| name.clone()).collect();
        let programs = members.into_iter().map(|(name, program)| (name, Ok(program))).collect();
        Ok(Edition { programs, order })
    }
}

impl Turns {
    /// One more turn, of another kind than the one before.
    pub(super) fn next(&mut self) {
        match self.total() % 3 {
            0 => self.re_orders += 1,
            1 => self.upgrades += 1,
            _ => self.length_changes += 1,
        }
    }

    fn total(&self) -> usize {
        self.re_orders + self.upgrades + self.length_changes
    }
}

impl Edition {
    /// The document that asks for it.
    pub(super) fn document(&self, generation: u64) -> Value {
        let programs = self.programs.keys().map(|name| {
            // Where the objects come from is settled already.
            (name.to_string(), json!({"object": {"path": "/bench.o"}}))
        });
        let programs: serde_json::Map<_, _> = programs.collect();
        let chain = self.order.iter().enumerate();
        let chain: Vec<_> =
            chain.map(|(at, name)| json!({"program": name, "priority": at})).collect();
        json!({"schema": "pointsman.node/v1", "node": "bench", "generation": generation,
            "programs": programs, "interfaces": {"v1": {"xdp": {"chain": chain}}}})
    }
}

fn name(kind: &str, at: usize) -> Result<ProgramName> {
    Ok(ProgramName::new(format!("{kind}-{at}"))?)
}
