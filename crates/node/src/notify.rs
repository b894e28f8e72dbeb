//! Tells the service manager how the daemon stands, where there is one.

use pointsman_logging::tell_manager;
use sd_notify::NotifyState;

/// The daemon has adopted what runs and answers requests. Under a keeper, that one tells.
pub fn ready() {
    tell_manager(&[NotifyState::Ready]);
}

/// The daemon is about to end. Under a keeper, that one tells: it may start another.
pub fn stopping() {
    tell_manager(&[NotifyState::Stopping]);
}

/// One line about how the daemon stands.
pub fn status(line: &str) {
    tell_manager(&[NotifyState::Status(line)]);
}
