//! `xdp-loader modify`: what the original has no command for.

use super::load::parse_actions;
use super::options::{Bad, Matches};
use super::{End, complain, environment, interface, strerror};
use pointsman_bpf::dispatcher::{Lone, Options};

pub(super) fn run(matches: &Matches<'_>) -> Result<End, Bad> {
    let Some(id) = matches.number("id")? else { return Err(Bad::request("Need prog ID")) };
    let priority = matches.number("prio")?;
    let actions = matches.value("actions").map(parse_actions).transpose()?;
    if priority.is_none() && actions.is_none() {
        return Err(Bad::request("Need --prio or --actions"));
    }
    let device = matches.operands[0];
    let index = interface(device)?;
    let options = Options { lone: Lone::AsLibxdp, ..Options::default() };
    let changed = environment::dispatcher().reprioritise(index, &options, id, priority, actions);
    let Err(error) = changed else { return Ok(End::Done) };
    complain(&format!(" libxdp: {error}"));
    complain(&format!(
        "Couldn't modify XDP program on iface '{device}': {}(-{})",
        strerror(error.errno()),
        error.errno()
    ));
    Ok(End::Error(error.errno()))
}
