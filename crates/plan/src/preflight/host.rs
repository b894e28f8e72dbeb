//! What a host can do, as checks: what was found, and what follows from it.

use pointsman_model::api::{Check, Health};
use pointsman_model::host::{HostFacts, Libxdp, Loads, Mount};

/// Looks at what was found out about a host.
#[must_use]
pub fn examine_host(facts: &HostFacts) -> Vec<Check> {
    let mut checks = vec![programs(&facts.loads), bpffs(&facts.bpffs), btf(facts)];
    if let Ok(loads) = &facts.loads {
        checks.extend([jit(loads, facts.jit_setting), freplace(facts), libxdp(facts), tcx(facts)]);
        checks.extend([stack(loads), xdp_features(loads)]);
    }
    checks
}

fn check(name: &str, health: Health, found: impl Into<String>, consequence: &str) -> Check {
    Check { name: name.into(), health, found: found.into(), consequence: consequence.into() }
}

fn programs(loads: &Result<Loads, String>) -> Check {
    match loads {
        Ok(_) => check("load programs", Health::Ok, "XDP programs load", "chains can be built"),
        Err(why) => {
            let advice = "run pointsman-node as root; nothing works without this";
            check("load programs", Health::Broken, why, advice)
        }
    }
}

fn bpffs(Mount { path, is_bpffs }: &Mount) -> Check {
    let path = path.display();
    let (health, found, consequence) = match is_bpffs {
        Ok(true) => (Health::Ok, format!("{path} is one"), "chains survive the daemon"),
        Ok(false) => (
            Health::Broken,
            format!("{path} is not one"),
            "mount -t bpf bpf /sys/fs/bpf, or name a mounted one with --bpffs",
        ),
        Err(why) => (
            Health::Broken,
            format!("{path}: {why}"),
            "name a directory on a BPF filesystem with --bpffs",
        ),
    };
    check("BPF filesystem", health, found, consequence)
}

fn btf(facts: &HostFacts) -> Check {
    let path = facts.btf.display();
    if facts.has_btf {
        let consequence = "programs that adapt to the kernel (CO-RE) load";
        return check("kernel BTF", Health::Ok, path.to_string(), consequence);
    }
    let consequence = "programs that use CO-RE relocations or kernel functions are refused";
    check("kernel BTF", Health::Limited, format!("no {path}"), consequence)
}

fn jit(loads: &Loads, setting: Option<u32>) -> Check {
    let with = |found: &str| match setting {
        Some(setting) => format!("{found} (net.core.bpf_jit_enable={setting})"),
        None => found.to_owned(),
    };
    let (health, found, consequence) = match (loads.jited, setting) {
        (true, Some(2)) => (
            Health::Limited,
            "programs become machine code, which is printed",
            "every program fills the kernel's log: sysctl net.core.bpf_jit_enable=1",
        ),
        (true, _) => (Health::Ok, "programs become machine code", "chains run at full speed"),
        (false, _) => (
            Health::Limited,
            "programs stay bytecode",
            "programs are interpreted and slow, and no dispatcher can run: \
             sysctl net.core.bpf_jit_enable=1",
        ),
    };
    check("JIT", health, with(found), consequence)
}

fn freplace(facts: &HostFacts) -> Check {
    let why = match &facts.freplace {
        Ok(()) => {
            let found = "a dispatcher with two programs was built";
            let consequence = "programs of libxdp's and of ours can share an interface";
            return check("freplace", Health::Ok, found, consequence);
        }
        Err(why) => why,
    };
    let found = match facts.lockdown.as_deref() {
        None | Some("none") => why.clone(),
        Some(mode) => format!("{why}; it is locked down ({mode})"),
    };
    let consequence = "chains are fused into one program, and libxdp's programs cannot join them; \
                       xdp-loader attaches one program to an interface";
    check("freplace", Health::Limited, found, consequence)
}

fn libxdp(facts: &HostFacts) -> Check {
    let (found, of_others) = match &facts.libxdp {
        Some(Libxdp { file, version }) => {
            (format!("{} speaks version {version}", file.display()), "it")
        }
        None => ("none that is known".to_owned(), "libxdp 1.3 to 1.5"),
    };
    let version = facts.dispatcher_version;
    let consequence = format!(
        "new dispatchers are of version {version}, which {of_others} can change; those that run \
         keep theirs"
    );
    check("libxdp", Health::Ok, found, &consequence)
}

fn tcx(facts: &HostFacts) -> Check {
    let consequence = "this version attaches nothing to TC";
    match &facts.tcx {
        Ok(()) => check("TCX", Health::Ok, "TC takes links", consequence),
        Err(why) => check(
            "TCX",
            Health::Ok,
            format!("TC takes filters and no links: {why} (6.6 and later take both)"),
            consequence,
        ),
    }
}

fn stack(loads: &Loads) -> Check {
    let (found, consequence) = match loads.stack_step {
        16 => ("frames count in steps of 16 bytes", "512 bytes a call path"),
        _ => ("frames count in steps of 32 bytes, at least 32", "480 bytes below a chain's frame"),
    };
    check("stack", Health::Ok, found, consequence)
}

fn xdp_features(loads: &Loads) -> Check {
    if loads.tells_features {
        let found = "the kernel tells which interfaces have native XDP";
        return check("xdp-features", Health::Ok, found, "`mode: auto` chooses by it");
    }
    check(
        "xdp-features",
        Health::Limited,
        "the kernel does not tell which interfaces have native XDP (6.3 and later do)",
        "`mode: auto` tries native on all but loopback; set `\"mode\": \"skb\"` where that fails",
    )
}
