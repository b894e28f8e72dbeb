//! Compiles the test objects with clang and peers of the tests with the host's compiler, and lists
//! the kept cases of the equivalence test.

#[allow(dead_code, unreachable_pub, reason = "the tests use more of it than this script")]
#[path = "src/pool.rs"]
mod pool;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where failing cases of the equivalence test are kept.
const CASES: &str = "tests/ring/vm/equivalence/cases";
/// Where the sources of the built-in programs are.
const BUILTINS: &str = "../../bpf";

fn main() {
    println!("cargo::rerun-if-changed=objects");
    println!("cargo::rerun-if-changed=src/pool.rs");
    println!("cargo::rerun-if-changed={BUILTINS}");
    println!("cargo::rerun-if-changed={CASES}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let objects = files("objects", "c");
    for source in &objects {
        let name = stem(source);
        // One object shows what happens without type information.
        let debug: &[&str] = if name == "nobtf" { &[] } else { &["-g"] };
        compile(source, &out.join(name).with_extension("o"), debug);
    }
    // Not under the name that libxdp looks for: tests give it by its path.
    let mtl = Path::new(BUILTINS).join("mtl.xdp.c");
    compile(&mtl, &out.join("mtl_xdp.o"), &["-g"]);
    compile(Path::new("objects/chain/enter.c"), &out.join("enter.o"), &["-g"]);
    for (object, steps) in steps() {
        let local = Path::new("objects").join(object).with_extension("c");
        let source = if objects.contains(&local) {
            local
        } else {
            Path::new(BUILTINS).join(object).with_extension("c")
        };
        let source = std::fs::canonicalize(&source).expect("the source of a pooled program");
        let defined =
            [format!("-DSOURCE=\"{}\"", source.display()), format!("-DSTEPS={}", steps.join(" "))];
        let options = ["-g", "-Iobjects/chain", &defined[0], &defined[1]];
        let step = Path::new("objects/chain/step.c");
        compile(step, &out.join(format!("step-{object}.o")), &options);
    }
    keep_cases(&out);
    compile_peer(Path::new("peers/xsk_socket.c"), &out.join("xsk_socket"));
    // The C client of the manager's socket, and its example.
    println!("cargo::rerun-if-changed=../../include");
    compile_peer(Path::new("../../crates/xsk/tests/manager/exchange.c"), &out.join("exchange"));
    compile_peer(Path::new("../../examples/receiver.c"), &out.join("receiver"));
}

fn compile_peer(source: &Path, program: &Path) {
    println!("cargo::rerun-if-changed={}", source.display());
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command
        .args(["-O2", "-Wall", "-Werror", "-I../../include"])
        .arg(source)
        .arg("-ldl")
        .arg("-o")
        .arg(program);
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            panic!("{} does not compile:\n{said}", source.display());
        }
        Err(error) => panic!("cannot run {}: {error}: apt-get install gcc", compiler.display()),
    }
}

/// Per object of the pool the steps that are made of it.
fn steps() -> BTreeMap<&'static str, Vec<String>> {
    let mut steps: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let pooled = pool::POOL.iter().map(|program| (program.object, program.entry));
    let targets = pool::JUMPS.iter().map(|jump| (jump.object, jump.to));
    for (object, entry) in pooled.chain(targets) {
        let step = format!("STEP({entry})");
        let steps = steps.entry(object).or_default();
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps
}

/// Writes `cases.rs`: name and text of every kept case. They are built in, because the emulated
/// machine runs nothing but the binary.
fn keep_cases(out: &Path) {
    let mut list = String::from("&[");
    for case in files(CASES, "json") {
        let path = std::fs::canonicalize(&case).expect("a kept case");
        list += &format!("({:?}, include_str!({path:?})),", stem(&case));
    }
    std::fs::write(out.join("cases.rs"), list + "]").expect("OUT_DIR can be written");
}

/// The files of a folder that end so, sorted.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let paths = entries.map(|entry| entry.expect("readable folder").path());
    let mut found: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    found.sort();
    found
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|stem| stem.to_str()).expect("a name in ASCII")
}

fn compile(source: &Path, object: &Path, options: &[&str]) {
    let headers = std::env::var("DEP_POINTSMAN_BPF_PROGRAMS_HEADERS")
        .expect("pointsman-bpf says where libbpf's headers are");
    let clang = std::env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let output = Command::new(&clang)
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-Wall", "-Werror", "-I", &headers])
        .arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH))
        .args(options)
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(object)
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
