//! The Debian packages that building and testing need: found by what they bring, installed where
//! that is possible, named where it is not.

use crate::elf;
use crate::interrupt;
use crate::process::{capture_long, shown};
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// How much of apt-get's complaints is shown, in lines.
const LINES: usize = 4;

/// How a need is recognised as met: by what is used of it, however it came onto the machine.
#[derive(Debug, Clone, Copy)]
enum Probe {
    /// A program in `PATH` or one of the system's directories.
    Program(&'static str),
    /// A file or directory.
    File(&'static str),
    /// A program that runs without a dynamic loader, as in an initramfs of its own.
    StaticProgram(&'static str),
    /// A file in a directory of any version: `DIRECTORY/VERSION/FILE`.
    Versioned { directory: &'static str, file: &'static str },
}

/// One package.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    package: &'static str,
    why: &'static str,
    probe: Probe,
}

const fn need(package: &'static str, probe: Probe, why: &'static str) -> Need {
    Need { package, why, probe }
}

/// To build the workspace.
pub(crate) const BUILD: &[Need] = &[
    need("clang", Probe::Program("clang"), "compiles the BPF programs"),
    need("gcc", Probe::Program("cc"), "compiles libbpf"),
    need("libc6-dev", Probe::File("/usr/include/stdio.h"), "C headers"),
    need("linux-libc-dev", Probe::File("/usr/include/linux/bpf.h"), "kernel headers"),
    need("make", Probe::Program("make"), "builds libbpf"),
    need("pkg-config", Probe::Program("pkg-config"), "finds libelf and zlib"),
    need("libelf-dev", Probe::File("/usr/include/gelf.h"), "libbpf reads ELF with it"),
    need("zlib1g-dev", Probe::File("/usr/include/zlib.h"), "libelf needs it"),
];

/// To run tests and the demo in network namespaces.
pub(crate) const NETNS: &[Need] =
    &[need("iproute2", Probe::Program("ip"), "makes network namespaces and veth pairs")];

/// The peers that packets, objects and pins are exchanged with in tests.
pub(crate) const INTEROP: &[Need] = &[
    need("xdp-tools", Probe::Program("xdp-loader"), "its packaged objects are chained in tests"),
    need("bpftool", Probe::Program("bpftool"), "a second opinion on programs and pins"),
    need("strace", Probe::Program("strace"), "kills processes between two system calls"),
    need("faketime", Probe::Program("faketime"), "lets a daemon's wall clock jump"),
    need("ethtool", Probe::Program("ethtool"), "sets channels and offloads of veth pairs"),
];

/// The peers that files are exchanged with in pure tests.
pub(crate) const FORMATS: &[Need] = &[
    need("tinycdb", Probe::Program("cdb"), "reads constant databases of ours, and makes others"),
    need("minisign", Probe::Program("minisign"), "checks records, and makes keys and signatures"),
];

/// Servers that pure tests talk to. They are started for one test, with data of its own.
pub(crate) const SERVICES: &[Need] = &[need(
    "postgresql",
    Probe::Versioned { directory: "/usr/lib/postgresql", file: "bin/postgres" },
    "the control plane keeps what it knows in it, or in SQLite",
)];

/// The browser in which pure tests use the web pages.
pub(crate) const WEB: &[Need] = &[
    need("chromium", Probe::Program("chromium"), "shows the control plane's pages"),
    need("chromium-driver", Probe::Program("chromedriver"), "lets tests use the browser"),
];

/// To run the emulated machine.
pub(crate) const VM: &[Need] = &[
    need("qemu-system-x86", Probe::Program("qemu-system-x86_64"), "emulates the machine"),
    need("busybox-static", Probe::StaticProgram("busybox"), "is all of the machine's initramfs"),
    need("kmod", Probe::Program("depmod"), "resolves the kernel's modules"),
    need("xz-utils", Probe::Program("xz"), "unpacks compressed kernel modules"),
];

/// To try the packaged unit, with `--full`. It is never started on this host.
pub(crate) const SYSTEMD: &[Need] = &[need(
    "systemd",
    Probe::File("/usr/lib/systemd/systemd"),
    "is the emulated machine's first process when the unit is tried",
)];

/// To make packages.
pub(crate) const PACKAGING: &[Need] = &[
    need("binutils", Probe::Program("objcopy"), "takes out of binaries what debuggers read"),
    need("dpkg-dev", Probe::Program("dpkg-shlibdeps"), "finds the packages of shared libraries"),
];

/// To build the container image and to try it. Neither needs a daemon.
pub(crate) const IMAGE: &[Need] = &[
    need("buildah", Probe::Program("buildah"), "builds the image"),
    need("podman", Probe::Program("podman"), "runs it"),
    need("crun", Probe::Program("crun"), "is what podman runs it with"),
    need("iproute2", Probe::Program("ip"), "sets up its network namespace"),
];

/// `cargo xtask setup`.
pub(crate) fn run() -> Result<ExitCode> {
    ensure(&[BUILD, FORMATS, SERVICES, WEB, IMAGE, NETNS, INTEROP, VM])?;
    println!("setup: everything is there");
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that all needs are met, installing what is missing.
///
/// # Errors
/// When something is missing and cannot be installed: not root, not a Debian, or apt-get fails.
/// The error names the packages and what to run.
pub(crate) fn ensure(needs: &[&[Need]]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    for need in &missing {
        println!("setup: {} is missing: {}", need.package, need.why);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("packages are missing; run: sudo apt-get install {}", packages.join(" "));
    }
    let Some(apt_get) = find_program("apt-get") else {
        bail!(
            "packages are missing and there is no apt-get here; install what Debian calls: {}",
            packages.join(" ")
        );
    };
    // The lists there are may do: perhaps only a mirror that nothing is wanted from is away.
    if let Err(error) = apt(&apt_get, &["update"]) {
        if interrupt::pending() {
            return Err(error);
        }
        println!("setup: cannot refresh the package lists: {error:#}");
    }
    let _cluster = packages.contains(&"postgresql").then(NoCluster::new);
    let install = ["install", "--yes", "--no-install-recommends"];
    apt(&apt_get, &[&install, packages.as_slice()].concat()).with_context(|| {
        format!("cannot install what is missing; needed: apt-get install {}", packages.join(" "))
    })?;
    let left = self::missing(needs);
    if let Some(need) = left.first() {
        bail!("{} is installed and {:?} is still not there", need.package, need.probe);
    }
    println!("setup: installed {}", packages.join(" "));
    Ok(())
}

/// While it lives, Debian's postgresql makes no database cluster of its own when it is installed,
/// and so starts no server: tests want the programs alone (postgresql-common, createcluster(5)).
#[derive(Debug)]
struct NoCluster(Option<PathBuf>);

impl NoCluster {
    fn new() -> Self {
        let directory = Path::new("/etc/postgresql-common/createcluster.d");
        let file = directory.join("pointsman.conf");
        let written = std::fs::create_dir_all(directory)
            .and_then(|()| std::fs::write(&file, "create_main_cluster = false\n"));
        // Without it there is a server more than needed, and that is all.
        Self(written.is_ok().then_some(file))
    }
}

impl Drop for NoCluster {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Refreshes apt's package lists: look-ups and downloads fail without, or with old ones.
pub(crate) fn apt_update() -> Result<()> {
    let apt_get = find_program("apt-get").context("there is no apt-get here")?;
    apt(&apt_get, &["update"])
}

fn apt(apt_get: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(apt_get);
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
    // Another package manager may be at work: wait for it instead of failing.
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    println!("setup: {}", shown(&command));
    // One failed download is told of like the next fifty.
    capture_long(&mut command).map(drop).map_err(|error| anyhow!(first_lines(&error.to_string())))
}

/// The first lines of a text, and how many more there are.
fn first_lines(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    if lines.len() > LINES {
        let more = lines.split_off(LINES).len();
        lines.push(format!("... and {more} more lines"));
    }
    lines.join("\n")
}

fn missing<'a>(needs: &[&'a [Need]]) -> Vec<&'a Need> {
    needs.iter().copied().flatten().filter(|need| !need.probe.is_met()).collect()
}

impl Probe {
    fn is_met(self) -> bool {
        match self {
            Self::Program(name) => find_program(name).is_some(),
            Self::File(path) => Path::new(path).exists(),
            Self::StaticProgram(name) => {
                let file = find_program(name).and_then(|path| std::fs::read(path).ok());
                file.is_some_and(|file| elf::is_static(&file))
            }
            Self::Versioned { directory, file } => {
                let versions = std::fs::read_dir(directory).into_iter().flatten();
                versions.flatten().any(|version| version.path().join(file).is_file())
            }
        }
    }
}

/// Finds a program in `PATH`, and in the directories that only root's `PATH` holds.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut candidates =
        std::env::split_paths(&path).chain(system).map(|directory| directory.join(name));
    candidates.find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_found_by_what_they_bring() {
        assert!(Probe::Program("sh").is_met());
        assert!(!Probe::Program("no-such-program").is_met());
        assert!(Probe::File("/proc/self").is_met());
        assert!(!Probe::File("/proc/no-such-file").is_met());
        // A shell script, and a program that is not there, are no static programs.
        assert!(!Probe::StaticProgram("no-such-program").is_met());
    }

    #[test]
    fn many_complaints_are_told_of_in_a_few_lines() {
        assert_eq!(first_lines("1\n2\n3\n4"), "1\n2\n3\n4");
        assert_eq!(first_lines("1\n2\n3\n4\n5\n6\n"), "1\n2\n3\n4\n... and 2 more lines");
    }

    #[test]
    fn what_is_missing_is_told_apart_from_what_is_there() {
        let here = [need("dash", Probe::Program("sh"), "")];
        let gone = [need("gone", Probe::File("/no/such/file"), "")];
        let missing: Vec<_> = missing(&[&here, &gone]).iter().map(|need| need.package).collect();
        assert_eq!(missing, ["gone"]);
    }
}
