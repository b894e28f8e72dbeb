//! Sends numbered UDP datagrams over one queue of an interface.
//!
//! ```text
//! sender --interface eth0 --source 10.0.0.1 --destination 10.0.0.2 \
//!     --destination-mac 02:00:00:00:00:02 --port 20000 --count 1000000
//! ```

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use pointsman_xsk::{Outgoing, Settings, Socket, Umem, UmemSettings};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Sends numbered UDP datagrams over one queue of an interface.
#[derive(Debug, Parser)]
struct Options {
    /// The interface.
    #[arg(long)]
    interface: String,
    /// The queue.
    #[arg(long, default_value_t = 0)]
    queue: u32,
    /// The source address.
    #[arg(long)]
    source: Ipv4Addr,
    /// The destination address.
    #[arg(long)]
    destination: Ipv4Addr,
    /// The MAC address of the destination, or of the router to it.
    #[arg(long, default_value = "ff:ff:ff:ff:ff:ff", value_parser = mac)]
    destination_mac: [u8; 6],
    /// The destination port.
    #[arg(long, default_value_t = 20_000)]
    port: u16,
    /// How many.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let parts: Result<Vec<u8>, _> = text.split(':').map(|p| u8::from_str_radix(p, 16)).collect();
    parts?.try_into().ok().with_context(|| format!("{text} is no MAC address"))
}

fn main() -> Result<()> {
    let options = Options::parse();
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let index = netdevice::name_to_index(&any, &options.interface)
        .with_context(|| format!("there is no interface {} here", options.interface))?;
    let (umem, mut frames) = Umem::new(UmemSettings::default())?;
    let settings = Settings { receive_ring: 0, ..Settings::new(index, options.queue) };
    let mut socket = Socket::open(&umem, &settings)
        .with_context(|| format!("queue {} of {}", options.queue, options.interface))?;
    let sender = &mut socket.sender;
    let all = frames.len();
    let (mut packets, mut made) = (Vec::new(), 0);
    let mut last = Instant::now();
    let started = last;
    while made < options.count || frames.len() < all {
        while made < options.count && packets.len() < 64 {
            let Some(mut frame) = frames.pop() else { break };
            let length = datagram(umem.bytes_mut(&mut frame), &options, made);
            packets.push(Outgoing { frame, offset: 0, length });
            made += 1;
        }
        let done = sender.send(&mut packets) + sender.complete(&mut frames, u32::MAX);
        sender.wake()?;
        if done > 0 {
            last = Instant::now();
        } else if last.elapsed() > Duration::from_secs(5) {
            bail!("the interface sends nothing: {:?}", socket.statistics()?);
        }
    }
    let rate = made as f64 / started.elapsed().as_secs_f64();
    println!("{made} datagrams, {rate:.0} a second");
    Ok(())
}

/// A datagram that carries its number; how long it is.
fn datagram(frame: &mut [u8], options: &Options, number: u64) -> u32 {
    const LENGTH: u16 = 14 + 20 + 8 + 8;
    frame[..6].copy_from_slice(&options.destination_mac);
    // Locally administered: nobody's.
    frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 0x08, 0x00]);
    let ip = &mut frame[14..34];
    ip.copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    ip[2..4].copy_from_slice(&(LENGTH - 14).to_be_bytes());
    ip[12..16].copy_from_slice(&options.source.octets());
    ip[16..20].copy_from_slice(&options.destination.octets());
    let words = ip.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    let sum = !((folded >> 16) + (folded & 0xffff)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp = &mut frame[34..50];
    udp[..2].copy_from_slice(&40_000u16.to_be_bytes());
    udp[2..4].copy_from_slice(&options.port.to_be_bytes());
    udp[4..6].copy_from_slice(&16u16.to_be_bytes());
    // No checksum (RFC 768).
    udp[6..8].copy_from_slice(&[0, 0]);
    udp[8..].copy_from_slice(&number.to_be_bytes());
    LENGTH.into()
}
