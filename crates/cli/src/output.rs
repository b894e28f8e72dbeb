//! Standard output: whether it is a terminal, how wide, whether it takes colour, and what happens
//! when nobody reads it any more.

use crate::error::CliError;
use rustix::termios::tcgetwinsize;
use serde::Serialize;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

/// Columns where there is no terminal to ask.
pub(crate) const DEFAULT_WIDTH: u16 = 100;

/// Whether somebody still reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Reader {
    Reads,
    /// The reader is gone, as in `pointsman status | head -1`: not an error of ours.
    Gone,
}

/// How text may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns.
    pub(crate) width: u16,
    /// Whether escape sequences may colour it.
    pub(crate) colour: bool,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) terminal: bool,
    /// Whether somebody watches standard error: progress is for people alone.
    pub(crate) watched: bool,
    colour: bool,
    colour_beside: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let [terminal, watched] = [io::stdout().is_terminal(), io::stderr().is_terminal()];
        let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let colour = !asked_not_to && !dumb;
        Self {
            json,
            terminal,
            watched: watched && !dumb,
            colour: terminal && colour,
            colour_beside: watched && colour,
        }
    }

    /// Says something beside the answer, on standard error: a question, a hint.
    pub(crate) fn say(&self, text: impl FnOnce(Look) -> String) {
        let text = text(Look { colour: self.colour_beside, ..self.look() });
        // Where nobody hears it, nobody wants to.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// How text may look now: a terminal's size can change.
    pub(crate) fn look(&self) -> Look {
        let width = self.size().map_or(DEFAULT_WIDTH, |(width, _)| width.max(40));
        Look { width, colour: self.colour }
    }

    /// Columns and rows of the terminal; `None`: no terminal, or one that does not tell.
    pub(crate) fn size(&self) -> Option<(u16, u16)> {
        let size = tcgetwinsize(io::stdout()).ok().filter(|_| self.terminal)?;
        (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
    }

    /// Prints an answer: as JSON, or as what `text` makes of it.
    pub(crate) fn answer<T: Serialize>(
        &self,
        answer: &T,
        text: impl FnOnce(&T, Look) -> String,
    ) -> Result<(), CliError> {
        let whole = if self.json { pretty(answer) } else { text(answer, self.look()) };
        self.print(&whole)
    }

    /// Writes `text`.
    pub(crate) fn print(&self, text: &str) -> Result<(), CliError> {
        self.show(text).map(|_| ())
    }

    /// Writes `text`, and tells whether more is wanted.
    pub(crate) fn show(&self, text: &str) -> Result<Reader, CliError> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(Reader::Reads),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
            Err(error) => Err(CliError::Output(error)),
        }
    }
}

/// JSON for people and programs, with a newline at its end.
pub(crate) fn pretty<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_string_pretty(value);
    json.expect("invariant: API values have text keys only") + "\n"
}
