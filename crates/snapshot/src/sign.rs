//! The key that records are made with, and making them.

use crate::keys::PublicKey;
use crate::record::{COMMENT, Claim, RecordError, read_payload};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign::{KeyPair, PublicKey as MinisignPublicKey, SecretKey, SecretKeyBox};
use pointsman_model::fleet::{MAX_RECORD, RecordPayload};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The checksum at a secret key's end.
const CHK_BYTES: usize = 32;

/// A secret key: three algorithms, what a password would be hashed with, the key's id, the key, a
/// checksum.
const SECRET_BYTES: usize = 3 * 2 + 32 + 2 * 8 + 8 + 64 + CHK_BYTES;

/// The largest key file: two short lines.
const MAX_FILE: u64 = 4 << 10;

/// The key that records are signed with. It has no password: whoever can read its file can sign.
#[derive(Clone)]
pub struct SigningKey {
    secret: SecretKey,
    public: PublicKey,
}

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// A file operation failed.
    #[error("{}: {operation}: {source}", path.display())]
    Io {
        /// Which.
        operation: &'static str,
        /// The key's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is something already where the key is to be saved. A lost key cannot be had again.
    #[error("{} is there already; a key is never overwritten", path.display())]
    Exists {
        /// The key's file.
        path: PathBuf,
    },
    /// Others than its owner can read or replace it.
    #[error(
        "{} has the mode {mode:04o}: others than its owner have access; run chmod 600, and \
         consider the key as known", path.display()
    )]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no key of minisign without a password.
    #[error(
        "{} is not a minisign secret key without a password, as `minisign -G -W` makes one: \
         {message}", path.display()
    )]
    Invalid {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The system gave no random bytes, or the key could not be put together.
    #[error("no key could be made: {0}")]
    Generate(String),
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// [`SigningKeyError::Generate`].
    pub fn generate() -> Result<Self, SigningKeyError> {
        let failed = |error: minisign::PError| SigningKeyError::Generate(error.to_string());
        let KeyPair { sk, .. } = KeyPair::generate_unencrypted_keypair().map_err(failed)?;
        Self::from_secret(sk).map_err(SigningKeyError::Generate)
    }

    /// Loads a key that [`Self::save`] or `minisign -G -W` made.
    ///
    /// # Errors
    /// [`SigningKeyError`]: it is not there, exposed to others, or no such key.
    pub fn load(path: &Path) -> Result<Self, SigningKeyError> {
        let io = |operation| {
            move |source| SigningKeyError::Io { operation, path: path.to_owned(), source }
        };
        let invalid = |message: String| SigningKeyError::Invalid { path: path.to_owned(), message };
        let file = File::open(path).map_err(io("open"))?;
        let about = file.metadata().map_err(io("stat"))?;
        if !about.is_file() {
            return Err(invalid("it is not a regular file".to_owned()));
        }
        let mode = about.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SigningKeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(io("read"))?;
        if text.len() as u64 > MAX_FILE {
            return Err(invalid(format!("it is larger than {MAX_FILE} bytes")));
        }
        let secret = secret_key(&text).map_err(invalid)?;
        Self::from_secret(secret).map_err(invalid)
    }

    /// Saves the key for its owner alone, mode 0600: all of it, or nothing.
    ///
    /// # Errors
    /// [`SigningKeyError::Exists`] if anything of that name is there, [`SigningKeyError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), SigningKeyError> {
        let io = |operation| {
            move |source| SigningKeyError::Io { operation, path: path.to_owned(), source }
        };
        let comment = format!("pointsman signing key {}", self.public.key_id());
        let text = self
            .secret
            .to_box(Some(&comment))
            .map_err(|error| SigningKeyError::Generate(error.to_string()))?;
        // Several may save at once, in one process too.
        static SAVES: AtomicU32 = AtomicU32::new(0);
        let number = SAVES.fetch_add(1, Ordering::Relaxed);
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}.{number}", std::process::id()));
        let aside = PathBuf::from(aside);
        // What is left of a process of this number that died here.
        match std::fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io("remove")(error));
            }
            _ => {}
        }
        let written = (|| {
            let options = OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
            let mut file = options.open(&aside).map_err(io("create"))?;
            file.write_all(&text.to_bytes()).map_err(io("write"))?;
            file.sync_all().map_err(io("sync"))?;
            // A link, not a rename: that would replace a key which is there.
            std::fs::hard_link(&aside, path).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => SigningKeyError::Exists { path: path.to_owned() },
                _ => io("link")(error),
            })
        })();
        let removed = std::fs::remove_file(&aside).map_err(io("remove"));
        written?;
        removed?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = File::open(directory.unwrap_or(Path::new("."))).map_err(io("open"))?;
        directory.sync_all().map_err(io("sync"))
    }

    /// Loads the key, or makes and saves one if there is none yet. Of two who do this at once,
    /// both get the same.
    ///
    /// # Errors
    /// As [`Self::load`] and [`Self::save`].
    pub fn load_or_generate(path: &Path) -> Result<Self, SigningKeyError> {
        match Self::load(path) {
            Err(SigningKeyError::Io { operation: "open", source, .. })
                if source.kind() == io::ErrorKind::NotFound => {}
            loaded => return loaded,
        }
        let key = Self::generate()?;
        match key.save(path) {
            Ok(()) => Ok(key),
            Err(SigningKeyError::Exists { .. }) => Self::load(path),
            Err(error) => Err(error),
        }
    }

    /// What verifies what this signs.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn from_secret(secret: SecretKey) -> Result<Self, String> {
        let public = MinisignPublicKey::from_secret_key(&secret).map_err(|e| e.to_string())?;
        // A key whose halves do not belong together makes signatures that nobody accepts.
        minisign::sign(Some(&public), &secret, [].as_slice(), None, None)
            .map_err(|e| e.to_string())?;
        let public = PublicKey::from_base64(&public.to_base64()).map_err(|e| e.to_string())?;
        Ok(Self { secret, public })
    }
}

/// From the text of a key file. Without a password minisign 0.11 leaves the place of the checksum
/// empty, and its crate insists on one.
fn secret_key(text: &str) -> Result<SecretKey, String> {
    let line = text.lines().nth(1).ok_or("there is no second line")?;
    let bytes = STANDARD.decode(line).map_err(|error| error.to_string())?;
    let checksum: Option<&[u8; CHK_BYTES]> = bytes.last_chunk();
    if bytes.len() == SECRET_BYTES && checksum == Some(&[0; CHK_BYTES]) {
        let secret = SecretKey::from_bytes(&bytes).map_err(|error| error.to_string())?;
        if secret.is_encrypted() {
            return Err("it has a password".to_owned());
        }
        return Ok(secret);
    }
    SecretKeyBox::from(text.to_owned())
        .into_unencrypted_secret_key()
        .map_err(|error| error.to_string())
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.key_id())
    }
}

/// Makes a record. Two records of the same payload differ: signatures have a random part.
///
/// # Errors
/// [`RecordError::Invalid`] and [`RecordError::TooLarge`]: what no node would take is not signed.
pub fn sign(key: &SigningKey, payload: &RecordPayload) -> Result<Vec<u8>, RecordError> {
    let failed = |error: String| RecordError::Invalid(format!("it cannot be signed: {error}"));
    let bytes = serde_json::to_vec(payload).map_err(|error| failed(error.to_string()))?;
    let claim = Claim {
        fleet: payload.fleet.clone(),
        node: payload.node.clone(),
        generation: payload.generation,
    };
    read_payload(&bytes, &claim)?;
    let signature = minisign::sign(
        None,
        &key.secret,
        bytes.as_slice(),
        Some(&claim.to_string()),
        Some(COMMENT),
    )
    .map_err(|error| failed(error.to_string()))?;
    let mut record = signature.into_string().into_bytes();
    record.extend_from_slice(&bytes);
    if record.len() > MAX_RECORD {
        return Err(RecordError::TooLarge { bytes: record.len() });
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_saved_for_its_owner_alone_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.key");
        let key = SigningKey::load_or_generate(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing beside it");
        let again = SigningKey::load_or_generate(&path).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        let before = std::fs::read(&path).unwrap();
        let error = SigningKey::generate().unwrap().save(&path).unwrap_err();
        assert!(matches!(error, SigningKeyError::Exists { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.public_key().key_id()));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.key");
        SigningKey::generate().unwrap().save(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = SigningKey::load(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        SigningKey::load(&path).unwrap();
    }

    #[test]
    fn what_is_no_key_is_refused_and_its_file_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.key");
        let key = SigningKey::generate().unwrap();
        key.save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        for len in 0..good.len() - 1 {
            std::fs::write(&path, &good[..len]).unwrap();
            assert!(SigningKey::load(&path).is_err(), "cut off at {len}");
        }
        let comment = good.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for at in comment..good.len() - 1 {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            // What a password would be hashed with does not count without one.
            let loaded = SigningKey::load(&path);
            assert!(!loaded.is_ok_and(|other| other.public_key() != key.public_key()), "{at}");
        }
        std::fs::write(&path, vec![b'\n'; 1 << 20]).unwrap();
        let error = SigningKey::load(&path).unwrap_err().to_string();
        assert!(error.contains("fleet.key") && error.contains("larger"), "{error}");
        // The third and fourth byte say how the rest is locked.
        let text = String::from_utf8(good).unwrap();
        let line = text.lines().nth(1).unwrap();
        let mut locked = STANDARD.decode(line).unwrap();
        locked[2..4].copy_from_slice(b"Sc");
        std::fs::write(&path, text.replace(line, &STANDARD.encode(locked))).unwrap();
        let error = SigningKey::load(&path).unwrap_err().to_string();
        assert!(error.contains("without a password"), "{error}");
        let error = SigningKey::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
