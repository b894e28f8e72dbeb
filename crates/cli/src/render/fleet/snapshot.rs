//! Snapshots.

use crate::output::Look;
use crate::render::table::{Column, cell, lines, table};
use crate::render::text::{Tone, grouped, one_line, utc};
use pointsman_model::fleet::{Cause, Snapshot};
use std::fmt::Write as _;

/// Many, a line each.
pub(crate) fn snapshots(look: Look, snapshots: &[Snapshot]) -> String {
    if snapshots.is_empty() {
        return "nothing was published yet: pointsman fleet publish\n".to_owned();
    }
    let mut rows = table(
        look,
        &[
            ("NUMBER", Column::Number),
            ("PUBLISHED", Column::Whole),
            ("BY", Column::Text),
            ("CAUSE", Column::Whole),
            ("NODES", Column::Number),
            ("CHANGED", Column::Number),
            ("SHARDS", Column::Number),
            ("WRITTEN", Column::Number),
        ],
    );
    for snapshot in snapshots {
        rows.add_row([
            cell(snapshot.number),
            cell(utc(snapshot.at_unix_ms)),
            cell(one_line(&snapshot.by)),
            cell(cause(snapshot.cause)),
            cell(grouped(snapshot.nodes)),
            cell(grouped(snapshot.changed)),
            cell(snapshot.shards.len()),
            cell(bytes(snapshot.bytes_written)),
        ]);
    }
    lines(&rows)
}

/// One, with its shards.
pub(crate) fn snapshot(look: Look, it: &Snapshot) -> String {
    let mut text = look.paint(Tone::Heading, &format!("snapshot {}", it.number));
    let _ = writeln!(text, "  {}", published(it));
    let _ = writeln!(text, "  {} written", bytes(it.bytes_written));
    for (at, shard) in it.shards.iter().enumerate() {
        let _ = writeln!(text, "  shard {at:<3} {shard}");
    }
    text
}

/// When, by whom, why, and how much of it was new.
pub(super) fn published(it: &Snapshot) -> String {
    format!(
        "{} by {} ({}): {} of {} nodes changed",
        utc(it.at_unix_ms),
        one_line(&it.by),
        cause(it.cause),
        grouped(it.changed),
        grouped(it.nodes)
    )
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Request => "asked",
        Cause::Change => "change",
        Cause::Interval => "interval",
    }
}

/// Bytes in the unit that keeps three digits or so.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{} B", grouped(bytes)),
        10_240..10_485_760 => format!("{} KiB", grouped(bytes >> 10)),
        _ => format!("{} MiB", grouped(bytes >> 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples;
    use crate::render::samples::PLAIN;

    #[test]
    fn snapshots_are_a_table() {
        let all = [samples::snapshot(41), samples::snapshot(40)];
        insta::assert_snapshot!(snapshots(PLAIN, &all), @"
        NUMBER  PUBLISHED                    BY      CAUSE  NODES  CHANGED  SHARDS    WRITTEN
            41  2025-01-01 00:00:00.000 UTC  deploy  asked  1,204        3       2  7,168 KiB
            40  2025-01-01 00:00:00.000 UTC  deploy  asked  1,204        3       2  7,168 KiB
        ");
        assert!(snapshots(PLAIN, &[]).contains("nothing was published yet"));
    }

    #[test]
    fn a_snapshot_names_its_shards() {
        insta::assert_snapshot!(snapshot(PLAIN, &samples::snapshot(41)), @"
        snapshot 41  2025-01-01 00:00:00.000 UTC by deploy (asked): 3 of 1,204 nodes changed
          7,168 KiB written
          shard 0   ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
          shard 1   3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d
        ");
    }

    #[test]
    fn sizes_have_fitting_units() {
        let texts = [0, 9_999, 10_240, 7_340_032, 10_485_760, u64::MAX].map(bytes);
        let expected =
            ["0 B", "9,999 B", "10 KiB", "7,168 KiB", "10 MiB", "17,592,186,044,415 MiB"];
        assert_eq!(texts, expected);
    }
}
