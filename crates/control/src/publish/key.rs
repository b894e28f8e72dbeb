//! The key that records are signed with. It lies in a file that only the control plane can read;
//! the database knows its public half, so that a wrong or a lost file is noticed before anything
//! is signed with another key, which no node trusts.

use crate::db::{Actor, Change, Db, DbError};
use pointsman_snapshot::keys::{PublicKey, SigningKey, SigningKeyError};
use std::io;
use std::path::{Path, PathBuf};

/// The setting that holds the public key, in base64.
const SETTING: &str = "public_key";

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The file cannot be read or made, or is not a key.
    #[error(transparent)]
    File(#[from] SigningKeyError),
    /// What the database has is no public key.
    #[error("the database's setting {SETTING} is not a public key: {0:?}")]
    Garbled(String),
    /// There is no file, and nodes trust a key already.
    #[error(
        "the signing key {} is not there, and the nodes of this fleet trust the key {id} alone: \
         put the file back from a backup, with mode 0600; what replace-key put aside lies beside \
         it, with the time in its name. (If it is lost for good, \
         `pointsman-control replace-key` makes a new one, and every node has to enrol again.)",
        path.display()
    )]
    Lost {
        /// Where it should be.
        path: PathBuf,
        /// The id of the key.
        id: String,
    },
    /// The file holds another key.
    #[error(
        "{} holds the key {found}, and the nodes of this fleet trust the key {id} alone: put the \
         right file back, or check --state-dir and --database", path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// The id of the key in it.
        found: String,
        /// The id of the key that the nodes trust.
        id: String,
    },
    /// The key was replaced while this process had it.
    #[error(
        "this process signs with the key {found}, which was replaced by {id}: nothing is signed \
         with it any more. Restart pointsman-control with the new key's file"
    )]
    Replaced {
        /// The id of the key of this process.
        found: String,
        /// The id of the key that replaced it.
        id: String,
    },
    /// A new key was made, and it is not known whether it counts.
    #[error(
        "the new key is {}{}, and it is not known which one the database names: {source}. Start \
         pointsman-control: if it says that the other one is expected, put that in place",
        path.display(), beside(old.as_deref())
    )]
    Half {
        /// The file of the new key.
        path: PathBuf,
        /// Where the old one is, if there was one.
        old: Option<PathBuf>,
        /// What went wrong.
        source: Box<KeyError>,
    },
}

fn beside(old: Option<&Path>) -> String {
    old.map_or_else(String::new, |old| format!(", the old one {}", old.display()))
}

/// Loads the key, or makes it at the very first start.
///
/// # Errors
/// [`KeyError`]: nothing can be published.
pub async fn load(db: &Db, path: &Path, now: u64) -> Result<SigningKey, KeyError> {
    if let Some(known) = known(db).await? {
        return check(path, &known);
    }
    // The file comes first: a key that is known to the database and lies nowhere would be lost.
    let key = SigningKey::load_or_generate(path)?;
    match remember(db, &key, now).await {
        Ok(()) => Ok(key),
        // Another process was faster: then this one must have the same key.
        Err(KeyError::Database(DbError::Conflict(_))) => match known(db).await? {
            Some(known) => check(path, &known),
            None => Ok(key),
        },
        Err(error) => Err(error),
    }
}

/// Makes a new key in place of one that is lost, or known to others. The file of the old one is
/// kept beside it. Every node has to enrol again.
///
/// # Errors
/// [`KeyError::Half`] says what is where. After any other [`KeyError`] everything is as it was.
pub async fn replace(db: &Db, path: &Path, now: u64) -> Result<SigningKey, KeyError> {
    let key = SigningKey::generate()?;
    let old = set_aside(path, now)?;
    if let Err(error) = key.save(path) {
        return Err(put_back(path, old, error.into()));
    }
    let Err(error) = announce(db, &key, now).await else { return Ok(key) };
    // A commit of which nobody heard may have been made.
    match known(db).await {
        Ok(Some(known)) if known == *key.public_key() => Ok(key),
        Ok(_) => Err(put_back(path, old, error)),
        Err(_) => Err(KeyError::Half { path: path.to_owned(), old, source: Box::new(error) }),
    }
}

/// Renames the old key's file; `None`: there is none.
fn set_aside(path: &Path, now: u64) -> Result<Option<PathBuf>, KeyError> {
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let mut old = path.as_os_str().to_owned();
    old.push(format!(".{now}"));
    let old = PathBuf::from(old);
    rename(path, &old)?;
    Ok(Some(old))
}

/// Brings the file to what it was before `error`.
fn put_back(path: &Path, old: Option<PathBuf>, error: KeyError) -> KeyError {
    let done = match &old {
        Some(old) => rename(old, path).is_ok(),
        None => match std::fs::remove_file(path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        },
    };
    if done {
        error
    } else {
        KeyError::Half { path: path.to_owned(), old, source: Box::new(error) }
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), KeyError> {
    std::fs::rename(from, to).map_err(|source| {
        SigningKeyError::Io { operation: "rename", path: from.to_owned(), source }.into()
    })
}

async fn announce(db: &Db, key: &SigningKey, now: u64) -> Result<(), KeyError> {
    let mut change = db.change(&Actor::control(), now).await?;
    change.put_setting(SETTING, key.public_key().to_base64()).await?;
    Ok(change.commit().await?)
}

/// Makes sure that a key is the one that nodes trust, or that there is none yet: another process
/// may have replaced it meanwhile. Asked in the change that depends on it.
///
/// # Errors
/// [`KeyError::Replaced`], [`KeyError::Garbled`], [`KeyError::Database`].
pub(crate) async fn check_in_force(change: &mut Change, key: &PublicKey) -> Result<(), KeyError> {
    let Some(text) = change.setting(SETTING).await? else { return Ok(()) };
    match PublicKey::from_base64(&text) {
        Ok(known) if known == *key => Ok(()),
        Ok(known) => Err(KeyError::Replaced { found: key.key_id(), id: known.key_id() }),
        Err(_) => Err(KeyError::Garbled(text)),
    }
}

/// The public key that the nodes trust; `None`: there is none yet.
///
/// # Errors
/// [`KeyError::Database`], [`KeyError::Garbled`].
pub async fn known(db: &Db) -> Result<Option<PublicKey>, KeyError> {
    let Some(text) = db.setting(SETTING).await? else { return Ok(None) };
    PublicKey::from_base64(&text).map(Some).map_err(|_| KeyError::Garbled(text))
}

fn check(path: &Path, known: &PublicKey) -> Result<SigningKey, KeyError> {
    let key = match SigningKey::load(path) {
        Err(SigningKeyError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            return Err(KeyError::Lost { path: path.to_owned(), id: known.key_id() });
        }
        loaded => loaded?,
    };
    if key.public_key() == known {
        return Ok(key);
    }
    let (found, id) = (key.public_key().key_id(), known.key_id());
    Err(KeyError::Other { path: path.to_owned(), found, id })
}

/// Tells the database the public key, if it knows none.
async fn remember(db: &Db, key: &SigningKey, now: u64) -> Result<(), KeyError> {
    let mut change = db.change(&Actor::control(), now).await?;
    // Changes take turns: whoever comes second finds the key of the first.
    if change.setting(SETTING).await?.is_some() {
        return Err(DbError::Conflict("another process made the signing key".into()).into());
    }
    change.put_setting(SETTING, key.public_key().to_base64()).await?;
    Ok(change.commit().await?)
}
