//! Tells the service manager how the courier stands, where there is one.

use pointsman_logging::tell_manager;
use sd_notify::NotifyState;
use std::time::Duration;

/// It has begun its work.
pub(crate) fn ready() {
    tell_manager(&[NotifyState::Ready]);
}

/// It is about to end.
pub(crate) fn stopping() {
    tell_manager(&[NotifyState::Stopping]);
}

/// It is alive.
pub(crate) fn alive() {
    tell_manager(&[NotifyState::Watchdog]);
}

/// One line about how it stands.
pub(crate) fn status(line: &str) {
    tell_manager(&[NotifyState::Status(line)]);
}

/// How often the service manager wants to hear that it is alive.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}
