//! What is said of a host, for whatever was found out about it.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use pointsman_model::api::Health;
use pointsman_model::host::{HostFacts, Libxdp, Loads, Mount};
use pointsman_plan::examine_host;
use proptest::option;
use proptest::prelude::*;

/// A host where everything works.
fn able() -> HostFacts {
    HostFacts {
        kernel: "6.12.57".into(),
        loads: Ok(Loads { jited: true, stack_step: 16, tells_features: true }),
        bpffs: Mount { path: "/sys/fs/bpf".into(), is_bpffs: Ok(true) },
        jit_setting: Some(1),
        btf: "/sys/kernel/btf/vmlinux".into(),
        has_btf: true,
        freplace: Ok(()),
        lockdown: Some("none".into()),
        tcx: Ok(()),
        libxdp: Some(Libxdp { file: "/usr/lib/bpf/xdp-dispatcher.o".into(), version: 3 }),
        dispatcher_version: 3,
    }
}

/// A host where little does.
fn limited() -> HostFacts {
    HostFacts {
        kernel: "6.1.0".into(),
        loads: Ok(Loads { jited: false, stack_step: 32, tells_features: false }),
        bpffs: Mount { path: "/tmp".into(), is_bpffs: Ok(false) },
        jit_setting: None,
        has_btf: false,
        freplace: Err("this kernel cannot run a dispatcher: it refuses programs of type EXT".into()),
        lockdown: Some("integrity".into()),
        tcx: Err("Invalid argument (os error 22)".into()),
        libxdp: None,
        dispatcher_version: 2,
        ..able()
    }
}

fn show(facts: &HostFacts) -> String {
    let line = |check: &pointsman_model::api::Check| {
        format!("{} {:?}: {}: {}\n", check.name, check.health, check.found, check.consequence)
    };
    examine_host(facts).iter().map(line).collect()
}

#[test]
fn a_host_where_everything_works() {
    insta::assert_snapshot!(show(&able()), @"
    load programs Ok: XDP programs load: chains can be built
    BPF filesystem Ok: /sys/fs/bpf is one: chains survive the daemon
    kernel BTF Ok: /sys/kernel/btf/vmlinux: programs that adapt to the kernel (CO-RE) load
    JIT Ok: programs become machine code (net.core.bpf_jit_enable=1): chains run at full speed
    freplace Ok: a dispatcher with two programs was built: programs of libxdp's and of ours can share an interface
    libxdp Ok: /usr/lib/bpf/xdp-dispatcher.o speaks version 3: new dispatchers are of version 3, which it can change; those that run keep theirs
    TCX Ok: TC takes links: this version attaches nothing to TC
    stack Ok: frames count in steps of 16 bytes: 512 bytes a call path
    xdp-features Ok: the kernel tells which interfaces have native XDP: `mode: auto` chooses by it
    ");
}

#[test]
fn each_thing_that_is_missing_says_what_follows() {
    insta::assert_snapshot!(show(&limited()), @r#"
    load programs Ok: XDP programs load: chains can be built
    BPF filesystem Broken: /tmp is not one: mount -t bpf bpf /sys/fs/bpf, or name a mounted one with --bpffs
    kernel BTF Limited: no /sys/kernel/btf/vmlinux: programs that use CO-RE relocations or kernel functions are refused
    JIT Limited: programs stay bytecode: programs are interpreted and slow, and no dispatcher can run: sysctl net.core.bpf_jit_enable=1
    freplace Limited: this kernel cannot run a dispatcher: it refuses programs of type EXT; it is locked down (integrity): chains are fused into one program, and libxdp's programs cannot join them; xdp-loader attaches one program to an interface
    libxdp Ok: none that is known: new dispatchers are of version 2, which libxdp 1.3 to 1.5 can change; those that run keep theirs
    TCX Ok: TC takes filters and no links: Invalid argument (os error 22) (6.6 and later take both): this version attaches nothing to TC
    stack Ok: frames count in steps of 32 bytes, at least 32: 480 bytes below a chain's frame
    xdp-features Limited: the kernel does not tell which interfaces have native XDP (6.3 and later do): `mode: auto` tries native on all but loopback; set `"mode": "skb"` where that fails
    "#);
}

#[test]
fn without_privileges_nothing_else_is_guessed() {
    let facts = HostFacts { loads: Err("load an XDP program: EPERM".into()), ..able() };
    insta::assert_snapshot!(show(&facts), @"
    load programs Broken: load an XDP program: EPERM: run pointsman-node as root; nothing works without this
    BPF filesystem Ok: /sys/fs/bpf is one: chains survive the daemon
    kernel BTF Ok: /sys/kernel/btf/vmlinux: programs that adapt to the kernel (CO-RE) load
    ");
}

#[test]
fn a_kernel_that_prints_what_it_compiles_is_told_of() {
    let facts = HostFacts { jit_setting: Some(2), ..able() };
    let jit = examine_host(&facts).into_iter().find(|check| check.name == "JIT").unwrap();
    assert_eq!(jit.health, Health::Limited);
    assert!(jit.consequence.contains("bpf_jit_enable=1"), "{}", jit.consequence);
}

proptest! {
    /// Whatever was found: every check has words, and what fails is never called well.
    #[test]
    fn what_is_missing_is_not_well(
        jited: bool,
        bpffs in prop_oneof![any::<bool>().prop_map(Ok), Just(Err("why".to_owned()))],
        has_btf: bool,
        freplace: bool,
        lockdown in option::of("[a-z]{1,8}"),
        jit_setting in option::of(0u32..4),
    ) {
        let refused = || Err("it refuses".to_owned());
        let facts = HostFacts {
            loads: Ok(Loads { jited, stack_step: 16, tells_features: true }),
            bpffs: Mount { path: "/b".into(), is_bpffs: bpffs.clone() },
            jit_setting,
            has_btf,
            freplace: if freplace { Ok(()) } else { refused() },
            lockdown: lockdown.clone(),
            ..able()
        };
        let checks = examine_host(&facts);
        let well = |name: &str| {
            checks.iter().find(|check| check.name == name).unwrap().health == Health::Ok
        };
        prop_assert!(checks.iter().all(|c| !c.found.is_empty() && !c.consequence.is_empty()));
        prop_assert_eq!(well("BPF filesystem"), bpffs == Ok(true));
        prop_assert_eq!(well("kernel BTF"), has_btf);
        prop_assert_eq!(well("freplace"), freplace);
        prop_assert_eq!(well("JIT"), jited && jit_setting != Some(2));
    }
}
