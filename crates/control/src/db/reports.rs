//! What nodes report. Many at a time, and no changes of anybody's: they have no audit entries.

use super::row::{Columns as _, to_json};
use super::{CourierStanding, Db, DbError, Standing, integer};
use pointsman_model::NodeName;
use sqlx::AnyConnection;

/// A report on its way in. Status and counters that are left out are as they were before.
#[derive(Debug, Clone)]
pub struct Report {
    /// The node that sent it.
    pub node: NodeName,
    /// The hash of the credential that it came with: if it is void by now, so is the report.
    pub credential_hash: String,
    /// When it came, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What the courier's part comes to.
    pub courier_standing: CourierStanding,
    /// The courier's part, as JSON.
    pub courier: String,
    /// What the daemon's status comes to, and the status as JSON.
    pub status: Option<(Standing, String)>,
    /// The daemon's counters, as JSON.
    pub counters: Option<String>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is kept.
    Kept,
    /// It leaves out what was never told: all of it is needed.
    NeedsAll,
    /// Its credential is void by now.
    Void,
}

/// What a node reported last, put together from its reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRow {
    /// When the last report came, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The courier's part, as JSON.
    pub courier: String,
    /// The daemon's status, as JSON.
    pub status: Option<String>,
    /// Its counters, as JSON.
    pub counters: Option<String>,
    /// When the report came that brought them.
    pub counters_ms: Option<u64>,
    /// The counters before these, as JSON: rates come from two.
    pub counters_before: Option<String>,
}

impl Db {
    /// Keeps reports, all in one transaction, and says what became of each.
    ///
    /// # Errors
    /// The database does not answer; none is kept.
    pub async fn take_reports(&self, reports: Vec<Report>) -> Result<Vec<Taken>, DbError> {
        // Always in the same order: two processes that take the same nodes' reports do not wait
        // for each other in a circle.
        let mut order: Vec<_> = (0..reports.len()).collect();
        order.sort_by(|&one, &other| reports[one].node.cmp(&reports[other].node));
        let mut taken = vec![Taken::Void; reports.len()];
        let (mut transaction, _turn) = self.begin().await?;
        for at in order {
            taken[at] = take(&mut transaction, &reports[at]).await?;
        }
        transaction.commit().await?;
        Ok(taken)
    }

    /// What a node reported last.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn report(&self, node: &NodeName) -> Result<Option<ReportRow>, DbError> {
        let row = sqlx::query("select * from reports where node = $1")
            .bind(node.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            Ok(ReportRow {
                at_ms: row.integer("at_ms")?,
                courier: row.text("courier")?,
                status: row.optional_text("status")?,
                counters: row.optional_text("counters")?,
                counters_ms: row.optional_integer("counters_ms")?,
                counters_before: row.optional_text("counters_before")?,
            })
        })
        .transpose()
    }
}

async fn take(connection: &mut AnyConnection, report: &Report) -> Result<Taken, DbError> {
    let (standing, status) = match &report.status {
        Some((standing, status)) => (Some(to_json(standing)), Some(status.clone())),
        None => (None, None),
    };
    // What says nothing of the daemon says that it is as before, so there has to be a before.
    let whole = status.is_some() || report.courier_standing.daemon_trouble.is_some();
    if !whole {
        let known = sqlx::query("select 1 as known from reports where node = $1")
            .bind(report.node.to_string())
            .fetch_optional(&mut *connection)
            .await?;
        if known.is_none() {
            return Ok(Taken::NeedsAll);
        }
    }
    let updated = sqlx::query(
        "update nodes set seen_ms = $3, courier = $4, standing = coalesce($5, standing) \
         where name = $1 and credential_hash = $2",
    )
    .bind(report.node.to_string())
    .bind(report.credential_hash.clone())
    .bind(integer(report.at_ms))
    .bind(to_json(&report.courier_standing))
    .bind(standing)
    .execute(&mut *connection)
    .await?;
    if updated.rows_affected() == 0 {
        return Ok(Taken::Void);
    }
    let counters_ms = report.counters.as_ref().map(|_| integer(report.at_ms));
    sqlx::query(
        "insert into reports (node, at_ms, courier, status, counters, counters_ms) \
         values ($1, $2, $3, $4, $5, $6) on conflict (node) do update set \
         at_ms = excluded.at_ms, courier = excluded.courier, \
         status = coalesce(excluded.status, reports.status), \
         counters_before = case when excluded.counters is null then reports.counters_before \
         else reports.counters end, \
         counters = coalesce(excluded.counters, reports.counters), \
         counters_ms = coalesce(excluded.counters_ms, reports.counters_ms)",
    )
    .bind(report.node.to_string())
    .bind(integer(report.at_ms))
    .bind(report.courier.clone())
    .bind(status)
    .bind(report.counters.clone())
    .bind(counters_ms)
    .execute(connection)
    .await?;
    Ok(Taken::Kept)
}
