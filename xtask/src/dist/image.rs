//! The container image, built and run by the four commands that are documented for the original.

use super::engine::Engine;
use anyhow::{Context, Result, bail, ensure};
use pointsman_imtl_client::{Client, DIALECTS, request};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Builds it, in `manager/`.
const BUILD: &str = "docker build --build-arg VERSION=$(cat ../VERSION) -t mtl-manager:latest .";
/// Runs it.
const RUN: &str = "docker run -d --name mtl-manager --privileged --net=host \
                   -v /var/run/imtl:/var/run/imtl -v /sys/fs/bpf:/sys/fs/bpf mtl-manager:latest";
/// Shows its log.
const LOGS: &str = "docker logs -f mtl-manager";
/// Stops it.
const STOP: &str = "docker kill -s SIGINT mtl-manager";

/// A directory of ours, removed when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Builds the image of `root/manager` and tries all that its documentation promises.
///
/// # Errors
/// What does not hold; or there is no container engine that runs here.
pub(super) fn try_out(root: &Path) -> Result<()> {
    let name = format!("pointsman-image-{}", std::process::id());
    let scratch = Scratch(std::env::temp_dir().join(name));
    fs::create_dir(&scratch.0).with_context(|| format!("cannot make {}", scratch.0.display()))?;
    let engine = Engine::start(&scratch.0)?;
    let manager = root.join("manager");
    told(
        "a build without what it is made of names it",
        without_files(&engine, &scratch.0, &manager),
    )?;
    told("a build with buildah alone", with_buildah(&engine, &scratch.0, &manager))?;
    told(BUILD, engine.must(&manager, BUILD))?;
    told("its stop signal, health check and version", settings(&engine, root))?;
    told(RUN, engine.must(&manager, RUN))?;
    told(LOGS, until_ready(&engine, &manager))?;
    let clients = told("clients of both dialects register and get cores", clients(&engine))?;
    told("the health check", health(&engine, &manager))?;
    let status = "docker exec mtl-manager /usr/bin/pointsman status";
    told(status, engine.must(&manager, status))?;
    told(STOP, stop(&engine, &manager, clients))?;
    Ok(())
}

/// Prints how a step ended.
fn told<T>(step: &str, result: Result<T>) -> Result<T> {
    match &result {
        Ok(_) => println!("image: ok      {step}"),
        Err(_) => println!("image: FAILED  {step}"),
    }
    result.with_context(|| step.to_owned())
}

/// A fresh clone, where nothing was built; and one where another version was.
fn without_files(engine: &Engine, scratch: &Path, manager: &Path) -> Result<()> {
    let clone = scratch.join("clone");
    fs::create_dir_all(clone.join("manager"))?;
    fs::copy(manager.join("../VERSION"), clone.join("VERSION"))?;
    for file in ["Dockerfile", ".dockerignore"] {
        fs::copy(manager.join(file), clone.join("manager").join(file))?;
    }
    let version = fs::read_to_string(clone.join("VERSION"))?;
    let no_version = BUILD.replace("--build-arg VERSION=$(cat ../VERSION)", "");
    for (line, named) in [(BUILD, version.trim()), (no_version.as_str(), "not-given-as-build-arg")]
    {
        let said = engine.run(&clone.join("manager"), line)?;
        let named = format!("{}{named}", super::rootfs::PREFIX);
        if said.success || !said.text.contains(&named) {
            bail!("{line}: does not fail for want of {named}:\n{}", said.text);
        }
    }
    Ok(())
}

/// Offline, by the tool that needs neither a daemon nor a runtime.
fn with_buildah(engine: &Engine, scratch: &Path, manager: &Path) -> Result<()> {
    let store = format!("--root {0}/buildah --runroot {0}/buildah-run", scratch.display());
    let line = format!(
        "buildah {store} --storage-driver vfs bud --isolation chroot --format docker \
         --build-arg VERSION=$(cat ../VERSION) --build-arg HTTP_PROXY=http://proxy.example:3128 \
         --build-arg HTTPS_PROXY=http://proxy.example:3128 -t mtl-manager:latest ."
    );
    engine.must(manager, &line).map(drop)
}

fn settings(engine: &Engine, root: &Path) -> Result<()> {
    let text = engine.must(root, "docker image inspect mtl-manager:latest")?;
    let images: Value = serde_json::from_str(&text).context("it is not JSON")?;
    let image = &images[0];
    let config = &image["Config"];
    let version = fs::read_to_string(root.join("VERSION"))?;
    let wanted = [
        (&config["StopSignal"], Value::from("SIGINT")),
        (&config["Entrypoint"], Value::from(vec!["/usr/bin/MtlManager"])),
        (&config["Labels"]["org.opencontainers.image.version"], Value::from(version.trim())),
        (
            &image["Healthcheck"]["Test"],
            Value::from(vec!["CMD", "/usr/bin/pointsman-node", "health"]),
        ),
    ];
    for (found, wanted) in wanted {
        ensure!(*found == wanted, "{found} instead of {wanted}");
    }
    Ok(())
}

/// Follows the log until the daemon says that it serves.
fn until_ready(engine: &Engine, manager: &Path) -> Result<()> {
    let (mut ready, mut log) = (false, String::new());
    // It is followed until the container ends. When `sed` has seen enough, what still follows is
    // killed with the shell's process group.
    let line =
        format!("mkfifo $TMPDIR/log && {{ {LOGS} > $TMPDIR/log & sed '/ ready /q' $TMPDIR/log; }}");
    engine.follow(manager, &line, |line| {
        ready |= line.contains(" ready ");
        log = format!("{log}{line}\n");
    })?;
    ensure!(ready, "it does not say that it is ready:\n{log}");
    ensure!(log.contains("MTL Manager version: "), "it is not the original's:\n{log}");
    Ok(())
}

fn clients(engine: &Engine) -> Result<Vec<Client>> {
    let register = |(dialect, lcore)| {
        let mut client = Client::register(&engine.socket(), dialect).context("REGISTER")?;
        let reply = client.ask(&request::get_lcore(lcore))?;
        ensure!(reply.value == 0, "GET_LCORE {lcore}: {reply:?}");
        Ok(client)
    };
    DIALECTS.into_iter().zip(1..).map(register).collect()
}

fn health(engine: &Engine, manager: &Path) -> Result<()> {
    let check = "docker healthcheck run mtl-manager";
    engine.must(manager, check)?;
    // A daemon that hangs takes connections and answers nothing.
    engine.must(manager, "docker kill -s STOP mtl-manager")?;
    let hung = engine.run(manager, check)?;
    engine.must(manager, "docker kill -s CONT mtl-manager")?;
    ensure!(!hung.success, "a daemon that hangs is taken for healthy: {}", hung.text);
    engine.must(manager, check).map(drop)
}

fn stop(engine: &Engine, manager: &Path, clients: Vec<Client>) -> Result<()> {
    engine.must(manager, STOP)?;
    let code = engine.must(manager, "docker wait mtl-manager")?;
    ensure!(
        code == "0",
        "exit code {code}:\n{}",
        engine.run(manager, "docker logs mtl-manager")?.text
    );
    for mut client in clients {
        ensure!(client.ended()?, "a client is still connected");
    }
    ensure!(!engine.socket().exists(), "it leaves its socket behind");
    engine.must(manager, "docker rm mtl-manager").map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::binaries::{BINARIES, Built, Products};
    use super::super::rootfs;
    use super::*;
    use crate::manual::Manual;
    use crate::setup::find_program;

    /// What keeps the test from running here.
    fn missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("needs root".into());
        }
        let programs = ["buildah", "podman", "crun"];
        programs
            .into_iter()
            .find(|name| find_program(name).is_none())
            .map(|name| format!("needs {name}: apt-get install {}", programs.join(" ")))
    }

    /// The binaries that the tests of this build are about.
    fn products(stripped: &Path) -> Option<Products> {
        let test = std::env::current_exe().ok()?;
        let directory = std::env::var_os("POINTSMAN_BIN_DIR")
            .map_or_else(|| Some(test.parent()?.parent()?.to_owned()), |path| Some(path.into()))?;
        let built = BINARIES.iter().filter(|binary| binary.in_image).map(|binary| {
            let path = stripped.join(binary.name);
            let mut objcopy = std::process::Command::new("objcopy");
            objcopy.arg("--strip-all").arg(directory.join(binary.name)).arg(&path);
            objcopy.status().ok()?.success().then(|| Built {
                binary: *binary,
                path,
                manual: Manual::default(),
            })
        });
        Some(Products { binaries: built.collect::<Option<_>>()?, objects: Vec::new() })
    }

    #[test]
    fn b_29_the_documented_commands_work() {
        let name = "b_29_the_documented_commands_work";
        if let Some(why) = missing() {
            println!("SKIP {name}: {why}");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let (root, stripped) = (root.path(), root.path().join("stripped"));
        fs::create_dir(&stripped).unwrap();
        let Some(products) = products(&stripped) else {
            println!("SKIP {name}: pointsman and pointsman-node are not built: cargo build");
            return;
        };
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let manager = root.join("manager");
        fs::create_dir(&manager).unwrap();
        for file in ["VERSION", "manager/Dockerfile", "manager/.dockerignore"] {
            fs::copy(sources.join(file), root.join(file)).unwrap();
        }
        let version = env!("CARGO_PKG_VERSION");
        rootfs::lay(&sources, &manager, version, &products, "none\n").unwrap();
        // Where the host allows no such namespaces, nothing can be said of the image.
        let probe = tempfile::tempdir().unwrap();
        if let Err(error) = Engine::start(probe.path()) {
            println!("SKIP {name}: {error:#}");
            return;
        }
        try_out(root).unwrap();
    }

    #[test]
    fn the_commands_are_those_that_are_documented() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/packaging.md");
        // A command may go on on the next line there.
        let text = fs::read_to_string(docs).unwrap().replace("\\\n", "");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for command in [BUILD, RUN, LOGS, STOP] {
            let command = command.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(&command), "{command}");
        }
    }
}
