//! Closes what clients sent, on a thread of its own: the last close of a descriptor can block for as
//! long as its sender likes (a TCP socket that lingers, a file of a FUSE server).

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// Where things go that are to be closed. What waits is bounded by the limit of open files.
#[derive(Debug)]
pub(crate) struct Closer<T>(Sender<T>);

impl<T: Send + 'static> Closer<T> {
    /// Starts the thread, which ends with the process.
    pub(crate) fn start() -> io::Result<Self> {
        let (closer, waiting) = channel();
        let run = move || waiting.into_iter().for_each(drop);
        thread::Builder::new().name("closer".into()).stack_size(64 << 10).spawn(run)?;
        Ok(Self(closer))
    }

    /// Has something closed; does not wait for that.
    pub(crate) fn close(&self, what: T) {
        // The thread ends only when nobody can call this any more.
        let _ = self.0.send(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, sync_channel};

    /// Its close waits until somebody says so, and tells when it is done.
    struct Lingers(Receiver<()>, Sender<()>);

    impl Drop for Lingers {
        fn drop(&mut self) {
            let _ = self.0.recv();
            let _ = self.1.send(());
        }
    }

    #[test]
    fn a_close_that_blocks_holds_nobody_up() {
        let closer = Closer::start().unwrap();
        let (end, ends) = sync_channel(0);
        let (done, closed) = channel();
        closer.close(Lingers(ends, done));
        closed.try_recv().expect_err("it lingers, and we are here");
        end.send(()).unwrap();
        closed.recv().expect("it is closed");
    }
}
