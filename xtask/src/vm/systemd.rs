//! systemd as the machine's first process, and the packaged unit in it.
//!
//! The host's files lie under an overlay in memory: whatever systemd, its clean-up of temporary
//! files included, does to them ends with the machine.

use super::initramfs::quoted;
use crate::workspace::Workspace;
use anyhow::Result;

/// What the overlay needs.
pub(super) const MODULES: &[&str] = &["overlay"];

/// The tests that want it.
pub(super) const TESTS: &str = "systemd::";

/// Memory over the host's root. Of the host's own units none is started but what `sysinit.target`
/// and `sockets.target` want, and of these not what cleans up, fills or times anything.
pub(super) const ROOT: &str = r#"need mount -t tmpfs -o size=1g tmpfs /upper
need mkdir /upper/files /upper/work
need mount -t overlay -o lowerdir=/host,upperdir=/upper/files,workdir=/upper/work overlay /sysroot
need mount -t proc proc /sysroot/proc
need mount -t sysfs sysfs /sysroot/sys
need mount -t devtmpfs devtmpfs /sysroot/dev
$b mkdir -p /sysroot/dev/shm /sysroot/dev/pts
units=/sysroot/etc/systemd/system
need rm -rf $units /sysroot/etc/fstab
need mkdir -p $units
need touch /sysroot/etc/fstab
# Marks of a container: in one, systemd leaves out what a host has, the BPF file system for one.
need rm -f /sysroot/.dockerenv /sysroot/run/.containerenv /sysroot/run/systemd/container
# With an identity it is no first boot, which would enable what the distribution presets.
echo 706f696e74736d616e2d766d00000001 > /sysroot/etc/machine-id
for masked in systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service \
    systemd-tmpfiles-clean.timer systemd-sysusers.service systemd-sysctl.service \
    systemd-modules-load.service systemd-binfmt.service systemd-random-seed.service \
    systemd-update-utmp.service systemd-firstboot.service systemd-repart.service \
    systemd-machine-id-commit.service systemd-udevd.service systemd-udev-trigger.service \
    systemd-hwdb-update.service systemd-logind.service dev-hugepages.mount dev-mqueue.mount \
    proc-sys-fs-binfmt_misc.automount dbus.socket; do
    need ln -s /dev/null $units/$masked
done
$b cat > $units/pointsman-vm.service <<END
[Unit]
Description=Tests of the packaged unit
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'exec /bin/sh /run/outer < /dev/null > /dev/ttyS0 2>&1'
END
"#;

/// Hands over to systemd, whose one unit runs the script and switches off.
pub(super) const RUN: &str = r#"need cp $b /sysroot/run/busybox
$b cat > /sysroot/run/outer <<'END'
/bin/sh /run/script
echo "@VOICE@ exit $?"
/run/busybox sync
/run/busybox poweroff -f
END
exec $b switch_root /sysroot /usr/lib/systemd/systemd --unit=pointsman-vm.service \
    --show-status=no --crash-reboot
say "failed: switch_root"
off
"#;

/// Installs what the package has, as the package has it.
pub(super) fn install(workspace: &Workspace) -> Result<String> {
    let unit = quoted(&workspace.root.join("packaging/systemd/pointsman-node.service"))?;
    let binaries = workspace.target.join("debug");
    let (node, cli) =
        (quoted(&binaries.join("pointsman-node"))?, quoted(&binaries.join("pointsman"))?);
    Ok(format!(
        "install -m 755 {node} {cli} /usr/bin/ || exit 1\n\
         ln -sf pointsman-node /usr/bin/MtlManager || exit 1\n\
         install -D -m 644 {unit} /usr/lib/systemd/system/pointsman-node.service || exit 1\n\
         systemctl daemon-reload || exit 1\n"
    ))
}
