//! How many queues an interface has, as the document says; and as it was, when that has no word on it
//! any more.

use super::flows::inside;
use super::footprints::{Footprints, Settings};
use super::rss;
use pointsman_model::document::CountsSpec;
use pointsman_model::lease::Place;
use pointsman_netdev::Ethtool;
use pointsman_plan::nic::{Counts, Setting, counts_wanted, leaves_held, setting};
use std::collections::BTreeSet;
use std::path::Path;

/// What is known to have been changed of an interface.
pub(super) fn known(footprints: &Footprints, place: &Place, namespace: Option<&Path>) -> Settings {
    let known = footprints.settings(place).cloned();
    known.unwrap_or_else(|| Settings::none(place.clone(), namespace.map(Path::to_owned)))
}

/// With the interface went what was changed of it.
pub(super) fn forget(footprints: &mut Footprints, place: &Place) -> Result<(), String> {
    footprints.set(Settings::none(place.clone(), None))
}

/// Changes how many queues there are. `highest`: the highest receive queue that somebody holds;
/// `off`: those to which no packet goes without a rule.
pub(super) fn counts(
    footprints: &mut Footprints,
    place: &Place,
    namespace: Option<&Path>,
    spec: &CountsSpec,
    highest: Option<u32>,
    off: &BTreeSet<u32>,
) -> Result<(), String> {
    let mut settings = known(footprints, place, namespace);
    if settings.counts.is_none() && spec.is_empty() {
        return Ok(());
    }
    let channels = inside(namespace, || {
        let mut ethtool = Ethtool::open().map_err(|error| error.to_string())?;
        Ok(ethtool.channels(place.index))
    })?;
    let wanted = match spec.is_empty() {
        true => None,
        false => Some(counts_wanted(spec, channels.as_ref()).map_err(|why| why.to_string())?),
    };
    // It went meanwhile.
    let Some(channels) = channels else { return Ok(()) };
    let now = Counts::of(&channels);
    let Setting { set, known } = setting(settings.counts.as_ref(), &now, wanted.as_ref());
    if let Some(set) = set {
        leaves_held(set, highest).map_err(|why| why.to_string())?;
        let before = settings.clone();
        if known.is_some() {
            settings.counts.clone_from(&known);
            footprints.set(settings.clone())?;
        }
        let ours = footprints.tables().iter().any(|table| table.place == *place);
        if set.receive() < now.receive() && ours {
            // The kernel keeps queues that a table names, and this one is ours.
            let off = off.iter().copied().chain(set.receive()..now.receive()).collect();
            rss::move_off(footprints, place, namespace, &off)?;
        }
        let changed = inside(namespace, || {
            let mut ethtool = Ethtool::open().map_err(|error| error.to_string())?;
            let set = ethtool.set_channels(place.index, set.channels());
            set.map_err(|error| error.to_string())
        });
        if let Err(why) = changed {
            // Nothing was changed. Where that cannot be written down, more is known than is so.
            let _ = footprints.set(before);
            return Err(why);
        }
    }
    settings.counts = known;
    footprints.set(settings)
}
