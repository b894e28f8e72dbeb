//! A browser: Debian's Chromium without a window, and the driver that tests speak to.

use crate::Unavailable;
use crate::leash::Leash;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the driver may take to say where it listens.
const START: Duration = Duration::from_secs(60);

/// What the driver says when it listens, before the port's number.
const LISTENS: &str = "started successfully on port ";

/// A driver that starts browsers. Stopped, and what they wrote removed, when dropped.
#[derive(Debug)]
pub struct Browser {
    chromium: PathBuf,
    port: u16,
    // Before its directory, which goes last.
    _driver: Leash,
    directory: TempDir,
}

impl Browser {
    /// Starts the driver.
    ///
    /// # Errors
    /// Why there can be none here: a package is missing.
    ///
    /// # Panics
    /// It is there and does not start.
    pub fn start() -> Result<Self, Unavailable> {
        let chromium = program("chromium", "chromium")?;
        let chromedriver = program("chromedriver", "chromium-driver")?;
        let directory = tempfile::Builder::new().prefix("browser").tempdir().expect("a directory");
        let log = directory.path().join("log");
        let mut command = Command::new(chromedriver);
        command.arg("--port=0").current_dir("/").stdin(Stdio::null());
        // What it and the browser write goes with the directory.
        command.env("HOME", directory.path()).env("TMPDIR", directory.path());
        let mut driver = Leash::start(&command, &log);
        let deadline = Instant::now() + START;
        let port = loop {
            let told = fs::read_to_string(&log).unwrap_or_default();
            if let Some(port) = listening(&told) {
                break port;
            }
            if driver.has_ended() || Instant::now() > deadline {
                panic!("the browser's driver does not start: {told}");
            }
            // There is no event for it but a line in its log.
            std::thread::sleep(Duration::from_millis(20));
        };
        Ok(Self { chromium, port, _driver: driver, directory })
    }

    /// Where the driver listens (WebDriver, over plain HTTP on this host).
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The browser's program, for `goog:chromeOptions` of a session.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.chromium
    }

    /// The browser's arguments, for `goog:chromeOptions` of a session. `name` tells the session
    /// from others: each has a profile of its own, empty at first.
    #[must_use]
    pub fn arguments(&self, name: &str) -> Vec<String> {
        let profile = self.directory.path().join(name);
        let fixed = [
            "--headless",
            // Its sandbox refuses root, and needs namespaces that a container may not give.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            // It talks to nobody but the test's server.
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // Over a pipe: it ends with the driver, however that ends.
            "--remote-debugging-pipe",
        ];
        let fixed = fixed.into_iter().map(str::to_owned);
        fixed.chain([format!("--user-data-dir={}", profile.display())]).collect()
    }
}

fn listening(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once(LISTENS)?;
    let (digits, _) = rest.split_once(|c: char| !c.is_ascii_digit())?;
    digits.parse().ok()
}

fn program(name: &str, package: &str) -> Result<PathBuf, Unavailable> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|directory| directory.join(name));
    found
        .find(|program| program.is_file())
        .ok_or_else(|| Unavailable(format!("there is no {name}: install {package}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_in_the_log_once_the_line_is_whole() {
        assert_eq!(listening("Starting\n"), None);
        assert_eq!(listening("ChromeDriver was started successfully on port 4"), None);
        assert_eq!(
            listening("x\nChromeDriver was started successfully on port 40123.\n"),
            Some(40123)
        );
    }
}
