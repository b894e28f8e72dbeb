//! Programs of the fleet's library.

use super::{NOTHING, some_of};
use crate::output::Look;
use crate::render::table::{Column, cell, lines, table};
use crate::render::text::{Tone, grouped, minute, one_line};
use pointsman_model::fleet::{LibraryProgram, ObjectGlobal, ObjectMap, ObjectProgram};
use std::fmt::Write as _;

/// All of them, a line each.
pub(crate) fn programs(look: Look, programs: &[LibraryProgram]) -> String {
    if programs.is_empty() {
        return "no program: pointsman fleet program upload NAME FILE\n".to_owned();
    }
    let mut rows = table(
        look,
        &[
            ("NAME", Column::Whole),
            ("REVISION", Column::Number),
            ("SHA256", Column::Whole),
            ("BYTES", Column::Number),
            ("FUNCTIONS", Column::Text),
            ("UPLOADED", Column::Whole),
            ("BY", Column::Text),
        ],
    );
    for program in programs {
        let functions: Vec<_> =
            program.summary.programs.iter().map(|function| one_line(&function.name)).collect();
        rows.add_row([
            cell(&program.name),
            cell(program.revision),
            cell(program.sha256.short()),
            cell(grouped(program.bytes)),
            cell(some_of(&functions, 6)),
            cell(minute(program.uploaded_unix_ms)),
            cell(one_line(&program.uploaded_by)),
        ]);
    }
    lines(&rows)
}

/// One, with what its object holds.
pub(crate) fn program(look: Look, program: &LibraryProgram) -> String {
    let LibraryProgram { name, revision, sha256, bytes, uploaded_unix_ms, uploaded_by, summary } =
        program;
    let mut text = look.paint(Tone::Heading, name.as_str());
    let _ = write!(text, "  revision {revision}, uploaded {}", minute(*uploaded_unix_ms));
    let _ = writeln!(text, " by {}", one_line(uploaded_by));
    let btf = if summary.has_btf { "with BTF" } else { "without BTF: maps are bytes" };
    let _ = writeln!(text, "  {} bytes, licence {:?}, {btf}", grouped(*bytes), summary.licence);
    let _ = writeln!(text, "  sha256 {sha256}");
    text += &functions(look, &summary.programs);
    text += &maps(look, &summary.maps);
    text += &globals(look, &summary.globals);
    text
}

fn functions(look: Look, functions: &[ObjectProgram]) -> String {
    if functions.is_empty() {
        return "\n  no function\n".to_owned();
    }
    let columns = [
        ("FUNCTION", Column::Text),
        ("SECTION", Column::Text),
        ("TYPE", Column::Whole),
        ("ITS AUTHOR SUGGESTS", Column::Text),
    ];
    let mut rows = table(look, &columns);
    for ObjectProgram { name, section, kind, suggested_priority, suggested_actions } in functions {
        let mut suggests = Vec::new();
        suggests.extend(suggested_priority.map(|priority| format!("priority {priority}")));
        suggests.extend(suggested_actions.as_ref().map(|actions| format!("go on after {actions}")));
        let suggests = if suggests.is_empty() { NOTHING.to_owned() } else { suggests.join(", ") };
        let told = [name, section, kind].map(|text| cell(one_line(text)));
        rows.add_row(told.into_iter().chain([cell(suggests)]));
    }
    format!("\n{}", lines(&rows))
}

fn maps(look: Look, maps: &[ObjectMap]) -> String {
    if maps.is_empty() {
        return String::new();
    }
    let columns = [("MAP", Column::Text), ("TYPE", Column::Whole), ("ENTRIES", Column::Number)];
    let mut rows = table(look, &columns);
    for ObjectMap { name, kind, max_entries } in maps {
        let entries = grouped(u64::from(*max_entries));
        rows.add_row([cell(one_line(name)), cell(one_line(kind)), cell(entries)]);
    }
    format!("\n{}", lines(&rows))
}

fn globals(look: Look, globals: &[ObjectGlobal]) -> String {
    if globals.is_empty() {
        return String::new();
    }
    let columns = [
        ("GLOBAL", Column::Text),
        ("TYPE", Column::Whole),
        ("SECTION", Column::Whole),
        ("BYTES", Column::Number),
    ];
    let mut rows = table(look, &columns);
    for ObjectGlobal { name, kind, section, size } in globals {
        let told = [name, kind, section].map(|text| cell(one_line(text)));
        rows.add_row(told.into_iter().chain([cell(size)]));
    }
    format!("\n{}", lines(&rows))
}

/// What an upload did.
pub(crate) fn uploaded(look: Look, it: &LibraryProgram, before: Option<u64>) -> String {
    let what = match before {
        None => "uploaded",
        Some(before) if before == it.revision => "is there already",
        Some(_) => "replaced: policies that name it use it with the next publish",
    };
    format!("program {} {what}\n{}", it.name, program(look, it))
}

/// The question before a program is removed.
pub(crate) fn removal(program: &LibraryProgram) -> String {
    super::go_on(&format!(
        "remove program {} ({} bytes, sha256 {})",
        program.name,
        grouped(program.bytes),
        program.sha256.short()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples::NOW;
    use crate::render::samples::PLAIN;
    use pointsman_model::fleet::ObjectSummary;
    use pointsman_model::{Action, ProgramName, Sha256};

    fn sample() -> LibraryProgram {
        LibraryProgram {
            name: ProgramName::new("ddos").unwrap(),
            revision: 3,
            sha256: Sha256::of(b"ddos"),
            bytes: 12_345,
            uploaded_unix_ms: NOW,
            uploaded_by: "alice".into(),
            summary: ObjectSummary {
                licence: "GPL\u{1b}[2J".into(),
                has_btf: true,
                programs: vec![
                    ObjectProgram {
                        name: "ddos_main".into(),
                        section: "xdp".into(),
                        kind: "xdp".into(),
                        suggested_priority: Some(10),
                        suggested_actions: Some([Action::Pass].into_iter().collect()),
                    },
                    ObjectProgram {
                        name: "helper\nxdp".into(),
                        section: "xdp/2".into(),
                        kind: "xdp".into(),
                        suggested_priority: None,
                        suggested_actions: None,
                    },
                ],
                maps: vec![ObjectMap {
                    name: "blocklist".into(),
                    kind: "lpm_trie".into(),
                    max_entries: 65_536,
                }],
                globals: vec![ObjectGlobal {
                    name: "rate".into(),
                    kind: "__u32".into(),
                    section: ".rodata".into(),
                    size: 4,
                }],
            },
        }
    }

    #[test]
    fn programs_are_a_table() {
        insta::assert_snapshot!(programs(PLAIN, &[sample()]), @"
        NAME  REVISION  SHA256         BYTES  FUNCTIONS              UPLOADED              BY
        ddos         3  deeb92f091ca  12,345  ddos_main, helper xdp  2025-01-01 00:01 UTC  alice
        ");
        assert!(programs(PLAIN, &[]).contains("upload NAME FILE"));
    }

    #[test]
    fn a_program_is_shown_with_what_its_author_suggests() {
        insta::assert_snapshot!(program(PLAIN, &sample()), @r#"
        ddos  revision 3, uploaded 2025-01-01 00:01 UTC by alice
          12,345 bytes, licence "GPL\u{1b}[2J", with BTF
          sha256 deeb92f091caa8e2404885e30da06e8507eee571e81b062ef6723c4ec0b8ecf0

          FUNCTION    SECTION  TYPE  ITS AUTHOR SUGGESTS
          ddos_main   xdp      xdp   priority 10, go on after pass
          helper xdp  xdp/2    xdp   -

          MAP        TYPE      ENTRIES
          blocklist  lpm_trie   65,536

          GLOBAL  TYPE   SECTION  BYTES
          rate    __u32  .rodata      4
        "#);
    }

    #[test]
    fn an_upload_of_the_same_is_said_to_be_that() {
        for (before, words) in
            [(None, "ddos uploaded\n"), (Some(3), "is there already"), (Some(2), "replaced: ")]
        {
            assert!(uploaded(PLAIN, &sample(), before).contains(words));
        }
    }
}
