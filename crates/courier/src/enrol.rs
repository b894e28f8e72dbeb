//! Enrolment: a one-time token becomes a credential for the courier, and a key for the daemon.
//!
//! The token is good once, so everything that can go wrong on this host is tried before it is
//! sent: who this node belongs to now, both directories, and room on the disk.

use crate::control::{answered, api};
use crate::enrolled::{COURIER_SCHEMA, Enrolled, EnrolledError, control_url};
use crate::files::{Dir, PART, StorageError, failed};
use crate::source::{Client, SourceError};
use crate::trust::Membership;
use crate::{Secret, source};
use pointsman_model::fleet::{EnrolReply, EnrolRequest};
use pointsman_model::{FleetName, NodeName};
use pointsman_snapshot::keys::{KeyId, PublicKey};
use reqwest::StatusCode;
use serde::Serialize;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use url::Url;

/// More than either file has.
const ROOM: usize = 16 << 10;

/// The largest reply that is read.
const MAX_REPLY: usize = 64 << 10;

/// What is wanted.
#[derive(Debug)]
pub struct Enrolling {
    /// The control plane.
    pub control: Url,
    /// The one-time token.
    pub token: Secret,
    /// Where to keep what the courier works with.
    pub config: PathBuf,
    /// Where the daemon reads to whom it listens.
    pub node_config: PathBuf,
    /// To whom the first of these belongs; `None`: to us.
    pub owner: Option<Owner>,
    /// Whether to leave the fleet, or the name, that this node has now.
    pub force: bool,
    /// The id that the fleet's key must have.
    pub key_id: Option<KeyId>,
    /// The courier's CA file, kept for it.
    pub ca: Option<PathBuf>,
    /// The courier's proxy, kept for it.
    pub proxy: Option<Secret>,
}

/// A user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnrolmentReport {
    /// The fleet.
    pub fleet: FleetName,
    /// The node's name in it.
    pub node: NodeName,
    /// The id of the key that records are signed with, as minisign shows it.
    pub key_id: String,
    /// What the courier works with.
    pub config: PathBuf,
    /// To whom the daemon listens.
    pub node_config: PathBuf,
}

/// Why the node is not enrolled. Unless it says otherwise, what the node was before, it still is.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The node belongs to somebody else.
    #[error(
        "this node is {now} and would become {would_be}: give --force if it is to change hands{}",
        spent(*token_spent)
    )]
    Other {
        /// What it is now.
        now: String,
        /// What it would be.
        would_be: String,
        /// Whether the token has been used.
        token_spent: bool,
    },
    /// A file cannot be written or read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file could not be put in its place although there was room for it.
    #[error(
        "{0}. The token is spent, and what the courier works with may be new already while the \
         daemon listens to whom it did: make another token and enrol again"
    )]
    Half(#[source] StorageError),
    /// A file that is there makes no sense.
    #[error("{0}; give --force to replace it")]
    Present(String),
    /// The control plane's URL is none.
    #[error("{0}")]
    Control(String),
    /// The token is none.
    #[error("{0}")]
    Token(&'static str),
    /// The control plane does not take the token.
    #[error(
        "{what} does not take the token: it was used, has expired, or was never one. Make another"
    )]
    Refused {
        /// The URL.
        what: String,
    },
    /// The control plane cannot be asked, or did not answer to the end.
    #[error("{0}. If it has the token already, that is spent: make another")]
    Source(#[source] SourceError),
    /// The control plane's reply makes no sense.
    #[error("the reply to the token is not understood: {0}. The token is spent: make another")]
    Reply(String),
}

fn spent(spent: bool) -> &'static str {
    if spent { ". The token is spent: make another" } else { "" }
}

/// Trades the token, and keeps what comes of it.
///
/// # Errors
/// [`EnrolError`].
pub async fn enrol(wanted: &Enrolling, client: &Client) -> Result<EnrolmentReport, EnrolError> {
    control_url(&wanted.control).map_err(EnrolError::Control)?;
    check_token(&wanted.token)?;
    let now = Now::read(wanted)?;
    if let Some(control) = &now.control
        && control.origin() != wanted.control.origin()
        && !wanted.force
    {
        return Err(EnrolError::Other {
            now: now.to_string(),
            would_be: format!("a node of {}", source::shown(&wanted.control)),
            token_spent: false,
        });
    }
    let ours = Place::prepare(&wanted.config, 0o600, wanted.owner)?;
    let daemons = Place::prepare(&wanted.node_config, 0o644, None)?;
    let reply = trade(wanted, client).await?;
    let (enrolled, membership, key) = understood(wanted, reply)?;
    let other = now.fleet.as_ref().is_some_and(|fleet| *fleet != membership.fleet)
        || now.node.as_ref().is_some_and(|node| *node != membership.node);
    if other && !wanted.force {
        return Err(EnrolError::Other {
            now: now.to_string(),
            would_be: format!("node {} of fleet {}", membership.node, membership.fleet),
            token_spent: true,
        });
    }
    if let Some(expected) = wanted.key_id
        && expected != key.id()
    {
        return Err(EnrolError::Reply(format!(
            "records would be signed with the key {}, and {expected} was expected: somebody else \
             answers there",
            key.key_id()
        )));
    }
    // What the daemon trusts comes last: with it this node has changed hands.
    ours.put(&enrolled).map_err(EnrolError::Half)?;
    daemons.put(&membership).map_err(EnrolError::Half)?;
    Ok(EnrolmentReport {
        fleet: membership.fleet,
        node: membership.node,
        key_id: key.key_id(),
        config: wanted.config.clone(),
        node_config: wanted.node_config.clone(),
    })
}

fn check_token(token: &Secret) -> Result<(), EnrolError> {
    let token = token.expose();
    if token.is_empty() {
        return Err(EnrolError::Token("there is no token: the file, or standard input, is empty"));
    }
    if !token.starts_with("pme_") || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(EnrolError::Token(
            "that is no one-time token: it starts with pme_, as `pointsman fleet enroll` prints it",
        ));
    }
    Ok(())
}

/// Whose this node is now.
#[derive(Debug, Default)]
struct Now {
    fleet: Option<FleetName>,
    node: Option<NodeName>,
    control: Option<Url>,
}

impl std::fmt::Display for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.node, &self.fleet, &self.control) {
            (Some(node), Some(fleet), Some(control)) => {
                let control = source::shown(control);
                write!(f, "node {node} of fleet {fleet} at {control}")
            }
            (Some(node), Some(fleet), None) => write!(f, "node {node} of fleet {fleet}"),
            _ => f.write_str("of no fleet"),
        }
    }
}

impl Now {
    fn read(wanted: &Enrolling) -> Result<Self, EnrolError> {
        let mut now = Self::default();
        match Membership::read(&wanted.node_config) {
            Ok(Some(membership)) => {
                (now.fleet, now.node) = (Some(membership.fleet), Some(membership.node));
            }
            Err(error) if !wanted.force => return Err(EnrolError::Present(error)),
            Ok(None) | Err(_) => {}
        }
        match Enrolled::read(&wanted.config) {
            Ok(enrolled) => {
                now.control = Some(enrolled.control);
                now.fleet.get_or_insert(enrolled.fleet);
                now.node.get_or_insert(enrolled.node);
            }
            Err(EnrolledError::Missing { .. }) => {}
            Err(error) if !wanted.force => return Err(EnrolError::Present(error.to_string())),
            Err(_) => {}
        }
        Ok(now)
    }
}

/// A file that is about to be there: it lies beside its place, with room on the disk.
#[derive(Debug)]
struct Place {
    dir: Dir,
    name: String,
    file: File,
}

impl Place {
    fn prepare(path: &Path, mode: u32, owner: Option<Owner>) -> Result<Self, StorageError> {
        let fail = |what| failed(what, path);
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| fail("name")(invalid()))?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let is_new = !parent.exists();
        std::fs::create_dir_all(parent).map_err(failed("create", parent))?;
        let dir = Dir::open(parent, 0o755)?;
        if is_new && let Some(Owner { uid, gid }) = owner {
            // The courier keeps its own things beside it.
            std::os::unix::fs::chown(parent, Some(uid), Some(gid))
                .map_err(failed("give away", parent))?;
        }
        let file = dir.create(&format!("{name}{PART}"), mode)?;
        let place = Self { dir, name, file };
        if let Some(Owner { uid, gid }) = owner {
            std::os::unix::fs::fchown(&place.file, Some(uid), Some(gid))
                .map_err(fail("give away"))?;
        }
        place
            .file
            .write_all_at(&[b' '; ROOM], 0)
            .and_then(|()| place.file.sync_all())
            .map_err(fail("write"))?;
        Ok(place)
    }

    fn put(self, value: &impl Serialize) -> Result<(), StorageError> {
        let mut text =
            serde_json::to_vec_pretty(value).expect("invariant: names and URLs are JSON");
        text.push(b'\n');
        let path = self.dir.path(&self.name);
        self.file
            .write_all_at(&text, 0)
            .and_then(|()| self.file.set_len(text.len() as u64))
            .and_then(|()| self.file.sync_all())
            .map_err(failed("write", &path))?;
        self.dir.take(&self.dir, &format!("{}{PART}", self.name), &self.name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Gone already if it was put there. What is left does no harm, and the next enrolment
        // writes over it.
        let _ = self.dir.remove(&format!("{}{PART}", self.name));
    }
}

async fn trade(wanted: &Enrolling, client: &Client) -> Result<EnrolReply, EnrolError> {
    let url = api(wanted.control.clone(), "enrol");
    let body = EnrolRequest { token: wanted.token.expose().to_owned() };
    let body = serde_json::to_vec(&body).expect("invariant: a text is JSON");
    let request = client
        .0
        .post(url.clone())
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(body);
    let response = client.send(request, &url).await.map_err(EnrolError::Source)?;
    let status = response.status();
    let refused = [
        StatusCode::BAD_REQUEST,
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
        StatusCode::GONE,
    ];
    if refused.contains(&status) {
        return Err(EnrolError::Refused { what: source::shown(&url) });
    }
    let wanted = [StatusCode::OK, StatusCode::CREATED];
    let mut response = answered(&wanted, &url, response).map_err(EnrolError::Source)?;
    let mut reply = Vec::new();
    let broken = |error: reqwest::Error| EnrolError::Reply(source::innermost(&error.without_url()));
    while let Some(piece) = response.chunk().await.map_err(broken)? {
        reply.extend_from_slice(&piece);
        if reply.len() > MAX_REPLY {
            return Err(EnrolError::Reply(format!("it has more than {MAX_REPLY} bytes")));
        }
    }
    // An error of the parser may quote what it found: the line and column are enough.
    serde_json::from_slice(&reply).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        EnrolError::Reply(format!("its JSON is not as expected, line {line} column {column}"))
    })
}

fn understood(
    wanted: &Enrolling,
    reply: EnrolReply,
) -> Result<(Enrolled, Membership, PublicKey), EnrolError> {
    let wrong = |why: String| EnrolError::Reply(why);
    let EnrolReply { fleet, node, credential, public_key, source } = reply;
    if credential.is_empty() || !credential.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("the credential is none".into()));
    }
    let key = PublicKey::from_base64(&public_key).map_err(|error| wrong(error.to_string()))?;
    let source = source
        .map(|source| Url::parse(&source).map_err(|error| wrong(format!("the source: {error}"))))
        .transpose()?;
    let membership = Membership { fleet: fleet.clone(), node: node.clone(), public_key };
    let enrolled = Enrolled {
        schema: COURIER_SCHEMA.to_owned(),
        fleet,
        node,
        control: wanted.control.clone(),
        credential: Secret::new(credential),
        source,
        ca: wanted.ca.clone(),
        proxy: wanted.proxy.clone(),
    };
    Ok((enrolled, membership, key))
}
