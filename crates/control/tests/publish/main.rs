//! Publishing, on SQLite and on PostgreSQL: what becomes visible, and what stays true whatever
//! fails between two steps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auditor;
mod cases;
mod child;
mod faulty;
mod keys;
mod kills;
mod lab;
mod publishers;
mod restored;
mod s3;
mod stores;

use lab::{Place, run};

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
