//! What of a card goes to whom: receive queues, entries of the RSS table, locations of flow rules; and
//! what a document changes of a card, and gives back.
//!
//! In: what the card has, what is held already, what is asked for. Out: a queue, a table, a place,
//! what is to be set; or why not, in words for whoever asked. All functions are total, and
//! equal input gives equal output.

mod channels;
mod former;
mod interrupts;
mod locations;
mod outlook;
mod queues;
mod rss;
mod rules;

pub use channels::{Counts, CountsProblem, counts_wanted, leaves_held};
pub use former::{Former, Setting, setting};
pub use interrupts::beside;
pub use locations::{RuleTable, locations, placed};
pub use outlook::outlook;
pub use queues::{NoQueue, Queues, ReserveProblem, check_reserve, next_queue};
pub use rss::{FormerRss, NoQueueLeft, RssTable, rss_table};
pub use rules::{MadeRule, RuleChanges, rule_changes};
