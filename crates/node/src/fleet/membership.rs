//! Which fleet this node is of: `fleet.json`, written when it was enrolled.

use crate::store::read_open;
use pointsman_model::{FleetName, NodeName};
use pointsman_snapshot::keys::PublicKey;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The largest file: three short strings.
const MAX_FILE: usize = 4 << 10;

/// What a node needs to know records that are meant for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Its fleet.
    pub fleet: FleetName,
    /// Its name there.
    pub node: NodeName,
    /// What its records are signed with.
    pub key: PublicKey,
}

/// The file is there and cannot be used. No snapshot is taken then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot be used, and no snapshot is taken: {why}", path.display())]
pub struct MembershipError {
    path: PathBuf,
    why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    fleet: FleetName,
    node: NodeName,
    public_key: String,
}

/// Reads the file; `None`: there is none, and the node takes documents of this host only.
///
/// Whoever can write the file, or put another in its place, decides what this host runs. So it and
/// its directory must belong to root, or to whom the daemon runs as, and to nobody else.
///
/// # Errors
/// [`MembershipError`] with what is wrong and what to do.
pub fn read(path: &Path) -> Result<Option<Membership>, MembershipError> {
    let error = |why: String| MembershipError { path: path.to_owned(), why };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(error(format!("it cannot be opened: {errno}"))),
    };
    let about = file.metadata().map_err(|why| error(why.to_string()))?;
    if let Some(why) = exposed(&about) {
        return Err(error(format!("{why}; run chown root and chmod 0644")));
    }
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let about = directory.metadata().map_err(|why| error(why.to_string()))?;
    // In a sticky directory others cannot put their files in the place of ours.
    let sticky = about.mode() & 0o1000 != 0 && trusted(about.uid());
    if let Some(why) = exposed(&about).filter(|_| !sticky) {
        let directory = directory.display();
        return Err(error(format!(
            "of its directory {directory}, {why}; run chown root and chmod 0755"
        )));
    }
    let bytes = read_open(&mut file, MAX_FILE).map_err(|why| error(why.to_string()))?;
    let Text { fleet, node, public_key } = parse(&bytes).map_err(|why| {
        error(format!("{why}; expected {{\"fleet\": ..., \"node\": ..., \"public_key\": ...}}, as `pointsman-courier enroll` writes it"))
    })?;
    let key = PublicKey::from_base64(&public_key).map_err(|why| error(why.to_string()))?;
    Ok(Some(Membership { fleet, node, key }))
}

fn parse(bytes: &[u8]) -> Result<Text, String> {
    // What serde derives would take an array of the fields as well.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err("it is not a JSON object".to_owned());
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

fn trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Who else could change it.
fn exposed(about: &Metadata) -> Option<String> {
    let (uid, mode) = (about.uid(), about.mode() & 0o7777);
    if !trusted(uid) {
        return Some(format!("the owner is user {uid}"));
    }
    (mode & 0o022 != 0).then(|| format!("the mode is {mode:04o}: others may write"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    fn good() -> String {
        format!(r#"{{"fleet": "lab", "node": "edge-17", "public_key": "{KEY}"}}"#)
    }

    #[test]
    fn it_says_who_the_node_is_and_without_it_there_is_no_fleet() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etc/fleet.json");
        assert_eq!(read(&path), Ok(None));
        fs::create_dir(directory.path().join("etc")).unwrap();
        assert_eq!(read(&path), Ok(None));
        fs::write(&path, good()).unwrap();
        let membership = read(&path).unwrap().unwrap();
        assert_eq!((membership.fleet.as_str(), membership.node.as_str()), ("lab", "edge-17"));
        assert_eq!(membership.key.to_base64(), KEY);
    }

    #[test]
    fn what_others_can_change_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.json");
        fs::write(&path, good()).unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let why = || read(&path).unwrap_err().to_string();
        for bits in [0o664, 0o646] {
            mode(&path, bits);
            assert!(why().contains(&format!("the mode is {bits:04o}")), "{}", why());
        }
        mode(&path, 0o600);
        mode(directory.path(), 0o777);
        assert!(why().contains("of its directory"), "{}", why());
        mode(directory.path(), 0o1777);
        assert!(read(&path).is_ok());
        mode(directory.path(), 0o755);
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(65534), None).unwrap();
            assert!(why().contains("the owner is user 65534"), "{}", why());
            chown(&path, Some(0), None).unwrap();
            chown(directory.path(), Some(65534), None).unwrap();
            assert!(why().contains("of its directory"), "{}", why());
        }
    }

    #[test]
    fn what_is_not_right_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.json");
        let why = |text: &str| {
            fs::write(&path, text).unwrap();
            let why = read(&path).unwrap_err().to_string();
            assert!(why.contains("fleet.json cannot be used, and no snapshot is taken"), "{why}");
            why
        };
        for len in 0..good().len() {
            why(&good()[..len]);
        }
        for (from, to, expected) in [
            ("{", r#"{"more": 1, "#, "unknown field"),
            ("{", r#"{"fleet": "other", "#, "duplicate field"),
            ("\"lab\"", "\"../lab\"", "fleet name"),
            ("edge-17", "", "node name"),
            (KEY, "RWQ", "not a public key"),
            ("{", "[{", "not a JSON object"),
        ] {
            let said = why(&good().replacen(from, to, 1));
            assert!(said.contains(expected), "{said}");
        }
        let said = why(&" ".repeat(MAX_FILE + 1));
        assert!(said.contains("larger than the limit"), "{said}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let said = read(&path).unwrap_err().to_string();
        assert!(said.contains("regular file"), "{said}");
    }
}
