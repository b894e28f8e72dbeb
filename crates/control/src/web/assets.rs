//! Styles and scripts, in the binary. Their addresses have their hash in them: browsers keep them
//! for good, and a new version has new addresses.

use crate::app::App;
use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use pointsman_model::Sha256;
use std::sync::LazyLock;

/// How many digits of the hash are in the address.
const DIGITS: usize = 16;

struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

static ALL: [Asset; 5] = [
    Asset {
        name: "style.css",
        kind: "text/css; charset=utf-8",
        bytes: include_bytes!("../../assets/style.css"),
    },
    Asset {
        name: "htmx.js",
        kind: JAVASCRIPT,
        bytes: include_bytes!("../../assets/htmx-2.0.11.min.js"),
    },
    Asset {
        name: "sortable.js",
        kind: JAVASCRIPT,
        bytes: include_bytes!("../../assets/sortable-1.15.7.min.js"),
    },
    Asset { name: "pages.js", kind: JAVASCRIPT, bytes: include_bytes!("../../assets/pages.js") },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        bytes: include_bytes!("../../assets/icon.svg"),
    },
];

static URLS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let url = |asset: &Asset| {
        let hash = Sha256::of(asset.bytes).to_string();
        format!("/assets/{}/{}", &hash[..DIGITS], asset.name)
    };
    ALL.iter().map(url).collect()
});

/// The address of an asset.
///
/// # Panics
/// There is none of that name: templates name those that there are.
pub(super) fn url(name: &str) -> &'static str {
    let at = ALL.iter().position(|asset| asset.name == name);
    &URLS[at.expect("invariant: templates name assets that there are")]
}

pub(super) fn router() -> Router<App> {
    Router::new().route("/assets/{hash}/{name}", get(asset))
}

async fn asset(Path((hash, name)): Path<(String, String)>) -> Response {
    let wanted = format!("/assets/{hash}/{name}");
    let Some(at) = URLS.iter().position(|url| *url == wanted) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, ALL[at].kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, ALL[at].bytes).into_response()
}
