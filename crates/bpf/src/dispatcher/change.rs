//! Changing what runs on an interface: read, build, pin, one netlink REPLACE, unpin.
//!
//! The lock is held from the first look to the REPLACE. libxdp holds it for single steps only, so
//! a peer can still attach in between; then nothing is lost: REPLACE names the program that it
//! expects, and the whole change is done again around what is there now. A process that ends
//! between any two steps leaves the old chain or the new one, and at worst a directory of pins
//! that [`Dispatcher::clean`] finds.

use super::build::{Built, Part, Placed, build};
use super::config::{Actions, FLAG_FRAGS, MAX_PROGRAMS, Version};
use super::error::DispatcherError;
use super::lock::{Dispatcher, Lock};
use super::netlink;
use super::order;
use super::place::{is_bound, is_pass, needs_company, passing, place};
use super::program::Program;
use super::read::{Attached, AttachedBy, Chain, Component, Legacy};
use crate::error::{Error, attach_hint};
use pointsman_model::observed::AttachMode;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// How often a change is tried. While it holds the lock each peer can come between it once.
const TRIES: u32 = 64;
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// Where a program comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// It runs already: the kernel's id.
    Kept(u32),
    /// It is loaded and runs nowhere.
    Loaded(&'a Component),
    /// It is new.
    New(&'a Program),
}

/// A program that shall be in the dispatcher.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Which one.
    pub source: Source<'a>,
    /// Its priority: the lowest runs first.
    pub priority: u32,
    /// The verdicts after which the chain goes on.
    pub actions: Actions,
}

impl<'a> Wanted<'a> {
    /// A program that runs already, as it is.
    #[must_use]
    pub fn kept(component: &Component) -> Self {
        let Component { id, priority, actions, .. } = *component;
        Self { source: Source::Kept(id), priority, actions }
    }

    /// A program that is loaded already, as it is.
    #[must_use]
    pub fn loaded(component: &'a Component) -> Self {
        let Component { priority, actions, .. } = *component;
        Self { source: Source::Loaded(component), priority, actions }
    }

    /// A new program.
    #[must_use]
    pub fn new(program: &'a Program, priority: u32, actions: Actions) -> Self {
        Self { source: Source::New(program), priority, actions }
    }
}

/// What happens to a chain of one, whose actions mean nothing where libxdp runs it: in place of
/// the dispatcher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lone {
    /// It stays a chain: unless its actions are exactly PASS, a program that passes everything
    /// stands behind it. A verdict is the same whoever comes and goes.
    #[default]
    Chain,
    /// Its verdict is the packet's, as with libxdp: none that passes everything is added. One that is
    /// there is a program like others, which stays as long as another has actions that are not
    /// exactly PASS: taking it away would change that one's verdicts.
    AsLibxdp,
}

/// Where in the receive path a chain shall run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Where it runs; a new one natively, or behind the socket buffer where the driver has no
    /// native XDP.
    #[default]
    Auto,
    /// Where it runs; a new one here.
    New(AttachMode),
    /// Here, or nowhere.
    Exactly(AttachMode),
}

/// How a change is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The mode.
    pub mode: Mode,
    /// Whether the new programs are bound to the device (version 3, Linux 6.3): in a dispatcher
    /// all are, or none is.
    pub bound: bool,
    /// What happens to a chain of one.
    pub lone: Lone,
    /// Whether our program that passes everything stands behind the others in any case, so that no
    /// peer's leaving makes a chain of one.
    pub company: bool,
    /// Whether removing everything also ends a BPF link of somebody's.
    pub end_links: bool,
    /// Whether a dispatcher without pins is replaced if the kernel says that nothing runs in it.
    pub take_empty: bool,
}

/// What a change has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// The dispatcher before; `None`: there was none.
    pub before: Option<u32>,
    /// The dispatcher now; `None`: there is none.
    pub after: Option<u32>,
    /// The programs in it, in the order they run.
    pub programs: Vec<u32>,
    /// How often it was tried.
    pub tries: u32,
    /// Why the pins of the dispatcher before could not all be removed.
    pub leftover: Option<String>,
}

/// What a try came to.
enum Try {
    /// With the slots of the dispatcher before, which is pinned still.
    Done(Changed, usize),
    /// Somebody else was faster.
    Lost,
}

impl Dispatcher {
    /// Makes the programs on an interface what `edit` makes of those that run there: of what is
    /// given to it, in no particular order. It is asked again whenever others were faster.
    ///
    /// # Errors
    /// What is there cannot be changed, or not to this. Then nothing has changed.
    pub fn change<'p>(
        &self,
        interface_index: u32,
        options: &Options,
        mut edit: impl FnMut(&[Component]) -> Result<Vec<Wanted<'p>>, DispatcherError>,
    ) -> Result<Changed, DispatcherError> {
        let lock = self.lock()?;
        let mut pause = Duration::from_micros(20);
        for tries in 1..=TRIES {
            match self.attempt(interface_index, options, &mut edit, &lock)? {
                Try::Done(changed, slots) => {
                    let mut changed = Changed { tries, ..changed };
                    if let Some(before) = changed.before {
                        // The change is made: what keeps its leftovers from going is no failure.
                        let busy = lock.was_waited_for || tries > 1;
                        let unpinned = self.let_readers_go_first(lock, busy).and_then(|lock| {
                            Ok(self.unpin(interface_index, before, slots, &lock)?)
                        });
                        changed.leftover = unpinned.err().map(|e| e.to_string());
                    }
                    return Ok(changed);
                }
                Try::Lost => {
                    // What made this try fail has happened already; the pause lets a peer finish.
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        Err(DispatcherError::Race { tries: TRIES })
    }

    /// Adds programs to those that run.
    ///
    /// # Errors
    /// As of [`change`](Self::change).
    pub fn add(
        &self,
        interface_index: u32,
        options: &Options,
        new: &[Wanted<'_>],
    ) -> Result<Changed, DispatcherError> {
        self.change(interface_index, options, |running| {
            Ok(running.iter().map(Wanted::kept).chain(new.iter().copied()).collect())
        })
    }

    /// Removes the programs with these ids.
    ///
    /// # Errors
    /// One is not there, or as of [`change`](Self::change).
    pub fn remove(
        &self,
        interface_index: u32,
        options: &Options,
        ids: &[u32],
    ) -> Result<Changed, DispatcherError> {
        self.change(interface_index, options, |running| {
            for &id in ids {
                find(running, id)?;
            }
            let others = running.iter().filter(|component| !ids.contains(&component.id));
            Ok(others.map(Wanted::kept).collect())
        })
    }

    /// Removes all programs, the dispatcher and its pins.
    ///
    /// # Errors
    /// As of [`change`](Self::change).
    pub fn remove_all(
        &self,
        interface_index: u32,
        options: &Options,
    ) -> Result<Changed, DispatcherError> {
        self.change(interface_index, options, |_| Ok(vec![]))
    }

    /// Takes a dispatcher off an interface that has lost its pins and in which nothing runs any more.
    /// Anything else stays. Whether there was one.
    ///
    /// # Errors
    /// As of [`change`](Self::change).
    pub fn remove_emptied(&self, interface_index: u32) -> Result<bool, DispatcherError> {
        let lost = |attached: &Attached| {
            matches!(attached, Attached::Legacy { why: Legacy::Pins { .. }, .. })
        };
        if !lost(&self.for_looks().read(interface_index)?) {
            return Ok(false);
        }
        let mut emptied = true;
        let options = Options { take_empty: true, ..Options::default() };
        let changed = self.change(interface_index, &options, |running| {
            emptied = running.is_empty();
            match emptied {
                true => Ok(vec![]),
                // Somebody put a chain there meanwhile.
                false => Err(DispatcherError::Gone { interface_index }),
            }
        });
        match changed {
            Ok(changed) => Ok(changed.before.is_some()),
            Err(_) if !emptied => Ok(false),
            // It runs, with pins in another BPF filesystem.
            Err(DispatcherError::Legacy { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Gives a program that runs another priority or other actions, in one swap.
    ///
    /// # Errors
    /// It is not there, or as of [`change`](Self::change).
    pub fn reprioritise(
        &self,
        interface_index: u32,
        options: &Options,
        id: u32,
        priority: Option<u32>,
        actions: Option<Actions>,
    ) -> Result<Changed, DispatcherError> {
        self.change(interface_index, options, |running| {
            find(running, id)?;
            let changed = |component: &Component| match Wanted::kept(component) {
                kept if component.id == id => Wanted {
                    priority: priority.unwrap_or(kept.priority),
                    actions: actions.unwrap_or(kept.actions),
                    ..kept
                },
                kept => kept,
            };
            Ok(running.iter().map(changed).collect())
        })
    }

    /// Puts a new program where another one is, with its priority and actions, in one swap.
    ///
    /// # Errors
    /// It is not there, or as of [`change`](Self::change).
    pub fn replace(
        &self,
        interface_index: u32,
        options: &Options,
        id: u32,
        new: &Program,
    ) -> Result<Changed, DispatcherError> {
        self.change(interface_index, options, |running| {
            find(running, id)?;
            let changed = |component: &Component| match Wanted::kept(component) {
                kept if component.id == id => Wanted { source: Source::New(new), ..kept },
                kept => kept,
            };
            Ok(running.iter().map(changed).collect())
        })
    }

    fn attempt<'p>(
        &self,
        interface_index: u32,
        options: &Options,
        edit: &mut impl FnMut(&[Component]) -> Result<Vec<Wanted<'p>>, DispatcherError>,
        lock: &Lock,
    ) -> Result<Try, DispatcherError> {
        let found = self.read_locked(interface_index, Some(lock))?;
        let mut old = changeable(if options.take_empty { found.or_empty() } else { found })?;
        let mut running = old.as_mut().map(|old| std::mem::take(&mut old.components));
        let running = running.get_or_insert_default();
        let pass = running.iter().position(is_pass);
        // Whoever does as libxdp sees it among the others, and may take it out.
        let shown = options.lone == Lone::AsLibxdp;
        let ours = pass.filter(|_| !shown).map(|at| running.remove(at));
        let mut wanted = edit(running)?;
        let pass = pass.filter(|_| shown).map(|at| &running[at]);
        let stays = pass.is_some_and(|pass| takes_company(&mut wanted, pass.id));
        if wanted.is_empty() {
            return match &old {
                None => Ok(Try::Done(Changed::default(), 0)),
                Some(old) => detach(interface_index, old, options),
            };
        }
        if let Some(old) = &old {
            check_old(old, options)?;
        }
        let mut parts = Vec::with_capacity(wanted.len() + 1);
        for wanted in &wanted {
            parts.push(place(wanted, running)?);
        }
        let fresh;
        if options.company || stays || needs_company(&parts, options.lone) {
            let part = match ours.as_ref().or(pass) {
                Some(pass) => Part::Kept(pass),
                None => {
                    fresh = Program::pass()?;
                    Part::New(&fresh)
                }
            };
            parts.push(passing(part));
        }
        if parts.len() > MAX_PROGRAMS {
            return Err(DispatcherError::TooMany { count: parts.len() });
        }
        parts.sort_by(|one, other| order::compare(&one.rank(), &other.rank()));
        let version = old.as_ref().map_or_else(|| self.version(), |old| old.version);
        let adds = wanted.iter().any(|wanted| !matches!(wanted.source, Source::Kept(_)));
        let bound = match is_bound(version, old.as_ref().map(|old| old.bound), options, adds)? {
            true => Some(interface_index),
            false => None,
        };
        let built = build(version, bound, &parts)?;
        self.pin(interface_index, &built, lock)?;
        let attached = attach(interface_index, &built, old.as_ref(), options.mode);
        let Err(error) = attached else {
            let slots = old.as_ref().map_or(0, |old| old.slots);
            let changed = Changed {
                before: old.map(|old| old.program.id),
                after: Some(built.id),
                programs: parts.iter().filter_map(Placed::id).collect(),
                ..Changed::default()
            };
            return Ok(Try::Done(changed, slots));
        };
        self.unpin(interface_index, built.id, built.slots.len(), lock)?;
        let (mode, source) = error;
        lost(interface_index, old.as_ref(), source, |source| {
            let hint = attach_hint(&source, mode);
            let about_frags =
                matches!(Errno::from_io_error(&source), Some(Errno::INVAL | Errno::RANGE));
            let without =
                parts.iter().filter(|part| about_frags && part.slot.flags & FLAG_FRAGS == 0);
            let without_frags = without.map(|part| part.rank().name.to_owned()).collect();
            DispatcherError::Attach { mode, hint, without_frags, source }
        })
    }
}

/// Takes the program `pass` of ours out of what is wanted, for its own place. Whether it stays: it is
/// wanted, and means something to another program.
fn takes_company(wanted: &mut Vec<Wanted<'_>>, pass: u32) -> bool {
    let before = wanted.len();
    wanted.retain(|wanted| !matches!(wanted.source, Source::Kept(id) if id == pass));
    wanted.len() < before && wanted.iter().any(|wanted| !wanted.actions.is_pass())
}

/// The dispatcher that is attached; `None`: nothing is.
fn changeable(attached: Attached) -> Result<Option<Chain>, DispatcherError> {
    match attached {
        Attached::Nothing => Ok(None),
        Attached::Legacy { program, why } => {
            Err(DispatcherError::Legacy { program: program.id, why })
        }
        Attached::Newer { program, version } => {
            Err(DispatcherError::Newer { program: program.id, version })
        }
        Attached::Broken { program, why } => {
            Err(DispatcherError::Broken { program: program.id, why })
        }
        Attached::Chain(chain) => Ok(Some(*chain)),
    }
}

/// Whether programs can be put beside those that run.
fn check_old(old: &Chain, options: &Options) -> Result<(), DispatcherError> {
    if old.version < Version::V2 {
        let (program, version) = (old.program.id, old.version);
        return Err(DispatcherError::Older { program, version });
    }
    match options.mode {
        Mode::Exactly(wanted) if wanted != old.program.mode => {
            Err(DispatcherError::Mode { wanted, found: old.program.mode })
        }
        _ => Ok(()),
    }
}

pub(super) fn find(running: &[Component], id: u32) -> Result<&Component, DispatcherError> {
    let found = running.iter().find(|component| component.id == id);
    found.ok_or(DispatcherError::NotThere { id })
}

/// Attaches it in place of the old one. An error comes with the mode that was tried last.
fn attach(
    interface_index: u32,
    built: &Built,
    old: Option<&Chain>,
    mode: Mode,
) -> Result<(), (AttachMode, io::Error)> {
    let program = built.program.as_fd();
    let expected = old.map(|old| old.program.program.as_fd());
    let attach = |mode| {
        netlink::attach(interface_index, program, mode, expected).map_err(|error| (mode, error))
    };
    match (old, mode) {
        (Some(old), _) => attach(old.program.mode),
        (None, Mode::New(mode) | Mode::Exactly(mode)) => attach(mode),
        (None, Mode::Auto) => match attach(AttachMode::Native) {
            Err((_, e)) if Errno::from_io_error(&e) == Some(Errno::OPNOTSUPP) => {
                attach(AttachMode::Skb)
            }
            result => result,
        },
    }
}

/// Takes the dispatcher off; its pins are left.
fn detach(interface_index: u32, old: &Chain, options: &Options) -> Result<Try, DispatcherError> {
    let detached = netlink::detach(interface_index, old.program.mode, old.program.program.as_fd());
    if let Err(error) = detached {
        let link = super::sys::xdp_link(old.program.id, interface_index);
        match link.filter(|_| options.end_links) {
            Some((_, link)) => super::sys::detach_link(link.as_fd())
                .map_err(|e| Error::os("end the dispatcher's link", e))?,
            None => {
                return lost(interface_index, Some(old), error, |error| {
                    Error::os("detach the dispatcher", error).into()
                });
            }
        }
    }
    let changed = Changed { before: Some(old.program.id), ..Changed::default() };
    Ok(Try::Done(changed, old.slots))
}

/// Whether an attempt failed because somebody else was faster.
fn lost(
    interface_index: u32,
    old: Option<&Chain>,
    error: io::Error,
    refused: impl FnOnce(io::Error) -> DispatcherError,
) -> Result<Try, DispatcherError> {
    match (Errno::from_io_error(&error), old) {
        // Another program than the expected one is attached, or something where nothing was.
        (Some(Errno::EXIST), _) | (Some(Errno::BUSY), None) => Ok(Try::Lost),
        (Some(Errno::BUSY), Some(old)) => match old.program.attached_by() {
            AttachedBy::Link(link) => {
                Err(DispatcherError::AttachedByLink { program: old.program.id, link })
            }
            AttachedBy::Netlink => Ok(Try::Lost),
        },
        // Nothing is attached any more where something was.
        (Some(Errno::NOENT), Some(_)) => Ok(Try::Lost),
        (Some(Errno::NODEV), _) => Err(DispatcherError::NoInterface { interface_index }),
        _ => Err(refused(error)),
    }
}
