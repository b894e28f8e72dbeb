//! What the tests are played on: a fleet that publishes, a server of its store, a daemon, and
//! somebody who watches the drop directory.

pub(crate) mod daemon;
pub(crate) mod fleet;
pub(crate) mod process;
pub(crate) mod server;
pub(crate) mod watcher;

use pointsman_courier::source::{Blobs, Client, ClientOptions, HttpBlobs, Sources, Traffic, Web};
use pointsman_courier::{Config, Courier, DropDir, OpenError, Secret, Trust};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const CREDENTIAL: &str = "pmc_credential-of-edge-1";
pub(crate) const NODE: &str = "edge-1";

/// A fleet, its server, and directories of one node.
pub(crate) struct Stage {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) fleet: fleet::Fleet,
    pub(crate) server: server::Server,
}

pub(crate) type TestCourier = Courier<Sources, DropDir>;

impl Stage {
    /// With nothing published yet.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fleet = fleet::Fleet::new(&directory.path().join("store"));
        let server = server::Server::start(&directory.path().join("store"));
        Self { directory, fleet, server }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn drop_dir(&self) -> DropDir {
        self.open("drop").unwrap()
    }

    /// Opens a drop directory. A lock that was let go of a moment ago may still be held by a child
    /// that another test has forked and that has not become what it will be.
    pub(crate) fn open(&self, drop: &str) -> Result<DropDir, OpenError> {
        process::eventually("the lock", || {
            let (drop, cache) = (self.path(drop), self.path("cache"));
            match DropDir::open(&drop, &cache, &NODE.parse().unwrap()) {
                Err(OpenError::Held { .. }) => None,
                other => Some(other),
            }
        })
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            fleet: self.fleet.name.clone(),
            node: NODE.parse().unwrap(),
            trust: Trust::Key(Box::new(self.fleet.key.public_key().clone())),
            interval: Duration::from_secs(10),
        }
    }

    pub(crate) fn source(&self) -> Sources {
        let client = Client::new(&ClientOptions::default()).unwrap();
        let traffic = Traffic::default();
        let base = self.server.url.join("blobs/").unwrap();
        let credential = Some(Secret::new(CREDENTIAL));
        let blobs = HttpBlobs::new(client.clone(), base, credential, traffic.clone());
        Sources::new(Blobs::Http(blobs), Web::new(client, traffic))
    }

    pub(crate) fn courier(&self) -> TestCourier {
        Courier::new(self.config(), self.source(), self.drop_dir())
    }

    /// One that tries again soon.
    pub(crate) fn hasty_courier(&self) -> TestCourier {
        let config = Config { interval: Duration::from_millis(300), ..self.config() };
        Courier::new(config, self.source(), self.drop_dir())
    }

    /// The generation that a daemon would find.
    pub(crate) fn in_place(&self) -> Option<u64> {
        watcher::generation(&self.path("drop"), self.fleet.key.public_key())
    }
}

/// Runs a future to its end, in real time.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
