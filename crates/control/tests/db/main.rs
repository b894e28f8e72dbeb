//! The database layer, on SQLite and on PostgreSQL: every case runs on both.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod locks;
mod nodes;
mod published;
mod resources;
mod tokens;

use pointsman_control::db::{Actor, Db, PageRequest};
use pointsman_services::{Postgres, skip};
use std::future::Future;
use std::sync::Arc;
use tempfile::TempDir;

/// A database that a case has for itself.
#[derive(Debug, Clone)]
struct Place {
    /// Its URL.
    url: String,
    _file: Option<Arc<TempDir>>,
    _server: Option<Arc<Postgres>>,
}

impl Place {
    fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/control.db", directory.path().display());
        Self { url, _file: Some(Arc::new(directory)), _server: None }
    }

    fn postgres(test: &str) -> Option<Self> {
        match Postgres::shared() {
            Ok(server) => {
                let url = server.database();
                Some(Self { url, _file: None, _server: Some(server) })
            }
            Err(why) => {
                skip(test, why);
                None
            }
        }
    }

    /// Opens it, again and again if need be.
    async fn open(&self) -> Db {
        Db::open(&self.url, 4).await.unwrap()
    }
}

/// When everything happens, unless a case says otherwise.
const NOW: u64 = 1_700_000_000_000;

fn ann() -> Actor {
    Actor { name: "ann".into(), from: Some("192.0.2.1".into()) }
}

fn page(limit: u32, after: Option<&str>) -> PageRequest {
    PageRequest { limit, after: after.map(str::to_owned) }
}

fn run(case: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(case);
}

/// Makes two tests of each case.
#[macro_export]
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $case() { $crate::run(super::$case($crate::Place::sqlite())); })+
        }
        mod postgres {
            $(#[test] fn $case() {
                let name = concat!(module_path!(), "::", stringify!($case));
                if let Some(place) = $crate::Place::postgres(name) {
                    $crate::run(super::$case(place));
                }
            })+
        }
    };
}
