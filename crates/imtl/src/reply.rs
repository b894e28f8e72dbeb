//! What is answered.

use crate::layout::{heartbeat, response};
use crate::{Dialect, Record, ReplyError, ReplyKind};

/// What goes back to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// 0: done; below 0: not done.
    Response(i32),
    /// Above 0: the queue; below 0: none.
    QueueId(i32),
    /// Above 0: the location of the rule; below 0: none.
    FlowId(i32),
    /// The number that the heartbeat bore.
    HeartbeatAck(u32),
    /// A byte with the map beside it.
    XskMap,
    /// There is no map, as clients of dialect 1.0 take it: a descriptor of something else.
    ///
    /// libmtl takes the descriptor from control data without looking whether there is any, so a
    /// record, a byte alone and the end of the stream all crash it. Entering a socket into what is
    /// no map fails, and it goes on from there.
    NoXskMapButDescriptor,
    /// There is no map, as clients of dialect 1.1 take it: another byte, with nothing beside it.
    /// They would take any descriptor for success.
    NoXskMap,
}

impl Reply {
    const MAP_BYTE: u8 = b' ';
    const NO_MAP_BYTE: u8 = b'E';

    /// What leaves for it.
    #[must_use]
    pub fn encode(&self) -> Frame {
        let code = |kind, code: i32| {
            let mut record = new(kind);
            response::RESPONSE.write(record.bytes_mut(), code.to_be_bytes());
            Frame::Record(record)
        };
        match *self {
            Self::Response(value) => code(ReplyKind::Response, value),
            Self::QueueId(value) => code(ReplyKind::QueueId, value),
            Self::FlowId(value) => code(ReplyKind::FlowId, value),
            Self::HeartbeatAck(sequence) => {
                let mut record = new(ReplyKind::HeartbeatAck);
                heartbeat::SEQ.write(record.bytes_mut(), sequence.to_be_bytes());
                Frame::Record(record)
            }
            Self::XskMap => byte(Self::MAP_BYTE, Some(Descriptor::XskMap)),
            Self::NoXskMapButDescriptor => byte(Self::MAP_BYTE, Some(Descriptor::Harmless)),
            Self::NoXskMap => byte(Self::NO_MAP_BYTE, None),
        }
    }

    /// Reads a record that a server sent. What is answered by a byte has no record.
    ///
    /// # Errors
    /// [`ReplyError`].
    pub fn decode(record: &Record) -> Result<Self, ReplyError> {
        let number = record.number();
        let kind = ReplyKind::from_number(number).ok_or(ReplyError { found: number })?;
        let code = i32::from_be_bytes(response::RESPONSE.read(record.as_bytes()));
        Ok(match kind {
            ReplyKind::Response => Self::Response(code),
            ReplyKind::QueueId => Self::QueueId(code),
            ReplyKind::FlowId => Self::FlowId(code),
            ReplyKind::HeartbeatAck => {
                let sequence = heartbeat::SEQ.read(record.as_bytes());
                Self::HeartbeatAck(u32::from_be_bytes(sequence))
            }
        })
    }
}

fn new(kind: ReplyKind) -> Record {
    Record::new(kind.number(), ReplyKind::BODY_BYTES.to_be_bytes())
}

const fn byte(byte: u8, descriptor: Option<Descriptor>) -> Frame {
    Frame::Byte { byte: [byte], descriptor }
}

/// Bytes that have to leave in one `sendmsg`, with what goes beside them.
///
/// libmtl receives once and takes what it got for the whole: of a record that comes in two pieces
/// it may read "done", and from then on it is out of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A record.
    Record(Record),
    /// One byte: a second one would be taken for the start of the next reply.
    Byte {
        /// The byte.
        byte: [u8; 1],
        /// What travels beside it as `SCM_RIGHTS`; `None`: no control data.
        descriptor: Option<Descriptor>,
    },
}

impl Frame {
    /// The bytes.
    #[must_use]
    pub const fn data(&self) -> &[u8] {
        match self {
            Self::Record(record) => record.as_bytes(),
            Self::Byte { byte, .. } => byte,
        }
    }

    /// The descriptor that goes with them.
    #[must_use]
    pub const fn descriptor(&self) -> Option<Descriptor> {
        match self {
            Self::Record(_) => None,
            Self::Byte { descriptor, .. } => *descriptor,
        }
    }
}

/// Which descriptor. Whoever sends has it, or opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    /// The XSKMAP of the interface that was asked about.
    XskMap,
    /// One that lets nobody do anything, and is no map: `/dev/null`.
    Harmless,
}

/// Why something is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not registered, or without the right to it. `EPERM`.
    NotPermitted,
    /// It could not be done. `EIO`.
    Failed,
    /// Somebody else has it. `EBUSY`.
    Busy,
    /// There is no such interface. `ENODEV`.
    NoInterface,
    /// There is no such thing, or the client does not hold it. `EINVAL`.
    Invalid,
    /// None is left, or the client has as many as it may. `ENOSPC`.
    Exhausted,
    /// Not here. `EOPNOTSUPP`, which Linux has for `ENOTSUP` too.
    Unsupported,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NotPermitted,
        Self::Failed,
        Self::Busy,
        Self::NoInterface,
        Self::Invalid,
        Self::Exhausted,
        Self::Unsupported,
    ];

    /// What `response` says. The manager of dialect 1.0 has -1 for everything, and so has this as
    /// long as the dialect is not known; 1.1 has the negative errno (`asm-generic/errno.h`).
    #[must_use]
    pub const fn code(self, dialect: Option<Dialect>) -> i32 {
        match dialect {
            Some(Dialect::V1_1) => -self.errno(),
            Some(Dialect::V1_0) | None => -1,
        }
    }

    const fn errno(self) -> i32 {
        match self {
            Self::NotPermitted => 1,
            Self::Failed => 5,
            Self::Busy => 16,
            Self::NoInterface => 19,
            Self::Invalid => 22,
            Self::Exhausted => 28,
            Self::Unsupported => 95,
        }
    }
}
