//! The client against a real listener that speaks canned HTTP.

use super::*;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::thread::JoinHandle;
use tempfile::TempDir;

/// A listener that serves one connection with `serve`, and keeps what that returns.
struct Node<T> {
    directory: TempDir,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Node<T> {
    fn new(serve: impl FnOnce(StdUnixStream) -> T + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("node.sock")).unwrap();
        let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
        Self { directory, thread }
    }

    fn client(&self) -> Client {
        Client::new(&self.directory.path().join("node.sock"), false)
    }
}

/// Reads a request with its body; gives both as text.
fn request(stream: &mut StdUnixStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// A node that answers one request with `text`, closes, and gives the request.
fn answering(text: String) -> Node<String> {
    Node::new(move |mut stream| {
        let request = request(&mut stream);
        stream.write_all(text.as_bytes()).unwrap();
        request
    })
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

const DRAINED: &str =
    r#"{"results":[{"step":"detach a\u001b[2J/xdp","outcome":"done","micros":7}],"failures":[]}"#;

#[test]
fn a_request_carries_method_query_and_document() {
    let plan = r#"{"generation":3,"steps":[],"refusals":[],"notes":[],"hooks":[]}"#;
    let node = answering(answer("200 OK", "application/json", plan));
    let plan = run(node.client().plan(b"{\"node\":1}".to_vec(), true)).unwrap();
    assert_eq!(plan.generation, 3);
    let request = node.thread.join().unwrap();
    assert!(request.starts_with("POST /v1/plan?allow_gap=true HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"node\":1}"), "{request}");
}

#[test]
fn control_characters_are_kept_for_json_only() {
    for (verbatim, expected) in [(false, "detach a?[2J/xdp"), (true, "detach a\u{1b}[2J/xdp")] {
        let node = answering(answer("200 OK", "application/json", DRAINED));
        let client = Client { verbatim, ..node.client() };
        assert_eq!(run(client.drain()).unwrap().results[0].step, expected);
    }
}

#[test]
fn a_problem_keeps_its_parts() {
    let problem = r#"{"kind":"invalid_document","status":422,"title":"not valid",
        "errors":[{"pointer":"/node","message":"expected a string"}]}"#;
    let node = answering(answer("422 Unprocessable", "application/problem+json", problem));
    match run(node.client().apply(vec![], false, None)) {
        Err(ClientError::Problem { problem, .. }) => {
            assert_eq!(problem.kind, ProblemKind::InvalidDocument);
            assert_eq!(problem.errors[0].to_string(), "/node: expected a string");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_without_a_problem_is_not_taken_for_the_nodes() {
    let node = answering(answer("502 Bad Gateway", "text/html", "<h1>nginx</h1>"));
    let error = run(node.client().status()).unwrap_err();
    assert!(matches!(error, ClientError::Strange { .. }), "{error:?}");
    assert!(error.to_string().contains("502 Bad Gateway"), "{error}");
}

#[test]
fn a_malformed_answer_names_the_place() {
    let counters = r#"{"at_unix_ms":1,"hooks":[{"hook":{"interface":"a","kind":"tc"}}]}"#;
    let node = answering(answer("200 OK", "application/json", counters));
    let error = run(node.client().counters()).unwrap_err();
    assert!(matches!(error, ClientError::Malformed { .. }), "{error:?}");
    assert!(error.to_string().contains("hooks[0].hook.kind"), "{error}");

    let node = answering(answer("200 OK", "application/json", r#"{"at_unix_ms":1,"#));
    let error = run(node.client().counters()).unwrap_err();
    assert!(error.to_string().contains("EOF while parsing"), "{error}");
}

#[test]
fn an_answer_that_is_not_http_is_an_error() {
    let node = answering("220 mail.example ESMTP\r\n\r\n".into());
    let error = run(node.client().status()).unwrap_err();
    assert!(matches!(error, ClientError::Http { .. }), "{error:?}");
}

#[test]
fn a_connection_closed_early_says_whether_the_host_may_have_changed() {
    // Before the answer, in its head, and in its body.
    for text in
        ["", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"]
    {
        let error = run(answering(text.into()).client().status()).unwrap_err();
        assert!(matches!(error, ClientError::Closed { .. }), "{text:?}: {error:?}");
        assert!(!error.to_string().contains("unknown"), "{error}");
        let error = run(answering(text.into()).client().apply(vec![], false, None)).unwrap_err();
        assert!(error.to_string().contains("is unknown"), "{error}");
    }
}

#[test]
fn an_answer_given_before_the_whole_document_was_read_is_heard() {
    let problem = r#"{"kind":"too_large","status":413,"title":"too large"}"#;
    let text = answer("413 Too Large", "application/problem+json", problem);
    let node = Node::new(move |mut stream| {
        stream.read_exact(&mut [0; 100]).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        // As servers do that want their answer to be heard: end the answer, read to the end.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let error = run(node.client().apply(vec![b' '; 4 << 20], false, None)).unwrap_err();
    assert!(matches!(error, ClientError::Problem { .. }), "{error:?}");
}

#[test]
fn a_huge_answer_is_cut_off() {
    // Endless, so that only a limit ends it.
    let node = Node::new(|mut stream| {
        request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        let chunk = [b"400\r\n", [b' '; 0x400].as_slice(), b"\r\n"].concat();
        while stream.write_all(&chunk).is_ok() {}
    });
    let client = Client { max_answer: 1 << 20, ..node.client() };
    let error = run(client.status()).unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { limit: 1_048_576, .. }), "{error:?}");
    node.thread.join().unwrap();
}

#[test]
fn silence_ends_with_a_timeout() {
    let node = Node::new(|mut stream| stream.read_to_end(&mut Vec::new()).unwrap());
    let client = Client { answer_timeout: Duration::from_millis(20), ..node.client() };
    let error = run(client.status()).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    node.thread.join().unwrap();
}

#[test]
fn a_full_queue_ends_with_a_timeout() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.sock");
    let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    // A queue of length 0 holds one connection.
    let _first = StdUnixStream::connect(&path).unwrap();
    let client = Client { connect_timeout: Duration::from_millis(20), ..Client::new(&path, false) };
    let error = run(client.status()).unwrap_err();
    assert!(matches!(error, ClientError::ConnectTimeout { .. }), "{error:?}");
}

#[test]
fn a_socket_that_is_not_there_or_dead_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.sock");
    let error = run(Client::new(&path, false).status()).unwrap_err();
    assert!(matches!(error, ClientError::Missing { .. }), "{error:?}");
    assert!(error.to_string().contains("node.sock: start pointsman-node"), "{error}");

    drop(UnixListener::bind(&path).unwrap());
    let error = run(Client::new(&path, false).status()).unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error:?}");

    let long = Path::new("/").join("x".repeat(200));
    let error = run(Client::new(&long, false).status()).unwrap_err();
    assert!(error.to_string().contains("name too long"), "{error}");
}
