//! The nouns of a fleet: what travels between the control plane, its operators, the couriers and
//! the nodes.
//!
//! A **policy** says which chain runs on an interface of the nodes that a **selector** finds. A
//! publish makes one **record** of each node: its document, signed. All records of a moment are a
//! **snapshot**.

mod audit;
mod courier;
mod node;
mod page;
mod policy;
mod program;
mod publish;
mod record;
mod token;

pub use audit::AuditEntry;
pub use courier::{CourierStatus, EnrolReply, EnrolRequest, NodeReport, RefusedSnapshot};
pub use node::{Enrolment, EnrolmentRequest, Labels, Node, NodeFleetStatus, NodeHealth};
pub use page::{MAX_PAGE, Page};
pub use policy::{
    Policy, PolicyDiff, PolicyEntry, PolicyMap, PolicyMapEntry, PolicySpec, ProgramRef, Selector,
};
pub use program::{LibraryProgram, ObjectGlobal, ObjectMap, ObjectProgram, ObjectSummary};
pub use publish::{
    Cause, NodeChange, NodeOutcome, PublishReport, PublishRequest, Snapshot, UnifiedDiff,
};
pub use record::{
    LATEST_SCHEMA, Latest, MAX_RECORD, MAX_SHARDS, RECORD_SCHEMA, RecordObject, RecordPayload,
};
pub use token::{NewToken, Role, Token, TokenRequest};
