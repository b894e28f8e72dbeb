//! What a client says of itself.

use crate::RequestError;
use crate::layout::{Bytes, HOSTNAME_BYTES, MAX_INTERFACES, register};
use std::fmt;
use std::ops::Deref;

/// The body of a REGISTER. Everything in it is claimed and nothing proven: who the peer is the
/// socket tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// The process, as its own pid namespace numbers it. Any number may be claimed.
    pub pid: i32,
    /// The user.
    pub uid: u32,
    /// The host.
    pub hostname: Hostname,
    /// Indexes of the interfaces it wants to use with AF_XDP.
    pub interfaces: Interfaces,
}

impl Registration {
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, RequestError> {
        let found = u16::from_be_bytes(register::NUM_IF.read(bytes));
        let indexes = register::IFINDEX.read(bytes);
        let mut interfaces = Interfaces::default();
        if usize::from(found) > MAX_INTERFACES {
            return Err(RequestError::InterfaceCount { found });
        }
        let (indexes, _) = indexes.as_chunks();
        interfaces
            .extend(indexes.iter().take(found.into()).map(|index| u32::from_be_bytes(*index)));
        Ok(Self {
            pid: i32::from_be_bytes(register::PID.read(bytes)),
            uid: u32::from_be_bytes(register::UID.read(bytes)),
            hostname: Hostname(register::HOSTNAME.read(bytes)),
            interfaces,
        })
    }

    pub(crate) fn encode(&self, bytes: &mut Bytes) {
        let Self { pid, uid, hostname, interfaces } = self;
        register::PID.write(bytes, pid.to_be_bytes());
        register::UID.write(bytes, uid.to_be_bytes());
        register::HOSTNAME.write(bytes, hostname.0);
        register::NUM_IF.write(bytes, u16::from(interfaces.count).to_be_bytes());
        let mut indexes = [0; 4 * MAX_INTERFACES];
        let (chunks, _) = indexes.as_chunks_mut();
        for (chunk, index) in chunks.iter_mut().zip(interfaces.iter()) {
            *chunk = index.to_be_bytes();
        }
        register::IFINDEX.write(bytes, indexes);
    }
}

/// A hostname as claimed: it need not be UTF-8, nor end within the field, nor be the host's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hostname([u8; HOSTNAME_BYTES]);

impl Hostname {
    /// All bytes of the field.
    #[must_use]
    pub const fn from_field(field: [u8; HOSTNAME_BYTES]) -> Self {
        Self(field)
    }

    /// `name` as clients send it: cut so that a zero byte ends it, and filled up with zeros.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        let mut field = [0; HOSTNAME_BYTES];
        let length = name.len().min(HOSTNAME_BYTES - 1);
        field[..length].copy_from_slice(&name[..length]);
        Self(field)
    }

    /// The name: up to the first zero byte, and the whole field where there is none.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(HOSTNAME_BYTES);
        &self.0[..end]
    }

    /// Whether a zero byte ends it, as in everything that libmtl sends.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.0.contains(&0)
    }
}

/// Printable ASCII as it is, all else escaped: a name cannot break a line of a log, colour a
/// terminal, or look like another one.
impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hostname(\"{self}\")")
    }
}

/// At most eight interface indexes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interfaces {
    indexes: [u32; MAX_INTERFACES],
    count: u8,
}

impl Interfaces {
    /// Those in `indexes`; `None`: they are more than [`MAX_INTERFACES`].
    #[must_use]
    pub fn new(indexes: &[u32]) -> Option<Self> {
        let mut interfaces = Self::default();
        interfaces.extend(indexes.iter().copied());
        (indexes.len() <= MAX_INTERFACES).then_some(interfaces)
    }

    /// Takes as many as there is room for.
    fn extend(&mut self, indexes: impl Iterator<Item = u32>) {
        for (slot, index) in self.indexes.iter_mut().zip(indexes) {
            *slot = index;
            self.count += 1;
        }
    }
}

impl Deref for Interfaces {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.indexes[..usize::from(self.count)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_as_claimed_and_shown_escaped() {
        let plain = Hostname::new(b"edge-17");
        assert_eq!((plain.to_string().as_str(), plain.is_terminated()), ("edge-17", true));

        let hostile = Hostname::new("a\n\x1b[31m\u{202e}\"\\".as_bytes());
        assert_eq!(hostile.to_string(), r#"a\n\x1b[31m\xe2\x80\xae\"\\"#);

        let endless = Hostname::from_field([b'x'; HOSTNAME_BYTES]);
        assert_eq!((endless.as_bytes().len(), endless.is_terminated()), (64, false));
        // Clients cut a name that does not fit, so it always ends.
        let cut = Hostname::new(&[b'x'; 200]);
        assert_eq!((cut.as_bytes().len(), cut.is_terminated()), (63, true));

        let mut field = [0xff; HOSTNAME_BYTES];
        field[0] = 0;
        let hidden = Hostname::from_field(field);
        assert_eq!(hidden.as_bytes(), b"", "what follows the end is not part of the name");
    }

    #[test]
    fn interfaces_are_eight_at_most() {
        assert_eq!(Interfaces::new(&[]).as_deref(), Some(&[][..]));
        let eight: Vec<u32> = (1..=8).collect();
        assert_eq!(Interfaces::new(&eight).as_deref(), Some(&eight[..]));
        assert_eq!(Interfaces::new(&[7; 9]), None);
    }
}
