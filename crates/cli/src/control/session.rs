//! What a login leaves behind: which control plane, with which token.

use super::ControlError;
use crate::args::fleet::AccessArgs;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A login, as it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Session {
    pub(crate) url: String,
    pub(crate) token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
}

/// Never shows the token: debug output ends in logs.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, token: _, ca } = self;
        f.debug_struct("Session").field("url", url).field("ca", ca).finish_non_exhaustive()
    }
}

/// Where the login is kept: `pointsman/fleet.json` in the user's configuration directory, by the
/// XDG Base Directory Specification, which says that a relative path is to be ignored.
pub(crate) fn file(
    variable: impl Fn(&'static str) -> Option<OsString>,
) -> Result<PathBuf, ControlError> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .ok_or(ControlError::NoHome)?;
    Ok(directory.join("pointsman/fleet.json"))
}

impl Session {
    /// Reads a login; `None`: there is none. One that others can read is refused: it holds a
    /// token.
    pub(crate) fn load(file: &Path) -> Result<Option<Self>, ControlError> {
        let failed = |source| ControlError::SessionFile { file: file.to_owned(), source };
        let mode = match fs::metadata(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?.permissions().mode() & 0o7777,
        };
        if mode & 0o077 != 0 {
            return Err(ControlError::SessionOpen { file: file.to_owned(), mode });
        }
        let text = fs::read(file).map_err(failed)?;
        let mut json = serde_json::Deserializer::from_slice(&text);
        let session = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let why = format!("{error}; log in again");
            ControlError::Session { file: file.to_owned(), why }
        })?;
        Ok(Some(session))
    }

    /// Writes the login: beside it, and renamed, so that a full disk leaves the last one.
    pub(crate) fn save(&self, file: &Path) -> Result<(), ControlError> {
        let write = || {
            let directory = file.parent().expect("invariant: the login is in a directory");
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            // Made with mode 0600.
            let mut new = tempfile::NamedTempFile::new_in(directory)?;
            let mut text = serde_json::to_vec_pretty(self).expect("invariant: a login is JSON");
            text.push(b'\n');
            new.write_all(&text)?;
            new.as_file().sync_all()?;
            new.persist(file).map_err(|error| error.error)
        };
        write()
            .map(drop)
            .map_err(|source| ControlError::SessionFile { file: file.to_owned(), source })
    }

    /// Removes the login; whether there was one.
    pub(crate) fn remove(file: &Path) -> Result<bool, ControlError> {
        match fs::remove_file(file) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ControlError::SessionFile { file: file.to_owned(), source }),
        }
    }
}

/// The URL of a control plane, in its one form.
pub(crate) fn control_url(text: &str) -> Result<Url, ControlError> {
    let bad = |why: &str| ControlError::BadUrl { url: text.to_owned(), why: why.to_owned() };
    let mut url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("its scheme is not http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it has a user or a password; tokens are given apart"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it has a query or a fragment"));
    }
    // So that a path before the API's own, as behind a proxy, is written in one way.
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// What a request needs, from the arguments, the environment, and the login.
///
/// A token goes only to the control plane that it was saved for.
pub(crate) fn resolve(
    args: &AccessArgs,
    token: Option<String>,
    saved: impl FnOnce() -> Result<Option<Session>, ControlError>,
) -> Result<Session, ControlError> {
    let given = args.url.as_deref().map(control_url).transpose()?;
    if let (Some(url), Some(token)) = (&given, &token) {
        let (url, token) = (url.to_string(), token.clone());
        return Ok(Session { url, token, ca: args.ca.clone() });
    }
    let saved = saved()?;
    let url = match (&given, &saved) {
        (Some(url), _) => url.to_string(),
        (None, Some(saved)) => control_url(&saved.url)?.to_string(),
        (None, None) => return Err(ControlError::NoControl),
    };
    let saved = match saved {
        Some(saved) if control_url(&saved.url)?.as_str() == url => Ok(saved),
        Some(saved) => Err(ControlError::OtherControl { saved: saved.url, url: url.clone() }),
        None => Err(ControlError::NoToken { url: url.clone() }),
    };
    match (token, saved) {
        (Some(token), saved) => {
            let ca = args.ca.clone().or_else(|| saved.ok().and_then(|saved| saved.ca));
            Ok(Session { url, token, ca })
        }
        (None, saved) => {
            let Session { token, ca, .. } = saved?;
            Ok(Session { url, token, ca: args.ca.clone().or(ca) })
        }
    }
}

/// A token as somebody typed or piped it.
pub(crate) fn token(text: &str) -> Result<String, ControlError> {
    let token = text.trim();
    match token {
        "" => Err(ControlError::Token("there is no token in what was given")),
        _ if token.starts_with("pme_") => Err(ControlError::Token(
            "this is a one-time token, with which a node enrols: see `pointsman-courier enroll`",
        )),
        _ if token.starts_with("pmc_") => Err(ControlError::Token(
            "this is a node's credential; `pointsman fleet` needs an API token (pmt_...)",
        )),
        _ if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(ControlError::Token("a token is one word of printable characters"))
        }
        _ => Ok(token.to_owned()),
    }
}

/// Whether others can read what is sent there.
pub(crate) fn is_open(url: &Url) -> bool {
    let local = match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    };
    url.scheme() == "http" && !local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: Option<&str>, ca: Option<&str>) -> AccessArgs {
        AccessArgs { url: url.map(str::to_owned), ca: ca.map(PathBuf::from) }
    }

    fn session(url: &str, token: &str, ca: Option<&str>) -> Session {
        Session { url: url.into(), token: token.into(), ca: ca.map(PathBuf::from) }
    }

    #[test]
    fn a_token_goes_to_the_control_plane_it_is_for_and_to_no_other() {
        let saved = session("https://a.example", "pmt_a", Some("/a.pem"));
        let with = |args: AccessArgs, token: Option<&str>| {
            resolve(&args, token.map(str::to_owned), || Ok(Some(saved.clone())))
        };
        let all = session("https://a.example/", "pmt_a", Some("/a.pem"));
        assert_eq!(with(args(None, None), None).unwrap(), all);
        assert_eq!(with(args(Some("https://a.example/"), None), None).unwrap(), all);
        let error = with(args(Some("https://b.example"), None), None).unwrap_err().to_string();
        assert!(error.contains("is not sent to https://b.example/"), "{error}");
        // Another scheme or port is another one.
        for url in ["http://a.example", "https://a.example:8600"] {
            assert!(with(args(Some(url), None), None).is_err(), "{url}");
        }
        let other = with(args(Some("https://b.example"), None), Some("pmt_b")).unwrap();
        assert_eq!(other, session("https://b.example/", "pmt_b", None));
        let other = with(args(None, Some("/b.pem")), Some("pmt_b")).unwrap();
        assert_eq!(other, session("https://a.example/", "pmt_b", Some("/b.pem")));
        assert_eq!(with(args(None, None), Some("pmt_b")).unwrap().ca, all.ca);
    }

    #[test]
    fn without_a_login_both_must_be_given() {
        let with = |url: Option<&str>, token: Option<&str>| {
            resolve(&args(url, None), token.map(str::to_owned), || Ok(None))
        };
        assert!(with(Some("http://a"), Some("pmt_a")).is_ok());
        assert!(matches!(with(Some("http://a"), None), Err(ControlError::NoToken { .. })));
        assert!(matches!(with(None, Some("pmt_a")), Err(ControlError::NoControl)));
        assert!(matches!(with(None, None), Err(ControlError::NoControl)));
        // An unreadable login is no obstacle where it is not needed.
        let broken = || Err(ControlError::NoHome);
        assert!(resolve(&args(Some("http://a"), None), Some("t".into()), broken).is_ok());
    }

    #[test]
    fn a_login_is_kept_where_nobody_else_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("new/pointsman/fleet.json");
        assert_eq!(Session::load(&file).unwrap(), None);
        assert!(!Session::remove(&file).unwrap());
        for token in ["pmt_a", "pmt_b"] {
            let session = session("http://a/", token, None);
            session.save(&file).unwrap();
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
            assert_eq!(Session::load(&file).unwrap(), Some(session));
        }
        let directory_mode = fs::metadata(file.parent().unwrap()).unwrap().permissions().mode();
        assert_eq!(directory_mode & 0o777, 0o700);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Session::load(&file).unwrap_err().to_string();
        assert!(error.contains("mode 0640") && error.contains("chmod 600"), "{error}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "{\"url\": \"http://a/\"}").unwrap();
        let error = Session::load(&file).unwrap_err().to_string();
        assert!(error.contains("missing field `token`"), "{error}");
        assert!(Session::remove(&file).unwrap());
        assert!(!format!("{:?}", session("u", "pmt_secret", None)).contains("secret"));
    }

    #[test]
    fn the_place_follows_the_base_directory_specification() {
        let with = |xdg: Option<&str>, home: Option<&str>| {
            file(|name| match name {
                "XDG_CONFIG_HOME" => xdg.map(OsString::from),
                _ => home.map(OsString::from),
            })
        };
        let place = |path: &str| PathBuf::from(path).join("pointsman/fleet.json");
        assert_eq!(with(Some("/x"), Some("/h")).unwrap(), place("/x"));
        for xdg in [None, Some(""), Some("relative")] {
            assert_eq!(with(xdg, Some("/h")).unwrap(), place("/h/.config"));
        }
        assert!(with(None, None).is_err());
    }

    #[test]
    fn urls_have_one_form_and_carry_no_secrets() {
        for text in
            ["https://a.example:8600", "https://a.example:8600/", "HTTPS://A.example:8600//"]
        {
            assert_eq!(control_url(text).unwrap().as_str(), "https://a.example:8600/");
        }
        assert_eq!(control_url("http://a/x/").unwrap().as_str(), "http://a/x");
        for bad in ["a.example", "", "ftp://a", "http://u:p@a", "http://a?x", "http://a#x", "http:"]
        {
            assert!(control_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_secrets_than_api_tokens_are_told_apart() {
        assert_eq!(token(" pmt_abc\n").unwrap(), "pmt_abc");
        for (bad, message) in [
            ("", "no token"),
            (" \n", "no token"),
            ("pme_x", "one-time"),
            ("pmc_x", "credential"),
            ("pmt_a pmt_b", "one word"),
            ("pmt_é", "printable"),
            ("pmt_a\r\nX-Header: 1", "one word"),
        ] {
            let error = token(bad).unwrap_err().to_string();
            assert!(error.contains(message), "{bad:?}: {error}");
        }
    }
}
