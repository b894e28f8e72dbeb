//! `cargo xtask dist`: what is handed out. Debian packages and an archive with their checksums in
//! `dist/`, and in `manager/` what the container image is made of.

mod archive;
pub(crate) mod binaries;
mod debian;
mod engine;
mod image;
mod needed;
mod notices;
mod rootfs;
mod strip;
mod tree;

use crate::process::capture;
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Build the container image too, and try it: the four documented commands in namespaces of
    /// their own. Needs root, buildah and podman.
    #[arg(long)]
    image: bool,
    /// Another of cargo's profiles, to work on packaging itself.
    #[arg(long, value_name = "PROFILE", default_value = "release", hide = true)]
    profile: String,
}

/// What every file that is made has in common.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    /// The version.
    version: String,
    /// Seconds since 1970: the time of every file, so that the same source gives the same bytes.
    epoch: u64,
    /// Where intermediate trees are.
    stage: PathBuf,
    /// Where finished files go.
    output: PathBuf,
}

/// `cargo xtask dist`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    setup::ensure(&[setup::BUILD, setup::PACKAGING])?;
    if options.image {
        setup::ensure(&[setup::IMAGE])?;
    }
    let release = Release {
        version: version(&workspace.root)?,
        epoch: epoch(&workspace.root, std::env::var("SOURCE_DATE_EPOCH").ok().as_deref())?,
        stage: workspace.target.join("dist"),
        output: workspace.root.join("dist"),
    };
    println!("dist: version {}, time {}", release.version, release.epoch);
    let mut products = binaries::build(workspace, &options.profile)?;
    let debug = strip::all(&release, &mut products)?;
    let notices = notices::collect(workspace)?;

    // What an earlier version left would be taken for this one's.
    let _ = fs::remove_dir_all(&release.output);
    fs::create_dir_all(&release.output)
        .with_context(|| format!("cannot make {}", release.output.display()))?;
    let mut made = debian::packages(workspace, &release, &products, &notices)?;
    made.push(archive::binaries(workspace, &release, &products, &notices)?);
    made.push(archive::pack(&release, &debug, "debug")?);
    made.push(archive::checksums(&release)?);
    let manager = workspace.root.join("manager");
    made.push(rootfs::lay(&workspace.root, &manager, &release.version, &products, &notices)?);
    made.iter().for_each(|path| println!("dist: made {}", path.display()));
    if options.image {
        image::try_out(&workspace.root)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The version in `VERSION`, which has to be the workspace's.
fn version(root: &Path) -> Result<String> {
    let path = root.join("VERSION");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let workspace = env!("CARGO_PKG_VERSION");
    match text.strip_suffix('\n') {
        Some(version) if version == workspace => Ok(version.to_owned()),
        _ => bail!(
            "{} says {text:?} and Cargo.toml {workspace:?}: it has to be that and a newline",
            path.display()
        ),
    }
}

/// The time that files get: what is asked for, or that of the last commit.
fn epoch(root: &Path, asked: Option<&str>) -> Result<u64> {
    if let Some(asked) = asked {
        return asked
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH={asked:?} is no number of seconds"));
    }
    let mut git = Command::new("git");
    let text = capture(git.args(["log", "-1", "--format=%ct"]).current_dir(root));
    let text = text.context("there is no commit to take the time from: set SOURCE_DATE_EPOCH")?;
    text.trim().parse().with_context(|| format!("git says {text:?} for a time"))
}

/// Compresses a file in place, so that its name and time are not in it.
fn gzip(path: &Path) -> Result<PathBuf> {
    capture(Command::new("gzip").args(["-9nf", "--"]).arg(path))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    Ok(PathBuf::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn the_version_at_the_root_is_the_workspaces() {
        assert_eq!(version(&root()).unwrap(), env!("CARGO_PKG_VERSION"));
        let directory = tempfile::tempdir().unwrap();
        for wrong in ["", "0.0.0\n", concat!(env!("CARGO_PKG_VERSION"), "\n\n")] {
            fs::write(directory.path().join("VERSION"), wrong).unwrap();
            let error = version(directory.path()).unwrap_err().to_string();
            assert!(error.contains(env!("CARGO_PKG_VERSION")), "{error}");
        }
    }

    #[test]
    fn the_time_is_the_one_asked_for() {
        assert_eq!(epoch(&root(), Some("1700000000")).unwrap(), 1_700_000_000);
        assert!(epoch(&root(), Some("today")).unwrap_err().to_string().contains("\"today\""));
        let nowhere = tempfile::tempdir().unwrap();
        let error = epoch(nowhere.path(), None).unwrap_err().to_string();
        assert!(error.contains("SOURCE_DATE_EPOCH"), "{error}");
    }
}
