//! A blob store that takes nothing, is stale, or is torn.

use super::{assert_edition, first_port, lets, settle, taken};
use pointsman_netns::fleet::{Fleet, NOBODY};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Asks for an edition, publishes it, and expects that the store does not take it.
#[track_caller]
pub(super) fn publish_in_vain(fleet: &Fleet, edition: u16) {
    ask_for(fleet, edition);
    let response = fleet.ask("POST /v1/publish", None, b"{}").unwrap();
    assert!((500..600).contains(&response.status), "{} {}", response.status, response.json());
    let problem = response.json();
    assert!(!problem["title"].as_str().unwrap().is_empty(), "{problem}");
}

pub(super) fn ask_for(fleet: &Fleet, edition: u16) {
    for (at, node) in fleet.nodes.iter().enumerate() {
        fleet.put_policy(&format!("of-{}", node.name), &lets(&node.name, first_port(at) + edition));
    }
}

#[test]
fn a_read_only_store_keeps_hosts_as_they_are() {
    let fleet = Fleet::new(2).unwrap();
    settle(&fleet, 1);
    let directories = ["", "shards", "objects"].map(|name| fleet.store().join(name));
    let allow = |mode| {
        for directory in directories.iter().filter(|directory| directory.exists()) {
            fs::set_permissions(directory, Permissions::from_mode(mode)).unwrap();
        }
    };
    allow(0o555);
    publish_in_vain(&fleet, 2);
    assert_edition(&fleet, 1);
    allow(0o755);
    fleet.publish();
    fleet.converge();
    assert_edition(&fleet, 2);
}

/// A small file system.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        let data = CString::new(format!("size=256k,mode=0755,uid={NOBODY},gid={NOBODY}")).unwrap();
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), Some(data.as_c_str())).unwrap();
        Self(path)
    }

    /// Fills it to the last byte.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        for size in [4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("unmount {}: {error}", self.0.display());
        }
    }
}

#[test]
fn a_full_store_keeps_hosts_as_they_are() {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o711)).unwrap();
    let small = Small::mount(place.path().join("blobs"));
    let url = format!("file://{}", small.0.display());
    let fleet = Fleet::with(2, None, &["--store", &url]).unwrap();
    settle(&fleet, 1);
    let ballast = small.fill();
    publish_in_vain(&fleet, 2);
    assert_edition(&fleet, 1);
    fs::remove_file(ballast).unwrap();
    fleet.publish();
    fleet.converge();
    assert_edition(&fleet, 2);
    drop(fleet);
}

/// A fleet whose couriers read the store's files themselves.
fn by_files(nodes: u8) -> (tempfile::TempDir, PathBuf, Fleet) {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o711)).unwrap();
    let store = place.path().join("blobs");
    fs::create_dir(&store).unwrap();
    std::os::unix::fs::chown(&store, Some(NOBODY), Some(NOBODY)).unwrap();
    let url = format!("file://{}", store.display());
    let fleet = Fleet::with(nodes, None, &["--store", &url, "--source", &url]).unwrap();
    (place, store, fleet)
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp").arg("--archive").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Waits until every courier reports that something is wrong with what is published.
#[track_caller]
fn wait_for_trouble(fleet: &Fleet) {
    for node in &fleet.nodes {
        let path = format!("/v1/nodes/{}/status", node.name);
        fleet.until("told of", |_| {
            let report = fleet.get(&path);
            report["courier"]["source_trouble"].is_string()
        });
    }
}

#[test]
fn a_stale_store_takes_no_host_back() {
    let (place, store, fleet) = by_files(2);
    settle(&fleet, 1);
    let old = place.path().join("old");
    copy(&store, &old);
    settle(&fleet, 2);
    let before: Vec<_> = fleet.nodes.iter().map(taken).collect();
    copy(&old, &store);
    wait_for_trouble(&fleet);
    assert_edition(&fleet, 2);
    assert_eq!(fleet.nodes.iter().map(taken).collect::<Vec<_>>(), before);
    // Nothing is new, and all the same the store is put right.
    fleet.publish();
    settle(&fleet, 3);
    assert_edition(&fleet, 3);
}

/// The files of a kind.
fn files(store: &Path, kind: &str) -> Vec<PathBuf> {
    if kind == "latest" {
        return vec![store.join(kind)];
    }
    let entries = fs::read_dir(store.join(kind)).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// What is done to a file.
type Damage = fn(&mut Vec<u8>);

#[test]
fn a_torn_store_changes_no_host_and_the_next_publish_mends_it() {
    let flip: Damage = |bytes| {
        for at in (0..bytes.len()).step_by(97) {
            bytes[at] ^= 0x10;
        }
    };
    let (_place, store, mut fleet) = by_files(2);
    fleet.put("/v1/programs/pass", &pointsman_netns::object("verdict"));
    let uploaded = json!({"selector": {"all": true}, "interface": "v1", "chain": [
        {"program": "pass", "entry": "v_pass", "priority": 10}]});
    settle(&fleet, 1);
    let damages: [(&str, &str, Damage); 8] = [
        ("latest", "cut off", |bytes| bytes.truncate(bytes.len() / 2)),
        ("latest", "empty", Vec::clear),
        ("latest", "garbage", |bytes| *bytes = b"{\"schema\": \"x\"}".to_vec()),
        ("shards", "cut off", |bytes| bytes.truncate(bytes.len() / 2)),
        ("shards", "flipped", flip),
        ("shards", "empty", Vec::clear),
        ("objects", "cut off", |bytes| bytes.truncate(bytes.len() / 2)),
        ("objects", "flipped", flip),
    ];
    for (edition, (kind, what, damage)) in (2..).zip(damages) {
        println!("{kind} {what}");
        for node in &mut fleet.nodes {
            node.courier.take().unwrap().stop().unwrap();
        }
        ask_for(&fleet, edition);
        if kind == "objects" {
            // The first time it is new, the second time it is another one.
            let mut object = pointsman_netns::object("verdict");
            object.resize(object.len() + usize::from(edition), 0);
            fleet.put("/v1/programs/pass", &object);
            fleet.put_policy("pass", &uploaded);
        }
        fleet.publish();
        for file in files(&store, kind) {
            let mut bytes = fs::read(&file).unwrap();
            damage(&mut bytes);
            fs::write(&file, bytes).unwrap();
        }
        for node in &mut fleet.nodes {
            node.start_courier().unwrap();
        }
        wait_for_trouble(&fleet);
        assert_edition(&fleet, edition - 1);
        // What is as long as before is read again by a publisher that has just started.
        fleet.control.take().unwrap().stop().unwrap();
        fleet.start_control().unwrap();
        fleet.publish();
        fleet.converge();
        assert_edition(&fleet, edition);
    }
    let objects: Value = fleet.get("/v1/programs/pass");
    assert_eq!(objects["name"], "pass");
}
