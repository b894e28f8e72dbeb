//! What a keeper hands to the one that follows it: sockets by way of the service manager's store of
//! descriptors (sd_notify(3), `FDSTORE=1`), and beside them this state. Pure.

use crate::ledger::Ledger;
use crate::link::{Epoch, Kind};
use std::collections::BTreeMap;

/// The format's name and version: a keeper that does not know it starts afresh.
const MAGIC: &[u8; 8] = b"PMKEEP01";

/// The name of the state in the store.
pub(crate) const STATE: &str = "state";

/// How a connection is called in the store.
pub(crate) fn name_of(connection: u64) -> String {
    format!("c{connection}")
}

/// Which connection a name in the store is of.
pub(crate) fn connection_of(name: &str) -> Option<u64> {
    name.strip_prefix('c')?.parse().ok()
}

/// One connection.
#[derive(Debug)]
pub(crate) struct SavedClient<D> {
    pub(crate) kind: Kind,
    /// The client says no more.
    pub(crate) ended: bool,
    pub(crate) ledger: Ledger<D>,
}

/// All that a keeper knows.
#[derive(Debug)]
pub(crate) struct Saved<D> {
    pub(crate) epoch: Epoch,
    /// The last id given.
    pub(crate) last: u64,
    pub(crate) clients: BTreeMap<u64, SavedClient<D>>,
}

/// The head of the state, before the connections.
pub(crate) fn save_head(epoch: Epoch, last: u64) -> Vec<u8> {
    [MAGIC.as_slice(), &epoch.0, &last.to_le_bytes()].concat()
}

/// Adds a connection. False, and nothing added, if what it waits for cannot be written down: then
/// it cannot be handed on.
pub(crate) fn save_client<D>(
    state: &mut Vec<u8>,
    id: u64,
    (kind, ended): (Kind, bool),
    ledger: &Ledger<D>,
) -> bool {
    let before = state.len();
    state.extend_from_slice(&id.to_le_bytes());
    state.push(u8::from(kind == Kind::Native));
    state.push(u8::from(ended));
    let whole = ledger.save(state);
    if !whole {
        state.truncate(before);
    }
    whole
}

/// Reads a state; `None` if it is not one.
pub(crate) fn load<D>(mut state: &[u8]) -> Option<Saved<D>> {
    let state = &mut state;
    if take(state, MAGIC.len())? != MAGIC {
        return None;
    }
    let epoch = Epoch(take(state, 16)?.try_into().ok()?);
    let last = take_number(state)?;
    let mut clients = BTreeMap::new();
    while !state.is_empty() {
        let id = take_number(state)?;
        let kind = if take(state, 1)? == [0] { Kind::Imtl } else { Kind::Native };
        let ended = take(state, 1)? != [0];
        let ledger = Ledger::load(state)?;
        if id == 0 || id > last || clients.insert(id, SavedClient { kind, ended, ledger }).is_some()
        {
            return None;
        }
    }
    Some(Saved { epoch, last, clients })
}

pub(crate) fn take<'a>(from: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}

pub(crate) fn take_number(from: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(from, 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_saved_is_loaded(
            clients in proptest::collection::vec(
                (any::<bool>(), any::<bool>(), 0..1000_usize, 0..8_u64), 0..20,
            )
        ) {
            let last = clients.len() as u64 + 3;
            let mut state = save_head(Epoch([7; 16]), last);
            for (id, (native, ended, bytes, answered)) in (1..).zip(&clients) {
                let kind = if *native { Kind::Native } else { Kind::Imtl };
                let mut ledger = Ledger::<()>::default();
                ledger.feed(&vec![id as u8; *bytes]);
                ledger.told(8);
                for sequence in 1..=*answered {
                    ledger.answer(sequence, vec![9], Vec::new());
                }
                ledger.sent(1);
                prop_assert!(save_client(&mut state, id, (kind, *ended), &ledger));
            }
            let saved = load::<()>(&state).expect("what was saved");
            prop_assert_eq!((saved.epoch, saved.last), (Epoch([7; 16]), last));
            prop_assert_eq!(saved.clients.len(), clients.len());
            let mut again = save_head(saved.epoch, saved.last);
            for (id, client) in &saved.clients {
                save_client(&mut again, *id, (client.kind, client.ended), &client.ledger);
            }
            prop_assert_eq!(again, state);
        }

        #[test]
        fn what_is_cut_or_changed_does_no_harm(
            cut in 0..300_usize, at in 0..300_usize, with in any::<u8>()
        ) {
            let mut state = save_head(Epoch([7; 16]), 2);
            for id in 1..=2 {
                let mut ledger = Ledger::<()>::default();
                ledger.feed(&[5; 130]);
                save_client(&mut state, id, (Kind::Imtl, false), &ledger);
            }
            state.truncate(cut);
            if let Some(byte) = state.get_mut(at) {
                *byte = with;
            }
            let _ = load::<()>(&state);
        }
    }

    #[test]
    fn who_waits_for_a_descriptor_is_not_handed_on() {
        let mut ledger = Ledger::default();
        ledger.ask(vec![1], vec![()]);
        let mut state = save_head(Epoch([0; 16]), 1);
        let before = state.clone();
        assert!(!save_client(&mut state, 1, (Kind::Native, false), &ledger));
        assert_eq!(state, before);
    }
}
