//! Structured log lines on stderr, as every service of Pointsman writes them.
//!
//! Nobody waits for whoever reads them, and nobody ends with him: lines go into a bounded queue,
//! and one thread writes them. Lines that find the queue full are lost, and counted in the log.
#![forbid(unsafe_code)]

mod manager;

pub use manager::tell as tell_manager;

use clap::ValueEnum;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// How many lines wait to be written.
const QUEUE: usize = 4096;

/// How long the end of the process waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// As the MTL Manager writes them: for scripts that read its log.
    #[value(hide = true)]
    Mtl,
}

/// The least level that is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What was refused or works with less.
    #[value(alias = "warning")]
    Warn,
    /// What changed.
    #[default]
    Info,
    /// Every step and request.
    Debug,
    /// Everything.
    Trace,
}

/// Starts logging. Called once, before anything is logged. Keep the result until the end: dropping
/// it waits a moment for the last lines.
///
/// # Errors
/// What the kernel said, where there is no thread to write the lines.
pub fn start(format: LogFormat, level: LogLevel) -> io::Result<Flush> {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let (queue, flush) = writer(io::stderr())?;
    let lines = tracing_subscriber::fmt()
        .with_writer(queue)
        // They would be told on stderr, which is what failed.
        .log_internal_errors(false)
        .with_max_level(level)
        .with_target(false);
    match format {
        // Colours are for terminals; a journal or a file gets none.
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Mtl => lines.with_ansi(false).event_format(Original).init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).init(),
    }
    Ok(flush)
}

/// Lines as the MTL Manager writes them: `[2026-01-31 12:00:00] [INFO] text`, in UTC.
#[derive(Debug)]
struct Original;

impl<S, N> FormatEvent<S, N> for Original
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        // To the second, and no `T` between day and hour.
        let time = time.get(..19).unwrap_or(&time).replace('T', " ");
        let level = match *event.metadata().level() {
            tracing::Level::WARN => "WARNING",
            level => level.as_str(),
        };
        write!(line, "[{time}] [{level}] ")?;
        context.field_format().format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}

/// What the thread that writes is told.
#[derive(Debug)]
enum Job {
    Line(Vec<u8>),
    /// Tell when all before has been written.
    Flush(SyncSender<()>),
}

/// Waits for the last lines when it is dropped, but not for a reader that reads none.
#[derive(Debug)]
pub struct Flush(SyncSender<Job>);

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        // A full queue means that nobody reads.
        if self.0.try_send(Job::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST_LINES);
        }
    }
}

/// The lines that wait. Each `write` is one whole line, as `tracing-subscriber` has it.
#[derive(Debug, Clone)]
struct Queue {
    jobs: SyncSender<Job>,
    lost: Arc<AtomicU64>,
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.jobs.try_send(Job::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Starts the thread that writes to `to`. It ends with the process.
fn writer(to: impl Write + Send + 'static) -> io::Result<(Queue, Flush)> {
    let (jobs, waiting) = sync_channel(QUEUE);
    let lost = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lost);
    let run = move || write_all(to, &waiting, &counted);
    thread::Builder::new().name("log".into()).stack_size(256 << 10).spawn(run)?;
    Ok((Queue { jobs: jobs.clone(), lost }, Flush(jobs)))
}

fn write_all(mut to: impl Write, jobs: &Receiver<Job>, lost: &AtomicU64) {
    for job in jobs {
        // A reader that has gone may come back where stderr is a terminal or a FIFO: go on.
        match job {
            Job::Line(line) => drop(to.write_all(&line)),
            Job::Flush(done) => drop(done.try_send(())),
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "log lines are lost: whoever reads this log is too slow");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixStream;
    use tracing::subscriber::with_default;

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read_and_what_is_lost_is_counted() {
        let (reader, to) = UnixStream::pair().unwrap();
        let (queue, flush) = writer(to).unwrap();
        let lost = Arc::clone(&queue.lost);
        let lines = tracing_subscriber::fmt().with_writer(queue).finish();
        // More than queue and socket hold.
        let long = "x".repeat(1000);
        with_default(lines, || (0..QUEUE + 4096).for_each(|_| tracing::info!("{long}")));
        assert!(lost.load(Ordering::Relaxed) > 0);
        drop(flush);
        // What had room is there, as whole lines.
        let whole = BufReader::new(reader)
            .lines()
            .take(QUEUE)
            .filter(|line| line.as_ref().is_ok_and(|line| line.ends_with(&long)));
        assert_eq!(whole.count(), QUEUE);
    }

    #[test]
    fn lines_for_scripts_of_the_original_are_its_own() {
        let (reader, to) = UnixStream::pair().unwrap();
        let (queue, flush) = writer(to).unwrap();
        let lines = tracing_subscriber::fmt().with_writer(queue).with_ansi(false);
        let lines = lines.event_format(Original).finish();
        with_default(lines, || {
            tracing::info!("[Instance edge:7] Added lcore 3");
            tracing::warn!(left_out = 5, "more");
        });
        drop(flush);
        let lines: Vec<_> = BufReader::new(reader).lines().take(2).map(Result::unwrap).collect();
        let shape: String =
            lines[0].chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).take(21).collect();
        assert_eq!(shape, "[0000-00-00 00:00:00]", "{lines:?}");
        assert_eq!(&lines[0][21..], " [INFO] [Instance edge:7] Added lcore 3");
        assert_eq!(&lines[1][21..], " [WARNING] more left_out=5");
    }

    #[test]
    fn a_reader_that_has_gone_ends_nothing() {
        let (reader, to) = UnixStream::pair().unwrap();
        drop(reader);
        let (queue, flush) = writer(to).unwrap();
        let lines = tracing_subscriber::fmt().with_writer(queue).finish();
        with_default(lines, || (0..3).for_each(|_| tracing::info!("nobody reads this")));
        let (done, written) = sync_channel(1);
        flush.0.send(Job::Flush(done)).unwrap();
        written.recv().expect("the thread goes on");
    }

    #[test]
    fn the_last_lines_are_written_before_the_end() {
        let (reader, to) = UnixStream::pair().unwrap();
        let (mut queue, flush) = writer(to).unwrap();
        queue.write_all(b"the reason\n").unwrap();
        drop((queue, flush));
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).unwrap();
        assert_eq!(line, "the reason\n");
    }
}
