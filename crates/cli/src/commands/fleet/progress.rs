//! Progress for people who watch: never in a pipe, a file or beside JSON.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Bytes on their way.
pub(super) fn bytes(output: &Output, total: u64, what: String) -> ProgressBar {
    bar(output, total, "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}").with_message(what)
}

/// Things that get done, one by one.
pub(super) fn items(output: &Output, total: usize, what: &'static str) -> ProgressBar {
    let total = u64::try_from(total).unwrap_or(u64::MAX);
    bar(output, total, "{prefix} [{bar:30}] {pos}/{len} {msg} {elapsed}").with_prefix(what)
}

fn bar(output: &Output, total: u64, template: &str) -> ProgressBar {
    let target = if output.watched && !output.json {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template(template)
        .expect("invariant: the templates are valid")
        .progress_chars("=> ");
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_progress_beside_json_or_where_nobody_watches() {
        let mut output = Output::new(true);
        for (json, watched) in [(true, true), (false, false)] {
            (output.json, output.watched) = (json, watched);
            assert!(bytes(&output, 1, "x".into()).is_hidden());
            assert!(items(&output, 1, "x").is_hidden());
        }
    }
}
