//! In which order the programs of a dispatcher run. Pure.

use std::cmp::Ordering;

/// What decides a program's place: libxdp's `cmp_xdp_programs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank<'a> {
    /// The priority: the lowest runs first.
    pub priority: u32,
    /// The whole name of its function.
    pub name: &'a str,
    /// Of a program in the kernel: its tag and when it was loaded, in nanoseconds since boot.
    pub loaded: Option<([u8; 8], u64)>,
    /// How many instructions its author's object has. Compared between programs that are not
    /// loaded yet.
    pub instructions: usize,
}

/// Compares two programs.
#[must_use]
pub fn compare(one: &Rank<'_>, other: &Rank<'_>) -> Ordering {
    let named = (one.priority, one.name.as_bytes()).cmp(&(other.priority, other.name.as_bytes()));
    named.then_with(|| match (one.loaded, other.loaded) {
        (Some(one), Some(other)) => one.cmp(&other),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.instructions.cmp(&other.instructions),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parts = (u32, String, Option<([u8; 8], u64)>, usize);

    fn parts() -> impl Strategy<Value = Parts> {
        // Few values of each, so that ties are frequent.
        let loaded = prop::option::of((prop::array::uniform8(0u8..2), 0u64..3));
        (0u32..3, "[ab]{0,2}", loaded, 0usize..3)
    }

    fn rank((priority, name, loaded, instructions): &Parts) -> Rank<'_> {
        Rank { priority: *priority, name, loaded: *loaded, instructions: *instructions }
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in parts(), b in parts(), c in parts()) {
            let (a, b, c) = (rank(&a), rank(&b), rank(&c));
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn priority_decides_before_anything_else(a in parts(), b in parts()) {
            if a.0 != b.0 {
                prop_assert_eq!(compare(&rank(&a), &rank(&b)), a.0.cmp(&b.0));
            }
        }
    }

    #[test]
    fn ties_are_broken_in_libxdps_order() {
        let new = Rank { priority: 50, name: "b", loaded: None, instructions: 2 };
        let old = Rank { loaded: Some(([1; 8], 5)), ..new };
        let steps = [
            Rank { priority: 10, name: "z", ..new },
            Rank { name: "a", instructions: 9, ..new },
            Rank { loaded: Some(([0; 8], 9)), ..new },
            old,
            Rank { loaded: Some(([1; 8], 6)), ..new },
            new,
            Rank { instructions: 3, ..new },
        ];
        assert!(steps.windows(2).all(|pair| compare(&pair[0], &pair[1]).is_lt()));
    }
}
