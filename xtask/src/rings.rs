//! `cargo xtask test`: the rings of tests, one after the other, and a summary that hides nothing.

use crate::libtest::{Reader, Tally};
use crate::process::{Ended, shown, stream};
use crate::workspace::Workspace;
use crate::{interrupt, later, s3, setup, vm};
use anyhow::{Context, Result};
use clap::ValueEnum;
use std::fmt;
use std::fs::{self, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// How long the tests of a run may take, building not counted, unless `--full`.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// The package whose tests need root and namespaces of their own.
pub(crate) const NETNS_PACKAGE: &str = "pointsman-netns";

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Run the long tests too, and without a limit of time.
    #[arg(long)]
    full: bool,
    /// Run this ring only. May be given several times.
    #[arg(long, value_enum)]
    ring: Vec<Ring>,
    /// The seed of everything random, to repeat a run. Default: a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ring {
    /// No privileges needed.
    Pure,
    /// The host's kernel, in network namespaces of its own. Needs root.
    Netns,
    /// Debian's stock kernel in an emulated machine; with `--full` a later one as well. Needs root.
    Vm,
    /// The packaged unit under a real systemd, in an emulated machine; with `--full`, or when named.
    /// Needs root.
    Systemd,
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pure => "pure",
            Self::Netns => "netns",
            Self::Vm => "vm",
            Self::Systemd => "systemd",
        })
    }
}

/// What every ring is run with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    /// The seed of everything random.
    pub(crate) seed: u64,
    /// Whether long tests run.
    pub(crate) full: bool,
    /// When tests have to be done; moves on while something is built.
    deadline: Option<Instant>,
}

impl Session {
    pub(crate) fn new(seed: Option<u64>, full: bool) -> Self {
        // Each RandomState has new random keys: a seed without a dependency for it.
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(()));
        Self { seed, full, deadline: (!full).then(|| Instant::now() + LIMIT) }
    }

    /// What tests find in their environment.
    pub(crate) fn environment(&self, workspace: &Workspace) -> Vec<(&'static str, String)> {
        let seed = self.seed.to_string();
        let binaries = workspace.target.join("debug").display().to_string();
        let mut environment = vec![
            ("POINTSMAN_BIN_DIR", binaries),
            ("POINTSMAN_SEED", seed.clone()),
            ("PROPTEST_RNG_SEED", seed),
        ];
        if self.full {
            environment.push(("POINTSMAN_FULL", "1".to_owned()));
        }
        if let Some(server) = s3::built(workspace) {
            environment.push(("POINTSMAN_S3S_FS", server.display().to_string()));
        }
        if let Some(directory) = later::fetched(workspace) {
            environment.push(("POINTSMAN_LATER_XDP_TOOLS", directory.display().to_string()));
        }
        environment
    }

    /// Does what is not testing and whose time is not counted.
    pub(crate) fn prepare<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        if let Some(deadline) = &mut self.deadline {
            *deadline += started.elapsed();
        }
        result
    }

    /// How long tests may still take.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// `cargo xtask test`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> ExitCode {
    let tally = run_rings(workspace, options);
    print_counts(&tally);
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The last line of every run: what machines read.
pub(crate) fn print_counts(tally: &Tally) {
    let Tally { passed, failed, skipped, .. } = tally;
    println!("{passed} passed, {failed} failed, {} skipped", skipped.len());
}

/// Runs the rings and prints the summary, all but its last line.
pub(crate) fn run_rings(workspace: &Workspace, options: &Options) -> Tally {
    let mut session = Session::new(options.seed, options.full);
    println!("test: seed {0} (again: cargo xtask test --seed {0})", session.seed);
    if options.full
        && let Err(error) = session.prepare(|| s3::ensure(workspace))
    {
        println!("test: no S3 server to try blob stores with: {error:#}");
    }
    let rings = match options.ring.as_slice() {
        [] if options.full => Ring::value_variants(),
        [] => &[Ring::Pure, Ring::Netns, Ring::Vm],
        chosen => chosen,
    };
    let mut total = Tally::default();
    let mut summary = Vec::new();
    for part in rings.iter().flat_map(|&ring| parts(ring, options.full)) {
        println!("\n== ring {} ==", part.title());
        let started = Instant::now();
        let Ran { tally, kernel } = run_part(workspace, part, &mut session);
        summary.push(summary_line(part.ring, &tally, started.elapsed(), &kernel));
        total.add(tally);
    }
    println!("\n== summary ==\nseed {}", session.seed);
    summary.iter().for_each(|line| println!("{line}"));
    total.failures.iter().for_each(|failure| println!("FAILED   {failure}"));
    total.skipped.iter().for_each(|skip| println!("skipped  {}: {}", skip.what, skip.why));
    total
}

/// A ring, on one kernel if it has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    ring: Ring,
    /// The series of the kernel; `None`: this host's.
    series: Option<&'static str>,
}

/// What a part came to.
#[derive(Debug, Default)]
struct Ran {
    tally: Tally,
    /// The kernel that it ran on; empty where that does not matter.
    kernel: String,
}

/// What a ring consists of.
fn parts(ring: Ring, full: bool) -> impl Iterator<Item = Part> {
    let of_series: &[Option<&str>] = match (ring, full) {
        (Ring::Vm, true) => &[Some(vm::SERIES), Some(vm::LATER_SERIES)],
        (Ring::Vm, false) => &[Some(vm::SERIES)],
        (Ring::Systemd, _) => &[Some(vm::SERIES)],
        (Ring::Pure | Ring::Netns, _) => &[None],
    };
    of_series.iter().map(move |&series| Part { ring, series })
}

impl Part {
    /// The name under which its failures and skips are told.
    fn title(self) -> String {
        match (self.ring, self.series) {
            (ring, Some(series)) => format!("{ring} on {series}"),
            (ring, None) => ring.to_string(),
        }
    }

    /// What it comes to if `why` keeps it from running and is no failure.
    fn skipped(self, why: &anyhow::Error) -> Tally {
        println!("skipped: {why:#}");
        let mut tally = Tally::default();
        tally.skip(format!("ring {}", self.title()), format!("{why:#}"));
        tally
    }
}

fn run_part(workspace: &Workspace, part: Part, session: &mut Session) -> Ran {
    let mut ran = Ran::default();
    if interrupt::pending() {
        ran.tally.fail(format!("ring {}: interrupted", part.title()));
        return ran;
    }
    if let Some(why) = cannot_run(part.ring) {
        println!("skipped: {why}");
        ran.tally.skip(format!("ring {}", part.title()), why);
        return ran;
    }
    let result = match part.ring {
        Ring::Pure => pure(workspace, session),
        Ring::Netns => {
            ran.kernel = rustix::system::uname().release().to_string_lossy().into_owned();
            netns(workspace, session)
        }
        Ring::Vm | Ring::Systemd => on_vm(workspace, part, session, &mut ran.kernel),
    };
    ran.tally = result.unwrap_or_else(|error| {
        println!("ring {}: {error:#}", part.title());
        let mut tally = Tally::default();
        tally.fail(format!("ring {}: {error:#}", part.title()));
        tally
    });
    ran
}

/// Runs the emulated machine with a kernel of the part's series. The one that everything has to run
/// on must be there; a later one, or systemd, that cannot be had is a skip.
fn on_vm(
    workspace: &Workspace,
    part: Part,
    session: &mut Session,
    named: &mut String,
) -> Result<Tally> {
    let series = part.series.unwrap_or(vm::SERIES);
    series.clone_into(named);
    if part.ring == Ring::Systemd
        && let Err(error) = session.prepare(|| setup::ensure(&[setup::SYSTEMD]))
        && !interrupt::pending()
    {
        return Ok(part.skipped(&error));
    }
    let kernel = match session.prepare(|| vm::fetch(workspace, series)) {
        Err(error) if series != vm::SERIES && !interrupt::pending() => {
            return Ok(part.skipped(&error));
        }
        fetched => fetched?,
    };
    kernel.package.clone_into(named);
    let mut tally = match part.ring {
        Ring::Systemd => vm::systemd_ring(workspace, session, &kernel)?,
        Ring::Pure | Ring::Netns | Ring::Vm => vm::ring(workspace, session, &kernel)?,
    };
    // The same test runs on each kernel.
    tally.failures.iter_mut().for_each(|failure| *failure += &format!(" (on {series})"));
    Ok(tally)
}

/// Why this ring cannot run here at all. A missing package is no such reason: it is installed.
fn cannot_run(ring: Ring) -> Option<&'static str> {
    match ring {
        Ring::Pure => None,
        Ring::Netns | Ring::Vm | Ring::Systemd if !rustix::process::geteuid().is_root() => {
            Some("needs root")
        }
        Ring::Vm | Ring::Systemd if !cfg!(target_arch = "x86_64") => {
            Some("emulates x86-64 hosts only")
        }
        Ring::Netns | Ring::Vm | Ring::Systemd => None,
    }
}

fn pure(workspace: &Workspace, session: &mut Session) -> Result<Tally> {
    let all = ["--workspace", "--exclude", NETNS_PACKAGE];
    session.prepare(|| {
        setup::ensure(&[setup::BUILD])?;
        // Tests that cannot have a tool or a server say so themselves.
        for needs in [setup::FORMATS, setup::SERVICES, setup::WEB, setup::IMAGE] {
            if let Err(error) = setup::ensure(&[needs]) {
                println!("setup: {error:#}");
            }
        }
        build_tests(workspace, &all)
    })?;
    let mut command = workspace.cargo("test");
    command.args(all);
    cargo_test(workspace, session, command, &[])
}

fn netns(workspace: &Workspace, session: &mut Session) -> Result<Tally> {
    session.prepare(|| {
        setup::ensure(&[setup::BUILD, setup::NETNS, setup::INTEROP, setup::SERVICES])?;
        build_binaries(workspace, &["pointsman-control", "pointsman-courier"])?;
        build_tests(workspace, &["--package", NETNS_PACKAGE])
    })?;
    // One at a time: tests pin threads to CPUs and take figures that a neighbour would spoil. Those
    // of the unit have a ring of their own.
    let mut command = workspace.cargo("test");
    command.args(["--package", NETNS_PACKAGE]);
    let arguments = ["--test-threads=1", "--skip", "systemd::"];
    cargo_test(workspace, session, apart(&command), &arguments)
}

/// The command in a mount namespace of its own, where no network namespace has a name yet: what
/// tests mount and name there is gone with the last of them, even if they are killed.
fn apart(command: &Command) -> Command {
    let mut apart = Command::new("unshare");
    apart.args(["--mount", "--propagation", "private", "sh", "-c"]);
    apart.args(["mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec \"$@\"", "sh"]);
    apart.arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        apart.current_dir(directory);
    }
    apart
}

/// A directory for the temporary files of tests, removed when dropped: tests that are killed leave
/// theirs behind.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("pointsman-test-{}", std::process::id()));
        // Others may pass through: tests drop privileges, and say themselves whom they let in.
        let told = || format!("cannot create {}", path.display());
        fs::create_dir(&path).with_context(told)?;
        fs::set_permissions(&path, Permissions::from_mode(0o711)).with_context(told)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Builds the daemon and the command line, and what else tests find in `POINTSMAN_BIN_DIR`.
pub(crate) fn build_binaries(workspace: &Workspace, more: &[&str]) -> Result<()> {
    let packages = ["pointsman-node", "pointsman-cli"];
    let packages = packages.iter().chain(more).flat_map(|package| ["--package", package]);
    workspace.build(&["build"].into_iter().chain(packages).collect::<Vec<_>>()).map(drop)
}

fn build_tests(workspace: &Workspace, packages: &[&str]) -> Result<()> {
    workspace.build(&[&["test", "--no-run"], packages].concat()).map(drop)
}

fn cargo_test(
    workspace: &Workspace,
    session: &Session,
    mut command: Command,
    arguments: &[&str],
) -> Result<Tally> {
    let scratch = Scratch::new()?;
    // --show-output: what a passing test says about being skipped is wanted, too.
    command.args(["--no-fail-fast", "--", "--show-output"]).args(arguments);
    command.envs(session.environment(workspace)).env("TMPDIR", &scratch.0);
    let mut reader = Reader::default();
    let mut in_successes = false;
    let ended = stream(&mut command, session.left(), |line| {
        reader.line(line);
        // What a passed test printed, a panic that it provoked for one, is no news.
        in_successes =
            line == "successes:" || in_successes && line != "failures:" && !is_result(line);
        if !in_successes {
            println!("{line}");
        }
    })?;
    let mut tally = reader.finish(ended.is_success());
    if tally.total() == 0 {
        tally.fail(format!("no test ran: {}", shown(&command)));
    }
    if ended == Ended::TimedOut {
        tally.fail(format!("not done within {} minutes: killed", LIMIT.as_secs() / 60));
    }
    Ok(tally)
}

/// Whether a line is libtest's last of a test binary.
fn is_result(line: &str) -> bool {
    line.starts_with("test result: ")
}

fn summary_line(ring: Ring, tally: &Tally, took: Duration, kernel: &str) -> String {
    let Tally { passed, failed, skipped, .. } = tally;
    let (skipped, took) = (skipped.len(), took.as_secs_f64());
    let line = format!(
        "ring {ring:<7} {passed:>5} passed {failed:>5} failed {skipped:>5} skipped {took:>8.1} s  \
         {kernel}"
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::capture;

    #[test]
    fn long_runs_take_a_later_kernel_too_and_the_summary_names_it() {
        let titles = |ring, full| parts(ring, full).map(Part::title).collect::<Vec<_>>();
        assert_eq!(titles(Ring::Netns, true), ["netns"]);
        assert_eq!(titles(Ring::Vm, false), ["vm on 6.1"]);
        assert_eq!(titles(Ring::Vm, true), ["vm on 6.1", "vm on 6.12"]);
        assert_eq!(titles(Ring::Systemd, true), ["systemd on 6.1"]);
        let tally = Tally { passed: 3, ..Tally::default() };
        let took = Duration::from_millis(1500);
        let line = summary_line(Ring::Vm, &tally, took, "linux-image-6.12.9-amd64");
        assert!(line.starts_with("ring vm          3 passed"), "{line}");
        assert!(line.ends_with("1.5 s  linux-image-6.12.9-amd64"), "{line}");
        assert!(summary_line(Ring::Pure, &tally, took, "").ends_with("1.5 s"));
    }

    #[test]
    fn what_a_killed_test_mounts_and_names_is_gone_with_it() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP what_a_killed_test_mounts_and_names_is_gone_with_it: needs root");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let name = format!("pointsman-xtask-{}", std::process::id());
        let script = "mount -t tmpfs tmpfs . && cd \"$PWD\" && touch mounted /run/netns/$0; \
                      test -e mounted -a -e /run/netns/$0 && kill -KILL $$";
        let mut command = Command::new("sh");
        command.args(["-c", script, &name]).current_dir(scratch.path());
        let error = capture(&mut apart(&command)).unwrap_err().to_string();
        assert!(error.contains("signal: 9"), "{error}");
        assert!(!scratch.path().join("mounted").exists());
        assert!(!PathBuf::from("/run/netns").join(&name).exists());
    }
}
