//! Looks at the interfaces of the daemon's network namespace, and into others.

use crate::host::{KernelError, Scope};
use pointsman_model::observed::{Attachment, ObservedInterface};
use pointsman_model::{InterfaceId, InterfaceName, NamespaceName};
use pointsman_netdev::{Interface, Namespace, NamespaceError, NamespaceId};
use std::collections::BTreeMap;

/// How the kernel is asked, and what it said before.
#[derive(Debug)]
pub(crate) struct Look {
    /// Whether the kernel tells which interfaces have native XDP.
    tells_features: bool,
    /// Whether interfaces have it: asking costs several system calls, and the answer stays the
    /// same while the interface lives.
    native: Natives,
}

type Natives = BTreeMap<(InterfaceId, u32), bool>;
type Found = BTreeMap<InterfaceId, ObservedInterface>;

impl Look {
    pub(crate) fn new(tells_features: bool) -> Self {
        Self { tells_features, native: Natives::new() }
    }

    /// The interfaces in `scope`, and the namespaces that cannot be looked into and why.
    pub(crate) fn interfaces(
        &mut self,
        scope: &Scope,
    ) -> Result<(Found, BTreeMap<NamespaceName, String>), KernelError> {
        let mut found = self.here(None, scope).map_err(KernelError)?;
        let mut unreachable = BTreeMap::new();
        let mut seen = BTreeMap::new();
        if !scope.namespaces.is_empty() {
            let own = Namespace::own().and_then(|own| own.id());
            seen.insert(own.map_err(|e| KernelError(e.to_string()))?, None);
        }
        for (name, spec) in &scope.namespaces {
            let inside = Namespace::open(&spec.path()).map_err(|e| e.to_string());
            match inside.and_then(|inside| self.inside(name, &inside, scope, &mut seen)) {
                Ok(interfaces) => found.extend(interfaces),
                Err(why) => drop(unreachable.insert(name.clone(), why)),
            }
        }
        self.native.retain(|(id, index), _| found.get(id).is_some_and(|i| i.index == *index));
        for (id, interface) in &mut found {
            interface.native_xdp = self.native.get(&(id.clone(), interface.index)).copied();
        }
        Ok((found, unreachable))
    }

    /// Looks into a namespace. One that has two names is looked at under the first: an interface
    /// has one chain.
    fn inside(
        &mut self,
        name: &NamespaceName,
        inside: &Namespace,
        scope: &Scope,
        seen: &mut BTreeMap<NamespaceId, Option<NamespaceName>>,
    ) -> Result<Found, String> {
        let told = |error: NamespaceError| error.to_string();
        match seen.entry(inside.id().map_err(told)?).or_insert_with(|| Some(name.clone())) {
            None => return Err("it is the daemon's own: name its interfaces without it".into()),
            Some(first) if first != name => return Err(format!("it is the same as {first}")),
            Some(_) => {}
        }
        if let Err(error) = inside.listen() {
            // What changes there is then noticed when the host is looked at next.
            tracing::debug!(namespace = %name, %error, "cannot listen");
        }
        inside.enter(|| self.here(Some(name), scope)).map_err(told)?
    }

    /// The interfaces of the calling thread's network namespace, without whether they have native
    /// XDP, which is remembered.
    fn here(&mut self, namespace: Option<&NamespaceName>, scope: &Scope) -> Result<Found, String> {
        let found = pointsman_netdev::interfaces().map_err(|e| e.to_string())?;
        let id = |name: InterfaceName| InterfaceId { namespace: namespace.cloned(), name };
        let found: Found =
            found.into_iter().map(|(name, interface)| (id(name), observed(&interface))).collect();
        if self.tells_features {
            let asked = |id: &&InterfaceId| id.namespace.as_ref() == namespace;
            scope.interfaces.iter().filter(asked).for_each(|id| self.ask(id, &found));
        }
        Ok(found)
    }

    /// Finds out whether an interface of the calling thread's network namespace has native XDP.
    fn ask(&mut self, id: &InterfaceId, found: &Found) {
        let Some(interface) = found.get(id) else { return };
        let key = (id.clone(), interface.index);
        // An interface that vanished meanwhile is left to the planner, which finds it missing.
        if !self.native.contains_key(&key)
            && let Ok(native) = pointsman_bpf::native_xdp(interface.index)
        {
            self.native.insert(key, native);
        }
    }
}

fn observed(interface: &Interface) -> ObservedInterface {
    let Interface { index, loopback, mtu, up, xdp } = *interface;
    let name = |id| pointsman_bpf::program_by_id(id).ok().flatten().map(|program| program.name);
    let attachment = |(program_id, mode)| Attachment { program_id, name: name(program_id), mode };
    ObservedInterface { index, native_xdp: None, loopback, mtu, up, attached: xdp.map(attachment) }
}
