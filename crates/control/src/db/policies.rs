//! Policies.

use super::row::{Columns as _, to_json};
use super::{Change, Db, DbError, PageRequest, Precondition, integer};
use pointsman_model::PolicyName;
use pointsman_model::fleet::{Page, Policy, PolicySpec, ProgramRef};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

impl Db {
    /// A page of policies, by name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn policies(&self, page: &PageRequest) -> Result<Page<Policy>, DbError> {
        let query = sqlx::query("select * from policies where name > $1 order by name limit $2")
            .bind(page.after().to_owned())
            .bind(page.fetch());
        self.page_of(page, query, &["spec"], policy, |policy| policy.name.to_string()).await
    }

    /// All policies, by name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn all_policies(&self) -> Result<Vec<Policy>, DbError> {
        all(&mut *self.connection().await?).await
    }

    /// One policy.
    ///
    /// # Errors
    /// There is none of this name, or the database does not answer.
    pub async fn policy(&self, name: &PolicyName) -> Result<Policy, DbError> {
        let found = one(&mut *self.connection().await?, name).await?;
        found.ok_or_else(|| DbError::NotFound(object(name)))
    }
}

impl Change {
    /// All policies, by name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn all_policies(&mut self) -> Result<Vec<Policy>, DbError> {
        all(self.connection()).await
    }

    /// Makes a policy, or replaces what it says; also tells whether it is new.
    ///
    /// # Errors
    /// The precondition does not hold, or the database does not answer.
    pub async fn put_policy(
        &mut self,
        name: &PolicyName,
        spec: PolicySpec,
        precondition: Precondition,
    ) -> Result<(Policy, bool), DbError> {
        let object = object(name);
        let before = one(self.connection(), name).await?;
        precondition.check(&object, before.as_ref().map(|policy| policy.revision))?;
        let created = before.is_none();
        let verb = if created { "create" } else { "update" };
        let before = before.map(|policy| policy.spec);
        let revision = self.note(verb, &object, before.as_ref(), Some(&spec)).await?;
        let (updated_unix_ms, updated_by) = (self.now(), self.actor().name.clone());
        sqlx::query(
            "insert into policies (name, revision, updated_ms, updated_by, spec) \
             values ($1, $2, $3, $4, $5) on conflict (name) do update set \
             revision = excluded.revision, updated_ms = excluded.updated_ms, \
             updated_by = excluded.updated_by, spec = excluded.spec",
        )
        .bind(name.to_string())
        .bind(integer(revision))
        .bind(integer(updated_unix_ms))
        .bind(updated_by.clone())
        .bind(to_json(&spec))
        .execute(self.connection())
        .await?;
        let name = name.clone();
        Ok((Policy { name, revision, updated_unix_ms, updated_by, spec }, created))
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// There is none of this name, the precondition does not hold, or the database does not
    /// answer.
    pub async fn delete_policy(
        &mut self,
        name: &PolicyName,
        precondition: Precondition,
    ) -> Result<(), DbError> {
        let object = object(name);
        let Some(before) = one(self.connection(), name).await? else {
            return Err(DbError::NotFound(object));
        };
        precondition.check(&object, Some(before.revision))?;
        self.note("delete", &object, Some(&before.spec), None::<&()>).await?;
        sqlx::query("delete from policies where name = $1")
            .bind(name.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// The policies that have a program of the library in their chains.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn users_of(
        &mut self,
        program: &pointsman_model::ProgramName,
    ) -> Result<Vec<PolicyName>, DbError> {
        let policies = self.all_policies().await?.into_iter();
        let uses = |policy: &Policy| {
            let mut programs = policy.spec.chain.iter().map(|entry| &entry.program);
            programs.any(|used| matches!(used, ProgramRef::Library(name) if name == program))
        };
        Ok(policies.filter(uses).map(|policy| policy.name).collect())
    }
}

fn object(name: &PolicyName) -> String {
    format!("policy {name}")
}

pub(super) async fn all(connection: &mut AnyConnection) -> Result<Vec<Policy>, DbError> {
    let rows = sqlx::query("select * from policies order by name").fetch_all(connection).await?;
    rows.iter().map(policy).collect()
}

async fn one(connection: &mut AnyConnection, name: &PolicyName) -> Result<Option<Policy>, DbError> {
    let row = sqlx::query("select * from policies where name = $1")
        .bind(name.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(policy).transpose()
}

fn policy(row: &AnyRow) -> Result<Policy, DbError> {
    Ok(Policy {
        name: row.parsed("name")?,
        revision: row.integer("revision")?,
        updated_unix_ms: row.integer("updated_ms")?,
        updated_by: row.text("updated_by")?,
        spec: row.json("spec")?,
    })
}
