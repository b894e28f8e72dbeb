//! Which kernel modules have to be inserted, in which order.

use anyhow::{Result, bail};
use std::collections::HashMap;

/// What `depmod` wrote: read here and not by `modprobe`, which would mix in the host's
/// /etc/modprobe.d.
#[derive(Debug)]
pub(super) struct Modules<'a> {
    /// Per module: its file and the files it needs.
    dependencies: HashMap<String, Vec<&'a str>>,
    builtin: Vec<String>,
}

impl<'a> Modules<'a> {
    /// Reads `modules.dep` and `modules.builtin`.
    pub(super) fn parse(dep: &'a str, builtin: &str) -> Self {
        let dependencies = dep.lines().filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            // modules.dep lists the direct and indirect needs; the last has to go in first.
            let files = needs.split_whitespace().rev().chain([file]).collect();
            Some((name(file), files))
        });
        Self { dependencies: dependencies.collect(), builtin: builtin.lines().map(name).collect() }
    }

    /// The files to insert for `wanted`, each once, in order.
    pub(super) fn order(&self, wanted: &[&str]) -> Result<Vec<&'a str>> {
        let mut order = Vec::new();
        for &module in wanted {
            match self.dependencies.get(module) {
                Some(files) => {
                    for file in files {
                        if !order.contains(file) {
                            order.push(*file);
                        }
                    }
                }
                None if self.builtin.iter().any(|builtin| builtin == module) => {}
                None => bail!("the kernel has no module {module}: take another kernel package"),
            }
        }
        Ok(order)
    }
}

/// The module's name from its file's: `kernel/fs/9p/9p.ko.xz` is `9p`, and `-` reads as `_`.
fn name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko\n\
                       kernel/net/9p/9pnet.ko:\n\
                       kernel/drivers/net/veth-x.ko.xz: kernel/net/9p/9pnet.ko\n";

    #[test]
    fn needs_go_in_first_and_once() {
        let modules = Modules::parse(DEP, "kernel/drivers/virtio/virtio_pci.ko\n");
        let order = modules.order(&["9p", "virtio_pci", "veth_x"]).unwrap();
        assert_eq!(
            order,
            [
                "kernel/fs/netfs/netfs.ko",
                "kernel/net/9p/9pnet.ko",
                "kernel/fs/9p/9p.ko",
                "kernel/drivers/net/veth-x.ko.xz",
            ]
        );
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let error = Modules::parse(DEP, "").order(&["virtio_pci"]).unwrap_err();
        assert!(error.to_string().contains("no module virtio_pci"), "{error}");
    }
}
