//! What can be wrong with what a client sends: one type for each thing that can become of it.
//!
//! | type | the record is | the connection |
//! |---|---|---|
//! | [`Oddity`] | served | goes on |
//! | [`RequestError`] | answered with a refusal | goes on |
//! | [`StreamError`] | lost | is closed when earlier requests are answered |

use crate::layout::{BODY_BYTES, MAX_INTERFACES, RECORD_BYTES, header, register};
use crate::{Dialect, Refusal, RequestKind};

/// Something that no server ever minded, and so cannot be refused now. It is worth a line in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Oddity {
    /// `body_len` is not the length of this message's body.
    #[error(
        "{field}: found {found:02x?} in {request}, expected {expected} as four bytes",
        field = header::BODY_LEN,
        expected = request.body_bytes()
    )]
    BodyLen {
        /// The bytes found.
        found: [u8; 4],
        /// In which request.
        request: RequestKind,
    },
    /// `body_len` claims more than a record holds.
    #[error(
        "{field}: found {found:02x?} in {request}, expected {expected}, and no record holds more \
         than {BODY_BYTES}",
        field = header::BODY_LEN,
        expected = request.body_bytes()
    )]
    BodyTooLong {
        /// The bytes found.
        found: [u8; 4],
        /// In which request.
        request: RequestKind,
    },
    /// A client that spoke one dialect registers in the other.
    #[error(
        "{field}: found as in dialect {found}, expected as in dialect {first}, in which this \
         connection registered first",
        field = header::BODY_LEN
    )]
    DialectChanged {
        /// What it spoke first, and is taken to speak on.
        first: Dialect,
        /// What this REGISTER says.
        found: Dialect,
    },
}

impl Oddity {
    /// Checks what a request says of its length. Either byte order is right, because libmtl uses
    /// both.
    pub(crate) fn of_length(found: [u8; 4], request: RequestKind) -> Option<Self> {
        let orders = [u32::from_be_bytes(found), u32::from_le_bytes(found)];
        if orders.contains(&request.body_bytes()) {
            return None;
        }
        let too_long = orders.iter().all(|length| *length > BODY_BYTES as u32);
        Some(if too_long {
            Self::BodyTooLong { found, request }
        } else {
            Self::BodyLen { found, request }
        })
    }
}

/// A record that asks for nothing that could be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// More interfaces than there is room for. The manager of dialect 1.0 read on behind the
    /// record, that of 1.1 refuses.
    #[error("{field}: found {found}, expected at most {MAX_INTERFACES}", field = register::NUM_IF)]
    InterfaceCount {
        /// The number found.
        found: u16,
    },
    /// No request has this type. The manager of dialect 1.0 said nothing, and its client waited
    /// for ever; that of 1.1 refuses.
    #[error("{field}: found {found}, expected a request: 101 to 111", field = header::TYPE)]
    Type {
        /// The number found.
        found: u32,
    },
}

impl RequestError {
    /// What it is answered with.
    #[must_use]
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::InterfaceCount { .. } => Refusal::Invalid,
            Self::Type { .. } => Refusal::Unsupported,
        }
    }
}

/// A stream of which no more records can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Where a record starts, there is something else. The manager of dialect 1.0 went on and said
    /// nothing; that of 1.1 closes.
    #[error(
        "{field}: found {found:02x?}, expected [49, 4d, 54, 4c] (\"IMTL\"); where the next record \
         starts cannot be known",
        field = header::MAGIC
    )]
    Magic {
        /// The bytes found.
        found: [u8; 4],
    },
    /// It ended within a record.
    #[error("the stream ended at offset {have} of a record, expected {RECORD_BYTES} bytes")]
    Truncated {
        /// Bytes of the record that came.
        have: usize,
    },
}

/// A record from a server that answers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: found {found}, expected a reply: 201 to 204", field = header::TYPE)]
pub struct ReplyError {
    /// The number found.
    pub found: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_field_offset_and_what_was_expected() {
        let request = RequestKind::GetLcore;
        let (first, changed) = (Dialect::V1_0, Dialect::V1_1);
        let cases: [(&dyn std::error::Error, &str); 8] = [
            (
                &StreamError::Magic { found: *b"GET " },
                "magic at offset 0: found [47, 45, 54, 20], expected [49, 4d, 54, 4c] (\"IMTL\"); \
                 where the next record starts cannot be known",
            ),
            (
                &StreamError::Truncated { have: 7 },
                "the stream ended at offset 7 of a record, expected 118 bytes",
            ),
            (
                &RequestError::Type { found: 204 },
                "type at offset 4: found 204, expected a request: 101 to 111",
            ),
            (
                &RequestError::InterfaceCount { found: u16::MAX },
                "num_if at offset 84: found 65535, expected at most 8",
            ),
            (
                &Oddity::BodyLen { found: [0; 4], request },
                "body_len at offset 8: found [00, 00, 00, 00] in GET_LCORE, expected 2 as four \
                 bytes",
            ),
            (
                &Oddity::BodyTooLong { found: [0xff; 4], request },
                "body_len at offset 8: found [ff, ff, ff, ff] in GET_LCORE, expected 2, and no \
                 record holds more than 106",
            ),
            (
                &Oddity::DialectChanged { first, found: changed },
                "body_len at offset 8: found as in dialect 1.1, expected as in dialect 1.0, in \
                 which this connection registered first",
            ),
            (
                &ReplyError { found: 101 },
                "type at offset 4: found 101, expected a reply: 201 to 204",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn lengths_are_right_in_either_byte_order() {
        let request = RequestKind::PutLcore;
        for right in [[2, 0, 0, 0], [0, 0, 0, 2]] {
            assert_eq!(Oddity::of_length(right, request), None);
        }
        for found in [[0, 0, 0, 3], [0; 4], [1, 0, 0, 0], [0, 0, 0, 106]] {
            assert_eq!(Oddity::of_length(found, request), Some(Oddity::BodyLen { found, request }));
        }
        for found in [[0, 2, 0, 0], [0xff; 4], [107, 0, 0, 1]] {
            assert_eq!(
                Oddity::of_length(found, request),
                Some(Oddity::BodyTooLong { found, request })
            );
        }
    }
}
