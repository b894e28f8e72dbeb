//! The web pages: what operators see of a fleet, and change with a browser.
//!
//! Everything is done by the functions that the API uses. Pages work without scripts: forms post
//! and are redirected. With scripts, htmx puts the answers into the page and SortableJS lets
//! programs be dragged. Nothing comes from anywhere but here, and no page has a script or a style
//! in it (the Content-Security-Policy of all answers).

mod assets;
mod audit;
mod diff;
mod editor;
mod frame;
mod login;
mod node;
mod nodes;
mod policies;
mod programs;
mod publish;
mod publisher;
pub mod rates;
mod session;
mod text;
mod tokens;

use crate::app::App;
use crate::extract::MAX_JSON;
use axum::Router;
use axum::extract::DefaultBodyLimit;

/// Its routes.
pub fn router() -> Router<App> {
    let pages = Router::new()
        .merge(login::router())
        .merge(nodes::router())
        .merge(node::router())
        .merge(policies::router())
        .merge(editor::router())
        .merge(publish::router())
        .merge(audit::router())
        .merge(tokens::router())
        .layer(DefaultBodyLimit::max(MAX_JSON));
    // Uploads have a limit of their own.
    pages.merge(programs::router()).merge(assets::router())
}
