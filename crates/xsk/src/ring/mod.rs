//! Rings that one side fills and the other empties, each with a counter that only it writes.
//!
//! The kernel is the other side. Counters run freely over 32 bits; a counter modulo the ring's size,
//! a power of two, is the place of an entry (`net/xdp/xsk_queue.h`).

mod index;
#[allow(unsafe_code, reason = "memory that is shared with the kernel")]
mod shared;

pub use index::{ConsumerIndex, ProducerIndex, Slots};
pub(crate) use shared::{Consumer, Descriptor, Kind, Producer};
