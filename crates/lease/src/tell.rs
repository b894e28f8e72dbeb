//! What people are told of a change.

use crate::{Change, Claim, Client, Desk, Lease, Record};

/// Lines about one record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// For the log. Scripts that watch the original look for `lcore N` and `pid P` in one line.
    pub log: Vec<String>,
    /// The same as the MTL Manager itself says it, for scripts that read its log: about clients
    /// that have registered, by what they say of themselves.
    pub original: Vec<String>,
    /// For the event log, from which it gets into the log too.
    pub event: Option<Line>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// An instance has registered.
    Registered(String),
    /// One that had registered, or held something, has ended.
    Ended(String),
    /// An administrator took everything from one.
    Cleared(String),
}

impl Desk {
    /// What to tell of `record`, before it is applied.
    #[must_use]
    pub fn tell(&self, record: &Record) -> Told {
        let Record { connection, change, refused, .. } = record;
        let mut told = Told::default();
        let Some(client) = self.clients().get(connection) else { return told };
        let name = client.name();
        let pid = client.peer.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
        let line = |verb: &str, lease: &Lease| {
            let cpu = lease.cpu.map_or_else(|| "unmapped".to_owned(), |cpu| format!("CPU {cpu}"));
            format!("lcore {} {verb} pid {pid} (instance {connection}, {cpu})", lease.id)
        };
        told.original = original(client, change, refused.is_some());
        match change {
            Change::Registered(claim) if refused.is_none() => {
                let said = format!(
                    "instance {connection} registered: {name}, claims to be pid {} of {}",
                    claim.pid, claim.hostname
                );
                // One that registers again and again is no news.
                if client.claim.is_none() {
                    told.event = Some(Line::Registered(said));
                } else {
                    told.log.push(said);
                }
            }
            Change::Leased { leases, .. } => {
                told.log = leases.iter().map(|lease| line("assigned to", lease)).collect();
            }
            Change::Returned(ids) => {
                let leases = ids.iter().filter_map(|id| client.leases.get(id));
                told.log = leases.map(|lease| line("returned by", lease)).collect();
            }
            Change::Queue { index, queue } => {
                let line = format!(
                    "queue {queue} of interface {index} assigned to pid {pid} (instance \
                     {connection})"
                );
                told.log.push(line);
            }
            Change::QueueReturned { index, queue } => {
                let line = format!(
                    "queue {queue} of interface {index} returned by pid {pid} (instance \
                     {connection})"
                );
                told.log.push(line);
            }
            Change::Flow { index, location, rule } => {
                let line = format!(
                    "flow rule {location} of interface {index} for pid {pid} (instance \
                     {connection}): {rule}"
                );
                told.log.push(line);
            }
            Change::FlowReturned { index, location } => {
                let line = format!(
                    "flow rule {location} of interface {index} taken away by pid {pid} (instance \
                     {connection})"
                );
                told.log.push(line);
            }
            Change::Cleared => {
                let count = client.leases.len();
                let said = format!(
                    "instance {connection} ({name}) lost {} to an administrator",
                    lcores(count)
                );
                told.log = client.leases.values().map(|lease| line("taken from", lease)).collect();
                told.event = Some(Line::Cleared(said));
            }
            Change::Closed => {
                let count = client.leases.len();
                let said =
                    format!("instance {connection} ({name}) ended; {} came back", lcores(count));
                told.log = client.leases.values().map(|lease| line("freed from", lease)).collect();
                if client.claim.is_some() || count > 0 {
                    told.event = Some(Line::Ended(said));
                }
            }
            _ => {}
        }
        told
    }
}

/// A prefix, and one of a few texts behind it.
fn original(client: &Client, change: &Change, refused: bool) -> Vec<String> {
    let claim = match change {
        Change::Registered(claim) if !refused => Some(claim),
        _ => client.claim.as_ref(),
    };
    let Some(Claim { hostname, pid, uid, interfaces }) = claim else { return Vec::new() };
    // The prefix ends at the first bracket, and the name in it at the first colon.
    let host = hostname.replace([':', ']'], "_");
    let held = || client.leases.values().filter(|lease| !lease.idle).map(|lease| lease.id);
    let removed = |id: u32| format!("Removed lcore {id}");
    let texts: Vec<String> = match change {
        Change::Registered(_) if !refused => {
            vec![format!("Registered, uid {uid}, {} interfaces", interfaces.len())]
        }
        Change::Leased { leases, .. } => {
            leases.iter().map(|lease| format!("Added lcore {}", lease.id)).collect()
        }
        Change::Returned(ids) => {
            ids.iter().filter(|id| client.leases.contains_key(id)).copied().map(removed).collect()
        }
        Change::Cleared => held().map(removed).collect(),
        Change::Closed => held().map(removed).chain(["Remove client.".to_owned()]).collect(),
        _ => Vec::new(),
    };
    texts.into_iter().map(|text| format!("[Instance {host}:{pid}] {text}")).collect()
}

fn lcores(count: usize) -> String {
    format!("{count} lcore{}", if count == 1 { "" } else { "s" })
}
