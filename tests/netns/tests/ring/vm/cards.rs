//! What `netdev` reads and changes of an interface, on veth pairs of this test's own: queues, what
//! veth's driver cannot do, and sysfs of a network namespace that nobody mounted one for.

use pointsman_model::InterfaceName;
use pointsman_model::flow::{Flow, FlowAction, FlowMatch, FlowRule, Ports, Transport};
use pointsman_model::nic::{Channels, Polling};
use pointsman_netdev::{ChannelsError, Control, ControlError, Ethtool, Sysfs, TuneError};
use pointsman_netns::netns::Netns;
use std::path::Path;

/// A namespace with a veth pair of four queues, `v0` and `v1`.
fn four_queues() -> Netns {
    let netns = Netns::new().expect("root");
    let queues = ["numrxqueues", "4", "numtxqueues", "4"];
    let pair =
        [&["link", "add", "v0"], &queues[..], &["type", "veth", "peer", "name", "v1"], &queues];
    netns.ip(&pair.concat()).expect("ip");
    for name in ["v0", "v1"] {
        netns.ip(&["link", "set", name, "up"]).expect("ip");
    }
    netns
}

#[test]
fn channels_are_read_and_set_and_refusals_give_the_kernels_reason() {
    let netns = four_queues();
    let index = netns.index("v0");
    netns.run(|| {
        let mut ethtool = Ethtool::open().expect("generic netlink");
        let at_first = ethtool.channels(index).expect("veth has channels");
        assert_eq!((at_first.max_rx, at_first.max_tx, at_first.max_combined), (4, 4, 0));
        for (rx, tx) in [(1, 1), (4, 2), (3, 4), (at_first.rx, at_first.tx)] {
            let wanted = Channels { rx, tx, ..at_first };
            let now = ethtool.set_channels(index, wanted).expect("channels");
            assert_eq!((now.rx, now.tx), (rx, tx));
            assert_eq!(ethtool.channels(index), Some(now));
        }
        for (rx, tx, combined) in [(5, 1, 0), (0, 1, 0), (1, 1, 1)] {
            let wanted = Channels { rx, tx, combined, ..at_first };
            let error = ethtool.set_channels(index, wanted).expect_err("not possible");
            assert!(matches!(error, ChannelsError::Refused { .. }), "{error}");
            // The kernel says why, in words of its own.
            let message = error.to_string();
            assert!(message.contains("channel") && message.contains("argument"), "{message}");
            let now = ethtool.channels(index).expect("veth has channels");
            assert_eq!((now.rx, now.tx), (at_first.rx, at_first.tx), "{message}");
        }
    });
}

#[test]
fn a_driver_that_cannot_is_named_with_what_it_cannot() {
    let netns = four_queues();
    let index = netns.index("v0");
    netns.run(|| {
        let control = Control::of_index(index).expect("an interface");
        let all = Flow::all(Transport::Udp(Ports::any()));
        let rule = FlowRule { matching: FlowMatch::V4(all), action: FlowAction::Queue(1) };
        let answers = [
            ("list flow rules", control.flow_table().map(drop)),
            ("add a flow rule", control.insert_flow_rule(&rule, None).map(drop)),
            ("add a flow rule", control.insert_flow_rule(&rule, Some(3)).map(drop)),
            ("delete a flow rule", control.delete_flow_rule(3)),
            ("(RSS)", control.rss_table().map(drop)),
            ("(RSS)", control.set_rss_table(&[0, 1])),
        ];
        for (what, answer) in answers {
            let error = answer.expect_err("veth cannot");
            assert!(matches!(error, ControlError::Unsupported { .. }), "{error}");
            let message = error.to_string();
            assert!(message.starts_with("v0: its driver cannot ") && message.ends_with(what));
        }
        let ntuple = Ethtool::open().expect("netlink").offloads(index).expect("features").ntuple;
        assert!(!ntuple.on && !ntuple.changeable);
        let gone = Control::open(InterfaceName::new("v9").expect("a name")).expect("a socket");
        assert!(matches!(gone.flow_table(), Err(ControlError::NoInterface { .. })));
    });
}

#[test]
fn polling_is_set_in_a_namespace_that_no_sysfs_is_mounted_for() {
    let netns = four_queues();
    let index = netns.index("v0");
    // The host's sysfs does not show it, and says so instead of touching another `v0`.
    let elsewhere = Sysfs::at(Path::new("/sys")).polling("v0", index);
    assert!(matches!(elsewhere, Err(TuneError::NotThat { .. })), "{elsewhere:?}");
    netns.run(|| {
        let sysfs = Sysfs::here().expect("a sysfs for this namespace");
        let before = sysfs.polling("v0", index).expect("polling");
        let wanted = Polling { defer_hard_irqs: 2, gro_flush_timeout: 200_000 };
        assert_eq!(sysfs.set_polling("v0", index, wanted).expect("set"), before);
        assert_eq!(sysfs.polling("v0", index).expect("polling"), wanted);
        let too_much = Polling { defer_hard_irqs: u32::MAX, ..wanted };
        // Linux 6.13 and later take no more than `S32_MAX`; what is refused leaves nothing changed.
        if let Err(error) = sysfs.set_polling("v0", index, too_much) {
            assert!(error.to_string().contains("napi_defer_hard_irqs"), "{error}");
            assert_eq!(sysfs.polling("v0", index).expect("polling"), wanted);
        }
        sysfs.set_polling("v0", index, wanted).expect("set");
        assert_eq!(sysfs.set_polling("v0", index, before).expect("restored"), wanted);
        assert_eq!(sysfs.interrupts("v0", index, Path::new("/proc")).expect("none"), []);
        let other = sysfs.polling("v0", index + 1).expect_err("another's number");
        assert!(matches!(other, TuneError::NotThat { .. }), "{other}");
    });
}
