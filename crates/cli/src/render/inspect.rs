//! What an object holds.

use super::table::{Column, cell, lines, table};
use super::text::{Tone, grouped, printable};
use crate::output::Look;
use pointsman_bpf::{GlobalReport, ObjectReport, ProgramReport, Suggestion};
use pointsman_model::facts::{MapDefinition, MapFacts};

/// The report on an object. Names in it are anybody's: they come out of a file.
pub(crate) fn inspect(look: Look, name: &str, report: &ObjectReport) -> String {
    let ObjectReport { sha256, licence, has_btf, programs: _, maps: _, globals: _ } = report;
    let licence = match licence.as_str() {
        "" => "none declared: helpers for GPL-compatible programs are refused".to_owned(),
        licence => printable(licence),
    };
    let btf = match has_btf {
        true => "yes",
        false => "no: globals and map entries cannot be typed; build with clang -g",
    };
    format!(
        "{}\n  sha256   {sha256}\n  licence  {licence}\n  BTF      {btf}\n\n{}{}{}",
        look.paint(Tone::Heading, &printable(name)),
        programs(look, report),
        maps(look, report),
        globals(look, report)
    )
}

fn programs(look: Look, report: &ObjectReport) -> String {
    if report.programs.is_empty() {
        return "no programs\n".to_owned();
    }
    let mut table = table(
        look,
        &[
            ("program (entry)", Column::Text),
            ("section", Column::Text),
            ("type", Column::Text),
            ("frags", Column::Whole),
            ("instructions", Column::Number),
            ("author's suggestion", Column::Text),
        ],
    );
    let mut suggested = false;
    for program in &report.programs {
        let ProgramReport { name, section, kind, instructions, frags, suggestion } = program;
        let suggestion = suggestion.as_ref().map_or("none".to_owned(), |suggestion| {
            suggested = true;
            let Suggestion { priority, chain_call_actions } = suggestion;
            let actions = chain_call_actions.to_string().replace(',', " ");
            format!("priority {priority}, actions {actions}")
        });
        table.add_row([
            cell(printable(name)),
            cell(printable(section)),
            cell(printable(kind)),
            cell(if *frags { "yes" } else { "no" }),
            cell(grouped(*instructions as u64)),
            cell(suggestion),
        ]);
    }
    let note = match suggested {
        true => "  a suggestion (XDP_RUN_CONFIG) is never applied: the node document decides\n",
        false => "",
    };
    lines(&table) + note
}

fn maps(look: Look, report: &ObjectReport) -> String {
    if report.maps.is_empty() {
        return "\nno maps\n".to_owned();
    }
    let mut table = table(
        look,
        &[
            ("map", Column::Text),
            ("type", Column::Whole),
            ("key bytes", Column::Number),
            ("value bytes", Column::Number),
            ("max entries", Column::Number),
        ],
    );
    for MapFacts { name, definition, initial: _ } in &report.maps {
        let MapDefinition { kind, key_size, value_size, max_entries, .. } = definition;
        table.add_row([
            cell(name),
            cell(kind),
            cell(grouped(u64::from(*key_size))),
            cell(grouped(u64::from(*value_size))),
            // Left open for the loader or the kernel to decide.
            cell(if *max_entries == 0 { "open".into() } else { grouped(u64::from(*max_entries)) }),
        ]);
    }
    format!("\n{}", lines(&table))
}

fn globals(look: Look, report: &ObjectReport) -> String {
    if report.globals.is_empty() {
        return "\nno globals\n".to_owned();
    }
    let mut table = table(
        look,
        &[
            ("global", Column::Text),
            ("type", Column::Text),
            ("section", Column::Text),
            ("bytes", Column::Number),
        ],
    );
    for GlobalReport { name, kind, section, size } in &report.globals {
        table.add_row([
            cell(printable(name)),
            cell(printable(kind)),
            cell(printable(section)),
            cell(grouped(*size as u64)),
        ]);
    }
    format!("\n{}", lines(&table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::PLAIN;
    use pointsman_model::facts::InitialContents;
    use pointsman_model::{Action, ActionSet, MapName, Sha256};

    fn report() -> ObjectReport {
        let program = |name: &str, suggestion| ProgramReport {
            name: name.into(),
            section: "xdp.frags".into(),
            kind: "xdp".into(),
            instructions: 1_234,
            frags: true,
            suggestion,
        };
        let suggestion =
            Suggestion { priority: 10, chain_call_actions: ActionSet::PASS.with(Action::Drop) };
        ObjectReport {
            sha256: Sha256::of(b"ddos"),
            licence: "Dual BSD/GPL".into(),
            has_btf: true,
            programs: vec![program("ddos_main", Some(suggestion)), program("plain", None)],
            maps: vec![MapFacts {
                name: MapName::new("limits").unwrap(),
                definition: MapDefinition {
                    kind: "lru_hash".into(),
                    key_size: 8,
                    value_size: 16,
                    max_entries: 65_536,
                    ..MapDefinition::default()
                },
                initial: InitialContents::Nothing,
            }],
            globals: vec![GlobalReport {
                name: "rate_limit".into(),
                kind: "u32".into(),
                section: ".data".into(),
                size: 4,
            }],
        }
    }

    #[test]
    fn a_report_shows_what_a_document_can_name() {
        insta::assert_snapshot!(inspect(PLAIN, "ddos.o", &report()), @"
        ddos.o
          sha256   deeb92f091caa8e2404885e30da06e8507eee571e81b062ef6723c4ec0b8ecf0
          licence  Dual BSD/GPL
          BTF      yes

          program (entry)  section    type  frags  instructions  author's suggestion
          ddos_main        xdp.frags  xdp   yes           1,234  priority 10, actions drop pass
          plain            xdp.frags  xdp   yes           1,234  none
          a suggestion (XDP_RUN_CONFIG) is never applied: the node document decides

          map     type      key bytes  value bytes  max entries
          limits  lru_hash          8           16       65,536

          global      type  section  bytes
          rate_limit  u32   .data        4
        ");
    }

    #[test]
    fn what_is_missing_is_said_and_names_cannot_drive_a_terminal() {
        let mut report = report();
        report.licence.clear();
        report.has_btf = false;
        report.maps.clear();
        report.globals.clear();
        report.programs.truncate(1);
        report.programs[0].section = "xdp/\u{1b}[2J".into();
        report.programs[0].suggestion = None;
        insta::assert_snapshot!(inspect(PLAIN, "ddos\u{7}.o", &report), @"
        ddos?.o
          sha256   deeb92f091caa8e2404885e30da06e8507eee571e81b062ef6723c4ec0b8ecf0
          licence  none declared: helpers for GPL-compatible programs are refused
          BTF      no: globals and map entries cannot be typed; build with clang -g

          program (entry)  section   type  frags  instructions  author's suggestion
          ddos_main        xdp/?[2J  xdp   yes           1,234  none

        no maps

        no globals
        ");
    }
}
