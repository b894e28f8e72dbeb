//! What the API and the web pages both do: one function for each thing, with its checks, its audit
//! entry and its event.

mod check;
mod nodes;
mod policies;
mod programs;
mod tokens;

pub(crate) use check::is_xdp;
pub use check::{builtin_summary, check_policy};
pub use nodes::NodeFilter;
pub use tokens::{NewSession, first_token, make_token};
