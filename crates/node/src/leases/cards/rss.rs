//! RSS: packets of no rule stay off the queues that somebody holds, or that the document keeps for
//! applications.

use super::flows::{inside, queues};
use super::footprints::{Footprints, Table};
use pointsman_model::lease::Place;
use pointsman_netdev::{Control, ControlError};
use pointsman_plan::nic::{FormerRss, RssTable, rss_table};
use std::collections::BTreeSet;
use std::path::Path;

/// Moves what a card spreads over its queues off those that are `reserved`; without any, gives the
/// table back that was there before. A card without a table has nothing to move.
pub(super) fn move_off(
    footprints: &mut Footprints,
    place: &Place,
    namespace: Option<&Path>,
    reserved: &BTreeSet<u32>,
) -> Result<(), String> {
    let index = place.index;
    let known = footprints.tables().iter().find(|table| table.place == *place).cloned();
    let namespace = match &known {
        Some(known) => known.namespace.clone(),
        None => namespace.map(Path::to_owned),
    };
    if known.is_none() && reserved.is_empty() {
        return Ok(());
    }
    let now = inside(namespace.as_deref(), || {
        let card = match Control::of_index(index) {
            Ok(card) => card,
            Err(ControlError::NoInterface { .. }) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        match card.rss_table() {
            Ok(table) => Ok(Some(FormerRss { table, queues: queues(index)?.receive })),
            Err(ControlError::Unsupported { .. } | ControlError::NoInterface { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    })?;
    let Some(now) = now else {
        // With the interface went its table.
        return if known.is_some() { footprints.remove_table(place) } else { Ok(()) };
    };
    let former = known.as_ref().map_or_else(|| now.clone(), |known| known.former.clone());
    let wanted = rss_table(&former, now.queues, reserved).map_err(|why| why.to_string())?;
    let is_so = match &wanted {
        RssTable::Table(table) => *table == now.table,
        RssTable::Default => now.is_default(),
    };
    if !is_so {
        if known.is_none() {
            let place = place.clone();
            footprints.add_table(Table { place, namespace: namespace.clone(), former })?;
        }
        inside(namespace.as_deref(), || {
            let card = Control::of_index(index).map_err(|error| error.to_string())?;
            let set = match &wanted {
                RssTable::Table(table) => card.set_rss_table(table),
                RssTable::Default => card.reset_rss_table(),
            };
            set.map_err(|error| error.to_string())
        })?;
    }
    if reserved.is_empty() { footprints.remove_table(place) } else { Ok(()) }
}
