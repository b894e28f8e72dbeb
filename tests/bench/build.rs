//! Compiles the benchmark's objects: every form, kind of member and length.

use std::path::PathBuf;
use std::process::Command;

const LENGTHS: [u32; 6] = [1, 2, 5, 10, 30, 64];

fn main() {
    println!("cargo::rerun-if-changed=objects");
    println!("cargo::rerun-if-env-changed=CLANG");
    for work in ["trivial", "parsing"] {
        compile("member", work, 1);
        for length in LENGTHS {
            compile("merged", work, length);
            compile("tailcalls", work, length);
        }
    }
    // Does no work but its own.
    compile("bare_xskmap", "none", 1);
}

fn compile(source: &str, work: &str, count: u32) {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let headers = std::env::var("DEP_POINTSMAN_BPF_PROGRAMS_HEADERS")
        .expect("pointsman-bpf says where libbpf's headers are");
    let clang = std::env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let output = Command::new(&clang)
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-I", &headers])
        .arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH))
        .args([format!("-DWORK={work}"), format!("-DCOUNT={count}")])
        .arg("-c")
        .arg(format!("objects/{source}.c"))
        .arg("-o")
        .arg(out.join(format!("{source}-{work}-{count}.o")))
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            panic!("{source}.c does not compile:\n{said}");
        }
        Err(error) => panic!("cannot run {}: {error}: apt-get install clang", clang.display()),
    }
}
