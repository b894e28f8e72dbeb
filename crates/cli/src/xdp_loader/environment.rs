//! What libxdp reads from the environment.

use pointsman_bpf::dispatcher::Dispatcher;
use std::env;
use std::path::PathBuf;

/// Where the BPF filesystem is (`LIBXDP_BPFFS`).
pub(super) fn bpffs() -> PathBuf {
    env::var_os("LIBXDP_BPFFS").map_or_else(|| PathBuf::from("/sys/fs/bpf"), PathBuf::from)
}

/// The dispatchers there. Mounts the filesystem if `LIBXDP_BPFFS_AUTOMOUNT` is 1.
pub(super) fn dispatcher() -> Dispatcher {
    let path = bpffs();
    if env::var_os("LIBXDP_BPFFS_AUTOMOUNT").is_some_and(|value| value == "1")
        && let Err(e) = pointsman_bpf::pins::ensure_mounted(&path)
    {
        super::complain(&format!(" libxdp: Couldn't mount bpffs at {}: {e}", path.display()));
    }
    Dispatcher::at(&path)
}

/// Whether a lone program shall be attached without a dispatcher (`LIBXDP_SKIP_DISPATCHER`).
pub(super) fn skip_dispatcher() -> bool {
    env::var_os("LIBXDP_SKIP_DISPATCHER").is_some_and(|value| value == "1")
}
