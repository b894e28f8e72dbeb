//! The one name that changes, and the names of what it points to.

use pointsman_model::Sha256;
use pointsman_model::document::MAX_GENERATION;
use pointsman_model::fleet::{LATEST_SCHEMA, Latest, MAX_SHARDS};

/// What the one name that changes is called in a blob store.
pub const NAME: &str = "latest";

/// The largest `latest`, in bytes: the names of all shards, and room.
pub const MAX_BYTES: usize = 8 << 10;

/// The highest number of a snapshot. Numbers are counted one by one, and JSON has no greater ones
/// that all readers understand.
pub const MAX_SNAPSHOT: u64 = MAX_GENERATION;

/// How many nodes a shard is meant for: a change of one of them rewrites so many.
const NODES_PER_SHARD: u64 = 512;

/// Why this is no `latest`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LatestError {
    /// Larger than it can be.
    #[error("`latest` is of {bytes} bytes; the limit is {MAX_BYTES}")]
    TooLarge {
        /// What it has.
        bytes: usize,
    },
    /// Not the JSON that it should be.
    #[error("`latest` cannot be read: {0}")]
    Json(String),
    /// A form that this program does not know.
    #[error("`latest` has the schema {found:?}; this program knows {LATEST_SCHEMA:?}")]
    Schema {
        /// What it says.
        found: String,
    },
    /// A number that no publisher counts to.
    #[error("`latest` is of the snapshot {snapshot}; expected a number of at most {MAX_SNAPSHOT}")]
    Snapshot {
        /// Which one it names.
        snapshot: u64,
    },
    /// A number of shards that no node's place can be found with.
    #[error("`latest` names {shards} shards; expected a power of two of at most {MAX_SHARDS}")]
    Shards {
        /// How many it names.
        shards: usize,
    },
}

/// Reads what lies under [`NAME`].
///
/// # Errors
/// [`LatestError`].
pub fn parse(bytes: &[u8]) -> Result<Latest, LatestError> {
    if bytes.len() > MAX_BYTES {
        return Err(LatestError::TooLarge { bytes: bytes.len() });
    }
    // What serde derives would take an array of the fields as well.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(LatestError::Json("expected an object".to_owned()));
    }
    let latest: Latest =
        serde_json::from_slice(bytes).map_err(|error| LatestError::Json(error.to_string()))?;
    checked(latest)
}

/// Writes what goes under [`NAME`].
///
/// # Errors
/// [`LatestError`]: [`parse`] would refuse it.
pub fn write(latest: &Latest) -> Result<Vec<u8>, LatestError> {
    let latest = checked(latest.clone())?;
    let mut text =
        serde_json::to_vec(&latest).map_err(|error| LatestError::Json(error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

fn checked(latest: Latest) -> Result<Latest, LatestError> {
    if latest.schema != LATEST_SCHEMA {
        return Err(LatestError::Schema { found: latest.schema.chars().take(80).collect() });
    }
    if latest.snapshot > MAX_SNAPSHOT {
        return Err(LatestError::Snapshot { snapshot: latest.snapshot });
    }
    let shards = latest.shards.len();
    if !shards.is_power_of_two() || shards > MAX_SHARDS {
        return Err(LatestError::Shards { shards });
    }
    Ok(latest)
}

/// How many shards a fleet of so many nodes is published in.
#[must_use]
pub fn shards_for(nodes: u64) -> usize {
    let shards = nodes.div_ceil(NODES_PER_SHARD).clamp(1, MAX_SHARDS as u64);
    usize::try_from(shards.next_power_of_two()).unwrap_or(MAX_SHARDS)
}

/// What a shard is called in a blob store.
#[must_use]
pub fn shard_name(hash: &Sha256) -> String {
    format!("shards/{hash}.cdb")
}

/// What an object is called in a blob store.
#[must_use]
pub fn object_name(hash: &Sha256) -> String {
    format!("objects/{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::FleetName;

    fn latest(shards: usize) -> Latest {
        let shard = |number: usize| Sha256::of(&number.to_le_bytes());
        Latest {
            schema: LATEST_SCHEMA.to_owned(),
            fleet: FleetName::new("lab").unwrap(),
            snapshot: 17,
            shards: (0..shards).map(shard).collect(),
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        for shards in [1, 2, 64] {
            let text = write(&latest(shards)).unwrap();
            assert!(text.len() < MAX_BYTES, "{}", text.len());
            assert_eq!(parse(&text), Ok(latest(shards)));
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let good = String::from_utf8(write(&latest(2)).unwrap()).unwrap();
        for len in 0..good.trim_end().len() {
            assert!(parse(&good.as_bytes()[..len]).is_err(), "cut off at {len}");
        }
        let hash = Sha256::of(&0_usize.to_le_bytes()).to_string();
        for (from, to, expected) in [
            ("{", r#"{"more":1,"#, "unknown field"),
            ("{", r#"{"snapshot":1,"#, "duplicate field"),
            ("latest/v1", "latest/v2", "knows"),
            (&*hash, "0", "valid sha256"),
            (&*hash, "../../etc/passwd", "valid sha256"),
            ("\"lab\"", "\"l/b\"", "fleet name"),
            ("17", "-1", "invalid value"),
            ("17", "9007199254740992", "at most 9007199254740991"),
            ("17", "18446744073709551615", "at most 9007199254740991"),
            ("17", "18446744073709551616", "invalid"),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good);
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
        for shards in [0, 3, 128] {
            assert!(write(&latest(shards)).is_err(), "{shards}");
        }
        let array = format!(r#"["{LATEST_SCHEMA}","lab",17,["{hash}"]]"#);
        assert!(parse(array.as_bytes()).is_err());
        let large = format!("{}{}", " ".repeat(MAX_BYTES), good);
        assert_eq!(parse(large.as_bytes()), Err(LatestError::TooLarge { bytes: large.len() }));
    }

    #[test]
    fn there_are_shards_enough_for_a_fleet() {
        let shards = [0, 1, 512, 513, 1025, 10_000, 100_000, u64::MAX].map(shards_for);
        assert_eq!(shards, [1, 1, 1, 2, 4, 32, 64, 64]);
    }
}
