//! Flow rules on cards: put where nobody else's is, taken away again, found again after a crash.
//!
//! A rule that is not ours is never touched: ours are known by where they are *and* what they say.

use super::footprints::{Footprints, Rule};
use pointsman_lease::Why;
use pointsman_model::flow::{FlowRequest, FlowRule, QueueRights, check_flow};
use pointsman_model::lease::Place;
use pointsman_netdev::{Control, ControlError, Ethtool, Namespace};
use pointsman_plan::nic::{
    MadeRule, Queues, RuleChanges, RuleTable, locations, placed, rule_changes,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How many places in a table are tried: drivers say no for reasons of their own.
const TRIES: usize = 4;

/// The highest location that clients of the MTL Manager's protocol can be told.
const HIGHEST: u32 = i32::MAX as u32;

/// Which queues a client may send packets to.
#[derive(Debug, Clone)]
pub(in crate::leases) enum Rights {
    /// Those that it holds.
    Held(BTreeSet<u32>),
    /// All but these and the first.
    AllBut(BTreeSet<u32>),
}

/// Runs `work` in the network namespace of a file; `None`: here.
pub(super) fn inside<T: Send>(
    namespace: Option<&Path>,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    match namespace {
        None => work(),
        Some(path) => {
            let entered = Namespace::open(path).and_then(|namespace| namespace.enter(work));
            entered.map_err(|error| error.to_string())?
        }
    }
}

/// How many queues an interface has.
pub(super) fn queues(index: u32) -> Result<Queues, String> {
    let mut ethtool = Ethtool::open().map_err(|error| error.to_string())?;
    let queues = Queues::of(ethtool.channels(index).as_ref());
    // Flow rules count them by themselves, where the driver knows none by the other name.
    let rings = Control::of_index(index).and_then(|card| card.receive_queues());
    Ok(match rings {
        Ok(receive) if queues.receive <= 1 => Queues { receive: receive.max(1), ..queues },
        _ => queues,
    })
}

/// Makes a rule for an instance; where it is then, and what it says. `reserve`: the queues that
/// instances may have at all; `None`: all but the first.
pub(super) fn add(
    footprints: &mut Footprints,
    place: &Place,
    namespace: Option<&Path>,
    request: &FlowRequest,
    rights: &Rights,
    reserve: Option<&BTreeSet<u32>>,
) -> Result<(u32, FlowRule), Why> {
    let failed = |what: String| Why::CardFailed { what };
    let queues = inside(namespace, || queues(place.index)).map_err(failed)?;
    let held = match rights {
        Rights::Held(held) => held.clone(),
        Rights::AllBut(not) => {
            // Of those beyond any map of sockets nobody could take packets.
            let most = queues.receive.min(pointsman_bpf::sockets::QUEUES);
            let may = |queue: &u32| {
                !not.contains(queue) && reserve.is_none_or(|reserve| reserve.contains(queue))
            };
            (1..most).filter(may).collect()
        }
    };
    let rule = check_flow(request, queues.receive, QueueRights::Held(&held))
        .map_err(|problem| Why::BadRequest { what: problem.to_string() })?;
    let noted = Rule {
        place: place.clone(),
        namespace: namespace.map(Path::to_owned),
        location: None,
        before: BTreeSet::new(),
        rule,
        document: false,
    };
    Ok((put(footprints, &noted)?, rule))
}

/// Makes a rule where there is none; where it is then.
pub(super) fn put(footprints: &mut Footprints, rule: &Rule) -> Result<u32, Why> {
    let failed = |what: String| Why::CardFailed { what };
    let table = inside(rule.namespace.as_deref(), || {
        let card = Control::of_index(rule.place.index).map_err(|error| error.to_string())?;
        card.flow_table().map_err(|error| error.to_string())
    });
    let table = table.map_err(failed)?;
    let table = RuleTable {
        size: table.size,
        chooses_location: table.chooses_location,
        taken: table.locations.into_iter().collect(),
    };
    let mut last = Why::TableFull;
    for location in locations(&table).take(TRIES) {
        // Where the driver chooses, only this tells ours from one that says the same.
        let before = if location.is_none() { table.taken.clone() } else { BTreeSet::new() };
        let noted = Rule { location, before, ..rule.clone() };
        footprints.add_rule(noted.clone()).map_err(failed)?;
        match insert(&noted) {
            Ok(found) => {
                let noted = footprints.placed(&noted, found).map_err(failed)?;
                if rule.document || (1..=HIGHEST).contains(&found) {
                    return Ok(found);
                }
                // Nobody could be told.
                remove(footprints, &noted).map_err(failed)?;
                last = failed(format!("the driver put the rule at location {found}"));
            }
            Err(error) => {
                footprints.remove_rule(&noted).map_err(failed)?;
                last = error;
                // That is so at every other place too.
                if last == Why::RuleExists {
                    break;
                }
            }
        }
    }
    Err(last)
}

/// Takes the operator's rules off a card that the document does not want any more; those that it
/// wants and that are not there.
pub(super) fn tidy(
    footprints: &mut Footprints,
    place: &Place,
    namespace: Option<&Path>,
    wanted: &[FlowRule],
) -> Result<Vec<FlowRule>, String> {
    let ours = footprints.rules().iter().filter(|it| it.document && it.place == *place);
    let ours: Vec<Rule> = ours.cloned().collect();
    if ours.is_empty() && wanted.is_empty() {
        return Ok(Vec::new());
    }
    let there = inside(namespace, || {
        let card = match Control::of_index(place.index) {
            Ok(card) => card,
            // With the interface went its rules.
            Err(ControlError::NoInterface { .. }) => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.to_string()),
        };
        let listed = card.flow_rules().map_err(|error| error.to_string())?;
        Ok(listed.into_iter().map(|it| (it.location, it.rule)).collect())
    })?;
    let made: Vec<_> =
        ours.iter().map(|it| MadeRule { location: it.location, rule: it.rule }).collect();
    let RuleChanges { remove: gone, forget, add } = rule_changes(wanted, &made, &there);
    for number in forget {
        let noted = &ours[number];
        if let Some(location) = noted.location.filter(|location| there.contains_key(location)) {
            tracing::warn!(
                "{place}: the document's flow rule at location {location} is not ours any more: it \
                 stays, and was to be: {}",
                noted.rule
            );
        }
        footprints.remove_rule(noted)?;
    }
    for number in gone {
        remove(footprints, &ours[number])?;
    }
    Ok(add)
}

fn insert(noted: &Rule) -> Result<u32, Why> {
    let Rule { place, namespace, location, rule, before: _, document: _ } = noted;
    let inserted = inside(namespace.as_deref(), || {
        let card = Control::of_index(place.index).map_err(|error| error.to_string())?;
        Ok(card.insert_flow_rule(rule, *location))
    });
    match inserted.map_err(|what| Why::CardFailed { what })? {
        Ok(found) => Ok(found),
        Err(ControlError::TableFull { .. }) => Err(Why::TableFull),
        Err(ControlError::Exists { .. }) => Err(Why::RuleExists),
        Err(error) => Err(Why::CardFailed { what: error.to_string() }),
    }
}

/// Takes a rule of ours away. One that is there and says something else is somebody else's.
pub(super) fn remove(footprints: &mut Footprints, noted: &Rule) -> Result<(), String> {
    let Rule { place, namespace, location, before, rule, document: _ } = noted;
    inside(namespace.as_deref(), || {
        let card = match Control::of_index(place.index) {
            Ok(card) => card,
            // With the interface went its rules.
            Err(ControlError::NoInterface { .. }) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let location = match location {
            Some(location) => Some(*location),
            // It is where the driver put it, if it came so far.
            None => {
                let rules = card.flow_rules().map_err(|error| error.to_string())?;
                placed(rules.into_iter().map(|it| (it.location, it.rule)), rule, before)
            }
        };
        let Some(location) = location else { return Ok(()) };
        match card.flow_rule(location) {
            Ok(listed) if listed.rule == Some(*rule) => {
                card.delete_flow_rule(location).map_err(|error| error.to_string())
            }
            Ok(listed) => {
                let interface = card.interface();
                let said = listed.rule.map_or_else(|| "something else".into(), |it| it.to_string());
                tracing::warn!(
                    "{interface}: the flow rule at location {location} is not ours any more ({said}): \
                     it stays"
                );
                Ok(())
            }
            Err(ControlError::NoRule { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })?;
    footprints.remove_rule(noted)
}

/// After a start: takes away what nobody owns, and makes what somebody owns and is not there.
pub(super) fn sweep(
    footprints: &mut Footprints,
    owned: &BTreeMap<Place, BTreeMap<u32, FlowRule>>,
) -> Result<(), String> {
    let is_owned = |noted: &Rule| {
        let owned = noted.location.and_then(|location| owned.get(&noted.place)?.get(&location));
        owned == Some(&noted.rule)
    };
    // Those of the document are for it to say.
    let all = footprints.rules().iter().filter(|rule| !rule.document).cloned();
    let (kept, left): (Vec<_>, Vec<_>) = all.partition(is_owned);
    let mut failures = Vec::new();
    for noted in left {
        if let Err(why) = remove(footprints, &noted) {
            failures.push(why);
        }
    }
    for noted in kept {
        let Some(location) = noted.location else { continue };
        let there = inside(noted.namespace.as_deref(), || {
            let card = Control::of_index(noted.place.index).map_err(|e| e.to_string())?;
            match card.flow_rule(location) {
                Ok(_) => Ok(true),
                Err(ControlError::NoRule { .. }) => Ok(false),
                Err(error) => Err(error.to_string()),
            }
        });
        match there {
            Ok(true) => {}
            Ok(false) => {
                if let Err(why) = insert(&noted) {
                    failures.push(why.to_string());
                }
            }
            Err(why) => failures.push(why),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}
