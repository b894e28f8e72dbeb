//! What a host can do.

use super::table::{Column, cell, lines, table};
use super::text::{Tone, count};
use crate::output::Look;
use comfy_table::Color;
use pointsman_model::api::{Check, Doctor, Health};

/// The checks as a table, and a sum.
pub(crate) fn doctor(look: Look, doctor: &Doctor) -> String {
    let Doctor { kernel, checks } = doctor;
    let mut table = table(
        look,
        &[
            ("check", Column::Text),
            ("", Column::Whole),
            ("found", Column::Text),
            ("consequence", Column::Text),
        ],
    );
    for Check { name, health, found, consequence } in checks {
        let (word, colour) = match health {
            Health::Ok => ("ok", Color::Green),
            Health::Limited => ("limited", Color::Yellow),
            Health::Broken => ("broken", Color::Red),
        };
        let health = if look.colour { cell(word).fg(colour) } else { cell(word) };
        table.add_row([cell(name), health, cell(found), cell(consequence)]);
    }
    let of = |health| checks.iter().filter(|check| check.health == health).count();
    let sum = match (of(Health::Broken), of(Health::Limited)) {
        (0, 0) => look.paint(Tone::Good, "all is well"),
        (0, limited) => look.paint(Tone::Warn, &format!("{limited} limited")),
        (broken, limited) => look.paint(Tone::Bad, &format!("{broken} broken, {limited} limited")),
    };
    let checked = count(checks.len(), "check");
    format!("kernel {kernel}\n\n{}\n{checked}: {sum}\n", lines(&table))
}

/// Whether something is broken.
pub(crate) fn is_broken(doctor: &Doctor) -> bool {
    doctor.checks.iter().any(|check| check.health == Health::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::PLAIN;

    fn check(name: &str, health: Health, found: &str, consequence: &str) -> Check {
        Check { name: name.into(), health, found: found.into(), consequence: consequence.into() }
    }

    #[test]
    fn checks_are_a_table_with_a_sum() {
        let doctor = super::doctor;
        let value = Doctor {
            kernel: "6.1.0-18-amd64".into(),
            checks: vec![
                check("privileges", Health::Ok, "CAP_BPF, CAP_NET_ADMIN", ""),
                check(
                    "freplace",
                    Health::Limited,
                    "the kernel is locked down (integrity)",
                    "the engine `auto` fuses all programs into one; libxdp tools cannot add theirs",
                ),
                check(
                    "bpffs",
                    Health::Broken,
                    "/sys/fs/bpf is not a BPF file system",
                    "chains cannot be pinned: mount -t bpf bpf /sys/fs/bpf",
                ),
            ],
        };
        assert!(is_broken(&value));
        insta::assert_snapshot!(doctor(PLAIN, &value), @"
        kernel 6.1.0-18-amd64

          check                found                                  consequence
          privileges  ok       CAP_BPF, CAP_NET_ADMIN
          freplace    limited  the kernel is locked down (integrity)  the engine `auto` fuses all programs
                                                                      into one; libxdp tools cannot add
                                                                      theirs
          bpffs       broken   /sys/fs/bpf is not a BPF file system   chains cannot be pinned: mount -t
                                                                      bpf bpf /sys/fs/bpf

        3 checks: 1 broken, 1 limited
        ");
    }
}
