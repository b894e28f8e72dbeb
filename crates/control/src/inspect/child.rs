//! The process that opens an object. It has nothing to lose.
//!
//! It has to be the user that the service is, unless that is root, and that user may read the
//! signing key. Two things keep it from all files, each where the kernel has it: Landlock without
//! a rule, and a root directory with nothing in it. libbpf works on what is in memory.

use super::{Answer, Apart, MAX_OBJECT, Told};
use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, Scope};
use pointsman_bpf::ObjectReport;
use pointsman_model::fleet::{ObjectGlobal, ObjectMap, ObjectProgram, ObjectSummary};
use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

/// `nobody` and `nogroup`, as every Linux has them.
const NOBODY: u32 = 65_534;

/// The most memory, in bytes of address space: the object, libbpf's view of it, and this program.
const MEMORY: u64 = 1 << 30;

/// The most time of a CPU, in seconds.
const CPU: u64 = 10;

/// The most open files. libbpf opens one of no contents for each map.
const FILES: u64 = 256;

/// The most programs, maps or globals.
const ITEMS: usize = 4096;

/// Reads an object from standard input and writes what it holds to standard output. Called before
/// any thread is started.
pub fn run() -> ExitCode {
    let (apart, answer) = match confine() {
        Ok(apart) => (apart, look()),
        Err(error) => {
            let why = format!("cannot confine the process that opens it: {error}");
            (Apart::default(), Answer::Refused(why))
        }
    };
    let good = matches!(answer, Answer::Holds(_));
    let written = serde_json::to_vec(&Told { apart, answer })
        .map_err(io::Error::other)
        .and_then(|text| io::stdout().write_all(&text));
    if good && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Gives up what this process has, for good.
fn confine() -> io::Result<Apart> {
    let limits = [
        (Resource::As, MEMORY),
        (Resource::Cpu, CPU),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, FILES),
        (Resource::Nproc, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ];
    for (resource, most) in limits {
        // The soft limit of time comes first: its signal says what it was.
        let hard = if resource == Resource::Cpu { most + 1 } else { most };
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(hard) })?;
    }
    let could = opens();
    let mut network = true;
    if rustix::process::geteuid().is_root() {
        apart(UnshareFlags::NEWNET | UnshareFlags::NEWIPC)?;
        leave_root();
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    } else if apart(UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWIPC).is_ok() {
        leave_root();
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets)?;
    } else {
        // Where hosts let nobody have namespaces of his own, the network stays.
        network = false;
    }
    rustix::thread::set_no_new_privs(true)?;
    shut_out();
    // Tried, not believed.
    Ok(Apart { files: could && !opens(), network })
}

/// Whether files can be opened that everybody may open: the program, wherever it lies, and nothing.
fn opens() -> bool {
    ["/proc/self/exe", "/dev/null"].into_iter().any(|path| File::open(path).is_ok())
}

/// Where there is nothing but what this process has open.
const EMPTY: &str = "/proc/self/fdinfo";

/// Takes a root directory in which nothing is, if that is allowed: not in all containers.
fn leave_root() {
    if std::os::unix::fs::chroot(EMPTY).is_ok() {
        // The old one is not reached by relative paths either. That it is there is all it takes.
        let _ = std::env::set_current_dir("/");
    }
}

/// Gives up files, and what of the network and of signals to others the kernel can take. The
/// kernels that cannot do all of it do what they can.
fn shut_out() {
    let abi = ABI::V6;
    let done = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    // Whether it helped is seen by trying.
    drop(done);
}

/// Leaves the namespaces that this process shares with others: there is no network in new ones.
#[expect(
    deprecated,
    reason = "unsound with FILES alone, which tears files away from other threads"
)]
fn apart(from: UnshareFlags) -> io::Result<()> {
    Ok(rustix::thread::unshare(from)?)
}

fn look() -> Answer {
    let mut object = Vec::new();
    let most = MAX_OBJECT as u64 + 1;
    match io::stdin().take(most).read_to_end(&mut object) {
        Ok(read) if read > MAX_OBJECT => {
            return Answer::Refused(format!("it is larger than {MAX_OBJECT} bytes"));
        }
        Ok(_) => {}
        Err(error) => return Answer::Refused(format!("it did not arrive: {error}")),
    }
    let report = match pointsman_bpf::inspect_object(&object) {
        Ok(report) => report,
        Err(error) => return Answer::Refused(error.to_string()),
    };
    let most = [report.programs.len(), report.maps.len(), report.globals.len()];
    if most.into_iter().any(|items| items > ITEMS) {
        return Answer::Refused(format!("it holds more than {ITEMS} programs, maps or globals"));
    }
    Answer::Holds(summary(report))
}

/// What the control plane keeps of a report.
#[must_use]
pub fn summary(report: ObjectReport) -> ObjectSummary {
    let programs = report.programs.into_iter().map(|program| ObjectProgram {
        name: program.name,
        section: program.section,
        kind: program.kind,
        suggested_priority: program.suggestion.as_ref().map(|suggestion| suggestion.priority),
        suggested_actions: program.suggestion.map(|suggestion| suggestion.chain_call_actions),
    });
    let maps = report.maps.into_iter().map(|map| ObjectMap {
        name: map.name.into(),
        kind: map.definition.kind,
        max_entries: map.definition.max_entries,
    });
    let globals = report.globals.into_iter().map(|global| ObjectGlobal {
        name: global.name,
        kind: global.kind,
        section: global.section,
        size: global.size,
    });
    ObjectSummary {
        licence: report.licence,
        has_btf: report.has_btf,
        programs: programs.collect(),
        maps: maps.collect(),
        globals: globals.collect(),
    }
}
