//! Tells the service manager how the daemon stands, where there is one.

use sd_notify::NotifyState;

/// The daemon has adopted what runs and answers requests. Under a keeper, that one tells.
pub fn ready() {
    send(&NotifyState::Ready);
}

/// The daemon is about to end. Under a keeper, that one tells: it may start another.
pub fn stopping() {
    send(&NotifyState::Stopping);
}

/// One line about how the daemon stands.
pub fn status(line: &str) {
    send(&NotifyState::Status(line));
}

/// Without `NOTIFY_SOCKET` this does nothing. A service manager that does not listen is no reason
/// to stop working.
fn send(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
