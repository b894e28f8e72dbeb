//! A host of its own for the demo and the measurements: two network namespaces with a veth pair
//! between them, a BPF file system nobody else sees into, and a daemon. Everything is taken away
//! again when the value is dropped, whatever happened in between.
//!
//! ```text
//!   namespace …-a                                  namespace …-b
//!   sender   link0 ───────────── veth ───────────── demo0   chain, daemon, receiver
//!            192.0.2.1, 198.51.100.7                192.0.2.2
//! ```

mod daemon;
pub(crate) mod fleet;
mod namespace;
pub(crate) mod relay;
mod service;
mod site;

pub(crate) use self::daemon::{Binaries, Daemon};
pub(crate) use self::namespace::{Namespace, join};
pub(crate) use self::service::Service;
pub(crate) use self::site::{Scratch, Site};

use crate::process::capture;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The interface whose chain is shown.
pub(crate) const INTERFACE: &str = "demo0";
/// Its other end.
const PEER: &str = "link0";
/// The address behind the chain.
pub(crate) const RECEIVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// An address of the sender.
pub(crate) const SENDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Another address of the sender.
pub(crate) const OTHER_SENDER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The network that the other address is of.
pub(crate) const OTHER_NETWORK: &str = "198.51.100.0/24";

/// Says at once, before anything is built, that a lab cannot be made.
pub(crate) fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("needs root: it makes network namespaces and loads BPF programs");
    }
    Ok(())
}

/// The namespaces, the files and the mount; dropped in this order.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Where packets are sent.
    pub(crate) outside: Namespace,
    /// The host whose packet path is owned.
    pub(crate) inside: Namespace,
    scratch: Scratch,
}

impl Lab {
    /// Builds it. `purpose` goes into the names, with the process id: several go side by side.
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        let name = format!("pointsman-{purpose}-{}", std::process::id());
        let mut scratch = Scratch::new(&std::env::temp_dir().join(&name), 0o700)?;
        let directory = scratch.directory().to_owned();
        scratch.mount_bpffs(&directory)?;
        let outside = Namespace::add(format!("{name}-a"))?;
        let inside = Namespace::add(format!("{name}-b"))?;
        let lab = Self { outside, inside, scratch };
        lab.wire()?;
        Ok(lab)
    }

    /// A path in the lab's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// Where its daemon lives.
    pub(crate) fn site(&self) -> Site<'_> {
        Site { namespace: &self.inside, directory: self.scratch.directory() }
    }

    /// Connects the namespaces and keeps every packet but the test's own off the wire: a count
    /// that neighbour discovery or ARP adds to is no proof of anything.
    fn wire(&self) -> Result<()> {
        for namespace in [&self.outside, &self.inside] {
            namespace.run(quiet).context("cannot prepare a network namespace")??;
        }
        let (a, b) = (&self.outside, &self.inside);
        let pair = ["type", "veth", "peer", "name", INTERFACE, "netns", b.name()];
        a.ip(&[&["link", "add", PEER], pair.as_slice()].concat())?;
        a.ip(&["addr", "add", &format!("{SENDER}/24"), "dev", PEER])?;
        a.ip(&["addr", "add", &format!("{OTHER_SENDER}/24"), "dev", PEER])?;
        b.ip(&["addr", "add", &format!("{RECEIVER}/24"), "dev", INTERFACE])?;
        a.ip(&["link", "set", PEER, "up"])?;
        b.ip(&["link", "set", INTERFACE, "up"])?;
        b.ip(&["link", "set", "lo", "up"])?;
        b.ip(&["route", "add", OTHER_NETWORK, "dev", INTERFACE])?;
        let (mac_a, mac_b) = (a.mac(PEER)?, b.mac(INTERFACE)?);
        let permanent = ["nud", "permanent"];
        let neighbours = [
            (a, RECEIVER, &mac_b, PEER),
            (b, SENDER, &mac_a, INTERFACE),
            (b, OTHER_SENDER, &mac_a, INTERFACE),
        ];
        for (namespace, address, mac, device) in neighbours {
            let address = address.to_string();
            let neighbour = ["neigh", "add", &address, "lladdr", mac, "dev", device];
            namespace.ip(&[neighbour.as_slice(), &permanent].concat())?;
        }
        Ok(())
    }
}

/// Switches off, in the calling thread's namespace, what sends packets of its own accord, and
/// what drops packets for reasons that are no chain's.
pub(crate) fn quiet() -> Result<()> {
    for scope in ["all", "default"] {
        let settings = [
            (format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1"),
            (format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter"), "0"),
        ];
        for (path, value) in settings {
            match fs::write(&path, value) {
                // A kernel without IPv6.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => result.with_context(|| format!("cannot write {path}"))?,
            }
        }
    }
    Ok(())
}

/// Compiles a BPF program for the lab.
pub(crate) fn compile(source: &Path, object: &Path) -> Result<()> {
    let mut clang = Command::new("clang");
    clang
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror"])
        // Where Debian keeps <asm/types.h> of the machine.
        .arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH))
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object);
    capture(&mut clang).map(drop)
}
