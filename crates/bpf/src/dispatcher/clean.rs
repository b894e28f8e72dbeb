//! Removing what crashes and deleted interfaces leave behind.

use super::error::DispatcherError;
use super::lock::Dispatcher;
use super::namespaces;
use super::sys;
use crate::pins;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::time::Duration;

/// How old pins must be before they are taken for forgotten: a peer pins first and attaches then,
/// without the lock in between.
const FORGOTTEN: Duration = Duration::from_secs(1);

/// What was cleaned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Directories that are gone now, by name.
    pub removed: Vec<String>,
    /// Directories that stay, because they are so young that somebody may be about to attach them.
    pub young: Vec<String>,
    /// Directories that stay, because their dispatcher runs in another network namespace.
    pub elsewhere: Vec<String>,
    /// Directories that stay, because their dispatcher is still loaded and may run where nobody
    /// can look: [`unseen`](Self::unseen) says where.
    pub doubtful: Vec<String>,
    /// What could not be looked at; `None`: all network namespaces were searched.
    pub unseen: Option<String>,
}

impl Dispatcher {
    /// Removes the pins of dispatchers that run nowhere; of one interface's only, if one is given.
    ///
    /// Names of pins carry an interface's number and not its network namespace, so all
    /// namespaces that have a process, a file or a mount are searched. Where some of them cannot
    /// be looked at, only pins of dispatchers go that the kernel has no more: one that is still
    /// loaded may be held by its pins alone, or run there.
    ///
    /// # Errors
    /// The lock is held, or what runs in this namespace cannot be told: then nothing is removed.
    pub fn clean(&self, interface_index: Option<u32>) -> Result<Cleaned, DispatcherError> {
        self.clean_of_age(interface_index, true)
    }

    /// The same without waiting until young pins are old enough: they [stay](Cleaned::young) for the
    /// next time.
    ///
    /// # Errors
    /// As of [`clean`](Self::clean).
    pub fn clean_now(&self, interface_index: Option<u32>) -> Result<Cleaned, DispatcherError> {
        self.clean_of_age(interface_index, false)
    }

    fn clean_of_age(
        &self,
        interface_index: Option<u32>,
        wait: bool,
    ) -> Result<Cleaned, DispatcherError> {
        let Some(_lock) = self.lock_if_there()? else { return Ok(Cleaned::default()) };
        let mut found = Vec::new();
        for name in pins::list(self.root())? {
            let Some((index, program)) = parse(&name) else { continue };
            if interface_index.is_none_or(|only| only == index) {
                found.push((name, program));
            }
        }
        let mut cleaned = Cleaned::default();
        // What runs here needs no search of all processes, nor the time that it takes.
        let here = namespaces::running_here()?;
        found.retain(|(_, program)| !here.contains(program));
        match wait {
            true => self.wait_until_old(&found),
            false => {
                let is_young = |(name, _): &(String, u32)| self.rest(name).is_some();
                let (young, old) = found.into_iter().partition(is_young);
                found = old;
                let young: Vec<(String, u32)> = young;
                cleaned.young = young.into_iter().map(|(name, _)| name).collect();
            }
        }
        if found.is_empty() {
            return Ok(cleaned);
        }
        let everywhere = namespaces::running()?;
        cleaned.unseen = everywhere.unseen;
        // Once more: what was not attached yet may be by now.
        let here = namespaces::running_here()?;
        for (name, program) in found {
            match (here.contains(&program), everywhere.programs.contains(&program)) {
                (true, _) => {}
                (false, true) => cleaned.elsewhere.push(name),
                (false, false) if cleaned.unseen.is_some() && is_loaded(program) => {
                    cleaned.doubtful.push(name);
                }
                (false, false) => {
                    pins::remove_directory(&self.root().join(&name))?;
                    cleaned.removed.push(name);
                }
            }
        }
        Ok(cleaned)
    }

    /// Waits until the youngest directory is old enough.
    fn wait_until_old(&self, found: &[(String, u32)]) {
        if let Some(rest) = found.iter().filter_map(|(name, _)| self.rest(name)).max() {
            std::thread::sleep(rest);
        }
    }

    /// How long it takes until a directory is old enough; `None`: it is.
    fn rest(&self, name: &str) -> Option<Duration> {
        let changed = std::fs::metadata(self.root().join(name)).ok()?.modified().ok()?;
        FORGOTTEN.checked_sub(changed.elapsed().ok()?)
    }
}

/// Whether the kernel has a program of this id; yes, if it does not say.
fn is_loaded(program: u32) -> bool {
    let opened = sys::open_program(program);
    opened.map_err(|e| Errno::from_io_error(&e)).err() != Some(Some(Errno::NOENT))
}

/// The interface and the dispatcher in the name of a directory.
pub(super) fn parse(name: &str) -> Option<(u32, u32)> {
    let (index, program) = name.strip_prefix("dispatch-")?.split_once('-')?;
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    Some((number(index)?, number(program)?))
}

/// Programs by the kernel's id.
pub(super) type Programs = BTreeSet<u32>;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    proptest! {
        #[test]
        fn what_is_named_is_understood(index in any::<u32>(), program in any::<u32>()) {
            let dispatcher = Dispatcher::at(Path::new("/sys/fs/bpf"));
            let directory = dispatcher.directory(index, program);
            let name = directory.file_name().unwrap().to_str().unwrap();
            prop_assert_eq!(parse(name), Some((index, program)));
        }

        #[test]
        fn any_name_is_understood_or_left(
            name in prop_oneof![any::<String>(), "(dispatch-)?[0-9+x]{0,11}(-[0-9 ]{0,11}){0,2}"],
        ) {
            if let Some((index, program)) = parse(&name) {
                // The same numbers, with zeros before them at most.
                let digits = name.strip_prefix("dispatch-").unwrap().split_once('-').unwrap();
                let bare = |digits: &str, number: u32| {
                    let bare = digits.trim_start_matches('0');
                    !digits.is_empty() && bare == number.to_string().trim_start_matches('0')
                };
                prop_assert!(bare(digits.0, index) && bare(digits.1, program), "{}", name);
            }
        }
    }

    #[test]
    fn only_names_of_dispatchers_are_understood() {
        assert_eq!(parse("dispatch-7-123"), Some((7, 123)));
        for other in ["dispatch-7", "dispatch--1-2", "dispatch-+7-1", "dispatch-7-x", "xdp-7-1"] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert_eq!(parse("dispatch-4294967296-1"), None);
    }
}
