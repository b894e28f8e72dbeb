//! Programs for slots: of an object, or a fused chain as one.

use super::config::{Actions, FLAG_FRAGS};
use super::error::DispatcherError;
use super::order::{Rank, compare};
use super::sys;
use crate::alone::verifier_error;
use crate::chain::{self, Counters, Slot, Woven};
use crate::error::Error;
use crate::kernel::{self, Load, Maps, Place};
use crate::member::{self, Code, Member, kernel_name};
use crate::object::{Object, ProgramRef};
use crate::types::Suggestion;
use libbpf_sys::{BPF_PROG_TYPE_XDP as XDP, bpf_object__btf_fd};
use pointsman_fuse::layout::{Layout, StackRounding, layout};
use pointsman_fuse::slot::{SlotAnswer, shared_slot};
use pointsman_model::{Action, ActionSet};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The name of our program that passes everything.
pub const PASS_NAME: &str = "pointsman_pass";
/// The name by which libxdp knows a program that hands packets to AF_XDP sockets.
pub const XSK_NAME: &str = "xsk_def_prog";

/// A program for a slot. It is loaded when it first gets one, and stays the same after.
#[derive(Debug)]
pub struct Program {
    name: String,
    frags: bool,
    instructions: usize,
    suggestion: Option<Suggestion>,
    fused: Option<Fused>,
    /// Who of it makes tail calls, if anybody does.
    tail_caller: Option<String>,
    /// libbpf's objects are for one thread at a time.
    body: Mutex<Body>,
    loaded: OnceLock<Loaded>,
}

/// Which program of an object is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick<'a> {
    /// The only XDP program.
    Only,
    /// The first XDP program.
    First,
    /// The one of this name.
    Named(&'a str),
    /// The first of this ELF section.
    Section(&'a str),
}

#[derive(Debug)]
enum Body {
    Object { object: Object, code: Code, _targets: Option<OwnedFd> },
    Fused(Woven),
}

/// What is known of a fused chain beside its program.
#[derive(Debug)]
struct Fused {
    counters: Option<Counters>,
    layout: Layout,
    answer: SlotAnswer,
    _maps: Maps,
}

#[derive(Debug)]
struct Loaded {
    program: OwnedFd,
    id: u32,
    tag: [u8; 8],
    at: u64,
}

impl Program {
    /// Takes a program of an object, with `globals` set, and maps that the object wants pinned by
    /// name in the directory `pins`; none without.
    ///
    /// # Errors
    /// Whatever is wrong with the object or its program.
    pub fn open(
        bytes: &[u8],
        pick: Pick<'_>,
        globals: &BTreeMap<String, serde_json::Value>,
        pins: Option<&Path>,
    ) -> Result<Self, DispatcherError> {
        Self::of(Object::open(bytes)?, pick, globals, pins)
    }

    fn of(
        mut object: Object,
        pick: Pick<'_>,
        globals: &BTreeMap<String, serde_json::Value>,
        pins: Option<&Path>,
    ) -> Result<Self, DispatcherError> {
        object.set_globals(globals)?;
        let selected = picked(&object, pick)?;
        let (name, frags) = (selected.name(), selected.frags());
        let pinned: Vec<_> = object.maps().into_iter().filter(|map| map.wants_pin()).collect();
        member::configure(&object, selected)?;
        if let Some(directory) = pins {
            for map in pinned {
                map.pin_in(directory)?;
            }
        }
        member::prepare(&object)?;
        let code = Code::of(object.select(Some(&name))?)?;
        Ok(Self {
            frags,
            instructions: code.instructions.len(),
            suggestion: object.suggestion(&name),
            fused: None,
            tail_caller: tail_calls(&code).then(|| name.clone()),
            body: Mutex::new(Body::Object { object, code, _targets: None }),
            loaded: OnceLock::new(),
            name,
        })
    }

    /// Takes a program that is prepared already: with the maps, pinned or not, that it has.
    #[must_use]
    pub fn of_member(member: Member) -> Self {
        let (name, frags) = (member.entry().to_owned(), member.facts().frags);
        let suggestion = member.object().suggestion(&name);
        let (object, code, targets) = member.into_parts();
        Self {
            frags,
            instructions: code.instructions.len(),
            suggestion,
            fused: None,
            tail_caller: tail_calls(&code).then(|| name.clone()),
            body: Mutex::new(Body::Object { object, code, _targets: targets }),
            loaded: OnceLock::new(),
            name,
        }
    }

    /// Fuses `members`, which run by priority, into one program for one slot. What the slot must
    /// be told, and whether it may be alone: [`answer`](Self::answer).
    ///
    /// # Errors
    /// Members that do not go together, with the figures.
    pub fn fuse(
        members: &[Slot<'_>],
        rounding: StackRounding,
        counted: bool,
    ) -> Result<Self, DispatcherError> {
        let enforced = members.iter().filter(|slot| slot.enforce).map(|slot| slot.actions);
        let answer = shared_slot(enforced);
        Self::fuse_as(chain::PROGRAM_NAME, members, answer, rounding, counted)
    }

    /// Fuses `members` into one program for one slot, with counters, called `name`. With `own` there
    /// is one member, whose verdict is the program's, whatever it is; the slot has its actions.
    ///
    /// # Errors
    /// Members that do not go together, with the figures.
    pub fn slot(
        name: &str,
        members: &[Slot<'_>],
        own: bool,
        rounding: StackRounding,
    ) -> Result<Self, DispatcherError> {
        if !own {
            let enforced = members.iter().filter(|slot| slot.enforce).map(|slot| slot.actions);
            return Self::fuse_as(name, members, shared_slot(enforced), rounding, true);
        }
        let [only @ Slot { enforce: true, .. }] = members else {
            let why = "a slot of its own is for one program that is enforced".into();
            return Err(DispatcherError::Component { name: name.to_owned(), why });
        };
        // All its verdicts are final here: the dispatcher goes on after some.
        let answers = Slot { actions: ActionSet::EMPTY, ..*only };
        let answer =
            SlotAnswer { end: Action::Pass.code(), actions: only.actions, needs_company: false };
        Self::fuse_as(name, &[answers], answer, rounding, true)
    }

    fn fuse_as(
        name: &str,
        members: &[Slot<'_>],
        answer: SlotAnswer,
        rounding: StackRounding,
        counted: bool,
    ) -> Result<Self, DispatcherError> {
        let slots = chain::by_priority(members);
        let named: Vec<_> = slots.iter().map(|slot| (slot.name, slot.member.facts())).collect();
        let layout = layout(&named, rounding).map_err(Error::from)?;
        let counters = if counted { Some(Counters::create(slots.len())?) } else { None };
        let woven = Woven::of(name, &slots, &layout, counters.as_ref(), answer.end)?;
        let tail_caller = slots.iter().find(|slot| slot.member.facts().has_tail_call());
        let tail_caller = tail_caller.map(|slot| slot.name.to_owned());
        let fused = Fused { counters, layout, answer, _maps: chain::maps_of(&slots)? };
        Ok(Self {
            name: name.to_owned(),
            frags: woven.frags,
            instructions: woven.len(),
            suggestion: None,
            fused: Some(fused),
            tail_caller,
            body: Mutex::new(Body::Fused(woven)),
            loaded: OnceLock::new(),
        })
    }

    /// The program that passes everything.
    pub(super) fn pass() -> Result<Self, DispatcherError> {
        let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/pointsman_pass.o"));
        Self::open(bytes, Pick::Named(PASS_NAME), &BTreeMap::new(), None)
    }

    /// The whole name of its function.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it takes packets of several buffers.
    #[must_use]
    pub fn frags(&self) -> bool {
        self.frags
    }

    /// The kernel's id, once it is loaded.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.loaded.get().map(|loaded| loaded.id)
    }

    /// What the author of the object suggests; `None` without suggestion, and of fused programs.
    #[must_use]
    pub fn suggestion(&self) -> Option<&Suggestion> {
        self.suggestion.as_ref()
    }

    /// What its slot must be told; `None` of a program of an object, for which its operator says.
    #[must_use]
    pub fn answer(&self) -> Option<SlotAnswer> {
        self.fused.as_ref().map(|fused| fused.answer)
    }

    /// The counters of a fused program.
    #[must_use]
    pub fn counters(&self) -> Option<&Counters> {
        self.fused.as_ref().and_then(|fused| fused.counters.as_ref())
    }

    /// How the members of a fused program were built in.
    #[must_use]
    pub fn layout(&self) -> Option<&Layout> {
        self.fused.as_ref().map(|fused| &fused.layout)
    }

    pub(super) fn rank(&self, priority: u32) -> Rank<'_> {
        let loaded = self.loaded.get().map(|loaded| (loaded.tag, loaded.at));
        Rank { priority, name: &self.name, loaded, instructions: self.instructions }
    }

    /// Whether a dispatcher runs it, at `priority`, before `other` at that one's.
    pub(crate) fn runs_before(&self, priority: u32, other: &Self, others: u32) -> bool {
        compare(&self.rank(priority), &other.rank(others)).is_le()
    }

    pub(super) fn flags(&self) -> u32 {
        if self.frags { FLAG_FRAGS } else { 0 }
    }

    /// The program, once it is loaded.
    pub(crate) fn loaded(&self) -> Option<BorrowedFd<'_>> {
        self.loaded.get().map(|loaded| loaded.program.as_fd())
    }

    /// The loaded program; loads it for the function `function` of `target` first.
    pub(super) fn load_for(
        &self,
        target: BorrowedFd<'_>,
        function: u32,
    ) -> Result<BorrowedFd<'_>, DispatcherError> {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded.program.as_fd());
        }
        let program = self.load(&body, Place::Function(target, function))?;
        let details = sys::details(program.as_fd())?;
        let (id, tag, at) = (details.id, details.tag, details.loaded_at);
        let loaded = self.loaded.get_or_init(|| Loaded { program, id, tag, at });
        Ok(loaded.program.as_fd())
    }

    /// Loads it as a program of its own, to be attached without a dispatcher.
    ///
    /// # Errors
    /// The verifier's refusal.
    pub fn load_alone(&self) -> Result<OwnedFd, DispatcherError> {
        self.load(&self.body.lock().unwrap_or_else(PoisonError::into_inner), Place::Anywhere)
    }

    fn load(&self, body: &Body, place: Place<'_>) -> Result<OwnedFd, DispatcherError> {
        let (object, code) = match body {
            Body::Fused(woven) => {
                return woven.load(place).map_err(|e| self.about_tail_calls(place, e));
            }
            Body::Object { object, code, .. } => (object, code),
        };
        // SAFETY: the object is prepared; the descriptor of its types lives as long as it does.
        let btf = unsafe {
            let fd = bpf_object__btf_fd(object.as_ptr());
            (fd >= 0 && !code.functions.is_empty()).then(|| BorrowedFd::borrow_raw(fd))
        };
        if btf.is_none() && matches!(place, Place::Function(..)) {
            let why = "its object has no type information: compile with clang -g".into();
            return Err(DispatcherError::Component { name: self.name.clone(), why });
        }
        let load = Load {
            name: kernel_name(&self.name),
            licence: object.licence(),
            instructions: &code.instructions,
            btf,
            functions: &code.functions,
            lines: &code.lines,
            frags: self.frags,
            place,
        };
        let loaded = load.load();
        let (program, _) = loaded.map_err(|refused| {
            if matches!(place, Place::Function(..)) && kernel::is_not_permitted(&refused.error) {
                let why = "it refuses programs of type EXT".into();
                return DispatcherError::NoFreplace { why };
            }
            let error = verifier_error(&self.name, &refused.error, &refused.log);
            self.about_tail_calls(place, error)
        })?;
        Ok(program)
    }

    /// Why a program that tail-calls was refused for a slot.
    ///
    /// The kernel says EINVAL and no more where a program and those in its array differ: by type,
    /// or since 6.18 and in stable kernels of that time by attach type (commit 4540aed51b12). A
    /// program of type EXT has no attach type, an XDP program has one.
    fn about_tail_calls(&self, place: Place<'_>, error: Error) -> DispatcherError {
        // What the verifier itself refuses has a line of its log for summary.
        let silent = io::Error::from(Errno::INVAL).to_string();
        match (&self.tail_caller, place, &error) {
            (Some(name), Place::Function(..), Error::Verifier { summary, .. })
                if *summary == silent =>
            {
                let why = "it makes tail calls, and this kernel lets no program in a slot share a \
                           program array with XDP programs: run its chain without a dispatcher \
                           (`\"engine\": \"fused\"`)";
                DispatcherError::Component { name: name.clone(), why: why.into() }
            }
            _ => error.into(),
        }
    }
}

/// Whether a program or one of its subprograms makes tail calls.
fn tail_calls(code: &Code) -> bool {
    code.shape().is_ok_and(|shape| shape.tail_calls.contains(&true))
}

/// The program that is meant.
fn picked<'o>(object: &'o Object, pick: Pick<'_>) -> Result<ProgramRef<'o>, Error> {
    let first = match pick {
        Pick::Only => return object.select(None),
        Pick::Named(name) => return object.select(Some(name)),
        Pick::First => object.programs().into_iter().find(|program| program.kind() == XDP),
        Pick::Section(section) => {
            object.programs().into_iter().find(|program| program.section() == section)
        }
    };
    match (first, pick) {
        (Some(program), _) => object.select(Some(&program.name())),
        (None, Pick::Section(section)) => {
            let sections: Vec<_> = object.programs().iter().map(|p| p.section()).collect();
            let wanted = format!("in section {section}");
            Err(Error::NoSuchEntry { wanted, available: sections.join(", ") })
        }
        (None, _) => object.select(None),
    }
}

/// The actions that a fused program's slot is given.
impl From<SlotAnswer> for Actions {
    fn from(answer: SlotAnswer) -> Self {
        answer.actions.into()
    }
}

/// The XSKMAP redirect as AF_XDP sockets of libxdp know it.
///
/// # Errors
/// The kernel's answer.
pub fn xsk_program() -> Result<Program, DispatcherError> {
    /// libxdp finds the sockets' count by the map's name, `xsk_def_.data`: the first eight
    /// characters of the object's name, then the section.
    const OBJECT: &CStr = c"xsk_def_xdp_prog";
    let bytes = crate::builtin::xsk_redirect();
    let object = Object::open_as(bytes, OBJECT)?;
    Program::of(object, Pick::Named(XSK_NAME), &BTreeMap::new(), None)
}
