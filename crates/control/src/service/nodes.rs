//! Nodes: enrolment, labels, and how they stand.

use crate::app::App;
use crate::auth::Caller;
use crate::db::{Actor, PageRequest, Precondition};
use crate::events::Event;
use crate::health;
use crate::problem::Failure;
use crate::publish::{PublishError, key};
use crate::secret::{Secret, SecretKind};
use pointsman_model::fleet::{
    EnrolReply, Enrolment, EnrolmentRequest, Labels, Node, NodeHealth, Page, Role,
};
use pointsman_model::{LabelKey, LabelValue, NodeName};
use std::net::IpAddr;

/// For how long a one-time token is good unless something else is said, in seconds.
const TTL: u64 = 3600;

/// The longest that may be said: 30 days.
const LONGEST_TTL: u64 = 30 * 86_400;

/// The most labels of a node.
const LABELS: usize = 64;

/// Which nodes of a list are wanted.
#[derive(Debug, Default)]
pub struct NodeFilter {
    /// Labels that they must have.
    pub labels: Vec<(LabelKey, LabelValue)>,
    /// How they must stand.
    pub health: Option<NodeHealth>,
    /// What their names must contain; empty: anything.
    pub name: String,
}

impl NodeFilter {
    fn takes(&self, node: &Node) -> bool {
        self.health.is_none_or(|health| node.health == health)
            && node.name.as_str().contains(&self.name)
            && self.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
    }
}

impl App {
    /// A page of the nodes that a filter takes.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn nodes(
        &self,
        filter: &NodeFilter,
        wanted: &PageRequest,
    ) -> Result<Page<Node>, Failure> {
        let now = self.clock.now();
        let mut items: Vec<Node> = Vec::new();
        let mut after = wanted.after.clone();
        let most = wanted.limit as usize;
        loop {
            let request = PageRequest { after, ..PageRequest::default() };
            let Page { items: rows, next } = self.db.nodes(&request).await?;
            let nodes = rows.into_iter().map(|row| health::node(row, now));
            items.extend(nodes.filter(|node| filter.takes(node)));
            if items.len() > most {
                items.truncate(most);
                let next = items.last().map(|node| node.name.to_string());
                return Ok(Page { items, next });
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(Page { items, next: None }),
            }
        }
    }

    /// One node.
    ///
    /// # Errors
    /// 404.
    pub async fn node(&self, name: &NodeName) -> Result<Node, Failure> {
        Ok(health::node(self.db.node(name).await?, self.clock.now()))
    }

    /// Gives a one-time token with which a node may enrol.
    ///
    /// # Errors
    /// 403; 409: the node is there already, with other labels; 422: the time or the labels are out
    /// of bounds.
    pub async fn invite(
        &self,
        caller: &Caller,
        request: EnrolmentRequest,
    ) -> Result<Enrolment, Failure> {
        caller.expect(Role::Admin)?;
        let EnrolmentRequest { node, labels, ttl_seconds } = request;
        let ttl = super::tokens::ttl(ttl_seconds.unwrap_or(TTL), LONGEST_TTL)?;
        if let Some(labels) = &labels {
            few(labels)?;
        }
        let now = self.clock.now();
        let expires_unix_ms = now.saturating_add(ttl * 1000);
        let token = Secret::new(SecretKind::Enrolment);
        let mut change = self.db.change(&caller.actor(), now).await?;
        let before = change.invite_node(&node, labels, &token.hash(), expires_unix_ms).await?;
        change.commit().await?;
        self.node_changed(&node);
        Ok(Enrolment {
            node,
            token: token.expose().to_owned(),
            expires_unix_ms,
            key_id: self.publisher.public_key().key_id(),
            enrolled_unix_ms: before.as_ref().and_then(|node| node.enrolled_ms),
            seen_unix_ms: before.as_ref().and_then(|node| node.seen_ms),
        })
    }

    /// Trades a one-time token for a credential.
    ///
    /// # Errors
    /// 401: the token is unknown, was used or replaced, or has expired. 429.
    pub async fn enrol(&self, token: &str, from: Option<IpAddr>) -> Result<EnrolReply, Failure> {
        let refused = || {
            crate::auth::unauthorized(
                "the one-time token is not known here, was used already, was replaced by another \
                 one, or has expired: an administrator can give the node a new one",
            )
        };
        let Some(token) = Secret::parse(token).filter(|it| it.kind() == SecretKind::Enrolment)
        else {
            self.throttle.admit(from, "")?;
            self.throttle.failed(from, "");
            return Err(refused());
        };
        let hash = token.hash();
        self.throttle.admit(from, &hash)?;
        let now = self.clock.now();
        // Looked up first: who guesses keeps nobody from changing things.
        let Some(node) = self.db.invited(&hash, now).await? else {
            self.throttle.failed(from, &hash);
            return Err(refused());
        };
        let credential = Secret::new(SecretKind::Credential);
        let actor = Actor { name: format!("node {node}"), from: from.map(|from| from.to_string()) };
        let mut change = self.db.change(&actor, now).await?;
        // With a key that was replaced meanwhile the node would trust who may have stolen it.
        let key = self.publisher.public_key();
        key::check_in_force(&mut change, key).await.map_err(PublishError::from)?;
        let Some(node) = change.enrol_node(&hash, &credential.hash()).await? else {
            self.throttle.failed(from, &hash);
            return Err(refused());
        };
        change.commit().await?;
        self.node_changed(&node);
        Ok(EnrolReply {
            fleet: self.fleet.clone(),
            node,
            credential: credential.expose().to_owned(),
            public_key: key.to_base64().to_owned(),
            source: self.source.clone(),
        })
    }

    /// Replaces a node's labels.
    ///
    /// # Errors
    /// 403, 404, 412, 428; 422: there are too many.
    pub async fn label(
        &self,
        caller: &Caller,
        name: &NodeName,
        labels: &Labels,
        precondition: Precondition,
    ) -> Result<Node, Failure> {
        caller.expect(Role::Operator)?;
        few(labels)?;
        let now = self.clock.now();
        let mut change = self.db.change(&caller.actor(), now).await?;
        let row = change.label_node(name, labels, precondition).await?;
        change.commit().await?;
        self.node_changed(name);
        Ok(health::node(row, now))
    }

    /// Takes a node out of the fleet.
    ///
    /// # Errors
    /// 403, 404, 412, 428.
    pub async fn delete_node(
        &self,
        caller: &Caller,
        name: &NodeName,
        precondition: Precondition,
    ) -> Result<(), Failure> {
        caller.expect(Role::Admin)?;
        let mut change = self.db.change(&caller.actor(), self.clock.now()).await?;
        change.delete_node(name, precondition).await?;
        change.commit().await?;
        self.node_changed(name);
        Ok(())
    }

    fn node_changed(&self, name: &NodeName) {
        self.events.tell(Event::Node { name: name.clone() });
        self.changed(format!("node {name}"));
    }
}

fn few(labels: &Labels) -> Result<(), Failure> {
    if labels.len() <= LABELS {
        return Ok(());
    }
    let message = format!("{} labels are more than {LABELS}", labels.len());
    let pointer = "/labels".to_owned();
    let error = pointsman_model::document::DocumentError { pointer, message };
    Err(Failure::invalid("the body", vec![error]))
}
