//! Structured log lines on stderr.

use crate::args::{LogFormat, LogLevel};
use tracing::level_filters::LevelFilter;

/// Starts logging. Called once, before anything is logged.
pub fn start(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_target(false);
    match format {
        // Colours are for terminals; a journal or a file gets none.
        LogFormat::Text => {
            lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
        }
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).init(),
    }
}
