//! The kernel rings. Tests in `vm` need a kernel and nothing else: they run on this host and on
//! Debian's kernel in the emulated machine. Tests in `host` drive the daemon and the command line,
//! those in `fleet` a control plane with hosts and couriers. Tests
//! in `systemd` start the packaged unit, in a machine of their own whose first process is systemd.

mod fleet;
mod host;
mod systemd;
mod vm;
