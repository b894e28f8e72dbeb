//! `counters`: one look, or one look after another until Ctrl-C.

use crate::args::CountersArgs;
use crate::client::{Client, ClientError};
use crate::error::{CliError, Exit};
use crate::output::{Output, Reader};
use crate::render;
use crate::render::text::printable;
use pointsman_model::status::Counters;
use std::io::Write as _;
use tokio::time::{MissedTickBehavior, interval};

pub(super) async fn counters(
    client: &Client,
    output: &Output,
    args: &CountersArgs,
) -> Result<Exit, CliError> {
    if args.watch {
        return tokio::select! {
            // Ctrl-C is how a watch ends, not an error. What was printed is whole lines.
            _ = tokio::signal::ctrl_c() => Ok(Exit::Done),
            ended = watch(client, output, args) => ended,
        };
    }
    let now = client.counters().await?;
    output.answer(&now, |now, look| render::counters::counters(look, now, None))?;
    Ok(Exit::Done)
}

async fn watch(client: &Client, output: &Output, args: &CountersArgs) -> Result<Exit, CliError> {
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut earlier: Option<Counters> = None;
    let mut screen = Screen::default();
    let mut away = false;
    loop {
        ticks.tick().await;
        let now = match client.counters().await {
            // Chains outlive the node, and so does a watch: it goes on when the node is back.
            // One that never saw the node ends, because nothing says that it will come.
            Err(error) if earlier.is_some() && error.is_unreachable() => {
                if !away {
                    interrupted(&error);
                    screen = Screen::default();
                    away = true;
                }
                continue;
            }
            other => other?,
        };
        away = false;
        if screen.show(output, &now, earlier.as_ref())? == Reader::Gone {
            return Ok(Exit::Done);
        }
        earlier = Some(now);
    }
}

/// Says once that the node is away. Standard error may be closed: then nobody wants to know.
pub(super) fn interrupted(error: &ClientError) {
    let text = printable(&error.to_string());
    let _ = writeln!(std::io::stderr().lock(), "pointsman: {text}; the watch waits for it");
}

/// What the last look left on the terminal.
#[derive(Debug, Default)]
struct Screen {
    /// Lines to go up for writing the next look over it.
    lines: u16,
}

impl Screen {
    fn show(
        &mut self,
        output: &Output,
        now: &Counters,
        earlier: Option<&Counters>,
    ) -> Result<Reader, CliError> {
        if output.json {
            let line = serde_json::to_string(now).expect("invariant: counters are JSON");
            return output.show(&(line + "\n"));
        }
        let mut text = render::counters::counters(output.look(), now, earlier);
        let Some((_, rows)) = output.size() else {
            return output.show(&(text + "\n"));
        };
        let lines = u16::try_from(text.lines().count()).unwrap_or(u16::MAX);
        // Up, and clear from there to the end of the screen. What scrolled out at the top cannot
        // be written over: then looks follow each other.
        if self.lines > 0 {
            text = format!("\u{1b}[{}A\u{1b}[J{text}", self.lines);
        }
        self.lines = if lines < rows { lines } else { 0 };
        output.show(&text)
    }
}
