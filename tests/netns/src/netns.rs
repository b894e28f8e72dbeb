//! Network namespaces and veth pairs of one's own.

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

/// A named network namespace, deleted when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Makes one. Its loopback interface is up; IPv6 is off, so that no neighbour discovery
    /// disturbs counts.
    ///
    /// # Errors
    /// `ip` fails; it takes root.
    pub fn new() -> Result<Self> {
        Self::named(format!("pm-test-{}-{}", std::process::id(), crate::unique()))
    }

    /// Makes one with a name, such as that of one that was dropped.
    ///
    /// # Errors
    /// `ip` fails; it takes root.
    pub fn named(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        let path = format!("/run/netns/{name}");
        let file = File::open(&path).with_context(|| path.clone())?;
        let netns = Self { name, file };
        netns.ip(&["link", "set", "lo", "up"])?;
        netns.run(|| {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                // Without IPv6 in the kernel there is nothing to turn off.
                let _ = std::fs::write(path, "1");
            }
        });
        Ok(netns)
    }

    /// Takes its name from it: it lives on as long as this value, or a process in it. `ip` does not
    /// find it any more.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn unname(&mut self) -> Result<()> {
        ip(&["netns", "delete", &self.name])?;
        self.name.clear();
        Ok(())
    }

    /// Its name under `/run/netns`; empty: it was taken from it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in the namespace.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], arguments].concat()).map(drop)
    }

    /// Runs `ip -json` in the namespace and gives what it prints.
    ///
    /// # Errors
    /// What `ip` says, or that it is not JSON.
    pub fn ip_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let printed = ip(&[&["-n", &self.name, "-json"], arguments].concat())?;
        serde_json::from_slice(&printed).context("ip prints JSON")
    }

    /// Runs `work` on a thread in the namespace. What it spawns is in it too.
    ///
    /// # Panics
    /// `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("enter the network namespace");
                work()
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// The kernel's number of an interface in the namespace.
    ///
    /// # Panics
    /// There is no such interface.
    #[must_use]
    pub fn index(&self, interface: &str) -> u32 {
        self.run(|| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
            rustix::net::netdevice::name_to_index(&socket, interface).expect("an interface")
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        if let Err(e) = ip(&["netns", "delete", &self.name]) {
            eprintln!("{e:#}");
        }
    }
}

/// Two namespaces joined by a veth pair, `v0` in the first and `v1` in the second, with addresses
/// 10.77.0.1 and 10.77.0.2 and static neighbour entries.
#[derive(Debug)]
pub struct Pair {
    /// The side that sends.
    pub left: Netns,
    /// The side that runs chains on `v1`.
    pub right: Netns,
}

/// The address of `v0`.
pub const LEFT: &str = "10.77.0.1";
/// The address of `v1`.
pub const RIGHT: &str = "10.77.0.2";
const MACS: [&str; 2] = ["02:00:00:00:77:01", "02:00:00:00:77:02"];
/// The same as bytes.
pub const MAC_BYTES: [[u8; 6]; 2] = [[2, 0, 0, 0, 0x77, 1], [2, 0, 0, 0, 0x77, 2]];

impl Pair {
    /// Makes both namespaces and the pair.
    ///
    /// # Errors
    /// `ip` fails; it takes root.
    pub fn new() -> Result<Self> {
        let pair = Self { left: Netns::new()?, right: Netns::new()? };
        pair.connect()?;
        Ok(pair)
    }

    /// The same with so many receive and transmit queues on each side. What a program sends on a
    /// queue of one side comes on the queue of that number of the other.
    ///
    /// # Errors
    /// `ip` fails; it takes root.
    pub fn with_queues(queues: u32) -> Result<Self> {
        let pair = Self { left: Netns::new()?, right: Netns::new()? };
        pair.connect_queues(queues)?;
        Ok(pair)
    }

    /// Makes the veth pair: again, when it was deleted.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn connect(&self) -> Result<()> {
        self.connect_with(None)
    }

    /// The same with so many queues: see [`Self::with_queues`].
    ///
    /// # Errors
    /// `ip` fails.
    pub fn connect_queues(&self, queues: u32) -> Result<()> {
        self.connect_with(Some(queues))
    }

    fn connect_with(&self, queues: Option<u32>) -> Result<()> {
        let Self { left, right } = self;
        let number = queues.unwrap_or_default().to_string();
        let queues = ["numrxqueues", &number, "numtxqueues", &number];
        let queues = if number == "0" { &[][..] } else { &queues };
        let near = ["link", "add", "v0", "address", MACS[0]];
        let far = ["type", "veth", "peer", "name", "v1", "address", MACS[1]];
        let namespace = ["netns", right.name()];
        left.ip(&[&near, queues, &far, queues, &namespace].concat())?;
        let sides = [(left, "v0", LEFT, RIGHT, MACS[1]), (right, "v1", RIGHT, LEFT, MACS[0])];
        for (side, device, own, other, mac) in sides {
            side.ip(&["address", "add", &format!("{own}/24"), "dev", device])?;
            side.ip(&["link", "set", device, "up"])?;
            side.ip(&[
                "neigh",
                "replace",
                other,
                "lladdr",
                mac,
                "dev",
                device,
                "nud",
                "permanent",
            ])?;
        }
        Ok(())
    }
}

fn ip(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("run ip: apt-get install iproute2")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}
