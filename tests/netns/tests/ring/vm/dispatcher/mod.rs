//! Dispatchers, ours and libxdp's, on one interface.

mod bad;
mod beside;
mod chain_kills;
mod chains;
mod environment;
mod garbage;
mod hostile;
mod kills;
mod kinds;
mod later;
mod lone;
mod looks;
mod lost;
mod mtl;
mod races;
mod repairs;
mod slots;
pub(super) mod sockets;
mod tool;
mod versions;

use pointsman_bpf::dispatcher::Options;
use pointsman_netns::dispatcher::Stage;

/// Takes everything off `v1`.
fn clear(stage: &Stage) {
    stage.here(|d, index| d.remove_all(index, &Options::default())).expect("removed");
}
