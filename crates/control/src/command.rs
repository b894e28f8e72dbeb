//! What is done on the host instead of serving.

use crate::args::Args;
use crate::clock::Clock;
use crate::db::{Actor, Db};
use crate::publish::key;
use crate::service::make_token;
use pointsman_model::fleet::{Role, TokenRequest};
use pointsman_model::{NodeName, TokenName};
use pointsman_snapshot::record::Record;
use std::io::{self, Write as _};
use std::path::Path;

/// Few: a command does one thing after the other.
const CONNECTIONS: u32 = 2;

/// Makes a token and prints it. The service may be running.
///
/// # Errors
/// One line that says why not.
pub async fn token(
    args: &Args,
    name: Option<TokenName>,
    role: Role,
    ttl: u64,
) -> Result<(), String> {
    let now = Clock::system().now();
    let db = open(args).await?;
    let default = || TokenName::new(format!("break-glass-{}", now / 1000));
    let name = match name {
        Some(name) => name,
        None => default().expect("invariant: a good name"),
    };
    let actor = Actor { name: "control".into(), from: Some("this host".into()) };
    let request = TokenRequest { name, role, ttl_seconds: Some(ttl) };
    let made = make_token(&db, &actor, request, now).await;
    let made = made.map_err(|failure| failure.problem.title)?;
    db.close().await;
    writeln!(io::stdout(), "{}", made.secret)
        .map_err(|error| format!("cannot print it: {error}"))?;
    let told = format!("{} is {}, for {ttl} s", made.token.name, made.token.role);
    // For people; who reads the token alone has it already.
    let _ = writeln!(io::stderr(), "{told}");
    Ok(())
}

/// Writes a node's record as two files.
///
/// # Errors
/// One line that says why not.
pub async fn export_record(args: &Args, node: &NodeName, to: &Path) -> Result<(), String> {
    let db = open(args).await?;
    let record = db.record(node).await.map_err(|error| error.to_string())?;
    db.close().await;
    let record = record.and_then(|record| record.record);
    let record = record.ok_or_else(|| format!("nothing is published for node {node}"))?;
    let parts =
        Record::parse(&record).map_err(|error| format!("the record is damaged: {error}"))?;
    for (file, bytes) in [
        (format!("{node}.json"), parts.payload_bytes),
        (format!("{node}.json.minisig"), parts.signature_text.as_bytes()),
    ] {
        let path = to.join(file);
        std::fs::write(&path, bytes)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let _ = writeln!(io::stdout(), "{}", path.display());
    }
    Ok(())
}

/// Makes a new signing key and prints its public half.
///
/// # Errors
/// One line that says why not; the old key stays.
pub async fn replace_key(args: &Args) -> Result<(), String> {
    let db = open(args).await?;
    let now = Clock::system().now();
    let made = key::replace(&db, &args.key_file(), now).await;
    db.close().await;
    let made = made.map_err(|error| error.to_string())?;
    writeln!(io::stdout(), "{}", made.public_key())
        .map_err(|error| format!("the key was replaced, and it cannot be printed: {error}"))?;
    let told = "start the service, publish, and enrol every node again";
    let _ = writeln!(io::stderr(), "{told}");
    Ok(())
}

/// Opens the database of the service. None is made here: it would be of who happens to run this.
async fn open(args: &Args) -> Result<Db, String> {
    if let Some(file) = args.database().strip_prefix("sqlite://")
        && !Path::new(file).exists()
    {
        return Err(format!(
            "there is no database {file}: start the service first, or name another \
                            one with --database or --state-dir"
        ));
    }
    Db::open(&args.database(), CONNECTIONS).await.map_err(|error| error.to_string())
}
