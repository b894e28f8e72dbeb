//! Compiles the test objects with clang, and peers of the tests with the host's compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=objects");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let headers = std::env::var("DEP_POINTSMAN_BPF_PROGRAMS_HEADERS")
        .expect("pointsman-bpf says where libbpf's headers are");
    let sources = std::fs::read_dir("objects").expect("the folder of test objects");
    for source in sources.map(|entry| entry.expect("readable folder").path()) {
        if source.extension().is_some_and(|extension| extension == "c") {
            compile(&source, &out, &headers);
        }
    }
    compile_peer(Path::new("peers/xsk_socket.c"), &out.join("xsk_socket"));
}

fn compile_peer(source: &Path, program: &Path) {
    println!("cargo::rerun-if-changed={}", source.display());
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command.args(["-O2", "-Wall", "-Werror"]).arg(source).arg("-ldl").arg("-o").arg(program);
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            panic!("{} does not compile:\n{said}", source.display());
        }
        Err(error) => panic!("cannot run {}: {error}: apt-get install gcc", compiler.display()),
    }
}

fn compile(source: &Path, out: &Path, headers: &str) {
    let name = source.file_stem().expect("a .c file has a stem");
    let clang = std::env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    // One object shows what happens without type information.
    let debug: &[&str] = if name == "nobtf" { &[] } else { &["-g"] };
    let output = Command::new(&clang)
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-Wall", "-Werror", "-I", headers])
        .arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH))
        .args(debug)
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(out.join(name).with_extension("o"))
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            panic!("{} does not compile:\n{said}", source.display());
        }
        Err(error) => panic!("cannot run {}: {error}: apt-get install clang", clang.display()),
    }
}
