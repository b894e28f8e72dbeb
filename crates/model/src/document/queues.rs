//! What the document says of an interface's queues and flow rules.
//!
//! What a card can do of it is for whoever looks at the card; here is what no card can do.

use super::strict::Fields;
use super::{DocumentError, error};
use crate::cpu::{CpuSet, MAX_CPUS};
use crate::flow::{FlowRequest, FlowRule, QueueRights, check_flow};
use crate::nic::Polling;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// The most queues of a kind: the kernel counts them in 16 bits where a packet has its queue
/// (`queue_mapping` of `linux/skbuff.h`), and no card has more.
pub const MAX_QUEUES: u32 = 65_535;

/// The most flow rules of an interface.
pub const MAX_FLOWS: usize = 1024;

/// The longest `gro_flush_timeout_ns`: packets wait so long.
const LONGEST_FLUSH_NS: u64 = 1_000_000_000;

/// An interface's queues as the operator wants them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueuesSpec {
    /// How many there are of each kind.
    pub counts: CountsSpec,
    /// The receive queues that applications may have, and nothing else is spread over; `None`: all
    /// but the first.
    pub reserve: Option<BTreeSet<u32>>,
    /// How queues are polled and where their interrupts go. No queue is in two of them.
    pub tuning: Vec<TuningSpec>,
}

/// How many queues there are of each kind; `None`: as many as there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CountsSpec {
    /// Of those that receive and send.
    pub combined: Option<u32>,
    /// Of those that only receive.
    pub rx: Option<u32>,
    /// Of those that only send.
    pub tx: Option<u32>,
}

/// How some queues are polled, and where their interrupts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TuningSpec {
    /// Which; `None`: all of the interface's.
    pub queues: Option<BTreeSet<u32>>,
    /// How they are polled; `None`: as they are.
    pub polling: Option<Polling>,
    /// The CPUs that take their interrupts; `None`: those that do.
    pub interrupts: Option<InterruptsSpec>,
}

/// Which CPUs take the interrupts of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterruptsSpec {
    /// Those beside the lcores of whoever holds the queue: near them, and leased by nobody.
    BesideLcores,
    /// These.
    Cpus(CpuSet),
}

impl CountsSpec {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl QueuesSpec {
    /// Whether some interrupts follow the lcores that are leased.
    #[must_use]
    pub fn follows_lcores(&self) -> bool {
        self.tuning.iter().any(|it| it.interrupts == Some(InterruptsSpec::BesideLcores))
    }
}

/// An interface's queues: how many, which of them are kept for applications, how they are polled.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Queues)]
pub(super) struct RawQueues {
    /// How many channels that receive and send. Left out: as many as there are.
    #[schema(minimum = 1, maximum = 65535)]
    combined: Option<u32>,
    /// How many that only receive, on cards that have them apart.
    #[schema(minimum = 1, maximum = 65535)]
    rx: Option<u32>,
    /// How many that only send, likewise.
    #[schema(minimum = 1, maximum = 65535)]
    tx: Option<u32>,
    /// The receive queues that applications may have, by number. Packets of no flow rule are spread
    /// over the others. Never queue 0, which stays with the kernel's stack. Left out: applications
    /// may have all but 0, and packets are spread over those that nobody holds.
    reserve: Option<Vec<u32>>,
    /// How queues are polled, and where their interrupts go. No queue can be in two of them.
    #[serde(default)]
    #[schema(value_type = Vec<RawTuning>)]
    tuning: Vec<Fields<RawTuning>>,
}

/// How some queues are polled, and where their interrupts go. At least one of `busy_poll` and
/// `interrupts` must be given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = QueueTuning)]
pub(super) struct RawTuning {
    /// The queues, by number. Left out: all of the interface's that no other entry names.
    queues: Option<Vec<u32>>,
    /// How they are polled. For single queues this takes Linux 6.13.
    #[schema(value_type = Option<RawBusyPoll>)]
    busy_poll: Option<Fields<RawBusyPoll>>,
    /// The CPUs that take their interrupts.
    #[schema(value_type = Option<RawInterrupts>)]
    interrupts: Option<RawInterrupts>,
}

/// How queues are polled, for applications that poll theirs themselves (`SO_PREFER_BUSY_POLL`).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BusyPoll)]
pub(super) struct RawBusyPoll {
    /// How many polls in a row may find nothing before the interrupt is turned on again.
    #[schema(minimum = 1, maximum = 2147483647)]
    napi_defer_hard_irqs: u32,
    /// How long the kernel waits for an application to poll before it does it, in nanoseconds.
    #[schema(minimum = 1, maximum = 1000000000)]
    gro_flush_timeout_ns: u64,
}

/// The CPUs that take interrupts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected \"beside_lcores\" or an array of numbers of CPUs")]
#[schema(as = QueueInterrupts)]
pub(super) enum RawInterrupts {
    /// Beside the lcores of whoever holds the queue: on their NUMA node, and leased by nobody.
    Word(Beside),
    /// These CPUs, by number.
    Cpus(Vec<u32>),
}

/// The word for it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BesideLcores)]
pub(super) enum Beside {
    /// Where leased lcores are near and free ones are left.
    BesideLcores,
}

/// Where errors go, and what they are about.
struct Errors<'a> {
    at: &'a str,
    all: &'a mut Vec<DocumentError>,
}

impl Errors<'_> {
    fn add(&mut self, inner: &str, message: impl Into<String>) {
        self.all.push(error(&format!("{}{inner}", self.at), message));
    }
}

pub(super) fn check_queues(
    raw: RawQueues,
    at: &str,
    errors: &mut Vec<DocumentError>,
) -> QueuesSpec {
    let RawQueues { combined, rx, tx, reserve, tuning } = raw;
    let mut errors = Errors { at, all: errors };
    let counts = CountsSpec { combined, rx, tx };
    for (name, count) in [("combined", combined), ("rx", rx), ("tx", tx)] {
        if count.is_some_and(|count| !(1..=MAX_QUEUES).contains(&count)) {
            let count = count.unwrap_or_default();
            let why = format!("expected a number from 1 to {MAX_QUEUES}, found {count}");
            errors.add(&format!("/{name}"), why);
        }
    }
    if combined.is_some() && (rx.is_some() || tx.is_some()) {
        errors.add("", "expected `combined`, or `rx` and `tx`: a card has the one or the others");
    }
    let reserve = reserve.map(|list| check_reserved(&list, &mut errors));
    let tuning = check_tuning(tuning, &mut errors);
    QueuesSpec { counts, reserve, tuning }
}

fn check_reserved(list: &[u32], errors: &mut Errors<'_>) -> BTreeSet<u32> {
    let mut reserved = BTreeSet::new();
    for (index, &queue) in list.iter().enumerate() {
        let place = format!("/reserve/{index}");
        if queue == 0 {
            errors.add(&place, "queue 0 cannot be reserved: it stays with the kernel's stack");
        } else if !reserved.insert(queue) {
            errors.add(&place, format!("queue {queue} is reserved twice"));
        }
        is_queue(queue, &place, errors);
    }
    reserved
}

fn is_queue(queue: u32, place: &str, errors: &mut Errors<'_>) {
    if queue >= MAX_QUEUES {
        let why = format!("expected the number of a queue, below {MAX_QUEUES}, found {queue}");
        errors.add(place, why);
    }
}

fn check_tuning(raw: Vec<Fields<RawTuning>>, errors: &mut Errors<'_>) -> Vec<TuningSpec> {
    let mut tuned = BTreeMap::new();
    let mut rest = None;
    let mut tuning = Vec::with_capacity(raw.len());
    for (index, Fields(RawTuning { queues, busy_poll, interrupts })) in raw.into_iter().enumerate()
    {
        let place = format!("/tuning/{index}");
        if busy_poll.is_none() && interrupts.is_none() {
            errors.add(&place, "expected `busy_poll`, `interrupts`, or both");
        }
        match &queues {
            None => {
                if let Some(before) = rest.replace(index) {
                    let why = format!("the entry {before} is about all queues already");
                    errors.add(&place, why);
                }
            }
            Some(queues) if queues.is_empty() => {
                errors.add(&format!("{place}/queues"), "expected queues; leave it out for all");
            }
            Some(queues) => {
                for (at, queue) in queues.iter().enumerate() {
                    let place = format!("{place}/queues/{at}");
                    is_queue(*queue, &place, errors);
                    if let Some(before) = tuned.insert(*queue, index) {
                        let why = format!("queue {queue} is in the entry {before} already");
                        errors.add(&place, why);
                    }
                }
            }
        }
        tuning.push(TuningSpec {
            queues: queues.map(|queues| queues.into_iter().collect()),
            polling: busy_poll.map(|Fields(raw)| check_polling(&raw, &place, errors)),
            interrupts: interrupts.map(|raw| check_interrupts(raw, &place, errors)),
        });
    }
    tuning
}

fn check_polling(raw: &RawBusyPoll, at: &str, errors: &mut Errors<'_>) -> Polling {
    let RawBusyPoll { napi_defer_hard_irqs, gro_flush_timeout_ns } = *raw;
    let mut within = |name: &str, number: u64, most: u64| {
        if !(1..=most).contains(&number) {
            let why = format!("expected a number from 1 to {most}, found {number}");
            errors.add(&format!("{at}/busy_poll/{name}"), why);
        }
    };
    // The kernel takes an int (net/core/net-sysfs.c, `change_napi_defer_hard_irqs`).
    let most = u64::from(i32::MAX.unsigned_abs());
    within("napi_defer_hard_irqs", napi_defer_hard_irqs.into(), most);
    within("gro_flush_timeout_ns", gro_flush_timeout_ns, LONGEST_FLUSH_NS);
    Polling { defer_hard_irqs: napi_defer_hard_irqs, gro_flush_timeout: gro_flush_timeout_ns }
}

fn check_interrupts(raw: RawInterrupts, at: &str, errors: &mut Errors<'_>) -> InterruptsSpec {
    let cpus = match raw {
        RawInterrupts::Word(Beside::BesideLcores) => return InterruptsSpec::BesideLcores,
        RawInterrupts::Cpus(cpus) => cpus,
    };
    let place = format!("{at}/interrupts");
    if cpus.is_empty() {
        errors.add(&place, "expected CPUs: somebody has to take the interrupts");
    }
    for (index, cpu) in cpus.iter().enumerate().filter(|(_, cpu)| **cpu >= MAX_CPUS) {
        let why = format!("expected the number of a CPU, below {MAX_CPUS}, found {cpu}");
        errors.add(&format!("{place}/{index}"), why);
    }
    InterruptsSpec::Cpus(cpus.into_iter().collect())
}

pub(super) fn check_flows(
    raw: &[Fields<FlowRequest>],
    at: &str,
    errors: &mut Vec<DocumentError>,
) -> Vec<FlowRule> {
    let mut errors = Errors { at, all: errors };
    if raw.len() > MAX_FLOWS {
        errors.add("", format!("expected at most {MAX_FLOWS} rules, found {}", raw.len()));
    }
    let mut rules: Vec<(usize, FlowRule)> = Vec::with_capacity(raw.len());
    for (index, Fields(request)) in raw.iter().enumerate() {
        let place = format!("/{index}");
        match check_flow(request, MAX_QUEUES, QueueRights::Any) {
            Err(problem) => errors.add(&place, problem.to_string()),
            Ok(rule) => match rules.iter().find(|(_, it)| it.matching == rule.matching) {
                Some((before, _)) => {
                    errors.add(&place, format!("the rule {before} is about the same packets"));
                }
                None => rules.push((index, rule)),
            },
        }
    }
    rules.into_iter().map(|(_, rule)| rule).collect()
}

#[cfg(test)]
mod tests;
