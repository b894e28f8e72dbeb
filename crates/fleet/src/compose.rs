//! From policies and labels to the document of a node.

use crate::merge::{Composed, merge};
use crate::{Library, Policies};
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{Labels, PolicySpec, ProgramRef};
use pointsman_model::{NodeName, PolicyName, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

/// Part of every [`Selection::inputs`]. Raised when the same policies make another document.
const EDITION: u32 = 1;

/// How many compositions are kept. In a fleet most nodes share a few.
const MOST_KEPT: usize = 1024;

/// Makes documents of nodes, one after the other. What it made of a set of policies it does not
/// make again for the next node that they select.
#[derive(Debug)]
pub struct Composer {
    policies: Arc<Policies>,
    library: Arc<Library>,
    known: HashMap<Vec<usize>, Known>,
}

type Outcome = Result<Arc<Composed>, Arc<[DocumentError]>>;

#[derive(Debug)]
struct Known {
    inputs: Sha256,
    composed: Option<Outcome>,
}

/// The policies that select one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    places: Vec<usize>,
    /// The hash of all that the node's document depends on but its name: what the policies say,
    /// and which objects their programs are. Equal hashes, equal documents.
    pub inputs: Sha256,
}

impl Composer {
    /// A composer for these policies and programs.
    #[must_use]
    pub fn new(policies: Arc<Policies>, library: Arc<Library>) -> Self {
        Self { policies, library, known: HashMap::new() }
    }

    /// Finds the policies that select a node. Cheap: nothing is composed.
    pub fn select(&mut self, node: &NodeName, labels: &Labels) -> Selection {
        let places = self.policies.selecting(node, labels);
        let inputs = self.known(&places).inputs;
        Selection { places, inputs }
    }

    /// Joins the policies of a selection.
    ///
    /// # Errors
    /// Everything that does not go together, with the place in `/policies/NAME` where it is said.
    pub fn compose(&mut self, selection: &Selection) -> Outcome {
        if let Some(composed) = &self.known(&selection.places).composed {
            return composed.clone();
        }
        let composed = merge(self.policies.at(&selection.places), &self.library);
        let composed: Outcome = composed.map(Arc::new).map_err(Arc::from);
        self.known(&selection.places).composed = Some(composed.clone());
        composed
    }

    fn known(&mut self, places: &[usize]) -> &mut Known {
        if self.known.len() >= MOST_KEPT && !self.known.contains_key(places) {
            self.known.clear();
        }
        let (policies, library) = (&self.policies, &self.library);
        self.known
            .entry(places.to_vec())
            .or_insert_with(|| Known { inputs: inputs(policies, places, library), composed: None })
    }
}

fn inputs(policies: &Policies, places: &[usize], library: &Library) -> Sha256 {
    let mut text = format!("{EDITION}\n");
    for policy in policies.at(places) {
        let _ = writeln!(text, "{}", policy.digest);
        for entry in &policy.spec.chain {
            if let ProgramRef::Library(name) = &entry.program {
                let object = library.find(name).map(|object| object.sha256.to_string());
                let _ = writeln!(text, "{name} {}", object.unwrap_or_default());
            }
        }
    }
    Sha256::of(text.as_bytes())
}

/// Makes the document of one node: all policies that select it become one.
///
/// Entries for the same interface become one chain, ordered by priority. Programs that policies
/// call by the same name on nodes are the same program, or an error. An engine, a mode or a drift
/// policy that one policy leaves out is decided by the others; they must agree.
///
/// # Errors
/// Everything that does not go together, with the place in `/policies/NAME` where it is said. No
/// part of a document is made then: the node keeps the whole of what it has.
pub fn compose(
    node: &NodeName,
    labels: &Labels,
    policies: BTreeMap<PolicyName, PolicySpec>,
    library: &Library,
) -> Result<Composed, Vec<DocumentError>> {
    let policies = Policies::new(policies);
    merge(policies.of_node(node, labels).into_iter(), library)
}
