//! The contract of fusing: any chain on any packet gives the verdict, the packet, the map contents
//! and the counts that its members give one after the other.
//!
//! The reference knows nothing of fusing: libbpf loads each program by itself, and the documented
//! rule is played here, packet by packet. Chains and packets are random; `POINTSMAN_SEED` repeats
//! a run, `POINTSMAN_FULL=1` makes a long one.

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, ObjectBuilder, ProgramInput};
use pointsman_bpf::{Chain, Error, MapHome, Member, Slot, builtin, test_run};
use pointsman_model::chain::ExitCounts;
use pointsman_model::document::Builtin;
use pointsman_model::{Action, ActionSet, Verdicts};
use pointsman_netns::bpffs::Bpffs;
use pointsman_netns::members::{resolved, rounding};
use pointsman_netns::object;
use pointsman_netns::packets::{Extension, Frame, QINQ, VLAN};
use pointsman_netns::random::{Random, full};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CASES: usize = 250;
const CASES_FULL: usize = 10_000;
const LONGEST: usize = 12;
const PACKETS: usize = 4;

/// A program of the pool: once as a member with maps of its own, once loaded by libbpf alone.
struct Pooled {
    name: String,
    entry: String,
    frags: bool,
    /// Its verdict is the first word of `.data`, which changes between packets.
    live: bool,
    member: Member,
    maps: PathBuf,
    reference: libbpf_rs::Object,
}

/// Several of one entry have maps and globals of their own.
fn wanted() -> Vec<(&'static str, &'static str, Value)> {
    let mut wanted = Vec::new();
    for _ in 0..6 {
        wanted.push(("verdict", "v_live", Value::Null));
    }
    for entry in ["v_aborted", "v_drop", "v_pass", "v_tx", "v_redirect", "v_invalid", "v_negative"]
    {
        wanted.push(("verdict", entry, Value::Null));
    }
    wanted.push(("verdict", "v_opaque", Value::Null));
    wanted.push(("verdict", "v_global", json!({"verdict": 3})));
    wanted.push(("verdict", "v_port", json!({"port": 20000, "port_verdict": 1})));
    for id in [11, 22, 33] {
        wanted.push(("order", "mark", json!({ "id": id })));
    }
    wanted.push(("order", "mark_a", json!({"id": 44, "offset": 20, "verdict": 1})));
    for entry in ["s_static", "s_global", "s_callback", "s_bounded", "s_mixed"] {
        wanted.push(("subprogs", entry, Value::Null));
    }
    for entry in ["member", "member_empty", "member_in_sub"] {
        wanted.push(("tailcall", entry, Value::Null));
    }
    for entry in ["a_head", "a_head_back", "a_tail", "a_meta", "a_meta_read"] {
        wanted.push(("adjust", entry, Value::Null));
    }
    for entry in ["stack_8", "stack_256", "stack_400", "stack_400_sub_64", "stack_104_sub_256"] {
        wanted.push(("stack", entry, Value::Null));
    }
    for entry in ["f_frags", "f_length"] {
        wanted.push(("frags", entry, Value::Null));
    }
    wanted.push(("timer", "arm", Value::Null));
    wanted.push(("spinlock", "locked", Value::Null));
    wanted.push(("percpu", "percpu", Value::Null));
    wanted.push(("mapinmap", "nested", Value::Null));
    wanted.push(("globals", "globals", Value::Null));
    wanted.push(("nobtf", "nobtf", Value::Null));
    wanted.push(("gpl", "gpl", Value::Null));
    wanted.push(("udp_port_filter", "mtl_dp_filter", Value::Null));
    wanted.push(("cidr_blocklist", "cidr_blocklist", Value::Null));
    wanted.push(("counting_pass", "counting_pass", Value::Null));
    wanted.push(("xskmap_redirect", "xsk_redirect", Value::Null));
    wanted
}

fn bytes_of(name: &str) -> Vec<u8> {
    match name {
        "udp_port_filter" => builtin(Builtin::UdpPortFilter).to_vec(),
        "cidr_blocklist" => builtin(Builtin::CidrBlocklist).to_vec(),
        "counting_pass" => builtin(Builtin::CountingPass).to_vec(),
        "xskmap_redirect" => builtin(Builtin::XskmapRedirect).to_vec(),
        name => object(name),
    }
}

impl Pooled {
    fn new(at: usize, (name, entry, globals): (&str, &str, Value), root: &Path) -> Self {
        let bytes = bytes_of(name);
        let maps = root.join(at.to_string());
        let home = MapHome::Pinned(maps.clone());
        let program = resolved(&bytes, entry, globals);
        let member = Member::prepare(&bytes, &program, &home, rounding(), None)
            .unwrap_or_else(|e| panic!("{name}:{entry}: {e}\n{}", e.log().unwrap_or("")));
        let mut open = ObjectBuilder::default().open_memory(&bytes).expect("libbpf opens it");
        for mut program in open.progs_mut() {
            let is_entry = program.name() == entry;
            program.set_autoload(is_entry || name == "tailcall");
        }
        // Globals are as the member has them: setting them is tried elsewhere.
        for mut map in open.maps_mut() {
            let section = map.name().to_string_lossy().split_once('.').map(|(_, s)| s.to_owned());
            let Some(section) = section else { continue };
            let pin = maps.join(format!("%2e{}", section.replace('.', "%2e")));
            let pinned = MapHandle::from_pinned_path(&pin).expect("a pinned section");
            let value = pinned.lookup(&[0; 4], MapFlags::ANY).expect("a value").expect("a value");
            let initial = map.initial_value_mut().expect("a section has a value");
            initial.copy_from_slice(&value[..initial.len()]);
        }
        let reference = open.load().unwrap_or_else(|e| panic!("{name}:{entry}: {e}"));
        let live = entry == "v_live";
        let frags = member.facts().frags;
        let name = format!("{name}-{at}");
        Self { name, entry: entry.to_owned(), frags, live, member, maps, reference }
    }

    /// Makes both programs answer `verdict` from now on.
    fn answer(&self, verdict: i32) {
        let pinned = MapHandle::from_pinned_path(self.maps.join("%2edata")).expect("a pin");
        pinned.update(&[0; 4], &verdict.to_ne_bytes(), MapFlags::ANY).expect("an update");
        let own = self.reference.maps().find(|map| map.name().to_string_lossy().ends_with(".data"));
        let own = own.expect("a data section");
        own.update(&[0; 4], &verdict.to_ne_bytes(), MapFlags::ANY).expect("an update");
    }

    /// Runs the program as libbpf loaded it. The packet starts with `meta` bytes of metadata.
    fn run(&self, packet: &mut Vec<u8>, meta: &mut u32) -> u32 {
        let length = u32::try_from(packet.len()).expect("a short packet");
        // struct xdp_md: data, data_end, data_meta, and three that stay zero.
        let mut context: Vec<u8> =
            [*meta, length, 0, 0, 0, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        let mut context_out = context.clone();
        let mut out = vec![0; packet.len() + 512];
        let room = out.len();
        let program = self.reference.progs_mut().find(|program| *program.name() == *self.entry);
        let program = program.expect("the entry");
        let input = ProgramInput {
            context_in: Some(&mut context),
            context_out: Some(&mut context_out),
            data_in: Some(packet),
            data_out: Some(&mut out),
            ..ProgramInput::default()
        };
        let ran = program.test_run(input).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let after = ran.data.expect("the packet").to_vec();
        assert!(after.len() < room, "{}: the packet is cut", self.name);
        let context = ran.context.expect("the context");
        *meta = u32::from_ne_bytes(context[..4].try_into().expect("four bytes"));
        let verdict = ran.return_value;
        *packet = after;
        verdict
    }

    /// What both have in their maps, which must be the same.
    fn contents(&self) -> (Contents, Contents) {
        let mut pinned = Contents::new();
        let mut own = Contents::new();
        for map in self.reference.maps() {
            let name = map.name().to_string_lossy().into_owned();
            let (file, name) = match name.split_once('.') {
                Some((_, section)) => (format!("%2e{}", section.replace('.', "%2e")), section),
                None => (name.clone(), name.as_str()),
            };
            // The values of these are ids of maps and programs, or of nobody's interest.
            if ["outer", "targets", "nothing", "xsks_map", "ports"].contains(&name)
                || name.starts_with("blocklist")
            {
                continue;
            }
            let handle = MapHandle::from_pinned_path(self.maps.join(file)).expect("a pinned map");
            pinned.insert(name.to_owned(), entries(&handle));
            own.insert(name.to_owned(), entries(&map));
        }
        (pinned, own)
    }
}

type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// All entries of a map. Those per CPU are added up word by word: tests run on any CPU.
fn entries(map: &impl libbpf_rs::MapCore) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let value = |key: &Vec<u8>| -> Vec<u8> {
        if !map.map_type().is_percpu() {
            let value = map.lookup(key, MapFlags::ANY).expect("a lookup").expect("a value");
            // A timer's own words, and how often it fired meanwhile, are its own affair.
            return if map.name() == "clocks" { value[16..24].to_vec() } else { value };
        }
        let values = map.lookup_percpu(key, MapFlags::ANY).expect("a lookup").expect("a value");
        let mut sum = vec![0u64; values[0].len() / 8];
        for value in values {
            for (sum, word) in sum.iter_mut().zip(value.chunks_exact(8)) {
                *sum += u64::from_ne_bytes(word.try_into().expect("eight bytes"));
            }
        }
        sum.iter().flat_map(|word| word.to_ne_bytes()).collect()
    };
    map.keys().map(|key| (key.clone(), value(&key))).collect()
}

/// What one member of a random chain is.
#[derive(Debug, Clone)]
struct Place {
    at: usize,
    name: String,
    actions: ActionSet,
    enforce: bool,
    priority: u32,
}

fn chain(random: &mut Random, pool: &[Pooled]) -> Vec<Place> {
    // Packets of several buffers come only to chains whose members all take them.
    let frags_only = random.one_in(6);
    let candidates: Vec<usize> =
        (0..pool.len()).filter(|&at| pool[at].frags || !frags_only).collect();
    let length = random.below(LONGEST + 1);
    let mut places = Vec::new();
    for number in 0..length {
        let mut actions = ActionSet::EMPTY;
        if !random.one_in(12) {
            // Mostly those that let chains be long.
            actions = ActionSet::PASS;
            while random.one_in(3) {
                actions = actions.with(*random.of(&Action::ALL));
            }
            if random.one_in(6) {
                actions = std::iter::once(*random.of(&Action::ALL)).collect();
            }
        }
        places.push(Place {
            at: *random.of(&candidates),
            name: format!("m{number:02}"),
            actions,
            enforce: !random.one_in(5),
            // Few enough that ties are common.
            priority: random.below(4) as u32,
        });
    }
    places
}

fn packet(random: &mut Random, several_buffers: bool) -> Vec<u8> {
    let port = *random.of(&[20000, 20001, 53, 0]);
    let length = if several_buffers && random.one_in(2) {
        6000 + random.below(2000)
    } else {
        random.below(300)
    };
    let payload: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
    let v4 = || {
        let from = format!("192.0.2.{}:1000", port % 7).parse().expect("an address");
        Frame::udp(from, format!("198.51.100.7:{port}").parse().expect("an address"))
    };
    let v6 = || {
        let from = "[2001:db8::1]:1000".parse().expect("an address");
        Frame::udp(from, format!("[2001:db8::7]:{port}").parse().expect("an address"))
    };
    let frame = match random.below(7) {
        0 => v4(),
        1 => v4().options(12),
        2 => v4().tag(QINQ, 3).tag(VLAN, 4),
        3 => v6(),
        4 => v6().tag(VLAN, 9).extension(Extension::HopByHop(1)),
        5 => return v4().payload(&payload).fragments(64, 0).swap_remove(0),
        _ => return [&[2; 14][..], &payload].concat(),
    };
    let mut bytes = frame.payload(&payload).build();
    if random.one_in(6) {
        bytes.truncate(14 + random.below(bytes.len() - 13));
    }
    bytes
}

/// The documented rule, one program after the other.
fn play(
    pool: &[Pooled],
    ordered: &[Place],
    packet: &[u8],
    counts: &mut ExitCounts,
) -> (u32, Vec<u8>) {
    let (mut packet, mut meta) = (packet.to_vec(), 0);
    for (at, place) in ordered.iter().enumerate() {
        let verdict = pool[place.at].run(&mut packet, &mut meta);
        let action = Action::ALL.into_iter().find(|action| action.code() == verdict);
        let goes_on = action.is_some_and(|action| place.actions.contains(action));
        // A packet is counted where it leaves; on the way only where it cannot be told from that.
        if !place.enforce || !goes_on || place.actions.len() > 1 {
            let mut all = counts.members[at].to_array();
            all[action.map_or(Verdicts::LEN - 1, |action| action as usize)] += 1;
            counts.members[at] = Verdicts::from_array(all);
        }
        if place.enforce && !goes_on {
            return (verdict, packet);
        }
    }
    counts.end += 1;
    (Action::Pass.code(), packet)
}

#[test]
fn fused_chains_do_what_their_members_do_one_by_one() {
    let mut random = Random::new("equivalence");
    let cases = if full() { CASES_FULL } else { CASES };
    let bpffs = Bpffs::mount().expect("root");
    let pool: Vec<_> = wanted()
        .into_iter()
        .enumerate()
        .map(|(at, program)| Pooled::new(at, program, bpffs.path()))
        .collect();
    let (mut too_deep, mut several_buffers, mut called) = (0, 0, 0);
    for case in 0..cases {
        let places = chain(&mut random, &pool);
        let slots: Vec<_> = places
            .iter()
            .map(|place| Slot {
                name: &place.name,
                member: &pool[place.at].member,
                actions: place.actions,
                enforce: place.enforce,
                priority: place.priority,
            })
            .collect();
        let mut ordered = places.clone();
        ordered.sort_by_key(|p| (p.priority, pool[p.at].entry.clone(), p.name.clone()));
        let told = || -> String {
            let member = |p: &Place| {
                let kind = if p.enforce { "" } else { " observed" };
                format!("{}:{}{kind} {:?}", pool[p.at].name, pool[p.at].entry, p.actions)
            };
            let members: Vec<_> = ordered.iter().map(member).collect();
            format!("case {case}: {}", members.join(" | "))
        };
        let counted = !random.one_in(8);
        let chain = match Chain::fuse(&slots, rounding(), counted) {
            Ok(chain) => chain,
            Err(Error::DoesNotFit(_)) => {
                too_deep += 1;
                continue;
            }
            Err(e) => panic!("{}: {e}\n{}", told(), e.log().unwrap_or("")),
        };
        let layout = chain.layout();
        called += usize::from(layout.forms.contains(&pointsman_model::chain::Form::Called));
        let frags = layout.frags;
        let mut counts = ExitCounts { members: vec![Verdicts::default(); places.len()], end: 0 };
        for _ in 0..PACKETS {
            for place in &places {
                if pool[place.at].live {
                    pool[place.at].answer(*random.of(&[2, 2, 2, 2, 0, 1, 3, 4, 5, 7, 34, -1]));
                }
            }
            let packet = packet(&mut random, frags);
            several_buffers += usize::from(packet.len() > 4096);
            let fused = test_run(chain.program(), &packet, 1, 0)
                .unwrap_or_else(|e| panic!("{}: {e}", told()));
            let (verdict, after) = play(&pool, &ordered, &packet, &mut counts);
            assert_eq!(fused.verdict, verdict, "{}\npacket {packet:02x?}", told());
            assert_eq!(fused.packet, after, "{}\npacket {packet:02x?}", told());
        }
        if let Some(counters) = chain.counters() {
            assert_eq!(counters.read().expect("counters"), counts, "{}", told());
        }
        for place in &places {
            let (fused, alone) = pool[place.at].contents();
            assert_eq!(fused, alone, "maps of {}, {}", pool[place.at].name, told());
        }
    }
    println!(
        "equivalence: {cases} chains: {too_deep} did not fit, {called} with called members; \
         {several_buffers} packets of several buffers"
    );
    // What is hardly ever tried is not tested.
    assert!(too_deep * 4 < cases, "{too_deep} of {cases} chains did not fit");
    assert!(called * 10 > cases, "{called} of {cases} chains had a called member");
    assert!(several_buffers > 0, "no packet of several buffers");
}
