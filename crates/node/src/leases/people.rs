//! Clients as processes of this host: who they are, and whether they live.

use pointsman_lease::Peer;
use pointsman_model::NamespaceName;
use pointsman_model::cpu::CpuSet;
use pointsman_model::document::{NamespaceSpec, Namespaces, People};
use pointsman_model::lease::Liveness;
use pointsman_netdev::peer::{self, PeerProcess, Unseen};
use pointsman_netdev::{Namespace, NamespaceId, ProcessState, Roots};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

/// What is known of a connection beside its leases; none of it outlives the daemon.
#[derive(Debug)]
pub(super) struct Person {
    socket: OwnedFd,
    process: Option<PeerProcess>,
    pid: Option<u32>,
    /// The process has ended, and its number may be another's.
    gone: bool,
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
    /// Whether it has more groups than are kept: those that matter are looked up again when the
    /// operator names others.
    pub(super) in_many_groups: bool,
}

/// The most groups that are kept of a client, whatever they are: any user with a range of
/// subordinate ids can have 65,536, on each connection.
const GROUPS_KEPT: usize = 1024;

impl Person {
    /// Asks the kernel who connected by `socket`. `before`: who that was when a daemon asked first.
    pub(super) fn meet(
        socket: OwnedFd,
        roots: &Roots,
        before: Option<&Peer>,
        clients: Option<&People>,
        now: Instant,
    ) -> io::Result<(Self, Peer)> {
        let mut credentials = peer::credentials(&socket)?;
        let Identity { process, started, gone } =
            Identity::of(&socket, credentials.pid, roots, before);
        let name = credentials.pid.filter(|_| !gone).and_then(|pid| roots.name_of(pid));
        let namespace = peer::network_namespace(&socket).and_then(|namespace| namespace.id());
        let in_many_groups = credentials.groups.len() > GROUPS_KEPT;
        let groups = kept(std::mem::take(&mut credentials.groups), clients);
        let peer = Peer {
            pid: credentials.pid,
            started,
            uid: credentials.uid,
            gid: credentials.gid,
            groups,
            command: name.map(|name| name.escape_ascii().to_string()),
            network_namespace: namespace.ok().map(NamespaceId::inode),
        };
        let pid = credentials.pid;
        let person = Self {
            socket,
            process,
            pid,
            gone,
            requests: 0,
            refused: 0,
            asked: now,
            odd: false,
            lost: false,
            in_many_groups,
        };
        Ok((person, peer))
    }

    /// Which of its groups are kept, now that `clients` may be clients; `None`: as before.
    pub(super) fn groups_anew(&self, clients: Option<&People>) -> Option<Vec<u32>> {
        let credentials = self.in_many_groups.then(|| peer::credentials(&self.socket))?;
        credentials.ok().map(|credentials| kept(credentials.groups, clients))
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

    pub(super) fn has_ended(&self) -> bool {
        self.gone || self.process.as_ref().is_some_and(PeerProcess::has_ended)
    }

    /// What the daemon calls its network namespace; the inner `None`: it is the daemon's own.
    /// `known`: those that the document names; beside them there are those of `ip netns`. `claimed`:
    /// those that clients hold interfaces of, as they were called when they asked.
    ///
    /// # Errors
    /// It has no name and cannot be reached otherwise, or it is not known which one it is: one line.
    pub(super) fn namespace<'a>(
        &self,
        known: &Namespaces,
        mut claimed: impl Iterator<Item = &'a NamespaceName>,
    ) -> Result<Option<NamespaceName>, String> {
        let theirs = peer::network_namespace(&self.socket).and_then(|it| it.id());
        let theirs = theirs.map_err(|error| error.to_string())?;
        if Namespace::own().and_then(|own| own.id()).is_ok_and(|own| own == theirs) {
            return Ok(None);
        }
        let by_inode = |name: &NamespaceName| {
            !known.contains_key(name)
                && NamespaceSpec::of(name) == NamespaceSpec::Inode(theirs.inode())
        };
        // Also if it has a name by now: one interface is one place.
        if let Some(name) = claimed.find(|name| by_inode(name)) {
            return Ok(Some(name.clone()));
        }
        let is_it = |path: &Path| {
            let found = Namespace::open(path).and_then(|namespace| namespace.id());
            found.is_ok_and(|found| found == theirs)
        };
        let named = known.iter().find(|(_, spec)| is_it(&spec.path()));
        if let Some((name, _)) = named {
            return Ok(Some(name.clone()));
        }
        let files = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let mut names = files.filter_map(|file| {
            let name = NamespaceName::new(file.file_name().into_string().ok()?).ok()?;
            // The document calls another one so, or it would be looked for elsewhere.
            let free = !known.contains_key(&name)
                && NamespaceSpec::of(&name) == NamespaceSpec::Name(name.clone());
            (free && is_it(&file.path())).then_some(name)
        });
        let unnamed = || {
            let name = NamespaceSpec::unnamed(theirs.inode())?;
            (by_inode(&name) && is_it(&NamespaceSpec::of(&name).path())).then_some(name)
        };
        names.next().or_else(unnamed).map(Some).ok_or_else(|| {
            format!(
                "its network namespace net:[{}] has no name here, and no process that the daemon \
                 sees is in it: name it with `ip netns attach NAME PID`, or in `namespaces` of the \
                 document",
                theirs.inode()
            )
        })
    }

    /// The number of an interface of its network namespace; `None`: there is none.
    pub(super) fn index_of(&self, name: &str) -> Option<u32> {
        let find = || pointsman_bpf::interface_index(name).ok();
        let theirs = peer::network_namespace(&self.socket).ok()?;
        let own = Namespace::own().and_then(|own| own.id()).ok();
        match theirs.id().ok() {
            id if id == own => find(),
            _ => theirs.enter(find).ok()?,
        }
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

/// Those of somebody's groups that are kept: all, or of too many those that give a right.
fn kept(mut groups: Vec<u32>, clients: Option<&People>) -> Vec<u32> {
    if groups.len() > GROUPS_KEPT {
        groups.retain(|group| clients.is_some_and(|people| people.groups.contains(group)));
        groups.shrink_to_fit();
    }
    groups
}

/// Which process connected.
#[derive(Debug)]
struct Identity {
    process: Option<PeerProcess>,
    started: Option<u64>,
    gone: bool,
}

impl Identity {
    fn of(socket: &OwnedFd, pid: Option<u32>, roots: &Roots, before: Option<&Peer>) -> Self {
        let known = |process, gone| Self { process, started: None, gone };
        match (PeerProcess::of(socket), pid) {
            (Ok(process), _) => known(Some(process), false),
            (Err(Unseen::Gone), _) => known(None, true),
            (Err(Unseen::Untold), None) => known(None, false),
            (Err(Unseen::Untold), Some(pid)) => Self::numbered(pid, roots, before),
        }
    }

    /// By its number, where the kernel tells no more: the process that has it when the connection is
    /// accepted, and for every daemon after that the one that was started at the same time.
    fn numbered(pid: u32, roots: &Roots, before: Option<&Peer>) -> Self {
        let process = PeerProcess::numbered(pid);
        let started = roots.started(pid);
        // Looked at behind the time: if it is there still, the time is its own.
        let gone = match &process {
            Ok(process) => process.has_ended(),
            Err(Unseen::Gone) => true,
            Err(Unseen::Untold) => false,
        };
        // Where it could not be read before, nothing speaks against it.
        let known = before.and_then(|before| before.started);
        let other = known.is_some() && known != started;
        let gone = gone || other;
        let started = known.or(started);
        Self { process: process.ok().filter(|_| !gone), started, gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Kernels before 6.5 tell no more than a number: another process that gets it is another one.
    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let host = tempfile::tempdir().unwrap();
        let roots = Roots { proc: host.path().join("proc"), sys: host.path().join("sys") };
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let file = roots.proc.join(pid.to_string());
        std::fs::create_dir_all(&file).unwrap();
        let start = |ticks: u64| {
            let text = format!("{pid} (cat) S {} {ticks} 0", "0 ".repeat(18));
            std::fs::write(file.join("stat"), text).unwrap();
        };
        start(100);
        let first = Identity::numbered(pid, &roots, None);
        assert_eq!((first.started, first.gone, first.process.is_some()), (Some(100), false, true));
        let peer = Peer { pid: Some(pid), started: first.started, ..Peer::default() };
        // The next daemon meets the same one, or one that was started later.
        let same = Identity::numbered(pid, &roots, Some(&peer));
        assert_eq!((same.started, same.gone, same.process.is_some()), (Some(100), false, true));
        start(101);
        let other = Identity::numbered(pid, &roots, Some(&peer));
        assert_eq!((other.started, other.gone, other.process.is_none()), (Some(100), true, true));
        start(100);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(Identity::numbered(pid, &roots, Some(&peer)).gone, "nobody has it");
        assert!(first.process.is_some_and(|process| process.has_ended()));
    }

    #[test]
    fn of_too_many_groups_those_are_kept_that_give_a_right() {
        let few: Vec<u32> = (0..1024).collect();
        assert_eq!(kept(few.clone(), None), few);
        let many: Vec<u32> = (0..65_536).collect();
        assert_eq!(kept(many.clone(), None), Vec::<u32>::new());
        let people = People { users: [1].into(), groups: [44, 65_535, 70_000].into() };
        assert_eq!(kept(many, Some(&people)), [44, 65_535]);
    }

    #[test]
    fn where_its_network_namespace_is_unknown_no_interface_is_there() {
        let person = |socket| Person {
            socket,
            process: None,
            pid: None,
            gone: false,
            requests: 0,
            refused: 0,
            asked: Instant::now(),
            odd: false,
            lost: false,
            in_many_groups: false,
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
