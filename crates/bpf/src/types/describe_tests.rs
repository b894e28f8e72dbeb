use super::*;
use libbpf_sys as sys;
use std::ffi::{CString, c_int};

/// Makes BTF with `build`, which adds types to it, and gives the descriptions of types 1 to `last`.
fn described(last: u32, build: impl FnOnce(*mut sys::btf)) -> Vec<Option<Description>> {
    // SAFETY: the BTF is ours until it is freed, and the raw bytes live as long as it does.
    let bytes = unsafe {
        let btf = sys::btf__new_empty();
        build(btf);
        let mut size = 0;
        let raw = sys::btf__raw_data(btf, &raw mut size);
        let bytes = std::slice::from_raw_parts(raw.cast::<u8>(), size as usize).to_vec();
        sys::btf__free(btf);
        bytes
    };
    let file = std::env::temp_dir().join(format!(
        "pointsman-describe-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&file, bytes).unwrap();
    let btf = Btf::from_path(&file);
    std::fs::remove_file(&file).unwrap();
    let btf = btf.unwrap();
    (1..=last).map(|id| describe(&btf, TypeId::from(id))).collect()
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn add_int(btf: *mut sys::btf, name: &str, bytes: u64, encoding: u32) {
    // SAFETY: the BTF is the caller's, the name is zero-terminated and copied.
    unsafe { sys::btf__add_int(btf, c(name).as_ptr(), bytes, encoding as c_int) };
}

fn add_struct(btf: *mut sys::btf, name: &str, bytes: u32, fields: &[(&str, c_int, u32, u32)]) {
    // SAFETY: as above.
    unsafe {
        sys::btf__add_struct(btf, c(name).as_ptr(), bytes);
        for &(name, ty, offset, bits) in fields {
            sys::btf__add_field(btf, c(name).as_ptr(), ty, offset, bits);
        }
    }
}

#[test]
fn everything_that_decides_is_in_the_text() {
    let all = described(9, |btf| {
        add_int(btf, "unsigned int", 4, 0);
        add_int(btf, "long", 8, sys::BTF_INT_SIGNED);
        // SAFETY: the BTF lives, names are zero-terminated and copied.
        unsafe {
            sys::btf__add_array(btf, 1, 1, 3);
            sys::btf__add_typedef(btf, c("u32").as_ptr(), 1);
            sys::btf__add_enum(btf, c("colour").as_ptr(), 4);
            sys::btf__add_enum_value(btf, c("RED").as_ptr(), 0);
            sys::btf__add_enum_value(btf, c("BLUE").as_ptr(), -3);
            sys::btf__add_ptr(btf, 2);
        }
        add_struct(btf, "bpf_timer", 16, &[("opaque", 2, 0, 0)]);
        let fields =
            [("list", 3, 0, 0), ("flag", 1, 96, 1), ("is", 5, 128, 0), ("timer", 7, 192, 0)];
        add_struct(btf, "limit", 40, &fields);
        add_struct(btf, "odd name{", 4, &[("", 4, 0, 0)]);
    });
    let texts: Vec<_> = all.iter().map(|d| d.as_ref().unwrap().text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "u32",
            "s64",
            "u32[3]",
            "u32",
            "enum colour{RED=0;BLUE=-3;} of 4 bytes",
            "pointer to long",
            "struct bpf_timer{s64 opaque@0;} of 16 bytes",
            "struct limit{u32[3] list@0;u32 flag:1@bit 96;enum colour{RED=0;BLUE=-3;} of 4 bytes \
             is@16;struct bpf_timer{s64 opaque@0;} of 16 bytes timer@24;} of 40 bytes",
            "struct odd\\20.name\\7b.{u32 @0;} of 4 bytes",
        ]
    );
    let callbacks: Vec<_> = all.iter().map(|d| d.as_ref().unwrap().callbacks).collect();
    assert_eq!(callbacks.iter().filter(|&&callbacks| callbacks).count(), 2);
    assert!(callbacks[6] && callbacks[7]);
}

#[test]
fn a_long_text_is_told_by_its_beginning_and_a_hash() {
    let wide = |last: &'static str| {
        described(2, |btf| {
            add_int(btf, "int", 4, 0);
            let names: Vec<_> = (0..200).map(|at| format!("field_{at}")).collect();
            let mut fields: Vec<_> =
                names.iter().zip(0..).map(|(name, at)| (name.as_str(), 1, 32 * at, 0)).collect();
            fields[199].0 = last;
            add_struct(btf, "wide", 800, &fields);
        })
    };
    let (one, other) = (wide("one")[1].clone().unwrap(), wide("two")[1].clone().unwrap());
    assert!(one.text.len() < 1200 && one.text.contains("... sha256:"), "{}", one.text);
    assert_ne!(one, other);
    assert_eq!(one.text[..1000], other.text[..1000]);
}

#[test]
fn hostile_types_have_no_description_and_end() {
    // Each level twice the one below: without a limit 2^40 fields.
    let doubled = described(41, |btf| {
        add_int(btf, "int", 4, 0);
        for level in 1..=40 {
            add_struct(btf, "s", 4, &[("a", level, 0, 0), ("b", level, 0, 0)]);
        }
    });
    assert!(doubled[0].is_some() && doubled[5].is_some());
    assert_eq!(doubled[40], None);
    let long = "n".repeat(100_000);
    let named = described(2, |btf| {
        add_int(btf, "int", 4, 0);
        let fields = vec![(long.as_str(), 1, 0, 0); 100];
        add_struct(btf, "s", 4, &fields);
    });
    assert_eq!(named[1], None);
    // A structure in itself, and a typedef of itself.
    let rings = described(2, |btf| {
        add_struct(btf, "s", 4, &[("s", 1, 0, 0)]);
        // SAFETY: the BTF lives, the name is zero-terminated and copied.
        unsafe { sys::btf__add_typedef(btf, c("t").as_ptr(), 2) };
    });
    assert_eq!(rings, [None, None]);
    assert_eq!(described(0, |_| {}), []);
}
