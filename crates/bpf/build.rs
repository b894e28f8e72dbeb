//! Compiles the built-in BPF programs with clang.

use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 10] = [
    "udp_port_filter",
    "instance_filter",
    "xskmap_redirect",
    "counting_pass",
    "cidr_blocklist",
    "pointsman_pass",
    "xsk_def_prog",
    "xsk_look",
    "owners_look",
    // Not built in: for others, who load it with libxdp.
    "mtl.xdp",
];

/// The dispatcher's variants: their objects, and what each is compiled with.
const DISPATCHERS: [(&str, &[&str]); 4] = [
    ("xdp_dispatcher_2", &["-DVERSION=2"]),
    ("xdp_dispatcher_2_changes", &["-DVERSION=2", "-DCHANGES_PACKETS"]),
    ("xdp_dispatcher_3", &["-DVERSION=3"]),
    ("xdp_dispatcher_3_changes", &["-DVERSION=3", "-DCHANGES_PACKETS"]),
];

fn main() {
    let sources = Path::new("../../bpf");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // libbpf-sys tells where the headers of the libbpf it builds are: <bpf/bpf_helpers.h>.
    let headers = std::env::var_os("DEP_BPF_INCLUDE").expect("libbpf-sys sets DEP_BPF_INCLUDE");
    // Tests compile their own objects with the same headers.
    println!("cargo::metadata=headers={}", headers.display());
    for program in PROGRAMS {
        compile(
            &sources.join(format!("{program}.c")),
            &out.join(format!("{program}.o")),
            Path::new(&headers),
            &[],
        );
    }
    for (object, defines) in DISPATCHERS {
        compile(
            &sources.join("xdp_dispatcher.c"),
            &out.join(object).with_extension("o"),
            Path::new(&headers),
            defines,
        );
    }
}

fn compile(source: &Path, object: &Path, headers: &Path, defines: &[&str]) {
    let clang = std::env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let result = Command::new(&clang)
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-I"])
        .arg(headers)
        // Where Debian keeps <asm/types.h> of the machine; harmless elsewhere.
        .arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH))
        // Paths of the machine that builds must not be in what is shipped.
        .args(["-ffile-prefix-map=../../=", "-fdebug-compilation-dir=."])
        .arg(format!("-ffile-prefix-map={}=libbpf", headers.display()))
        .args(defines)
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object)
        .output();
    match result {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!(
            "{} does not compile:\n{}\nif a header is missing: apt-get install libbpf-dev linux-libc-dev",
            source.display(),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!(
            "cannot run {}: {error}; it compiles the built-in BPF programs: apt-get install clang",
            clang.display()
        ),
    }
}
