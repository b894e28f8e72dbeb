//! What happens to every request and answer.

use crate::app::App;
use crate::metrics::RequestLabels;
use crate::problem::Failure;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use pointsman_model::api::ProblemKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Ends requests that take too long, also by a body that arrives drop by drop.
pub(super) async fn in_time(
    State(time): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    match tokio::time::timeout(time, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let title = format!(
                "the request took more than {} s; look whether it was carried out before you send \
                 it again",
                time.as_secs()
            );
            Failure::new(ProblemKind::Unavailable, title)
                .with_status(StatusCode::REQUEST_TIMEOUT)
                .into_response()
        }
    }
}

/// Has a request come from where a proxy that is believed says.
pub(super) async fn on_behalf(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied()
    {
        let from = origin(peer.ip(), request.headers(), &app.proxies);
        if from != peer.ip().to_canonical() {
            request.extensions_mut().insert(ConnectInfo(SocketAddr::new(from, 0)));
        }
    }
    next.run(request).await
}

/// Who asks: the last address in X-Forwarded-For that is no proxy's. What stands before it anybody
/// could have written, and what is no address ends what can be believed.
fn origin(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> IpAddr {
    let is_proxy = |address: &IpAddr| proxies.iter().any(|one| one.to_canonical() == *address);
    let mut origin = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").into_iter().rev();
    for text in lines.flat_map(|line| line.to_str().unwrap_or("?").split(',').rev()) {
        if !is_proxy(&origin) {
            break;
        }
        let Ok(address) = text.trim().parse::<IpAddr>() else { break };
        origin = address.to_canonical();
    }
    origin
}

/// Counts requests, and says of every answer what browsers and proxies must not do with it.
pub(super) async fn watched(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known(request.method());
    let one_by_one = request.version() <= Version::HTTP_11;
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    // What axum itself refuses is told as everything else is.
    if response.status().is_client_error() && !response.headers().contains_key(header::CONTENT_TYPE)
    {
        let status = response.status();
        let title = status.canonical_reason().unwrap_or("refused").to_lowercase();
        response = Failure::bad_request(title).with_status(status).into_response();
    }
    let status = response.status();
    let route = route.unwrap_or_else(|| "other".into());
    if status == StatusCode::UNAUTHORIZED {
        app.metrics.unauthorized.inc();
    }
    app.metrics.seconds.observe(started.elapsed().as_secs_f64());
    let labels = RequestLabels { method: method.into(), route, status: status.as_u16() };
    tracing::debug!(
        method = labels.method,
        route = labels.route,
        status = labels.status,
        ms = started.elapsed().as_secs_f64() * 1e3,
        "request"
    );
    app.metrics.requests.get_or_create(&labels).inc();
    let headers = response.headers_mut();
    let mut default = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    // The rest of such a body is not read, so the connection ends: whoever would send another request
    // by it is told. Later versions of HTTP have no such header and no such need.
    let unread = [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::REQUEST_TIMEOUT].contains(&status);
    if unread && one_by_one {
        default(header::CONNECTION, "close");
    }
    default(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    default(header::CACHE_CONTROL, "no-store");
    default(header::REFERRER_POLICY, "same-origin");
    default(header::X_FRAME_OPTIONS, "DENY");
    // Everything comes from here, and no page has a script or a style in it.
    default(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    );
    response
}

/// A method's name as a label: what somebody made up is none.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Bytes;
    use axum::middleware;
    use axum::routing::{get, put};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    #[test]
    fn a_proxy_is_believed_and_nobody_else_is() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let proxies = ["127.0.0.1", "192.0.2.1"].map(address);
        let told = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                let line = HeaderValue::from_bytes(line.as_bytes()).unwrap();
                headers.append("x-forwarded-for", line);
            }
            origin(address(peer), &headers, &proxies).to_string()
        };
        for (peer, lines, expected) in [
            ("198.51.100.7", &["203.0.113.5"][..], "198.51.100.7"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["203.0.113.5"], "203.0.113.5"),
            ("::ffff:127.0.0.1", &["::ffff:203.0.113.5"], "203.0.113.5"),
            // Whoever asks may write what he likes before it.
            ("127.0.0.1", &["10.0.0.1, 203.0.113.5"], "203.0.113.5"),
            ("127.0.0.1", &["10.0.0.1", "203.0.113.5"], "203.0.113.5"),
            ("127.0.0.1", &["10.0.0.1, 203.0.113.5, 192.0.2.1"], "203.0.113.5"),
            ("127.0.0.1", &["203.0.113.5, nonsense, 192.0.2.1"], "192.0.2.1"),
            ("127.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("127.0.0.1", &["\u{e9}"], "127.0.0.1"),
            ("127.0.0.1", &["2001:db8::5"], "2001:db8::5"),
        ] {
            assert_eq!(told(peer, lines), expected, "{peer} {lines:?}");
        }
        assert_eq!(origin(address("127.0.0.1"), &HeaderMap::new(), &[]), proxies[0]);
    }

    #[test]
    fn who_takes_too_long_is_told_so() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let router = Router::new()
                .route("/never", get(std::future::pending::<&str>))
                .route("/body", put(|_: Bytes| async { "whole" }))
                .layer(middleware::from_fn_with_state(Duration::from_millis(50), in_time));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            for head in ["GET /never HTTP/1.1", "PUT /body HTTP/1.1\r\nContent-Length: 9"] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\npart");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
                assert!(answer.contains("application/problem+json"), "{answer}");
                assert!(answer.contains("look whether it was carried out"), "{answer}");
            }
        });
    }
}
