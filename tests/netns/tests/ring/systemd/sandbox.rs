//! What the unit keeps its processes from. What it must not keep them from is in the other tests:
//! they run the daemon in it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{Service, UNIT, UNIT_FILE, run, systemctl};
use pointsman_netns::netns::Netns;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const PROBE: &str = "/run/systemd/system/pointsman-probe.service";
const FOUND: &str = "/run/pointsman-probe.out";

/// What a process in the unit's sandbox may do, and what not. `NETNS` is a network namespace.
const ATTEMPTS: &[(&str, bool)] = &[
    ("touch /var/lib/pointsman/probe", true),
    ("touch /run/pointsman-probe/probe", true),
    ("mkdir /sys/fs/bpf/probe", true),
    ("rmdir /sys/fs/bpf/probe", true),
    ("cat /etc/hostname", true),
    ("nsenter --net=/run/netns/NETNS true", true),
    ("ls /proc/1/ns/net", true),
    ("touch /etc/probe", false),
    ("touch /usr/bin/probe", false),
    ("touch /var/lib/probe", false),
    ("touch ~root/probe", false),
    ("touch /run/probe", false),
    ("touch /sys/fs/cgroup/probe", false),
    ("ls /tmp/systemd-outside", false),
    ("mount -t tmpfs none /var/lib/pointsman", false),
    ("nsenter --mount=/proc/1/ns/mnt true", false),
    ("unshare --mount true", false),
    ("unshare --user true", false),
    ("chroot / true", false),
    ("date --set @1", false),
    ("hostname probe", false),
    ("dmesg", false),
    ("chmod u+s /var/lib/pointsman/probe", false),
    ("mknod /var/lib/pointsman/node c 1 3", false),
    ("head -c 1 /dev/ttyS1", false),
];

/// Runs each attempt as the unit's main process would, and says which succeeded.
fn attempt(netns: &Netns) -> BTreeMap<String, bool> {
    let mut script = String::from("#!/bin/sh\n");
    for (command, _) in ATTEMPTS {
        let real = command.replace("NETNS", netns.name());
        script += &format!(
            "{real} < /dev/null > /dev/null 2>&1 && r=yes || r=no; echo \"$r {command}\"\n"
        );
    }
    fs::write("/run/pointsman-probe.sh", script).unwrap();
    // The packaged sandbox around another program, which ends by itself.
    let unit: String = fs::read_to_string(UNIT_FILE).unwrap().lines().map(probed).collect();
    fs::write(PROBE, unit).unwrap();
    systemctl(&["daemon-reload"]);
    systemctl(&["start", "pointsman-probe.service"]);
    fs::remove_file(PROBE).unwrap();
    let found = fs::read_to_string(FOUND).unwrap();
    let results = found.lines().filter_map(|line| line.split_once(' '));
    results.map(|(result, command)| (command.to_owned(), result == "yes")).collect()
}

/// A line of the packaged unit, as the probe has it.
fn probed(line: &str) -> String {
    let line = match line.split_once('=') {
        Some(("ExecStart", _)) => {
            &format!("ExecStart=/bin/sh /run/pointsman-probe.sh\nStandardOutput=truncate:{FOUND}")
        }
        Some(("Type", _)) => "Type=oneshot",
        Some(("RuntimeDirectory", _)) => "RuntimeDirectory=pointsman-probe",
        Some(("Restart" | "ExecReload" | "FileDescriptorStoreMax", _)) => "",
        _ => line,
    };
    format!("{line}\n")
}

#[test]
fn it_keeps_from_what_the_daemon_never_does() {
    let Some(_service) = Service::start("systemd::sandbox::attempts") else { return };
    fs::write("/tmp/systemd-outside", "").unwrap();
    let netns = Netns::new().unwrap();
    let found = attempt(&netns);
    let wrong: Vec<_> = ATTEMPTS
        .iter()
        .filter(|(command, may)| found.get(*command) != Some(may))
        .map(|(command, may)| format!("{command}: expected {may}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{found:#?}");
    // All of it works outside: nothing is refused for want of a program or a file.
    assert!(Path::new("/tmp/systemd-outside").exists());
    run(Command::new("unshare").args(["--mount", "true"]));
    run(Command::new("chroot").args(["/", "true"]));
    run(&mut Command::new("dmesg"));
}

#[test]
fn both_processes_are_in_it() {
    let Some(service) = Service::start("systemd::sandbox::both_processes") else { return };
    for process in [service.keeper(), service.engine()] {
        let status = fs::read_to_string(process.file("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim_start_matches(':').trim().to_owned())
        };
        // 2: SECCOMP_MODE_FILTER.
        assert_eq!(field("Seccomp").as_deref(), Some("2"), "{status}");
        assert_eq!(field("NoNewPrivs").as_deref(), Some("1"), "{status}");
        let bounding = u64::from_str_radix(&field("CapBnd").unwrap(), 16).unwrap();
        // linux/capability.h: SYS_MODULE 16, SYS_RAWIO 17, SYS_BOOT 22, SYS_TIME 25, MKNOD 27.
        for gone in [16, 17, 22, 25, 27] {
            assert_eq!(bounding & (1 << gone), 0, "capability {gone} of {bounding:#x}");
        }
        // NET_ADMIN 12, SYS_ADMIN 21, PERFMON 38, BPF 39.
        for there in [12, 21, 38, 39] {
            assert_ne!(bounding & (1 << there), 0, "capability {there} of {bounding:#x}");
        }
        let own = fs::read_link(process.file("ns/mnt")).unwrap();
        assert_ne!(own, fs::read_link("/proc/1/ns/mnt").unwrap());
    }
    // SIGSYS and EPERM leave their mark in the audit log or in the daemon's own: it has none.
    let log = run(Command::new("journalctl").args(["--no-pager", "--unit", UNIT]));
    for word in ["Operation not permitted", "Permission denied", "SECCOMP"] {
        assert!(!log.contains(word), "{log}");
    }
    let score = run(Command::new("systemd-analyze").args(["security", "--no-pager", UNIT]));
    // The last line says how exposed the unit is, from 0.0 (not at all) to 10.0.
    println!("systemd-analyze security: {}", score.trim_end().lines().last().unwrap_or_default());
}
