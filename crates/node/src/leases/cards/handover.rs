//! Sockets that clients hand over: whether one is bound to where it is to receive.
//!
//! The kernel would take any, and drop without a word what comes for one that is bound elsewhere.

use super::flows::inside;
use pointsman_bpf::sockets::{Bound, Found, Looker};
use pointsman_model::lease::Place;
use pointsman_netdev::{Namespace, NamespaceId};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Looks at sockets, where the kernel tells what they are bound to.
#[derive(Debug, Default)]
pub(super) struct Inspector(Tried);

/// Loading what looks takes a while, and most hosts have no clients that hand sockets over.
#[derive(Debug, Default)]
enum Tried {
    #[default]
    NotYet,
    Works(Looker),
    /// The kernel cannot tell, which has been said.
    CannotTell,
}

/// Where a socket is to receive.
#[derive(Debug)]
struct Asked<'a> {
    place: &'a Place,
    queue: u32,
    /// The inode of the interface's network namespace.
    namespace: u64,
}

impl Inspector {
    /// Checks that a socket is bound to a queue of an interface. `namespace`: the interface's, where
    /// it is not the daemon's. Where the kernel cannot tell, every socket passes.
    ///
    /// # Errors
    /// One line that says what it is and what was asked for; or what could not be looked at.
    pub(super) fn check(
        &mut self,
        socket: BorrowedFd<'_>,
        place: &Place,
        namespace: Option<&Path>,
        queue: u32,
    ) -> Result<Result<(), String>, String> {
        let Some(looker) = self.looker() else { return Ok(Ok(())) };
        let found = looker.look(socket).map_err(|error| error.to_string())?;
        let inode = inside(namespace, || {
            let own = Namespace::own().and_then(|own| own.id());
            own.map(NamespaceId::inode).map_err(|error| error.to_string())
        })?;
        Ok(fits(found, &Asked { place, queue, namespace: inode }))
    }

    fn looker(&mut self) -> Option<&Looker> {
        if matches!(self.0, Tried::NotYet) {
            self.0 = match Looker::new() {
                Ok(looker) => Tried::Works(looker),
                Err(error) => {
                    tracing::warn!(
                        "sockets that clients hand over are not checked, and receive nothing if \
                         they are bound elsewhere: {error}"
                    );
                    Tried::CannotTell
                }
            };
        }
        match &self.0 {
            Tried::Works(looker) => Some(looker),
            Tried::NotYet | Tried::CannotTell => None,
        }
    }
}

/// Whether a socket is what was asked for; else the one line.
fn fits(found: Found, asked: &Asked<'_>) -> Result<(), String> {
    let bound = match found {
        Found::NoSocket => return Err("what was handed over is no AF_XDP socket".to_owned()),
        Found::Unbound => {
            return Err(format!("the socket is not bound to an interface: bind it to {asked}"));
        }
        Found::Bound(bound) => bound,
    };
    let Bound { index, queue, namespace } = bound;
    if (index, queue, namespace) == (asked.place.index, asked.queue, asked.namespace) {
        return Ok(());
    }
    let elsewhere = if namespace == asked.namespace {
        String::new()
    } else {
        format!(" in another network namespace, net:[{namespace}]")
    };
    Err(format!(
        "the socket is bound to queue {queue} of interface number {index}{elsewhere}, and not to {asked}"
    ))
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "queue {} of interface number {}", self.queue, self.place.index)?;
        match &self.place.namespace {
            Some(name) => write!(f, " in network namespace {name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::NamespaceName;
    use proptest::prelude::*;

    fn place(namespace: Option<&str>) -> Place {
        Place { namespace: namespace.map(|name| NamespaceName::new(name).unwrap()), index: 7 }
    }

    #[test]
    fn one_line_names_what_it_is_and_what_was_asked_for() {
        let said = |found, namespace| {
            fits(found, &Asked { place: &place(namespace), queue: 3, namespace: 99 }).unwrap_err()
        };
        let bound = |index, queue, namespace| Found::Bound(Bound { index, queue, namespace });
        for (found, namespace, expected) in [
            (Found::NoSocket, None, "what was handed over is no AF_XDP socket"),
            (
                Found::Unbound,
                Some("blue"),
                "the socket is not bound to an interface: bind it to queue 3 of interface number \
                 7 in network namespace blue",
            ),
            (
                bound(7, 2, 99),
                None,
                "the socket is bound to queue 2 of interface number 7, and not to queue 3 of \
                 interface number 7",
            ),
            (
                bound(7, 3, 98),
                Some("blue"),
                "the socket is bound to queue 3 of interface number 7 in another network \
                 namespace, net:[98], and not to queue 3 of interface number 7 in network \
                 namespace blue",
            ),
        ] {
            assert_eq!(said(found, namespace), expected);
        }
    }

    proptest! {
        #[test]
        fn it_fits_where_all_three_are_the_same(
            index in 6..9_u32, queue in 2..5_u32, namespace in 98..101_u64,
        ) {
            let found = Found::Bound(Bound { index, queue, namespace });
            let fits = fits(found, &Asked { place: &place(None), queue: 3, namespace: 99 });
            prop_assert_eq!(fits.is_ok(), (index, queue, namespace) == (7, 3, 99));
        }
    }
}
