//! The applications that are connected.

use super::table::{Column, cell, lines, table};
use super::text::{Tone, count, grouped, uptime, utc};
use crate::output::Look;
use pointsman_model::lease::{
    ClearReport, Instance, Instances, InterfaceLease, LcoreLease, Liveness, Mapping, PeerView,
};
use std::fmt::Write as _;

/// All of them, a line each.
pub(crate) fn instances(look: Look, all: &Instances) -> String {
    let Instances { instances, refusing: why } = all;
    if instances.is_empty() {
        return refusing(look, why.as_deref()) + "no instance is connected\n";
    }
    let mut rows = table(
        look,
        &[
            ("ID", Column::Number),
            ("PROTOCOL", Column::Whole),
            ("PID", Column::Number),
            ("USER", Column::Number),
            ("PROGRAM", Column::Text),
            ("HOST (CLAIMED)", Column::Text),
            ("STATE", Column::Whole),
            ("LCORES", Column::Number),
            ("REQUESTS", Column::Number),
            ("IDLE", Column::Whole),
        ],
    );
    for instance in instances {
        let claimed = instance.claimed.as_ref();
        rows.add_row([
            cell(instance.id),
            cell(protocol(instance)),
            cell(pid(&instance.peer)),
            cell(instance.peer.uid),
            cell(instance.peer.command.as_deref().unwrap_or("-")),
            cell(claimed.map_or("not registered", |claimed| claimed.hostname.as_str())),
            cell(state(look, instance.liveness)),
            cell(instance.lcores.len()),
            cell(grouped(instance.requests)),
            cell(uptime(instance.idle_ms / 1000)),
        ]);
    }
    refusing(look, why.as_deref()) + &lines(&rows)
}

/// One, with all that is known of it.
pub(crate) fn instance(look: Look, instance: &Instance) -> String {
    let peer = &instance.peer;
    let title = format!("instance {}", instance.id);
    let mut text = format!(
        "{}  {}, {}\n",
        look.paint(Tone::Heading, &title),
        protocol(instance),
        state(look, instance.liveness)
    );
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<11} {value}");
    };
    let command = peer.command.as_deref().unwrap_or("unknown");
    line("process", &format!("{} ({command})", pid(peer)));
    line("user", &format!("{}, group {}", peer.uid, peer.gid));
    if let Some(inode) = peer.network_namespace {
        line("network", &format!("net:[{inode}]"));
    }
    match &instance.claimed {
        None => line("claims", "nothing: it has not registered"),
        Some(claimed) => {
            let differs = if claimed.pid_differs { " (not what the kernel says)" } else { "" };
            let who = format!("pid {}{differs}, user {}", claimed.pid, claimed.uid);
            line("claims", &format!("{who}, host {}", claimed.hostname));
            let interfaces: Vec<_> = claimed.interfaces.iter().map(ToString::to_string).collect();
            if !interfaces.is_empty() {
                line("", &format!("interfaces {}", interfaces.join(", ")));
            }
        }
    }
    line("since", &utc(instance.since_unix_ms));
    let refused = grouped(instance.refused);
    let requests = format!("{}, {refused} refused", grouped(instance.requests));
    line("requests", &format!("{requests}; the last {} ago", uptime(instance.idle_ms / 1000)));
    match (&instance.cpuset, instance.mapping) {
        (Some(cpus), mapping) => {
            let ids = mapping.map_or(String::new(), |mapping| format!("; lcore ids are {mapping}"));
            line("cpuset", &format!("{cpus}{ids}"));
        }
        (None, Some(mapping)) => line("cpuset", &format!("unknown; lcore ids are {mapping}")),
        (None, None) => {}
    }
    if let Some(now) = &instance.cpuset_now {
        line("cpuset now", &now.to_string());
    }
    for held in &instance.interfaces {
        line("interface", &interface(held));
    }
    line("lcores", &count(instance.lcores.len(), "lcore"));
    for lcore in &instance.lcores {
        let _ = writeln!(text, "    {}", held(lcore, instance.mapping));
    }
    text
}

/// What it holds of an interface, in words.
fn interface(held: &InterfaceLease) -> String {
    let InterfaceLease { place, queues, ports, flows } = held;
    let list = |numbers: Vec<String>| match numbers.len() {
        0 => "none".to_owned(),
        1..=16 => numbers.join(", "),
        many => format!("{}, and {} more", numbers[..16].join(", "), many - 16),
    };
    let queues = list(queues.iter().map(ToString::to_string).collect());
    let ports = list(ports.iter().map(ToString::to_string).collect());
    let namespace = place.namespace.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
    let index = place.index;
    let flows = count(flows.len(), "flow rule");
    format!("number {index}{namespace}: queues {queues}; ports {ports}; {flows}")
}

/// What an administrator took back.
pub(crate) fn cleared(report: &ClearReport) -> String {
    let ClearReport { instance, lcores } = report;
    let mut text = format!("took {} from instance {instance}", count(lcores.len(), "lcore"));
    text += ", which stays connected and may ask again\n";
    for lcore in lcores {
        let _ = writeln!(text, "  {}", held(lcore, None));
    }
    text
}

/// Why nothing is given away.
pub(crate) fn refusing(look: Look, why: Option<&str>) -> String {
    let head = look.paint(Tone::Bad, "no lcore is given away:");
    why.map_or(String::new(), |why| format!("{head} {why}\n"))
}

/// An lcore in words.
fn held(lcore: &LcoreLease, mapping: Option<Mapping>) -> String {
    let LcoreLease { id, cpu, idle, notes } = lcore;
    let mut text = match (cpu, mapping) {
        (Some(cpu), Some(Mapping::Remapped)) => format!("lcore {id} is CPU {cpu}"),
        (Some(cpu), _) if cpu == id => format!("CPU {cpu}"),
        (Some(cpu), _) => format!("lcore {id} is CPU {cpu}"),
        (None, _) => format!("lcore {id}"),
    };
    if *idle {
        text += ", kept idle";
    }
    for note in notes {
        let _ = write!(text, ", {note}");
    }
    text
}

fn protocol(instance: &Instance) -> String {
    match &instance.dialect {
        Some(dialect) => format!("{} {dialect}", instance.protocol),
        None => instance.protocol.to_string(),
    }
}

fn pid(peer: &PeerView) -> String {
    peer.pid.map_or_else(|| "unseen".to_owned(), |pid| pid.to_string())
}

fn state(look: Look, liveness: Liveness) -> String {
    let tone = match liveness {
        Liveness::Alive => Tone::Good,
        Liveness::Stuck => Tone::Bad,
        Liveness::Gone | Liveness::Unknown => Tone::Warn,
    };
    look.paint(tone, &liveness.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::PLAIN;
    use pointsman_model::lease::{Claimed, Protocol};

    fn sample() -> Instance {
        let peer = PeerView {
            pid: Some(4711),
            uid: 1000,
            gid: 44,
            command: Some("ffmpeg".into()),
            network_namespace: Some(4_026_531_833),
        };
        let claimed = Claimed {
            hostname: r"a\nb".into(),
            pid: 7,
            uid: 0,
            interfaces: vec![2, 3],
            pid_differs: true,
        };
        let lcore = |id, cpu, notes: &[&str]| {
            let notes = notes.iter().map(ToString::to_string).collect();
            LcoreLease { id, cpu, idle: false, notes }
        };
        Instance {
            id: 3,
            protocol: Protocol::Imtl,
            dialect: Some("1.0".into()),
            peer,
            claimed: Some(claimed),
            liveness: Liveness::Alive,
            since_unix_ms: 1_735_689_600_000,
            idle_ms: 61_000,
            requests: 12_345,
            refused: 6,
            cpuset: Some("4-7".parse().unwrap()),
            cpuset_now: Some("4-6".parse().unwrap()),
            mapping: Some(Mapping::Remapped),
            interfaces: vec![],
            lcores: vec![
                lcore(3, Some(7), &["outside the cpuset that its process has now"]),
                lcore(900, None, &["unmapped: no CPU has this number"]),
            ],
        }
    }

    #[test]
    fn instances_are_lines_and_one_is_a_page() {
        let other = Instance {
            id: 12,
            protocol: Protocol::Native,
            dialect: None,
            peer: PeerView { pid: None, command: None, ..sample().peer },
            claimed: None,
            lcores: vec![],
            liveness: Liveness::Unknown,
            ..sample()
        };
        let all =
            Instances { instances: vec![sample(), other], refusing: Some("disk full".into()) };
        insta::assert_snapshot!(instances(PLAIN, &all), @r#"
        no lcore is given away: disk full
          ID  PROTOCOL     PID  USER  PROGRAM  HOST (CLAIMED)  STATE    LCORES  REQUESTS  IDLE
           3  imtl 1.0    4711  1000  ffmpeg   a\nb            alive         2    12,345  1 min 1 s
          12  native    unseen  1000  -        not registered  unknown       0    12,345  1 min 1 s
        "#);
        insta::assert_snapshot!(instance(PLAIN, &sample()), @r#"
        instance 3  imtl 1.0, alive
          process     4711 (ffmpeg)
          user        1000, group 44
          network     net:[4026531833]
          claims      pid 7 (not what the kernel says), user 0, host a\nb
                      interfaces 2, 3
          since       2025-01-01 00:00:00.000 UTC
          requests    12,345, 6 refused; the last 1 min 1 s ago
          cpuset      4-7; lcore ids are re-mapped
          cpuset now  4-6
          lcores      2 lcores
            lcore 3 is CPU 7, outside the cpuset that its process has now
            lcore 900, unmapped: no CPU has this number
        "#);
        assert_eq!(instances(PLAIN, &Instances::default()), "no instance is connected\n");
    }

    #[test]
    fn what_was_taken_is_listed() {
        let report = ClearReport { instance: 3, lcores: sample().lcores };
        insta::assert_snapshot!(cleared(&report), @"
        took 2 lcores from instance 3, which stays connected and may ask again
          lcore 3 is CPU 7, outside the cpuset that its process has now
          lcore 900, unmapped: no CPU has this number
        ");
    }
}
