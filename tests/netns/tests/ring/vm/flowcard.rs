//! Flow rules, channels and RSS on the kernel's real ioctl path, with the tests' own card: a module
//! that only the emulated machine has.

use pointsman_model::InterfaceName;
use pointsman_model::flow::{FlowAction, FlowKind, FlowRequest, FlowRule, QueueRights, check_flow};
use pointsman_model::nic::Channels;
use pointsman_netdev::{ChannelsError, Control, ControlError, Ethtool};
use pointsman_netns::netns::Netns;
use pointsman_netns::skip;
use pointsman_plan::nic::{FormerRss, Queues, RssTable, RuleTable, locations, rss_table};
use std::collections::BTreeSet;
use std::process::Command;

/// How many rules the card has room for, and its queues.
const RULES: u32 = 16;
const QUEUES: u32 = 8;

/// A card in a namespace of its own, entered by the thread that runs the test.
struct Card {
    netns: Netns,
}

impl Card {
    /// `None`: this kernel has none, and the summary says so.
    fn new(test: &str) -> Option<Self> {
        let netns = Netns::new().expect("root");
        match netns.ip(&["link", "add", "card0", "type", "flowcard"]) {
            Ok(()) => Some(Self { netns }),
            Err(error) => {
                skip(test, &format!("only the emulated machine has the tests' card: {error:#}"));
                None
            }
        }
    }

    fn run<T: Send>(&self, work: impl FnOnce(&Control) -> T + Send) -> T {
        self.netns.run(|| {
            let name = InterfaceName::new("card0").expect("a name");
            work(&Control::open(name).expect("a socket"))
        })
    }

    /// What ethtool(8) says, which knows nothing of us.
    fn ethtool(&self, arguments: &[&str]) -> String {
        let run = || Command::new("ethtool").args(arguments).output().expect("ethtool");
        let output = self.netns.run(run);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "ethtool {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn flag(&self, name: &str, on: bool) {
        let value = if on { "on" } else { "off" };
        self.ethtool(&["--set-priv-flags", "card0", name, value]);
    }
}

fn rule(request: &FlowRequest) -> FlowRule {
    check_flow(request, QUEUES, QueueRights::Any).expect("a rule")
}

fn to_port(port: u16, queue: u32) -> FlowRule {
    let all = FlowRequest::all(FlowKind::Udp4, FlowAction::Queue(queue));
    rule(&FlowRequest { dst_port: Some(port), ..all })
}

/// One rule of each kind and with each field.
fn various() -> Vec<FlowRule> {
    let ip = |text: &str| Some(text.parse().expect("an address"));
    let of = |kind, queue| FlowRequest::all(kind, FlowAction::Queue(queue));
    let requests = [
        FlowRequest {
            src_ip: ip("10.0.0.1"),
            dst_ip: ip("239.1.1.1"),
            src_port: Some(7),
            dst_port: Some(20_000),
            ..of(FlowKind::Udp4, 1)
        },
        FlowRequest { dst_ip: ip("10.0.0.0/8"), tos: Some(0xb8), ..of(FlowKind::Tcp4, 2) },
        FlowRequest { dst_ip: ip("2001:db8::1"), dst_port: Some(1), ..of(FlowKind::Udp6, 3) },
        FlowRequest {
            src_ip: ip("2001:db8::/32"),
            src_port: Some(0x1200),
            src_port_mask: Some(0xff00),
            tos: Some(4),
            tos_mask: Some(0xfc),
            ..of(FlowKind::Tcp6, 4)
        },
        FlowRequest { vlan: Some(100), vlan_priority: Some(5), ..of(FlowKind::Udp4, 5) },
        FlowRequest { protocol: Some(1), ..of(FlowKind::Ip4, 6) },
        FlowRequest { dst_ip: ip("ff02::/16"), ..of(FlowKind::Ip6, 7) },
        FlowRequest { dst_port: Some(666), ..FlowRequest::all(FlowKind::Udp4, FlowAction::Drop) },
    ];
    requests.iter().map(rule).collect()
}

/// The next place for a rule, as the planner says.
fn place(card: &Control) -> Option<Option<u32>> {
    let found = card.flow_table().expect("a table");
    let taken = found.locations.into_iter().collect();
    let table = RuleTable { size: found.size, chooses_location: found.chooses_location, taken };
    locations(&table).next()
}

#[test]
fn rules_of_every_kind_are_read_as_they_were_written_and_those_of_others_stay() {
    let Some(card) = Card::new("flowcard::kinds") else { return };
    // Another's, at the place that would be the first.
    let arguments =
        ["-N", "card0", "flow-type", "tcp4", "dst-port", "22", "action", "2", "loc", "15"];
    card.ethtool(&arguments);
    let of_others = card.ethtool(&["-n", "card0"]);
    card.run(|control| {
        assert_eq!(control.receive_queues().expect("queues"), QUEUES);
        let mut ours = Vec::new();
        for (rule, wanted) in various().iter().zip((1..RULES - 1).rev()) {
            let location = place(control).expect("a place");
            assert_eq!(location, Some(wanted));
            let at = control.insert_flow_rule(rule, location).expect("taken");
            assert_eq!(at, wanted);
            assert_eq!(control.flow_rule(at).expect("there").rule, Some(*rule));
            ours.push(at);
        }
        let listed = control.flow_rules().expect("rules");
        assert_eq!(listed.len(), ours.len() + 1);
        assert!(listed.is_sorted_by_key(|rule| rule.location), "{listed:?}");
        let theirs = listed.last().expect("a rule");
        let known = theirs.rule.expect("one that we can read").to_string();
        assert_eq!((theirs.location, known.as_str()), (15, "tcp4 dst-port 22 -> queue 2"));
        let message = control.insert_flow_rule(&various()[0], Some(1)).expect_err("twice");
        assert!(matches!(message, ControlError::Exists { .. }), "{message}");
        for at in ours {
            control.delete_flow_rule(at).expect("deleted");
            let gone = control.flow_rule(at).expect_err("deleted");
            assert!(matches!(gone, ControlError::NoRule { .. }), "{gone}");
        }
    });
    assert_eq!(card.ethtool(&["-n", "card0"]), of_others, "the rule of others is as it was");
}

#[test]
fn another_tool_reads_our_rules_as_we_mean_them() {
    let Some(card) = Card::new("flowcard::second_opinion") else { return };
    let rules = various();
    card.run(|control| control.insert_flow_rule(&rules[0], Some(3)).expect("taken"));
    let said = card.ethtool(&["-n", "card0", "rule", "3"]);
    for part in [
        "Rule Type: UDP over IPv4",
        "Src IP addr: 10.0.0.1 mask: 0.0.0.0",
        "Dest IP addr: 239.1.1.1 mask: 0.0.0.0",
        "Src port: 7 mask: 0x0",
        "Dest port: 20000 mask: 0x0",
        "Action: Direct to queue 1",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    card.run(|control| control.insert_flow_rule(&rules[7], Some(4)).expect("taken"));
    let said = card.ethtool(&["-n", "card0", "rule", "4"]);
    assert!(said.contains("Action: Drop"), "{said}");
    card.run(|control| control.insert_flow_rule(&rules[3], Some(5)).expect("taken"));
    let said = card.ethtool(&["-n", "card0", "rule", "5"]);
    for part in [
        "TCP over IPv6",
        "Src IP addr: 2001:db8:: mask: ::ffff:ffff:ffff",
        "Src port: 4608 mask: 0xff",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn what_the_card_refuses_is_told_apart() {
    let Some(card) = Card::new("flowcard::refusals") else { return };
    card.run(|control| {
        let refused = |rule: &FlowRule, location| {
            control.insert_flow_rule(rule, location).expect_err("not possible")
        };
        // It does not choose, has no such place, and no such queue.
        let rule = to_port(1, 1);
        assert!(matches!(refused(&rule, None), ControlError::Refused { .. }));
        let beyond = refused(&rule, Some(RULES));
        assert!(matches!(beyond, ControlError::BadLocation { location: RULES, .. }), "{beyond}");
        let queue = FlowRule { action: FlowAction::Queue(QUEUES), ..rule };
        assert!(matches!(refused(&queue, Some(3)), ControlError::BadLocation { .. }));
        assert!(matches!(control.delete_flow_rule(3), Err(ControlError::NoRule { .. })));
        // Full, but for the place that is never taken.
        let mut port = 0;
        while let Some(location) = place(control) {
            port += 1;
            control.insert_flow_rule(&to_port(port, 1), location).expect("taken");
        }
        let locations = control.flow_table().expect("a table").locations;
        assert_eq!(locations, (1..RULES).collect::<Vec<_>>());
    });
    card.flag("busy", true);
    card.run(|control| {
        let errors = [
            control.delete_flow_rule(3),
            control.insert_flow_rule(&to_port(99, 1), Some(3)).map(drop),
            control.reset_rss_table(),
        ];
        for error in errors {
            let error = error.expect_err("busy");
            assert!(matches!(error, ControlError::Busy { .. }), "{error}");
        }
        assert_eq!(control.flow_rules().expect("rules").len(), RULES as usize - 1);
    });
    card.flag("busy", false);
    card.ethtool(&["-K", "card0", "ntuple", "off"]);
    let index = card.netns.index("card0");
    card.run(|control| {
        let error = control.delete_flow_rule(3).expect_err("turned off");
        assert_eq!(error.to_string(), "card0: its driver cannot delete a flow rule");
        let ntuple = Ethtool::open().expect("netlink").offloads(index).expect("features").ntuple;
        assert!(!ntuple.on && ntuple.changeable, "{ntuple:?}");
    });
}

#[test]
fn cards_that_choose_and_cards_that_do_not_say_are_used_too() {
    let Some(card) = Card::new("flowcard::choosers") else { return };
    card.flag("chooses-location", true);
    card.run(|control| {
        for expected in 0..RULES {
            assert_eq!(place(control), Some(None), "the driver chooses");
            let rule = to_port(expected as u16 + 1, 1);
            assert_eq!(control.insert_flow_rule(&rule, None).expect("taken"), expected);
        }
        let full = control.insert_flow_rule(&to_port(99, 1), None).expect_err("full");
        assert!(matches!(full, ControlError::TableFull { .. }), "{full}");
        (0..RULES).for_each(|at| control.delete_flow_rule(at).expect("deleted"));
    });
    card.flag("chooses-location", false);
    card.flag("hides-size", true);
    card.run(|control| {
        let found = control.flow_table().expect("a table");
        assert_eq!((found.size, found.chooses_location), (None, false));
        // First wherever it likes, which this one does not take, then from the beginning.
        let table = RuleTable { size: None, chooses_location: false, taken: BTreeSet::new() };
        let mut tried = locations(&table).take(2);
        let at = tried.find_map(|location| control.insert_flow_rule(&to_port(1, 1), location).ok());
        assert_eq!(at, Some(1));
    });
}

#[test]
fn packets_are_spread_off_reserved_queues_and_back() {
    let Some(card) = Card::new("flowcard::rss") else { return };
    let index = card.netns.index("card0");
    card.run(|control| {
        let mut ethtool = Ethtool::open().expect("netlink");
        let channels = ethtool.channels(index).expect("channels");
        assert_eq!((channels.combined, channels.max_combined), (QUEUES, QUEUES));
        let queues = Queues::of(Some(&channels));
        let former = FormerRss { table: control.rss_table().expect("a table"), queues: QUEUES };
        assert!(former.is_default() && queues.receive == QUEUES);
        let reserved = BTreeSet::from([2, 3, 7]);
        let RssTable::Table(table) = rss_table(&former, QUEUES, &reserved).expect("queues left")
        else {
            panic!("reserved queues ask for a table");
        };
        control.set_rss_table(&table).expect("set");
        let now = control.rss_table().expect("a table");
        assert_eq!(now, table);
        assert!(now.iter().all(|queue| !reserved.contains(queue)));
        // The kernel keeps queues that the table names, and says so.
        let fewer = Channels { combined: 4, ..channels };
        let error = ethtool.set_channels(index, fewer).expect_err("the table names others");
        assert!(matches!(&error, ChannelsError::Refused { why, .. } if !why.is_empty()), "{error}");
        let wrong = control.set_rss_table(&[QUEUES; 64]).expect_err("no such queue");
        assert!(matches!(wrong, ControlError::Os { .. }), "{wrong}");
        assert!(control.set_rss_table(&table[..10]).is_err(), "not as large as the card's");
        let back = rss_table(&former, QUEUES, &BTreeSet::new());
        assert_eq!(back, Ok(RssTable::Default));
        control.reset_rss_table().expect("given back");
        assert_eq!(control.rss_table().expect("a table"), former.table);
        // It is the driver's own again: it follows the number of queues.
        let now = ethtool.set_channels(index, fewer).expect("fewer");
        assert_eq!(now.combined, 4);
        let table = control.rss_table().expect("a table");
        assert!(FormerRss { table, queues: 4 }.is_default());
    });
}
