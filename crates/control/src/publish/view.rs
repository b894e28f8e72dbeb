//! What the database says at one moment.

use crate::db::{Change, DbError, Moment, RecordState};
use pointsman_fleet::{Library, Policies};
use pointsman_model::fleet::{Labels, LibraryProgram, Policy, PolicySpec, RecordObject};
use pointsman_model::{NodeName, PolicyName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All that a publish depends on.
#[derive(Debug)]
pub(super) struct View {
    /// The policies as they are kept.
    pub(super) specs: BTreeMap<PolicyName, PolicySpec>,
    pub(super) library: Arc<Library>,
    /// Ordered by name.
    pub(super) nodes: Vec<(NodeName, Labels)>,
    /// How far the records have come, also of nodes that left.
    pub(super) states: BTreeMap<NodeName, RecordState>,
}

impl View {
    /// Reads it. Changes take turns, so nothing of it changes meanwhile.
    pub(super) async fn read(change: &mut Change) -> Result<Self, DbError> {
        let policies = change.all_policies().await?;
        let programs = change.all_programs().await?;
        let nodes = change.all_nodes_labels().await?;
        let states = change.record_states().await?;
        Ok(Self::of(policies, programs, nodes, states))
    }

    /// Reads it to look at: what others change meanwhile does not show.
    pub(super) async fn at(mut moment: Moment) -> Result<Self, DbError> {
        let policies = moment.all_policies().await?;
        let programs = moment.all_programs().await?;
        let nodes = moment.all_nodes_labels().await?;
        let states = moment.record_states().await?;
        Ok(Self::of(policies, programs, nodes, states))
    }

    fn of(
        policies: Vec<Policy>,
        programs: Vec<LibraryProgram>,
        nodes: Vec<(NodeName, Labels)>,
        states: Vec<RecordState>,
    ) -> Self {
        let object = |program: LibraryProgram| {
            (program.name, RecordObject { sha256: program.sha256, bytes: program.bytes })
        };
        Self {
            specs: policies.into_iter().map(|policy| (policy.name, policy.spec)).collect(),
            library: Arc::new(programs.into_iter().map(object).collect()),
            nodes,
            states: states.into_iter().map(|state| (state.node.clone(), state)).collect(),
        }
    }

    pub(super) fn policies(&self) -> Arc<Policies> {
        Arc::new(Policies::new(self.specs.clone()))
    }
}
