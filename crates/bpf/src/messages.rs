//! What libbpf says. It has one print function for the whole process: messages go to `tracing`,
//! and where an operation wants to quote them, to that operation's thread as well.

use libbpf_rs::{PrintLevel, set_print};
use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs `operation` and returns what libbpf warned about meanwhile, in one line.
pub(crate) fn capture<T>(operation: impl FnOnce() -> T) -> (T, Option<String>) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        set_print(Some((PrintLevel::Info, hear)));
    });
    HEARD.with_borrow_mut(|heard| *heard = Some(Vec::new()));
    let result = operation();
    let heard = HEARD.with_borrow_mut(Option::take).unwrap_or_default();
    (result, (!heard.is_empty()).then(|| heard.join("; ")))
}

#[expect(clippy::needless_pass_by_value, reason = "libbpf-rs wants this signature")]
fn hear(level: PrintLevel, message: String) {
    let message = message.trim_end();
    let line = message.strip_prefix("libbpf: ").unwrap_or(message);
    match level {
        PrintLevel::Warn => {
            tracing::debug!(target: "libbpf", "{line}");
            HEARD.with_borrow_mut(|heard| {
                // A verifier's log comes this way too; it is taken from its own buffer.
                if let Some(heard) = heard
                    && heard.len() < 8
                    && !line.contains("-- BEGIN PROG LOAD LOG --")
                {
                    heard.push(line.to_owned());
                }
            });
        }
        PrintLevel::Info | PrintLevel::Debug => tracing::trace!(target: "libbpf", "{line}"),
    }
}
