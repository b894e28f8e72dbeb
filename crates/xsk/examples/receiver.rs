//! Counts the datagrams to a port that one queue of an interface receives.
//!
//! Whoever manages the interface (`pointsman-node`, `MtlManager`) gives the queue and the map, and
//! leads the port there:
//!
//! ```text
//! receiver --interface eth0 --port 20000
//! ```
//!
//! Without a manager, packets come by an XSKMAP that is pinned, such as that of a chain with the
//! built-in program `xskmap-redirect`:
//!
//! ```text
//! receiver --interface eth0 --queue 2 --map /sys/fs/bpf/pointsman/.../xsks_map
//! ```

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use clap::Parser;
use pointsman_xsk::manager::{Manager, ManagerError, Reason, SOCKET};
use pointsman_xsk::{Copying, Settings, Socket, Umem, UmemSettings, XskMap};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Counts the datagrams to a port that one queue of an interface receives.
#[derive(Debug, Parser)]
struct Options {
    /// The interface.
    #[arg(long)]
    interface: String,
    /// The UDP ports to receive, over IPv4 and IPv6: the manager leads them here.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// The queue; without it the manager gives any that is free.
    #[arg(long)]
    queue: Option<u32>,
    /// Where the manager listens.
    #[arg(long, env = "MTL_MANAGER_SOCK_PATH", default_value = SOCKET)]
    manager: PathBuf,
    /// Where an XSKMAP is pinned: no manager is asked.
    #[arg(long, conflicts_with = "port", requires = "queue")]
    map: Option<PathBuf>,
    /// End after so many packets.
    #[arg(long)]
    count: Option<u64>,
    /// Copy packets even where the driver can do without.
    #[arg(long)]
    copy: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let Options { interface, .. } = &options;
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let index = netdevice::name_to_index(&any, interface)
        .with_context(|| format!("there is no interface {interface} here"))?;
    // What the manager gave is ours as long as this lives.
    let mut manager = match options.map {
        Some(_) => None,
        None => Some(Manager::connect(&options.manager)?),
    };
    if let Some(manager) = &mut manager {
        manager.register(&[index]).with_context(|| format!("cannot use {interface}"))?;
    }
    let queue = match (options.queue, &mut manager) {
        (Some(queue), _) => queue,
        (None, Some(manager)) => manager.take_queue(index).with_context(|| interface.clone())?,
        (None, None) => unreachable!("invariant: a pinned map requires a queue"),
    };
    let place = format!("queue {queue} of {interface}");
    let (umem, mut frames) = Umem::new(UmemSettings::default())?;
    let settings = Settings {
        transmit_ring: 0,
        copying: if options.copy { Copying::Copy } else { Copying::Auto },
        ..Settings::new(index, queue)
    };
    let mut socket = Socket::open(&umem, &settings).with_context(|| place.clone())?;
    socket.receiver.fill(&mut frames);
    let map = match (&options.map, &mut manager) {
        (Some(path), _) => XskMap::open(path).with_context(|| path.display().to_string())?,
        (None, Some(manager)) => manager.map(index).with_context(|| interface.clone())?,
        (None, None) => unreachable!("invariant: without a pinned map there is a manager"),
    };
    map.insert(queue, &socket).with_context(|| place.clone())?;
    if let Some(manager) = &mut manager {
        for &port in &options.port {
            lead(manager, index, port, queue)?;
        }
    }
    let mode = if socket.is_zero_copy()? { "without a copy" } else { "with a copy" };
    println!("{place}: receiving {mode}");
    std::io::stdout().flush()?;
    count(&mut socket, frames, options.count)
}

/// Makes a port's datagrams come: to the queue if the card can, and on to sockets.
fn lead(manager: &mut Manager, index: u32, port: u16, queue: u32) -> Result<()> {
    match manager.steer(index, port, queue) {
        Ok(_) => {}
        // Such a card spreads them: on the other queues they go to the stack.
        Err(error @ ManagerError::Refused { reason: Reason::NotPermitted, .. })
        | Err(error @ ManagerError::Refused { reason: Reason::Unsupported, .. }) => {
            eprintln!("{error}; datagrams on other queues go to the stack");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(manager.add_port(index, port)?)
}

fn count(
    socket: &mut Socket,
    mut frames: Vec<pointsman_xsk::Frame>,
    most: Option<u64>,
) -> Result<()> {
    let (mut packets, mut count, mut bytes) = (Vec::new(), 0u64, 0u64);
    let mut next = Instant::now() + Duration::from_secs(1);
    while most.is_none_or(|most| count < most) {
        let receiver = &mut socket.receiver;
        receiver.wait(Some(Duration::from_millis(200)))?;
        count += receiver.receive(&mut packets, 64) as u64;
        for packet in packets.drain(..) {
            bytes += receiver.packet(&packet).len() as u64;
            frames.push(packet.frame);
        }
        receiver.fill(&mut frames);
        receiver.wake()?;
        if Instant::now() >= next {
            println!("{count} packets, {bytes} bytes");
            next += Duration::from_secs(1);
        }
    }
    println!("{count} packets, {bytes} bytes, {:?}", socket.statistics()?);
    Ok(())
}
