//! A container engine in namespaces of its own: podman, where neither systemd nor a daemon is
//! needed, so that the documented commands run as they are written, `docker` being podman.
//!
//! Mounts, network, processes and `/run` are the engine's own, and gone with it: whatever it started
//! is killed when this is dropped, also if this process is.

use crate::interrupt;
use crate::process::{Ended, stream};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long one command may take: copies of the image's files among it.
const LIMIT: Duration = Duration::from_secs(300);

/// What an engine needs of the namespaces. Older kernels' control groups, which some hosts mount,
/// are none that it takes; the BPF file system and the socket's directory are its own.
const SET_UP: &str = r#"set -e
umount -R -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
mkdir /run/imtl
mount --bind "$1/imtl" /run/imtl
ip link set lo up
echo ready
exec cat
"#;

/// The engine's configuration: what has to be otherwise without systemd and with control groups
/// that are not delegated. The commands are not changed for it.
const CONTAINERS: &str = r#"[containers]
cgroups = "disabled"
default_ulimits = ["nofile=NOFILE:NOFILE", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"#;

/// A running set of namespaces.
#[derive(Debug)]
pub(super) struct Engine {
    holder: Child,
    scratch: PathBuf,
}

/// How a command ended, and all it said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) success: bool,
    pub(super) text: String,
}

impl Engine {
    /// Makes the namespaces. `scratch` is an empty directory for everything the engine stores.
    ///
    /// # Errors
    /// The host does not allow it: then no container runs here.
    pub(super) fn start(scratch: &Path) -> Result<Self> {
        let told = || format!("cannot write to {}", scratch.display());
        fs::create_dir_all(scratch.join("imtl")).with_context(told)?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let limit = limit.unwrap_or(65_536).min(65_536).to_string();
        fs::write(scratch.join("containers.conf"), CONTAINERS.replace("NOFILE", &limit))
            .with_context(told)?;
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"/run/containers/storage\"\n",
            scratch.join("storage").display()
        );
        fs::write(scratch.join("storage.conf"), storage).with_context(told)?;

        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", SET_UP, "sh"])
            .arg(scratch)
            // Its end is that of the namespaces, and comes with ours.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot run unshare")?;
        let mut line = String::new();
        let stdout = holder.stdout.take().context("a pipe was asked for")?;
        let mut stderr = holder.stderr.take().context("a pipe was asked for")?;
        let read = BufReader::new(stdout).read_line(&mut line);
        let engine = Self { holder, scratch: scratch.to_owned() };
        if read.is_err() || line != "ready\n" {
            let mut why = String::new();
            let _ = stderr.read_to_string(&mut why);
            bail!("no namespaces for a container engine here: {}", why.trim());
        }
        Ok(engine)
    }

    /// The socket that the container serves, as this process sees it.
    pub(super) fn socket(&self) -> PathBuf {
        self.scratch.join("imtl/mtl_manager.sock")
    }

    /// Runs a line of shell in `directory`, `docker` being podman, and hands over what it prints,
    /// line by line.
    ///
    /// # Errors
    /// It cannot be run, or takes too long.
    pub(super) fn follow(
        &self,
        directory: &Path,
        line: &str,
        mut on_line: impl FnMut(&str),
    ) -> Result<bool> {
        let namespace = |name: &str| format!("/proc/{}/ns/{name}", self.holder.id());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount={}", namespace("mnt")))
            .arg(format!("--net={}", namespace("net")))
            // unshare itself stays outside: its child is the first process in it.
            .arg(format!("--pid={}", namespace("pid_for_children")))
            .args([
                "sh",
                "-c",
                "cd \"$1\" && docker() { podman \"$@\"; } && eval \"$2\" 2>&1",
                "sh",
            ])
            .arg(directory)
            .arg(line)
            .env("CONTAINERS_CONF", self.scratch.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.scratch.join("storage.conf"))
            // The format that has health checks; and no runtime is needed to build.
            .env("BUILDAH_FORMAT", "docker")
            .env("BUILDAH_ISOLATION", "chroot")
            .env("BUILDAH_LAYERS", "false")
            .env("TMPDIR", &self.scratch);
        let ended = stream(&mut command, Some(LIMIT), &mut on_line)?;
        if interrupt::pending() {
            bail!("interrupted");
        }
        if ended == Ended::TimedOut {
            bail!("{line}: not done within {} s: killed", LIMIT.as_secs());
        }
        Ok(ended.is_success())
    }

    /// Runs a line of shell to its end.
    ///
    /// # Errors
    /// As [`Engine::follow`].
    pub(super) fn run(&self, directory: &Path, line: &str) -> Result<Said> {
        let mut text = String::new();
        let success = self.follow(directory, line, |line| text = format!("{text}{line}\n"))?;
        Ok(Said { success, text })
    }

    /// Runs a line of shell that has to succeed. Gives what it printed, trimmed.
    ///
    /// # Errors
    /// As [`Engine::follow`]; it fails.
    pub(super) fn must(&self, directory: &Path, line: &str) -> Result<String> {
        let said = self.run(directory, line)?;
        if !said.success {
            bail!("{line}: failed:\n{}", said.text.trim());
        }
        Ok(said.text.trim().to_owned())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // The shell's `cat` ends, with it the first process, with it all others there.
        let _ = self.holder.wait();
    }
}
