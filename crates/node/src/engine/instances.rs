//! What instances need beside the document in force, and what they are told of it.

use super::Engine;
use crate::host::{OpenMap, Scope};
use crate::state::Edition;
use pointsman_bpf::PORTS_OF_INSTANCES;
use pointsman_model::api::Problem;
use pointsman_model::chain::ChainRecord;
use pointsman_model::document::{AccessSpec, InstanceProgram, InterfaceSpec, LcoresSpec, Mode};
use pointsman_model::lease::Place;
use pointsman_model::observed::Observed;
use pointsman_model::plan::RefusalReason;
use pointsman_model::{Document, HookId, InterfaceId, NodeName, Sha256};
use pointsman_plan::instances::{
    Demands, LeftOut, demands_of, effective, is_for_instances, only_for_instances,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

/// What instances want, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Instances {
    demands: Demands,
    revision: u64,
    /// What they want cannot be known: what runs for them stays as it is.
    unknown: bool,
    /// The hooks of the interfaces that they want, as of the last document.
    hooks: BTreeMap<Place, HookId>,
    left_out: BTreeMap<Place, LeftOut>,
    /// Interfaces that no document names, and whose drivers turned out to have no native XDP: before
    /// Linux 6.3 that shows when a program is attached.
    skb: BTreeSet<Place>,
    /// Chains for them run although nobody wants them any more, and no document is in force.
    leftover: bool,
    /// Something may be otherwise than they were told.
    news: bool,
    tell: Option<TellServed>,
}

/// Is told what instances get.
pub struct TellServed(Box<dyn Fn(Served) + Send>);

impl fmt::Debug for TellServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TellServed")
    }
}

/// What instances get on the interfaces that they want.
#[derive(Debug)]
pub struct Served {
    /// The newest demands that this answers.
    pub revision: u64,
    /// By interface: the maps of its chain, or why there is none.
    pub places: BTreeMap<Place, Result<Maps, String>>,
}

/// The maps of the programs that instances have in a chain.
#[derive(Debug)]
pub struct Maps {
    /// The interface, as it is called now.
    pub interface: InterfaceId,
    /// The file of its network namespace; `None`: the daemon's.
    pub namespace: Option<PathBuf>,
    /// Which ports go on to sockets; `None`: the chain is bypassed.
    pub ports: Option<OpenMap>,
    /// Which sockets each queue has; likewise.
    pub owners: Option<OpenMap>,
}

/// Which hooks an edition decides about.
pub(super) enum Mine {
    All,
    These(BTreeSet<HookId>),
}

impl Mine {
    pub(super) fn has(&self, hook: &HookId) -> bool {
        match self {
            Self::All => true,
            Self::These(hooks) => hooks.contains(hook),
        }
    }
}

/// Whether somebody applied it: else it stands for no document, under which instances alone have
/// programs.
pub(super) fn is_accepted(edition: &Edition) -> bool {
    edition.generation > 0
}

fn bare() -> Edition {
    let node = NodeName::new("none").expect("invariant: a valid name");
    Edition { node, generation: 0, document: Sha256::of(b""), objects: BTreeMap::new() }
}

impl Engine {
    /// The engine that starts with what instances want; `None`: that cannot be known.
    #[must_use]
    pub fn demanding(mut self, demands: Option<Demands>) -> Self {
        self.instances.unknown = demands.is_none();
        self.instances.demands = demands.unwrap_or_default();
        self
    }

    /// The engine with somebody who is told what instances get.
    #[must_use]
    pub fn telling_served(mut self, tell: impl Fn(Served) + Send + 'static) -> Self {
        self.instances.tell = Some(TellServed(Box::new(tell)));
        self
    }

    /// What is to be carried out: the document in force, or, where none was ever accepted and
    /// instances want something, none.
    pub(super) fn edition(&self) -> Option<Edition> {
        let (state, instances) = (self.state.state(), &self.instances);
        if state.drained {
            return None;
        }
        let some = !instances.demands.is_empty()
            || !instances.hooks.is_empty()
            || instances.leftover
            || instances.unknown;
        state.current.clone().or_else(|| some.then(bare))
    }

    /// The document of an edition with what instances need.
    pub(super) fn wanted_document(&mut self, edition: &Edition) -> Result<Document, String> {
        let document = match is_accepted(edition) {
            true => self.accepted_document(edition)?,
            false => Document {
                node: edition.node.clone(),
                generation: 0,
                allow_empty: true,
                programs: BTreeMap::new(),
                namespaces: BTreeMap::new(),
                interfaces: BTreeMap::new(),
                lcores: LcoresSpec::default(),
                access: AccessSpec::default(),
            },
        };
        self.with_instances(document).map_err(|problem| problem.title)
    }

    /// Adds what instances need to a document.
    pub(super) fn with_instances(&mut self, document: Document) -> Result<Document, Problem> {
        if self.instances.demands.is_empty() && !self.instances.unknown {
            self.instances.hooks.clear();
            self.instances.left_out.clear();
            return Ok(document);
        }
        let mut scope = Scope::of(&document);
        let places = self.instances.demands.keys();
        let hooks: Vec<_> = places.filter_map(any_hook).collect();
        self.add(hooks.iter(), &mut scope.namespaces);
        let observed = self.observe(&scope)?;
        if self.instances.unknown {
            self.instances.demands = demands_of(&observed);
        }
        let numbers = observed.interfaces.iter().map(|(id, it)| (id.clone(), it.index)).collect();
        let has_chain = |(_, spec): &(&InterfaceId, &InterfaceSpec)| spec.xdp.is_some();
        let operators = document.interfaces.iter().filter(has_chain);
        let operators: BTreeSet<_> = operators.map(|(name, _)| name.clone()).collect();
        let mut found = effective(document, self.instances.demands.keys(), &numbers);
        for (_, hook) in found.hooks.iter().filter(|(it, _)| self.instances.skb.contains(it)) {
            let spec = found.document.interfaces.get_mut(&hook.interface);
            let xdp = spec.and_then(|spec| spec.xdp.as_mut());
            // Where an operator has a chain, its mode is his.
            if let Some(xdp) = xdp.filter(|_| !operators.contains(&hook.interface)) {
                xdp.mode = Mode::Skb;
            }
        }
        self.instances.hooks = found.hooks;
        self.instances.left_out = found.left_out;
        Ok(found.document)
    }

    /// Which hooks an edition decides about. Where no document was accepted, what others than
    /// instances have stays as it is.
    pub(super) fn mine(&self, edition: &Edition, observed: &Observed) -> Mine {
        if is_accepted(edition) {
            return Mine::All;
        }
        let mut hooks = only_for_instances(observed);
        let wanted = self.instances.hooks.values();
        hooks.extend(wanted.filter(|hook| !has_unknown(hook, observed)).cloned());
        Mine::These(hooks)
    }

    /// Carries out what instances want where no document was accepted.
    pub(super) fn serve_instances(&mut self) {
        self.instances.leftover = self.has_leftovers();
        self.check(Instant::now());
        self.instances.leftover = self.has_leftovers();
    }

    /// Whether chains run for instances although nobody wants them, and no document is in force that
    /// would be carried out without them.
    fn has_leftovers(&mut self) -> bool {
        if self.state.state().current.is_some() || !self.instances.demands.is_empty() {
            return false;
        }
        let observed = self.observe(&Scope::default());
        observed.is_ok_and(|observed| !only_for_instances(&observed).is_empty())
    }

    /// Instances want something else than before.
    pub(super) fn demand(&mut self, demands: Demands, revision: u64) {
        self.instances.unknown = false;
        let before = std::mem::replace(&mut self.instances.demands, demands);
        self.instances.revision = revision;
        self.instances.news = true;
        let of = |demands: &Demands| demands.keys().cloned().collect::<BTreeSet<_>>();
        let (before, now) = (of(&before), of(&self.instances.demands));
        let changed: Vec<_> = before.symmetric_difference(&now).collect();
        // With the last one the chains go, also where nothing else wants any.
        self.instances.leftover = self.has_leftovers();
        if changed.is_empty() || self.edition().is_none() {
            return;
        }
        let hooks = self.instances.hooks.clone();
        let known = changed.iter().filter_map(|place| hooks.get(place));
        // What changes here is not what somebody else did.
        known.for_each(|hook| self.drifts.forget_one(hook));
        self.forget_new(&now);
        self.seen = None;
        self.check(Instant::now());
        self.fall_back(&now);
        self.instances.leftover = self.has_leftovers();
        let wanted = &self.last.wanted;
        self.last.hooks.retain(|diff| wanted.contains(&diff.hook));
        self.last.refusals.retain(|it| it.hook.as_ref().is_none_or(|hook| wanted.contains(hook)));
        self.last.warnings.retain(|warning| wanted.contains(&warning.hook));
    }

    /// Tries interfaces in skb mode whose chain could not be attached otherwise. `wanted`: all.
    fn fall_back(&mut self, wanted: &BTreeSet<Place>) {
        self.instances.skb.retain(|place| wanted.contains(place));
        let failed = |hook: &HookId| {
            let mut refusals = self.last.refusals.iter();
            refusals
                .any(|it| it.reason == RefusalReason::StepFailed && it.hook.as_ref() == Some(hook))
        };
        let hooks = self.instances.hooks.iter();
        let failed: BTreeSet<_> = hooks
            .filter(|(place, hook)| !self.instances.skb.contains(place) && failed(hook))
            .map(|(place, _)| place.clone())
            .collect();
        if !failed.is_empty() {
            self.instances.skb.extend(failed);
            self.seen = None;
            self.check(Instant::now());
        }
    }

    /// The same for hooks that are wanted from now on.
    fn forget_new(&mut self, now: &BTreeSet<Place>) {
        let known = self.instances.hooks.clone();
        let Some(edition) = self.edition() else { return };
        if self.wanted_document(&edition).is_ok() {
            let hooks = self.instances.hooks.iter();
            let new = hooks.filter(|(place, _)| now.contains(place) && !known.contains_key(place));
            let new: Vec<_> = new.map(|(_, hook)| hook.clone()).collect();
            new.iter().for_each(|hook| self.drifts.forget_one(hook));
        }
    }

    /// Something was done to chains: instances may have to be told.
    pub(super) fn chains_changed(&mut self) {
        self.instances.news = true;
    }

    /// Tells what instances get, if that may be otherwise than they were told.
    pub(super) fn tell_served(&mut self) {
        if self.instances.tell.is_none() || !std::mem::take(&mut self.instances.news) {
            return;
        }
        let places: Vec<_> = self.instances.demands.keys().cloned().collect();
        let observed = if places.is_empty() {
            Ok(Observed::default())
        } else {
            let scope = self.last.scope.clone();
            self.observe(&scope).map_err(|problem| problem.title)
        };
        let serve = |place: Place| {
            let served = match &observed {
                Ok(observed) => self.served(&place, observed),
                Err(why) => Err(why.clone()),
            };
            (place, served)
        };
        let places = places.into_iter().map(serve).collect();
        let served = Served { revision: self.instances.revision, places };
        if let Some(TellServed(tell)) = &self.instances.tell {
            tell(served);
        }
    }

    fn served(&mut self, place: &Place, observed: &Observed) -> Result<Maps, String> {
        if self.state.state().drained {
            return Err("the node is drained: apply a document to end that".into());
        }
        if let Some(why) = self.instances.left_out.get(place) {
            return Err(format!("{place}: {why}"));
        }
        let hook = self.instances.hooks.get(place).cloned();
        let hook = hook.ok_or_else(|| match &self.blind {
            Some(why) => why.clone(),
            None => format!("{place} could not be looked at"),
        })?;
        let namespace = hook.interface.namespace.as_ref();
        let namespace = namespace.and_then(|name| self.last.scope.namespaces.get(name));
        let mut maps = Maps {
            interface: hook.interface.clone(),
            namespace: namespace.map(pointsman_model::document::NamespaceSpec::path),
            ports: None,
            owners: None,
        };
        if self.state.state().bypass(&hook).is_some() {
            return Ok(maps);
        }
        let pins = observed.hooks.get(&hook);
        let record = pins.and_then(|pins| pins.live()?.1.record.as_ref());
        let mut ports = |map| self.map_of(record, InstanceProgram::PortFilter, map);
        // The built-in filter is there where an operator has placed it under the name of ours.
        maps.ports = match ports("ports")? {
            Some(map) => Some(map),
            None => ports(PORTS_OF_INSTANCES)?,
        };
        maps.owners = self.map_of(record, InstanceProgram::Redirect, "owners")?;
        if maps.ports.is_some() && maps.owners.is_some() {
            return Ok(maps);
        }
        if has_unknown(&hook, observed) && self.state.state().current.is_none() {
            return Err(format!(
                "a chain of a document that is not known runs on {hook}: apply the document again"
            ));
        }
        let refusals = self.last.refusals.iter();
        let refusal = refusals.filter(|refusal| {
            let program = refusal.program.as_ref().map(pointsman_model::ProgramName::as_str);
            refusal.hook.as_ref() == Some(&hook)
                || refusal.hook.is_none() && program.is_some_and(is_name_of_ours)
        });
        let why = refusal.map(|refusal| refusal.message.clone()).next();
        let why = why.or_else(|| self.last.pending(&hook).cloned());
        Err(why.unwrap_or_else(|| {
            format!("the programs of instances do not run on {hook}, or have no maps of theirs")
        }))
    }

    /// A map of the member that has the entry function of `program`, whoever placed it there.
    fn map_of(
        &mut self,
        record: Option<&ChainRecord>,
        program: InstanceProgram,
        map: &str,
    ) -> Result<Option<OpenMap>, String> {
        let mut members = record.into_iter().flat_map(|record| &record.spec.members);
        let ours = members.clone().find(|member| {
            is_for_instances(member) && {
                InstanceProgram::of_source(&member.source) == Some(program)
            }
        });
        let placed = || members.find(|member| member.program.as_str() == program.entry());
        let Some(member) = ours.or_else(placed) else { return Ok(None) };
        let opened = self.kernel.open_map(&member.program, &member.fingerprint, map);
        opened.map_err(|error| error.to_string())
    }
}

fn is_name_of_ours(program: &str) -> bool {
    InstanceProgram::ALL.iter().any(|ours| program.starts_with(ours.entry()))
}

/// Whether a chain runs there in which others than instances have programs.
fn has_unknown(hook: &HookId, observed: &Observed) -> bool {
    let live = observed.hooks.get(hook).and_then(|pins| pins.live());
    live.is_some_and(|(_, chain)| match &chain.record {
        Some(record) => !record.spec.members.iter().all(is_for_instances),
        None => true,
    })
}

/// Any hook in the namespace of a place, to find the namespace by.
fn any_hook(place: &Place) -> Option<HookId> {
    let namespace = Some(place.namespace.clone()?);
    let name = pointsman_model::InterfaceName::new("lo").ok()?;
    Some(HookId::xdp(InterfaceId { namespace, name }))
}
