//! `events`: what happened, and what happens from now on.

use super::counters::interrupted;
use crate::args::EventsArgs;
use crate::client::Client;
use crate::error::{CliError, Exit};
use crate::output::{Output, Reader};
use crate::render;
use pointsman_model::glass::EventPage;
use std::time::Duration;

/// How long the node waits for an event before it answers that there is none. Well below the
/// longest that it allows, so that an answer is on its way before anybody loses patience.
const WAIT_SECONDS: u64 = 25;

/// How many events are asked for at a time.
const PAGE: u16 = 1000;

/// The pause before another try while the node is away or has no room for another follower: there
/// is no event to wait for then.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn events(
    client: &Client,
    output: &Output,
    args: &EventsArgs,
) -> Result<Exit, CliError> {
    let page = client.events(None, args.lines, 0).await?;
    if !args.follow {
        output.answer(&page, |page, look| render::events::events(look, page))?;
        return Ok(Exit::Done);
    }
    tokio::select! {
        // Ctrl-C is how it ends, not an error.
        _ = tokio::signal::ctrl_c() => Ok(Exit::Done),
        ended = follow(client, output, page) => ended,
    }
}

async fn follow(client: &Client, output: &Output, first: EventPage) -> Result<Exit, CliError> {
    let mut after = show(output, &first)?;
    let mut away = false;
    while let Some(seen) = after {
        let page = match client.events(Some(seen), PAGE, WAIT_SECONDS).await {
            // The log outlives the node, and its numbers go on.
            Err(error) if error.is_unreachable() || error.is_passing() => {
                if !away {
                    interrupted(&error);
                    away = true;
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            other => other?,
        };
        away = false;
        after = show(output, &page)?.map(|last| last.max(seen));
        // A log that was moved away began anew, and nothing of it was shown yet.
        if page.last < seen {
            after = after.map(|_| 0);
        }
    }
    Ok(Exit::Done)
}

/// Prints a page and gives the number of its last event; `None`: nobody reads any more.
fn show(output: &Output, page: &EventPage) -> Result<Option<u64>, CliError> {
    let text = if output.json {
        let line = |event| serde_json::to_string(event).expect("invariant: an event is JSON");
        page.events.iter().map(|event| line(event) + "\n").collect()
    } else {
        render::events::events(output.look(), page)
    };
    let last = page.events.last().map_or(page.last, |event| event.sequence);
    Ok((output.show(&text)? == Reader::Reads).then_some(last))
}
