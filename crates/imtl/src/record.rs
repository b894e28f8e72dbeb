//! One whole record, before anybody looks into its body.

use crate::StreamError;
use crate::layout::{Bytes, MAGIC, RECORD_BYTES, header};
use std::fmt;

/// A record: 118 bytes that start with the magic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record(Bytes);

impl Record {
    /// Takes bytes that start with the magic.
    ///
    /// # Errors
    /// [`StreamError::Magic`] if they do not.
    pub fn from_bytes(bytes: [u8; RECORD_BYTES]) -> Result<Self, StreamError> {
        let found = header::MAGIC.read(&bytes);
        if found != MAGIC {
            return Err(StreamError::Magic { found });
        }
        Ok(Self(bytes))
    }

    /// A record whose body is zero to its last byte.
    pub(crate) fn new(number: u32, body_len: [u8; 4]) -> Self {
        let mut bytes = [0; RECORD_BYTES];
        header::MAGIC.write(&mut bytes, MAGIC);
        header::TYPE.write(&mut bytes, number.to_be_bytes());
        header::BODY_LEN.write(&mut bytes, body_len);
        Self(bytes)
    }

    /// All of it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; RECORD_BYTES] {
        &self.0
    }

    pub(crate) const fn bytes_mut(&mut self) -> &mut Bytes {
        &mut self.0
    }

    /// The number of its type.
    #[must_use]
    pub fn number(&self) -> u32 {
        u32::from_be_bytes(header::TYPE.read(&self.0))
    }

    /// What it says of its length, in whichever byte order.
    #[must_use]
    pub fn body_len(&self) -> [u8; 4] {
        header::BODY_LEN.read(&self.0)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}, ", self.number())?;
        let used = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.0[..used].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
