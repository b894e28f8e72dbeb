//! Chains: several members fused into one program, attached, counted.

use crate::alone::verifier_error;
use crate::btf::{FunctionLinkage, MergedBtf};
use crate::dispatcher::names::KERNEL_NAME;
use crate::error::Error;
use crate::kernel::{self, Link, Load, Maps, Place, ProgramInfo};
use crate::member::{Member, kernel_name};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType};
use libbpf_sys as sys;
use pointsman_fuse::assemble::{self, Counter, Frame, Fused, Line, assemble};
use pointsman_fuse::layout::{Layout, StackRounding, layout};
use pointsman_model::chain::ExitCounts;
use pointsman_model::observed::AttachMode;
use pointsman_model::{Action, ActionSet, Verdicts};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// The name of every fused program that is attached by itself: what `bpftool prog` shows. In a slot
/// a program has the name of its slot, and its type information knows a function of this name if it
/// answers what only a dispatcher understands.
pub const PROGRAM_NAME: &str = "pointsman_chain";

/// One member's place in a chain.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a> {
    /// The operator's name for it, used in messages.
    pub name: &'a str,
    /// The program.
    pub member: &'a Member,
    /// The verdicts after which the chain goes on.
    pub actions: ActionSet,
    /// Whether its verdict is acted upon.
    pub enforce: bool,
    /// Ascending: the lowest runs first. Equal priorities go by entry, then by name.
    pub priority: u32,
}

/// A fused chain in the kernel.
#[derive(Debug)]
pub struct Chain {
    program: OwnedFd,
    maps: Maps,
    counters: Option<Counters>,
    layout: Layout,
}

/// Where a chain counts.
#[derive(Debug)]
pub struct Counters {
    map: MapHandle,
    members: usize,
}

impl<'a> Slot<'a> {
    /// A place by the defaults of a document: the chain goes on after PASS, the verdict is
    /// enforced, the priority is 50.
    #[must_use]
    pub fn new(name: &'a str, member: &'a Member) -> Self {
        Self { name, member, actions: ActionSet::PASS, enforce: true, priority: 50 }
    }
}

impl Chain {
    /// Fuses `slots`, which run by priority, and loads the result. Nothing is attached yet.
    ///
    /// # Errors
    /// Members that do not go together, with the figures, or the verifier's refusal.
    pub fn fuse(slots: &[Slot<'_>], rounding: StackRounding, counted: bool) -> Result<Self, Error> {
        let slots = by_priority(slots);
        let named: Vec<_> = slots.iter().map(|slot| (slot.name, slot.member.facts())).collect();
        let layout = layout(&named, rounding)?;
        Self::load(&slots, layout, counted)
    }

    /// Fuses `slots`, which run by priority, in a layout of the caller's choice: for comparing
    /// forms. What does not fit is refused by the verifier instead of with figures.
    ///
    /// # Errors
    /// The verifier's refusal.
    pub fn fuse_as(slots: &[Slot<'_>], layout: Layout, counted: bool) -> Result<Self, Error> {
        Self::load(&by_priority(slots), layout, counted)
    }

    fn load(slots: &[&Slot<'_>], layout: Layout, counted: bool) -> Result<Self, Error> {
        let counters = if counted { Some(Counters::create(slots.len())?) } else { None };
        let end = Action::Pass.code();
        let woven = Woven::of(PROGRAM_NAME, slots, &layout, counters.as_ref(), end)?;
        let program = woven.load(Place::Anywhere)?;
        Ok(Self { program, maps: maps_of(slots)?, counters, layout })
    }

    /// How the members were built in, in the order they run.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The counters; `None` for a chain fused without.
    #[must_use]
    pub fn counters(&self) -> Option<&Counters> {
        self.counters.as_ref()
    }

    /// The fused program, for test runs.
    #[must_use]
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// What the kernel tells about the fused program.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn info(&self) -> Result<ProgramInfo, Error> {
        kernel::program_info(self.program.as_fd())
    }

    /// Attaches the chain to an interface of this thread's network namespace.
    ///
    /// # Errors
    /// The kernel's answer: `EBUSY` where a program is attached already.
    pub fn attach(&self, interface_index: u32, mode: AttachMode) -> io::Result<Link> {
        let mut link = Link::attach(self.program.as_fd(), interface_index, mode)?;
        link.hold(&self.maps);
        Ok(link)
    }

    /// Replaces the chain that runs on `link` by this one, in one step.
    ///
    /// # Errors
    /// The kernel's answer: `ENOLINK` where the interface is gone.
    pub fn swap_into(&self, link: &mut Link) -> io::Result<()> {
        link.update(self.program.as_fd(), None)?;
        link.hold(&self.maps);
        Ok(())
    }
}

impl Counters {
    pub(crate) fn create(members: usize) -> Result<Self, Error> {
        let failed =
            |e: libbpf_rs::Error| Error::Map { map: "counters".into(), why: e.to_string() };
        let rows = Counter::rows_for(possible_cpus().map_err(failed)?);
        let bytes = Counter { map: 0, rows, members }.value_bytes();
        // A mappable array starts on a page: cells are whole cache lines then.
        let opts = sys::bpf_map_create_opts {
            sz: size_of::<sys::bpf_map_create_opts>() as sys::size_t,
            map_flags: sys::BPF_F_MMAPABLE,
            ..Default::default()
        };
        let size = u32::try_from(bytes).unwrap_or(u32::MAX);
        let map = MapHandle::create(MapType::Array, Some("pm_counters"), 4, size, 1, &opts);
        Ok(Self { map: map.map_err(failed)?, members })
    }

    /// Opens the pinned counters of a chain of `members`.
    pub(crate) fn open(map: MapHandle, members: usize) -> Result<Self, Error> {
        let row = Counter::row_bytes(members);
        let size = map.value_size() as usize;
        if map.map_type() != MapType::Array || size == 0 || !size.is_multiple_of(row) {
            let why = format!("{size} bytes are not rows for {members} members");
            return Err(Error::Map { map: "counters".into(), why });
        }
        Ok(Self { map, members })
    }

    pub(crate) fn map(&self) -> &MapHandle {
        &self.map
    }

    fn frame(&self) -> Counter {
        let row = Counter::row_bytes(self.members) as u32;
        Counter {
            map: self.map.as_fd().as_raw_fd(),
            rows: self.map.value_size() / row,
            members: self.members,
        }
    }

    /// Reads all counts, summed over CPUs; members in the order they run.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn read(&self) -> Result<ExitCounts, Error> {
        let broken = |why: String| Error::Map { map: "counters".into(), why };
        let value = self
            .map
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|e| broken(e.to_string()))?
            .ok_or_else(|| broken("are empty".into()))?;
        let mut members = vec![[0u64; Verdicts::LEN]; self.members];
        let mut end = 0u64;
        for row in value.chunks_exact(Counter::row_bytes(self.members)) {
            end = end.wrapping_add(word(row, Counter::cell(None)));
            for (at, counts) in members.iter_mut().enumerate() {
                let cell = Counter::cell(Some(at));
                for (verdict, count) in counts.iter_mut().enumerate() {
                    *count = count.wrapping_add(word(row, cell + 8 * verdict));
                }
            }
        }
        Ok(ExitCounts { members: members.into_iter().map(Verdicts::from_array).collect(), end })
    }
}

/// One more than the highest number a CPU can have. The numbers can have holes.
pub(crate) fn possible_cpus() -> Result<u32, libbpf_rs::Error> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/possible").ok();
    match list.as_deref().and_then(highest_of) {
        Some(highest) => Ok(highest.saturating_add(1)),
        None => Ok(u32::try_from(libbpf_rs::num_possible_cpus()?).unwrap_or(u32::MAX)),
    }
}

/// The last number of a list such as `0-3,8-11`.
fn highest_of(list: &str) -> Option<u32> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

fn word(row: &[u8], at: usize) -> u64 {
    let bytes = row.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_ne_bytes)
}

/// The order of a chain: libxdp's rule, then the operator's name.
pub(crate) fn by_priority<'s, 'm>(slots: &'s [Slot<'m>]) -> Vec<&'s Slot<'m>> {
    let mut slots: Vec<_> = slots.iter().collect();
    slots.sort_by_key(|slot| (slot.priority, slot.member.entry(), slot.name));
    slots
}

/// The maps of all members, held open.
pub(crate) fn maps_of(slots: &[&Slot<'_>]) -> Result<Maps, Error> {
    let mut maps = Vec::new();
    for slot in slots {
        maps.append(&mut slot.member.object().map_descriptors()?);
    }
    Ok(maps.into())
}

/// A fused program that is not loaded yet.
#[derive(Debug)]
pub(crate) struct Woven {
    name: String,
    btf: MergedBtf,
    fused: Fused,
    gpl: bool,
    pub(crate) frags: bool,
    /// The operator's names of the members, in the order they run.
    names: Vec<String>,
}

impl Woven {
    /// Fuses members in the order given into a program called `name`. What is left at the end
    /// answers `end`.
    pub(crate) fn of(
        name: &str,
        slots: &[&Slot<'_>],
        layout: &Layout,
        counters: Option<&Counters>,
        end: u32,
    ) -> Result<Self, Error> {
        let mut btf = MergedBtf::new()?;
        let unknown_type = btf.add_unknown()?;
        let file = btf.add_string("pointsman")?;
        let mut records = Vec::with_capacity(slots.len());
        for (at, slot) in slots.iter().enumerate() {
            let code = slot.member.code();
            let (functions, lines) =
                btf.adopt(slot.member.object(), &code.functions, &code.lines)?;
            // The chain's own instructions show in logs and dumps as a line that names the member.
            let text = btf.add_string(&format!("chain: member {} is {}", at + 1, slot.name))?;
            let glue = Line { offset: 0, file, text, position: ((at as u32 + 1) << 10) | 1 };
            let called_type = btf.add_program(slot.member.entry(), FunctionLinkage::Global)?;
            records.push((functions, lines, glue, called_type));
        }
        if name.len() >= KERNEL_NAME {
            btf.free_name(name)?;
        }
        let chain_type = btf.add_program(name, FunctionLinkage::Global)?;
        if name != PROGRAM_NAME && end != Action::Pass.code() {
            btf.add_program(PROGRAM_NAME, FunctionLinkage::Global)?;
        }
        let members: Vec<_> = slots
            .iter()
            .zip(&records)
            .zip(&layout.forms)
            .map(|((slot, (functions, lines, glue, called_type)), &form)| assemble::Member {
                instructions: &slot.member.code().instructions,
                functions,
                lines,
                form,
                actions: slot.actions,
                enforce: slot.enforce,
                glue: *glue,
                called_type: *called_type,
            })
            .collect();
        let text = btf.add_string("chain: the packet's way through its members")?;
        let frame = Frame {
            context: layout.context,
            counter: counters.map(Counters::frame),
            chain_type,
            unknown_type,
            end,
            glue: Line { offset: 0, file, text, position: 1 },
        };
        let fused = assemble(&members, &frame)?;
        let names = slots.iter().map(|slot| slot.name.to_owned()).collect();
        let name = name.to_owned();
        Ok(Self { name, btf, fused, gpl: layout.gpl, frags: layout.frags, names })
    }

    /// How many instructions it has.
    pub(crate) fn len(&self) -> usize {
        self.fused.instructions.len()
    }

    pub(crate) fn load(&self, place: Place<'_>) -> Result<OwnedFd, Error> {
        let load = Load {
            name: kernel_name(&self.name),
            licence: if self.gpl { "GPL" } else { "Proprietary" },
            instructions: &self.fused.instructions,
            btf: Some(self.btf.load()?),
            functions: &self.fused.functions,
            lines: &self.fused.lines,
            frags: self.frags,
            place,
        };
        let (program, _) = load.load().map_err(|refused| {
            let guilty = guilty(&self.fused, &refused.log).and_then(|at| self.names.get(at));
            let name = guilty.map_or(self.name.as_str(), String::as_str);
            verifier_error(name, &refused.error, &refused.log)
        })?;
        Ok(program)
    }
}

/// The member in which the verifier stopped: the last instruction its log mentions.
fn guilty(fused: &Fused, log: &str) -> Option<usize> {
    let at = log.lines().rev().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        rest.starts_with(" (").then(|| number.parse::<usize>().ok())?
    })?;
    fused.places.iter().position(|place| {
        place.as_ref().is_some_and(|p| p.main.contains(&at) || p.subprograms.contains(&at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_numbers_can_have_holes() {
        assert_eq!(highest_of("0-3,8-11\n"), Some(11));
        assert_eq!(highest_of("0\n"), Some(0));
        assert_eq!(highest_of("0-1,5"), Some(5));
        assert_eq!(highest_of(""), None);
    }
}
