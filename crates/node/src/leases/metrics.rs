//! Counters in the text format that Prometheus reads (exposition format 0.0.4). No label has a
//! value that a client chose.

use super::counter::Counter;
use pointsman_model::lease::Protocol;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What is counted since the daemon started.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) connections: u64,
    /// Requests by their kind: all, and those that were refused.
    requests: BTreeMap<String, (u64, u64)>,
}

impl Metrics {
    pub(super) fn count(&mut self, kind: &str, refused: bool) {
        if !self.requests.contains_key(kind) {
            self.requests.insert(kind.to_owned(), (0, 0));
        }
        if let Some((all, no)) = self.requests.get_mut(kind) {
            *all += 1;
            *no += u64::from(refused);
        }
    }

    /// All of them, and how things stand at this moment.
    pub(super) fn text(&self, counter: &Counter) -> String {
        let clients = counter.desk.clients();
        let speaks = |protocol| clients.values().filter(|c| c.protocol == protocol).count() as u64;
        let registered = clients.values().filter(|c| c.claim.is_some()).count() as u64;
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            let _ =
                writeln!(text, "# HELP pointsman_{name} {help}\n# TYPE pointsman_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "pointsman_{name}{labels} {value}");
            }
        };
        let plain = |value: u64| vec![(String::new(), value)];
        let by_kind = |pick: fn(&(u64, u64)) -> u64| -> Vec<(String, u64)> {
            let row = |(kind, counts)| (format!("{{request=\"{kind}\"}}"), pick(counts));
            self.requests.iter().map(row).collect()
        };
        let protocols = [Protocol::Imtl, Protocol::Native];
        let by_protocol =
            protocols.map(|protocol| (format!("{{protocol=\"{protocol}\"}}"), speaks(protocol)));
        add("instances", "gauge", "Connected instances.", &by_protocol);
        add("instances_registered", "gauge", "Instances that registered.", &plain(registered));
        add("lcores_leased", "gauge", "Lcores held.", &plain(counter.desk.held() as u64));
        add("connections_total", "counter", "Connections seen.", &plain(self.connections));
        add("requests_total", "counter", "Requests of instances.", &by_kind(|(all, _)| *all));
        add("refusals_total", "counter", "Those refused.", &by_kind(|(_, refused)| *refused));
        let length = counter.journal.length();
        add("journal_bytes", "gauge", "Size of the journal of leases.", &plain(length));
        let failing = u64::from(counter.journal.failing().is_some());
        add("journal_failing", "gauge", "1: nothing is given away.", &plain(failing));
        let unclear = u64::from(counter.unclear());
        let help = "1: nothing is given away, the document in force is not understood.";
        add("document_unclear", "gauge", help, &plain(unclear));
        text
    }
}
