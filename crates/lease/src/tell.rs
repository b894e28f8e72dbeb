//! What people are told of a change.

use crate::{Change, Desk, Lease, Record};

/// Lines about one record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// For the log. Scripts that watch the original look for `lcore N` and `pid P` in one line.
    pub log: Vec<String>,
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

fn lcores(count: usize) -> String {
    format!("{count} lcore{}", if count == 1 { "" } else { "s" })
}
