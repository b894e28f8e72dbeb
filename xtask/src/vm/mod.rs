//! `cargo xtask vm`: tests of the netns ring on Debian's stock kernel, under QEMU's emulation.
//!
//! The machine sees the host's files over 9p, read-only, and has memory where it may write. It
//! says what the tests say on its first serial line and what its kernel says on the second; no
//! result comes back in any other way. KVM is never used: the result must not depend on it.
//!
//! Tests run one at a time in a machine, because they count what its kernel has. So several
//! machines share them, and as many run side by side as the host has CPUs for. One CPU is what most
//! have: an emulated kernel with two waits for the other CPU by spinning, and takes three times as
//! long. `shares::CONCURRENT` names the tests that are about two.

mod cpio;
mod flowcard;
mod hardware;
mod initramfs;
mod kernel;
mod modules;
mod script;
mod shares;
mod systemd;

pub(crate) use self::initramfs::quoted;
use self::initramfs::{Userland, VOICE};
pub(crate) use self::kernel::Kernel;
use self::shares::Share;
use crate::interrupt;
use crate::later;
use crate::libtest::{Reader, Tally};
use crate::process::{Ended, stream};
use crate::rings::{self, NETNS_PACKAGE, Session};
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The series of Debian's kernels that everything has to run on.
pub(crate) const SERIES: &str = "6.1";

/// A later one, for the long tests: what changed in the kernel since shows there. Mirrors and
/// later Debians may not have it.
pub(crate) const LATER_SERIES: &str = "6.12";

/// How much of the console is shown when a machine gives no result, in lines.
const TAIL: usize = 40;

/// How many machines run side by side, at most; each takes 2 GiB of memory and a CPU.
const MACHINES: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The series of Debian's kernels to take.
    #[arg(long, default_value = SERIES)]
    kernel: String,
    /// The seed of everything random, to repeat a run. Default: a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds from power-on to the last result.
    #[arg(long, default_value_t = 300)]
    limit: u64,
    /// Run the long tests too, and those with a later libxdp.
    #[arg(long)]
    full: bool,
    /// Boot systemd as the first process, with the packaged unit, and run its tests.
    #[arg(long)]
    systemd: bool,
    /// Parts of the names of the tests to run, and libtest's options that choose among them
    /// (--exact, --skip). Default: the tests in modules named `vm`, or with --systemd `systemd`.
    #[arg(last = true)]
    tests: Vec<String>,
}

/// `cargo xtask vm`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("needs root: the machine reads all of the host's files");
    }
    let mut session = Session::new(options.seed, options.full);
    println!("vm: seed {0} (again: cargo xtask vm --seed {0})", session.seed);
    let kernel = session.prepare(|| fetch(workspace, &options.kernel))?;
    let limit = Duration::from_secs(options.limit);
    let userland = if options.systemd {
        setup::ensure(&[setup::SYSTEMD])?;
        Userland::Systemd
    } else {
        Userland::Plain
    };
    let tests = &options.tests;
    let tally = run_userland(workspace, &mut session, &kernel, userland, limit, tests)?;
    tally.failures.iter().for_each(|failure| println!("FAILED   {failure}"));
    tally.skipped.iter().for_each(|skip| println!("skipped  {}: {}", skip.what, skip.why));
    rings::print_counts(&tally);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The ring of `cargo xtask test`, on one kernel.
pub(crate) fn ring(workspace: &Workspace, session: &mut Session, kernel: &Kernel) -> Result<Tally> {
    let limit = Duration::from_secs(if session.full { 3 * 3600 } else { 1200 });
    run_tests(workspace, session, kernel, limit, &[])
}

/// The ring of `cargo xtask test` in which systemd is the machine's first process.
pub(crate) fn systemd_ring(
    workspace: &Workspace,
    session: &mut Session,
    kernel: &Kernel,
) -> Result<Tally> {
    let limit = Duration::from_secs(1200);
    run_userland(workspace, session, kernel, Userland::Systemd, limit, &[])
}

/// Gives the newest kernel of a series, from the build directory or from Debian.
///
/// # Errors
/// What emulates the machine is missing, or the kernel cannot be had.
pub(crate) fn fetch(workspace: &Workspace, series: &str) -> Result<Kernel> {
    setup::ensure(&[setup::BUILD, setup::NETNS, setup::INTEROP, setup::VM])?;
    let directory = directory(workspace);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    kernel::fetch(series, &directory)
}

/// Where kernels and the files of machines are.
fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("vm")
}

fn run_tests(
    workspace: &Workspace,
    session: &mut Session,
    kernel: &Kernel,
    limit: Duration,
    tests: &[String],
) -> Result<Tally> {
    run_userland(workspace, session, kernel, Userland::Plain, limit, tests)
}

fn run_userland(
    workspace: &Workspace,
    session: &mut Session,
    kernel: &Kernel,
    userland: Userland,
    limit: Duration,
    tests: &[String],
) -> Result<Tally> {
    let full = session.full;
    let binaries = session.prepare(|| {
        if full && let Err(error) = later::fetch(workspace) {
            // The tests that want it say that they are skipped.
            println!("vm: {error:#}");
        }
        rings::build_binaries(workspace, &[])?;
        workspace.build(&["test", "--no-run", "--package", NETNS_PACKAGE])
    })?;
    let (before, default) = match userland {
        Userland::Plain => (String::new(), "vm::"),
        Userland::Systemd => (systemd::install(workspace)?, systemd::TESTS),
    };
    let default = [default.to_owned()];
    let tests = if tests.is_empty() { &default } else { tests };
    let groups = shares::listed(&binaries, tests)?;
    let shares = match userland {
        Userland::Plain => shares::dealt(groups),
        Userland::Systemd => vec![Share { cpus: 2, cards: false, groups }],
    };
    if shares.iter().all(|share| share.groups.is_empty()) {
        bail!("no test runs: no name matches {}", tests.join(" "));
    }
    let directory = directory(workspace);
    // The tests that want it say that they are skipped.
    let card = session.prepare(|| flowcard::build(workspace, kernel, &directory));
    let card: Vec<_> = card.inspect_err(|error| println!("vm: {error:#}")).into_iter().collect();
    println!("vm: {}", kernel.package);
    let visible = [workspace.root.clone(), workspace.target.clone()];
    let count = shares.len();
    let run = |at: usize, share: &Share| {
        let limit = session.left().map_or(limit, |left| limit.min(left));
        if limit <= script::NOTICE {
            // It would come up to say this.
            return Ok(share.left_out(script::no_time(session)));
        }
        let script = before.clone() + &script::tests(workspace, session, userland, share, limit)?;
        let initramfs = directory.join(format!("initramfs-{at}"));
        let drivers = if share.cards { hardware::DRIVERS } else { &[] };
        let archive = initramfs::build(kernel, userland, drivers, &card, &script, &visible)?;
        fs::write(&initramfs, archive)
            .with_context(|| format!("cannot write {}", initramfs.display()))?;
        let label = if count == 1 { "vm".to_owned() } else { format!("vm {at}") };
        let console = directory.join(format!("console-{at}.log"));
        let mut qemu = machine(kernel, &initramfs, &console, Speed::Fast(share.cpus));
        if share.cards {
            hardware::plug(&mut qemu);
        }
        boot(qemu, &console, limit, &label)
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(side_by_side(shares, cpus.min(MACHINES), run))
}

/// Runs a machine for each share, so many of them at once, and adds up what came of them.
fn side_by_side(
    shares: Vec<Share>,
    machines: usize,
    run: impl Fn(usize, &Share) -> Result<Tally> + Sync,
) -> Tally {
    let waiting = Mutex::new(shares.into_iter().enumerate());
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..machines {
            scope.spawn(|| {
                while let Some((at, share)) = next(&waiting) {
                    let tally = run(at + 1, &share).unwrap_or_else(|error| {
                        let mut tally = Tally::default();
                        tally.fail(format!("vm {}: {error:#}", at + 1));
                        tally
                    });
                    total.lock().unwrap_or_else(PoisonError::into_inner).add(tally);
                }
            });
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The next share, unless somebody has interrupted the run.
fn next<T>(waiting: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    (!interrupt::pending()).then(|| waiting.next()).flatten()
}

/// Runs `script` as root in a machine whose time goes at `speed`, and gives what it says to
/// `hear`, a line at a time.
pub(crate) fn measure(
    workspace: &Workspace,
    speed: Speed,
    script: &str,
    limit: Duration,
    mut hear: impl FnMut(&str),
) -> Result<()> {
    let kernel = fetch(workspace, SERIES)?;
    let directory = directory(workspace);
    let visible = [workspace.root.clone(), workspace.target.clone()];
    let initramfs = directory.join("initramfs-bench");
    let archive = initramfs::build(&kernel, Userland::Plain, &[], &[], script, &visible)?;
    fs::write(&initramfs, archive)
        .with_context(|| format!("cannot write {}", initramfs.display()))?;
    let console = directory.join("console-bench.log");
    let mut exit = None;
    let mut qemu = machine(&kernel, &initramfs, &console, speed);
    let ended = stream(&mut qemu, Some(limit), |line| match line.strip_prefix(VOICE) {
        Some(said) => exit = exit_code(said).or(exit),
        None => hear(line),
    })?;
    if exit != Some(0) {
        print_tail(&console);
        bail!("the machine gave no result (exit {exit:?}, {ended:?})");
    }
    Ok(())
}

/// How a machine's time goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speed {
    /// As fast as it can, on so many CPUs.
    Fast(u32),
    /// The same on two CPUs, for timing processes.
    Timed,
    /// One instruction a nanosecond, on one CPU: the same on every run.
    Counted,
}

fn machine(kernel: &Kernel, initramfs: &Path, console: &Path, speed: Speed) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    let mut parameters = "console=ttyS1,115200 panic=-1".to_owned();
    let cpus = match speed {
        Speed::Fast(cpus) => cpus,
        Speed::Timed => 2,
        Speed::Counted => 1,
    };
    if matches!(speed, Speed::Counted) {
        qemu.args(["-accel", "tcg", "-icount", "shift=0,sleep=off"]);
    } else {
        qemu.args(["-accel", "tcg,thread=multi"]);
        // Programs lie at the same addresses each time: the emulator translates code anew for each
        // address, which takes longer than running it, and happens on no real machine.
        parameters += " norandmaps";
    }
    if matches!(speed, Speed::Fast(1)) {
        // A second one that the kernel never starts. For a lone CPU QEMU 7.2 does not lock
        // cmpxchg16b, and once in some thirty boots gave the kernel wrong flags after it, which
        // then panicked in its allocator.
        parameters += " nr_cpus=1";
        qemu.args(["-smp", "2"]);
    } else {
        qemu.args(["-smp", &cpus.to_string()]);
    }
    qemu.args(["-cpu", "max", "-m", "2G"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        // Read-only at this end, too: whatever the guest does, the host's files stay as they are.
        .args(["-fsdev", "local,id=host,path=/,security_model=none,multidevs=remap,readonly=on"])
        .args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"])
        .args(["-chardev", "stdio,id=tests,signal=off", "-serial", "chardev:tests"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-append", &parameters])
        .stderr(Stdio::piped());
    qemu
}

fn boot(mut qemu: Command, console: &Path, limit: Duration, label: &str) -> Result<Tally> {
    let mut reader = Reader::default();
    let mut exit = None;
    let ended = stream(&mut qemu, Some(limit), |line| {
        println!("{label} | {line}");
        match line.strip_prefix(VOICE) {
            Some(said) => exit = exit_code(said).or(exit),
            None => reader.line(line),
        }
    })?;
    // A machine that gave no exit code is told of below.
    let mut tally = reader.finish(exit.is_none_or(|code| code == 0));
    if let Some(problem) = problem(ended, exit, &tally, limit) {
        println!("{label}: {problem}; the end of {}:", console.display());
        print_tail(console);
        tally.fail(format!("{label}: {problem}"));
    }
    Ok(tally)
}

/// The code in `exit <code>`.
fn exit_code(said: &str) -> Option<i32> {
    said.strip_prefix("exit ")?.parse().ok()
}

/// Why there is no trustworthy result.
fn problem(ended: Ended, exit: Option<i32>, tally: &Tally, limit: Duration) -> Option<String> {
    match (ended, exit) {
        (Ended::TimedOut, _) => Some(format!("no result within {} s", limit.as_secs())),
        (Ended::Exited(status), None) => Some(format!("no result from the machine ({status})")),
        (_, Some(_)) if tally.total() == 0 => Some("no test ran: no name matches".to_owned()),
        (_, Some(_)) => None,
    }
}

fn print_tail(console: &Path) {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(TAIL)..] {
        println!("console | {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn a_machine_without_result_is_a_problem() {
        let limit = Duration::from_secs(300);
        let off = Ended::Exited(ExitStatus::from_raw(0));
        let ran = Tally { passed: 1, ..Tally::default() };
        assert_eq!(problem(off, Some(0), &ran, limit), None);
        assert!(problem(off, None, &ran, limit).is_some());
        assert!(problem(off, Some(0), &Tally::default(), limit).is_some());
        assert!(problem(Ended::TimedOut, Some(0), &ran, limit).unwrap().contains("300 s"));
    }

    #[test]
    fn the_machine_says_the_exit_code() {
        assert_eq!(exit_code("exit 101"), Some(101));
        assert_eq!(exit_code("kernel 6.1.0"), None);
    }
}
