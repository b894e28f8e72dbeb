//! A veth pair, the sender's program on one side, a socket on the other.

use anyhow::{Context as _, Result, ensure};
use pointsman_bpf::{Chain, Link, Slot, live_frames};
use pointsman_model::observed::AttachMode;
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::members::{member, rounding};
use pointsman_netns::netns::{Netns, Pair};
use pointsman_xsk::{Copying, Frame, Received, Settings, Socket, Umem, UmemSettings, XskError};
use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::process::Command;
use std::time::{Duration, Instant};

/// The queue on which packets come: a pair of one queue.
pub(super) const QUEUE: u32 = 0;
/// Entries of the socket's rings: what comes while its thread waits for the CPU has room.
const RING: u32 = 8192;
/// How long the application leaves packets to gather.
const PACE: Duration = Duration::from_micros(500);

pub(super) struct Stage {
    sender: Chain,
    _sending: Link,
    /// The kernel's number of `v0`.
    from: u32,
    /// The name of the side that receives. No other namespace has it: threads of the kernel are
    /// named after interfaces, wherever those are.
    pub(super) device: String,
    /// The kernel's thread that receives there.
    kernel: Pid,
    pub(super) pair: Pair,
    // Unmounted last.
    pub(super) maps: Bpffs,
}

impl Stage {
    pub(super) fn set() -> Result<Self> {
        let maps = Bpffs::mount()?;
        let pair = Pair::new()?;
        let from = pair.left.index("v0");
        let device = format!("x{}", std::process::id());
        pair.right.ip(&["link", "set", "v1", "down"])?;
        pair.right.ip(&["link", "set", "v1", "name", &device])?;
        pair.right.ip(&["link", "set", &device, "up"])?;
        for (side, device) in [(&pair.left, "v0"), (&pair.right, &device)] {
            side.ip(&["link", "set", device, "arp", "off"])?;
        }
        // A veth receives where it was sent, on the sender's CPU. A thread of the kernel does it
        // instead where there is something to make one for, which there is with GRO.
        inside(&pair.right, &["ethtool", "-K", &device, "gro", "on"])?;
        let path = format!("/sys/class/net/{device}/threaded");
        inside(&pair.right, &["sh", "-c", &format!("echo 1 > {path}")])?;
        let kernel = thread_of(&device)?;
        // XDP_TX on v0 needs native XDP there as well.
        let bounce = member("verdict", "v_tx");
        let sender = Chain::fuse(&[Slot::new("bounce", &bounce)], rounding(), false)?;
        let sending =
            pair.left.run(|| sender.attach(from, AttachMode::Native)).context("attach")?;
        Ok(Self { sender, _sending: sending, from, device, kernel, pair, maps })
    }

    /// Sends frames to the other side; in the namespace of `v0` only.
    pub(super) fn make(&self, packet: &[u8], count: u32) -> Result<()> {
        Ok(live_frames(self.sender.program(), packet, count, self.from)?)
    }

    /// Has everything that receives, which is the kernel's thread and this one, run on one CPU, and
    /// before what else wants it.
    pub(super) fn receive_on(&self, cpu: usize) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu);
        for thread in [Some(self.kernel), None] {
            sched_setaffinity(thread, &set).with_context(|| format!("stay on CPU {cpu}"))?;
            setpriority_process(thread, -20).context("go before others")?;
        }
        Ok(())
    }

    /// The CPU time of all that receives. The kernel's thread is not running: this one has its CPU.
    fn spent(&self) -> Result<Duration> {
        let path = format!("/proc/{}/schedstat", self.kernel.as_raw_nonzero());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let nanos = text.split(' ').next().and_then(|first| first.parse().ok());
        let own = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
        Ok(own + Duration::from_nanos(nanos.with_context(|| format!("{path}: {text}"))?))
    }
}

/// The kernel's thread for the one queue of an interface.
fn thread_of(device: &str) -> Result<Pid> {
    let name = format!("napi/{device}-");
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        // It may have ended since.
        let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.starts_with(&name) {
            return Ok(pid);
        }
    }
    anyhow::bail!("there is no thread {name}*: this kernel makes none for a veth (Linux 5.12)")
}

/// Runs a command in a namespace, with its sysfs.
fn inside(side: &Netns, command: &[&str]) -> Result<()> {
    let mut all = Command::new("ip");
    all.args(["netns", "exec", side.name()]).args(command);
    let output = all.output().context("run ip netns exec")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", command.join(" "), said.trim());
    Ok(())
}

/// What was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub(super) packets: u64,
    /// Packets that found no room in the socket's rings.
    pub(super) lost: u64,
    /// The CPU time of all that receives.
    pub(super) spent: Duration,
    /// How long it took.
    pub(super) elapsed: Duration,
}

/// An application with a socket on the queue.
pub(super) struct Taker {
    pub(super) socket: Socket,
    frames: Vec<Frame>,
    packets: Vec<Received>,
}

impl Taker {
    pub(super) fn open(stage: &Stage) -> Result<Self> {
        let index = stage.pair.right.index(&stage.device);
        let memory = UmemSettings { frames: 2 * RING, frame_size: 2048, headroom: 0 };
        let (umem, mut frames) = Umem::new(memory)?;
        let settings = Settings {
            transmit_ring: 0,
            receive_ring: RING,
            fill_ring: RING,
            copying: Copying::Copy,
            ..Settings::new(index, QUEUE)
        };
        let open = || -> Result<Socket, XskError> { Socket::open(&umem, &settings) };
        let mut socket = stage.pair.right.run(open)?;
        socket.receiver.fill(&mut frames);
        Ok(Self { socket, frames, packets: Vec::new() })
    }

    /// Takes packets for some time, on this thread.
    pub(super) fn take(&mut self, stage: &Stage, time: Duration) -> Result<Count> {
        let (start, before, lost) = (Instant::now(), stage.spent()?, self.lost()?);
        let mut packets = 0;
        while start.elapsed() < time {
            packets += self.once()?;
            // The pace itself, not a wait for something: the CPU is the kernel's thread's meanwhile.
            std::thread::sleep(PACE);
        }
        packets += self.once()?;
        let spent = stage.spent()?.saturating_sub(before);
        let lost = self.lost()? - lost;
        Ok(Count { packets, lost, spent, elapsed: start.elapsed() })
    }

    fn lost(&self) -> Result<u64> {
        let found = self.socket.statistics()?;
        Ok(found.dropped + found.receive_ring_full + found.fill_ring_empty)
    }

    /// Takes what is there.
    fn once(&mut self) -> Result<u64> {
        let receiver = &mut self.socket.receiver;
        let taken = receiver.receive(&mut self.packets, u32::MAX) as u64;
        self.frames.extend(self.packets.drain(..).map(|packet| packet.frame));
        receiver.fill(&mut self.frames);
        receiver.wake()?;
        Ok(taken)
    }
}
