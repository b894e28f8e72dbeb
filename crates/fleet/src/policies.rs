//! All policies of a fleet, and which of them select a node.

use pointsman_model::fleet::{Labels, PolicySpec};
use pointsman_model::{LabelKey, LabelValue, NodeName, PolicyName, Sha256};
use std::collections::BTreeMap;

/// A policy by its name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedPolicy {
    /// Its name.
    pub name: PolicyName,
    /// What it says.
    pub spec: PolicySpec,
    /// The hash of the two, as far as a document depends on it.
    pub(crate) digest: Sha256,
}

/// The enabled policies of a fleet, ordered by name and found by what their selectors ask for: a
/// policy that names its nodes costs the others nothing.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    all: Vec<NamedPolicy>,
    /// Places in `all` of those that name nodes.
    by_node: BTreeMap<NodeName, Vec<usize>>,
    /// Of those that name none, by the first label that they ask for.
    by_label: BTreeMap<LabelKey, BTreeMap<LabelValue, Vec<usize>>>,
    /// Of the rest.
    everywhere: Vec<usize>,
}

impl Policies {
    /// Takes the policies, which may come in any order. Those that are not enabled are as if they
    /// were not there.
    #[must_use]
    pub fn new(policies: BTreeMap<PolicyName, PolicySpec>) -> Self {
        let mut this = Self::default();
        for (place, (name, spec)) in
            policies.into_iter().filter(|(_, spec)| spec.enabled).enumerate()
        {
            if !spec.selector.nodes.is_empty() {
                for node in &spec.selector.nodes {
                    this.by_node.entry(node.clone()).or_default().push(place);
                }
            } else if let Some((key, value)) = spec.selector.labels.first_key_value() {
                let values = this.by_label.entry(key.clone()).or_default();
                values.entry(value.clone()).or_default().push(place);
            } else {
                this.everywhere.push(place);
            }
            let digest = digest(&name, &spec);
            this.all.push(NamedPolicy { name, spec, digest });
        }
        this
    }

    /// The policies at these places.
    pub(crate) fn at<'a>(
        &'a self,
        places: &'a [usize],
    ) -> impl Iterator<Item = &'a NamedPolicy> + Clone + 'a {
        places.iter().map(|&place| &self.all[place])
    }

    /// The places of the policies that select a node, ascending.
    pub(crate) fn selecting(&self, node: &NodeName, labels: &Labels) -> Vec<usize> {
        let by_node = self.by_node.get(node).into_iter();
        let by_label = labels.iter().filter_map(|(key, value)| self.by_label.get(key)?.get(value));
        let mut places: Vec<usize> = by_node
            .chain(by_label)
            .chain([&self.everywhere])
            .flatten()
            .copied()
            .filter(|&place| self.all[place].spec.selector.finds(node, labels))
            .collect();
        places.sort_unstable();
        places
    }

    /// The policies that select a node, ordered by name.
    #[must_use]
    pub fn of_node(&self, node: &NodeName, labels: &Labels) -> Vec<&NamedPolicy> {
        self.selecting(node, labels).into_iter().map(|place| &self.all[place]).collect()
    }
}

fn digest(name: &PolicyName, spec: &PolicySpec) -> Sha256 {
    // Exhaustive: a new field must be decided about.
    let PolicySpec {
        description: _,
        enabled: _,
        selector: _,
        interface,
        engine,
        mode,
        drift,
        chain,
    } = spec;
    let text = serde_json::to_string(&(name, interface, engine, mode, drift, chain))
        .expect("invariant: a policy has names as keys and no number that JSON lacks");
    Sha256::of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policies(list: serde_json::Value) -> Policies {
        let specs: BTreeMap<PolicyName, serde_json::Value> = serde_json::from_value(list).unwrap();
        let spec = |(name, selector)| {
            let spec = json!({"selector": selector, "interface": "eth0", "chain": []});
            (name, serde_json::from_value(spec).unwrap())
        };
        Policies::new(specs.into_iter().map(spec).collect())
    }

    #[test]
    fn each_way_to_select_finds_its_nodes() {
        let policies = policies(json!({
            "d-all": {"all": true},
            "c-named": {"nodes": ["edge-1", "edge-2"]},
            "b-named-and-labelled": {"nodes": ["edge-1"], "labels": {"site": "fra"}},
            "a-labelled": {"labels": {"role": "edge", "site": "fra"}},
            "nobody": {},
        }));
        let found = |node: &str, labels: serde_json::Value| {
            let labels: Labels = serde_json::from_value(labels).unwrap();
            let node = NodeName::new(node).unwrap();
            let names = policies.of_node(&node, &labels);
            names.iter().map(|policy| policy.name.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found("edge-1", json!({})), "c-named d-all");
        assert_eq!(
            found("edge-1", json!({"site": "fra", "role": "edge"})),
            "a-labelled b-named-and-labelled c-named d-all"
        );
        assert_eq!(found("edge-2", json!({"site": "fra"})), "c-named d-all");
        assert_eq!(found("edge-3", json!({"role": "core", "site": "fra"})), "d-all");
    }
}
