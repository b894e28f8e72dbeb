//! Interfaces with a dispatcher, ours and libxdp's tools beside it.

use crate::bpffs::Bpffs;
use crate::netns::Pair;
use crate::object_path;
use pointsman_bpf::dispatcher::{
    Actions, Attached, Chain, Changed, Component, Dispatcher, DispatcherError, Options, Pick,
    Program, Wanted, freplace, hook, interfaces,
};
use pointsman_bpf::{TestRun, test_run};
use pointsman_model::{Action, ActionSet};
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

/// A veth pair and a BPF filesystem, for dispatchers on `v1`.
#[derive(Debug)]
pub struct Stage {
    /// Where packets come from and go to.
    pub pair: Pair,
    /// Where the pins are.
    pub bpffs: Arc<Bpffs>,
    /// Ours.
    pub dispatcher: Dispatcher,
}

/// Everything of everybody: what a refusal must leave as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Everything {
    /// The kernel's ids of the programs that run on each interface.
    pub running: Vec<(String, Option<u32>)>,
    /// Every pin and directory but the common one; of a pinned program its id.
    pub pins: Vec<(PathBuf, Option<u32>)>,
}

/// What `xdp-loader status` shows of a program in a slot: priority, name, actions.
pub type Row = (u32, String, String);

impl Stage {
    /// A stage; `None`, and a line in the summary, where the kernel refuses freplace.
    ///
    /// # Panics
    /// It takes root.
    #[must_use]
    pub fn set(test: &str) -> Option<Self> {
        Self::set_in(test, || Arc::new(Bpffs::mount().expect("root")))
    }

    /// A stage with pins where a daemon has its own.
    ///
    /// # Panics
    /// It takes root.
    #[must_use]
    pub fn set_in(test: &str, bpffs: impl FnOnce() -> Arc<Bpffs>) -> Option<Self> {
        Self::set_on(test, bpffs, Pair::new)
    }

    /// The same on a pair of another kind.
    ///
    /// # Panics
    /// It takes root.
    #[must_use]
    pub fn set_on<E: std::fmt::Debug>(
        test: &str,
        bpffs: impl FnOnce() -> Arc<Bpffs>,
        pair: impl FnOnce() -> Result<Pair, E>,
    ) -> Option<Self> {
        if let Err(why) = freplace() {
            crate::skip(test, &why);
            return None;
        }
        let bpffs = bpffs();
        let dispatcher = Dispatcher::at(bpffs.path());
        Some(Self { pair: pair().expect("root"), bpffs, dispatcher })
    }

    /// The kernel's number of `v1`.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.pair.right.index("v1")
    }

    /// Runs `work` in the namespace of `v1`, with its number.
    pub fn here<T: Send>(&self, work: impl FnOnce(&Dispatcher, u32) -> T + Send) -> T {
        let index = self.index();
        self.pair.right.run(|| work(&self.dispatcher, index))
    }

    /// Adds programs of ours.
    ///
    /// # Errors
    /// As of the dispatcher.
    pub fn add(&self, new: &[(&Program, u32, Actions)]) -> Result<Changed, DispatcherError> {
        self.here(|dispatcher, index| {
            let wanted: Vec<_> = new.iter().map(|&(p, at, on)| Wanted::new(p, at, on)).collect();
            dispatcher.add(index, &Options::default(), &wanted)
        })
    }

    /// The chain on `v1`.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    #[must_use]
    pub fn chain(&self) -> Chain {
        match self.here(Dispatcher::read).expect("readable") {
            Attached::Chain(chain) => *chain,
            other => panic!("no chain: {other:?}"),
        }
    }

    /// What runs in the namespace of `v1`, and all that is pinned.
    ///
    /// # Panics
    /// It cannot be looked at.
    #[must_use]
    pub fn everything(&self) -> Everything {
        let running = |(index, name)| {
            let software = hook(index).expect("an interface").software;
            (name, software.map(|(id, _)| id))
        };
        let running = self
            .pair
            .right
            .run(|| interfaces().expect("a list").into_iter().map(running).collect::<Vec<_>>());
        let pin = |path: PathBuf| {
            let is_program = path.to_string_lossy().ends_with("-prog");
            let id = is_program.then(|| id_of_pin(&self.bpffs.path().join(&path)));
            (path, id)
        };
        let pins = self.bpffs.list().expect("a list").into_iter();
        let pins = pins.filter(|path| path != Path::new("xdp")).map(pin).collect();
        Everything { running, pins }
    }

    /// What the dispatcher on `v1` answers for a packet.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    #[must_use]
    pub fn verdict(&self, packet: &[u8]) -> u32 {
        self.test_run(packet).verdict
    }

    /// The same, and what becomes of the packet.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    #[must_use]
    pub fn test_run(&self, packet: &[u8]) -> TestRun {
        let id = self.here(|_, index| hook(index)).expect("an interface").software;
        let (id, _) = id.expect("an attached program");
        let program = libbpf_rs::Program::fd_from_id(id).expect("a program");
        test_run(program.as_fd(), packet, 1, 0).expect("a test run")
    }

    /// What ours shows, in the form of [`Row`].
    ///
    /// # Panics
    /// There is no chain.
    #[track_caller]
    #[must_use]
    pub fn ours(&self) -> Vec<Row> {
        self.chain().components.iter().map(row).collect()
    }

    /// What theirs shows.
    ///
    /// # Panics
    /// It shows none.
    #[track_caller]
    #[must_use]
    pub fn theirs(&self) -> Vec<Row> {
        rows(&text(&self.xdp_loader(&["status", "v1"]).stdout))
    }

    /// Runs the packaged `xdp-loader` in the namespace of `v1`.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn xdp_loader(&self, arguments: &[&str]) -> Output {
        self.run(Path::new("xdp-loader"), arguments)
    }

    /// Runs ours in its place.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn our_loader(&self, arguments: &[&str]) -> Output {
        let all = [&["xdp-loader"], arguments].concat();
        self.run(&crate::daemon::binary("pointsman"), &all)
    }

    /// Runs a program in the namespace of `v1`.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        self.pair.right.run(|| self.command(program, arguments).output().expect("run a program"))
    }

    /// A program that finds the pins of this stage.
    #[must_use]
    pub fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("LIBXDP_BPFFS", self.bpffs.path());
        command
    }
}

/// The kernel's id of a pinned program.
fn id_of_pin(path: &Path) -> u32 {
    let program = libbpf_rs::Program::fd_from_pinned_path(path).expect("a pinned program");
    libbpf_rs::Program::id_from_fd(program.as_fd()).expect("an id")
}

/// A program of a test object.
///
/// # Panics
/// There is no such program.
#[must_use]
pub fn program(object: &str, entry: &str) -> Program {
    let bytes = crate::object(object);
    Program::open(&bytes, Pick::Named(entry), &BTreeMap::new(), None)
        .unwrap_or_else(|e| panic!("{object}:{entry}: {e}"))
}

/// The actions of a list.
#[must_use]
pub fn on(actions: &[Action]) -> Actions {
    actions.iter().copied().collect::<ActionSet>().into()
}

/// The path of a test object, for arguments.
#[must_use]
pub fn path(object: &str) -> String {
    object_path(object).display().to_string()
}

/// Fails unless a program ended well.
///
/// # Panics
/// It did not.
#[track_caller]
pub fn well(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// Text of a program.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The rows of programs in slots that a status shows.
#[must_use]
pub fn rows(status: &str) -> Vec<Row> {
    let row = |line: &str| {
        let mut fields = line.strip_prefix(" =>")?.split_whitespace();
        let (priority, name) = (fields.next()?.parse().ok()?, fields.next()?.to_owned());
        Some((priority, name, fields.nth(2).unwrap_or("").to_owned()))
    };
    status.lines().filter_map(row).collect()
}

fn row(component: &Component) -> Row {
    let actions = component.actions.known();
    let names: Vec<_> =
        actions.iter().map(|action| format!("XDP_{}", action.name().to_uppercase())).collect();
    (component.priority, component.name.clone(), names.join(","))
}
