//! Whoever has the drop directory can put anything there, and change it at any time.

use super::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn links_fifos_directories_and_huge_files_are_no_snapshots() {
    let (host, node) = at_5();
    let path = host.path("drop/snapshot.cdb");
    let look = |expected: &str, says: &str| {
        node.laid_down();
        let refused = refusal(&node).unwrap();
        assert_eq!(refused.kind, expected, "{refused:?}");
        assert!(refused.message.contains(says), "{refused:?}");
        stands_at_5(&host, &node);
    };
    fs::remove_file(&path).unwrap();
    fs::write(host.path("good.cdb"), snapshot(&record(6, &[("a", "b")]))).unwrap();
    symlink(host.path("good.cdb"), &path).unwrap();
    look("unreadable", "symbolic link");
    fs::remove_file(&path).unwrap();
    symlink("snapshot.cdb", &path).unwrap();
    look("unreadable", "symbolic link");
    fs::remove_file(&path).unwrap();
    fifo(&path);
    look("unreadable", "regular file");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    look("unreadable", "regular file");
    fs::remove_dir(&path).unwrap();
    File::create(&path).unwrap().set_len((1 << 32) + 1).unwrap();
    look("too_large", "4294967297 bytes");
    // As large as can be, all zeros.
    OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 32).unwrap();
    look("no_record", "no record");
}

#[test]
fn of_a_snapshot_of_gigabytes_only_the_record_is_read() {
    let (host, node) = at_5();
    // The records of a whole fleet, then 3 GiB of nothing, then the tables.
    let mut bytes = snapshot(&record(6, &[("a", "b")]));
    let tables = bytes.split_off(bytes.len() - 2 * 2 * 8);
    let (records, far) = (bytes.len() as u64, 3_u64 << 30);
    for entry in bytes[..2048].chunks_exact_mut(8) {
        let old = u32::from_le_bytes(entry[..4].try_into().unwrap());
        let new = u32::try_from(u64::from(old) - records + far).unwrap();
        entry[..4].copy_from_slice(&new.to_le_bytes());
    }
    let file = File::create(host.path("drop/snapshot.cdb")).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.write_all_at(&tables, far).unwrap();
    node.laid_down();
    assert_eq!((node.status().generation, host.running("a")), (Some(6), vec!["b".to_owned()]));
}

#[test]
fn linked_directories_and_objects_are_not_followed() {
    let (host, node) = at_5();
    let text = "OBJECT linked";
    let away = host.path("away");
    fs::create_dir(&away).unwrap();
    let name = Sha256::of(text.as_bytes()).to_string();
    fs::write(away.join(&name), text).unwrap();
    let mut next = document(6, &[("a", "cx")]);
    next["programs"]["x"] = json!({ "object": { "sha256": name } });
    let next = sign(&KEY, &payload(next, &[text])).unwrap();
    let incomplete = |says: &str| {
        lay_down(&host, &node, &next);
        let refused = refusal(&node).unwrap();
        assert_eq!(refused.kind, "incomplete");
        assert!(refused.message.contains(says), "{refused:?}");
        stands_at_5(&host, &node);
    };
    symlink(away.join(&name), object_path(&host, text)).unwrap();
    incomplete("symbolic link");
    fs::remove_file(object_path(&host, text)).unwrap();
    fifo(&object_path(&host, text));
    incomplete("regular file");
    fs::remove_dir_all(host.path("drop/objects")).unwrap();
    symlink(&away, host.path("drop/objects")).unwrap();
    incomplete("should be a directory");
    fs::remove_file(host.path("drop/objects")).unwrap();
    fs::rename(&away, host.path("drop/objects")).unwrap();
    node.laid_down();
    assert_eq!(host.running("a"), ["c", "x"]);
}

#[test]
fn a_file_that_changes_while_it_is_read_does_no_harm() {
    let (host, node) = at_5();
    let path = host.path("drop/snapshot.cdb");
    // Both are signed; half of one and half of the other is not.
    let (six, four) = (record(6, &[("a", "b")]), record(4, &[("b", "b")]));
    let (six, four) = (snapshot(&six), snapshot(&four));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0_u64;
            while !done.load(Ordering::SeqCst) {
                round += 1;
                if round.is_multiple_of(16) {
                    lay_down_file(&host, &four);
                }
                let Ok(file) = OpenOptions::new().write(true).open(&path) else { continue };
                let half = six.len() / 2;
                let (one, other) =
                    if round.is_multiple_of(2) { (&six, &four) } else { (&four, &six) };
                file.write_all_at(&one[..half], 0).unwrap();
                file.write_all_at(&other[half.min(other.len())..], half as u64).unwrap();
                file.set_len((round * 97) % (six.len() as u64 + 1)).unwrap();
            }
        });
        for _ in 0..400 {
            node.laid_down();
            let generation = node.status().generation;
            assert!(matches!(generation, Some(5 | 6)), "{generation:?}");
            let expected = if generation == Some(5) { vec!["c", "u"] } else { vec!["b"] };
            assert_eq!(host.running("a"), expected);
            assert_eq!(host.running("b"), NONE);
        }
        done.store(true, Ordering::SeqCst);
    });
    lay_down_file(&host, &six);
    node.laid_down();
    assert_eq!(host.running("a"), ["b"]);
    assert_eq!(refusal(&node), None);
    assert!(told(&node, EventKind::DocumentRefused) <= 9, "a flood is not written down");
}

#[test]
fn a_membership_that_others_can_write_is_said_and_no_snapshot_taken() {
    let (host, node) = at_5();
    let config = host.places().config;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).unwrap();
    lay_down(&host, &node, &record(6, &[("a", "b")]));
    let says = |says: &str| {
        let status = node.status();
        assert_eq!((status.fleet, status.generation), (None, Some(5)));
        let told = status.notes.iter().filter(|note| note.message.contains("fleet.json"));
        let told: Vec<_> = told.map(|note| note.message.clone()).collect();
        assert!(told.len() == 1 && told[0].contains(says), "{told:?}");
    };
    says("mode is 0666: others may write");
    fs::write(&config, "{").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    node.laid_down();
    says("EOF");
    // The node starts all the same, with what was in force.
    assert!(node.stop());
    let node = host.start_in_fleet();
    assert_eq!(host.running("a"), ["c", "u"]);
    assert_eq!(node.status().fleet, None);
    enrol(&host, "lab", "edge-1", &KEY);
    node.laid_down();
    assert_eq!(host.running("a"), ["b"]);
}
