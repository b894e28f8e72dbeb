//! The script that a machine runs.

use super::initramfs::{Userland, quoted, quoted_text};
use super::shares::{Group, Share};
use crate::rings::Session;
use crate::workspace::Workspace;
use anyhow::Result;
use std::time::Duration;

/// How long before the end of its time a machine begins no further tests: what runs then comes to
/// its end, and the rest is told of as skipped. No module takes longer unless something hangs.
pub(super) const NOTICE: Duration = Duration::from_secs(150);

/// What the machine runs: its tests, a process for each module, and the first failure's exit code.
pub(super) fn tests(
    workspace: &Workspace,
    session: &Session,
    userland: Userland,
    share: &Share,
    limit: Duration,
) -> Result<String> {
    let package = quoted(&workspace.root.join("tests/netns"))?;
    let mut script = format!("cd {package} || exit 1\nexport CARGO_MANIFEST_DIR={package}\n");
    script += "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
    let ring = match userland {
        Userland::Plain => "vm",
        Userland::Systemd => "systemd",
    };
    script += &format!("export HOME=/tmp RUST_BACKTRACE=1 POINTSMAN_RING={ring}\n");
    for (name, value) in session.environment(workspace) {
        script += &format!("export {name}={}\n", quoted_text(&value));
    }
    script += "code=0\n";
    let why = no_time(session);
    let last = limit.saturating_sub(NOTICE).as_secs();
    for Group { binary, tests } in &share.groups {
        let names = tests.iter().map(|test| quoted_text(test)).collect::<Vec<_>>().join(" ");
        let binary = quoted(binary)?;
        // --nocapture: when the machine hangs, what the test said last is on the line already.
        let options = "--exact --test-threads=1 --nocapture --color=never";
        // The time since power-on, which busybox's and dash's `read` give alike.
        script += &format!(
            "read -r up rest < /proc/uptime\n\
             if [ \"${{up%.*}}\" -lt {last} ]; then {binary} {names} {options} || code=$?\n\
             else for name in {names}; do echo \"test $name ... ignored, {why}\"; done; fi\n"
        );
    }
    Ok(script + "exit $code\n")
}

/// Why tests were not begun.
pub(super) fn no_time(session: &Session) -> &'static str {
    match session.full {
        true => "no time was left",
        false => "no time was left: cargo xtask test --full has hours",
    }
}
