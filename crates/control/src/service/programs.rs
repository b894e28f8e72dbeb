//! Programs.

use crate::app::App;
use crate::auth::Caller;
use crate::db::{NewProgram, Precondition};
use crate::problem::Failure;
use axum::body::Bytes;
use pointsman_model::fleet::{LibraryProgram, Role};
use pointsman_model::{ProgramName, Sha256};

impl App {
    /// Takes an object into the library, after it was looked into; also tells whether
    /// it is new.
    ///
    /// # Errors
    /// 403, 412, 428; 422: it is no object that can be used, or a policy uses what is not in it
    /// any more.
    pub async fn put_program(
        &self,
        caller: &Caller,
        name: &ProgramName,
        object: Bytes,
        precondition: Precondition,
    ) -> Result<(LibraryProgram, bool), Failure> {
        caller.expect(Role::Operator)?;
        self.metrics.inspections.inc();
        let summary = self.inspector.inspect(object.clone()).await?;
        let sha256 = Sha256::of(&object);
        let mut change = self.db.change(&caller.actor(), self.clock.now()).await?;
        change.put_object(&sha256, &object).await?;
        let new = NewProgram { sha256, bytes: object.len() as u64, summary };
        let put = change.put_program(name, new, precondition).await?;
        super::policies::still_good(&mut change, name).await?;
        change.commit().await?;
        self.changed(format!("program {name}"));
        Ok(put)
    }

    /// Takes a program out of the library.
    ///
    /// # Errors
    /// 403, 404, 412, 428; 409: a policy uses it.
    pub async fn delete_program(
        &self,
        caller: &Caller,
        name: &ProgramName,
        precondition: Precondition,
    ) -> Result<(), Failure> {
        caller.expect(Role::Operator)?;
        let mut change = self.db.change(&caller.actor(), self.clock.now()).await?;
        change.delete_program(name, precondition).await?;
        change.commit().await?;
        self.changed(format!("program {name}"));
        Ok(())
    }
}
