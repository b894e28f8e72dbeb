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
//! A chain of slots of a dispatcher has no link of its own: the dispatcher's pins, at
//! `xdp/dispatch-*` of the same BPF filesystem, are libxdp's. What stands there is the live chain.
//!
//! ```text
//! hooks/INTERFACE/xdp/chains/N/slots/S/counters  the counters of a slot
//! hooks/INTERFACE/xdp/chains/N/slots/S/program   the program of a slot
//! hooks/INTERFACE/xdp/chains/N/record            record: what it is made of; pinned last: the
//!                                                chain is complete
//! ```
//!
//! The pins are the truth: there is no other state that could disagree with them. Every change is
//! one atomic step of the kernel, so a crash leaves either the old state or the new one, and at
//! most a chain that nothing runs, which the next reconciliation retires.

mod build;
mod links;
mod look;
mod programs;
mod retire;
mod slots;

use self::links::{Held, HookLink};
use crate::dispatcher::Dispatcher;
use crate::error::{Error, attach_hint};
use crate::kernel::{self, Link};
use crate::pins;
use pointsman_model::chain::{ChainId, ChainRecord, ExitCounts, Sequence, Totals};
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
    dispatcher: Dispatcher,
}

/// The counts of a hook's live chain and of those before it.
#[derive(Debug, Clone)]
pub struct HookCounts {
    /// The live chain, with the counts of each of its parts; `None`: nothing runs.
    pub live: Option<(Sequence, ChainRecord, Vec<ExitCounts>)>,
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
    /// Its facts, from an earlier [`Member::prepare`](crate::Member::prepare).
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
        let held = Held::new(lock(root)?);
        let mount = pins::mount_of(root).map_err(|e| Error::os(root.display().to_string(), e))?;
        let store = Self { root: root.to_owned(), held, dispatcher: Dispatcher::at(&mount) };
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

    /// The dispatchers of the BPF filesystem in which the pins are.
    #[must_use]
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
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
        let old = self.live_program(&chain.hook)?.map(|(_, fd)| fd);
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

fn write<T: serde::Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(record)
        .map_err(|e| Error::Pin { path: path.display().to_string(), why: e.to_string() })?;
    pins::write_record(path, &bytes)
}
