//! Whole names of programs, of which the kernel keeps the first 15 characters. Pure.

/// How much of a name the kernel keeps (`BPF_OBJ_NAME_LEN` without its zero byte).
pub const KERNEL_NAME: usize = 15;

/// The function that the kernel calls `name`: the only one of `functions`, from the program's
/// type information, that starts so. Several may: then the exact one, or nobody knows and the
/// name stays cut.
#[must_use]
pub fn whole<'a>(name: &str, functions: impl IntoIterator<Item = &'a str>) -> String {
    if name.len() < KERNEL_NAME {
        return name.to_owned();
    }
    let mut found = None;
    for function in functions.into_iter().filter(|function| function.starts_with(name)) {
        if function == name || found.is_some() {
            return name.to_owned();
        }
        found = Some(function);
    }
    found.unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cut_name_grows_to_the_only_function_it_can_be() {
        let functions = ["xdp_drop_packets_of_hosts", "other"];
        assert_eq!(whole("xdp_drop_packet", functions), functions[0]);
        assert_eq!(whole("short", ["shorter"]), "short");
        let two = ["xdp_drop_packets", "xdp_drop_packet_not"];
        assert_eq!(whole("xdp_drop_packet", two), "xdp_drop_packet");
        let exact = ["xdp_drop_packets", "xdp_drop_packet"];
        assert_eq!(whole("xdp_drop_packet", exact), "xdp_drop_packet");
        assert_eq!(whole("xdp_drop_packet", []), "xdp_drop_packet");
    }

    proptest! {
        #[test]
        fn a_name_never_loses_its_beginning(
            name in "a{13}[a-b]{0,4}",
            functions in prop::collection::vec("a{13}[a-b]{0,5}", 0..4),
        ) {
            let whole = whole(&name, functions.iter().map(String::as_str));
            prop_assert!(whole.starts_with(&name));
            prop_assert!(whole == name || functions.contains(&whole));
            // It is the whole one only where it can be no other.
            let candidates = functions.iter().filter(|f| f.starts_with(&name)).count();
            let cut = name.len() >= KERNEL_NAME;
            prop_assert!(whole == name || cut && candidates == 1);
            prop_assert!(!cut || candidates != 1 || functions.contains(&whole));
        }

        #[test]
        fn any_names_will_do(
            name in any::<String>(),
            functions in prop::collection::vec(any::<String>(), 0..4),
        ) {
            prop_assert!(whole(&name, functions.iter().map(String::as_str)).starts_with(&name));
        }
    }
}
