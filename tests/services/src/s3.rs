//! An S3 server, `s3s-fs`: buckets are directories below a directory of its own.

use crate::Unavailable;
use crate::leash::Leash;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Names the server's program; `cargo xtask test --full` builds it.
const PROGRAM: &str = "POINTSMAN_S3S_FS";

/// The bucket that there is.
const BUCKET: &str = "fleet";

/// How long the server may take to listen.
const START: Duration = Duration::from_secs(60);

/// A running server with one bucket. Stopped, and the bucket removed, when dropped.
#[derive(Debug)]
pub struct S3 {
    program: PathBuf,
    address: SocketAddr,
    // Before its directory, which goes last.
    server: Mutex<Option<Leash>>,
    directory: TempDir,
}

impl S3 {
    /// What a client's environment needs to be let in.
    pub const CREDENTIALS: [(&str, &str); 2] =
        [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "secret")];

    /// Starts a server in the calling thread's network namespace.
    ///
    /// # Errors
    /// Why there can be none here: nobody built the program.
    ///
    /// # Panics
    /// It is there and does not start.
    pub fn start(address: SocketAddr) -> Result<Self, Unavailable> {
        let program = std::env::var_os(PROGRAM).ok_or_else(|| {
            Unavailable(format!("{PROGRAM} names no S3 server; cargo xtask test --full builds one"))
        })?;
        let directory = tempfile::Builder::new().prefix("s3").tempdir().expect("a directory");
        fs::create_dir(directory.path().join(BUCKET)).expect("a bucket");
        let server = Self { program: program.into(), address, server: Mutex::new(None), directory };
        server.resume();
        Ok(server)
    }

    /// Where clients ask.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bucket's URL, with a prefix.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// Where the server keeps what has a prefix.
    #[must_use]
    pub fn files(&self, prefix: &str) -> PathBuf {
        self.directory.path().join(BUCKET).join(prefix)
    }

    /// Kills the server as a power cut would.
    ///
    /// # Panics
    /// It was not running.
    pub fn cut(&self) {
        self.server.lock().expect("lock").take().expect("it runs").kill();
    }

    /// Starts the server again after [`Self::cut`], in the calling thread's network namespace.
    ///
    /// # Panics
    /// It does not start.
    pub fn resume(&self) {
        let mut command = Command::new(&self.program);
        let Self { address, .. } = self;
        let [(_, key), (_, secret)] = Self::CREDENTIALS;
        command
            .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
            .args(["--access-key", key, "--secret-key", secret])
            .arg(self.directory.path());
        let log = self.directory.path().join("log");
        let mut server = Leash::start(&command, &log);
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            let told = |what| format!("{what}: {}", read(&log));
            assert!(!server.has_ended(), "{}", told("s3s-fs ended"));
            assert!(Instant::now() < deadline, "{}", told("s3s-fs does not listen"));
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.server.lock().expect("lock") = Some(server);
    }
}

fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}
