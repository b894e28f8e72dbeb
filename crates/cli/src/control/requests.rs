//! A function per request.

use super::{Call, Control, ControlError, Revision};
use pointsman_model::api::ProblemKind;
use pointsman_model::fleet::{
    AuditEntry, Enrolment, EnrolmentRequest, Labels, LibraryProgram, NewToken, Node, NodeHealth,
    NodeReport, Page, Policy, PolicyDiff, PublishReport, PublishRequest, Role, Snapshot, Token,
    TokenRequest,
};
use pointsman_model::{LabelKey, LabelValue, NodeName, PolicyName, ProgramName, TokenName};
use reqwest::{Body, Method};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// Longer than it takes to compose the documents of many nodes.
const COMPOSE_TIMEOUT: Duration = Duration::from_secs(300);

/// Who one is to the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The fleet, and what its records are signed with.
    #[serde(flatten)]
    pub(crate) signer: Option<Signer>,
}

/// Who signs the records of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signer {
    pub(crate) fleet: String,
    /// The id of the key.
    pub(crate) key_id: String,
    /// The key, in base64.
    pub(crate) public_key: String,
}

/// How publishing stands, as far as the control plane's process has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Publishing {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) success_unix_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<Trouble>,
}

/// Publishing fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    pub(crate) since_unix_ms: u64,
    pub(crate) last_unix_ms: u64,
    pub(crate) times: u64,
    pub(crate) message: String,
}

#[derive(Debug, Serialize)]
struct LabelsOf<'a> {
    labels: &'a Labels,
}

/// `None` where there is no such resource.
fn present<T>(result: Result<T, ControlError>) -> Result<Option<T>, ControlError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is(ProblemKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Control {
    pub(crate) async fn whoami(&self) -> Result<Found, ControlError> {
        self.get(&["v1", "whoami"]).read().await
    }

    /// `None`: the control plane does not tell.
    pub(crate) async fn publishing(&self) -> Result<Option<Publishing>, ControlError> {
        present(self.get(&["v1", "publishing"]).read().await)
    }

    pub(crate) async fn nodes(
        &self,
        labels: &[(LabelKey, LabelValue)],
        health: Option<NodeHealth>,
    ) -> Result<Page<Node>, ControlError> {
        let labels = labels.iter().map(|(key, value)| ("label", format!("{key}={value}")));
        let health = health.map(|health| ("health", health.name().to_owned()));
        let query: Vec<_> = labels.chain(health).collect();
        self.pages(&["v1", "nodes"], &query, usize::MAX).await
    }

    pub(crate) async fn node(&self, name: &NodeName) -> Result<Node, ControlError> {
        self.get(&["v1", "nodes", name.as_str()]).read().await
    }

    /// What a node reported last; `None`: nothing yet.
    pub(crate) async fn report(&self, name: &NodeName) -> Result<Option<NodeReport>, ControlError> {
        present(self.get(&["v1", "nodes", name.as_str(), "status"]).read().await)
    }

    pub(crate) async fn label(
        &self,
        name: &NodeName,
        labels: &Labels,
        revision: u64,
    ) -> Result<Node, ControlError> {
        self.call(Method::PATCH, &["v1", "nodes", name.as_str()])
            .revision(Revision::At(revision))
            .json(&LabelsOf { labels })
            .read()
            .await
    }

    pub(crate) async fn remove_node(&self, node: &Node) -> Result<(), ControlError> {
        self.remove(&["v1", "nodes", node.name.as_str()], node.revision).await
    }

    pub(crate) async fn document(&self, name: &NodeName) -> Result<Value, ControlError> {
        self.get(&["v1", "nodes", name.as_str(), "document"]).read().await
    }

    pub(crate) async fn record(&self, name: &NodeName) -> Result<Vec<u8>, ControlError> {
        self.get(&["v1", "nodes", name.as_str(), "record"]).bytes().await
    }

    pub(crate) async fn enrol(&self, wanted: &EnrolmentRequest) -> Result<Enrolment, ControlError> {
        self.call(Method::POST, &["v1", "enrolments"]).json(wanted).read().await
    }

    pub(crate) async fn programs(&self) -> Result<Page<LibraryProgram>, ControlError> {
        self.pages(&["v1", "programs"], &[], usize::MAX).await
    }

    /// `None`: there is none of this name.
    pub(crate) async fn program(
        &self,
        name: &ProgramName,
    ) -> Result<Option<LibraryProgram>, ControlError> {
        present(self.get(&["v1", "programs", name.as_str()]).read().await)
    }

    pub(crate) async fn upload(
        &self,
        name: &ProgramName,
        revision: Revision,
        bytes: u64,
        body: Body,
    ) -> Result<LibraryProgram, ControlError> {
        self.call(Method::PUT, &["v1", "programs", name.as_str()])
            .revision(revision)
            .octets(bytes, body)
            .unhurried()
            .read()
            .await
    }

    pub(crate) async fn object(&self, name: &ProgramName) -> Result<Vec<u8>, ControlError> {
        self.get(&["v1", "programs", name.as_str(), "object"]).unhurried().bytes().await
    }

    pub(crate) async fn remove_program(
        &self,
        program: &LibraryProgram,
    ) -> Result<(), ControlError> {
        self.remove(&["v1", "programs", program.name.as_str()], program.revision).await
    }

    pub(crate) async fn policies(&self) -> Result<Page<Policy>, ControlError> {
        self.pages(&["v1", "policies"], &[], usize::MAX).await
    }

    /// `None`: there is none of this name.
    pub(crate) async fn policy(&self, name: &PolicyName) -> Result<Option<Policy>, ControlError> {
        present(self.get(&["v1", "policies", name.as_str()]).read().await)
    }

    pub(crate) async fn put_policy(
        &self,
        name: &PolicyName,
        revision: Revision,
        spec: Vec<u8>,
    ) -> Result<Policy, ControlError> {
        self.call(Method::PUT, &["v1", "policies", name.as_str()])
            .revision(revision)
            .json_text(spec)
            .read()
            .await
    }

    /// What a policy would change; `None` as what it says: were it removed.
    pub(crate) async fn diff_policy(
        &self,
        name: &PolicyName,
        spec: Option<Vec<u8>>,
    ) -> Result<PolicyDiff, ControlError> {
        let body = spec.unwrap_or_else(|| b"null".to_vec());
        let call = self.call(Method::POST, &["v1", "policies", name.as_str(), "diff"]);
        Call { timeout: Some(COMPOSE_TIMEOUT), ..call }.json_text(body).read().await
    }

    pub(crate) async fn remove_policy(&self, policy: &Policy) -> Result<(), ControlError> {
        self.remove(&["v1", "policies", policy.name.as_str()], policy.revision).await
    }

    pub(crate) async fn publish(
        &self,
        wanted: &PublishRequest,
    ) -> Result<PublishReport, ControlError> {
        self.call(Method::POST, &["v1", "publish"]).json(wanted).unhurried().read().await
    }

    /// The newest snapshots, the newest first.
    pub(crate) async fn snapshots(&self, most: u16) -> Result<Page<Snapshot>, ControlError> {
        self.pages(&["v1", "snapshots"], &[], most.into()).await
    }

    pub(crate) async fn snapshot(&self, number: u64) -> Result<Snapshot, ControlError> {
        self.get(&["v1", "snapshots", &number.to_string()]).read().await
    }

    pub(crate) async fn audit(
        &self,
        object: Option<&str>,
        who: Option<&str>,
        most: u16,
    ) -> Result<Page<AuditEntry>, ControlError> {
        let pair = |name, value: Option<&str>| value.map(|value| (name, value.to_owned()));
        let query: Vec<_> =
            [pair("object", object), pair("who", who)].into_iter().flatten().collect();
        self.pages(&["v1", "audit"], &query, most.into()).await
    }

    pub(crate) async fn tokens(&self) -> Result<Page<Token>, ControlError> {
        self.pages(&["v1", "tokens"], &[], usize::MAX).await
    }

    pub(crate) async fn create_token(
        &self,
        wanted: &TokenRequest,
    ) -> Result<NewToken, ControlError> {
        self.call(Method::POST, &["v1", "tokens"]).json(wanted).read().await
    }

    pub(crate) async fn revoke_token(&self, name: &TokenName) -> Result<(), ControlError> {
        self.call(Method::DELETE, &["v1", "tokens", name.as_str()]).done().await
    }

    async fn remove(&self, path: &[&str], revision: u64) -> Result<(), ControlError> {
        self.call(Method::DELETE, path).revision(Revision::At(revision)).done().await
    }
}
