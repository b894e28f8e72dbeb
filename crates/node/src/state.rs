//! What the daemon remembers over its own end and over a reboot.
//!
//! The kernel's pins say what runs; this says what was *asked for*: the document in force, and per
//! hook the last document that was carried out there. A reboot takes the pins, and then these are
//! the only way back to what ran before.

use crate::disk::{self, CreateAside, Disk, StorageError, failed};
use crate::history::{Bypass, Good, Unconfirmed};
use crate::store::{ReadError, Store};
use pointsman_model::{HookId, InterfaceId, NodeName, ProgramName, Sha256};
use pointsman_plan::Mark;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// The format this version writes.
const FORMAT: u32 = 2;

/// The oldest format it reads. What later ones added is empty then.
const OLDEST_FORMAT: u32 = 1;

/// The largest state file that is read, in bytes: thousands of hooks.
const MAX_STATE: usize = 64 << 20;

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The format of this file. Set when it is written.
    pub format: u32,
    /// Whether the node was drained: the document in force is not to be carried out.
    pub drained: bool,
    /// The document in force.
    pub current: Option<Edition>,
    /// Per hook the last edition that was carried out there.
    pub last_good: Vec<LastGood>,
    /// Objects that were copied into the store from documents and their paths. Only these are
    /// ever removed again.
    pub copied: BTreeSet<Sha256>,
    /// When the document in force came into force, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub current_since_unix_ms: u64,
    /// The editions that were carried out whole, in the order in which they came into force.
    #[serde(default)]
    pub good: Vec<Good>,
    /// What somebody returned from and that must not come back by itself.
    #[serde(default)]
    pub left: Vec<Mark>,
    /// That the document in force waits to be confirmed.
    #[serde(default)]
    pub unconfirmed: Option<Unconfirmed>,
    /// The hooks that an operator bypassed.
    #[serde(default)]
    pub bypassed: Vec<Bypass>,
    /// The watched document when the node was drained: it must not end that by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<Sha256>,
    /// The document of the snapshot that lay there when the node was drained, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over_snapshot: Option<Sha256>,
}

/// One document with the objects it was resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edition {
    /// The host it is for.
    pub node: NodeName,
    /// Its generation.
    pub generation: u64,
    /// The hash of its text.
    pub document: Sha256,
    /// Per program of some chain the object that was found for it.
    pub objects: BTreeMap<ProgramName, StoredObject>,
}

/// An object in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredObject {
    /// Its hash.
    pub sha256: Sha256,
    /// Where it came from, for people.
    pub source: String,
}

/// The last edition that was carried out on a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastGood {
    /// The hook.
    pub hook: HookId,
    /// The edition.
    pub edition: Edition,
    /// The interface's name in that edition's document, where it has another now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<InterfaceId>,
}

/// The state and where it is kept.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    disk: Disk,
    documents: Store,
    state: State,
    /// Whether the disk did not take what is remembered here.
    behind: bool,
    /// Who is told what is in force.
    observer: Option<Observer>,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The document's text, or why it cannot be read; `None`: none is in force.
    pub text: Option<Result<Vec<u8>, String>>,
    /// Whether the node was drained: the document is not to be carried out.
    pub drained: bool,
}

/// Is told what is in force whenever that is something else.
pub struct Observer(Box<dyn Fn(InForce) + Send>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

/// The state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It could not be read or its directories could not be made.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It is not what this version writes.
    #[error(
        "{} cannot be used: {why}; running chains stay as they are. Move the file away to start \
         without it, then apply the node's document", path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl StateFile {
    /// Reads the state from `directory`, or starts with none where there is none.
    ///
    /// # Errors
    /// [`StateError`]: the daemon must not go on as if nothing had been accepted before, because
    /// then an old document would pass for a new one.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        disk::create_directory(directory)?;
        disk::sweep(directory)?;
        let documents =
            Store::open(&directory.join("documents"), pointsman_model::document::MAX_BYTES)?;
        let path = directory.join("accepted.json");
        let state = match crate::store::read_regular(&path, MAX_STATE) {
            Ok(bytes) => {
                parse(&bytes).map_err(|why| StateError::Unusable { path: path.clone(), why })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(failed("read", &path)(error).into()),
        };
        Ok(Self { path, disk: Disk::default(), documents, state, behind: false, observer: None })
    }

    /// The state with its files created by `create`, so that a test can fill the disk.
    #[must_use]
    pub fn created_by(mut self, create: CreateAside) -> Self {
        self.disk = Disk::with(create);
        self.documents = self.documents.created_by(create);
        self
    }

    /// The state with somebody who is told what is in force: what is so now at once, and whatever
    /// follows it.
    #[must_use]
    pub fn observed_by(mut self, observer: impl Fn(InForce) + Send + 'static) -> Self {
        self.observer = Some(Observer(Box::new(observer)));
        self.tell();
        self
    }

    /// Which document is in force, and whether it is carried out.
    fn in_force(&self) -> (Option<Sha256>, bool) {
        let current = self.state.current.as_ref();
        (current.map(|edition| edition.document), self.state.drained)
    }

    /// Tells the observer what is in force.
    fn tell(&self) {
        let Some(observer) = &self.observer else { return };
        let (document, drained) = self.in_force();
        let read = |hash: &Sha256| self.documents.read(hash).map_err(|error| error.to_string());
        observer.0(InForce { text: document.as_ref().map(read), drained });
    }

    /// The same, unless it is what was `before`.
    fn tell_news(&self, before: (Option<Sha256>, bool)) {
        if before != self.in_force() {
            self.tell();
        }
    }

    /// What is remembered.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The text of an accepted document.
    ///
    /// # Errors
    /// [`ReadError`]: missing or damaged.
    pub fn document(&self, hash: &Sha256) -> Result<Vec<u8>, ReadError> {
        self.documents.read(hash)
    }

    /// Remembers `next`; writes nothing if that is what is remembered already.
    ///
    /// # Errors
    /// [`StorageError`]: then what is remembered is as before, on disk and here.
    pub fn set(&mut self, mut next: State) -> Result<(), StorageError> {
        next.format = FORMAT;
        if next == self.state && !self.behind {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&next)
            .expect("invariant: the state has string keys and no floats");
        self.disk.replace(&self.path, &text)?;
        let before = self.in_force();
        self.state = next;
        self.behind = false;
        self.tell_news(before);
        Ok(())
    }

    /// Remembers `next`, for as long as the daemon lives also where the disk does not take it: an
    /// operator who breaks the glass on a host with a full disk must get what he asks for.
    ///
    /// # Errors
    /// [`StorageError`]: then the disk has what was remembered before, until something is
    /// remembered that it takes, or [`Self::catch_up`] succeeds.
    pub fn force(&mut self, next: State) -> Result<(), StorageError> {
        let result = self.set(next.clone());
        if result.is_err() {
            let before = self.in_force();
            self.state = State { format: FORMAT, ..next };
            self.behind = true;
            self.tell_news(before);
        }
        result
    }

    /// Writes what the disk did not take earlier.
    ///
    /// # Errors
    /// [`StorageError`]: it still does not.
    pub fn catch_up(&mut self) -> Result<(), StorageError> {
        self.set(self.state.clone())
    }

    /// The bytes on disk of a document's text; 0: it is not there.
    #[must_use]
    pub fn document_bytes(&self, hash: &Sha256) -> u64 {
        self.documents.size(hash)
    }

    /// Remembers that `object` is about to be copied into the store. First this, then the copy:
    /// whenever the daemon is killed in between or before the document is accepted, the next
    /// start knows that the copy is ours to remove.
    ///
    /// # Errors
    /// [`StorageError`]: then what is remembered is as before.
    pub fn copies(&mut self, object: Sha256) -> Result<(), StorageError> {
        let mut next = self.state.clone();
        next.copied.insert(object);
        self.set(next)
    }

    /// Remembers `next`, whose current edition has this text.
    ///
    /// # Errors
    /// [`StorageError`]: then everything is as before.
    pub fn accept(&mut self, text: &[u8], hash: &Sha256, next: State) -> Result<(), StorageError> {
        let new = !self.documents.contains(hash);
        if new {
            self.documents.put(hash, text)?;
        }
        let set = self.set(next);
        if set.is_err() && new {
            // The error that matters is the first one; a leftover is collected later.
            let _ = self.documents.remove(hash);
        }
        set
    }

    /// Removes the texts of documents and, from `objects`, the copied objects that nobody can ask
    /// for any more. `running` are the objects of chains in the kernel.
    ///
    /// # Errors
    /// [`StorageError`] of the first file that could not be removed.
    pub fn collect(
        &mut self,
        objects: &Store,
        running: &BTreeSet<Sha256>,
    ) -> Result<(), StorageError> {
        // A kill now would leave the state on disk, which may need what this one does not.
        self.catch_up()?;
        let (documents, mut needed) = self.state.needed();
        needed.extend(running);
        let unused: Vec<_> = self.state.copied.difference(&needed).copied().collect();
        for hash in &unused {
            objects.remove(hash)?;
        }
        for hash in self.documents.list()?.iter().filter(|hash| !documents.contains(hash)) {
            self.documents.remove(hash)?;
        }
        let mut next = self.state.clone();
        next.copied.retain(|hash| needed.contains(hash));
        self.set(next)
    }
}

impl State {
    /// The edition that ran last on `hook`.
    #[must_use]
    pub fn last_good(&self, hook: &HookId) -> Option<&Edition> {
        self.last_good.iter().find(|good| good.hook == *hook).map(|good| &good.edition)
    }

    /// Forgets what ran on hooks that are not `wanted` any more, and remembers `edition` for those
    /// that are `done`.
    pub fn remember(
        &mut self,
        wanted: &BTreeSet<HookId>,
        done: &BTreeSet<HookId>,
        edition: &Edition,
    ) {
        self.last_good.retain(|good| wanted.contains(&good.hook) && !done.contains(&good.hook));
        let new = done.iter().map(|hook| LastGood {
            hook: hook.clone(),
            edition: edition.clone(),
            named: None,
        });
        self.last_good.extend(new);
        self.last_good.sort_by(|a, b| a.hook.cmp(&b.hook));
    }

    /// The documents and objects that some edition refers to.
    fn needed(&self) -> (BTreeSet<Sha256>, BTreeSet<Sha256>) {
        let documents = self.editions().map(|edition| edition.document).collect();
        let objects = self.editions().flat_map(|e| e.objects.values()).map(|o| o.sha256).collect();
        (documents, objects)
    }
}

fn parse(bytes: &[u8]) -> Result<State, String> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if !(OLDEST_FORMAT..=FORMAT).contains(&format) {
        return Err(format!(
            "it has format {format}, and this version reads formats {OLDEST_FORMAT} to {FORMAT}"
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::full;
    use pointsman_model::InterfaceName;
    use std::fs;

    fn edition(generation: u64, object: &[u8]) -> Edition {
        let sha256 = Sha256::of(object);
        let object = StoredObject { sha256, source: "inline".into() };
        Edition {
            node: NodeName::new("edge-1").unwrap(),
            generation,
            document: Sha256::of(&generation.to_be_bytes()),
            objects: [(ProgramName::new("a").unwrap(), object)].into(),
        }
    }

    fn hook(name: &str) -> HookId {
        HookId::xdp(InterfaceName::new(name).unwrap())
    }

    fn accept(file: &mut StateFile, generation: u64, object: &[u8]) -> Result<(), StorageError> {
        let edition = edition(generation, object);
        let mut next = file.state().clone();
        next.copied.extend(edition.objects.values().map(|object| object.sha256));
        let hash = edition.document;
        next.current = Some(edition);
        file.accept(&generation.to_be_bytes(), &hash, next)
    }

    #[test]
    fn it_is_read_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = StateFile::open(directory.path()).unwrap();
        assert_eq!(file.state(), &State::default());
        accept(&mut file, 7, b"a").unwrap();
        let again = StateFile::open(directory.path()).unwrap();
        assert_eq!(again.state(), file.state());
        let text = again.document(&edition(7, b"a").document).unwrap();
        assert_eq!(text, 7u64.to_be_bytes());
    }

    #[test]
    fn a_full_disk_leaves_state_and_documents_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = StateFile::open(directory.path()).unwrap();
        accept(&mut file, 1, b"a").unwrap();
        let before = file.state().clone();
        // First the document does not fit, then the state.
        let mut file = StateFile::open(directory.path()).unwrap().created_by(full);
        assert!(accept(&mut file, 2, b"b").is_err());
        file.documents = Store::open(&directory.path().join("documents"), 1000).unwrap();
        assert!(accept(&mut file, 3, b"c").is_err());
        assert_eq!(file.state(), &before);
        assert_eq!(file.documents.list().unwrap().len(), 1);
        assert_eq!(StateFile::open(directory.path()).unwrap().state(), &before);
    }

    #[test]
    fn a_foreign_or_newer_state_is_not_taken_for_none() {
        let directory = tempfile::tempdir().unwrap();
        for bad in ["", "{}", r#"{"format": 3}"#, r#"{"format": 1, "surprise": 1}"#] {
            fs::write(directory.path().join("accepted.json"), bad).unwrap();
            let error = StateFile::open(directory.path()).unwrap_err();
            assert!(matches!(error, StateError::Unusable { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn a_hook_keeps_the_edition_that_was_carried_out_there() {
        let mut state = State::default();
        let both = BTreeSet::from([hook("a"), hook("b")]);
        state.remember(&both, &both, &edition(1, b"a"));
        state.remember(&both, &BTreeSet::from([hook("b")]), &edition(2, b"a"));
        assert_eq!(state.last_good(&hook("a")).map(|e| e.generation), Some(1));
        assert_eq!(state.last_good(&hook("b")).map(|e| e.generation), Some(2));
        state.remember(&BTreeSet::from([hook("b")]), &BTreeSet::new(), &edition(3, b"a"));
        assert_eq!(state.last_good(&hook("a")), None);
    }

    #[test]
    fn nothing_is_removed_that_the_state_on_disk_needs() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = StateFile::open(directory.path()).unwrap();
        let objects = Store::open(&directory.path().join("objects"), 1000).unwrap();
        objects.put(&Sha256::of(b"a"), b"a").unwrap();
        accept(&mut file, 1, b"a").unwrap();
        let mut file = StateFile::open(directory.path()).unwrap().created_by(full);
        let forgets = State { current: None, ..file.state().clone() };
        assert!(file.force(forgets).is_err());
        assert!(file.collect(&objects, &BTreeSet::new()).is_err());
        let again = StateFile::open(directory.path()).unwrap();
        assert!(again.document(&again.state().current.as_ref().unwrap().document).is_ok());
        assert_eq!(objects.list().unwrap().len(), 1);
        // With room it is removed.
        file.disk = Disk::default();
        file.collect(&objects, &BTreeSet::new()).unwrap();
        assert_eq!((objects.list().unwrap().len(), file.documents.list().unwrap().len()), (0, 0));
    }

    #[test]
    fn only_copied_objects_that_nobody_needs_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = StateFile::open(directory.path()).unwrap();
        let objects = Store::open(&directory.path().join("objects"), 1000).unwrap();
        for object in [&b"old"[..], b"runs", b"new", b"by hand"] {
            objects.put(&Sha256::of(object), object).unwrap();
        }
        accept(&mut file, 1, b"old").unwrap();
        accept(&mut file, 2, b"runs").unwrap();
        accept(&mut file, 3, b"new").unwrap();
        file.collect(&objects, &BTreeSet::from([Sha256::of(b"runs")])).unwrap();
        let mut left = objects.list().unwrap();
        left.sort();
        let mut expected = [b"runs".as_slice(), b"new", b"by hand"].map(Sha256::of);
        expected.sort();
        assert_eq!(left, expected);
        assert_eq!(file.documents.list().unwrap(), [edition(3, b"new").document]);
        assert!(!file.state().copied.contains(&Sha256::of(b"old")));
    }
}
