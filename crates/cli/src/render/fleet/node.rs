//! Nodes.

use super::{NOTHING, health, labels};
use crate::control::{Session, control_url, is_open};
use crate::output::Look;
use crate::render::status::status;
use crate::render::table::{Column, cell, lines, table};
use crate::render::text::{Tone, ago, grouped, indent, micros, minute, one_line};
use pointsman_model::fleet::{Enrolment, Labels, Node, NodeReport};
use std::fmt::Write as _;
use std::path::Path;

/// All of them, a line each.
pub(crate) fn nodes(look: Look, nodes: &[Node], now_unix_ms: u64) -> String {
    if nodes.is_empty() {
        return "no node\n".to_owned();
    }
    let mut rows = table(
        look,
        &[
            ("NAME", Column::Whole),
            ("HEALTH", Column::Whole),
            ("IN FORCE", Column::Number),
            ("PUBLISHED", Column::Number),
            ("SEEN", Column::Whole),
            ("LABELS", Column::Text),
            ("TROUBLE", Column::Text),
        ],
    );
    for node in nodes {
        rows.add_row([
            cell(&node.name),
            cell(health(look, node.health)),
            cell(generation(node.in_force)),
            cell(generation(node.published)),
            cell(seen(node, now_unix_ms)),
            cell(labels(&node.labels)),
            cell(one_line(&node.trouble)),
        ]);
    }
    lines(&rows)
}

pub(super) fn generation(generation: Option<u64>) -> String {
    generation.map_or_else(|| NOTHING.to_owned(), |generation| generation.to_string())
}

pub(super) fn seen(node: &Node, now_unix_ms: u64) -> String {
    node.seen_unix_ms.map_or_else(|| "never".to_owned(), |seen| ago(now_unix_ms, seen))
}

/// One, with what it reported last.
pub(crate) fn node(
    look: Look,
    node: &Node,
    report: Option<&NodeReport>,
    now_unix_ms: u64,
) -> String {
    let name = look.paint(Tone::Heading, node.name.as_str());
    let mut text = format!("{name}  {}", health(look, node.health));
    if !node.trouble.is_empty() {
        let _ = write!(text, ": {}", one_line(&node.trouble));
    }
    text.push('\n');
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<11} {value}");
    };
    line("labels", &labels(&node.labels));
    let enrolled = node.enrolled_unix_ms.map_or_else(|| "not yet".to_owned(), minute);
    line("enrolled", &enrolled);
    line("seen", &seen(node, now_unix_ms));
    let generation = |number: Option<u64>| {
        number.map_or_else(|| "nothing".to_owned(), |number| format!("generation {number}"))
    };
    line("published", &generation(node.published));
    line("in force", &generation(node.in_force));
    let Some(NodeReport { courier, status: daemon, counters: _ }) = report else {
        line("report", "none yet");
        return text;
    };
    let snapshot = courier.snapshot.map_or_else(
        || "no snapshot seen".to_owned(),
        |snapshot| format!("snapshot {}", grouped(snapshot)),
    );
    let handed = courier.handed_over.map_or_else(
        || "nothing handed over".to_owned(),
        |generation| format!("generation {generation} handed over"),
    );
    let interval = micros(courier.poll_interval_ms.saturating_mul(1_000));
    let version = one_line(&courier.version);
    line("courier", &format!("{version}, every {interval}: {snapshot}, {handed}"));
    for trouble in [&courier.source_trouble, &courier.daemon_trouble].into_iter().flatten() {
        line("", &look.paint(Tone::Bad, &one_line(trouble)));
    }
    let Some(daemon) = daemon else { return text };
    text += "  the node itself says:\n";
    text + &indent(&status(look, daemon), "    ")
}

/// What became of labels.
pub(crate) fn labelled(node: &Node, before: &Labels) -> String {
    let after = &node.labels;
    let mut text = String::new();
    for (key, value) in after {
        let _ = match before.get(key) {
            Some(old) if old == value => Ok(()),
            Some(old) => writeln!(text, "  {key}: {old} -> {value}"),
            None => writeln!(text, "  {key}: {value}"),
        };
    }
    for (key, old) in before.iter().filter(|(key, _)| !after.contains_key(key)) {
        let _ = writeln!(text, "  {key}: {old} -> removed");
    }
    if text.is_empty() {
        return format!("{}: labels are as they were\n", node.name);
    }
    format!("{}:\n{text}publish to make it count: pointsman fleet publish\n", node.name)
}

/// The question before a node is removed.
pub(crate) fn removal(node: &Node) -> String {
    let runs = match node.in_force {
        Some(generation) => format!(
            "; it goes on with generation {generation} until it is drained (pointsman drain, there)"
        ),
        None => String::new(),
    };
    super::go_on(&format!(
        "remove node {}: its credential ends, and the next publish has no record of it{runs}",
        node.name
    ))
}

/// How a node enrols.
pub(crate) fn enrolment(
    look: Look,
    session: &Session,
    enrolment: &Enrolment,
    now_unix_ms: u64,
) -> String {
    let Enrolment { node, token, expires_unix_ms, key_id, enrolled_unix_ms, seen_unix_ms } =
        enrolment;
    let mut text = look.paint(Tone::Heading, &format!("one-time token for {node}")) + "\n";
    let _ = writeln!(text, "  {}", one_line(token));
    let until = minute(*expires_unix_ms);
    let _ = writeln!(text, "good once, until {until}, and shown this once\n");
    let _ = writeln!(text, "on {node}, as root:");
    let _ = writeln!(text, "  {}", enrol_command(session, token, key_id));
    if let Some(ca) = &session.ca {
        let _ = writeln!(text, "with a copy of {} there", one_line(&ca.display().to_string()));
    }
    if let Some(heard) = (*seen_unix_ms).max(*enrolled_unix_ms) {
        let head = look.paint(Tone::Warn, "note:");
        let ago = ago(now_unix_ms, heard);
        let _ = writeln!(
            text,
            "\n{head} {node} is enrolled already, and was heard of {ago}: it is shut out as soon \
             as the token is used"
        );
    }
    text
}

/// What is typed on the node. The token is no argument of a process: `echo` is the shell itself.
/// The id of the key lets the courier believe nobody but this control plane.
fn enrol_command(session: &Session, token: &str, key_id: &str) -> String {
    let Session { url, token: _, ca } = session;
    // The courier does not go where others can listen unless it is told to.
    let insecure = control_url(url).is_ok_and(|url| is_open(&url));
    let (url, token, key_id) = (quoted(url), quoted(token), quoted(key_id));
    let mut command =
        format!("echo {token} | pointsman-courier enroll --control {url} --key-id {key_id}");
    if insecure {
        command += " --insecure";
    }
    if let Some(name) = ca.as_deref().and_then(Path::file_name) {
        command += &format!(" --ca {}", quoted(&name.to_string_lossy()));
    }
    command
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+".contains(c);
    match one_line(word) {
        word if !word.is_empty() && word.chars().all(plain) => word,
        word => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples::{self, NOW};
    use crate::render::samples::PLAIN;
    use pointsman_model::fleet::{CourierStatus, NodeHealth};

    #[test]
    fn nodes_are_a_table() {
        let mut failing = samples::node("edge-2", NodeHealth::Failing);
        failing.trouble = "the record is older\nthan \u{1b}[2Jwhat is in force".into();
        let mut new = samples::node("edge-3", NodeHealth::New);
        (new.seen_unix_ms, new.in_force, new.labels) = (None, None, Labels::new());
        let all = [samples::node("edge-1", NodeHealth::Well), failing, new];
        insta::assert_snapshot!(nodes(PLAIN, &all, NOW), @"
        NAME    HEALTH   IN FORCE  PUBLISHED  SEEN      LABELS               TROUBLE
        edge-1  well           42         42  12 s ago  role=edge, site=fra
        edge-2  failing        41         42  12 s ago  role=edge, site=fra  the record is older than
                                                                             ?[2Jwhat is in force
        edge-3  new             -         42  never     -
        ");
        assert_eq!(nodes(PLAIN, &[], NOW), "no node\n");
    }

    #[test]
    fn a_node_is_shown_with_what_it_reported() {
        let it = samples::node("edge-1", NodeHealth::Behind);
        let report = NodeReport {
            courier: CourierStatus {
                version: "0.1.0".into(),
                poll_interval_ms: 10_000,
                snapshot: Some(1_700),
                handed_over: Some(41),
                source_trouble: Some("cannot reach https://control.example".into()),
                daemon_trouble: None,
            },
            status: None,
            counters: None,
        };
        insta::assert_snapshot!(node(PLAIN, &it, Some(&report), NOW), @"
        edge-1  behind
          labels      role=edge, site=fra
          enrolled    2024-12-31 00:01 UTC
          seen        12 s ago
          published   generation 42
          in force    generation 41
          courier     0.1.0, every 10.00 s: snapshot 1,700, generation 41 handed over
                      cannot reach https://control.example
        ");
        assert!(node(PLAIN, &it, None, NOW).ends_with("  report      none yet\n"));
    }

    #[test]
    fn changed_labels_are_named() {
        let before = samples::labels(&[("site", "ams"), ("tier", "1"), ("role", "edge")]);
        let mut it = samples::node("edge-1", NodeHealth::Well);
        it.labels = samples::labels(&[("site", "fra"), ("rack", "7"), ("role", "edge")]);
        insta::assert_snapshot!(labelled(&it, &before), @"
        edge-1:
          rack: 7
          site: ams -> fra
          tier: 1 -> removed
        publish to make it count: pointsman fleet publish
        ");
        assert_eq!(labelled(&it, &it.labels), "edge-1: labels are as they were\n");
    }

    #[test]
    fn a_command_can_be_pasted() {
        let mut session =
            Session { url: "https://a:8600/".into(), token: "pmt_x".into(), ca: None };
        let command = enrol_command(&session, "pme_x", "E7620F1842B4E81F");
        let expected = "echo pme_x | pointsman-courier enroll --control https://a:8600/ \
                        --key-id E7620F1842B4E81F";
        assert_eq!(command, expected);
        session.url = "https://a/$(reboot)".into();
        session.ca = Some("/etc/my ca.pem".into());
        let command = enrol_command(&session, "pme_'\n; reboot", "$(reboot)");
        let expected = r"echo 'pme_'\'' ; reboot' | pointsman-courier enroll --control 'https://a/$(reboot)' --key-id '$(reboot)' --ca 'my ca.pem'";
        assert_eq!(command, expected);
        session.ca = None;
        for (url, insecure) in [
            ("http://192.0.2.1:8600/", true),
            ("http://control.example/", true),
            ("http://localhost:8600/", false),
            ("http://127.0.0.1:8600/", false),
            ("http://[::1]:8600/", false),
            ("https://192.0.2.1:8600/", false),
        ] {
            session.url = url.into();
            let command = enrol_command(&session, "pme_x", "7");
            assert_eq!(command.ends_with(" --key-id 7 --insecure"), insecure, "{command}");
        }
    }
}
