//! Dispatchers, ours and libxdp's, on one interface.

mod bad;
mod beside;
mod garbage;
mod hostile;
mod kills;
mod races;
mod repairs;
mod slots;
mod sockets;
mod tool;
mod versions;
