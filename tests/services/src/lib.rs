//! Servers that tests talk to: started for them, in directories of their own, and gone with them,
//! also when a test is killed.
//!
//! Where one cannot run, its `start` says why; a test then prints a line with [`skip`].
#![forbid(unsafe_code)]

mod browser;
mod leash;
mod postgres;
mod s3;

pub use browser::Browser;
pub use postgres::Postgres;
pub use s3::S3;

/// Why a server cannot run here. Everything else that goes wrong is a panic: a failed test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says in the summary that a test, or a part of it, could not run here and why.
pub fn skip(test: &str, reason: impl std::fmt::Display) {
    println!("SKIP {test}: {reason}");
}
