//! Looks at the interfaces of the daemon's network namespace, and into others.

use crate::dispatchers::Dispatchers;
use crate::host::{KernelError, Scope};
use pointsman_bpf::dispatcher::Dispatcher;
use pointsman_model::api::Check;
use pointsman_model::nic::NicFacts;
use pointsman_model::observed::{Attachment, Observed, ObservedInterface};
use pointsman_model::{InterfaceId, InterfaceName, NamespaceName};
use pointsman_netdev::{Interface, Namespace, NamespaceError, NamespaceId, Nics};
use pointsman_plan as plan;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// How the kernel is asked, and what it said before.
#[derive(Debug)]
pub(crate) struct Look {
    sys: PathBuf,
    /// The cards of the daemon's own network namespace.
    nics: Nics,
    /// Its interfaces, as they were looked at last.
    found: BTreeMap<InterfaceName, Interface>,
    dispatchers: Dispatchers,
}

pub(crate) type Found = BTreeMap<InterfaceId, ObservedInterface>;

impl Look {
    /// With sysfs at `sys`, and pins of dispatchers where `dispatcher` says.
    pub(crate) fn new(sys: PathBuf, dispatcher: Dispatcher) -> Self {
        let nics = Nics::new(&sys);
        let dispatchers = Dispatchers::new(dispatcher);
        Self { sys, nics, found: BTreeMap::new(), dispatchers }
    }

    /// The interfaces in `scope`, and the namespaces that cannot be looked into and why.
    pub(crate) fn interfaces(
        &mut self,
        scope: &Scope,
    ) -> Result<(Found, BTreeMap<NamespaceName, String>), KernelError> {
        let own = here().map_err(KernelError)?;
        self.nics.forget_all_but(&own);
        let mut found = observed(None, &own);
        self.found = own;
        let mut unreachable = BTreeMap::new();
        let mut seen = BTreeMap::new();
        if !scope.namespaces.is_empty() {
            let own = Namespace::own().and_then(|own| own.id());
            seen.insert(own.map_err(|e| KernelError(e.to_string()))?, None);
        }
        for (name, spec) in &scope.namespaces {
            let opened = Namespace::open(&spec.path()).map_err(|e| e.to_string());
            match opened.and_then(|namespace| inside(name, &namespace, &mut seen)) {
                Ok(interfaces) => found.extend(observed(Some(name), &interfaces)),
                Err(why) => drop(unreachable.insert(name.clone(), why)),
            }
        }
        self.dispatchers.read(&mut found);
        Ok((found, unreachable))
    }

    /// Finds out what the cards of `names` are like, as far as they are there.
    pub(crate) fn nics(
        &mut self,
        observed: &mut Observed,
        names: &BTreeSet<InterfaceId>,
        scope: &Scope,
    ) {
        let mut names: Vec<_> = names.iter().collect();
        names.sort_by_key(|id| &id.namespace);
        for names in names.chunk_by(|one, other| one.namespace == other.namespace) {
            let names: Vec<_> =
                names.iter().filter(|id| observed.interfaces.contains_key(id)).collect();
            let Some(namespace) = names.first().map(|id| &id.namespace) else { continue };
            let facts = match namespace {
                None => facts(&mut self.nics, &self.found, &names),
                Some(namespace) => {
                    let Some(spec) = scope.namespaces.get(namespace) else { continue };
                    // An interface or a namespace that went away meanwhile stays unknown.
                    let read = || Ok(facts(&mut Nics::new(&self.sys), &here()?, &names));
                    let entered = Namespace::open(&spec.path()).and_then(|it| it.enter(read));
                    entered.map_err(|e| e.to_string()).and_then(|read| read).unwrap_or_default()
                }
            };
            for (id, known) in facts {
                if let Some(interface) = observed.interfaces.get_mut(&id)
                    && interface.index == known.index
                {
                    let (attached, dispatcher) =
                        (interface.attached.take(), interface.dispatcher.take());
                    *interface = ObservedInterface { attached, dispatcher, ..known };
                }
            }
        }
    }

    /// What is worth knowing of the interfaces of the daemon's own network namespace.
    pub(crate) fn examine(&mut self, page_size: u32) -> Vec<Check> {
        match pointsman_netdev::interfaces() {
            Ok(all) => plan::examine(&self.nics.examine(&all), page_size),
            Err(error) => vec![plan::unseen(&error.to_string())],
        }
    }
}

/// The interfaces of the calling thread's network namespace, without what is known of their cards.
pub(crate) fn own_interfaces() -> Result<Found, KernelError> {
    Ok(observed(None, &here().map_err(KernelError)?))
}

/// The interfaces of the calling thread's network namespace.
fn here() -> Result<BTreeMap<InterfaceName, Interface>, String> {
    pointsman_netdev::interfaces().map_err(|error| error.to_string())
}

/// Looks into a namespace. One that has two names is looked at under the first: an interface has
/// one chain.
fn inside(
    name: &NamespaceName,
    namespace: &Namespace,
    seen: &mut BTreeMap<NamespaceId, Option<NamespaceName>>,
) -> Result<BTreeMap<InterfaceName, Interface>, String> {
    let told = |error: NamespaceError| error.to_string();
    match seen.entry(namespace.id().map_err(told)?).or_insert_with(|| Some(name.clone())) {
        None => return Err("it is the daemon's own: name its interfaces without it".into()),
        Some(first) if first != name => return Err(format!("it is the same as {first}")),
        Some(_) => {}
    }
    if let Err(error) = namespace.listen() {
        // What changes there is then noticed when the host is looked at next.
        tracing::debug!(namespace = %name, %error, "cannot listen");
    }
    namespace.enter(here).map_err(told)?
}

fn observed(
    namespace: Option<&NamespaceName>,
    found: &BTreeMap<InterfaceName, Interface>,
) -> Found {
    let name = |id| pointsman_bpf::program_by_id(id).ok().flatten().map(|program| program.name);
    let attachment = |(program_id, mode)| Attachment { program_id, name: name(program_id), mode };
    let interfaces = found.iter().map(|(name, interface)| {
        let id = InterfaceId { namespace: namespace.cloned(), name: name.clone() };
        let attached = interface.xdp.map(attachment);
        (id, ObservedInterface { attached, ..interface.observed(NicFacts::default()) })
    });
    interfaces.collect()
}

/// The interfaces `names` of one namespace, with what their cards are like.
fn facts(
    nics: &mut Nics,
    all: &BTreeMap<InterfaceName, Interface>,
    names: &[&&InterfaceId],
) -> Vec<(InterfaceId, ObservedInterface)> {
    let known = |id: &&&InterfaceId| {
        let interface = all.get(&id.name)?;
        Some(((**id).clone(), interface.observed(nics.facts(interface, all))))
    };
    names.iter().filter_map(known).collect()
}
