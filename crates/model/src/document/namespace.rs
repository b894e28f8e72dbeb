//! Where a network namespace is found, checked.

use super::{NamespaceSpec, raw};

pub(super) fn check(raw: raw::RawNamespace) -> Result<NamespaceSpec, (&'static str, &'static str)> {
    /// `PATH_MAX` of `linux/limits.h`, less the terminating zero.
    const LONGEST_PATH: usize = 4095;
    /// `PID_MAX_LIMIT` of `linux/threads.h`.
    const MAX_PID: u32 = 4 << 20;
    let raw::RawNamespace { name, path, pid } = raw;
    match (name, path, pid) {
        (Some(name), None, None) => Ok(NamespaceSpec::Name(name)),
        (None, Some(path), None) if path.len() > LONGEST_PATH => {
            Err(("/path", "expected a path of at most 4095 bytes"))
        }
        (None, Some(path), None) if path.starts_with('/') && !path.contains('\0') => {
            Ok(NamespaceSpec::Path(path.into()))
        }
        (None, Some(_), None) => Err(("/path", "expected an absolute path")),
        (None, None, Some(pid @ 1..=MAX_PID)) => Ok(NamespaceSpec::Pid(pid)),
        (None, None, Some(_)) => Err(("/pid", "expected a number from 1 to 4194304")),
        _ => Err(("", "expected exactly one of `name`, `path` and `pid`")),
    }
}
