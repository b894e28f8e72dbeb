//! From a document's programs to objects with known facts.
//!
//! Everything a plan needs is found, kept on disk and looked at here, before the first visible
//! change. What is wrong with one program is that program's [`ProgramProblem`]; only a disk that
//! does not take an object ends the whole.

use crate::disk::StorageError;
use crate::fleet::drop::DropDir;
use crate::host::Kernel;
use crate::state::{Edition, StateFile, StoredObject};
use crate::store::{Store, read_regular};
use pointsman_model::document::{
    Builtin, Document, InstanceProgram, Namespaces, ObjectSource, ProgramSpec,
};
use pointsman_model::facts::{ProgramFacts, ProgramProblem};
use pointsman_model::plan::{ResolvedProgram, entries_digest};
use pointsman_model::{Fingerprint, ProgramName, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The largest object, in bytes.
pub const MAX_OBJECT: usize = 16 << 20;

/// Where objects come from.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// From where the document says: an apply.
    Sources,
    /// From the store, as they were when the document was accepted: a start. A file that was
    /// recompiled since does not change what runs.
    Accepted(&'a Edition),
}

/// Finds objects and looks at programs.
#[derive(Debug)]
pub struct Resolver<'a, K: ?Sized> {
    /// Looks at programs.
    pub kernel: &'a mut K,
    /// Keeps objects.
    pub store: &'a Store,
    /// Where somebody else may have laid objects down.
    pub dropped: Option<&'a DropDir>,
    /// What is known from earlier.
    pub cache: &'a mut FactsCache,
    /// Remembers which objects are put into the store; without it none is: a plan changes
    /// nothing.
    pub keep: Option<&'a mut StateFile>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Resolved {
    /// Per program of some chain.
    pub programs: BTreeMap<ProgramName, Result<ResolvedProgram, ProgramProblem>>,
    /// What is known of them.
    pub facts: BTreeMap<Fingerprint, Result<ProgramFacts, ProgramProblem>>,
    /// Where the network namespaces of the document are found.
    pub namespaces: Namespaces,
    /// Objects that were not in the store before.
    pub stored: Vec<Sha256>,
    /// How many programs had to be loaded to look at them.
    pub inspected: usize,
    /// What of the cache was needed.
    used: BTreeSet<CacheKey>,
}

/// An object that was found. Without bytes it is in the store, to be read if it is needed.
struct Found<'a> {
    hash: Sha256,
    bytes: Option<Cow<'a, [u8]>>,
    source: String,
}

/// A program alone: its fingerprint, and a digest of its map entries and of the maps that the
/// document names, which are checked with it.
type CacheKey = (Fingerprint, Sha256);

/// What is known of programs from earlier, so that nothing is loaded twice. Refusals are not
/// kept: their cause may lie outside the object.
#[derive(Debug, Default)]
pub struct FactsCache {
    facts: BTreeMap<CacheKey, ProgramFacts>,
    builtins: BTreeMap<Builtin, Sha256>,
    /// Of the document in force.
    accepted: BTreeSet<CacheKey>,
}

impl FactsCache {
    /// Forgets what neither the document in force nor `resolved` needs; `accepted` makes
    /// `resolved` the document in force.
    pub fn prune(&mut self, resolved: &Resolved, accepted: bool) {
        if accepted {
            self.accepted.clone_from(&resolved.used);
        }
        let (in_force, used) = (&self.accepted, &resolved.used);
        self.facts.retain(|key, _| in_force.contains(key) || used.contains(key));
    }
}

impl Resolved {
    /// The objects by program, as they are remembered. What instances bring is remembered nowhere.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<ProgramName, StoredObject> {
        let found = self.programs.iter().filter_map(|(name, program)| {
            let program = program.as_ref().ok()?;
            if InstanceProgram::of_source(&program.source).is_some() {
                return None;
            }
            let source = program.source.clone();
            Some((name.clone(), StoredObject { sha256: program.object, source }))
        });
        found.collect()
    }

    /// The programs by what steps call them.
    #[must_use]
    pub fn by_fingerprint(&self) -> BTreeMap<(ProgramName, Fingerprint), ResolvedProgram> {
        let found = self.programs.iter().filter_map(|(name, program)| {
            let program = program.as_ref().ok()?;
            Some(((name.clone(), program.fingerprint()), program.clone()))
        });
        found.collect()
    }
}

impl<K: Kernel + ?Sized> Resolver<'_, K> {
    /// Resolves every program that some chain of `document` uses.
    ///
    /// # Errors
    /// [`StorageError`]: then the store is as it was.
    pub fn resolve(
        &mut self,
        document: &Document,
        origin: Origin<'_>,
    ) -> Result<Resolved, StorageError> {
        let namespaces = document.namespaces.clone();
        let mut resolved = Resolved { namespaces, ..Resolved::default() };
        for name in used_programs(document) {
            let spec = &document.programs[name];
            match self.program(name, spec, origin, &mut resolved) {
                Ok(program) => {
                    resolved.programs.insert(name.clone(), program);
                }
                Err(error) => {
                    for hash in &resolved.stored {
                        // The error that matters is the one that ended it.
                        let _ = self.store.remove(hash);
                    }
                    return Err(error);
                }
            }
        }
        Ok(resolved)
    }

    fn program(
        &mut self,
        name: &ProgramName,
        spec: &ProgramSpec,
        origin: Origin<'_>,
        resolved: &mut Resolved,
    ) -> Result<Result<ResolvedProgram, ProgramProblem>, StorageError> {
        let found = match origin {
            Origin::Sources => self.find(&spec.object),
            // What instances bring is this version's, whatever document is in force.
            Origin::Accepted(_) if is_of_instances(&spec.object) => self.find(&spec.object),
            Origin::Accepted(edition) => self.recall(name, edition),
        };
        let Found { hash, bytes, source } = match found {
            Ok(found) => found,
            Err(message) => return Ok(Err(ProgramProblem { message, log: None })),
        };
        if let Some(state) = self.keep.as_deref_mut()
            && let Some(bytes) = &bytes
            && !is_of_instances(&spec.object)
            && !self.store.contains(&hash)
        {
            state.copies(hash)?;
            self.store.put(&hash, bytes)?;
            resolved.stored.push(hash);
        }
        let program = ResolvedProgram {
            object: hash,
            source,
            entry: spec.entry.clone(),
            globals: spec.globals.clone(),
            maps: spec.maps.clone(),
            on_upgrade: spec.on_upgrade.clone(),
        };
        Ok(self.look_at(&program, bytes, resolved).map(|()| program))
    }

    /// Adds the program's facts to `resolved`.
    fn look_at(
        &mut self,
        program: &ResolvedProgram,
        bytes: Option<Cow<'_, [u8]>>,
        resolved: &mut Resolved,
    ) -> Result<(), ProgramProblem> {
        let fingerprint = program.fingerprint();
        let key = (fingerprint.clone(), maps_digest(program));
        let facts = match self.cache.facts.get(&key) {
            Some(facts) => facts.clone(),
            None => {
                let bytes = match bytes {
                    Some(bytes) => bytes,
                    None => Cow::Owned(self.store.read(&program.object).map_err(|error| {
                        ProgramProblem { message: error.to_string(), log: None }
                    })?),
                };
                resolved.inspected += 1;
                let facts = self.kernel.inspect(program, &bytes)?;
                self.cache.facts.insert(key.clone(), facts.clone());
                facts
            }
        };
        resolved.used.insert(key);
        // The entry is known now, and only what is usable comes this far: a program of the same
        // fingerprint whose map entries are wrong has its problem under its own name.
        resolved.facts.insert(fingerprint, Ok(facts));
        Ok(())
    }

    /// Finds an object where the document says.
    fn find<'s>(&mut self, object: &'s ObjectSource) -> Result<Found<'s>, String> {
        let found = |hash, bytes| Found { hash, bytes, source: object.to_string() };
        match object {
            ObjectSource::Path(path, expected) => {
                let bytes = read_regular(path, MAX_OBJECT)
                    .map_err(|error| format!("cannot read object {}: {error}", path.display()))?;
                let hash = Sha256::of(&bytes);
                if let Some(expected) = expected
                    && *expected != hash
                {
                    return Err(format!(
                        "the sha256 of object {} is {hash}, and the document \
                         expects {expected}",
                        path.display()
                    ));
                }
                Ok(found(hash, Some(Cow::Owned(bytes))))
            }
            ObjectSource::Inline(bytes) => Ok(found(Sha256::of(bytes), Some(Cow::Borrowed(bytes)))),
            ObjectSource::Builtin(builtin) => {
                let bytes = self.kernel.builtin(*builtin);
                let hash =
                    *self.cache.builtins.entry(*builtin).or_insert_with(|| Sha256::of(bytes));
                Ok(found(hash, Some(Cow::Borrowed(bytes))))
            }
            ObjectSource::Instances(program) => {
                let bytes = self.kernel.instance_program(*program);
                Ok(found(Sha256::of(bytes), Some(Cow::Borrowed(bytes))))
            }
            ObjectSource::Stored(hash) | ObjectSource::Url(_, hash)
                if self.store.contains(hash) =>
            {
                Ok(found(*hash, None))
            }
            ObjectSource::Stored(hash) => match self.laid_down(hash)? {
                Some(bytes) => Ok(found(*hash, Some(Cow::Owned(bytes)))),
                None => Err(format!(
                    "sha256:{hash} is not in the store; copy the object to {}",
                    self.store.path(hash).display()
                )),
            },
            ObjectSource::Url(url, hash) => match self.laid_down(hash)? {
                Some(bytes) => Ok(found(*hash, Some(Cow::Owned(bytes)))),
                None => Err(format!(
                    "the courier has not fetched {url} yet; start it, or copy the \
                     object to {}",
                    self.store.path(hash).display()
                )),
            },
        }
    }

    /// A copy of an object that a courier brought.
    fn laid_down(&self, hash: &Sha256) -> Result<Option<Vec<u8>>, String> {
        self.dropped.map_or(Ok(None), |dropped| dropped.read_object(hash))
    }

    /// Finds the object that a program had when its document was accepted.
    fn recall(&self, name: &ProgramName, edition: &Edition) -> Result<Found<'static>, String> {
        let Some(object) = edition.objects.get(name) else {
            return Err(format!(
                "its object could not be had or used when generation {} was \
                 accepted; apply the document again",
                edition.generation
            ));
        };
        if !self.store.contains(&object.sha256) {
            return Err(format!(
                "object sha256:{} ({}) is no longer in the store; apply the \
                 document again",
                object.sha256, object.source
            ));
        }
        Ok(Found { hash: object.sha256, bytes: None, source: object.source.clone() })
    }
}

/// The objects that programs in some chain have by their hashes alone, so that somebody else has to
/// bring them.
pub(crate) fn named_objects(document: &Document) -> BTreeSet<Sha256> {
    let used = used_programs(document).into_iter();
    let named = used.filter_map(|name| match &document.programs.get(name)?.object {
        ObjectSource::Stored(hash) | ObjectSource::Url(_, hash) => Some(*hash),
        ObjectSource::Path(..)
        | ObjectSource::Inline(_)
        | ObjectSource::Builtin(_)
        | ObjectSource::Instances(_) => None,
    });
    named.collect()
}

/// The programs that some chain uses.
fn used_programs(document: &Document) -> BTreeSet<&ProgramName> {
    let chains = document.interfaces.values().filter_map(|interface| interface.xdp.as_ref());
    chains.flat_map(|xdp| xdp.chain.iter().map(|entry| &entry.program)).collect()
}

fn is_of_instances(object: &ObjectSource) -> bool {
    matches!(object, ObjectSource::Instances(_))
}

fn maps_digest(program: &ResolvedProgram) -> Sha256 {
    let mut lines = String::new();
    for (map, entries) in &program.maps {
        writeln!(lines, "{map}\t{}", entries_digest(entries))
            .expect("invariant: writing to a string cannot fail");
    }
    for map in program.on_upgrade.keys() {
        writeln!(lines, "{map}").expect("invariant: writing to a string cannot fail");
    }
    Sha256::of(lines.as_bytes())
}
