//! Whom a selector finds.

use pointsman_model::NodeName;
use pointsman_model::fleet::{Labels, Selector};

/// What a selector finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// How many nodes it finds.
    pub found: u64,
    /// Of how many.
    pub of: u64,
    /// The first of those found, in the order in which the nodes came.
    pub first: Vec<NodeName>,
}

/// Asks a selector about nodes, and keeps the names of the first `most` that it finds.
pub fn preview<'a>(
    selector: &Selector,
    nodes: impl IntoIterator<Item = (&'a NodeName, &'a Labels)>,
    most: usize,
) -> Preview {
    let mut preview = Preview::default();
    for (node, labels) in nodes {
        preview.of += 1;
        if selector.finds(node, labels) {
            preview.found += 1;
            if preview.first.len() < most {
                preview.first.push(node.clone());
            }
        }
    }
    preview
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_are_named() {
        let nodes: Vec<_> = (0..10).map(|n| NodeName::new(format!("edge-{n}")).unwrap()).collect();
        let labels = Labels::new();
        let asked = |selector: &Selector| preview(selector, nodes.iter().map(|n| (n, &labels)), 3);
        let all = asked(&Selector { all: true, ..Selector::default() });
        assert_eq!((all.found, all.of, &all.first[..]), (10, 10, &nodes[..3]));
        assert_eq!(asked(&Selector::default()), Preview { of: 10, ..Preview::default() });
    }
}
