//! What policies may name.

use pointsman_model::ProgramName;
use pointsman_model::fleet::RecordObject;
use std::collections::BTreeMap;

/// The programs of the fleet's library: each by its name, with hash and size of its object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Library(BTreeMap<ProgramName, RecordObject>);

impl Library {
    /// The object of the program of this name.
    #[must_use]
    pub fn find(&self, name: &ProgramName) -> Option<&RecordObject> {
        self.0.get(name)
    }
}

impl FromIterator<(ProgramName, RecordObject)> for Library {
    fn from_iter<I: IntoIterator<Item = (ProgramName, RecordObject)>>(programs: I) -> Self {
        Self(programs.into_iter().collect())
    }
}
