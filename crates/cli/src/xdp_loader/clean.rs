//! `xdp-loader clean`.

use super::options::{Bad, Matches};
use super::{End, complain, environment, interface, say, strerror};
use pointsman_bpf::pins::is_bpffs;

const ENOENT: i32 = 2;

pub(super) fn run(matches: &Matches<'_>) -> Result<End, Bad> {
    let device = matches.operands.first().copied();
    let index = device.map(interface).transpose()?;
    say(&format!(
        "Cleaning up detached XDP program links for {}\n",
        device.unwrap_or("all interfaces")
    ));
    let bpffs = environment::bpffs();
    let dispatcher = environment::dispatcher();
    if !is_bpffs(&bpffs).unwrap_or(false) {
        complain(&format!(" libxdp: No bpffs found at {}", bpffs.display()));
        return Ok(End::Error(ENOENT));
    }
    let cleaned = match dispatcher.clean(index) {
        Ok(cleaned) => cleaned,
        Err(error) => {
            complain(&format!(" libxdp: {error}"));
            complain(&format!("Error: {}", strerror(error.errno())));
            return Ok(End::Error(error.errno()));
        }
    };
    if matches.has("verbose") {
        cleaned.removed.iter().for_each(|name| complain(&format!("Removed {name}")));
        for name in &cleaned.elsewhere {
            complain(&format!("Kept {name}: it runs in another network namespace"));
        }
    }
    Ok(End::Done)
}
