//! Chains of slots in a store, put together in a few lines.

use crate::dispatcher::Stage;
use crate::members::{resolved, rounding};
use crate::netns::Netns;
use pointsman_bpf::dispatcher::Program;
use pointsman_bpf::{ChainMember, Error, MapHome, Member, Slot, Store};
use pointsman_fuse::layout::layout;
use pointsman_model::chain::{
    ChainId, ChainRecord, ChainSpec, Counted, MemberSpec, Sequence, SlotSpec,
};
use pointsman_model::observed::{AttachMode, Observed, ObservedHook};
use pointsman_model::plan::{Dispatch, OtherChange, ResolvedProgram};
use pointsman_model::{
    Action, ActionSet, EntryName, HookId, InterfaceId, InterfaceName, ProgramName,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A program of a test object with what an operator says about it.
#[derive(Debug, Clone)]
pub struct Part {
    /// The operator's name for it.
    pub name: &'static str,
    object: Vec<u8>,
    program: ResolvedProgram,
    priority: u32,
    actions: ActionSet,
    enforce: bool,
}

impl Part {
    /// A program that is enforced and goes on after PASS.
    #[must_use]
    pub fn new(name: &'static str, object: &str, entry: &str, priority: u32) -> Self {
        Self::with(name, object, entry, priority, Value::Null)
    }

    /// The same with globals.
    #[must_use]
    pub fn with(
        name: &'static str,
        object: &str,
        entry: &str,
        priority: u32,
        globals: Value,
    ) -> Self {
        let object = crate::object(object);
        let program = resolved(&object, entry, globals);
        Self { name, object, program, priority, actions: ActionSet::PASS, enforce: true }
    }

    /// The same, going on after other verdicts.
    #[must_use]
    pub fn on(self, actions: &[Action]) -> Self {
        Self { actions: actions.iter().copied().collect(), ..self }
    }

    /// The same, observed only.
    #[must_use]
    pub fn observed(self) -> Self {
        Self { enforce: false, ..self }
    }

    fn program_name(&self) -> ProgramName {
        ProgramName::new(self.name).expect("a name")
    }
}

/// What stands in one slot.
#[derive(Debug, Clone)]
pub enum In {
    /// One program by itself.
    Own(Part),
    /// Neighbours, fused.
    Shared(Vec<Part>),
}

impl In {
    fn parts(&self) -> &[Part] {
        match self {
            Self::Own(part) => std::slice::from_ref(part),
            Self::Shared(parts) => parts,
        }
    }
}

/// A store with chains for `v1` of a stage.
#[derive(Debug)]
pub struct Shelf<'a> {
    /// The store.
    pub store: Store,
    place: Place<'a>,
}

/// Where `v1` is.
#[derive(Debug)]
enum Place<'a> {
    /// Where this thread is, with this number.
    Here(u32),
    There(&'a Netns),
}

/// The hook of `v1`.
///
/// # Panics
/// Never.
#[must_use]
pub fn hook() -> HookId {
    HookId::xdp(InterfaceName::new("v1").expect("a name"))
}

impl<'a> Shelf<'a> {
    /// Opens the store of a stage, as a daemon that starts would.
    ///
    /// # Panics
    /// Another has it.
    #[must_use]
    pub fn open(stage: &'a Stage) -> Self {
        let place = Place::There(&stage.pair.right);
        Self { place, ..Self::inside(&Self::root(stage), 0) }
    }

    /// Opens the store at `root` in the namespace of `v1`, which has this number.
    ///
    /// # Panics
    /// Another has it.
    #[must_use]
    pub fn inside(root: &Path, index: u32) -> Self {
        Self { store: Store::open(root).expect("a store"), place: Place::Here(index) }
    }

    /// Where its pins are.
    #[must_use]
    pub fn root(stage: &Stage) -> PathBuf {
        stage.bpffs.path().join("pointsman")
    }

    /// Builds a chain with these slots, as a planner plans it.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Panics
    /// The programs do not work.
    pub fn build(&self, sequence: Sequence, slots: &[In]) -> Result<ChainId, Error> {
        let mut members = Vec::new();
        let mut specs = Vec::new();
        let mut frags = true;
        for slot in slots {
            let spec = self.slot(slot, &mut members);
            frags &= spec.frags;
            specs.push(spec);
        }
        let parts: Vec<_> = slots.iter().flat_map(In::parts).cloned().collect();
        self.pin(sequence, ChainSpec { members, frags, slots: specs }, &parts)
    }

    /// Builds a chain that is one program.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Panics
    /// The programs do not work.
    pub fn build_fused(&self, sequence: Sequence, parts: &[Part]) -> Result<ChainId, Error> {
        let mut members = Vec::new();
        let SlotSpec { frags, .. } = self.slot(&In::Shared(parts.to_vec()), &mut members);
        self.pin(sequence, ChainSpec { members, frags, slots: Vec::new() }, parts)
    }

    fn pin(&self, sequence: Sequence, spec: ChainSpec, parts: &[Part]) -> Result<ChainId, Error> {
        let record = ChainRecord { generation: sequence, spec };
        let chain = ChainId { hook: hook(), sequence };
        let members = parts.iter().map(|part| ChainMember {
            program: &part.program,
            object: part.object.clone(),
            known: None,
        });
        self.store.build_chain(&chain, &record, &members.collect::<Vec<_>>(), rounding())?;
        Ok(chain)
    }

    fn slot(&self, slot: &In, specs: &mut Vec<MemberSpec>) -> SlotSpec {
        let parts = slot.parts();
        let mut members = Vec::new();
        for part in parts {
            let (name, program, none) = (part.program_name(), &part.program, BTreeMap::new());
            self.store
                .prepare_program(&name, program, &part.object, rounding(), None, &none)
                .expect("prepared");
            let maps = MapHome::Pinned(self.store.map_directory(&name, &program.fingerprint()));
            let member = Member::prepare(&part.object, program, &maps, rounding(), None);
            members.push(member.expect("a member"));
        }
        let named: Vec<_> =
            parts.iter().zip(&members).map(|(part, it)| (part.name, it.facts())).collect();
        let layout = layout(&named, rounding()).expect("they fit");
        for ((part, member), &form) in parts.iter().zip(&members).zip(&layout.forms) {
            specs.push(MemberSpec {
                program: part.program_name(),
                fingerprint: part.program.fingerprint(),
                object: part.program.object,
                source: part.program.source.clone(),
                entry: EntryName::new(member.entry()).expect("an entry"),
                tag: member.facts().tag.clone(),
                priority: part.priority,
                chain_call_actions: part.actions,
                enforce: part.enforce,
                form,
            });
        }
        let places: Vec<_> = parts
            .iter()
            .zip(&members)
            .map(|(part, member)| Slot {
                name: part.name,
                member,
                actions: part.actions,
                enforce: part.enforce,
                priority: part.priority,
            })
            .collect();
        let own = matches!(slot, In::Own(_));
        let name = members.first().map_or("pointsman_empty", |member| member.entry());
        let program = Program::slot(name, &places, own, rounding()).expect("fused");
        SlotSpec {
            members: parts.len(),
            own,
            name: EntryName::new(name).expect("an entry"),
            priority: parts.first().map_or(50, |part| part.priority),
            actions: program.answer().expect("a fused program").actions,
            frags: layout.frags,
        }
    }

    /// The dispatcher on `v1`, and what becomes of the programs of others.
    #[must_use]
    pub fn place(&self, others: Vec<OtherChange>) -> Dispatch {
        let interface = InterfaceId::from(InterfaceName::new("v1").expect("a name"));
        let interface_index = match self.place {
            Place::Here(index) => index,
            Place::There(netns) => netns.index("v1"),
        };
        Dispatch { interface, interface_index, company: false, others }
    }

    /// Puts a chain into the dispatcher: the first with a mode.
    ///
    /// # Errors
    /// The store's.
    pub fn dispatch(&self, chain: &ChainId, mode: Option<AttachMode>) -> Result<(), Error> {
        let place = self.place(Vec::new());
        self.here(|| self.store.dispatch(chain, &place, mode))
    }

    /// Takes our slots out.
    ///
    /// # Errors
    /// The store's.
    pub fn withdraw(&self) -> Result<(), Error> {
        let place = self.place(Vec::new());
        self.here(|| self.store.withdraw(&hook(), &place, false))
    }

    /// Takes them out for a moment, and the dispatcher with them.
    ///
    /// # Errors
    /// The store's.
    pub fn withdraw_alone(&self) -> Result<(), Error> {
        let place = self.place(Vec::new());
        self.here(|| self.store.withdraw(&hook(), &place, true))
    }

    fn here<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self.place {
            Place::Here(_) => work(),
            Place::There(netns) => netns.run(work),
        }
    }

    /// What a look finds of our hook, from outside the namespace of `v1`.
    ///
    /// # Panics
    /// The pins cannot be read.
    #[must_use]
    pub fn look(&self) -> ObservedHook {
        let hooks = self.store.hooks().expect("hooks");
        let mut observed = Observed { hooks, ..Observed::default() };
        observed.find_slots();
        self.store.settle(&mut observed.hooks);
        observed.hooks.remove(&hook()).unwrap_or_default()
    }

    /// What a program has answered, over all chains, and how many packets passed their end.
    ///
    /// # Panics
    /// The counters cannot be read.
    #[must_use]
    pub fn counted(&self, program: &str) -> (Counted, u64) {
        let counts = self.store.counts(&hook()).expect("counts");
        let name = ProgramName::new(program).expect("a name");
        let before = counts.totals.programs.get(&name).copied().unwrap_or_default();
        let Some((_, record, exits)) = counts.live else { return (before, counts.totals.end) };
        let at = record.spec.members.iter().position(|member| member.program == name);
        let now = at.map(|at| record.spec.counted(&exits)[at]).unwrap_or_default();
        (before + now, counts.totals.end + record.spec.passed_end(&exits))
    }
}
