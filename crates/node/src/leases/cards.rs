//! One plain thread works on network cards and chains' maps: for instances, and for what the document
//! says of queues and flow rules.
//!
//! In: jobs, in the order in which leases change. Out: what came of those that somebody waits for.
//! What it does can take milliseconds, for the kernel waits until no program runs that saw the map
//! before, or for drivers: no other client of the daemon is to wait for that. What *should be* is
//! decided elsewhere, and told here in whole when a daemon starts and by change from then on, so
//! whenever the maps of a chain are other ones they are filled anew.

mod document;
mod flows;
pub(super) mod footprints;
mod handover;
mod rss;
mod settings;
mod tuning;
mod worker;

use super::Handle;
use crate::engine::Maps;
use footprints::Footprints;
use pointsman_lease::Why;
use pointsman_model::flow::{FlowRequest, FlowRule};
use pointsman_model::lease::Place;
use pointsman_netdev::Roots;
use pointsman_plan::nic::Queues;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::thread;
use worker::Worker;

pub(super) use document::{Beside, Sections};
pub(super) use flows::Rights;

/// Something to be done.
#[derive(Debug)]
pub(super) enum Job {
    /// What an interface should have.
    Wanted {
        place: Place,
        ports: BTreeSet<u16>,
        owners: BTreeMap<u32, u64>,
        flows: BTreeMap<u32, FlowRule>,
    },
    /// All that should be was told: what else a daemon before left on cards goes.
    Sweep,
    /// The maps of its chain.
    Served { place: Place, maps: Maps },
    /// Nobody wants it any more.
    Unwanted { place: Place },
    /// A port goes on to sockets, or not.
    Port { place: Place, port: u16, listed: bool },
    /// These ports do, and no others.
    AllPorts { place: Place, ports: BTreeSet<u16> },
    /// Whose sockets a queue feeds.
    Owner { place: Place, queue: u32, owner: Option<u64> },
    /// The map of somebody's sockets is to be handed over.
    Map { place: Place, owner: u64 },
    /// A socket is to be put at its queue.
    Socket { place: Place, owner: u64, queue: u32, socket: OwnedFd },
    /// How many queues there are.
    Queues { place: Place },
    /// A flow rule.
    AddFlow { place: Place, request: FlowRequest, rights: Rights },
    /// It goes.
    DelFlow { place: Place, location: u32, rule: FlowRule },
    /// What the document says of cards.
    Document(Sections),
    /// Interfaces came, went or were renamed.
    Look,
    /// Which CPUs are beside leased lcores.
    Beside(Beside),
    /// Nothing: whoever waits for it waits for all before it.
    Fence,
    /// Somebody is gone.
    Gone { owner: u64 },
}

/// What came of a job.
#[derive(Debug)]
pub enum Done {
    /// It is done.
    Nothing,
    /// The map.
    Map(OwnedFd),
    /// So many queues, and those that the document keeps for applications, where it says so.
    Queues(Queues, Option<BTreeSet<u32>>),
    /// The rule is there.
    Flow(u32, FlowRule),
    /// No rule was made.
    NoFlow(Why),
    /// What was handed over is not what it should be: one line.
    NotTaken(String),
}

/// Gives jobs to the thread.
#[derive(Debug)]
pub(super) struct Cards {
    jobs: Sender<(Option<u64>, Job)>,
    next: u64,
}

impl Cards {
    /// Starts the thread. It ends with the process, or when this is dropped.
    /// `directory`: where is kept what it does to cards.
    pub(super) fn start(results: Handle, directory: &Path, roots: &Roots) -> Self {
        let (jobs, todo) = mpsc::channel();
        let footprints = Footprints::open(directory);
        let roots = roots.clone();
        let work = move || Worker::new(footprints, roots).run(&todo, &results);
        if let Err(error) = thread::Builder::new().name("cards".into()).spawn(work) {
            tracing::error!("no thread to work on network cards in: {error}");
        }
        Self { jobs, next: 1 }
    }

    /// Has something done.
    pub(super) fn tell(&self, job: Job) {
        let _ = self.jobs.send((None, job));
    }

    /// Has something done, and is told what came of it by this number; `None`: nobody does it.
    pub(super) fn ask(&mut self, job: Job) -> Option<u64> {
        let ticket = self.next;
        self.next += 1;
        self.jobs.send((Some(ticket), job)).ok().map(|()| ticket)
    }
}
