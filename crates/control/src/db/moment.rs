//! The database at one moment, for who only looks: nobody waits for him, and he for nobody.

use super::{Db, DbError, RecordState, policies, programs, publishing, records};
use pointsman_model::NodeName;
use pointsman_model::fleet::{Labels, LibraryProgram, Policy};
use sqlx::{Any, Transaction};

/// All that is read here is as it was when the first of it was read.
#[derive(Debug)]
pub struct Moment(Transaction<'static, Any>);

impl Db {
    /// Begins to look.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn moment(&self) -> Result<Moment, DbError> {
        let begin = if self.target.is_sqlite() {
            "begin deferred"
        } else {
            "begin isolation level repeatable read, read only"
        };
        Ok(Moment(self.pool.begin_with(begin).await?))
    }
}

impl Moment {
    /// All policies, by name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn all_policies(&mut self) -> Result<Vec<Policy>, DbError> {
        policies::all(&mut self.0).await
    }

    /// All programs, by name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn all_programs(&mut self) -> Result<Vec<LibraryProgram>, DbError> {
        programs::all(&mut self.0).await
    }

    /// All nodes by name, with what selectors go by.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn all_nodes_labels(&mut self) -> Result<Vec<(NodeName, Labels)>, DbError> {
        publishing::nodes_labels(&mut self.0).await
    }

    /// How far the records of all nodes have come, as [`Db::record_states`].
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn record_states(&mut self) -> Result<Vec<RecordState>, DbError> {
        records::states(&mut self.0).await
    }
}
