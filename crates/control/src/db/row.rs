//! Reading columns into what they mean.

use super::DbError;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use std::fmt::Display;
use std::str::FromStr;

/// What columns of both databases can hold.
pub(super) trait Columns {
    fn integer(&self, column: &str) -> Result<u64, DbError>;
    fn optional_integer(&self, column: &str) -> Result<Option<u64>, DbError>;
    fn text(&self, column: &str) -> Result<String, DbError>;
    fn optional_text(&self, column: &str) -> Result<Option<String>, DbError>;
    fn optional_bytes(&self, column: &str) -> Result<Option<Vec<u8>>, DbError>;

    /// A text that is checked where it is read: a name, a hash.
    fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T, DbError> {
        self.text(column)?.parse().map_err(|error: T::Err| garbled(column, error.to_string()))
    }

    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, DbError> {
        from_json(column, &self.text(column)?)
    }

    fn optional_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, DbError> {
        self.optional_text(column)?.map(|text| from_json(column, &text)).transpose()
    }
}

impl Columns for AnyRow {
    fn integer(&self, column: &str) -> Result<u64, DbError> {
        let number: i64 = self.try_get(column)?;
        unsigned(column, number)
    }

    fn optional_integer(&self, column: &str) -> Result<Option<u64>, DbError> {
        let number: Option<i64> = self.try_get(column)?;
        number.map(|number| unsigned(column, number)).transpose()
    }

    fn text(&self, column: &str) -> Result<String, DbError> {
        Ok(self.try_get(column)?)
    }

    fn optional_text(&self, column: &str) -> Result<Option<String>, DbError> {
        Ok(self.try_get(column)?)
    }

    fn optional_bytes(&self, column: &str) -> Result<Option<Vec<u8>>, DbError> {
        Ok(self.try_get(column)?)
    }
}

/// Writes what is kept as JSON.
pub(super) fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("invariant: what is kept has string keys")
}

fn from_json<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, DbError> {
    serde_json::from_str(text).map_err(|error| garbled(column, error.to_string()))
}

fn unsigned(column: &str, number: i64) -> Result<u64, DbError> {
    u64::try_from(number).map_err(|_| garbled(column, format!("{number} is negative")))
}

pub(super) fn garbled(column: &str, why: String) -> DbError {
    DbError::Garbled { column: column.to_owned(), why }
}
