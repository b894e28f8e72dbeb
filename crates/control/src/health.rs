//! How a node stands: pure decisions over what it reported and what was published.

use crate::db::{CourierStanding, NodeRow, Standing};
use pointsman_model::fleet::{CourierStatus, Node, NodeHealth, RefusedSnapshot};
use pointsman_model::status::{HookState, HookStatus, Status};

/// A node that has not reported for this many of its intervals is silent.
const SILENT_AFTER: u64 = 3;

/// What a report may take on its way, in milliseconds, beyond that.
const ON_THE_WAY: u64 = 2_000;

/// The longest text of others that is kept, in characters.
const LONGEST: usize = 300;

/// A node as the API tells it.
#[must_use]
pub fn node(row: NodeRow, now: u64) -> Node {
    let (health, trouble) = judge(&row, now);
    let in_force = row.standing.and_then(|standing| standing.in_force);
    Node {
        name: row.name,
        revision: row.revision,
        labels: row.labels,
        enrolled_unix_ms: row.enrolled_ms,
        seen_unix_ms: row.seen_ms,
        published: row.published,
        in_force,
        health,
        trouble,
    }
}

/// How a node stands at `now`, and why it is not well.
#[must_use]
pub fn judge(row: &NodeRow, now: u64) -> (NodeHealth, String) {
    let (Some(seen), Some(courier)) = (row.seen_ms, &row.courier) else {
        return match row.enrolled_ms {
            None => (NodeHealth::New, "has not enrolled yet".into()),
            Some(_) => (NodeHealth::New, "has enrolled, and not reported yet".into()),
        };
    };
    let trouble = trouble(row, courier);
    let patience = courier.interval_ms.saturating_mul(SILENT_AFTER).saturating_add(ON_THE_WAY);
    let quiet = now.saturating_sub(seen);
    if quiet > patience {
        let mut why = format!("has not reported for {}", duration(quiet));
        if let Some((_, before)) = trouble {
            why += &format!("; before that: {before}");
        }
        return (NodeHealth::Silent, why);
    }
    trouble.unwrap_or((NodeHealth::Well, String::new()))
}

/// What is wrong with a node that reports.
fn trouble(row: &NodeRow, courier: &CourierStanding) -> Option<(NodeHealth, String)> {
    let CourierStanding { interval_ms: _, daemon_trouble, source_trouble } = courier;
    if let Some(why) = daemon_trouble {
        return Some((NodeHealth::Failing, format!("the daemon does not answer: {why}")));
    }
    let standing = row.standing.clone().unwrap_or_default();
    if let Some(why) = standing.failing {
        return Some((NodeHealth::Failing, why));
    }
    let source =
        source_trouble.as_ref().map(|why| format!("cannot fetch what is published: {why}"));
    let Some(published) = row.published else {
        return source.map(|why| (NodeHealth::Behind, why));
    };
    let behind = match standing.in_force {
        Some(in_force) if in_force == published => source.or(standing.waiting),
        Some(in_force) if in_force > published => Some(format!(
            "generation {in_force} is in force, which the fleet did not publish (it is at \
             {published}): somebody applied a document by hand"
        )),
        in_force => {
            let running =
                in_force.map_or("nothing".into(), |number| format!("generation {number}"));
            let why = source.or(standing.waiting).map_or(String::new(), |why| format!("; {why}"));
            Some(format!("{running} is in force, generation {published} is published{why}"))
        }
    };
    behind.map(|why| (NodeHealth::Behind, why))
}

/// What a daemon's status comes to.
#[must_use]
pub fn standing(status: &Status) -> Standing {
    let failing = failing(status).map(|why| line(&why));
    let incomplete = refused(status).filter(|refused| refused.kind == "incomplete");
    let mut waiting = incomplete.map(|refused| line(&refused.message));
    waiting = waiting.or_else(|| {
        status.hooks.iter().find_map(|hook| {
            let pending = hook.pending.as_ref().filter(|_| hook.state == HookState::Pending)?;
            Some(line(&format!("{}: {pending}", hook.hook.interface)))
        })
    });
    Standing { in_force: status.generation.filter(|_| !status.drained), failing, waiting }
}

/// What a courier's part of a report comes to.
#[must_use]
pub fn courier_standing(courier: &CourierStatus) -> CourierStanding {
    CourierStanding {
        interval_ms: courier.poll_interval_ms,
        daemon_trouble: courier.daemon_trouble.as_deref().map(line),
        source_trouble: courier.source_trouble.as_deref().map(line),
    }
}

fn refused(status: &Status) -> Option<&RefusedSnapshot> {
    status.fleet.as_ref()?.refused.as_ref()
}

/// Whether a snapshot was not taken for what comes by itself: nothing is published for the node
/// yet, or not all of it has arrived.
fn is_early(refused: &RefusedSnapshot) -> bool {
    matches!(refused.kind.as_str(), "no_record" | "incomplete")
}

fn failing(status: &Status) -> Option<String> {
    if status.drained {
        return Some("is drained, and waits for a new document".into());
    }
    if let Some(refused) = refused(status).filter(|refused| !is_early(refused)) {
        return Some(format!("refused what was published: {}", refused.message));
    }
    if let Some(refused) = &status.refused_document {
        let first = refused.errors.first().map_or("", |error| error.message.as_str());
        return Some(format!("refused the document of {}: {first}", refused.source));
    }
    if let Some(refusal) = status.refusals.first() {
        return Some(refusal.message.clone());
    }
    status.hooks.iter().find_map(hook_failing)
}

fn hook_failing(hook: &HookStatus) -> Option<String> {
    let interface = &hook.hook.interface;
    if let Some(refusal) = hook.refusals.first() {
        return Some(format!("{interface}: {}", refusal.message));
    }
    match hook.state {
        HookState::Bypassed => Some(format!("{interface}: an operator bypassed the chain")),
        HookState::Drifted => {
            let what = hook
                .drift
                .as_ref()
                .map_or("somebody else changed what runs", |drift| drift.message.as_str());
            Some(format!("{interface}: {what}"))
        }
        HookState::Outdated => Some(format!("{interface}: an older chain is running")),
        HookState::Running | HookState::Absent | HookState::Pending => None,
    }
}

/// A text of somebody else as one line of bounded length.
fn line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = plain.take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

/// A time for people.
#[must_use]
pub fn duration(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::NodeName;
    use serde_json::{Value, json};

    const NOW: u64 = 1_000_000;

    fn row(published: Option<u64>, in_force: Option<u64>) -> NodeRow {
        NodeRow {
            name: NodeName::new("edge-1").unwrap(),
            revision: 1,
            labels: Default::default(),
            enrolled_ms: Some(1),
            invited_until_ms: None,
            seen_ms: Some(NOW),
            standing: Some(Standing { in_force, ..Standing::default() }),
            courier: Some(CourierStanding { interval_ms: 10_000, ..CourierStanding::default() }),
            published,
        }
    }

    #[test]
    fn a_node_is_new_until_it_reports() {
        let mut node = NodeRow { seen_ms: None, courier: None, standing: None, ..row(None, None) };
        assert_eq!(judge(&node, NOW).0, NodeHealth::New);
        node.enrolled_ms = None;
        assert_eq!(judge(&node, NOW), (NodeHealth::New, "has not enrolled yet".into()));
    }

    #[test]
    fn generations_decide_between_well_and_behind() {
        assert_eq!(judge(&row(None, None), NOW), (NodeHealth::Well, String::new()));
        assert_eq!(judge(&row(Some(3), Some(3)), NOW), (NodeHealth::Well, String::new()));
        for (published, in_force, why) in [
            (3, None, "nothing is in force, generation 3 is published"),
            (3, Some(2), "generation 2 is in force, generation 3 is published"),
            (3, Some(4), "applied a document by hand"),
        ] {
            let (health, trouble) = judge(&row(Some(published), in_force), NOW);
            assert_eq!(health, NodeHealth::Behind);
            assert!(trouble.contains(why), "{trouble}");
        }
    }

    #[test]
    fn three_intervals_without_a_report_are_silence() {
        let node = row(Some(3), Some(3));
        assert_eq!(judge(&node, NOW + 32_000).0, NodeHealth::Well);
        let (health, trouble) = judge(&node, NOW + 32_001);
        assert_eq!((health, trouble.as_str()), (NodeHealth::Silent, "has not reported for 32 s"));
        let (_, trouble) = judge(&row(Some(3), Some(2)), NOW + 7_200_000);
        assert_eq!(
            trouble,
            "has not reported for 2 h; before that: generation 2 is in force, generation 3 is \
             published"
        );
        // A clock that went back is no silence.
        assert_eq!(judge(&node, 0).0, NodeHealth::Well);
        let mut absurd = row(None, None);
        absurd.courier = Some(CourierStanding { interval_ms: u64::MAX, ..Default::default() });
        assert_eq!(judge(&absurd, u64::MAX).0, NodeHealth::Well);
    }

    #[test]
    fn what_fails_comes_before_what_is_late() {
        let mut node = row(Some(3), Some(2));
        node.courier.as_mut().unwrap().source_trouble = Some("no route".into());
        let (health, trouble) = judge(&node, NOW);
        assert_eq!(health, NodeHealth::Behind);
        assert!(trouble.ends_with("cannot fetch what is published: no route"), "{trouble}");
        node.standing.as_mut().unwrap().failing = Some("eth0: no".into());
        assert_eq!(judge(&node, NOW), (NodeHealth::Failing, "eth0: no".into()));
        node.courier.as_mut().unwrap().daemon_trouble = Some("no socket".into());
        let (health, trouble) = judge(&node, NOW);
        assert_eq!(
            (health, trouble.as_str()),
            (NodeHealth::Failing, "the daemon does not answer: no socket")
        );
    }

    fn status(more: &Value) -> Status {
        let mut status = json!({"version": "1", "pid": 1, "uptime_seconds": 1, "node": "edge-1",
            "generation": 7, "drained": false, "document": "/d", "refused_document": null,
            "hooks": [], "foreign": [], "refusals": [], "notes": []});
        for (key, value) in more.as_object().unwrap() {
            status[key] = value.clone();
        }
        serde_json::from_value(status).unwrap()
    }

    fn fleet(kind: &str) -> Value {
        json!({"fleet": {"fleet": "f", "node": "edge-1", "key_id": "0", "generation": 7,
            "refused": {"at_unix_ms": 1, "kind": kind, "message": "line\none"}}})
    }

    #[test]
    fn a_status_comes_to_what_is_in_force_and_the_first_reason_why_not() {
        let good = standing(&status(&json!({})));
        assert_eq!(good, Standing { in_force: Some(7), failing: None, waiting: None });
        let drained = standing(&status(&json!({"drained": true})));
        assert_eq!(drained.in_force, None);
        assert!(drained.failing.unwrap().contains("drained"));
        assert_eq!(standing(&status(&fleet("no_record"))), good);
        let incomplete = standing(&status(&fleet("incomplete")));
        assert_eq!((incomplete.failing, incomplete.waiting), (None, Some("line one".into())));
        let refused = standing(&status(&fleet("bad_signature")));
        assert_eq!(refused.failing.unwrap(), "refused what was published: line one");
        let document = json!({"refused_document": {"source": "/d", "at_unix_ms": 1,
            "errors": [{"pointer": "/x", "message": "y".repeat(10_000)}]}});
        let failing = standing(&status(&document)).failing.unwrap();
        assert!(failing.starts_with("refused the document of /d: yyy"), "{failing}");
        assert!(failing.chars().count() <= LONGEST + 1);
    }

    #[test]
    fn hooks_that_wait_or_are_not_as_wanted_show() {
        let hook = |state: &str, more: &Value| {
            let mut hook = json!({"hook": {"interface": "eth0", "kind": "xdp"},
                "interface_index": null, "state": state, "engine": "fused", "mode": null,
                "generation": 7, "fused": null, "members": [], "passed_end": 0, "refusals": []});
            for (key, value) in more.as_object().unwrap() {
                hook[key] = value.clone();
            }
            standing(&status(&json!({"hooks": [hook]})))
        };
        assert_eq!(hook("running", &json!({})).failing, None);
        let pending = hook("pending", &json!({"pending": "no such interface"}));
        assert_eq!(pending.waiting.as_deref(), Some("eth0: no such interface"));
        assert_eq!(pending.failing, None);
        for state in ["drifted", "bypassed", "outdated"] {
            let failing = hook(state, &json!({})).failing.unwrap();
            assert!(failing.starts_with("eth0: "), "{failing}");
        }
        let mut waits = row(Some(7), Some(7));
        waits.standing = Some(pending);
        assert_eq!(judge(&waits, NOW), (NodeHealth::Behind, "eth0: no such interface".into()));
    }

    #[test]
    fn times_are_told_in_fitting_units() {
        let told: Vec<_> = [0, 119_999, 120_000, 7_200_000, 172_800_000].map(duration).into();
        assert_eq!(told, ["0 s", "119 s", "2 min", "2 h", "2 days"]);
    }
}
