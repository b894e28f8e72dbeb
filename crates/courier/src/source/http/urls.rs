//! URLs as directories and for people, and why one cannot be reached.

use crate::source::SourceError;
use std::error::Error as _;
use std::fmt::Display;
use url::Url;

/// The same URL as the name of a directory, so that names can be joined to it.
pub(crate) fn as_directory(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// A URL for people, without the secrets that may be in it: a password, a signature.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot have them.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    let signed = url.query().is_some();
    url.set_query(None);
    url.set_fragment(None);
    if signed { format!("{url}?...") } else { url.to_string() }
}

pub(super) fn unreachable(url: &Url, error: reqwest::Error) -> SourceError {
    let why = innermost(&error.without_url());
    // What rustls says of an authority that it does not know.
    let hint = if why.contains("UnknownIssuer") {
        "; if that is right, name its authority with --ca"
    } else {
        ""
    };
    SourceError::Unreachable { what: shown(url), why: format!("{why}{hint}") }
}

/// The cause behind all wrappings.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let display: &dyn Display = &error;
        text = display.to_string();
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_secrets() {
        let url = |text| Url::parse(text).unwrap();
        assert_eq!(shown(&url("https://me:pw@h/x")), "https://h/x");
        assert_eq!(shown(&url("https://h/x?X-Amz-Signature=1#f")), "https://h/x?...");
        assert_eq!(as_directory(url("https://h/a/b")).as_str(), "https://h/a/b/");
        assert_eq!(as_directory(url("https://h/a/?q")).as_str(), "https://h/a/");
    }
}
