//! One case: a chain, and the packets that come to it. It says all that a run depends on, so that
//! a file of it repeats the run.

use super::pool::Pool;
use pointsman_model::{Action, ActionSet};
use pointsman_netns::packets::{Extension, Frame, QINQ, VLAN};
use pointsman_netns::random::Random;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const LONGEST: usize = 12;
const PACKETS: usize = 4;

/// A chain and its packets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// What it shows, for the reader.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) about: String,
    /// Whether the fused chains count.
    pub(super) counted: bool,
    pub(super) members: Vec<Place>,
    pub(super) packets: Vec<Packet>,
}

/// One member of a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// Its name in the pool.
    pub(super) program: String,
    /// Its name in the chain, which breaks ties.
    pub(super) name: String,
    pub(super) actions: ActionSet,
    pub(super) enforce: bool,
    pub(super) priority: u32,
    /// Where it is when the chain runs in a dispatcher.
    #[serde(default, skip_serializing_if = "Seat::is_shared")]
    pub(super) seat: Seat,
}

/// A member's place in a dispatcher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Seat {
    /// Fused into the slot of the member before it.
    #[default]
    Shared,
    /// The first of a fused slot.
    Begins,
    /// In a slot by itself.
    Own,
    /// Likewise, loaded by libxdp's tool.
    Theirs,
}

impl Seat {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_shared(&self) -> bool {
        *self == Self::Shared
    }
}

/// One packet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Packet {
    /// What programs whose verdict can be set say to it, by their names in the pool.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) answers: BTreeMap<String, i32>,
    #[serde(with = "hexadecimal")]
    pub(super) bytes: Vec<u8>,
}

/// Bytes as a string of hexadecimal digits.
mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error};
    use std::fmt::Write as _;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            write!(text, "{byte:02x}").expect("a string takes all");
        }
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        if !text.is_ascii() || !text.len().is_multiple_of(2) {
            return Err(D::Error::custom("not pairs of hexadecimal digits"));
        }
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).map_err(D::Error::custom);
        (0..text.len()).step_by(2).map(byte).collect()
    }
}

impl Case {
    /// Any case of programs of the pool.
    pub(super) fn random(random: &mut Random, pool: &Pool) -> Self {
        let members = chain(random, pool);
        let program = |place: &Place| pool.program(&place.program).expect("of the pool");
        let frags = members.iter().all(|place| program(place).frags);
        let live: Vec<_> = members.iter().filter(|place| program(place).live).collect();
        let packet = |random: &mut Random| Packet {
            answers: live
                .iter()
                .map(|place| {
                    let answer = *random.of(&[2, 2, 2, 2, 0, 1, 3, 4, 5, 7, 31, 34, 66, -1]);
                    (place.program.clone(), answer)
                })
                .collect(),
            bytes: packet(random, frags),
        };
        let packets = (0..PACKETS).map(|_| packet(random)).collect();
        let counted = !random.one_in(8);
        Self { about: String::new(), counted, members, packets }
    }
}

fn chain(random: &mut Random, pool: &Pool) -> Vec<Place> {
    // Packets of several buffers come only to chains whose members all take them.
    let frags_only = random.one_in(6);
    let candidates: Vec<_> =
        pool.programs.iter().filter(|program| program.frags || !frags_only).collect();
    let length = if candidates.is_empty() { 0 } else { random.below(LONGEST + 1) };
    // How many of eight come with libxdp's tool, which takes its time.
    let theirs = *random.of(&[0, 0, 0, 0, 0, 2, 2, 8]);
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
            program: random.of(&candidates).name.clone(),
            name: format!("m{number:02}"),
            actions,
            enforce: !random.one_in(5),
            // Few enough that ties are common.
            priority: random.below(4) as u32,
            seat: match random.below(8) {
                seat if seat < theirs => Seat::Theirs,
                0 | 7 => Seat::Own,
                1 => Seat::Begins,
                2..=5 => Seat::Shared,
                _ => *random.of(&[Seat::Own, Seat::Begins]),
            },
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
