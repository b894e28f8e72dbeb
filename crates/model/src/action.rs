//! XDP actions: what a program answers, and for which answers a chain goes on.

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use utoipa::ToSchema;

/// An XDP verdict, numbered as `enum xdp_action` in `linux/bpf.h`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Drop, and raise the `xdp_exception` tracepoint.
    Aborted = 0,
    /// Drop.
    Drop = 1,
    /// Hand to the network stack.
    Pass = 2,
    /// Send back out of the same interface.
    Tx = 3,
    /// Hand to another interface, CPU or AF_XDP socket.
    Redirect = 4,
}

impl Action {
    /// All actions, in the kernel's order.
    pub const ALL: [Self; 5] = [Self::Aborted, Self::Drop, Self::Pass, Self::Tx, Self::Redirect];

    /// The kernel's number.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The name used in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::Drop => "drop",
            Self::Pass => "pass",
            Self::Tx => "tx",
            Self::Redirect => "redirect",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A set of actions: the verdicts after which a chain goes on to its next program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = Vec<Action>)]
pub struct ActionSet(u8);

impl ActionSet {
    /// No action: whatever the program answers is final.
    pub const EMPTY: Self = Self(0);
    /// Only `pass`: the default.
    pub const PASS: Self = Self(1 << Action::Pass as u8);

    /// Whether the set holds `action`.
    #[must_use]
    pub const fn contains(self, action: Action) -> bool {
        self.0 & (1 << action as u8) != 0
    }

    /// The set with `action` added.
    #[must_use]
    pub const fn with(self, action: Action) -> Self {
        Self(self.0 | 1 << action as u8)
    }

    /// The actions in the set, in the kernel's order.
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |&action| self.contains(action))
    }

    /// How many actions the set holds.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Default for ActionSet {
    fn default() -> Self {
        Self::PASS
    }
}

impl FromIterator<Action> for ActionSet {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Display for ActionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.pad("none");
        }
        let names: Vec<_> = self.iter().map(Action::name).collect();
        f.pad(&names.join(","))
    }
}

impl fmt::Debug for ActionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl Serialize for ActionSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for ActionSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Actions;
        impl<'de> Visitor<'de> for Actions {
            type Value = ActionSet;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of actions (aborted, drop, pass, tx, redirect)")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ActionSet, A::Error> {
                let mut set = ActionSet::EMPTY;
                while let Some(action) = seq.next_element::<Action>()? {
                    if set.contains(action) {
                        return Err(A::Error::custom(format_args!("{action} is listed twice")));
                    }
                    set = set.with(action);
                }
                Ok(set)
            }
        }
        deserializer.deserialize_seq(Actions)
    }
}

/// How often each verdict was given. Counts packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Verdicts {
    /// `XDP_ABORTED`.
    pub aborted: u64,
    /// `XDP_DROP`.
    pub drop: u64,
    /// `XDP_PASS`.
    pub pass: u64,
    /// `XDP_TX`.
    pub tx: u64,
    /// `XDP_REDIRECT`.
    pub redirect: u64,
    /// A number above 4, which the kernel treats as aborted.
    pub invalid: u64,
}

impl Verdicts {
    /// Counters per verdict: the five actions and "invalid".
    pub const LEN: usize = 6;

    /// The counts in the kernel's order, "invalid" last.
    #[must_use]
    pub const fn to_array(self) -> [u64; Self::LEN] {
        let Self { aborted, drop, pass, tx, redirect, invalid } = self;
        [aborted, drop, pass, tx, redirect, invalid]
    }

    /// The inverse of [`Self::to_array`].
    #[must_use]
    pub const fn from_array(counts: [u64; Self::LEN]) -> Self {
        let [aborted, drop, pass, tx, redirect, invalid] = counts;
        Self { aborted, drop, pass, tx, redirect, invalid }
    }

    /// All packets counted.
    #[must_use]
    pub fn total(self) -> u64 {
        self.to_array().iter().fold(0, |sum, &count| sum.wrapping_add(count))
    }

    /// The count of one action.
    #[must_use]
    pub const fn get(self, action: Action) -> u64 {
        self.to_array()[action as usize]
    }
}

impl std::ops::Add for Verdicts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let (left, right) = (self.to_array(), other.to_array());
        Self::from_array(std::array::from_fn(|at| left[at].wrapping_add(right[at])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_kernels() {
        let codes: Vec<_> = Action::ALL.iter().map(|action| action.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_set_reads_and_writes_as_a_list() {
        let set: ActionSet = serde_json::from_str(r#"["drop","pass"]"#).unwrap();
        assert_eq!(set, ActionSet::PASS.with(Action::Drop));
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["drop","pass"]"#);
        assert_eq!(serde_json::from_str::<ActionSet>("[]").unwrap(), ActionSet::EMPTY);
        assert_eq!(set.to_string(), "drop,pass");
    }

    #[test]
    fn an_action_named_twice_is_refused() {
        let error = serde_json::from_str::<ActionSet>(r#"["pass","pass"]"#).unwrap_err();
        assert!(error.to_string().contains("pass is listed twice"), "{error}");
    }
}
