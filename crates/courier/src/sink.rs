//! Where a courier hands over what it fetched.

use crate::files::StorageError;
use crate::memory::Memory;
use pointsman_model::Sha256;
use std::collections::{BTreeMap, BTreeSet};

/// What takes records and objects. Calls block: they are about files on this host.
pub trait Sink: Send {
    /// An object of which a part is there.
    type Part: Part;

    /// What is remembered from an earlier life.
    ///
    /// # Errors
    /// [`SinkError`]. What is there and makes no sense is as good as absent.
    fn recall(&mut self) -> Result<Kept, SinkError>;

    /// The record of our node that the daemon would find now. Somebody else may have put it there.
    ///
    /// # Errors
    /// [`SinkError`].
    fn in_place(&mut self) -> Result<Option<Vec<u8>>, SinkError>;

    /// Whether an object is there, whole: its bytes are checked.
    ///
    /// # Errors
    /// [`SinkError`].
    fn has(&mut self, object: &Sha256) -> Result<bool, SinkError>;

    /// Begins an object.
    ///
    /// # Errors
    /// [`SinkError`].
    fn begin(&mut self, object: &Sha256) -> Result<Self::Part, SinkError>;

    /// Puts an object into place, which the caller has checked. From here on the daemon sees it.
    ///
    /// # Errors
    /// [`SinkError`]: then it is not there.
    fn keep(&mut self, object: &Sha256, part: Self::Part) -> Result<(), SinkError>;

    /// Puts a record into place, whose objects are all there. From here on the daemon sees it.
    ///
    /// # Errors
    /// [`SinkError`]: then the one before is still there.
    fn hand_over(&mut self, record: &[u8]) -> Result<(), SinkError>;

    /// Remembers what was handed over.
    ///
    /// # Errors
    /// [`SinkError`]: then what was remembered before still is.
    fn remember(&mut self, memory: &Memory, record: &[u8]) -> Result<(), SinkError>;

    /// Removes objects of ours that are not `needed` any more.
    ///
    /// # Errors
    /// [`SinkError`].
    fn tidy(&mut self, needed: &BTreeSet<Sha256>) -> Result<(), SinkError>;

    /// Makes sure that this is still the place that the daemon watches: a directory may have been
    /// moved away, or mounted over. `true`: it was not, and is now; what is in it is to be seen.
    ///
    /// # Errors
    /// [`SinkError`]: there is no such place now.
    fn settle(&mut self) -> Result<bool, SinkError>;
}

/// A part of an object. Dropping it gives up what it has.
pub trait Part: Send {
    /// Adds bytes at its end.
    ///
    /// # Errors
    /// [`SinkError`].
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError>;

    /// Throws away what it has.
    ///
    /// # Errors
    /// [`SinkError`].
    fn restart(&mut self) -> Result<(), SinkError>;
}

/// What is remembered from an earlier life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// What is known of the last handover.
    pub memory: Option<Memory>,
    /// Its record.
    pub record: Option<Vec<u8>>,
}

/// Why something could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The disk does not take it.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The record does not go into a file of records.
    #[error("cannot make {name}: {why}")]
    Record {
        /// The file.
        name: &'static str,
        /// Why not.
        why: String,
    },
}

impl SinkError {
    /// A stable name, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.kind(),
            Self::Record { .. } => "record",
        }
    }
}

/// A sink without files: for simulated nodes, and tests.
#[derive(Debug, Clone, Default)]
pub struct MemorySink {
    /// The record that a daemon would find.
    pub record: Option<Vec<u8>>,
    /// The objects that it would find.
    pub objects: BTreeMap<Sha256, Vec<u8>>,
    /// What is remembered.
    pub kept: Kept,
    /// How many records were handed over.
    pub handed_over: u64,
}

impl Sink for MemorySink {
    type Part = Vec<u8>;

    fn recall(&mut self) -> Result<Kept, SinkError> {
        Ok(self.kept.clone())
    }

    fn in_place(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        Ok(self.record.clone())
    }

    fn has(&mut self, object: &Sha256) -> Result<bool, SinkError> {
        Ok(self.objects.contains_key(object))
    }

    fn begin(&mut self, _object: &Sha256) -> Result<Vec<u8>, SinkError> {
        Ok(Vec::new())
    }

    fn keep(&mut self, object: &Sha256, part: Vec<u8>) -> Result<(), SinkError> {
        self.objects.insert(*object, part);
        Ok(())
    }

    fn hand_over(&mut self, record: &[u8]) -> Result<(), SinkError> {
        self.record = Some(record.to_vec());
        self.handed_over += 1;
        Ok(())
    }

    fn remember(&mut self, memory: &Memory, record: &[u8]) -> Result<(), SinkError> {
        self.kept = Kept { memory: Some(memory.clone()), record: Some(record.to_vec()) };
        Ok(())
    }

    fn tidy(&mut self, needed: &BTreeSet<Sha256>) -> Result<(), SinkError> {
        self.objects.retain(|object, _| needed.contains(object));
        Ok(())
    }

    fn settle(&mut self) -> Result<bool, SinkError> {
        Ok(false)
    }
}

impl Part for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), SinkError> {
        self.clear();
        Ok(())
    }
}
