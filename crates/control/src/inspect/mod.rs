//! Opens uploaded objects, in a process apart: unprivileged, with limits of memory and time, and
//! without files or network where the kernel can do that ([`Apart`]). What it dies of, the service
//! outlives.

pub mod child;

use crate::problem::Failure;
use axum::body::Bytes;
use pointsman_model::api::ProblemKind;
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::ObjectSummary;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

/// The largest object, in bytes.
pub const MAX_OBJECT: usize = 16 << 20;

/// The subcommand that the child is.
pub const VERB: &str = "inspect-child";

/// How long an inspection may take.
const TIME: Duration = Duration::from_secs(20);

/// The longest answer, in bytes.
const ANSWER: u64 = 4 << 20;

/// How many inspections run at a time; others wait.
const AT_ONCE: usize = 2;

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    apart: Apart,
    answer: Answer,
}

/// What the child has not got any more: it has tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    /// It can open no file, not even of its own user: not the signing key, and no database.
    pub files: bool,
    /// It has a network namespace of its own, with nothing in it.
    pub network: bool,
}

/// What the child answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// What the object holds.
    Holds(ObjectSummary),
    /// Why it is no object that can be used.
    Refused(String),
}

/// Starts inspections.
#[derive(Debug, Clone)]
pub struct Inspector {
    program: PathBuf,
    arguments: Vec<OsString>,
    time: Duration,
    room: Arc<Semaphore>,
}

impl Default for Inspector {
    /// With this very program, also when its file was replaced meanwhile.
    fn default() -> Self {
        Self::new("/proc/self/exe", [VERB], TIME)
    }
}

impl Inspector {
    /// With a program that reads an object from its standard input, and `time` for it.
    pub fn new(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        time: Duration,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            time,
            room: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Looks into an object.
    ///
    /// # Errors
    /// 422: it is no object that can be used, or it ended whoever opened it. 503: no process can
    /// be started for it.
    pub async fn inspect(&self, object: Bytes) -> Result<ObjectSummary, Failure> {
        let (status, told) = self.ask(object).await?;
        match serde_json::from_slice::<Told>(&told).map(|told| told.answer) {
            Ok(Answer::Holds(summary)) if status.success() => Ok(summary),
            Ok(Answer::Refused(why)) => Err(refused(why)),
            Ok(Answer::Holds(_)) | Err(_) => Err(refused(died(status))),
        }
    }

    /// What whoever opens objects has not got any more, on this host.
    ///
    /// # Errors
    /// No process can be started, or it does not say.
    pub async fn apart(&self) -> Result<Apart, Failure> {
        // No object at all is refused, and not before everything was given up.
        let (status, told) = self.ask(Bytes::new()).await?;
        let told = serde_json::from_slice::<Told>(&told).map_err(|_| refused(died(status)))?;
        Ok(told.apart)
    }

    async fn ask(&self, object: Bytes) -> Result<(ExitStatus, Vec<u8>), Failure> {
        let _room = self.room.acquire().await.map_err(|_| unavailable("the service is ending"))?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| unavailable(&error.to_string()))?;
        match tokio::time::timeout(self.time, talk(&mut child, object)).await {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(error)) => Err(unavailable(&error.to_string())),
            Err(_) => {
                let _ = child.kill().await;
                let title = format!("looking into it took more than {} s", self.time.as_secs());
                Err(refused(title))
            }
        }
    }
}

/// Gives the object and takes the answer, both at a time: neither waits for the other.
async fn talk(child: &mut Child, object: Bytes) -> std::io::Result<(ExitStatus, Vec<u8>)> {
    let mut input = child.stdin.take().expect("invariant: stdin is a pipe");
    let output = child.stdout.take().expect("invariant: stdout is a pipe");
    let give = async move {
        // A child that has seen enough, or died, closes its end: its answer tells.
        let _ = input.write_all(&object).await;
    };
    let mut answer = Vec::new();
    let mut output = output.take(ANSWER);
    {
        let read = output.read_to_end(&mut answer);
        tokio::pin!(give, read);
        // Whoever has answered, or answers too much, need not take the rest.
        tokio::select! {
            read = &mut read => read?,
            () = &mut give => read.await?,
        };
    }
    if answer.len() as u64 == ANSWER {
        child.kill().await?;
    }
    Ok((child.wait().await?, answer))
}

/// What a child died of, in words.
fn died(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    // A signal's name says more than the number of it, and there are few that it can be.
    match status.signal().map(rustix::process::Signal::from_named_raw) {
        Some(Some(rustix::process::Signal::XCPU)) => "looking into it took too long".into(),
        Some(Some(signal)) => {
            format!("looking into it ended the process that did ({signal:?}): it is malformed")
        }
        Some(None) => format!("looking into it ended the process that did ({status})"),
        None => format!("looking into it came to no answer ({status})"),
    }
}

fn refused(why: String) -> Failure {
    Failure::invalid("the object", vec![DocumentError { pointer: String::new(), message: why }])
}

fn unavailable(why: &str) -> Failure {
    tracing::error!("cannot start a process to inspect an object: {why}");
    let title = "cannot start a process to look into the object; try again";
    Failure { retry_after: Some(5), ..Failure::new(ProblemKind::Unavailable, title) }
}
