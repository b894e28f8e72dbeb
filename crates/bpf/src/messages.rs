//! What libbpf says. It has one print function for the whole process: messages go to `tracing`,
//! and where an operation wants to quote them, to that operation's thread as well.

use libbpf_sys as sys;
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Once;

thread_local! {
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// The longest message that is kept whole, in bytes. The kernel's logs come this way too.
const LONGEST: usize = 16 << 10;

/// What libbpf calls, and what it takes for such a function. The list of arguments is one pointer
/// for the machine, whatever its C type: an array on x86-64, a structure passed by reference on
/// arm64, a plain pointer elsewhere.
type Print = unsafe extern "C" fn(sys::libbpf_print_level, *const c_char, *mut c_void) -> c_int;

unsafe extern "C" {
    fn vsnprintf(
        buffer: *mut c_char,
        size: usize,
        format: *const c_char,
        arguments: *mut c_void,
    ) -> c_int;
}

/// Runs `operation` and returns what libbpf warned about meanwhile, in one line.
pub(crate) fn capture<T>(operation: impl FnOnce() -> T) -> (T, Option<String>) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // Not by libbpf-rs: its callback panics at text that is not UTF-8, such as the name of a
        // section in a damaged object, and a panic cannot leave a C function: it would abort.
        // SAFETY: the two types differ in the last argument alone, a pointer in both; the
        // function lives for ever.
        unsafe {
            let print = std::mem::transmute::<Print, sys::libbpf_print_fn_t>(print);
            sys::libbpf_set_print(print);
        }
    });
    HEARD.with_borrow_mut(|heard| *heard = Some(Vec::new()));
    let result = operation();
    let heard = HEARD.with_borrow_mut(Option::take).unwrap_or_default();
    (result, (!heard.is_empty()).then(|| heard.join("; ")))
}

/// # Safety
/// For libbpf alone, which gives a format and the arguments that belong to it.
unsafe extern "C" fn print(
    level: sys::libbpf_print_level,
    format: *const c_char,
    arguments: *mut c_void,
) -> c_int {
    // Said by the hundred, and formatting is what costs.
    if level == sys::LIBBPF_DEBUG {
        return 0;
    }
    let mut buffer = vec![0u8; LONGEST];
    // SAFETY: the buffer has the size given; format and arguments are the caller's promise, and
    // the arguments are read once.
    let written = unsafe { vsnprintf(buffer.as_mut_ptr().cast(), buffer.len(), format, arguments) };
    if let Ok(written) = usize::try_from(written) {
        // A longer message is cut, its last byte is zero.
        buffer.truncate(written.min(LONGEST - 1));
        hear(level, &String::from_utf8_lossy(&buffer));
    }
    0
}

fn hear(level: sys::libbpf_print_level, message: &str) {
    let message = message.trim_end();
    let line = message.strip_prefix("libbpf: ").unwrap_or(message);
    if level != sys::LIBBPF_WARN {
        tracing::trace!(target: "libbpf", "{line}");
        return;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets libbpf complain about a file that does not exist.
    fn complaint(path: &std::ffi::CStr) -> String {
        let said = capture(|| {
            // SAFETY: the path is zero-terminated; without a file there is nothing to free.
            let btf = unsafe { sys::btf__parse_elf(path.as_ptr(), std::ptr::null_mut()) };
            assert!(btf.is_null());
        });
        said.1.expect("libbpf says that it cannot open the file")
    }

    #[test]
    fn text_that_is_not_utf8_is_heard() {
        let said = complaint(c"/nowhere/\xff\xfe/at all");
        assert!(said.contains("/nowhere/\u{fffd}\u{fffd}/at all"), "{said}");
    }

    #[test]
    fn long_messages_are_cut() {
        let path = std::ffi::CString::new(format!("/nowhere/{}", "long".repeat(LONGEST)));
        let said = complaint(&path.expect("no zero byte"));
        assert!(said.len() < LONGEST && said.contains("longlong"), "{} bytes", said.len());
    }
}
