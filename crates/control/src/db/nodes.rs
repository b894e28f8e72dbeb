//! Nodes: their labels, how they enrol, and how they stood when they reported last.

use super::row::{Columns as _, to_json};
use super::{Change, Db, DbError, PageRequest, Precondition, integer};
use pointsman_model::NodeName;
use pointsman_model::fleet::{Labels, Page};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

/// What is kept of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub name: NodeName,
    /// Rises with every change of its labels.
    pub revision: u64,
    /// Its labels.
    pub labels: Labels,
    /// When it enrolled last, in milliseconds since the Unix epoch.
    pub enrolled_ms: Option<u64>,
    /// Until when the one-time token is good that it has not traded yet.
    pub invited_until_ms: Option<u64>,
    /// When it reported last.
    pub seen_ms: Option<u64>,
    /// What the last status of its daemon comes to.
    pub standing: Option<Standing>,
    /// What its courier said of itself last.
    pub courier: Option<CourierStanding>,
    /// The generation that was published for it last; `None`: there is no record of it.
    pub published: Option<u64>,
}

/// What a daemon's status comes to: what judging a node needs, without reading all of it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The generation that is in force.
    pub in_force: Option<u64>,
    /// Why it is not well: it refuses something, or something of it does not work. One line.
    pub failing: Option<String>,
    /// What has to appear before all of it is in force. One line.
    #[serde(default)]
    pub waiting: Option<String>,
}

/// What a courier's own part of a report comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourierStanding {
    /// How often it asks, in milliseconds.
    pub interval_ms: u64,
    /// Why the daemon does not answer.
    pub daemon_trouble: Option<String>,
    /// Why it cannot fetch what is published.
    pub source_trouble: Option<String>,
}

const SELECT: &str = "select nodes.name, nodes.revision, nodes.labels, nodes.token_expires_ms, \
                      nodes.enrolled_ms, nodes.seen_ms, nodes.standing, nodes.courier, \
                      case when records.digest is null then null else records.generation end \
                      as published \
                      from nodes left join records on records.node = nodes.name ";

impl Db {
    /// A page of nodes, by name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn nodes(&self, page: &PageRequest) -> Result<Page<NodeRow>, DbError> {
        let text = format!("{SELECT} where nodes.name > $1 order by nodes.name limit $2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(page.after().to_owned())
            .bind(page.fetch())
            .fetch_all(&self.pool)
            .await?;
        let nodes = rows.iter().map(node).collect::<Result<Vec<_>, _>>()?;
        Ok(page.page(nodes, |node| node.name.to_string()))
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn all_nodes(&self) -> Result<Vec<NodeRow>, DbError> {
        let text = format!("{SELECT} order by nodes.name");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&self.pool).await?;
        rows.iter().map(node).collect()
    }

    /// One node.
    ///
    /// # Errors
    /// There is none of this name, or the database does not answer.
    pub async fn node(&self, name: &NodeName) -> Result<NodeRow, DbError> {
        let found = one(&mut *self.connection().await?, name).await?;
        found.ok_or_else(|| DbError::NotFound(object(name)))
    }

    /// The node that the one-time token with this hash is for, if it is good at `now`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn invited(&self, token_hash: &str, now: u64) -> Result<Option<NodeName>, DbError> {
        let row =
            sqlx::query("select name from nodes where token_hash = $1 and token_expires_ms > $2")
                .bind(token_hash.to_owned())
                .bind(integer(now))
                .fetch_optional(&self.pool)
                .await?;
        row.map(|row| row.parsed("name")).transpose()
    }

    /// The node whose credential has this hash.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn node_by_credential(&self, hash: &str) -> Result<Option<NodeName>, DbError> {
        let row = sqlx::query("select name from nodes where credential_hash = $1")
            .bind(hash.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| row.parsed("name")).transpose()
    }
}

/// Labels in a sentence.
fn shown(labels: &Labels) -> String {
    if labels.is_empty() {
        return "no labels".into();
    }
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("the labels {}", labels.join(", "))
}

impl Change {
    /// Lets a node in: it may trade the one-time token with this hash until `expires_ms`. A node
    /// that is there keeps its credential until then, and its labels. Gives what was there.
    ///
    /// # Errors
    /// [`DbError::Conflict`]: it is there and has other labels, which are changed by who has seen
    /// them. Otherwise the database does not answer.
    pub async fn invite_node(
        &mut self,
        name: &NodeName,
        labels: Option<Labels>,
        token_hash: &str,
        expires_ms: u64,
    ) -> Result<Option<NodeRow>, DbError> {
        let object = object(name);
        let before = one(self.connection(), name).await?;
        let labels = match (&before, labels) {
            (Some(before), Some(labels)) if labels != before.labels => {
                return Err(DbError::Conflict(format!(
                    "{object} is there already, and has {}: invite it without labels, and change \
                     them on the node itself",
                    shown(&before.labels)
                )));
            }
            (Some(before), _) => before.labels.clone(),
            (None, labels) => labels.unwrap_or_default(),
        };
        let after = json!({"labels": labels, "token_expires_unix_ms": expires_ms});
        let told = before.as_ref().map(|node| json!({"labels": node.labels}));
        let number = self.note("invite", &object, told.as_ref(), Some(&after)).await?;
        let revision = before.as_ref().map_or(number, |node| node.revision);
        sqlx::query(
            "insert into nodes (name, revision, labels, created_ms, token_hash, token_expires_ms) \
             values ($1, $2, $3, $4, $5, $6) on conflict (name) do update set \
             revision = excluded.revision, labels = excluded.labels, \
             token_hash = excluded.token_hash, token_expires_ms = excluded.token_expires_ms",
        )
        .bind(name.to_string())
        .bind(integer(revision))
        .bind(to_json(&labels))
        .bind(integer(self.now()))
        .bind(token_hash.to_owned())
        .bind(integer(expires_ms))
        .execute(self.connection())
        .await?;
        Ok(before)
    }

    /// Trades a one-time token for a credential, given by their hashes. The credential that the
    /// node had before is void. `None`: there is no such token; it was used, replaced, or has
    /// expired.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn enrol_node(
        &mut self,
        token_hash: &str,
        credential_hash: &str,
    ) -> Result<Option<NodeName>, DbError> {
        let row = sqlx::query(
            "select name, enrolled_ms from nodes where token_hash = $1 and token_expires_ms > $2",
        )
        .bind(token_hash.to_owned())
        .bind(integer(self.now()))
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let name: NodeName = row.parsed("name")?;
        let before = row.optional_integer("enrolled_ms")?;
        let told = |at: u64| json!({"enrolled_unix_ms": at});
        let (before, after) = (before.map(told), told(self.now()));
        self.note("enrol", &object(&name), before.as_ref(), Some(&after)).await?;
        sqlx::query(
            "update nodes set token_hash = null, token_expires_ms = null, enrolled_ms = $2, \
             credential_hash = $3 where name = $1",
        )
        .bind(name.to_string())
        .bind(integer(self.now()))
        .bind(credential_hash.to_owned())
        .execute(self.connection())
        .await?;
        Ok(Some(name))
    }

    /// Replaces a node's labels.
    ///
    /// # Errors
    /// There is none of this name, the precondition does not hold, or the database does not
    /// answer.
    pub async fn label_node(
        &mut self,
        name: &NodeName,
        labels: &Labels,
        precondition: Precondition,
    ) -> Result<NodeRow, DbError> {
        let before = self.expect_node(name, precondition).await?;
        let told = |labels: &Labels| json!({"labels": labels});
        let (from, to) = (told(&before.labels), told(labels));
        let revision = self.note("update", &object(name), Some(&from), Some(&to)).await?;
        sqlx::query("update nodes set labels = $2, revision = $3 where name = $1")
            .bind(name.to_string())
            .bind(to_json(labels))
            .bind(integer(revision))
            .execute(self.connection())
            .await?;
        Ok(NodeRow { labels: labels.clone(), revision, ..before })
    }

    /// Takes a node out of the fleet: its credential is void at once, its record goes with the
    /// next publish.
    ///
    /// # Errors
    /// There is none of this name, the precondition does not hold, or the database does not
    /// answer.
    pub async fn delete_node(
        &mut self,
        name: &NodeName,
        precondition: Precondition,
    ) -> Result<(), DbError> {
        let before = self.expect_node(name, precondition).await?;
        let told = json!({"labels": before.labels, "enrolled_unix_ms": before.enrolled_ms});
        self.note("delete", &object(name), Some(&told), None::<&()>).await?;
        sqlx::query("delete from nodes where name = $1")
            .bind(name.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    async fn expect_node(
        &mut self,
        name: &NodeName,
        precondition: Precondition,
    ) -> Result<NodeRow, DbError> {
        let object = object(name);
        let found = one(self.connection(), name).await?;
        let node = found.ok_or_else(|| DbError::NotFound(object.clone()))?;
        precondition.check(&object, Some(node.revision))?;
        Ok(node)
    }
}

fn object(name: &NodeName) -> String {
    format!("node {name}")
}

async fn one(connection: &mut AnyConnection, name: &NodeName) -> Result<Option<NodeRow>, DbError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} where nodes.name = $1")))
        .bind(name.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(node).transpose()
}

fn node(row: &AnyRow) -> Result<NodeRow, DbError> {
    Ok(NodeRow {
        name: row.parsed("name")?,
        revision: row.integer("revision")?,
        labels: row.json("labels")?,
        enrolled_ms: row.optional_integer("enrolled_ms")?,
        invited_until_ms: row.optional_integer("token_expires_ms")?,
        seen_ms: row.optional_integer("seen_ms")?,
        standing: row.optional_json("standing")?,
        courier: row.optional_json("courier")?,
        published: row.optional_integer("published")?,
    })
}
