//! What libxdp reads from the environment.
//!
//! A program that runs with more rights than whoever called it, as of a setuid file, takes nothing
//! from there: so does `secure_getenv`, by which libxdp reads.

use pointsman_bpf::dispatcher::Dispatcher;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Where the BPF filesystem is (`LIBXDP_BPFFS`).
pub(super) fn bpffs() -> PathBuf {
    variable("LIBXDP_BPFFS").map_or_else(|| PathBuf::from("/sys/fs/bpf"), PathBuf::from)
}

/// The dispatchers there. Mounts the filesystem if `LIBXDP_BPFFS_AUTOMOUNT` is 1.
pub(super) fn dispatcher() -> Dispatcher {
    let path = bpffs();
    if variable("LIBXDP_BPFFS_AUTOMOUNT").is_some_and(|value| value == "1")
        && let Err(e) = pointsman_bpf::pins::ensure_mounted(&path)
    {
        super::complain(&format!(" libxdp: Couldn't mount bpffs at {}: {e}", path.display()));
    }
    Dispatcher::at(&path)
}

/// Whether a lone program shall be attached without a dispatcher (`LIBXDP_SKIP_DISPATCHER`).
pub(super) fn skip_dispatcher() -> bool {
    variable("LIBXDP_SKIP_DISPATCHER").is_some_and(|value| value == "1")
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|_| !has_more_rights(Path::new("/proc")))
}

/// Whether the kernel says that this program runs with more rights than its caller (`AT_SECURE`),
/// or, without procfs, whether its ids do.
fn has_more_rights(proc: &Path) -> bool {
    let told = fs::read(proc.join("self/auxv")).ok().and_then(|vector| secure(&vector));
    told.unwrap_or_else(|| {
        use rustix::process::{getegid, geteuid, getgid, getuid};
        (getuid(), getgid()) != (geteuid(), getegid())
    })
}

/// The value of `AT_SECURE` in an auxiliary vector: pairs of words, a kind and a value.
fn secure(vector: &[u8]) -> Option<bool> {
    /// Of `linux/auxvec.h`.
    const AT_SECURE: usize = 23;
    let words = vector.chunks_exact(size_of::<usize>());
    let words: Vec<_> =
        words.filter_map(|word| Some(usize::from_ne_bytes(word.try_into().ok()?))).collect();
    let mut pairs = words.chunks_exact(2);
    pairs.find(|pair| pair[0] == AT_SECURE).map(|pair| pair[1] != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_whether_a_program_has_more_rights() {
        let vector = |pairs: &[[usize; 2]]| -> Vec<u8> {
            pairs.iter().flatten().flat_map(|word| word.to_ne_bytes()).collect()
        };
        // 23 as a value is none as a kind.
        assert_eq!(secure(&vector(&[[6, 23], [23, 1], [0, 0]])), Some(true));
        assert_eq!(secure(&vector(&[[33, 9], [23, 0], [0, 0]])), Some(false));
        assert_eq!(secure(&vector(&[[6, 4096], [0, 0]])), None);
        assert_eq!((secure(&[]), secure(&[23, 0, 0])), (None, None));
        assert!(!has_more_rights(Path::new("/proc")), "a test has its caller's");
        assert!(!has_more_rights(Path::new("/nonexistent")), "the same by its ids");
    }
}
