//! The service from its start to its end.

use crate::app::{App, Parts};
use crate::args::{Args, ServeArgs};
use crate::auth::Throttle;
use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::connections::{Bounds, bounded};
use crate::db::{Actor, Db, DbError, OpenError};
use crate::events::Events;
use crate::inspect::{Apart, Inspector};
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::publish::{Automatic, KeyError, Publisher, Publishing, key};
use crate::store::StoreUrlError;
use crate::{api, service};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use pointsman_logging::{LogFormat, tell_manager};
use pointsman_model::FleetName;
use sd_notify::NotifyState;
use serde_json::json;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long a connection may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(15);

/// How long requests under way may take when the service is told to end.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// The setting that says of which fleet a database is.
const FLEET: &str = "fleet";

/// Why the service does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The database is there and does not do what it must.
    #[error(transparent)]
    Database(#[from] DbError),
    /// A directory cannot be used.
    #[error("cannot use {} as the state directory: {source}; name another one with --state-dir", path.display())]
    Directory {
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database is of another fleet.
    #[error(
        "the database is of the fleet {stored}, not {wanted}: start with --fleet {stored}, or with \
         another --database"
    )]
    Fleet {
        /// Whose it is.
        stored: String,
        /// What was asked for.
        wanted: FleetName,
    },
    /// Nobody can connect.
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no key to sign records with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Serving or waiting for signals failed.
    #[error("cannot serve: {0}")]
    Serve(#[source] io::Error),
    /// The blob store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreUrlError),
    /// The token of the first start was made and could not be printed.
    #[error(
        "cannot print the administrator's token: {0}; make another one with `pointsman-control \
         token`"
    )]
    Stdout(#[source] io::Error),
    /// Certificate and key cannot be used.
    #[error("cannot use {} with {}: {source}", cert.display(), key.display())]
    Tls {
        /// The certificate.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`]: the service did not start, or cannot go on.
pub async fn run(args: &Args) -> Result<(), ServeError> {
    let ServeArgs { listen, tls_cert, tls_key, source, .. } = &args.serve;
    let tls = match (tls_cert, tls_key) {
        (Some(cert), Some(key)) => Some(Tls::load(cert, key).await?),
        _ => None,
    };
    let failed = |source| ServeError::Listen { address: *listen, source };
    let listener = TcpListener::bind(listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(
            "{address} is reached without TLS: tokens travel in the clear. Use --tls-cert and \
             --tls-key, or a proxy in front on this host"
        );
    }

    state_directory(&args.state_dir)?;
    let clock = Clock::system();
    let db = Db::open(&args.database(), args.serve.database_connections).await?;
    let fleet = fleet(&db, args.serve.fleet.as_ref(), clock.now()).await?;
    if let Some(first) = service::first_token(&db, clock.now()).await? {
        tell(args.log_format, "admin_token", &first.secret, |secret| {
            format!("first start: the administrator's token, shown this once: {secret}")
        })
        .map_err(ServeError::Stdout)?;
    }
    tracing::info!(fleet = %fleet, database = %db.describe(), "started");

    let store = args.blob_store()?;
    let key = key::load(&db, &args.key_file(), clock.now()).await?;
    tracing::info!(key = %key.public_key().key_id(), store = store.describe(), "publishing");
    let events = Events::default();
    let publisher = Publisher::new(Publishing {
        db: db.clone(),
        store: store.clone(),
        key,
        fleet: fleet.clone(),
        clock: clock.clone(),
        events: events.clone(),
    });
    let automatic = Automatic {
        on_change: args.serve.publish_on_change,
        interval: args.serve.publish_interval.0,
    };
    let by_itself = publisher.clone();
    tokio::spawn(async move { by_itself.run(automatic).await });
    let app = App::new(Parts {
        intake: Intake::start(db.clone(), events.clone()),
        db,
        clock,
        fleet,
        publisher,
        blobs: Blobs::new(store),
        source: source.clone(),
        secure: tls.is_some() || args.serve.secure_cookies,
        proxies: args.serve.trusted_proxy.clone(),
        events,
        throttle: Throttle::default(),
        inspector: Inspector::default(),
        metrics: Metrics::default(),
    });
    tokio::spawn(tell_apart(app.clone()));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    // Whoever started the service may not read what it prints: that is no reason to end.
    let _ = tell(args.log_format, "listening", &url, |url| format!("listening on {url}"));
    serve(listener, tls, app).await
}

/// Says what this host cannot take from the process that opens uploaded objects.
async fn tell_apart(app: App) {
    let told = app.inspector.apart().await;
    let Apart { files, network } = match told {
        Ok(apart) => apart,
        Err(failure) => {
            tracing::warn!("cannot try the process that opens objects: {}", failure.problem.title);
            return;
        }
    };
    if !files {
        tracing::warn!(
            "the process that opens uploaded objects may read what this service may, the signing \
             key too: this kernel has no Landlock, and lets us have no namespaces"
        );
    }
    if !network {
        tracing::warn!(
            "the process that opens uploaded objects has this host's network: namespaces of \
             users are not allowed here"
        );
    }
}

async fn serve(listener: TcpListener, tls: Option<Tls>, app: App) -> Result<(), ServeError> {
    let handle = Handle::new();
    let stop = tokio::spawn(signals(handle.clone(), tls.clone(), app.clone())?);
    let db = app.db.clone();
    let service = api::router(app).into_make_service_with_connect_info::<SocketAddr>();
    let bounds = Bounds::new(HEAD);
    tell_manager(&[NotifyState::Ready]);
    let served = match tls {
        Some(tls) => {
            let server = axum_server::from_tcp_rustls(listener, tls.config);
            let server = server.map_err(ServeError::Serve)?.handle(handle);
            bounded(server, bounds).serve(service).await
        }
        None => {
            let server = axum_server::from_tcp(listener).map_err(ServeError::Serve)?;
            bounded(server.handle(handle), bounds).serve(service).await
        }
    };
    stop.abort();
    db.close().await;
    served.map_err(ServeError::Serve)
}

/// Waits for signals, and tells the server to end.
fn signals(
    handle: Handle<SocketAddr>,
    tls: Option<Tls>,
    app: App,
) -> Result<impl Future<Output = ()>, ServeError> {
    let listen = |kind| signal(kind).map_err(ServeError::Serve);
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hangup: Signal = listen(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => if let Some(tls) = &tls { tls.reload().await },
            }
        }
        tracing::info!("ending: requests under way are answered");
        tell_manager(&[NotifyState::Stopping]);
        app.events.end();
        handle.graceful_shutdown(Some(LAST_REQUESTS));
        // Whoever asks twice means now.
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        handle.shutdown();
    })
}

/// Certificate and key, and where they came from.
#[derive(Debug, Clone)]
struct Tls {
    cert: PathBuf,
    key: PathBuf,
    config: RustlsConfig,
}

impl Tls {
    async fn load(cert: &Path, key: &Path) -> Result<Self, ServeError> {
        let (cert, key) = (cert.to_owned(), key.to_owned());
        match RustlsConfig::from_pem_file(&cert, &key).await {
            Ok(config) => Ok(Self { cert, key, config }),
            Err(source) => Err(ServeError::Tls { cert, key, source }),
        }
    }

    /// Reads both again. What cannot be used changes nothing.
    async fn reload(&self) {
        match self.config.reload_from_pem_file(&self.cert, &self.key).await {
            Ok(()) => tracing::info!("certificate and key were read again"),
            Err(error) => tracing::error!(
                "cannot use {} with {}: {error}; the old ones stay",
                self.cert.display(),
                self.key.display()
            ),
        }
    }
}

fn state_directory(path: &Path) -> Result<(), ServeError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut build = std::fs::DirBuilder::new();
    let made = build.recursive(true).mode(0o700).create(path);
    made.map_err(|source| ServeError::Directory { path: path.to_owned(), source })
}

/// The fleet that a database is of, which is decided by its first start.
async fn fleet(db: &Db, wanted: Option<&FleetName>, now: u64) -> Result<FleetName, ServeError> {
    let stored = db.setting(FLEET).await?;
    match (stored, wanted) {
        (Some(stored), Some(wanted)) if stored != wanted.as_str() => {
            Err(ServeError::Fleet { stored, wanted: wanted.clone() })
        }
        (Some(stored), _) => Ok(FleetName::new(stored).map_err(|error| DbError::Garbled {
            column: "settings.fleet".into(),
            why: error.to_string(),
        })?),
        (None, wanted) => {
            let default = || FleetName::new("fleet").expect("invariant: a good name");
            let fleet = wanted.cloned().unwrap_or_else(default);
            let mut change = db.change(&Actor::control(), now).await?;
            change.put_setting(FLEET, fleet.as_str()).await?;
            change.commit().await?;
            Ok(fleet)
        }
    }
}

/// Prints what others wait for: a line for people, or an object with one field.
fn tell(
    format: LogFormat,
    key: &str,
    value: &str,
    text: impl Fn(&str) -> String,
) -> io::Result<()> {
    let line = match format {
        LogFormat::Text | LogFormat::Mtl => text(value),
        LogFormat::Json => json!({key: value}).to_string(),
    };
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
