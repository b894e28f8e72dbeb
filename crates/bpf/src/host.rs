//! What a host can do, found out by trying, for whoever asks a doctor.

use crate::dispatcher::{host_libxdp, host_version, try_dispatcher};
use crate::{kernel, kernel_release, pins, probe};
use libbpf_sys as sys;
use pointsman_fuse::layout::StackRounding;
use pointsman_model::host::{HostFacts, Libxdp, Loads, Mount};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Below it libxdp is installed.
    pub root: PathBuf,
    /// Where procfs is.
    pub proc: PathBuf,
    /// Where sysfs is.
    pub sys: PathBuf,
    /// Where the pins go.
    pub bpffs: PathBuf,
}

impl Places {
    /// This host's, with pins at `bpffs`.
    #[must_use]
    pub fn of_host(bpffs: &Path) -> Self {
        Self {
            root: PathBuf::from("/"),
            proc: PathBuf::from("/proc"),
            sys: PathBuf::from("/sys"),
            bpffs: bpffs.to_owned(),
        }
    }
}

/// Looks at a host. Nothing of what is loaded to try stays.
#[must_use]
pub fn host_facts(places: &Places) -> HostFacts {
    let Places { root, proc, sys, bpffs } = places;
    let btf = sys.join("kernel/btf/vmlinux");
    let libxdp = host_libxdp(root);
    HostFacts {
        kernel: kernel_release(),
        loads: loads(),
        bpffs: mount(bpffs),
        jit_setting: read(&proc.join("sys/net/core/bpf_jit_enable")).and_then(|n| n.parse().ok()),
        has_btf: btf.exists(),
        btf,
        freplace: try_dispatcher().map_err(|error| error.to_string()),
        lockdown: read(&sys.join("kernel/security/lockdown")).and_then(|text| in_force(&text)),
        tcx: tcx().map_err(|error| error.to_string()),
        libxdp: libxdp.map(|found| Libxdp { file: found.file, version: found.version.number() }),
        dispatcher_version: host_version(root).number(),
    }
}

fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The one of several words that stands in brackets, as in `none [integrity] confidentiality`.
fn in_force(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn loads() -> Result<Loads, String> {
    let probed = probe().map_err(|error| error.to_string())?;
    Ok(Loads {
        jited: probed.jit,
        stack_step: match probed.stack_rounding {
            StackRounding::To16 => 16,
            StackRounding::To32 => 32,
        },
        tells_features: probed.tells_features,
    })
}

fn mount(wanted: &Path) -> Mount {
    let path = wanted.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let is_bpffs = pins::is_bpffs(path).map_err(|error| error.to_string());
    Mount { path: path.to_owned(), is_bpffs }
}

/// Asks what is attached to TC of the loopback interface by links: a kernel without such links
/// does not know the question.
fn tcx() -> io::Result<()> {
    /// The number of `lo`, in every network namespace (`LOOPBACK_IFINDEX`).
    const LOOPBACK: i32 = 1;
    let mut opts = sys::bpf_prog_query_opts {
        sz: size_of::<sys::bpf_prog_query_opts>() as sys::size_t,
        ..Default::default()
    };
    // SAFETY: the options live for the call, and ask for no array to be filled.
    kernel::done(unsafe { sys::bpf_prog_query_opts(LOOPBACK, sys::BPF_TCX_INGRESS, &raw mut opts) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_in_brackets_is_in_force() {
        assert_eq!(in_force("none [integrity] confidentiality").as_deref(), Some("integrity"));
        assert_eq!(in_force("[none]").as_deref(), Some("none"));
        for other in ["", "none", "[none", "none]"] {
            assert_eq!(in_force(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_known() {
        let nowhere = PathBuf::from("/nonexistent/place");
        let places = Places {
            root: nowhere.clone(),
            proc: nowhere.clone(),
            sys: nowhere.clone(),
            bpffs: nowhere.clone(),
        };
        let facts = host_facts(&places);
        assert_eq!((facts.jit_setting, facts.lockdown, facts.libxdp), (None, None, None));
        assert_eq!((facts.has_btf, facts.dispatcher_version), (false, 2));
        assert_eq!(facts.bpffs, Mount { path: "/".into(), is_bpffs: Ok(false) });
    }
}
