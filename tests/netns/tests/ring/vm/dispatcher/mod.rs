//! Dispatchers, ours and libxdp's, on one interface.

mod bad;
mod beside;
mod kills;
mod races;
mod slots;
pub(super) mod sockets;
mod tool;
mod versions;
