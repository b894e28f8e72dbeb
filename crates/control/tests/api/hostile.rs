//! Objects that mean ill. The process that opens them may die; the service answers.

use crate::common::{PROGRAM, Service, refused, run};
use axum::body::Bytes;
use pointsman_bpf::builtin;
use pointsman_control::inspect::{Inspector, VERB};
use pointsman_model::api::ProblemKind;
use pointsman_model::document::Builtin;
use reqwest::Method;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

fn inspector() -> Inspector {
    Inspector::new(PROGRAM, [VERB], Duration::from_secs(60))
}

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// A seed that xtask tells, so that failures can be had again.
fn seed() -> u64 {
    std::env::var("POINTSMAN_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7)
}

#[test]
fn whatever_an_object_is_there_is_one_clear_answer() {
    let seed = seed();
    println!("seed {seed}");
    let mut numbers = Numbers(seed);
    let whole = builtin(Builtin::CidrBlocklist);
    let mut objects: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\x7fELF".to_vec(),
        b"#!/bin/sh\nrm -rf /\n".to_vec(),
        vec![0; 1 << 16],
        vec![0xff; 1 << 16],
        (0..1 << 16).map(|_| numbers.next().to_le_bytes()[0]).collect(),
    ];
    for _ in 0..12 {
        objects.push(whole[..numbers.below(whole.len())].to_vec());
    }
    // The head, the table of sections at the end, and anywhere.
    for (from, to) in [(4, 64), (whole.len() - 1024, whole.len()), (64, whole.len())] {
        for _ in 0..16 {
            let mut object = whole.to_vec();
            for _ in 0..=numbers.below(8) {
                let at = from + numbers.below(to - from);
                object[at] = numbers.next().to_le_bytes()[0];
            }
            objects.push(object);
        }
    }
    run(async {
        let inspector = inspector();
        let mut refused = 0;
        for object in objects {
            // Some changes hurt nobody; all others are told in one line.
            let Err(failure) = inspector.inspect(Bytes::from(object)).await else { continue };
            refused += 1;
            assert_eq!(failure.problem.kind, ProblemKind::InvalidDocument, "{failure:?}");
            assert!(!failure.problem.title.contains('\n'), "{failure:?}");
        }
        assert!(refused > 15, "{refused}");
        inspector.inspect(Bytes::from_static(whole)).await.unwrap();
    });
}

/// An object whose section says that it needs this many bytes of memory and none of the file.
fn with_huge_section(bytes: u64) -> Vec<u8> {
    let mut object = builtin(Builtin::CidrBlocklist).to_vec();
    let u64_at =
        |object: &[u8], at: usize| u64::from_le_bytes(object[at..at + 8].try_into().unwrap());
    let sections = usize::try_from(u64_at(&object, 0x28)).unwrap();
    let count = usize::from(u16::from_le_bytes(object[0x3c..0x3e].try_into().unwrap()));
    // SHT_NOBITS, and its size, for all sections that hold data of programs.
    for section in 0..count {
        let at = sections + section * 64;
        let kind = u32::from_le_bytes(object[at + 4..at + 8].try_into().unwrap());
        let writable = u64_at(&object, at + 8) & 3 == 3;
        if kind == 1 && writable {
            object[at + 4..at + 8].copy_from_slice(&8_u32.to_le_bytes());
            object[at + 32..at + 40].copy_from_slice(&bytes.to_le_bytes());
        }
    }
    object
}

#[test]
fn memory_that_an_object_asks_for_is_not_given() {
    run(async {
        let inspector = inspector();
        for bytes in [3 << 30, u64::MAX / 2] {
            if let Err(failure) = inspector.inspect(with_huge_section(bytes).into()).await {
                assert_eq!(failure.problem.kind, ProblemKind::InvalidDocument, "{failure:?}");
            }
        }
    });
}

#[test]
fn the_service_outlives_whatever_its_child_does() {
    let script = |script: &str, seconds| {
        Inspector::new("/bin/sh", ["-c", script], Duration::from_secs(seconds))
    };
    for (what, inspector, told) in [
        ("dies", script("kill -SEGV $$", 60), "malformed"),
        ("is killed", script("cat > /dev/null; kill -KILL $$", 60), "malformed"),
        ("says nothing", script("exit 3", 60), "no answer"),
        ("says what is no answer", script("echo '{\"holds\":{}}'", 60), "no answer"),
        ("says too much", script("exec yes", 60), "ended the process"),
        ("runs for ever", script("while :; do :; done", 1), "more than 1 s"),
        ("waits for ever", script("exec sleep 1000", 1), "more than 1 s"),
    ] {
        run(async {
            let service = Service::with(inspector).await;
            let request = service.by(&service.admin, Method::PUT, "/v1/programs/p");
            let response = request.body(vec![0; 1 << 20]).send().await.unwrap();
            let problem = refused(response, 422).await;
            assert!(problem.title.contains(told), "{what}: {problem:?}");
            refused(service.get("/v1/programs/p").await, 404).await;
        });
    }
    run(async {
        let none = Inspector::new("/no/such/program", [VERB], Duration::from_secs(1));
        let service = Service::with(none).await;
        let request = service.by(&service.admin, Method::PUT, "/v1/programs/p").body("x");
        refused(request.send().await.unwrap(), 503).await;
    });
}

/// What the child can open it would have told whoever made the object.
#[test]
fn the_child_opens_no_file_of_its_own_user() {
    use pointsman_control::inspect::Apart;
    use std::os::unix::process::CommandExt as _;
    let expected = Apart { files: true, network: true };
    run(async { assert_eq!(inspector().apart().await.unwrap(), expected) });
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // As the unit runs it: as a user who has what the service has.
    let mut command = Command::new(PROGRAM);
    command.arg(VERB).env_clear().uid(65_534).gid(65_534).stdin(Stdio::null());
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            println!("SKIP part of the_child_opens_no_file_of_its_own_user: {PROGRAM}: {error}");
            return;
        }
        output => output.unwrap(),
    };
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["apart"]["files"], true, "{told}");
}

#[test]
fn the_child_has_nothing_to_lose() {
    let mut child = Command::new(PROGRAM)
        .arg(VERB)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // More than a pipe holds: when it is taken, the child is where it reads, and is confined.
    input.write_all(&vec![0; 256 << 10]).unwrap();
    let proc =
        |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
    let (status, limits) = (proc("status"), proc("limits"));
    let line = |text: &str, start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line(&status, "NoNewPrivs:"), "NoNewPrivs: 1");
    if rustix::process::geteuid().is_root() {
        assert_eq!(line(&status, "Uid:"), "Uid: 65534 65534 65534 65534");
        assert_eq!(line(&status, "Gid:"), "Gid: 65534 65534 65534 65534");
        assert_eq!(line(&status, "Groups:"), "Groups:");
        assert_eq!(line(&status, "CapEff:"), "CapEff: 0000000000000000");
        assert_eq!(line(&status, "CapPrm:"), "CapPrm: 0000000000000000");
    }
    let network = std::fs::read_link(format!("/proc/{}/ns/net", child.id()));
    if let Ok(network) = network {
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert!(network != ours || !rustix::process::geteuid().is_root());
    }
    assert_eq!(line(&limits, "Max open files"), "Max open files 256 256 files");
    assert_eq!(line(&limits, "Max processes"), "Max processes 0 0 processes");
    assert_eq!(line(&limits, "Max file size"), "Max file size 0 0 bytes");
    assert!(line(&limits, "Max address space").ends_with("1073741824 1073741824 bytes"));
    drop(input);
    assert!(!child.wait().unwrap().success());
}
