//! The rules, one function each. Kernel sources are Linux 6.1's.

use super::drivers::{Buffer, Effect, Merging, had_frags_early, one_buffer};
use super::{Chain, Subject};
use pointsman_model::nic::{Channels, Offload};
use pointsman_model::observed::AttachMode;
use pointsman_model::plan::HookChange;
use pointsman_model::preflight::{PreflightKind, Severity, Warning};

/// Everything that is to be said of one hook.
pub(super) fn all(subject: &Subject<'_>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    warnings.extend(disruptive(subject));
    warnings.extend(veth_queues(subject));
    if let Some(chain) = subject.chain {
        if subject.native() {
            warnings.extend(mtu(subject, chain));
            warnings.extend(queues(subject));
            warnings.extend(redirect(subject, chain));
        }
        warnings.extend(merging(subject));
        warnings.extend(vlan(subject));
    }
    warnings
}

/// Whether packets can be larger than what the chain is given of them.
fn mtu(subject: &Subject<'_>, chain: &Chain<'_>) -> Option<Warning> {
    let nic = &subject.interface.nic;
    let own = subject.interface.mtu;
    let page_size = subject.caps.page_size;
    let limit = match subject.driver() {
        Some(driver) => driver.buffer.limit(page_size)?,
        None => one_buffer(page_size),
    };
    let peers = subject.driver().filter(|driver| driver.buffer == Buffer::PageOfPeer);
    let peer = peers.and(nic.peer).and_then(|peer| peer.mtu);
    let (mtu, whose) = match (peers, peer) {
        (Some(_), Some(mtu)) => (mtu, "its peer's MTU"),
        (Some(_), None) => (own, "its MTU (its peer's counts, and is not known)"),
        (None, _) => (own, "its MTU"),
    };
    if mtu <= limit {
        return None;
    }
    if chain.frags {
        // A chain that takes several buffers still needs a driver that has them to give.
        let driver = subject.driver_name();
        let lacks = match nic.xdp {
            Some(xdp) if xdp.basic && !xdp.rx_sg => {
                format!("{driver} gives programs one buffer a packet, of {limit} bytes at most")
            }
            Some(_) => return None,
            None if nic.driver.as_ref().is_some_and(|d| had_frags_early(&d.name)) => return None,
            None => format!(
                "the kernel does not say whether {driver} gives programs more than one buffer a \
                 packet, of {limit} bytes (few did before 6.3)"
            ),
        };
        let message = format!(
            "{whose} is {mtu}, and {lacks}: it may refuse the chain, or drop larger packets; set \
             the MTU to {limit} or less, or use `\"mode\": \"skb\"`"
        );
        let (kind, severity) = (PreflightKind::FeatureMissing, Severity::Warning);
        return Some(subject.warning(kind, severity, None, message));
    }
    let (name, _) = chain.members.iter().find(|(_, facts)| !facts.frags)?;
    let program = Some(*name);
    let because = format!("{name} is not built as xdp.frags");
    // veth's figure is exact where the peer's MTU is known, and it looks at every program.
    let certain = peer.is_some() && subject.changes();
    let (severity, follows) = match certain {
        true => (Severity::Failure, "the kernel refuses the chain".to_owned()),
        false => {
            let driver = subject.driver_name();
            (Severity::Warning, format!("{driver} may refuse the chain, or drop larger packets"))
        }
    };
    let message = format!(
        "{whose} is {mtu}, and packets of more than {limit} bytes take several buffers, which the \
         chain does not take: {because}; {follows}; set the MTU to {limit} or less, build every \
         member as xdp.frags, or use `\"mode\": \"skb\"`"
    );
    Some(subject.warning(PreflightKind::MtuTooLarge, severity, program, message))
}

/// Whether the card hands over packets that it merged.
fn merging(subject: &Subject<'_>) -> Vec<Warning> {
    let Some(offloads) = subject.interface.nic.offloads else { return Vec::new() };
    let both = [(offloads.lro, "LRO", "lro"), (offloads.gro_hw, "GRO-HW", "rx-gro-hw")];
    let on = both.into_iter().filter(|(offload, ..)| offload.on);
    on.filter_map(|(offload, name, flag)| merges(subject, offload, name, flag)).collect()
}

fn merges(subject: &Subject<'_>, offload: Offload, name: &str, flag: &str) -> Option<Warning> {
    let device = &subject.diff.hook.interface;
    let driver = subject.driver_name();
    let off = match offload.changeable {
        true => format!("turn it off first: `ethtool -K {device} {flag} off`"),
        false => "it cannot be turned off here: use `\"mode\": \"skb\"`".to_owned(),
    };
    let merging = subject.driver().map_or(Merging::Unknown, |driver| driver.merging);
    let (severity, follows) = match (subject.native(), merging) {
        // generic_xdp_install (net/core/dev.c)
        (false, _) if subject.attaches() => {
            let follows = "the kernel turns it off with the first program in skb mode, which \
                           costs the host's own connections throughput";
            (Severity::Info, follows.to_owned())
        }
        (false, _) => return None,
        (true, Merging::Refuses) if subject.changes() => {
            (Severity::Failure, format!("{driver} refuses XDP with it; {off}"))
        }
        (true, Merging::TurnsOff) if offload.changeable => {
            if !subject.attaches() {
                return None;
            }
            let follows = "turns it off while a chain is attached, which costs the host's own \
                           connections throughput";
            (Severity::Info, format!("{driver} {follows}"))
        }
        (true, _) => {
            let follows = "may refuse XDP with it, or programs see packets merged from several";
            (Severity::Warning, format!("{driver} {follows}; {off}"))
        }
    };
    let message = format!("{name} is on: {follows}");
    Some(subject.warning(PreflightKind::ReceiveMerging, severity, None, message))
}

/// Whether programs see VLAN tags. Said once, when a chain comes: it is so on most cards, and
/// matters to programs that look for tags.
fn vlan(subject: &Subject<'_>) -> Option<Warning> {
    let offloads = subject.interface.nic.offloads?;
    let both = [(offloads.vlan, "rxvlan"), (offloads.service_vlan, "rx-vlan-stag-hw-parse")];
    let on: Vec<_> = both.into_iter().filter(|(offload, _)| offload.on).collect();
    if on.is_empty() || !subject.attaches() {
        return None;
    }
    let device = &subject.diff.hook.interface;
    let fixed = on.iter().all(|(offload, _)| !offload.changeable);
    let flags: Vec<_> = on.iter().map(|(_, flag)| format!("{flag} off")).collect();
    let what = match fixed {
        true => "and it cannot be turned off here".to_owned(),
        false => format!("`ethtool -K {device} {}` leaves them in", flags.join(" ")),
    };
    let message = format!(
        "VLAN tags are taken out of packets before programs see them, so a filter sees tagged \
         packets as untagged ones; {what}"
    );
    Some(subject.warning(PreflightKind::VlanStripped, Severity::Info, None, message))
}

/// Whether there are the queues that XDP needs. Only when a chain comes: afterwards the figures
/// contain what it took.
fn queues(subject: &Subject<'_>) -> Option<Warning> {
    let nic = &subject.interface.nic;
    let channels = nic.channels?;
    if !subject.attaches() {
        return None;
    }
    let device = &subject.diff.hook.interface;
    let cpus = subject.caps.cpus;
    let Channels { rx, tx: _, combined, max_rx: _, max_tx: _, max_combined } = channels;
    let failure = |message| Some((Severity::Failure, message));
    let slower = |message| Some((Severity::Warning, message));
    let found = match nic.driver.as_ref()?.name.as_str() {
        // ena_xdp_allowed
        "ena" if combined.saturating_mul(2) > max_combined => failure(format!(
            "driver ena needs as many spare channels as are in use, and {combined} of \
             {max_combined} are: it refuses XDP; use {} channels at most (`ethtool -L {device}`), \
             or `\"mode\": \"skb\"`",
            max_combined / 2
        )),
        // bnxt_xdp_set
        "bnxt_en" if combined == 0 && rx > 0 => failure(format!(
            "driver bnxt_en takes XDP on combined channels only, and there are none: it refuses \
             XDP; `ethtool -L {device} rx 0 tx 0 combined {rx}`"
        )),
        // virtnet_xdp_set; before 5.13 it refused
        "virtio_net" if combined.saturating_add(cpus) > max_combined => slower(format!(
            "driver virtio_net wants a queue pair for each of {cpus} CPUs beside the {combined} \
             in use, and there are {max_combined}: the verdicts tx and redirect take a lock and \
             are slower; give the guest {} queue pairs",
            combined.saturating_add(cpus)
        )),
        // ixgbe_xdp_setup, IXGBE_MAX_XDP_QS = 64
        "ixgbe" if cpus > 128 => failure(format!(
            "driver ixgbe refuses XDP on hosts with more than 128 CPUs, and this one has {cpus}"
        )),
        "ixgbe" if cpus > 64 => slower(format!(
            "driver ixgbe has 64 transmit queues for XDP, and the host has {cpus} CPUs: the \
             verdicts tx and redirect take a lock and are slower"
        )),
        _ => None,
    };
    let (severity, message) = found?;
    Some(subject.warning(PreflightKind::Queues, severity, None, message))
}

/// Whether a veth receives through as many queues as its peer sends through: else it has no native
/// XDP (veth_xdp_set), and kernels that tell of features say so (veth_set_xdp_features). Which is
/// why this looks at chains that are refused or run in skb mode too.
pub(super) fn veth_queues(subject: &Subject<'_>) -> Option<Warning> {
    let nic = &subject.interface.nic;
    let (channels, peers) = (nic.channels?, nic.peer?.tx_queues?);
    let veth = nic.driver.as_ref().is_some_and(|driver| driver.name == "veth");
    let refused = subject.diff.change == HookChange::Refused;
    if !veth || channels.rx >= peers || !(subject.attaches() || refused) {
        return None;
    }
    let severity = match (subject.native(), refused) {
        (true, false) => Severity::Failure,
        (_, true) => Severity::Warning,
        (false, false) => Severity::Info,
    };
    let device = &subject.diff.hook.interface;
    let message = format!(
        "its peer sends through {peers} queues, and it receives through {}: the kernel refuses \
         native XDP; `ethtool -L {device} rx {peers}`, or fewer on the peer",
        channels.rx
    );
    Some(subject.warning(PreflightKind::Queues, severity, None, message))
}

/// Whether the verdict redirect works.
fn redirect(subject: &Subject<'_>, chain: &Chain<'_>) -> Option<Warning> {
    let xdp = subject.interface.nic.xdp?;
    let &(program, _) = chain.members.iter().find(|(_, facts)| facts.redirects)?;
    if xdp.redirect || !xdp.basic {
        return None;
    }
    let message = format!(
        "{program} redirects packets, and {} does not: they are dropped; use `\"mode\": \"skb\"`",
        subject.driver_name()
    );
    let (kind, severity) = (PreflightKind::FeatureMissing, Severity::Warning);
    Some(subject.warning(kind, severity, Some(program), message))
}

/// What the step costs packets. In skb mode nothing: the driver is not asked
/// (generic_xdp_install, net/core/dev.c).
fn disruptive(subject: &Subject<'_>) -> Option<Warning> {
    let before = subject.interface.attached.as_ref().map(|attached| attached.mode);
    let native = |mode| mode == Some(AttachMode::Native);
    let swaps = subject.diff.change == HookChange::Swap;
    let asked = match subject.diff.change {
        HookChange::Attach | HookChange::Swap => subject.native(),
        HookChange::Reattach => subject.native() || native(before),
        HookChange::Detach => native(before),
        HookChange::Unchanged | HookChange::Pending | HookChange::Refused => false,
    };
    if !asked {
        return None;
    }
    let what = match subject.diff.change {
        HookChange::Swap => "exchanging chains",
        HookChange::Detach => "taking the chain off",
        HookChange::Reattach => "taking the chain off and attaching it",
        _ => "attaching the first chain",
    };
    let name = subject.driver_name();
    let Some(driver) = subject.driver() else {
        let (severity, follows) = match swaps {
            // Nearly all drivers only exchange a pointer then.
            true => (Severity::Info, "may lose packets"),
            false => (Severity::Warning, "may reset its rings or its link: expect lost packets"),
        };
        let message = format!("what {what} costs with {name} is not known: it {follows}");
        return Some(subject.warning(PreflightKind::Disruptive, severity, None, message));
    };
    let effect = if swaps { driver.swap } else { driver.switch };
    let (severity, follows) = match effect {
        Effect::Nothing => return None,
        Effect::Pause => {
            (Severity::Info, "stops the queues for a moment; packets wait, and are lost in floods")
        }
        Effect::Rings => {
            (Severity::Warning, "makes the rings anew: packets are lost for milliseconds")
        }
        Effect::Link => {
            let follows = "takes the interface down and up: packets are lost, and the link may \
                           be gone for seconds";
            (Severity::Warning, follows)
        }
    };
    let always = match swaps && effect >= Effect::Rings {
        true => "; this driver does so for every program",
        false => "",
    };
    let message = format!("{what} with {name} {follows}{always}");
    Some(subject.warning(PreflightKind::Disruptive, severity, None, message))
}
