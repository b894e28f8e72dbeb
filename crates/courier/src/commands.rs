//! The commands beside `run`.

use crate::Secret;
use crate::args::{EnrollArgs, ForgetArgs};
use crate::drop_dir::Cache;
use crate::enrol::{Enrolling, EnrolmentReport, Owner, enrol};
use crate::enrolled::client_options;
use crate::files::read_small;
use crate::source::Client;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

/// The users of this host, for names.
const USERS: &str = "/etc/passwd";

/// The user that the packaged unit runs the courier as.
const USER: &str = "pointsman-courier";

/// More than a token has.
const MAX_TOKEN: usize = 4 << 10;

/// `enroll`.
///
/// # Errors
/// One line.
pub fn enroll(args: &EnrollArgs) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err(format!(
            "enroll writes {}, which the daemon believes only if it belongs to root: run it as root",
            args.node_config.display()
        ));
    }
    let owner = match &args.user {
        Some(name) => Some(owner(name, Path::new(USERS))?),
        None => owner(USER, Path::new(USERS)).ok(),
    };
    let absolute = |path: &std::path::PathBuf| {
        std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let ca = args.way.ca.as_ref().map(absolute).transpose()?;
    let proxy = args.way.proxy.as_deref().map(Secret::new);
    let options = client_options(ca.as_deref(), proxy.clone())?;
    let client = Client::new(&options).map_err(|error| error.to_string())?;
    if args.control.scheme() == "http" && !is_loopback(&args.control) {
        if !args.insecure && args.key_id.is_none() {
            return Err(
                "the control plane's URL is plain http: anybody on the way could answer in its \
                 place, and this node would believe him. Use https (--ca names an authority of \
                 your own), or say with --key-id which key is right, or --insecure"
                    .into(),
            );
        }
        tracing::warn!("the control plane's URL is http: the credential travels unencrypted");
    }
    let wanted = Enrolling {
        control: args.control.clone(),
        token: token(args.token_file.as_deref())?,
        config: args.config.clone(),
        node_config: args.node_config.clone(),
        owner,
        force: args.force,
        key_id: args.key_id,
        ca,
        proxy,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?;
    let report = runtime.block_on(enrol(&wanted, &client)).map_err(|error| error.to_string())?;
    show(&report, args.json).map_err(|error| format!("cannot write to standard output: {error}"))
}

fn show(report: &EnrolmentReport, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        let text = serde_json::to_string_pretty(report).expect("invariant: names and paths");
        return writeln!(out, "{text}");
    }
    let EnrolmentReport { fleet, node, key_id, config, node_config } = report;
    writeln!(out, "enrolled as node {node} of fleet {fleet}")?;
    writeln!(out, "key {key_id}: compare it with what `pointsman fleet status` shows")?;
    writeln!(out, "wrote {} and {}", node_config.display(), config.display())?;
    writeln!(out, "next: systemctl restart pointsman-node pointsman-courier")
}

fn is_loopback(url: &url::Url) -> bool {
    url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

/// Reads the token; it is on no command line, where every user of the host would see it.
fn token(file: Option<&Path>) -> Result<Secret, String> {
    let text = match file {
        Some(path) => {
            let (bytes, _) = read_small(path, MAX_TOKEN).map_err(|error| {
                format!("cannot read the token file {}: {error}", path.display())
            })?;
            bytes
        }
        None => {
            let stdin = io::stdin();
            let hidden = stdin.is_terminal().then(Hidden::new);
            let mut bytes = Vec::new();
            let failed = |error| format!("cannot read the token from standard input: {error}");
            if hidden.is_some() {
                let mut line = String::new();
                let _ = write!(io::stderr(), "one-time token: ");
                stdin.read_line(&mut line).map_err(failed)?;
                let _ = writeln!(io::stderr());
                bytes.extend_from_slice(line.as_bytes());
            } else {
                let mut limited = stdin.lock().take(MAX_TOKEN as u64);
                limited.read_to_end(&mut bytes).map_err(failed)?;
            }
            bytes
        }
    };
    let text = String::from_utf8(text).map_err(|_| "the token is no text".to_owned())?;
    Ok(Secret::new(text.trim()))
}

/// A terminal that does not show what is typed, until this is dropped.
#[derive(Debug)]
struct Hidden(Option<rustix::termios::Termios>);

impl Hidden {
    fn new() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let Ok(before) = tcgetattr(io::stdin()) else { return Self(None) };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let hidden = tcsetattr(io::stdin(), OptionalActions::Now, &quiet);
        Self(hidden.is_ok().then_some(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let now = rustix::termios::OptionalActions::Now;
            let _ = rustix::termios::tcsetattr(io::stdin(), now, before);
        }
    }
}

/// A user by name or number, and the group it has by itself.
fn owner(name: &str, users: &Path) -> Result<Owner, String> {
    let text = std::fs::read_to_string(users)
        .map_err(|error| format!("cannot read {}: {error}", users.display()))?;
    // passwd(5): name:password:uid:gid:...
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (user, uid) = (fields.next()?, fields.nth(1)?);
        if user != name && uid != name {
            return None;
        }
        Some(Owner { uid: uid.parse().ok()?, gid: fields.next()?.parse().ok()? })
    });
    found.ok_or_else(|| {
        format!(
            "there is no user {name} in {}; name one that is there with --user",
            users.display()
        )
    })
}

/// `forget`.
///
/// # Errors
/// One line.
pub fn forget(args: &ForgetArgs) -> Result<(), String> {
    let cache = Cache::open(&args.cache).map_err(|error| error.to_string())?;
    let kept = cache.recall().map_err(|error| error.to_string())?;
    let Some(mut memory) = kept.memory else {
        println!("nothing is remembered: any generation is handed over");
        return Ok(());
    };
    memory.any_generation = true;
    cache.remember(&memory, None).map_err(|error| error.to_string())?;
    println!(
        "generation {} was handed over last; the next record is handed over whatever its \
         generation. A daemon that has a newer one in force refuses it all the same: that node \
         follows the fleet again when a generation above {} is published",
        memory.generation, memory.generation
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names_and_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let users = directory.path().join("passwd");
        std::fs::write(&users, "root:x:0:0:root:/root:/bin/sh\ncourier:x:990:980::/:\nbad\n")
            .unwrap();
        assert_eq!(owner("courier", &users), Ok(Owner { uid: 990, gid: 980 }));
        assert_eq!(owner("990", &users), Ok(Owner { uid: 990, gid: 980 }));
        assert!(owner("bad", &users).unwrap_err().contains("--user"));
        assert!(owner("x", &users).unwrap_err().contains("no user x"));
    }

    #[test]
    fn a_token_comes_without_its_line_end_and_a_file_that_is_none_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "pme_abc\n").unwrap();
        assert_eq!(token(Some(&path)).unwrap().expose(), "pme_abc");
        std::fs::write(&path, "x".repeat(MAX_TOKEN + 1)).unwrap();
        assert!(token(Some(&path)).unwrap_err().contains("more than"));
        assert!(token(Some(directory.path())).unwrap_err().contains("no regular file"));
    }

    #[test]
    fn only_a_control_plane_on_this_host_is_spoken_to_in_the_clear_without_a_word() {
        let url = |text| url::Url::parse(text).unwrap();
        for near in ["http://127.0.0.1:8600", "http://localhost/", "http://[::1]:1/"] {
            assert!(is_loopback(&url(near)), "{near}");
        }
        for far in ["http://control/", "http://10.0.0.1/", "http://[fe80::1]/"] {
            assert!(!is_loopback(&url(far)), "{far}");
        }
    }
}
