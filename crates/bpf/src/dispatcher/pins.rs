//! A dispatcher's pins, exactly as libxdp makes and removes them: per slot `progN-link` and
//! `progN-prog`, and nothing else.

use super::build::Built;
use super::lock::{Dispatcher, Lock};
use crate::error::Error;
use crate::kernel;
use crate::pins;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

impl Dispatcher {
    /// Pins all slots of a new dispatcher. Either all are pinned, or nothing is left.
    pub(super) fn pin(
        &self,
        interface_index: u32,
        built: &Built,
        _lock: &Lock,
    ) -> Result<(), Error> {
        let directory = self.directory(interface_index, built.id);
        // Of a dispatcher that had the same id once: it is gone, the kernel gives ids anew.
        pins::remove_directory(&directory)?;
        pins::make_directory(&directory)?;
        for (at, (link, program)) in built.slots.iter().enumerate() {
            let pinned = kernel::pin(link.as_fd(), &directory.join(format!("prog{at}-link")))
                .and_then(|()| {
                    kernel::pin(program.as_fd(), &directory.join(format!("prog{at}-prog")))
                });
            if let Err(e) = pinned {
                // What cannot be removed is garbage that `clean` finds; the first error counts.
                let _ = pins::remove_directory(&directory);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Removes the pins of a dispatcher of `slots` programs that is attached no longer. What is no pin of a slot
    /// stays, and its directory with it.
    pub(super) fn unpin(
        &self,
        interface_index: u32,
        program: u32,
        slots: usize,
        _lock: &Lock,
    ) -> Result<(), Error> {
        let directory = self.directory(interface_index, program);
        let mut first = None;
        for at in 0..slots {
            for kind in ["link", "prog"] {
                let removed = pins::remove(&directory.join(format!("prog{at}-{kind}")));
                first = first.or(removed.err());
            }
        }
        first = first.or(remove_empty(&directory).err());
        first.map_or(Ok(()), Err)
    }
}

fn remove_empty(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::os(format!("remove directory {}", directory.display()), e))
        }
        _ => Ok(()),
    }
}
