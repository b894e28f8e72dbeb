//! A named network namespace, and threads inside it.

use crate::process::capture;
use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread::JoinHandle;

/// A network namespace that is deleted when the value is dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, as `ip netns add` does, so that `ip netns exec` finds it.
    pub(crate) fn add(name: String) -> Result<Self> {
        capture(Command::new("ip").args(["netns", "add", &name]))?;
        Ok(Self { name })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on this namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<String> {
        // -netns and not `ip netns exec`, which would remount /sys and hide what is mounted there.
        capture(Command::new("ip").args(["-netns", &self.name]).args(arguments))
    }

    /// The hardware address of one of its interfaces.
    pub(crate) fn mac(&self, interface: &str) -> Result<String> {
        let shown = self.ip(&["-oneline", "link", "show", "dev", interface])?;
        let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
        let mac = words.nth(1).with_context(|| format!("{interface} has no hardware address"))?;
        Ok(mac.to_owned())
    }

    /// Starts a thread in this namespace. What it opens, and what it starts, belongs there; mounts
    /// and everything else stay the host's.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let name = self.name.clone();
        let enter = move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter the network namespace {name}"))?;
            Ok(work())
        };
        std::thread::Builder::new().spawn(enter).context("cannot start a thread")
    }

    /// Does something in this namespace and waits for it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        join(self.spawn(work)?)
    }
}

/// Waits for a thread's result.
pub(crate) fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked: see above"))?
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = capture(Command::new("ip").args(["netns", "delete", &self.name])) {
            eprintln!("cannot delete the network namespace {}: {error:#}", self.name);
        }
    }
}
