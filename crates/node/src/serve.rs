//! Connections on the node's socket, so that no client can keep the others from being served: how
//! many there are is bounded, and so is the time for which each may wait for its client.

use crate::http::Peer;
use crate::leases::Asker;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pointsman_netdev::peer::{Credentials, credentials};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

/// What clients may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; further ones wait in the listener's queue. Each is a file, and the
    /// engine needs files too.
    pub connections: usize,
    /// Requests with a document at a time, from the first byte to the answer. Each may take the
    /// memory of a whole document.
    pub documents: usize,
    /// How long the head of a request may take, and a connection may be idle.
    pub head: Duration,
    /// How long a document may take to arrive.
    pub body: Duration,
    /// How long a client may take nothing of an answer.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Half of the files that a process may usually have open.
            connections: 512,
            documents: 8,
            // Far more than a head takes on this host. Behind a thousand forgotten connections a
            // client waits for two rounds of this, which is less than the command line's patience.
            head: Duration::from_secs(2),
            body: Duration::from_secs(30),
            answer: Duration::from_secs(30),
        }
    }
}

/// How long to wait after the kernel could not give a connection, most likely for want of files.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves `router` until `stop` is ready and the requests under way are answered.
pub(crate) async fn serve(
    listener: UnixListener,
    router: Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut connections = JoinSet::new();
    // Dropping the sender tells every connection.
    let (stopping, stopped) = watch::channel(());
    loop {
        let has_room = connections.len() < limits.connections;
        tokio::select! {
            () = &mut stop => break,
            _ = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => {
                    let asker = asker(&stream);
                    let peer = Peer(asker.uid);
                    let router = router.clone().layer(Extension(peer)).layer(Extension(asker));
                    let stream = Patient { stream, patience: limits.answer, stalled: None };
                    connections.spawn(connection(stream, router, limits, stopped.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::select! {
                        () = &mut stop => break,
                        () = sleep(PAUSE) => {}
                    }
                }
            },
        }
    }
    drop((listener, stopping));
    while connections.join_next().await.is_some() {}
}

/// Who connected, where the kernel tells.
fn asker(stream: &UnixStream) -> Asker {
    let Ok(Credentials { uid, gid, groups, .. }) = credentials(stream) else {
        return Asker::default();
    };
    Asker { uid: Some(uid), groups: [gid].into_iter().chain(groups).collect() }
}

async fn connection(
    stream: Patient,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    let service = TowerToHyperService::new(router);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let result = tokio::select! {
        result = &mut served => result,
        _ = stopped.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection failed");
    }
}

/// A connection that fails when its client takes nothing for too long.
#[derive(Debug)]
struct Patient {
    stream: UnixStream,
    patience: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
