//! Instances and their lcores.

use super::{Client, ClientError};
use pointsman_model::lease::{ClearReport, Instance, Instances, Lcores};

const INSTANCES: &str = "GET /v1/instances";
const CLEAR: &str = "POST /v1/instances";
const LCORES: &str = "GET /v1/lcores";

/// Whether a request changes the host.
pub(super) fn changes(request: &str) -> bool {
    request == CLEAR
}

impl Client {
    pub(crate) async fn instances(&self) -> Result<Instances, ClientError> {
        self.call(INSTANCES, "", vec![], Some(self.answer_timeout)).await
    }

    pub(crate) async fn instance(&self, id: u64) -> Result<Instance, ClientError> {
        self.call(INSTANCES, &format!("/{id}"), vec![], Some(self.answer_timeout)).await
    }

    /// No timeout: giving up on an answer would not stop the node.
    pub(crate) async fn clear(&self, id: u64) -> Result<ClearReport, ClientError> {
        self.call(CLEAR, &format!("/{id}/clear"), vec![], None).await
    }

    pub(crate) async fn lcores(&self) -> Result<Lcores, ClientError> {
        self.call(LCORES, "", vec![], Some(self.answer_timeout)).await
    }
}
