//! A keeper and a daemon that answers everything with what was asked: `echo keeper DIR` serves
//! `DIR/imtl.sock` and `DIR/leases.sock`. The tests drive it; some requests make it misbehave.
//!
//! | a request starts with | the daemon |
//! |---|---|
//! | `CRSH` | dies before it answers, the first time it sees this request |
//! | `CRSA` | answers, and dies |
//! | `POIS` | dies before it answers, each time; refuses it if it is told to, by `REFU` |
//! | `POIX` | dies, told to refuse it or not |
//! | `CLOS` | closes the connection |
//! | `MUTE` | does not answer |
//! | `HANG` | does nothing more, each time; refuses it if it is told to |
//! | `LATE` | does not answer the first time it sees this request |
//! | `NULL` | puts `/dev/null` beside the answer |
//! | `BACK` | puts beside the answer what was beside the request |
//! | `COUN` | answers how many connections it knows, as 8 bytes in the record's order |

use pointsman_keeper::link::{FromKeeper, Kind, Link, LinkError, ToKeeper};
use pointsman_keeper::{
    Config, DEFAULT_LONGEST_END, DEFAULT_LONGEST_SILENCE, Listen, Program, Signals,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["keeper", directory] => keeper(directory.into(), 4096),
        ["keeper", directory, clients] => keeper(directory.into(), clients.parse()?),
        ["engine", directory] => match engine(Path::new(directory))? {},
        _ => Err("usage: echo keeper DIR [CLIENTS]".into()),
    }
}

fn keeper(directory: PathBuf, max_clients: usize) -> Result<ExitCode, Box<dyn Error>> {
    let listen =
        |name: &str, kind| Listen { path: directory.join(name), kind, mode: 0o600, group: None };
    let config = Config {
        listen: vec![listen("imtl.sock", Kind::Imtl), listen("leases.sock", Kind::Native)],
        program: Program {
            path: match std::env::var_os("ECHO_PROGRAM") {
                Some(path) => path.into(),
                None => std::env::current_exe()?,
            },
            arguments: vec!["engine".into(), directory.into()],
            without: Vec::new(),
        },
        max_clients,
        max_clients_per_user: None,
        descriptors: true,
        longest_delay: Duration::from_millis(100),
        longest_silence: seconds("ECHO_SILENCE", DEFAULT_LONGEST_SILENCE),
        longest_end: seconds("ECHO_END", DEFAULT_LONGEST_END),
        signals: Signals {
            interrupt: hear(SIGINT)?,
            terminate: hear(SIGTERM)?,
            swap: hear(SIGHUP)?,
        },
        fd_store: std::env::var_os("ECHO_FD_STORE").is_some(),
    };
    let code = pointsman_keeper::run(config, |notice| eprintln!("{notice}"))?;
    Ok(ExitCode::from(code))
}

fn seconds(name: &str, otherwise: Duration) -> Duration {
    let given = std::env::var(name).ok().and_then(|seconds| seconds.parse().ok());
    given.map_or(otherwise, Duration::from_secs)
}

fn hear(signal: i32) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    pipe::register(signal, theirs)?;
    Ok(ours.into())
}

enum Never {}

fn engine(directory: &Path) -> Result<Never, Box<dyn Error>> {
    if let Ok(code) = std::fs::read_to_string(directory.join("fail")) {
        std::process::exit(code.trim().parse()?);
    }
    if directory.join("deaf").exists() {
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, Arc::default())?;
        }
    }
    let mut link = Link::from_stdin()?;
    while directory.join("wait").exists() {
        std::thread::yield_now();
    }
    link.ready()?;
    // The last request of each connection.
    let mut connections = BTreeMap::new();
    loop {
        let batch = match link.receive() {
            Err(LinkError::KeeperGone) => std::process::exit(7),
            batch => batch?,
        };
        let mut answers = Vec::new();
        for message in batch {
            match message {
                FromKeeper::Connected { connection, .. } => {
                    let known = connections.insert(connection, None).is_some();
                    assert!(!known, "connection {connection} was told twice");
                }
                FromKeeper::Closed { connection } => {
                    let known = connections.remove(&connection).is_some();
                    assert!(known, "connection {connection} was never told");
                }
                FromKeeper::Replayed => {}
                FromKeeper::Refuse { connection, sequence, mut bytes, .. } => {
                    if bytes.starts_with(b"POIX") {
                        std::process::abort();
                    }
                    if let Some(last) = connections.get_mut(&connection) {
                        *last = Some(sequence);
                    }
                    bytes[..4].copy_from_slice(b"REFU");
                    let descriptors = Vec::new();
                    answers.push(ToKeeper::Reply { connection, sequence, bytes, descriptors });
                }
                FromKeeper::Request { connection, sequence, bytes, descriptors } => {
                    let open = connections.len() as u64;
                    let last = connections.get_mut(&connection).expect("a connection");
                    assert!(last.is_none_or(|last| last + 1 == sequence), "a gap in {connection}");
                    *last = Some(sequence);
                    let marker = directory.join(format!("crashed-{connection}-{sequence}"));
                    let mut reply = ToKeeper::Reply { connection, sequence, bytes, descriptors };
                    let ToKeeper::Reply { bytes, descriptors, .. } = &mut reply else { continue };
                    let what: [u8; 4] =
                        std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(0));
                    match &what {
                        b"POIS" | b"POIX" => std::process::abort(),
                        b"CRSH" if File::create_new(&marker).is_ok() => std::process::abort(),
                        b"CLOS" => reply = ToKeeper::Close { connection },
                        b"MUTE" => continue,
                        b"HANG" => loop {
                            std::thread::park();
                        },
                        b"LATE" if File::create_new(&marker).is_ok() => continue,
                        b"NULL" => descriptors.push(File::open("/dev/null")?.into()),
                        b"COUN" => bytes[4..12].copy_from_slice(&open.to_ne_bytes()),
                        b"BACK" => {}
                        _ => descriptors.clear(),
                    }
                    answers.push(reply);
                    if what == *b"CRSA" {
                        link.send(answers)?;
                        std::process::abort();
                    }
                }
            }
        }
        link.send(answers)?;
    }
}
