//! The library of programs: what is known of each. The objects themselves lie in the blob store,
//! by their hashes, before anything here names them.

use super::row::{Columns as _, to_json};
use super::{Change, Db, DbError, PageRequest, Precondition, integer};
use pointsman_model::fleet::{LibraryProgram, ObjectSummary, Page};
use pointsman_model::{ProgramName, Sha256};
use serde_json::json;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

/// An object that was uploaded, inspected and stored.
#[derive(Debug, Clone)]
pub struct NewProgram {
    /// The hash of the object.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub bytes: u64,
    /// What it holds.
    pub summary: ObjectSummary,
}

impl Db {
    /// A page of programs, by name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn programs(&self, page: &PageRequest) -> Result<Page<LibraryProgram>, DbError> {
        let query = sqlx::query("select * from programs where name > $1 order by name limit $2")
            .bind(page.after().to_owned())
            .bind(page.fetch());
        self.page_of(page, query, &["summary"], program, |program| program.name.to_string()).await
    }

    /// All programs, by name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn all_programs(&self) -> Result<Vec<LibraryProgram>, DbError> {
        all(&mut *self.connection().await?).await
    }

    /// One program.
    ///
    /// # Errors
    /// There is none of this name, or the database does not answer.
    pub async fn program(&self, name: &ProgramName) -> Result<LibraryProgram, DbError> {
        let found = one(&mut *self.connection().await?, name).await?;
        found.ok_or_else(|| DbError::NotFound(object(name)))
    }
}

impl Change {
    /// All programs, by name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn all_programs(&mut self) -> Result<Vec<LibraryProgram>, DbError> {
        all(self.connection()).await
    }

    /// Adds a program, or replaces its object; also tells whether it is new.
    ///
    /// # Errors
    /// The precondition does not hold, or the database does not answer.
    pub async fn put_program(
        &mut self,
        name: &ProgramName,
        new: NewProgram,
        precondition: Precondition,
    ) -> Result<(LibraryProgram, bool), DbError> {
        let object = object(name);
        let before = one(self.connection(), name).await?;
        precondition.check(&object, before.as_ref().map(|program| program.revision))?;
        let created = before.is_none();
        let verb = if created { "create" } else { "update" };
        let told = |sha256: &Sha256, bytes: u64| json!({"sha256": sha256, "bytes": bytes});
        let before = before.map(|program| told(&program.sha256, program.bytes));
        let after = told(&new.sha256, new.bytes);
        let revision = self.note(verb, &object, before.as_ref(), Some(&after)).await?;
        let program = LibraryProgram {
            name: name.clone(),
            revision,
            sha256: new.sha256,
            bytes: new.bytes,
            uploaded_unix_ms: self.now(),
            uploaded_by: self.actor().name.clone(),
            summary: new.summary,
        };
        sqlx::query(
            "insert into programs (name, revision, sha256, bytes, uploaded_ms, uploaded_by, summary) \
             values ($1, $2, $3, $4, $5, $6, $7) on conflict (name) do update set \
             revision = excluded.revision, sha256 = excluded.sha256, bytes = excluded.bytes, \
             uploaded_ms = excluded.uploaded_ms, uploaded_by = excluded.uploaded_by, \
             summary = excluded.summary",
        )
        .bind(name.to_string())
        .bind(integer(revision))
        .bind(program.sha256.to_string())
        .bind(integer(program.bytes))
        .bind(integer(program.uploaded_unix_ms))
        .bind(program.uploaded_by.clone())
        .bind(to_json(&program.summary))
        .execute(self.connection())
        .await?;
        Ok((program, created))
    }

    /// Takes a program out of the library. What is published keeps it.
    ///
    /// # Errors
    /// There is none of this name, a policy uses it, the precondition does not hold, or the
    /// database does not answer.
    pub async fn delete_program(
        &mut self,
        name: &ProgramName,
        precondition: Precondition,
    ) -> Result<(), DbError> {
        let object = object(name);
        let Some(before) = one(self.connection(), name).await? else {
            return Err(DbError::NotFound(object));
        };
        precondition.check(&object, Some(before.revision))?;
        let users = self.users_of(name).await?;
        if !users.is_empty() {
            let users: Vec<_> = users.iter().map(ToString::to_string).collect();
            return Err(DbError::Conflict(format!(
                "{object} is used by policies: {}. Take it out of them first",
                users.join(", ")
            )));
        }
        let told = json!({"sha256": before.sha256, "bytes": before.bytes});
        self.note("delete", &object, Some(&told), None::<&()>).await?;
        sqlx::query("delete from programs where name = $1")
            .bind(name.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn object(name: &ProgramName) -> String {
    format!("program {name}")
}

pub(super) async fn all(connection: &mut AnyConnection) -> Result<Vec<LibraryProgram>, DbError> {
    let rows = sqlx::query("select * from programs order by name").fetch_all(connection).await?;
    rows.iter().map(program).collect()
}

async fn one(
    connection: &mut AnyConnection,
    name: &ProgramName,
) -> Result<Option<LibraryProgram>, DbError> {
    let row = sqlx::query("select * from programs where name = $1")
        .bind(name.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(program).transpose()
}

fn program(row: &AnyRow) -> Result<LibraryProgram, DbError> {
    Ok(LibraryProgram {
        name: row.parsed("name")?,
        revision: row.integer("revision")?,
        sha256: row.parsed("sha256")?,
        bytes: row.integer("bytes")?,
        uploaded_unix_ms: row.integer("uploaded_ms")?,
        uploaded_by: row.text("uploaded_by")?,
        summary: row.json("summary")?,
    })
}
