//! One HTTP request on one connection, for measurements: a client that does more would be measured
//! with what it does.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who asks an API.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    to: SocketAddrV4,
    token: String,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The entity tag.
    pub(crate) tag: Option<String>,
    pub(crate) bytes: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Client {
    pub(crate) fn new(to: SocketAddrV4, token: &str) -> Self {
        Self { to, token: token.to_owned() }
    }

    /// Asks, with one more header if wanted, and reads the whole answer.
    pub(crate) fn call(
        &self,
        request: &str,
        header: Option<(&str, String)>,
        body: &[u8],
    ) -> io::Result<Response> {
        let Self { to, token } = self;
        let mut stream = TcpStream::connect_timeout(&(*to).into(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let header = header.map_or(String::new(), |(name, value)| format!("{name}: {value}\r\n"));
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nAuthorization: Bearer \
             {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{header}\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse(&answer).ok_or_else(|| {
            let told = String::from_utf8_lossy(&answer).into_owned();
            io::Error::new(io::ErrorKind::InvalidData, format!("no whole answer: {told:?}"))
        })
    }
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    };
    let length = header("content-length").unwrap_or("0").parse().ok()?;
    let bytes = answer[end + 4..].get(..length)?.to_vec();
    Some(Response { status, tag: header("etag").map(str::to_owned), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let answer = b"HTTP/1.1 200 OK\r\nETag: \"7\"\r\ncontent-length: 2\r\n\r\n{}";
        let response = parse(answer).unwrap();
        assert_eq!((response.status, response.tag.as_deref()), (200, Some("\"7\"")));
        assert_eq!(response.text(), "{}");
        assert!(parse(&answer[..answer.len() - 1]).is_none());
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().bytes, b"");
    }
}
