//! A program that somebody else attaches.

use crate::netns::Netns;
use crate::object_path;
use anyhow::{Context as _, Result};
use libbpf_rs::{ObjectBuilder, Xdp, XdpFlags};
use std::os::fd::AsFd as _;

/// Attaches a program of a test object natively by netlink, as tools of others do, without any pin: `ip`
/// makes directories in whichever BPF filesystem it finds.
///
/// # Errors
/// The kernel's answer.
pub fn attach(netns: &Netns, interface: &str, object: &str, program: &str) -> Result<()> {
    let index = i32::try_from(netns.index(interface))?;
    let mut builder = ObjectBuilder::default();
    let mut open = builder.open_file(object_path(object))?;
    for mut other in open.progs_mut() {
        let wanted = other.name() == program;
        other.set_autoload(wanted);
    }
    let object = open.load()?;
    let found = object.progs().find(|other| other.name() == program).context("no such program")?;
    let fd = found.as_fd();
    netns.run(move || Xdp::new(fd).attach(index, XdpFlags::DRV_MODE)).context("attach")
}
