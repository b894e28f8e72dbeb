//! Documents that were laid down, not asked for: the watched one, and what of this a fleet's snapshot
//! shares.

use super::{Engine, Request};
use crate::watch;
use pointsman_model::Sha256;

impl Engine {
    /// Reads and applies the watched document. `starting`: it may have been there all along.
    pub(super) fn document_changed(&mut self, starting: bool) {
        let text = match watch::read(&self.document) {
            Ok(Some(text)) => text,
            Ok(None) => {
                let path = self.document.display();
                tracing::info!(document = %path, "there is no watched document: nothing changes");
                return;
            }
            Err(error) => return self.refuse(&self.document.display().to_string(), vec![error]),
        };
        let state = self.state.state();
        let in_force = state.current.as_ref().map(|edition| edition.document);
        // A start changes nothing by itself, and what was drained stays so until an operator asks
        // for it or there is a new document; only a document that is put there again while the
        // daemon runs asks for another look at its objects.
        if (starting || state.drained) && in_force == Some(Sha256::of(&text)) {
            self.refused = None;
            if state.drained {
                tracing::warn!(
                    "the node is drained and its watched document is the one that was drained; \
                     to attach it again use `pointsman apply {}`",
                    self.document.display()
                );
            }
            return;
        }
        let what = self.document.display().to_string();
        let how = format!("use `pointsman apply {what}`");
        let passed_over = state.passed_over;
        if let Some(why) = self.must_wait(&Sha256::of(&text), passed_over, &what, &how) {
            tracing::warn!("the watched document is not looked at: {why}");
            self.refused = None;
            self.ignored = Some(why);
            return;
        }
        let request = Request { asked: false, ..Request::new(text) };
        // What came of it is in the log and in the status.
        let _ = self.apply_from(&request, &self.document.display().to_string());
    }

    /// Why a document that was laid down is left alone for now. `passed_over`: the one that was
    /// there when the node was drained. `what` it is, and `how` it is taken all the same.
    pub(super) fn must_wait(
        &self,
        digest: &Sha256,
        passed_over: Option<Sha256>,
        what: &str,
        how: &str,
    ) -> Option<String> {
        let state = self.state.state();
        let generation = state.current.as_ref().map_or(0, |edition| edition.generation);
        let in_force = self.in_force();
        if let Some(mark) = state.left.iter().find(|mark| mark.digest == *digest) {
            return Some(format!(
                "{what} is generation {}, from which somebody returned to generation {generation}; \
                 to take it all the same {how}",
                mark.generation
            ));
        }
        if state.drained && passed_over == Some(*digest) {
            return Some(format!("{what} was there when the node was drained; to take it {how}"));
        }
        // Whoever lays documents down does not know that an operator is trying something, and
        // must not end what brings him back if he has cut himself off.
        (state.unconfirmed.is_some() && in_force != Some(*digest)).then(|| {
            format!("{what} is looked at when generation {generation} is confirmed or gone")
        })
    }
}
