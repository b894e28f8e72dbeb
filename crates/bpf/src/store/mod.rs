//! The pins: which chains, links, program maps and totals a host holds, under one directory of a
//! BPF filesystem.
//!
//! ```text
//! programs/NAME/FINGERPRINT/maps/MAP     a program's maps; those that an upgrade kept are pinned
//!                                        under both loads until the old one is released
//! programs/NAME/FINGERPRINT/definitions  record: what was made for it, by which the next upgrade
//!                                        decides what it can keep
//! programs/NAME/FINGERPRINT/entries      record: what its maps were told to hold; pinned last:
//!                                        the program is prepared
//! hooks/INTERFACE/xdp/link               the link; what it runs is the live chain
//! hooks/INTERFACE/xdp/totals             record: what retired chains counted
//! hooks/INTERFACE/xdp/chains/N/counters  a chain's counters
//! hooks/INTERFACE/xdp/chains/N/record    record: what it is made of
//! hooks/INTERFACE/xdp/chains/N/program   the fused program; pinned last: the chain is complete
//! ```
//!
//! The pins are the truth: there is no other state that could disagree with them. Every change is
//! one atomic step of the kernel, so a crash leaves either the old state or the new one, and at
//! most a chain that nothing runs, which the next reconciliation retires.

mod links;
mod look;
mod programs;

use self::links::{Held, HookLink};
use self::look::{exits, read};
use crate::chain::{Chain, Slot};
use crate::error::Error;
use crate::kernel::{self, Link};
use crate::maps::MapHome;
use crate::member::Member;
use crate::pins;
use pointsman_fuse::layout::StackRounding;
use pointsman_model::chain::{ChainId, ChainRecord, ExitCounts, MemberSpec, Sequence, Totals};
use pointsman_model::facts::ProgramFacts;
use pointsman_model::observed::AttachMode;
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{Fingerprint, HookId, ProgramName};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory of pins. One process at a time.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    held: Held,
}

/// The counts of a hook's live chain and of those before it.
#[derive(Debug, Clone)]
pub struct HookCounts {
    /// The live chain; `None`: nothing runs.
    pub live: Option<(Sequence, ChainRecord, ExitCounts)>,
    /// What retired chains counted.
    pub totals: Totals,
}

/// What a chain is built from: a program with its object, and its facts where they are known.
#[derive(Debug)]
pub struct ChainMember<'a> {
    /// The program.
    pub program: &'a ResolvedProgram,
    /// Its object.
    pub object: Vec<u8>,
    /// Its facts, from an earlier [`Member::prepare`].
    pub known: Option<&'a ProgramFacts>,
}

const IN_USE: &str = "is in use by another process of Pointsman; stop it, or start this one with a \
                      --bpffs of its own";

impl Store {
    /// Opens `root`, making it if need be, and locks it.
    ///
    /// # Errors
    /// `root` is not in a BPF filesystem, may not be written, or another process holds it.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let store = Self { root: root.to_owned(), held: Held::new(lock(root)?) };
        store.remove_unfinished()?;
        Ok(store)
    }

    /// Removes programs whose preparation or release was interrupted: no chain has them.
    fn remove_unfinished(&self) -> Result<(), Error> {
        let root = self.root.join("programs");
        for name in pins::list(&root)? {
            for fingerprint in pins::list(&root.join(&name))? {
                let path = root.join(&name).join(&fingerprint);
                if Fingerprint::from_pin(&fingerprint).is_some()
                    && !pins::exists(&path.join("entries"))
                {
                    pins::remove_directory(&path)?;
                    self.remove_if_empty(path.parent())?;
                }
            }
        }
        Ok(())
    }

    /// The directory of the pinned maps of a program.
    #[must_use]
    pub fn map_directory(&self, program: &ProgramName, fingerprint: &Fingerprint) -> PathBuf {
        self.program(program, fingerprint).join("maps")
    }

    fn program(&self, program: &ProgramName, fingerprint: &Fingerprint) -> PathBuf {
        let name = pins::file_name(program.as_str());
        self.root.join("programs").join(name).join(fingerprint.as_str())
    }

    fn hook(&self, hook: &HookId) -> PathBuf {
        let interface = pins::file_name(&hook.interface.to_string());
        self.root.join("hooks").join(interface).join(hook.kind.to_string())
    }

    fn chain(&self, chain: &ChainId) -> PathBuf {
        self.hook(&chain.hook).join("chains").join(chain.sequence.to_string())
    }

    /// Fuses and pins a chain of `members`, in the record's order.
    ///
    /// # Errors
    /// Whatever is wrong with the members; nothing of the chain stays pinned then.
    pub fn build_chain(
        &self,
        chain: &ChainId,
        record: &ChainRecord,
        members: &[ChainMember<'_>],
        rounding: StackRounding,
    ) -> Result<(), Error> {
        let mut prepared = Vec::with_capacity(members.len());
        for (spec, member) in record.spec.members.iter().zip(members) {
            let maps = MapHome::Pinned(self.map_directory(&spec.program, &spec.fingerprint));
            let ChainMember { program, object, known } = member;
            prepared.push(Member::prepare(object, program, &maps, rounding, *known)?);
        }
        let specs = record.spec.members.iter().zip(&prepared);
        let slots: Vec<_> = specs
            .map(|(spec, member)| Slot {
                name: spec.program.as_str(),
                member,
                actions: spec.chain_call_actions,
                enforce: spec.enforce,
                priority: spec.priority,
            })
            .collect();
        let fused = Chain::fuse(&slots, rounding, true)?;
        let path = self.chain(chain);
        // Counters are read by the record: it must say what was built.
        let planned: Vec<_> = record.spec.members.iter().map(|member| member.form).collect();
        let order = |spec: &MemberSpec| (spec.priority, spec.entry.clone(), spec.program.clone());
        if fused.layout().forms != planned || !record.spec.members.is_sorted_by_key(order) {
            let why = "was planned otherwise than it is built: plan again".into();
            return Err(Error::Pin { path: path.display().to_string(), why });
        }
        let pinned = pin_chain(&path, &fused, record);
        if pinned.is_err() {
            drop(pins::remove_directory(&path));
        }
        pinned
    }

    /// Gives the pins of a hook another name; pins that bear it already get the first.
    ///
    /// # Errors
    /// The kernel's answer; then both are as they were.
    pub fn rename_hook(&self, from: &HookId, to: &HookId) -> Result<(), Error> {
        let (old, new) = (self.hook(from), self.hook(to));
        let failed = |e| Error::os(format!("rename the pins of {from} to {to}"), e);
        if pins::exists(&new) {
            pins::exchange(&old, &new).map_err(failed)?;
        } else {
            new.parent().map_or(Ok(()), pins::make_directory)?;
            std::fs::rename(&old, &new).map_err(failed)?;
            // An empty directory that stays bothers nobody.
            drop(self.remove_if_empty(old.parent()));
        }
        self.held.exchange(from, to);
        Ok(())
    }

    /// Attaches a built chain, to an interface of the calling thread's network namespace. A link
    /// of the hook that is pinned already, dead or on another interface, ends.
    ///
    /// # Errors
    /// The kernel's answer, and what it means.
    pub fn attach(
        &self,
        chain: &ChainId,
        interface_index: u32,
        mode: AttachMode,
    ) -> Result<(), Error> {
        let interface = &chain.hook.interface;
        let program = self.built(chain)?;
        let link = Link::attach(program.as_fd(), interface_index, mode).map_err(|e| {
            let hint = attach_hint(&e, mode);
            Error::os(format!("attach to {interface} ({mode} mode){hint}"), e)
        })?;
        // Only now, so that an attach that is refused changes nothing.
        self.detach(&chain.hook)?;
        link.pin(&self.hook(&chain.hook).join("link"))?;
        self.held.links().insert(chain.hook.clone(), Arc::new(link));
        Ok(())
    }

    /// Replaces the running chain by a built one. Only if what runs is what we left there.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn swap(&self, chain: &ChainId) -> Result<(), Error> {
        let what = || format!("swap the chain of {}", chain.hook);
        let program = self.built(chain)?;
        let Some(HookLink { link, .. }) = self.link(&chain.hook)? else {
            return Err(Error::os(what(), io::Error::from(io::ErrorKind::NotFound)));
        };
        let old = self.live(&chain.hook)?.map(|(_, fd)| fd);
        link.update(program.as_fd(), old.as_ref().map(|fd| fd.as_fd()))
            .map_err(|e| Error::os(what(), e))
    }

    fn built(&self, chain: &ChainId) -> Result<OwnedFd, Error> {
        let path = self.chain(chain).join("program");
        kernel::open_pin(&path)?.ok_or_else(|| Error::Pin {
            path: path.display().to_string(),
            why: "is not there: the chain was not built".into(),
        })
    }

    /// Takes our link off the interface and unpins it.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn detach(&self, hook: &HookId) -> Result<(), Error> {
        if let Some(HookLink { link, info, .. }) = self.link(hook)? {
            match link.detach() {
                // The interface is gone, and with it what was attached.
                Err(_) if info.interface_index == 0 => {}
                Err(e) => return Err(Error::os(format!("detach {hook}"), e)),
                Ok(()) => {}
            }
        }
        pins::remove(&self.hook(hook).join("link"))?;
        self.held.links().remove(hook);
        Ok(())
    }

    /// Adds what a chain counted to its hook's totals, once, and unpins it.
    ///
    /// # Errors
    /// The chain is live, or the kernel's answer.
    pub fn retire_chain(&self, chain: &ChainId) -> Result<(), Error> {
        let path = self.chain(chain);
        let live = self.live(&chain.hook)?.map(|(sequence, _)| sequence);
        if live == Some(chain.sequence) {
            let why = "is the chain that runs".into();
            return Err(Error::Pin { path: path.display().to_string(), why });
        }
        let mut totals = self.totals(&chain.hook);
        // A later number than the live chain's was never attached, and has counted nothing.
        let has_run = live.is_some_and(|live| chain.sequence < live);
        // Without counters its removal was interrupted, and it had not run before that.
        if has_run
            && chain.sequence > totals.folded
            && pins::exists(&path.join("counters"))
            && let Some(record) = read::<ChainRecord>(&path.join("record"))
        {
            wait_for_packets();
            totals.fold(chain.sequence, &record.spec, &exits(&path, &record));
            write(&self.hook(&chain.hook).join("totals"), &totals)?;
        }
        pins::remove_directory(&path)
    }

    /// Unpins what is left of a hook.
    ///
    /// # Errors
    /// The hook still has a link, or the kernel's answer.
    pub fn release_hook(&self, hook: &HookId) -> Result<(), Error> {
        let path = self.hook(hook);
        if pins::exists(&path.join("link")) {
            let why = "still has a link".into();
            return Err(Error::Pin { path: path.display().to_string(), why });
        }
        pins::remove_directory(&path)?;
        self.remove_if_empty(path.parent())
    }

    /// An emptied host leaves nothing behind but the root.
    fn remove_if_empty(&self, directory: Option<&Path>) -> Result<(), Error> {
        let mut next = directory;
        while let Some(path) =
            next.filter(|path| path.starts_with(&self.root) && *path != self.root)
        {
            if !pins::list(path)?.is_empty() {
                break;
            }
            pins::remove_directory(path)?;
            next = path.parent();
        }
        Ok(())
    }
}

/// Makes the root if need be, and locks it for this process.
fn lock(root: &Path) -> Result<File, Error> {
    let pin = |why: String| Error::Pin { path: root.display().to_string(), why };
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if !pins::is_bpffs(existing).map_err(|e| Error::os(existing.display().to_string(), e))? {
        return Err(pin(
            "is not in a BPF filesystem: mount one with `mount -t bpf bpf /sys/fs/bpf`, or name \
             one with --bpffs"
                .into(),
        ));
    }
    pins::make_directory(root)?;
    let lock = File::open(root).map_err(|e| Error::os(format!("open {}", root.display()), e))?;
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&lock, exclusive).map_err(|_| pin(IN_USE.into()))?;
    Ok(lock)
}

fn pin_chain(path: &Path, fused: &Chain, record: &ChainRecord) -> Result<(), Error> {
    if pins::exists(path) {
        let why = "is there already".into();
        return Err(Error::Pin { path: path.display().to_string(), why });
    }
    pins::make_directory(path)?;
    if let Some(counters) = fused.counters() {
        kernel::pin(counters.map().as_fd(), &path.join("counters"))?;
    }
    write(&path.join("record"), record)?;
    kernel::pin(fused.program(), &path.join("program"))
}

/// Waits until no packet runs through a chain that was replaced before this call. XDP programs
/// run in RCU read-side critical sections, and this command waits for all of them.
fn wait_for_packets() {
    let waited = rustix::thread::membarrier(rustix::thread::MembarrierCommand::Global);
    if let Err(e) = waited {
        tracing::debug!("membarrier: {e}; the last packets of a retired chain may go uncounted");
    }
}

fn write<T: serde::Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(record)
        .map_err(|e| Error::Pin { path: path.display().to_string(), why: e.to_string() })?;
    pins::write_record(path, &bytes)
}

/// What the kernel's answer to an attach usually means.
fn attach_hint(error: &io::Error, mode: AttachMode) -> &'static str {
    match (rustix::io::Errno::from_io_error(error), mode) {
        (Some(rustix::io::Errno::BUSY | rustix::io::Errno::EXIST), _) => {
            ": another XDP program is attached there"
        }
        (Some(rustix::io::Errno::OPNOTSUPP), AttachMode::Native) => {
            ": its driver has no native XDP, `\"mode\": \"skb\"` works on any interface"
        }
        (Some(rustix::io::Errno::RANGE | rustix::io::Errno::INVAL), AttachMode::Native) => {
            ": the driver refuses, often because the MTU is too large for a program without frags"
        }
        _ => "",
    }
}
