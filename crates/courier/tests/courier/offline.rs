//! Hours pass, in no time: the clock is tokio's, and stands still unless everybody waits.

use crate::stage::NODE;
use crate::stage::fleet::Fleet;
use futures_util::stream;
use hyper::body::Bytes;
use pointsman_courier::source::{Download, LatestAnswer, Place, Source, SourceError};
use pointsman_courier::{Config, Courier, MemorySink, Outcome, PollError, Trust};
use pointsman_model::Sha256;
use pointsman_model::fleet::CourierStatus;
use pointsman_snapshot::latest;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A store that can be away, or pretend that nothing is in it.
#[derive(Clone)]
struct Store {
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    down: bool,
    empty_shards: bool,
    /// How slowly objects come, if they do: a byte in so long.
    slow: Option<Duration>,
    requests: u64,
    objects: u64,
}

impl Store {
    fn read(&self, name: &str) -> Result<Bytes, SourceError> {
        let mut state = self.state.lock().unwrap();
        state.requests += 1;
        if state.down {
            return Err(SourceError::Unreachable { what: name.into(), why: "no route".into() });
        }
        let missing = |_| SourceError::Missing { what: name.into() };
        std::fs::read(self.root.join(name)).map(Bytes::from).map_err(missing)
    }
}

impl Source for Store {
    async fn latest(&mut self, tag: Option<&str>) -> Result<LatestAnswer, SourceError> {
        let bytes = self.read("latest")?;
        let now = Sha256::of(&bytes).to_string();
        if tag == Some(&now) {
            return Ok(LatestAnswer::Unchanged);
        }
        Ok(LatestAnswer::Found { bytes, tag: Some(now) })
    }

    async fn shard(&mut self, shard: &Sha256, from: u64, len: usize) -> Result<Bytes, SourceError> {
        let bytes = self.read(&latest::shard_name(shard))?;
        if self.state.lock().unwrap().empty_shards {
            return Ok(vec![0; len].into());
        }
        let from = (from as usize).min(bytes.len());
        Ok(bytes.slice(from..(from + len).min(bytes.len())))
    }

    async fn object(&mut self, place: &Place, from: u64) -> Result<Download, SourceError> {
        self.state.lock().unwrap().objects += 1;
        let Place::Store(hash) = place else { panic!("{place}") };
        let bytes = self.read(&latest::object_name(hash))?;
        let total = Some(bytes.len() as u64);
        let rest = bytes.slice(from as usize..);
        let Some(pause) = self.state.lock().unwrap().slow else {
            let stream = Box::pin(stream::iter([Ok(rest)]));
            return Ok(Download { from, total, stream });
        };
        let stream = Box::pin(stream::unfold(rest, move |mut rest| async move {
            sleep(pause).await;
            (!rest.is_empty()).then(|| (Ok(rest.split_to(1)), rest))
        }));
        Ok(Download { from, total, stream })
    }
}

/// What a poll looked like from outside.
#[derive(Debug, Clone)]
struct Poll {
    at: Instant,
    kind: String,
    status: CourierStatus,
}

struct Offline {
    _directory: tempfile::TempDir,
    fleet: Fleet,
    store: Store,
    courier: Courier<Store, MemorySink>,
    polls: Arc<Mutex<Vec<Poll>>>,
}

impl Offline {
    fn new(interval: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fleet = Fleet::new(directory.path());
        let store = Store { root: directory.path().into(), state: Arc::default() };
        let config = Config {
            fleet: fleet.name.clone(),
            node: NODE.parse().unwrap(),
            trust: Trust::Key(Box::new(fleet.key.public_key().clone())),
            interval: Duration::from_secs(interval),
        };
        let courier = Courier::new(config, store.clone(), MemorySink::default());
        Self { _directory: directory, fleet, store, courier, polls: Arc::default() }
    }

    /// Lets the courier poll for so long; gives the polls of that time.
    async fn pass(&mut self, time: Duration) -> Vec<Poll> {
        let polls = Arc::clone(&self.polls);
        let seen = move |result: &Result<Outcome, PollError>, status: CourierStatus| {
            let kind = match result {
                Ok(Outcome::Incomplete { error, .. }) => format!("incomplete {}", error.kind()),
                Ok(outcome) => format!("{outcome:?}"),
                Err(error) => error.kind().to_owned(),
            };
            polls.lock().unwrap().push(Poll { at: Instant::now(), kind, status });
        };
        let Err(_) = timeout(time, self.courier.poll_for_ever(seen)).await;
        std::mem::take(&mut self.polls.lock().unwrap())
    }

    fn requests(&self) -> u64 {
        std::mem::take(&mut self.store.state.lock().unwrap().requests)
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_an_hour_is_asked_less_and_less_and_found_again_soon() {
    let mut offline = Offline::new(10);
    offline.fleet.publish_one(NODE, 1, &[]);
    let polls = offline.pass(Duration::from_secs(600)).await;
    assert!((48..=81).contains(&polls.len()), "{}", polls.len());
    assert_eq!(offline.requests(), polls.len() as u64 + 3, "one each, and three for the record");
    assert!(polls.iter().all(|poll| poll.status.source_trouble.is_none()));

    offline.store.state.lock().unwrap().down = true;
    let polls = offline.pass(HOUR).await;
    assert!(polls.iter().all(|poll| poll.kind == "unreachable"), "{polls:?}");
    // 60 s at most, half of that on average.
    assert!((60..=160).contains(&polls.len()), "{}", polls.len());
    assert_eq!(offline.requests(), polls.len() as u64);
    for pair in polls.windows(2) {
        assert!(pair[1].at - pair[0].at <= Duration::from_secs(61));
    }
    let last = &polls.last().unwrap().status;
    assert_eq!((last.handed_over, last.snapshot), (Some(1), Some(1)), "what it has, it keeps");
    assert!(last.source_trouble.as_ref().unwrap().contains("no route"));

    offline.fleet.publish_one(NODE, 2, &[]);
    offline.store.state.lock().unwrap().down = false;
    let began = Instant::now();
    let polls = offline.pass(Duration::from_secs(300)).await;
    assert_eq!(polls[0].kind, "HandedOver { generation: 2 }");
    assert!(polls[0].at - began <= Duration::from_secs(61));
    assert_eq!(polls[0].status.source_trouble, None);
    // From then on at the old pace.
    assert!((18..=41).contains(&polls.len()), "{}", polls.len());
    assert_eq!(offline.courier.sink().handed_over, 2);
}

#[tokio::test(start_paused = true)]
async fn that_there_is_no_record_is_not_believed_for_long() {
    let mut offline = Offline::new(10);
    offline.fleet.publish_one(NODE, 1, &[]);
    offline.store.state.lock().unwrap().empty_shards = true;
    let polls = offline.pass(Duration::from_secs(30)).await;
    assert_eq!(polls[0].kind, "NoRecord");
    assert!(polls[1..].iter().all(|poll| poll.kind == "Unchanged"), "{polls:?}");
    offline.store.state.lock().unwrap().empty_shards = false;
    let polls = offline.pass(Duration::from_secs(60)).await;
    assert!(polls.iter().any(|poll| poll.kind == "HandedOver { generation: 1 }"), "{polls:?}");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_had_is_tried_again_at_growing_intervals() {
    let mut offline = Offline::new(10);
    let object = offline.fleet.object(b"object");
    let path = offline.fleet.root.join(latest::object_name(&object.sha256));
    std::fs::write(&path, "other").unwrap();
    offline.fleet.publish_one(NODE, 1, &[object]);
    let polls = offline.pass(HOUR).await;
    assert!(polls.len() > 250, "polls go on: {}", polls.len());
    assert!(polls.iter().all(|poll| poll.kind.starts_with("incomplete")), "{polls:?}");
    let tries = offline.store.state.lock().unwrap().objects;
    assert!((12..80).contains(&tries), "{tries}");
    std::fs::write(&path, "object").unwrap();
    let polls = offline.pass(Duration::from_secs(310)).await;
    assert!(polls.iter().any(|poll| poll.kind == "HandedOver { generation: 1 }"), "{polls:?}");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_hardly_comes_is_given_up_and_gone_on_with() {
    let mut offline = Offline::new(10);
    let object = offline.fleet.object(&[7; 100]);
    offline.fleet.publish_one(NODE, 1, &[object]);
    offline.store.state.lock().unwrap().slow = Some(Duration::from_secs(5));
    let polls = offline.pass(Duration::from_secs(1800)).await;
    let first = polls.iter().position(|poll| poll.kind == "incomplete too_slow").unwrap();
    assert!(polls[..first].iter().all(|poll| poll.kind == "Fetching { generation: 1 }"));
    // Every try goes on where the one before was: in the end it is whole.
    let last = &polls.iter().find(|poll| poll.kind.starts_with("HandedOver")).unwrap();
    assert_eq!(last.status.handed_over, Some(1));
    assert!(offline.store.state.lock().unwrap().objects > 5);
}
