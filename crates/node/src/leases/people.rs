//! Clients as processes of this host: who they are, and whether they live.

use pointsman_lease::Peer;
use pointsman_model::cpu::CpuSet;
use pointsman_model::lease::Liveness;
use pointsman_netdev::peer::{self, PeerProcess};
use pointsman_netdev::{Namespace, NamespaceId, ProcessState, Roots};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// What is known of a connection beside its leases; none of it outlives the daemon.
#[derive(Debug)]
pub(super) struct Person {
    socket: OwnedFd,
    process: Option<PeerProcess>,
    pid: Option<u32>,
    /// Requests since this daemon started.
    pub(super) requests: u64,
    /// Those that were refused.
    pub(super) refused: u64,
    /// When it asked last.
    pub(super) asked: Instant,
    /// Whether something odd about its requests was logged already.
    pub(super) odd: bool,
    /// Whether it is being closed: what it still asks has no answer.
    pub(super) lost: bool,
}

impl Person {
    /// Asks the kernel who connected by `socket`.
    pub(super) fn meet(socket: OwnedFd, roots: &Roots, now: Instant) -> io::Result<(Self, Peer)> {
        let credentials = peer::credentials(&socket)?;
        let process = PeerProcess::of(&socket);
        let name = credentials.pid.and_then(|pid| roots.name_of(pid));
        let namespace = peer::network_namespace(&socket).and_then(|namespace| namespace.id());
        let peer = Peer {
            pid: credentials.pid,
            uid: credentials.uid,
            gid: credentials.gid,
            groups: credentials.groups,
            command: name.map(|name| name.escape_ascii().to_string()),
            network_namespace: namespace.ok().map(NamespaceId::inode),
        };
        let pid = credentials.pid;
        let person = Self {
            socket,
            process,
            pid,
            requests: 0,
            refused: 0,
            asked: now,
            odd: false,
            lost: false,
        };
        Ok((person, peer))
    }

    /// Its process; `None`: the daemon does not see its pid namespace.
    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The CPUs that its process may run on; `None`: that cannot be read.
    pub(super) fn cpus(&self, roots: &Roots) -> Option<CpuSet> {
        let cpus = roots.cpus_of(self.pid?)?;
        // Of a process that has ended, the number may be another's by now.
        (!self.has_ended()).then_some(cpus)
    }

    pub(super) fn liveness(&self, roots: &Roots) -> Liveness {
        if self.has_ended() {
            return Liveness::Gone;
        }
        match self.pid.map(|pid| roots.state_of(pid)) {
            Some(Some(ProcessState::Stuck)) => Liveness::Stuck,
            Some(Some(ProcessState::Running)) => Liveness::Alive,
            Some(Some(ProcessState::Ended) | None) => Liveness::Gone,
            None if self.process.is_some() => Liveness::Alive,
            None => Liveness::Unknown,
        }
    }

    fn has_ended(&self) -> bool {
        self.process.as_ref().is_some_and(PeerProcess::has_ended)
    }

    /// The first of these interfaces that its network namespace does not have. One look for all
    /// of them: another namespace takes a thread of its own.
    pub(super) fn missing_interface(&self, interfaces: &[u32]) -> Option<u32> {
        let exists = |index: u32| peer::interface_exists(index).unwrap_or(false);
        let missing = || interfaces.iter().copied().find(|index| !exists(*index));
        if interfaces.is_empty() {
            return None;
        }
        // Where it is not known which one is theirs, an interface of ours says nothing.
        let Ok(theirs) = peer::network_namespace(&self.socket) else {
            return interfaces.first().copied();
        };
        let id = |namespace: &Namespace| namespace.id().ok();
        if Namespace::own().ok().and_then(|own| id(&own)) == id(&theirs) {
            return missing();
        }
        theirs.enter(missing).unwrap_or_else(|_| interfaces.first().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_its_network_namespace_is_unknown_no_interface_is_there() {
        let person = |socket| Person {
            socket,
            process: None,
            pid: None,
            requests: 0,
            refused: 0,
            asked: Instant::now(),
            odd: false,
            lost: false,
        };
        let unknown = person(std::fs::File::open("/dev/null").unwrap().into());
        assert_eq!(
            (unknown.missing_interface(&[1, 2]), unknown.missing_interface(&[])),
            (Some(1), None)
        );
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        if peer::network_namespace(&one).is_ok() {
            assert_eq!(person(one.into()).missing_interface(&[1]), None, "lo");
        }
    }
}
