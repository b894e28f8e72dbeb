//! A control plane that gives canned answers, over HTTP and HTTPS; and a user of the command.

use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::document::DocumentError;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::Serialize;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tempfile::TempDir;

pub(crate) const TOKEN: &str = "pmt_tested";

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// `GET /v1/nodes?limit=1000`.
    pub(crate) line: String,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn is(&self, start: &str) -> bool {
        self.line == start || self.line.starts_with(&format!("{start}?"))
    }
}

/// An answer, with its head.
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    pub(crate) fn new(status: &str, kind: &str, body: &[u8]) -> Self {
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        Self([head.as_bytes(), body].concat())
    }

    /// Anything at all.
    pub(crate) fn raw(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(crate) fn ok(body: &impl Serialize) -> Self {
        Self::new("200 OK", "application/json", &serde_json::to_vec(body).unwrap())
    }

    pub(crate) fn octets(body: &[u8]) -> Self {
        Self::new("200 OK", "application/octet-stream", body)
    }

    pub(crate) fn done() -> Self {
        Self::raw(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
    }

    pub(crate) fn problem(status: u16, kind: ProblemKind, errors: &[(&str, &str)]) -> Self {
        let errors = errors.iter().map(|(pointer, message)| DocumentError {
            pointer: (*pointer).into(),
            message: (*message).into(),
        });
        let title = format!("the control plane says {status}");
        let problem = Problem { kind, status, title, errors: errors.collect() };
        let body = serde_json::to_vec(&problem).unwrap();
        Self::new(&format!("{status} Problem"), "application/problem+json", &body)
    }

    pub(crate) fn not_found() -> Self {
        Self::problem(404, ProblemKind::NotFound, &[])
    }

    pub(crate) fn conflict() -> Self {
        Self::problem(412, ProblemKind::PreconditionFailed, &[])
    }
}

/// A listener that answers every request with one function.
pub(crate) struct FakeControl {
    scheme: &'static str,
    port: u16,
    /// The certificate to trust, with TLS.
    pub(crate) ca: Option<String>,
    requests: Arc<Mutex<Vec<Request>>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeControl {
    pub(crate) fn new(serve: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        Self::with(None, serve)
    }

    /// One that speaks TLS, for `localhost`.
    pub(crate) fn tls(serve: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
        let mut control = Self::with(Some(Arc::new(config)), serve);
        control.ca = Some(made.cert.pem());
        control
    }

    fn with(
        tls: Option<Arc<ServerConfig>>,
        mut serve: impl FnMut(&Request) -> Answer + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let thread = std::thread::spawn(move || {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                // A connection of one zero byte is the sign to stop; one without a request is a
                // client that changed its mind.
                let mut first = [1];
                if stream.peek(&mut first).unwrap_or(0) == 1 && first == [0] {
                    return;
                }
                let mut served = |stream: &mut dyn ReadWrite| {
                    let Some(request) = read(stream) else { return };
                    let Answer(answer) = serve(&request);
                    seen.lock().unwrap().push(request);
                    // A command that was killed, or has heard enough, reads no answer.
                    let _ = stream.write_all(&answer);
                    let _ = stream.flush();
                };
                match &tls {
                    None => served(&mut stream),
                    Some(config) => {
                        let session = ServerConnection::new(Arc::clone(config)).unwrap();
                        let mut stream = StreamOwned::new(session, stream);
                        served(&mut stream);
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                    }
                }
            }
        });
        Self { scheme, port, ca: None, requests, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://localhost:{}/", self.scheme, self.port)
    }

    /// The requests that were answered.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Their first lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.line).collect()
    }
}

impl Drop for FakeControl {
    fn drop(&mut self) {
        if let (Some(thread), false) = (self.thread.take(), std::thread::panicking()) {
            TcpStream::connect(("127.0.0.1", self.port)).unwrap().write_all(&[0]).unwrap();
            thread.join().unwrap();
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// The connection's request; `None`: it had none.
fn read(stream: &mut dyn ReadWrite) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let line = head.lines().next()?.strip_suffix(" HTTP/1.1")?.to_owned();
    let mut request = Request { line, head, body: vec![] };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    // A command that found its limit may hang up.
    stream.read_exact(&mut body).ok()?;
    request.body = body;
    Some(request)
}

/// Somebody who types commands: a home directory and an environment of his own.
pub(crate) struct User {
    home: TempDir,
}

impl User {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn login_file(&self) -> PathBuf {
        self.home().join("config/pointsman/fleet.json")
    }

    /// Writes a file in the home directory.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.home().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `pointsman fleet ...`, without a control plane.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("TMPDIR", self.home())
            .env("TERM", "xterm")
            .env("XDG_CONFIG_HOME", self.home().join("config"))
            .arg("fleet")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The same, told by the environment where the control plane is.
    pub(crate) fn at(&self, control: &FakeControl, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env("POINTSMAN_CONTROL", control.url()).env("POINTSMAN_TOKEN", TOKEN);
        command
    }

    pub(crate) fn run(&self, control: &FakeControl, arguments: &[&str]) -> Output {
        self.at(control, arguments).output().unwrap()
    }

    /// Gives something on standard input.
    pub(crate) fn tell(command: &mut Command, input: &[u8]) -> Output {
        let mut child: Child = command.stdin(Stdio::piped()).spawn().unwrap();
        // The command may end before it has read all.
        let _: io::Result<()> = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }
}

pub(crate) fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}
