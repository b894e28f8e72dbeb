//! One HTTP request on one connection: what tests need, and no more.

use serde_json::Value;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was answered.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The entity tag, if there is one.
    pub tag: Option<String>,
    /// The body.
    pub bytes: Vec<u8>,
}

impl Response {
    /// Whether it was done.
    #[must_use]
    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; null: it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }
}

/// Asks, and reads the whole answer.
///
/// # Errors
/// The connection breaks, or the answer makes no sense.
pub fn call(
    to: SocketAddrV4,
    request: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{request} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| {
        let told = String::from_utf8_lossy(&answer).into_owned();
        io::Error::new(io::ErrorKind::InvalidData, format!("no whole answer: {told:?}"))
    })
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    };
    let bytes = match header("content-length") {
        Some(length) => body.get(..length.parse().ok()?)?.to_vec(),
        None if header("transfer-encoding").is_some() => dechunked(body)?,
        None => body.to_vec(),
    };
    Some(Response { status, tag: header("etag").map(str::to_owned), bytes })
}

fn dechunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&body[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?, 16).ok()?;
        body = &body[end + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(..size)?);
        body = body.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_whole_or_not_at_all() {
        let head = "HTTP/1.1 200 OK\r\nETag: \"7\"\r\n";
        let parse = |rest: &str| parse(format!("{head}{rest}").as_bytes());
        let response = parse("Content-Length: 2\r\n\r\n{}").unwrap();
        assert_eq!((response.status, response.tag.as_deref()), (200, Some("\"7\"")));
        assert_eq!(response.bytes, b"{}");
        assert!(parse("Content-Length: 3\r\n\r\n{}").is_none());
        let chunked = "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap().bytes, b"{}");
        assert!(parse(&chunked[..chunked.len() - 10]).is_none());
        assert!(parse("").is_none());
    }
}
