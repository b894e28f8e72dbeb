//! Bounds what somebody who connects can hold: how long he may say nothing, and how many
//! connections there are. Files that are left over are for the database, the blob store and
//! inspections.

use axum_server::Server;
use axum_server::accept::Accept;
use hyper_util::rt::TokioTimer;
use rustix::process::{Resource, getrlimit};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most files that are kept for everything but connections.
const KEPT: u64 = 1024;

/// Connections where the kernel sets no limit to files.
const MOST: u64 = 1 << 20;

/// What connections may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How long a connection may take to send the head of a request, the first one included, and
    /// to answer whether it is still there.
    pub head: Duration,
    /// How many connections there may be; more are closed at once.
    pub connections: usize,
}

impl Bounds {
    /// As many connections as this process may have files, but for those that it needs itself.
    #[must_use]
    pub fn new(head: Duration) -> Self {
        Self { head, connections: connections(getrlimit(Resource::Nofile).current) }
    }
}

fn connections(files: Option<u64>) -> usize {
    let connections = files.map_or(MOST, |files| files - (files / 4).min(KEPT));
    usize::try_from(connections.min(MOST)).unwrap_or(usize::MAX).max(1)
}

/// A server that keeps to bounds.
pub fn bounded<A>(server: Server<SocketAddr, A>, bounds: Bounds) -> Server<SocketAddr, Capped<A>> {
    let room = Arc::new(Semaphore::new(bounds.connections));
    // From the first byte on: what the timeouts of the protocols do not cover is which one it is.
    let mut server = server.first_request_timeout(bounds.head).map(|inner| Capped { inner, room });
    let builder = server.http_builder();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(bounds.head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(bounds.head)
        .keep_alive_timeout(bounds.head);
    server
}

/// Accepts connections as long as there is room for them.
#[derive(Debug, Clone)]
pub struct Capped<A> {
    inner: A,
    room: Arc<Semaphore>,
}

type Accepting<T, S> = Pin<Box<dyn Future<Output = io::Result<(Held<T>, S)>> + Send>>;

impl<A, I, S> Accept<I, S> for Capped<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
{
    type Stream = Held<A::Stream>;
    type Service = A::Service;
    type Future = Accepting<A::Stream, A::Service>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        // Nobody waits here: who waits holds a file.
        let room = self.room.clone().try_acquire_owned();
        let begun = room.ok().map(|permit| (permit, self.inner.accept(stream, service)));
        Box::pin(async move {
            let Some((permit, accepting)) = begun else {
                tracing::debug!("closed a connection: there are too many");
                return Err(io::Error::other("too many connections"));
            };
            let (stream, service) = accepting.await?;
            Ok((Held { stream, _permit: permit }, service))
        })
    }
}

/// A connection, and its place among those that there may be.
#[derive(Debug)]
pub struct Held<T> {
    stream: T,
    _permit: OwnedSemaphorePermit,
}

impl<T: AsyncRead + Unpin> AsyncRead for Held<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Held<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n";

    /// A server in a runtime of its own, which ends with it.
    fn server(bounds: Bounds) -> (SocketAddr, tokio::runtime::Runtime) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let service = Router::new().route("/x", get(async || "here")).into_make_service();
        runtime.spawn(async move {
            let server = bounded(axum_server::from_tcp(listener).unwrap(), bounds);
            server.serve(service).await.unwrap();
        });
        (address, runtime)
    }

    fn connect(address: SocketAddr, say: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        // Far more than it takes: without the bounds nothing would ever come.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(say).unwrap();
        stream
    }

    /// What comes until the connection is closed.
    fn all(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        match stream.read_to_end(&mut text) {
            Ok(_) => {}
            // Closed with something unread.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits for the answer; the connection stays open.
    fn answered(mut stream: TcpStream) -> TcpStream {
        let mut text = Vec::new();
        while !text.ends_with(b"here") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "closed after {text:?}");
            text.push(byte[0]);
        }
        stream
    }

    #[test]
    fn who_says_nothing_is_not_listened_to_for_ever() {
        let bounds = Bounds { head: Duration::from_millis(200), connections: 100 };
        let (address, _runtime) = server(bounds);
        // Nothing; what may be either protocol; half a head; HTTP/2 and nothing more.
        for say in [
            &b""[..],
            b"PRI * HT",
            b"GET /x HTTP/1.1\r\nHos",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ] {
            let text = all(connect(address, say));
            assert!(!text.contains("here"), "{say:?}: {text}");
        }
        // And nothing more after an answer.
        let text = all(connect(address, GET));
        assert!(text.ends_with("here"), "{text}");
    }

    #[test]
    fn there_is_room_for_so_many_and_whoever_leaves_makes_room() {
        let bounds = Bounds { head: Duration::from_secs(600), connections: 2 };
        let (address, _runtime) = server(bounds);
        let first = answered(connect(address, GET));
        let second = answered(connect(address, GET));
        assert_eq!(all(connect(address, b"")), "");
        assert_eq!(all(connect(address, b"")), "");
        let mut first = answered({
            let mut first = first;
            first.write_all(GET).unwrap();
            first
        });
        drop(second);
        // The server sees at some time that it has gone.
        let third = loop {
            let mut stream = connect(address, GET);
            let mut byte = [0];
            if stream.read(&mut byte).is_ok_and(|read| read == 1) {
                break stream;
            }
        };
        first.write_all(GET).unwrap();
        drop((answered(first), third));
    }

    #[test]
    fn files_are_left_for_others() {
        assert_eq!(connections(Some(1024)), 768);
        assert_eq!(connections(Some(65_536)), 64_512);
        assert_eq!(connections(Some(0)), 1);
        assert_eq!(connections(None), 1 << 20);
    }
}
