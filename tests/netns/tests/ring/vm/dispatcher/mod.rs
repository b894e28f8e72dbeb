//! Dispatchers, ours and libxdp's, on one interface.

mod beside;
