//! What can be said of a document's queues and flow rules before a card is asked.

use super::{Counts, Queues, check_reserve, counts_wanted};
use pointsman_model::document::InterfaceSpec;
use pointsman_model::flow::FlowAction;
use pointsman_model::nic::NicFacts;

/// What a card will not do of what the document says of it, as far as its driver tells: each with the
/// place below the interface.
#[must_use]
pub fn outlook(spec: &InterfaceSpec, nic: &NicFacts) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let queues = spec.queues.clone().unwrap_or_default();
    let now = nic.channels.as_ref();
    let counts = match counts_wanted(&queues.counts, now) {
        Ok(counts) => Some(counts),
        Err(why) => {
            if !queues.counts.is_empty() {
                found.push(("/queues".to_owned(), why.to_string()));
            }
            now.map(Counts::of)
        }
    };
    // Some drivers say nothing here and have queues all the same.
    let there = counts.map(|counts| Queues::of(Some(&counts.channels())));
    if let (Some(there), Some(reserve)) = (there, &queues.reserve) {
        let list: Vec<u32> = reserve.iter().copied().collect();
        let problems = check_reserve(there, &list).1.into_iter();
        found.extend(problems.map(|why| ("/queues/reserve".to_owned(), why.to_string())));
    }
    let ntuple = nic.offloads.map(|offloads| offloads.ntuple);
    if let (Some(ntuple), false) = (ntuple.filter(|it| !it.on), spec.flows.is_empty()) {
        let why = match ntuple.changeable {
            true => "its flow rules are turned off (ntuple): `ethtool -K DEV ntuple on`",
            false => "its driver has no flow rules (ntuple)",
        };
        found.push(("/flows".to_owned(), why.to_owned()));
        return found;
    }
    for (number, rule) in spec.flows.iter().enumerate() {
        if let (FlowAction::Queue(queue), Some(Queues { receive, .. })) = (rule.action, there)
            && queue >= receive
        {
            let why = format!("queue {queue} does not exist: there are {receive} receive queues");
            found.push((format!("/flows/{number}"), why));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::Document;
    use pointsman_model::nic::{Channels, Offload, Offloads};

    fn spec(says: &str) -> InterfaceSpec {
        let text = format!(
            r#"{{"schema": "pointsman.node/v1", "node": "n", "generation": 1,
                "interfaces": {{"eth0": {says}}}}}"#
        );
        let document = Document::parse(text.as_bytes()).unwrap();
        document.interfaces.into_values().next().unwrap()
    }

    fn said(says: &str, nic: &NicFacts) -> Vec<String> {
        outlook(&spec(says), nic).iter().map(|(at, why)| format!("{at}: {why}")).collect()
    }

    #[test]
    fn what_a_card_will_not_do_is_known_as_far_as_its_driver_tells() {
        let channels = Channels { combined: 8, max_combined: 8, ..Channels::default() };
        let ntuple = Offload { on: true, changeable: true };
        let offloads = Offloads { ntuple, ..Offloads::default() };
        let mut nic =
            NicFacts { channels: Some(channels), offloads: Some(offloads), ..NicFacts::default() };
        let says = r#"{"queues": {"combined": 4, "reserve": [3, 4]},
            "flows": [{"type": "udp4", "queue": 3}, {"type": "tcp4", "queue": 5}]}"#;
        assert_eq!(
            said(says, &nic),
            [
                "/queues/reserve: queue 4 cannot be reserved: there are 4 receive queues, from 0",
                "/flows/1: queue 5 does not exist: there are 4 receive queues",
            ]
        );
        let more = r#"{"queues": {"combined": 9, "reserve": [7]}}"#;
        assert_eq!(said(more, &nic), ["/queues: it can have at most 8 `combined` queues, not 9"]);
        nic.offloads = Some(Offloads::default());
        let flows = r#"{"flows": [{"type": "udp4", "queue": 30}]}"#;
        assert_eq!(said(flows, &nic), ["/flows: its driver has no flow rules (ntuple)"]);
        // Nothing is known, so nothing is said but of what has to be known.
        assert_eq!(
            said(says, &NicFacts::default()),
            ["/queues: its driver has a fixed number of queues"]
        );
        assert_eq!(said("{}", &nic), Vec::<String>::new());
    }
}
