//! Takes the reports of couriers, as many at a time as are there: one transaction on the disk for
//! all of them.
//!
//! What a node may send is what one host's owner may send: reports are let in one at a time of each
//! node, and only so many bytes of all of them, from before they are read until they are kept.

use crate::db::{Db, DbError, Report, Taken};
use crate::events::{Event, Events};
use crate::problem::Failure;
use pointsman_model::NodeName;
use pointsman_model::api::ProblemKind;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// How many reports wait. When there are more, couriers are told to come back.
const QUEUE: usize = 4096;

/// How many are taken at a time.
const AT_ONCE: usize = 512;

/// How many bytes of reports there may be at a time, in units: 32 MiB. While one is read, its JSON
/// takes up to sixteen times as much.
const ROOM: usize = (32 << 20) / UNIT;

/// What a report takes of the room at least, in bytes.
const UNIT: usize = 1 << 10;

/// How long a report waits for room before its courier is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where reports go.
#[derive(Debug, Clone)]
pub struct Intake {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    under_way: UnderWay,
    patience: Duration,
}

/// The nodes of which a report is under way.
type UnderWay = Arc<Mutex<HashSet<NodeName>>>;

#[derive(Debug)]
struct Job {
    report: Report,
    admitted: Admitted,
    taken: oneshot::Sender<Result<Taken, Failure>>,
}

/// A report that may come in. Its room and its node's turn are free again when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Admitted {
    node: NodeName,
    under_way: UnderWay,
    room: Option<OwnedSemaphorePermit>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        // Room first: whoever sees that the node's turn is over finds room too.
        self.room = None;
        nodes(&self.under_way).remove(&self.node);
    }
}

fn nodes(under_way: &UnderWay) -> std::sync::MutexGuard<'_, HashSet<NodeName>> {
    // No code that can panic runs while it is locked.
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Intake {
    /// Starts taking reports, on the runtime that this is called on. It ends when nobody can send
    /// any more.
    #[must_use]
    pub fn start(db: Db, events: Events) -> Self {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(db, events, waiting));
        Self::over(jobs, PATIENCE)
    }

    fn over(jobs: mpsc::Sender<Job>, patience: Duration) -> Self {
        let room = Arc::new(Semaphore::new(ROOM));
        Self { jobs, room, under_way: UnderWay::default(), patience }
    }

    /// Lets in a node's report of at most `bytes` bytes, before it is read.
    ///
    /// # Errors
    /// 503: another report of this node is under way, or there is no room for so much.
    pub async fn admit(&self, node: &NodeName, bytes: usize) -> Result<Admitted, Failure> {
        if !nodes(&self.under_way).insert(node.clone()) {
            return Err(busy("another report of this node is under way", 1));
        }
        let (node, under_way) = (node.clone(), self.under_way.clone());
        let mut admitted = Admitted { node, under_way, room: None };
        let units = bytes.div_ceil(UNIT).clamp(1, ROOM);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(self.patience, self.room.clone().acquire_many_owned(units));
        let Ok(Ok(room)) = room.await else { return Err(too_many()) };
        admitted.room = Some(room);
        Ok(admitted)
    }

    /// Keeps a report that was let in, and says what became of it when that is durable.
    ///
    /// # Errors
    /// 503: too many wait, or the database does not answer.
    pub async fn take(&self, report: Report, admitted: Admitted) -> Result<Taken, Failure> {
        let (taken, answer) = oneshot::channel();
        self.jobs.try_send(Job { report, admitted, taken }).map_err(|_| too_many())?;
        answer.await.unwrap_or_else(|_| Err(too_many()))
    }
}

fn too_many() -> Failure {
    busy("too many reports wait to be taken", 5)
}

fn busy(title: &str, seconds: u32) -> Failure {
    Failure { retry_after: Some(seconds), ..Failure::new(ProblemKind::Busy, title) }
}

async fn run(db: Db, events: Events, mut jobs: mpsc::Receiver<Job>) {
    let mut some = Vec::with_capacity(AT_ONCE);
    while jobs.recv_many(&mut some, AT_ONCE).await > 0 {
        let (mut reports, mut waiting) = (Vec::new(), Vec::new());
        for Job { report, admitted, taken } in some.drain(..) {
            reports.push(report);
            waiting.push((admitted, taken));
        }
        let answers = answers(db.take_reports(reports).await, waiting.len());
        for (answer, (admitted, waiting)) in answers.into_iter().zip(waiting) {
            if answer == Ok(Taken::Kept) {
                events.tell(Event::Node { name: admitted.node.clone() });
            }
            // Before the answer: whoever has it may send the next one.
            drop(admitted);
            // Who has gone away needs no answer.
            let _ = waiting.send(answer);
        }
    }
}

fn answers(taken: Result<Vec<Taken>, DbError>, waiting: usize) -> Vec<Result<Taken, Failure>> {
    match taken {
        Ok(taken) => taken.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(Failure::from(error)); waiting],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeName {
        NodeName::new(format!("edge-{number}")).unwrap()
    }

    fn intake() -> Intake {
        Intake::over(mpsc::channel(1).0, Duration::ZERO)
    }

    fn run(case: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(case);
    }

    #[test]
    fn one_report_of_a_node_is_under_way_at_a_time() {
        run(async {
            let intake = intake();
            let first = intake.admit(&node(1), 100).await.unwrap();
            let refused = intake.admit(&node(1), 100).await.unwrap_err();
            assert_eq!((refused.problem.status, refused.retry_after), (503, Some(1)));
            let other = intake.admit(&node(2), 100).await.unwrap();
            drop(first);
            let again = intake.admit(&node(1), 100).await.unwrap();
            drop((other, again));
            assert!(nodes(&intake.under_way).is_empty());
            assert_eq!(intake.room.available_permits(), ROOM);
        });
    }

    #[test]
    fn reports_of_all_nodes_together_have_so_many_bytes_and_no_more() {
        run(async {
            let mut intake = intake();
            let mut large = Vec::new();
            for number in 0..8 {
                large.push(intake.admit(&node(number), 4 << 20).await.unwrap());
            }
            let refused = intake.admit(&node(8), 1).await.unwrap_err();
            assert_eq!((refused.problem.status, refused.retry_after), (503, Some(5)));
            // Who was refused has left nothing behind, and who waits gets what becomes free.
            intake.patience = Duration::from_secs(600);
            let last = node(8);
            let (waiting, ()) = tokio::join!(intake.admit(&last, 1), async {
                tokio::task::yield_now().await;
                large.pop();
            });
            drop(waiting.unwrap());
            drop(large);
            assert_eq!(intake.room.available_permits(), ROOM);
            // One that is larger than all room there is would never get in.
            drop(intake.admit(&node(1), usize::MAX).await.unwrap());
        });
    }
}
