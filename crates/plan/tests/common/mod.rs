//! Programs, documents and plans as tests write and read them.
#![allow(dead_code, reason = "each test binary uses its part")]

use pointsman_fuse::layout::StackRounding;
use pointsman_model::facts::{
    InitialContents, MapDefinition, MapFacts, ProgramFacts, ProgramProblem,
};
use pointsman_model::observed::Observed;
use pointsman_model::plan::{Plan, ResolvedProgram};
use pointsman_model::{
    Document, EntryName, Fingerprint, HookId, InterfaceId, MapName, ProgramName, Sha256,
};
use pointsman_plan::simulator::Simulator;
use pointsman_plan::{Caps, Host, Options, Wanted, carry_out, plan};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

pub(crate) type Load = (ProgramName, Fingerprint);

/// The programs an operator has at hand, resolved and inspected.
pub(crate) struct Bench {
    pub(crate) programs: BTreeMap<ProgramName, Result<ResolvedProgram, ProgramProblem>>,
    pub(crate) facts: BTreeMap<Fingerprint, Result<ProgramFacts, ProgramProblem>>,
    pub(crate) caps: Caps,
    pub(crate) options: Options,
    pub(crate) bypassed: BTreeMap<HookId, String>,
}

impl Bench {
    /// With harmless programs `names`, each of version 1.
    pub(crate) fn with(names: &[&str]) -> Self {
        let mut bench = Self {
            programs: BTreeMap::new(),
            facts: BTreeMap::new(),
            caps: Caps {
                stack_rounding: StackRounding::To32,
                freplace: Err("the kernel refuses EXT".into()),
                page_size: 4096,
                cpus: 4,
            },
            options: Options::default(),
            bypassed: BTreeMap::new(),
        };
        for name in names {
            bench.program(name, 1);
        }
        bench
    }

    /// Puts a version of a program in place and gives its facts.
    pub(crate) fn program(&mut self, name: &str, version: u32) -> &mut ProgramFacts {
        let resolved = ResolvedProgram {
            object: Sha256::of(format!("{name} version {version}").as_bytes()),
            source: format!("/objects/{name}.o"),
            entry: None,
            globals: BTreeMap::new(),
            maps: BTreeMap::new(),
            on_upgrade: BTreeMap::new(),
        };
        let fingerprint = resolved.fingerprint();
        self.programs.insert(program(name), Ok(resolved));
        self.facts.insert(fingerprint.clone(), Ok(harmless(name)));
        self.facts.get_mut(&fingerprint).unwrap().as_mut().unwrap()
    }

    /// Sets a global variable of a program: 0 none, 1 a constant, 2 one in `.bss`.
    pub(crate) fn global(&mut self, name: &str, global: u32, mut facts: ProgramFacts) {
        let resolved = self.resolved(name);
        resolved.globals = [("global".to_owned(), json!(global))].into();
        if global == 0 {
            resolved.globals.clear();
        }
        let fingerprint = resolved.fingerprint();
        for map in facts.maps.iter_mut().filter(|map| global == 2 && map.name.as_str() == ".bss") {
            map.initial = InitialContents::Variables(Sha256::of(b"one"));
        }
        self.facts.insert(fingerprint, Ok(facts));
    }

    pub(crate) fn resolved(&mut self, name: &str) -> &mut ResolvedProgram {
        self.programs.get_mut(&program(name)).unwrap().as_mut().unwrap()
    }

    pub(crate) fn load(&self, name: &str) -> Load {
        let resolved = self.programs[&program(name)].as_ref().unwrap();
        (program(name), resolved.fingerprint())
    }

    /// Gives a map of a program entries, as many as `keys`.
    pub(crate) fn entries(&mut self, name: &str, map: &str, keys: &[u32]) {
        let entries = keys
            .iter()
            .map(|&key| pointsman_model::document::MapEntry { key: json!(key), value: json!(1) });
        self.resolved(name).maps.insert(MapName::new(map).unwrap(), entries.collect());
    }

    /// A document with all programs at hand and these interfaces.
    pub(crate) fn document(&self, generation: u64, interfaces: &Value) -> Document {
        let programs: BTreeMap<_, _> = self
            .programs
            .keys()
            .map(|name| (name.as_str(), json!({"builtin": "counting-pass"})))
            .collect();
        let text = json!({
            "schema": "pointsman.node/v1", "node": "edge-17", "generation": generation,
            "programs": programs, "interfaces": interfaces,
        });
        Document::parse(text.to_string().as_bytes()).unwrap()
    }

    pub(crate) fn plan(&self, document: &Document, host: &Simulator) -> Plan {
        self.plan_for(document, &host.observe())
    }

    pub(crate) fn plan_for(&self, document: &Document, observed: &Observed) -> Plan {
        let Self { programs, facts, bypassed, .. } = self;
        let wanted = Wanted { document, programs, facts, bypassed };
        plan(&wanted, observed, &self.caps, self.options)
    }

    /// Hands the objects over to the host.
    pub(crate) fn hand_over(&self, host: &mut Simulator) {
        for program in self.programs.values().flatten() {
            let load = program.fingerprint();
            if let Some(Ok(facts)) = self.facts.get(&load) {
                host.put_object(&load, program.object, &facts.maps);
            }
        }
    }

    /// Plans the interfaces, carries the plan out without a fault, and gives it.
    pub(crate) fn apply(&self, generation: u64, interfaces: &Value, host: &mut Simulator) -> Plan {
        let plan = self.plan(&self.document(generation, interfaces), host);
        self.hand_over(host);
        run(&plan, host);
        plan
    }
}

/// Carries out a plan of which every step must succeed.
pub(crate) fn run(plan: &Plan, host: &mut dyn Host) {
    for result in carry_out(plan, host, &mut || Duration::ZERO) {
        let expected = pointsman_model::api::StepOutcome::Done;
        assert_eq!(result.outcome, expected, "{}", result.step);
    }
}

/// One interface with a chain: `"10 ddos"` is a program with its priority.
pub(crate) fn chain(interface: &str, members: &[&str]) -> Value {
    let members: Vec<_> = members
        .iter()
        .map(|member| {
            let (priority, program) = member.split_once(' ').unwrap();
            json!({"priority": priority.parse::<u32>().unwrap(), "program": program})
        })
        .collect();
    json!({interface: {"xdp": {"chain": members}}})
}

/// A host with a native interface `eth0`.
pub(crate) fn host() -> Simulator {
    let mut host = Simulator::new();
    host.add_interface(&interface("eth0"), Some(true));
    host
}

pub(crate) fn interface(name: &str) -> InterfaceId {
    name.parse().unwrap()
}

pub(crate) fn hook(name: &str) -> HookId {
    HookId::xdp(interface(name))
}

pub(crate) fn program(name: &str) -> ProgramName {
    ProgramName::new(name).unwrap()
}

pub(crate) fn map_name(name: &str) -> MapName {
    MapName::new(name).unwrap()
}

pub(crate) fn map(name: &str) -> MapFacts {
    MapFacts {
        name: MapName::new(name).unwrap(),
        definition: MapDefinition {
            kind: "hash".into(),
            key_size: 4,
            value_size: 8,
            max_entries: 1024,
            key: Some("u32".into()),
            value: Some("u64".into()),
            ..MapDefinition::default()
        },
        initial: match name {
            ".rodata" => InitialContents::Constants,
            ".bss" => InitialContents::Variables(Sha256::of(b"zeros")),
            _ => InitialContents::Nothing,
        },
    }
}

/// A program that inlines and needs nothing.
pub(crate) fn harmless(name: &str) -> ProgramFacts {
    let entry: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    ProgramFacts {
        entry: EntryName::new(format!("{entry}_main")).unwrap(),
        tag: "0123456789abcdef".into(),
        main_instructions: 10,
        instructions: 10,
        verified_instructions: 10,
        main_stack: 16,
        called_stack: 0,
        tail_calls: false,
        tail_call_depth: None,
        frags: true,
        redirects: false,
        gpl_compatible: true,
        needs_gpl: false,
        side_effects: vec![],
        maps: vec![],
        used_maps: 0,
        unfusable: None,
    }
}

/// A plan as text: all that an operator is told.
pub(crate) fn show(plan: &Plan) -> String {
    let mut text = String::new();
    for diff in &plan.hooks {
        let names = |spec: &Option<pointsman_model::chain::ChainSpec>| match spec {
            Some(spec) => {
                let names: Vec<_> = spec.members.iter().map(|m| m.program.as_str()).collect();
                format!("[{}]", names.join(" "))
            }
            None => "none".to_owned(),
        };
        let mode = diff.mode.map_or("-".to_owned(), |mode| mode.to_string());
        let (before, after) = (names(&diff.before), names(&diff.after));
        writeln!(text, "{}: {:?} {before} -> {after} {mode}", diff.hook, diff.change).unwrap();
        if let Some(pending) = &diff.pending {
            writeln!(text, "  waits: {pending}").unwrap();
        }
    }
    for step in &plan.steps {
        writeln!(text, "step: {step}").unwrap();
    }
    for refusal in &plan.refusals {
        let program = refusal.program.as_ref().map_or("-", ProgramName::as_str);
        let hook = refusal.hook.as_ref().map_or("-".to_owned(), HookId::to_string);
        let (reason, pointer, message) = (refusal.reason, &refusal.pointer, &refusal.message);
        writeln!(text, "refused {hook} {program}: {reason} at {pointer}: {message}").unwrap();
        if let Some(log) = &refusal.log {
            writeln!(text, "log: {log}").unwrap();
        }
    }
    for note in &plan.notes {
        let program = note.program.as_ref().map_or("-", ProgramName::as_str);
        let hook = note.hook.as_ref().map_or("-".to_owned(), HookId::to_string);
        writeln!(text, "note {hook} {program}: {}", note.message).unwrap();
    }
    text
}

/// The plan without fingerprints, which mean nothing to a reader.
pub(crate) fn steps(plan: &Plan, bench: &Bench) -> String {
    let mut text = show(plan);
    let known = bench.programs.iter().filter(|(_, program)| program.is_ok());
    for (name, _) in known {
        let (_, fingerprint) = bench.load(name.as_str());
        text = text.replace(&format!(" ({fingerprint})"), "");
    }
    text
}
