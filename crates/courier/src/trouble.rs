//! Log lines for changes only: what stays broken is told once, and once more when it is well again.

use std::time::Duration;
use tokio::time::Instant;

/// How one side stands.
#[derive(Debug)]
pub(crate) struct Side {
    /// What it is called in the log.
    name: &'static str,
    /// The kind of trouble, and since when there is trouble.
    now: Option<(String, Instant)>,
}

/// What is worth a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// There is trouble of a new kind.
    Worse,
    /// It is well again after so long.
    Well(Duration),
}

impl Side {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, now: None }
    }

    /// Notes how it stands now, and logs it if that is news.
    pub(crate) fn note(&mut self, trouble: Option<(&str, &str)>) {
        let name = self.name;
        match self.change(trouble.map(|(kind, _)| kind)) {
            Change::None => {
                if let Some((kind, text)) = trouble {
                    tracing::debug!(kind, "{name}: {text}");
                }
            }
            Change::Worse => {
                if let Some((kind, text)) = trouble {
                    tracing::warn!(kind, "{name}: {text}");
                }
            }
            Change::Well(after) => {
                tracing::info!("{name}: well again after {} s", after.as_secs());
            }
        }
    }

    fn change(&mut self, kind: Option<&str>) -> Change {
        match (&mut self.now, kind) {
            (None, None) => Change::None,
            (Some((before, _)), Some(kind)) if before == kind => Change::None,
            (Some((before, _)), Some(kind)) => {
                kind.clone_into(before);
                Change::Worse
            }
            (None, Some(kind)) => {
                self.now = Some((kind.to_owned(), Instant::now()));
                Change::Worse
            }
            (Some((_, since)), None) => {
                let after = since.elapsed();
                self.now = None;
                Change::Well(after)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_changes_are_worth_a_line() {
        let mut side = Side::new("source");
        assert_eq!(side.change(None), Change::None);
        assert_eq!(side.change(Some("unreachable")), Change::Worse);
        assert_eq!(side.change(Some("unreachable")), Change::None);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(side.change(Some("denied")), Change::Worse);
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(side.change(None), Change::Well(Duration::from_secs(100)));
        assert_eq!(side.change(None), Change::None);
    }
}
