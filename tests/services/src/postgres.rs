//! A PostgreSQL server, from Debian's package: its own data directory, one Unix socket, no port.

use crate::Unavailable;
use crate::leash::Leash;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where Debian keeps the programs, by version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// How long the server may take to answer.
const START: Duration = Duration::from_secs(60);

/// A running server. Stopped, and its data removed, when dropped.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    user: Option<User>,
    // Before its directory, which goes last.
    server: Mutex<Option<Leash>>,
    directory: TempDir,
    databases: AtomicU32,
}

/// Whom the server runs as: it refuses to be root.
#[derive(Debug, Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Starts a server.
    ///
    /// # Errors
    /// Why there can be none here: the package is missing.
    ///
    /// # Panics
    /// It is there and does not start.
    pub fn start() -> Result<Self, Unavailable> {
        let programs = programs()?;
        let user = user()?;
        let directory = tempfile::Builder::new().prefix("pg").tempdir().expect("a directory");
        if let Some(User { uid, gid }) = user {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid)).expect("chown");
        }
        let databases = AtomicU32::new(0);
        let server = Self { programs, directory, user, server: Mutex::new(None), databases };
        let data = server.data();
        let mut initdb = server.command("initdb");
        initdb.args(["--no-sync", "--no-instructions", "--auth=trust", "--username=pointsman"]);
        // A collation of people's, so that who relies on another one says so.
        initdb.args(["--encoding=UTF8", "--locale=C.UTF-8", "--pgdata"]).arg(&data);
        ran(&mut initdb);
        server.resume();
        Ok(server)
    }

    /// The server that all tests of this process share: started by the first, stopped with the
    /// last that holds it.
    ///
    /// # Errors
    /// As [`Self::start`].
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn shared() -> Result<Arc<Self>, Unavailable> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Ok(server);
        }
        let server = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&server);
        Ok(server)
    }

    /// Makes an empty database and gives its URL.
    ///
    /// # Panics
    /// The server does not make it.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut createdb = self.command("createdb");
        createdb.args(["--username=pointsman", "--host"]).arg(self.directory.path()).arg(&name);
        ran(&mut createdb);
        self.url(&name)
    }

    /// Kills the server as a power cut would: connections break, nothing answers.
    ///
    /// # Panics
    /// It was not running.
    pub fn cut(&self) {
        self.server.lock().expect("lock").take().expect("it runs").kill();
    }

    /// Starts the server again, on the same data, after [`Self::cut`].
    ///
    /// # Panics
    /// It does not start.
    pub fn resume(&self) {
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
        // Many tests at once, and none of them has to survive the machine.
        for setting in
            ["listen_addresses=", "max_connections=200", "fsync=off", "log_statement=none"]
        {
            postgres.args(["-c", setting]);
        }
        let log = self.directory.path().join("log");
        let mut server = Leash::start(&self.as_user(&postgres), &log);
        let deadline = Instant::now() + START;
        let mut ready = self.command("pg_isready");
        ready.args(["--quiet", "--username=pointsman", "--dbname=postgres", "--host"]);
        ready.arg(self.directory.path());
        while !ready.status().expect("pg_isready runs").success() {
            if server.has_ended() || Instant::now() > deadline {
                let told = fs::read_to_string(&log).unwrap_or_default();
                panic!("the PostgreSQL server does not answer: {told}");
            }
            // There is no event for it: it opens its socket before it takes connections.
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.server.lock().expect("lock") = Some(server);
    }

    /// The URL of a database.
    fn url(&self, database: &str) -> String {
        let host = self.directory.path().display();
        format!("postgres://pointsman@localhost/{database}?host={host}")
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir("/").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// The same command for a shell to start, which is not told of users.
    fn as_user(&self, command: &Command) -> Command {
        let Some(User { uid, gid }) = self.user else {
            let mut same = Command::new(command.get_program());
            same.args(command.get_args()).current_dir("/").env("LC_ALL", "C.UTF-8");
            return same;
        };
        let mut setpriv = Command::new("setpriv");
        setpriv.args([format!("--reuid={uid}"), format!("--regid={gid}")]).arg("--clear-groups");
        setpriv.arg(command.get_program()).args(command.get_args());
        setpriv.current_dir("/").env("LC_ALL", "C.UTF-8");
        setpriv
    }
}

/// The newest version's programs.
fn programs() -> Result<PathBuf, Unavailable> {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().filter_map(Result::ok);
    let newest = versions
        .filter_map(|entry| {
            let number: u32 = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs.join("postgres").is_file().then_some((number, programs))
        })
        .max();
    newest.map(|(_, programs)| programs).ok_or_else(|| {
        Unavailable(format!("no PostgreSQL server under {VERSIONS}: install postgresql"))
    })
}

fn user() -> Result<Option<User>, Unavailable> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
    let find = |name: &str| {
        let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = fields.find(|fields| fields.first() == Some(&name))?;
        Some(User { uid: found.get(2)?.parse().ok()?, gid: found.get(3)?.parse().ok()? })
    };
    let found = find("postgres").or_else(|| find("nobody"));
    found.map(Some).ok_or_else(|| Unavailable("no user to run PostgreSQL as".into()))
}

/// Runs a command to its end and expects it to succeed.
fn ran(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
}
