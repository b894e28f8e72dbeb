//! What a case gives in dispatchers, ours and libxdp's, whichever members share a slot.

use super::case::{Case, Packet, Place, Seat};
use super::forms::{Outcome, ordered, run, run_fused, same};
use super::one_by_one::{Played, Way, one_by_one};
use super::pool::{Handles, Make, Pool, Program};
use super::seats::{Kind, Seated, has_company, seated};
use pointsman_bpf::dispatcher::{Actions, Component, Lone, Options, Wanted, hook};
use pointsman_bpf::{Chain, Counters, Error, Slot, dispatcher, test_run};
use pointsman_model::chain::ExitCounts;
use pointsman_model::{ActionSet, Verdicts};
use pointsman_netns::dispatcher::{Stage, path};
use pointsman_netns::members::rounding;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::AsFd as _;

/// An interface, and the programs of the pool as they come into slots of it.
pub(super) struct Bench<'a> {
    stage: &'a Stage,
    pool: &'a Pool,
    /// By their place in the pool. One program serves all cases, as in a daemon.
    programs: Vec<OnceCell<dispatcher::Program>>,
}

/// How a case went that is right.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tried {
    /// In one of our dispatchers, each member in a slot by itself.
    pub(super) own: usize,
    /// In one of ours, as the case seats its members, of several slots.
    pub(super) several: usize,
    /// Fused slots of more than one member.
    pub(super) shared: usize,
    /// In one of libxdp's.
    pub(super) theirs: usize,
    /// libxdp's chain of one.
    pub(super) lone: usize,
    /// With our program that passes everything.
    pub(super) company: usize,
    /// Members that do not fit into one program, and are refused with the figures.
    pub(super) too_deep: usize,
}

impl Tried {
    pub(super) fn add(&mut self, other: &Self) {
        let Self { own, several, shared, theirs, lone, company, too_deep } = other;
        self.own += own;
        self.several += several;
        self.shared += shared;
        self.theirs += theirs;
        self.lone += lone;
        self.company += company;
        self.too_deep += too_deep;
    }
}

/// Slots with their programs. Those that others loaded have none here.
struct Built<'b> {
    slots: Vec<Seated>,
    programs: Vec<Option<Made<'b>>>,
}

enum Made<'b> {
    Own(&'b dispatcher::Program),
    Fused(Box<dispatcher::Program>),
}

impl Made<'_> {
    fn program(&self) -> &dispatcher::Program {
        match self {
            Self::Own(program) => program,
            Self::Fused(program) => program,
        }
    }
}

/// The maps of programs that libxdp's tool loaded, by the programs' names in the pool.
type Loaded = BTreeMap<String, Handles>;

impl<'a> Bench<'a> {
    pub(super) fn new(stage: &'a Stage, pool: &'a Pool) -> Self {
        let programs = pool.programs.iter().map(|_| OnceCell::new()).collect();
        Self { stage, pool, programs }
    }

    /// Runs a case fused, in our dispatchers and in libxdp's. `tamper` may falsify what one of
    /// these did, by its name, to try the test itself.
    ///
    /// # Errors
    /// What is not as the rule says, or does not load.
    pub(super) fn compare(
        &self,
        case: &Case,
        tamper: impl Fn(&str, &mut Outcome),
    ) -> Result<Tried, String> {
        let members = ordered(self.pool, case)?;
        let mut tried = Tried::default();
        if members.is_empty() {
            return Ok(tried);
        }
        let trial = Trial { bench: self, case, members: &members, tamper: &tamper };
        tried.too_deep += usize::from(!trial.fused()?);
        let own = seated(&members, |_| Seat::Own);
        let mixed = seated(&members, |seat| if seat == Seat::Theirs { Seat::Own } else { seat });
        if let Some(built) = trial.build(&own)? {
            trial.ours("own slots", &built, Lone::Chain, &mut tried)?;
            tried.own += 1;
            if let [Seated { kind: Kind::Own, .. }] = own[..] {
                trial.ours("alone as with libxdp", &built, Lone::AsLibxdp, &mut tried)?;
            }
        }
        if mixed != own {
            match trial.build(&mixed)? {
                Some(built) => {
                    trial.ours("slots", &built, Lone::Chain, &mut tried)?;
                    tried.several += usize::from(mixed.len() > 1);
                }
                None => tried.too_deep += 1,
            }
        }
        let theirs = seated(&members, |seat| seat);
        if theirs.iter().any(|slot| slot.kind == Kind::Theirs) {
            match trial.build(&theirs)? {
                Some(built) => trial.theirs(&built, &mut tried)?,
                None => tried.too_deep += 1,
            }
        }
        Ok(tried)
    }

    /// A program of the pool for a slot.
    fn program(&self, program: &Program) -> &dispatcher::Program {
        let at = self.pool.programs.iter().position(|pooled| std::ptr::eq(pooled, program));
        self.programs[at.expect("of the pool")].get_or_init(|| program.for_slot())
    }
}

/// One case on a bench.
struct Trial<'t, T> {
    bench: &'t Bench<'t>,
    case: &'t Case,
    members: &'t [(&'t Place, &'t Program)],
    tamper: &'t T,
}

impl<'t, T: Fn(&str, &mut Outcome)> Trial<'t, T> {
    /// Compares the plain fused chain; `false`: it does not fit.
    fn fused(&self) -> Result<bool, String> {
        let chain = match Chain::fuse(&self.slots(&(0..self.members.len())), rounding(), true) {
            Ok(chain) => chain,
            Err(Error::DoesNotFit(_)) => return Ok(false),
            Err(e) => return Err(format!("fused: {e}\n{}", e.log().unwrap_or(""))),
        };
        let wanted = one_by_one(self.members, &self.case.packets, &Way::Chain)?.outcome;
        same("fused", &run_fused(self.members, &self.case.packets, &chain)?, &wanted)?;
        Ok(true)
    }

    /// Members as they are fused.
    fn slots(&self, range: &Range<usize>) -> Vec<Slot<'t>> {
        let slot = |(at, (place, program)): (usize, &(&'t Place, &'t Program))| Slot {
            name: &place.name,
            member: &program.member,
            actions: place.actions,
            enforce: place.enforce,
            priority: at as u32,
        };
        self.members[range.clone()].iter().enumerate().map(slot).collect()
    }

    /// Makes the programs of slots; `None`: members of one do not fit into a program.
    fn build(&self, slots: &[Seated]) -> Result<Option<Built<'t>>, String> {
        let mut programs = Vec::new();
        for Seated { range, kind, actions } in slots {
            programs.push(match kind {
                Kind::Theirs => None,
                Kind::Own => Some(Made::Own(self.bench.program(self.members[range.start].1))),
                Kind::Fused => {
                    let counted = self.case.counted;
                    let program =
                        match dispatcher::Program::fuse(&self.slots(range), rounding(), counted) {
                            Ok(program) => program,
                            Err(dispatcher::DispatcherError::Other(Error::DoesNotFit(_))) => {
                                return Ok(None);
                            }
                            Err(e) => return Err(format!("slot of {range:?}: {e}")),
                        };
                    let told = program.answer().map(|answer| answer.actions);
                    if told != Some(*actions) {
                        return Err(format!("slot of {range:?}: told {told:?}, not {actions:?}"));
                    }
                    Some(Made::Fused(Box::new(program)))
                }
            });
        }
        Ok(Some(Built { slots: slots.to_vec(), programs }))
    }

    /// Puts the slots that are ours on the interface, in place of all that is there.
    fn place(&self, built: &Built<'_>, lone: Lone) -> Result<usize, String> {
        let options = Options { lone, ..Options::default() };
        let wanted: Vec<_> = built
            .programs
            .iter()
            .zip(&built.slots)
            .enumerate()
            .filter_map(|(at, (made, slot))| {
                let program = made.as_ref()?.program();
                Some(Wanted::new(program, Seated::priority(at), slot.actions.into()))
            })
            .collect();
        let changed = self
            .bench
            .stage
            .here(|d, index| d.change(index, &options, |_| Ok(wanted.clone())))
            .map_err(|e| format!("{:?}: {e}", built.slots))?;
        Ok(changed.programs.len())
    }

    /// Compares one of our dispatchers.
    fn ours(
        &self,
        name: &str,
        built: &Built<'_>,
        lone: Lone,
        tried: &mut Tried,
    ) -> Result<(), String> {
        let programs = self.place(built, lone)?;
        let company = lone == Lone::Chain && has_company(&built.slots);
        self.check(name, built, programs, company, &Loaded::new(), false)?;
        tried.company += usize::from(company);
        tried.shared += built.slots.iter().filter(|slot| slot.range.len() > 1).count();
        Ok(())
    }

    /// Compares a chain of both sides in libxdp's dispatcher, and rebuilt by us in ours.
    fn theirs(&self, built: &Built<'_>, tried: &mut Tried) -> Result<(), String> {
        let stage = self.bench.stage;
        let ours: Vec<_> = built.slots.iter().filter(|s| s.kind != Kind::Theirs).cloned().collect();
        let mut programs = self.place(built, Lone::Chain)?;
        let company = has_company(&ours);
        let mut loaded = Loaded::new();
        for (at, slot) in built.slots.iter().enumerate() {
            if slot.kind == Kind::Theirs {
                let program = self.members[slot.range.start].1;
                loaded.insert(program.name.clone(), self.load(program, at, slot)?);
                programs += 1;
            }
        }
        self.check("libxdp's", built, programs, company, &loaded, true)?;
        tried.theirs += 1;
        tried.lone += usize::from(programs == 1);
        // Ours around theirs; and our program that passes everything comes or goes.
        let keep = |running: &[Component]| Ok(running.iter().map(Wanted::kept).collect());
        let changed = stage.here(|d, index| d.change(index, &Options::default(), keep));
        let programs = changed.map_err(|e| e.to_string())?.programs.len();
        let company = has_company(&built.slots);
        self.check("theirs in ours", built, programs, company, &loaded, false)
    }

    /// Lets libxdp's tool load a program.
    fn load(&self, program: &Program, at: usize, slot: &Seated) -> Result<Handles, String> {
        let stage = self.bench.stage;
        let priority = Seated::priority(at);
        let object = path(program.object);
        let load = [
            "load",
            "-P",
            &priority.to_string(),
            "-A",
            &names(slot.actions),
            "-n",
            program.entry,
            "v1",
            &object,
        ];
        let output = stage.xdp_loader(&load);
        if !output.status.success() {
            return Err(format!("{load:?}: {output:?}"));
        }
        let chain = stage.chain();
        let component = chain.components.iter().find(|found| found.priority == priority);
        let component = component.ok_or_else(|| format!("{} is not there", program.name))?;
        if component.actions != Actions::from(slot.actions) || component.name != program.entry {
            return Err(format!("{load:?} became {component:?}"));
        }
        Ok(program.handles(&component.maps))
    }

    /// Runs the packets through what is attached, and compares all of it.
    fn check(
        &self,
        name: &str,
        built: &Built<'_>,
        programs: usize,
        company: bool,
        loaded: &Loaded,
        libxdp: bool,
    ) -> Result<(), String> {
        let Self { case: Case { packets, .. }, members, .. } = *self;
        let wanted = built.slots.len() + usize::from(company);
        if programs != wanted {
            return Err(format!("{name}: {programs} programs, not {wanted}: {:?}", built.slots));
        }
        let told: Vec<_> = built.slots.iter().map(Seated::told).collect();
        let way = match &built.slots[..] {
            [Seated { kind: Kind::Fused, .. }] if !company => Way::Chain,
            [_] if !company => Way::Replaced,
            _ => Way::Slots { slots: &told, libxdp },
        };
        let Played { outcome: wanted, passed } = one_by_one(members, packets, &way)?;
        let before = built.counts()?;
        let mut found = self.run(packets, loaded)?;
        (self.tamper)(name, &mut found);
        let seats = |why| format!("{why}\nin {:?}", built.slots);
        same(name, &found, &wanted).map_err(seats)?;
        let counts = wanted.counts.ok_or("the reference counts")?;
        for (at, (after, before)) in built.counts()?.iter().zip(&before).enumerate() {
            let (Some(after), Some(before)) = (after, before) else { continue };
            let range = built.slots[at].range.clone();
            let wanted = ExitCounts { members: counts.members[range].to_vec(), end: passed[at] };
            let found = since(after, before);
            if found != wanted {
                return Err(seats(format!("{name}: slot {at} counts {found:?}, not {wanted:?}")));
            }
        }
        Ok(())
    }

    /// What the attached dispatcher does with packets.
    fn run(&self, packets: &[Packet], loaded: &Loaded) -> Result<Outcome, String> {
        let attached = self.bench.stage.here(|_, index| hook(index)).map_err(|e| e.to_string())?;
        let (id, _) = attached.software.ok_or("nothing is attached")?;
        let dispatcher = libbpf_rs::Program::fd_from_id(id).map_err(|e| e.to_string())?;
        let make = |program: &Program| loaded.get(&program.name).map_or(Make::Member, Make::Loaded);
        run(self.members, packets, make, |packet| {
            let ran = test_run(dispatcher.as_fd(), packet, 1, 0).map_err(|e| e.to_string())?;
            Ok((ran.verdict, ran.packet))
        })
    }
}

impl Built<'_> {
    /// What has been counted so far, by slot; `None`: nobody counts there.
    fn counts(&self) -> Result<Vec<Option<ExitCounts>>, String> {
        let counters = |made: &Option<Made<'_>>| {
            let counters = made.as_ref().and_then(|made| made.program().counters());
            counters.map(Counters::read).transpose().map_err(|e| e.to_string())
        };
        self.programs.iter().map(counters).collect()
    }
}

/// What was counted between two readings.
fn since(after: &ExitCounts, before: &ExitCounts) -> ExitCounts {
    let member = |(after, before): (&Verdicts, &Verdicts)| {
        let mut counts = after.to_array();
        for (count, before) in counts.iter_mut().zip(before.to_array()) {
            *count -= before;
        }
        Verdicts::from_array(counts)
    };
    ExitCounts {
        members: after.members.iter().zip(&before.members).map(member).collect(),
        end: after.end - before.end,
    }
}

/// Actions as libxdp's tool takes them.
fn names(actions: ActionSet) -> String {
    let name = |action: pointsman_model::Action| format!("XDP_{}", action.name().to_uppercase());
    actions.iter().map(name).collect::<Vec<_>>().join(",")
}
