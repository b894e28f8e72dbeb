//! What the document says of the host as a whole: its lcores, and who may have them.

use super::strict::Fields;
use super::{DocumentError, error};
use crate::cpu::{CpuSet, MAX_CPUS};
use crate::lease::{DEFAULT_LCORE_LIMIT, LcoreIds, MAX_LCORE_LIMIT};
use serde::Deserialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// The lcores of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LcoresSpec {
    /// CPUs that no instance gets.
    pub reserve: CpuSet,
    /// What ids of clients mean.
    pub lcore_ids: LcoreIds,
    /// Ids are below this.
    pub limit: u32,
}

impl Default for LcoresSpec {
    fn default() -> Self {
        let limit = DEFAULT_LCORE_LIMIT;
        Self { reserve: CpuSet::default(), lcore_ids: LcoreIds::Auto, limit }
    }
}

/// Who may do what with instances and their lcores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessSpec {
    /// Who may hold something; `None`: whoever may open the socket.
    pub clients: Option<People>,
    /// Who may take something from others, beside root; `None`: whoever may open the node's
    /// socket.
    pub administrators: Option<People>,
}

/// Users and groups, by number: the daemon looks up no names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct People {
    /// User ids.
    pub users: BTreeSet<u32>,
    /// Group ids.
    pub groups: BTreeSet<u32>,
}

impl People {
    /// Whether somebody with these ids is one of them.
    #[must_use]
    pub fn include(&self, uid: u32, groups: &[u32]) -> bool {
        self.users.contains(&uid) || groups.iter().any(|gid| self.groups.contains(gid))
    }
}

/// The lcores that instances lease.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Lcores)]
pub(super) struct RawLcores {
    /// CPUs that no instance gets, by number. What an instance holds already stays with it.
    #[serde(default)]
    reserve: Vec<u32>,
    /// What an lcore id of a client means: a CPU, a place in the client's cpuset, or whichever of
    /// the two it shows.
    #[serde(default)]
    #[schema(default = "auto")]
    lcore_ids: LcoreIds,
    /// Lcore ids are below this.
    #[serde(default = "default_limit")]
    #[schema(default = 1024, minimum = 1, maximum = 65536)]
    limit: u32,
}

fn default_limit() -> u32 {
    DEFAULT_LCORE_LIMIT
}

/// Who may do what with instances and their lcores. Root may do everything.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Access)]
pub(super) struct RawAccess {
    /// Who may hold something. Left out: whoever may open the socket of instances.
    #[schema(value_type = Option<RawPeople>)]
    clients: Option<Fields<RawPeople>>,
    /// Who may take something from others. Left out: whoever may open the node's socket.
    #[schema(value_type = Option<RawPeople>)]
    administrators: Option<Fields<RawPeople>>,
}

/// Users and groups, by number.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = People)]
pub(super) struct RawPeople {
    /// User ids.
    #[serde(default)]
    users: BTreeSet<u32>,
    /// Group ids; supplementary groups count.
    #[serde(default)]
    groups: BTreeSet<u32>,
}

impl From<RawPeople> for People {
    fn from(RawPeople { users, groups }: RawPeople) -> Self {
        Self { users, groups }
    }
}

impl From<RawAccess> for AccessSpec {
    fn from(RawAccess { clients, administrators }: RawAccess) -> Self {
        let people = |people: Option<Fields<RawPeople>>| people.map(|Fields(people)| people.into());
        Self { clients: people(clients), administrators: people(administrators) }
    }
}

pub(super) fn check_lcores(raw: RawLcores, errors: &mut Vec<DocumentError>) -> LcoresSpec {
    let RawLcores { reserve, lcore_ids, limit } = raw;
    for (at, cpu) in reserve.iter().enumerate().filter(|(_, cpu)| **cpu >= MAX_CPUS) {
        let message = format!("expected the number of a CPU, below {MAX_CPUS}, found {cpu}");
        errors.push(error(&format!("/lcores/reserve/{at}"), message));
    }
    if !(1..=MAX_LCORE_LIMIT).contains(&limit) {
        let message = format!("expected a number from 1 to {MAX_LCORE_LIMIT}, found {limit}");
        errors.push(error("/lcores/limit", message));
    }
    LcoresSpec { reserve: reserve.into_iter().collect(), lcore_ids, limit }
}

#[cfg(test)]
mod tests {
    use super::super::Document;
    use super::*;
    use serde_json::{Value, json};

    fn parse(lcores: &Value, access: &Value) -> Result<Document, Vec<DocumentError>> {
        let text = json!({"schema": "pointsman.node/v1", "node": "n", "generation": 1,
                          "lcores": lcores, "access": access});
        Document::parse(text.to_string().as_bytes())
    }

    #[test]
    fn lcores_and_people_are_read_with_their_defaults() {
        let none = parse(&json!({}), &json!({})).unwrap();
        assert_eq!((none.lcores, none.access), (LcoresSpec::default(), AccessSpec::default()));
        let some = parse(
            &json!({"reserve": [1, 0, 9], "lcore_ids": "remapped", "limit": 65536}),
            &json!({"clients": {"users": [1000], "groups": [44]}, "administrators": {}}),
        );
        let some = some.unwrap();
        assert_eq!(some.lcores.reserve.to_string(), "0-1,9");
        assert_eq!((some.lcores.lcore_ids, some.lcores.limit), (LcoreIds::Remapped, 65536));
        let clients = some.access.clients.unwrap();
        assert!(clients.include(1000, &[]) && clients.include(1, &[7, 44]));
        assert!(!clients.include(1, &[1000]) && !clients.include(44, &[]));
        assert!(!some.access.administrators.unwrap().include(1000, &[44]));
    }

    #[test]
    fn what_cannot_be_is_named_with_its_place() {
        let errors = parse(&json!({"reserve": [3, 8192], "limit": 0}), &json!({})).unwrap_err();
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "/lcores/reserve/1: expected the number of a CPU, below 8192, found 8192",
                "/lcores/limit: expected a number from 1 to 65536, found 0",
            ]
        );
        for (lcores, access, pointer) in [
            (json!({"lcore_ids": "guess"}), json!({}), "/lcores/lcore_ids"),
            (json!({"reserve": "0-3"}), json!({}), "/lcores/reserve"),
            (json!({"reserved": []}), json!({}), "/lcores"),
            (json!([]), json!({}), "/lcores"),
            (json!({}), json!({"clients": {"users": ["root"]}}), "/access/clients/users/0"),
        ] {
            let [error] = &parse(&lcores, &access).unwrap_err()[..] else { panic!("{pointer}") };
            assert!(error.pointer.starts_with(pointer), "{error}");
        }
    }
}
