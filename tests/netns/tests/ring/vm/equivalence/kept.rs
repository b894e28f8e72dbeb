//! Cases that failed once, or show what is easily got wrong: files, replayed first in each run.

use super::case::Case;
use pointsman_model::Sha256;
use std::path::Path;

/// Name and text of every kept case (`cases/*.json`, built in).
const CASES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/cases.rs"));
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ring/vm/equivalence/cases");

/// All kept cases by name.
pub(super) fn all() -> Vec<(&'static str, Case)> {
    let read = |&(name, text): &(&'static str, &str)| {
        (name, serde_json::from_str(text).unwrap_or_else(|e| panic!("{name}.json: {e}")))
    };
    CASES.iter().map(read).collect()
}

/// Keeps a case: writes it where the next build finds it. Says where, and what it is: in the
/// emulated machine nothing can be written.
pub(super) fn keep(case: &Case) -> String {
    let text = serde_json::to_string_pretty(case).expect("a case is JSON") + "\n";
    let hash = Sha256::of(text.as_bytes()).to_string();
    let path = Path::new(FOLDER).join(format!("{}.json", &hash[..12]));
    match std::fs::write(&path, &text) {
        Ok(()) => format!("kept as {}:\n{text}", path.display()),
        Err(e) => format!("to be kept as {} ({e}):\n{text}", path.display()),
    }
}
