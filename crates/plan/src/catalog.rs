//! The programs that the document's chains use, each looked up and fingerprinted once.

use crate::Wanted;
use pointsman_model::facts::{ProgramFacts, ProgramProblem};
use pointsman_model::plan::ResolvedProgram;
use pointsman_model::{Document, Fingerprint, ProgramName};
use std::collections::{BTreeMap, BTreeSet};

/// One load of a program: the name its counters and maps belong to, and which load of it.
pub(crate) type Load = (ProgramName, Fingerprint);

/// A program that can be built into a chain.
#[derive(Debug)]
pub(crate) struct Usable<'a> {
    pub(crate) name: &'a ProgramName,
    pub(crate) resolved: &'a ResolvedProgram,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) facts: &'a ProgramFacts,
}

impl Usable<'_> {
    pub(crate) fn load(&self) -> Load {
        (self.name.clone(), self.fingerprint.clone())
    }
}

/// The programs by name.
#[derive(Debug)]
pub(crate) struct Catalog<'a>(BTreeMap<&'a ProgramName, Result<Usable<'a>, ProgramProblem>>);

impl<'a> Catalog<'a> {
    pub(crate) fn new(wanted: &Wanted<'a>) -> Self {
        let look_up = |name| (name, usable(wanted, name));
        Self(used(wanted.document).into_iter().map(look_up).collect())
    }

    /// The program called `name`, which some chain uses, or why it cannot be used.
    pub(crate) fn get(&self, name: &ProgramName) -> Result<&Usable<'a>, &ProgramProblem> {
        self.0.get(name).expect("invariant: the catalog holds what chains use").as_ref()
    }

    /// The program called `name`, if some chain uses it and it can be used.
    pub(crate) fn find(&self, name: &ProgramName) -> Option<&Usable<'a>> {
        self.0.get(name)?.as_ref().ok()
    }

    pub(crate) fn usable(&self) -> impl Iterator<Item = &Usable<'a>> {
        self.0.values().filter_map(|program| program.as_ref().ok())
    }
}

/// The programs that some chain of `document` uses.
pub(crate) fn used(document: &Document) -> BTreeSet<&ProgramName> {
    let chains = document.interfaces.values().filter_map(|interface| interface.xdp.as_ref());
    chains.flat_map(|xdp| &xdp.chain).map(|entry| &entry.program).collect()
}

fn usable<'a>(wanted: &Wanted<'a>, name: &'a ProgramName) -> Result<Usable<'a>, ProgramProblem> {
    // A caller that forgot one gets a refusal of the hooks that use it, as for any other problem.
    let missing = |what| ProgramProblem {
        message: format!("program {name} was not {what} before planning; apply again"),
        log: None,
    };
    let resolved = wanted
        .programs
        .get(name)
        .ok_or_else(|| missing("resolved"))?
        .as_ref()
        .map_err(Clone::clone)?;
    let fingerprint = resolved.fingerprint();
    let facts = wanted
        .facts
        .get(&fingerprint)
        .ok_or_else(|| missing("inspected"))?
        .as_ref()
        .map_err(Clone::clone)?;
    Ok(Usable { name, resolved, fingerprint, facts })
}
