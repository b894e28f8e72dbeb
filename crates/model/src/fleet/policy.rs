//! Policies: which chain runs where.

use super::Labels;
use crate::document::{DriftPolicy, Engine, Mode, OnUpgrade, SlotChoice};
use crate::{ActionSet, EntryName, InterfaceId, MapName, NodeName, PolicyName, ProgramName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// A policy as the control plane keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PolicyName,
    /// Rises with every change; the resource's entity tag.
    pub revision: u64,
    /// When it was changed last, in milliseconds since the Unix epoch.
    pub updated_unix_ms: u64,
    /// Who changed it last: the name of a token.
    pub updated_by: String,
    /// What it says.
    pub spec: PolicySpec,
}

/// What a policy says: a chain for one interface of every node that the selector finds.
///
/// Several policies may speak of the same interface of a node: their entries become one chain,
/// ordered by priority.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `false`: as if it were not there, but kept.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub enabled: bool,
    /// The nodes that it is for.
    pub selector: Selector,
    /// The interface: `NAME`, or `NAMESPACE/NAME`.
    #[schema(value_type = String)]
    pub interface: InterfaceId,
    /// How several programs become one. Left out: other policies for the same interface decide,
    /// else `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Where in the receive path the chain is attached. Left out: as for `engine`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What happens when somebody else changes what is ours. Left out: as for `engine`, else
    /// `repair`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftPolicy>,
    /// The programs. `priority` orders them, not their place in this list. An empty list keeps an
    /// empty program attached.
    pub chain: Vec<PolicyEntry>,
}

/// The nodes that a policy is for: those that fit all parts that are given. At least one part must
/// be: an empty selector is more often an accident than a decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// `true`: every node of the fleet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Labels that a node must have, with these values.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// Names, one of which the node must have; empty: any.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub nodes: BTreeSet<NodeName>,
}

/// One program's place in a policy's chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// The program: its name in the fleet's library, or `builtin:NAME`.
    #[schema(value_type = String)]
    pub program: ProgramRef,
    /// What the nodes call it: counters and maps belong to this name. Left out: the program's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<ProgramName>,
    /// The function where it starts; left out: the object's only XDP program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub entry: Option<EntryName>,
    /// Ascending: the lowest runs first.
    #[serde(default = "priority")]
    #[schema(default = 50)]
    pub priority: u32,
    /// The verdicts after which the next program runs.
    #[serde(default)]
    #[schema(default = json!(["pass"]))]
    pub chain_call_actions: ActionSet,
    /// `false` observes: the verdict is counted and the chain always goes on.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub enforce: bool,
    /// Whether it shares a slot of a dispatcher with its neighbours.
    #[serde(default)]
    #[schema(default = "shared")]
    pub slot: SlotChoice,
    /// Values of global variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub globals: BTreeMap<String, Value>,
    /// Contents of maps, and what an upgrade does with them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, PolicyMap>)]
    pub maps: BTreeMap<MapName, PolicyMap>,
}

/// A program of the fleet's library by its name, or one that comes with Pointsman as
/// `builtin:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProgramRef {
    /// Uploaded.
    Library(ProgramName),
    /// Built in.
    Builtin(crate::document::Builtin),
}

/// The contents of a map, and what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyMap {
    /// All entries of the map: objects with `key` and `value`. Left out: its contents are left
    /// alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<PolicyMapEntry>>,
    /// What an upgrade of the program does with the map. Left out: `keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_upgrade: Option<OnUpgrade>,
}

/// One entry of a map, typed by the map's BTF on the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyMapEntry {
    /// The key.
    pub key: Value,
    /// The value.
    pub value: Value,
}

/// What a policy would change, were it saved and published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyDiff {
    /// The policy itself, from as it is kept to as it is proposed.
    pub policy: String,
    /// The nodes whose documents would change, each with its difference or why it cannot be made.
    pub nodes: Vec<super::NodeChange>,
}

const BUILTIN: &str = "builtin:";

impl TryFrom<String> for ProgramRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some(name) = text.strip_prefix(BUILTIN) else {
            return ProgramName::new(text).map(Self::Library).map_err(|error| error.to_string());
        };
        let known = crate::document::Builtin::ALL;
        known.into_iter().find(|builtin| builtin.name() == name).map(Self::Builtin).ok_or_else(
            || {
                let names = known.map(|builtin| format!("{BUILTIN}{builtin}")).join(", ");
                format!("{text:?} is not built in; expected one of {names}")
            },
        )
    }
}

impl From<ProgramRef> for String {
    fn from(program: ProgramRef) -> Self {
        program.to_string()
    }
}

impl std::fmt::Display for ProgramRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Library(name) => write!(f, "{name}"),
            Self::Builtin(builtin) => write!(f, "{BUILTIN}{builtin}"),
        }
    }
}

impl Selector {
    /// Whether no part is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.labels.is_empty() && self.nodes.is_empty()
    }

    /// Whether it finds a node of this name with these labels. An empty one finds none.
    #[must_use]
    pub fn finds(&self, node: &NodeName, labels: &Labels) -> bool {
        !self.is_empty()
            && (self.nodes.is_empty() || self.nodes.contains(node))
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl PolicyEntry {
    /// What the nodes call the program.
    #[must_use]
    pub fn name_on_nodes(&self) -> ProgramName {
        self.name.clone().unwrap_or_else(|| match &self.program {
            ProgramRef::Library(name) => name.clone(),
            ProgramRef::Builtin(builtin) => ProgramName::new(builtin.name())
                .expect("invariant: names of built-in programs are program names"),
        })
    }
}

fn yes() -> bool {
    true
}

/// The orchestrator's default, the same as the node document's.
fn priority() -> u32 {
    50
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelKey, LabelValue};
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pair = |&(key, value): &(&str, &str)| {
            (LabelKey::new(key).unwrap(), LabelValue::new(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_selector_finds_what_fits_all_its_parts_and_an_empty_one_nothing() {
        let node = NodeName::new("edge-1").unwrap();
        let has = labels(&[("site", "fra"), ("role", "edge")]);
        let finds = |value| serde_json::from_value::<Selector>(value).unwrap().finds(&node, &has);
        assert!(!finds(json!({})));
        assert!(finds(json!({"all": true})));
        assert!(finds(json!({"labels": {"site": "fra"}})));
        assert!(finds(json!({"labels": {"site": "fra", "role": "edge"}, "nodes": ["edge-1"]})));
        assert!(!finds(json!({"labels": {"site": "ams"}})));
        assert!(!finds(json!({"all": true, "labels": {"tier": "1"}})));
        assert!(!finds(json!({"all": true, "nodes": ["edge-2"]})));
    }

    #[test]
    fn what_is_omitted_comes_from_the_orchestrator() {
        let spec = json!({"selector": {"all": true}, "interface": "eth0",
                          "chain": [{"program": "builtin:counting-pass"}, {"program": "ddos"}]});
        let spec: PolicySpec = serde_json::from_value(spec).unwrap();
        assert!(spec.enabled);
        let [counter, ddos] = &spec.chain[..] else { panic!() };
        assert_eq!((counter.priority, counter.enforce), (50, true));
        assert_eq!(counter.chain_call_actions, ActionSet::default());
        assert_eq!(counter.name_on_nodes().as_str(), "counting-pass");
        assert_eq!(ddos.name_on_nodes().as_str(), "ddos");
    }

    #[test]
    fn unknown_fields_and_programs_are_named() {
        let wrong = [
            (json!({"selector": {}, "interface": "e", "chain": [], "x": 1}), "unknown field `x`"),
            (
                json!({"selector": {}, "interface": "e", "chain": [{"program": "builtin:no"}]}),
                "builtin:udp-port-filter",
            ),
            (
                json!({"selector": {}, "interface": "e", "chain": [{"program": "../x"}]}),
                "program name",
            ),
        ];
        for (value, expected) in wrong {
            let error = serde_json::from_value::<PolicySpec>(value).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
