//! Why nothing was published, or not all of it.

use super::key::KeyError;
use crate::db::DbError;
use crate::store::StoreError;
use pointsman_model::{FleetName, NodeName, Sha256};
use pointsman_snapshot::cdb::WriteError;
use pointsman_snapshot::latest::LatestError;

/// Why a publish failed. Whatever it did until then, the next one goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The database did not do what was asked.
    #[error(transparent)]
    Database(#[from] DbError),
    /// There is no key to sign with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// `latest` cannot be made.
    #[error("cannot name the shards: {0}")]
    Latest(#[from] LatestError),
    /// The blob store is another fleet's.
    #[error(
        "the blob store {store} has what the fleet {found} publishes, and this is the fleet \
         {expected}: give each fleet a store, or a prefix, of its own"
    )]
    OtherFleet {
        /// The store.
        store: String,
        /// Whose it is.
        found: FleetName,
        /// Who we are.
        expected: FleetName,
    },
    /// All numbers of snapshots are used.
    #[error("there is no number for a snapshot after {last}: start with another database")]
    NoNumber {
        /// The last one.
        last: u64,
    },
    /// An object that records name is nowhere.
    #[error(
        "the object {hash} is in the records of nodes and neither in the database nor in the blob \
         store: upload the program again"
    )]
    ObjectLost {
        /// Its hash.
        hash: Sha256,
    },
    /// The database is older than what is published.
    #[error(
        "the blob store {store} has a later snapshot than the database knows: the database was \
         restored from a backup, or it is the wrong one. Nothing is published by itself now; look \
         at a dry run, and publish by hand if what the database says is wanted"
    )]
    OldDatabase {
        /// The store.
        store: String,
    },
    /// A record that must be there is not.
    #[error("the record of the node {node} is missing from the database")]
    RecordMissing {
        /// The node.
        node: NodeName,
    },
    /// A shard has no room for its records.
    #[error("cannot make a shard of {nodes} records: {source}")]
    Shard {
        /// How many.
        nodes: usize,
        /// Why.
        source: WriteError,
    },
    /// The blob store did not do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process is stopping.
    #[error("the publish was cut short: pointsman-control is stopping")]
    Stopping,
}
