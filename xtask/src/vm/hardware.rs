//! Network cards that QEMU emulates, for the drivers that the kernel has for them.

use std::process::Command;

/// Modules of the kernel: the drivers.
pub(super) const DRIVERS: &[&str] = &["virtio_net", "vmxnet3", "e1000e"];

/// QEMU's names of the cards, all on one segment.
///
/// Two of virtio, the first in most virtual machines; one of many queues, vmxnet3, which has them
/// whatever it is connected to, as QEMU's virtio has not; and one of few means.
const CARDS: [&str; 4] = ["virtio-net-pci", "virtio-net-pci", "vmxnet3", "e1000e"];

/// Plugs them in.
pub(super) fn plug(qemu: &mut Command) {
    for (at, card) in CARDS.iter().enumerate() {
        let mac = format!("02:00:00:00:77:{at:02x}");
        qemu.args(["-netdev", &format!("hubport,id=port{at},hubid=0")]);
        // Without the program that boots from the network, which is a file of another package.
        qemu.args(["-device", &format!("{card},netdev=port{at},mac={mac},romfile=")]);
    }
}
