//! Dispatchers, ours and libxdp's, on one interface.

mod bad;
mod beside;
mod environment;
mod kills;
mod later;
mod races;
mod slots;
mod sockets;
mod tool;
mod versions;
