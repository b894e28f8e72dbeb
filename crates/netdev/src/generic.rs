//! Generic netlink: one question, one answer.
//!
//! The kernel answers while the question is sent, so nothing here ever waits: an answer that is
//! not there when it is looked for will not come.

use crate::NetlinkError;
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::io;

/// `GENL_ID_CTRL` of `linux/genetlink.h`: the family that knows all others.
const CONTROL: u16 = 0x10;

/// A socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Generic {
    socket: Socket,
    sequence: u32,
}

/// One message: a command with attributes.
#[derive(Debug)]
struct Message {
    family: u16,
    command: u8,
    attributes: Vec<u8>,
}

/// The length of `struct genlmsghdr`: command, version, two reserved bytes.
const HEADER: usize = 4;

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..HEADER].copy_from_slice(&[self.command, 1, 0, 0]);
        buffer[HEADER..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (head, attributes) = payload
            .split_at_checked(HEADER)
            .ok_or_else(|| DecodeError::buffer_too_small(payload.len(), HEADER))?;
        let (family, attributes) = (header.message_type, attributes.to_vec());
        Ok(Self { family, command: head[0], attributes })
    }
}

impl Generic {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        // Why something was refused, without the request. Before Linux 4.12 there are no reasons.
        let _ = socket.set_ext_ack(true).and_then(|()| socket.set_cap_ack(true));
        Ok(Self { socket, sequence: 0 })
    }

    /// The number of a family; `None`: this kernel has no such family.
    pub(crate) fn family(&mut self, name: &str) -> Result<Option<u16>, NetlinkError> {
        // `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and `CTRL_ATTR_FAMILY_NAME`.
        const GET: u8 = 3;
        const ID: u16 = 1;
        const NAME: u16 = 2;
        let name = attribute(NAME, &[name.as_bytes(), b"\0"].concat());
        match self.ask(CONTROL, GET, name) {
            Ok(answer) => Ok(find(&answer, ID).and_then(u16_of)),
            Err(NetlinkError::Os(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks, and gives the attributes of the answer.
    pub(crate) fn ask(
        &mut self,
        family: u16,
        command: u8,
        attributes: Vec<u8>,
    ) -> Result<Vec<u8>, NetlinkError> {
        self.send(family, command, attributes, NLM_F_REQUEST)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            if let Some(answer) = answer(&bytes, self.sequence)? {
                return Ok(answer);
            }
        }
    }

    /// Orders something, and waits for nothing but word that it was done.
    pub(crate) fn order(
        &mut self,
        family: u16,
        command: u8,
        attributes: Vec<u8>,
    ) -> Result<(), Refused> {
        self.send(family, command, attributes, NLM_F_REQUEST | NLM_F_ACK)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full().map_err(NetlinkError::from)?;
            if acknowledged(&bytes, self.sequence)? {
                return Ok(());
            }
        }
    }

    fn send(
        &mut self,
        family: u16,
        command: u8,
        attributes: Vec<u8>,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let payload = NetlinkPayload::InnerMessage(Message { family, command, attributes });
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }
}

/// An order was not carried out.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: NetlinkError,
    /// In the kernel's or the driver's words.
    pub(crate) why: Option<String>,
}

impl From<NetlinkError> for Refused {
    fn from(error: NetlinkError) -> Self {
        Self { error, why: None }
    }
}

/// Whether order `sequence` was carried out; `false`: these messages do not tell.
fn acknowledged(bytes: &[u8], sequence: u32) -> Result<bool, Refused> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let message = NetlinkMessage::<Message>::deserialize(rest).map_err(NetlinkError::from)?;
        let length = (message.header.length as usize).next_multiple_of(4).max(4);
        rest = rest.get(length..).unwrap_or_default();
        if message.header.sequence_number != sequence {
            continue;
        }
        if let NetlinkPayload::Error(error) = message.payload {
            if error.code.is_none() {
                return Ok(true);
            }
            return Err(Refused { why: reason(&error.header), error: error.to_io().into() });
        }
    }
    Ok(false)
}

/// `NLMSGERR_ATTR_MSG` behind the request's header, which is all that comes back of the request.
fn reason(behind: &[u8]) -> Option<String> {
    const REQUEST_HEADER: usize = 16;
    const MESSAGE: u16 = 1;
    let text = find(behind.get(REQUEST_HEADER..)?, MESSAGE)?;
    let text = String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text)).into_owned();
    (!text.is_empty()).then_some(text)
}

/// The attributes of the answer to question `sequence`; `None`: it is not among these messages.
fn answer(bytes: &[u8], sequence: u32) -> Result<Option<Vec<u8>>, NetlinkError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let message = NetlinkMessage::<Message>::deserialize(rest)?;
        // Messages are padded to four bytes; a length of zero would never end.
        let length = (message.header.length as usize).next_multiple_of(4).max(4);
        rest = rest.get(length..).unwrap_or_default();
        if message.header.sequence_number != sequence {
            // An answer to a question that was given up.
            continue;
        }
        match message.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(error.to_io().into());
            }
            NetlinkPayload::InnerMessage(message) => return Ok(Some(message.attributes)),
            _ => {}
        }
    }
    Ok(None)
}

/// An attribute with its padding.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// An attribute that holds others.
pub(crate) fn nest(kind: u16, inner: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, inner)
}

/// Every attribute up to the first that is cut off.
pub(crate) fn all(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let whole = NlasIterator::new(attributes).map_while(Result::ok);
    whole.map(|attribute| {
        let (_, value) = attribute.into_inner().split_at(HEADER_OF_ATTRIBUTE);
        (attribute.kind(), &value[..attribute.value_length()])
    })
}

/// Two bytes of length and two of kind.
const HEADER_OF_ATTRIBUTE: usize = 4;

/// The value of the first attribute of a kind.
pub(crate) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    all(attributes).find(|&(found, _)| found == kind).map(|(_, value)| value)
}

pub(crate) fn u16_of(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_ne_bytes)
}

pub(crate) fn u32_of(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

pub(crate) fn u64_of(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_control_family_knows_itself_and_not_everybody() {
        let mut generic = Generic::open().unwrap();
        assert_eq!(generic.family("nlctrl").unwrap(), Some(CONTROL));
        assert_eq!(generic.family("no_such_family").unwrap(), None);
        // The socket is good for further questions.
        assert_eq!(generic.family("nlctrl").unwrap(), Some(CONTROL));
    }

    #[test]
    fn attributes_are_found_again() {
        let inner = [attribute(1, &7u32.to_ne_bytes()), attribute(2, b"odd")].concat();
        let bytes = [nest(3, &inner), attribute(4, &9u64.to_ne_bytes())].concat();
        let nested = find(&bytes, 3).unwrap();
        assert_eq!(find(nested, 1).and_then(u32_of), Some(7));
        assert_eq!(find(nested, 2), Some(&b"odd"[..]));
        assert_eq!(find(&bytes, 4).and_then(u64_of), Some(9));
        assert_eq!((find(&bytes, 5), find(&bytes, 4).and_then(u32_of)), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = (answer(&bytes, 1), acknowledged(&bytes, 1), reason(&bytes));
            for (_, value) in all(&bytes) {
                prop_assert!(value.len() < bytes.len());
            }
        }

        /// A message cut off anywhere is an error or nothing, and never something else.
        #[test]
        fn cut_messages_are_not_answers(cut in 0usize..48, word: u32) {
            let payload = Message {
                family: 30,
                command: 1,
                attributes: [attribute(1, &word.to_ne_bytes()), attribute(2, b"abcdefgh")].concat(),
            };
            let mut header = NetlinkHeader::default();
            header.sequence_number = 5;
            let mut message =
                NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload));
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            let whole = answer(&bytes, 5).unwrap().unwrap();
            prop_assert_eq!(find(&whole, 1).and_then(u32_of), Some(word));
            prop_assert!(answer(&bytes, 6).unwrap().is_none());
            if cut < bytes.len() {
                prop_assert!(!matches!(answer(&bytes[..cut], 5), Ok(Some(_))));
            }
        }
    }
}
