//! Ctrl-C, SIGTERM and a lost terminal: what was started is ended, and cleaning up still runs.
//!
//! One thread receives the signals. It ends the process groups that are registered at the moment;
//! whoever waits for them sees them end and goes on to clean up. Nothing else is killed, ever.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug)]
struct State {
    interrupted: bool,
    groups: Vec<Pid>,
}

static STATE: Mutex<State> = Mutex::new(State { interrupted: false, groups: Vec::new() });
static CHANGED: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    // The state is valid between any two statements, so a panicking holder leaves it usable.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to receive signals. Once per process.
pub(crate) fn install() -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])
        .context("cannot receive signals")?;
    let receive = move || {
        for _ in signals.forever() {
            let mut state = state();
            // The second time, what did not listen is killed.
            let signal = if state.interrupted { Signal::KILL } else { Signal::TERM };
            state.interrupted = true;
            for &group in &state.groups {
                // A group that has just ended is as good as one that was told to.
                let _ = kill_process_group(group, signal);
            }
            drop(state);
            CHANGED.notify_all();
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(receive)
        .context("cannot start a thread")?;
    Ok(())
}

/// Whether a signal has come.
pub(crate) fn pending() -> bool {
    state().interrupted
}

/// Waits for a signal, at most this long; whether one has come.
pub(crate) fn wait(limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let mut state = state();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if state.interrupted || left.is_zero() {
            return state.interrupted;
        }
        let waited = CHANGED.wait_timeout(state, left);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Waits for a signal, for as long as it takes.
pub(crate) fn wait_for_signal() {
    let state = state();
    // A poisoned state is as good: see above.
    drop(CHANGED.wait_while(state, |state| !state.interrupted));
}

/// A process group that a signal ends, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Group(Pid);

impl Group {
    /// Registers the group that `leader` leads. A signal that came before ends it at once.
    pub(crate) fn register(leader: Pid) -> Self {
        let mut state = state();
        state.groups.push(leader);
        if state.interrupted {
            let _ = kill_process_group(leader, Signal::TERM);
        }
        Self(leader)
    }

    /// Kills what is left of the group. The leader must not have been reaped: its number still
    /// belongs to it then, and to nobody else.
    pub(crate) fn kill(&self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        state().groups.retain(|&group| group != self.0);
    }
}
