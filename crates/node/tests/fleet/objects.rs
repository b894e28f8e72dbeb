//! Objects that come beside a record.

use super::*;
use pointsman_model::api::ApplyOutcome;
use std::fs::OpenOptions;
use std::io;
use std::sync::Mutex;

const ONE: &str = "OBJECT one";
const TWO: &str = "OBJECT two";

/// Generation 6: `a` runs two programs whose objects come beside the record.
fn with_objects() -> Vec<u8> {
    let hash = |text: &str| Sha256::of(text.as_bytes()).to_string();
    let mut next = document(6, &[("a", "xy")]);
    next["programs"]["x"] = json!({ "object": { "sha256": hash(ONE) } });
    let url = "https://objects.example/two.o";
    next["programs"]["y"] = json!({ "object": { "url": url, "sha256": hash(TWO) } });
    sign(&KEY, &payload(next, &[ONE, TWO])).unwrap()
}

fn stored(host: &TestHost, text: &str) -> bool {
    is_file(&host.path("state/objects").join(Sha256::of(text.as_bytes()).to_string()))
}

#[test]
fn a_record_waits_for_its_objects_and_names_them() {
    let (host, node) = at_5();
    lay_down(&host, &node, &with_objects());
    let refused = refusal(&node).unwrap();
    assert_eq!(refused.kind, "incomplete");
    for text in [ONE, TWO] {
        assert!(refused.message.contains(&Sha256::of(text.as_bytes()).to_string()), "{refused:?}");
    }
    stands_at_5(&host, &node);
    lay_down_object(&host, ONE);
    node.laid_down();
    let refused = refusal(&node).unwrap();
    assert!(!refused.message.contains(&Sha256::of(ONE.as_bytes()).to_string()), "{refused:?}");
    assert!(!stored(&host, ONE), "nothing is taken before all is there");
    stands_at_5(&host, &node);
    lay_down_object(&host, TWO);
    node.laid_down();
    assert_eq!((host.running("a"), refusal(&node)), (vec!["x".into(), "y".to_owned()], None));
    assert_eq!(node.status().generation, Some(6));
    assert!(stored(&host, ONE) && stored(&host, TWO));

    // From here on the node needs nothing of what was laid down, even after a reboot.
    fs::remove_dir_all(host.path("drop")).unwrap();
    assert!(node.stop());
    host.reboot();
    let node = host.start_in_fleet();
    assert_eq!(host.running("a"), ["x", "y"]);
    let notes = node.status().notes;
    assert!(notes.iter().any(|note| note.message.contains("there is no directory")), "{notes:?}");
}

#[test]
fn objects_that_only_the_document_names_are_waited_for_too() {
    let (host, node) = at_5();
    let hash = |text: &str| Sha256::of(text.as_bytes()).to_string();
    let mut next = document(6, &[("a", "xy")]);
    next["programs"]["x"] = json!({ "object": { "sha256": hash(ONE) } });
    let url = "https://objects.example/two.o";
    next["programs"]["y"] = json!({ "object": { "url": url, "sha256": hash(TWO) } });
    // Nobody has to bring what no chain uses.
    next["programs"]["z"] = json!({ "object": { "sha256": hash("unused") } });
    let next = sign(&KEY, &payload(next, &[])).unwrap();
    for (brought, waits_for) in [(ONE, ONE), (TWO, TWO)] {
        lay_down(&host, &node, &next);
        let refused = refusal(&node).unwrap();
        assert_eq!(refused.kind, "incomplete");
        assert!(refused.message.contains(&hash(waits_for)), "{refused:?}");
        assert!(!refused.message.contains(&hash("unused")), "{refused:?}");
        stands_at_5(&host, &node);
        lay_down_object(&host, brought);
    }
    node.laid_down();
    assert_eq!((host.running("a"), refusal(&node)), (vec!["x".into(), "y".to_owned()], None));
}

#[test]
fn an_object_that_is_not_what_its_name_says_is_refused_and_never_stored() {
    let (host, node) = at_5();
    lay_down_object(&host, ONE);
    for wrong in ["OBJECT twO", "", "OBJECT two "] {
        fs::write(object_path(&host, TWO), wrong).unwrap();
        lay_down(&host, &node, &with_objects());
        let refused = refusal(&node).unwrap();
        assert_eq!(refused.kind, "incomplete");
        assert!(refused.message.contains("is not what its name says"), "{refused:?}");
        assert!(!stored(&host, ONE) && !stored(&host, TWO), "what was brought for it goes again");
        stands_at_5(&host, &node);
    }
    let file = OpenOptions::new().write(true).open(object_path(&host, TWO)).unwrap();
    file.set_len((16 << 20) + 1).unwrap();
    node.laid_down();
    assert!(refusal(&node).unwrap().message.contains("larger than the limit"));
    lay_down_object(&host, TWO);
    node.laid_down();
    assert_eq!(host.running("a"), ["x", "y"]);
}

/// Which files were created aside, by name.
static CREATED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn writes_down(path: &Path) -> io::Result<fs::File> {
    CREATED.lock().unwrap().push(path.to_owned());
    fs::File::create(path)
}

#[test]
fn what_is_refused_again_and_again_writes_nothing() {
    let (host, node) = at_5();
    assert!(node.stop());
    let node = host.start_in_fleet_with(writes_down).unwrap();
    lay_down_object(&host, ONE);
    let objects_written = || {
        let created = CREATED.lock().unwrap();
        let store = host.path("state/objects");
        created.iter().filter(|path| path.starts_with(&store)).count()
    };
    let before = objects_written();
    // One of two objects is not what its name says; the document is empty all of a sudden.
    fs::write(object_path(&host, TWO), "OBJECT twO").unwrap();
    let empty = sign(&KEY, &payload(document(6, &[]), &[ONE])).unwrap();
    for (record, expected) in [(with_objects(), "incomplete"), (empty, "invalid")] {
        for _ in 0..3 {
            lay_down(&host, &node, &record);
            assert_eq!(kind(&node), expected);
        }
        assert_eq!(objects_written(), before, "{expected}");
        stands_at_5(&host, &node);
    }
    lay_down_object(&host, TWO);
    lay_down(&host, &node, &with_objects());
    assert_eq!(host.running("a"), ["x", "y"]);
    assert_eq!(objects_written(), before + 2);
}

#[test]
fn a_damaged_object_in_the_store_is_replaced_by_what_is_brought() {
    let (host, node) = at_5();
    let path = host.path("state/objects").join(Sha256::of(ONE.as_bytes()).to_string());
    fs::write(&path, "OBJECT onE").unwrap();
    lay_down_object(&host, TWO);
    lay_down(&host, &node, &with_objects());
    assert_eq!(kind(&node), "incomplete", "it is not there");
    stands_at_5(&host, &node);
    lay_down_object(&host, ONE);
    node.laid_down();
    assert_eq!((host.running("a"), refusal(&node)), (vec!["x".into(), "y".to_owned()], None));
    assert_eq!(fs::read(&path).unwrap(), ONE.as_bytes());
}

#[test]
fn objects_of_a_document_that_is_refused_do_not_stay() {
    let (host, node) = at_5();
    lay_down_object(&host, ONE);
    let mut wrong = document(6, &[("a", "x")]);
    wrong["programs"]["x"] = json!({ "object": { "sha256": Sha256::of(ONE.as_bytes()) } });
    wrong["surprise"] = json!(1);
    lay_down(&host, &node, &sign(&KEY, &payload(wrong, &[ONE])).unwrap());
    assert_eq!(kind(&node), "invalid");
    assert!(!stored(&host, ONE));
    stands_at_5(&host, &node);
}

#[test]
fn a_local_document_finds_objects_there_too_and_a_plan_stores_none() {
    let (host, node) = at_5();
    lay_down_object(&host, ONE);
    let mut local = document(6, &[("a", "x")]);
    local["programs"]["x"] = json!({ "object": { "sha256": Sha256::of(ONE.as_bytes()) } });
    node.plan(&local).unwrap();
    assert!(!stored(&host, ONE));
    let report = node.apply(&local).unwrap();
    assert_eq!(report.outcome, ApplyOutcome::Applied);
    assert_eq!(host.running("a"), ["x"]);
    assert!(stored(&host, ONE));
}

/// A disk without room for objects.
fn no_room_for_objects(path: &Path) -> io::Result<fs::File> {
    let file = fs::File::create(path)?;
    let parent = path.parent().and_then(Path::file_name);
    if parent.is_some_and(|name| name == "objects") {
        return OpenOptions::new().write(true).open("/dev/full");
    }
    Ok(file)
}

#[test]
fn a_host_that_has_no_room_takes_the_record_when_there_is() {
    let (host, node) = at_5();
    assert!(node.stop());
    lay_down_object(&host, ONE);
    lay_down_object(&host, TWO);
    lay_down_file(&host, &snapshot(&with_objects()));
    let node = host.start_in_fleet_with(no_room_for_objects).unwrap();
    let refused = refusal(&node).unwrap();
    assert_eq!(refused.kind, "failed");
    assert!(refused.message.contains("free space"), "{refused:?}");
    assert_eq!(host.running("a"), ["c", "u"]);
    assert!(node.stop());
    let node = host.start_in_fleet();
    assert_eq!((host.running("a"), refusal(&node)), (vec!["x".into(), "y".to_owned()], None));
}

#[test]
fn a_host_that_cannot_be_observed_takes_the_record_when_it_can() {
    let (host, node) = at_5();
    host.shared.blind.store(true, std::sync::atomic::Ordering::SeqCst);
    lay_down_file(&host, &snapshot(&record(6, &[("a", "b")])));
    node.laid_down();
    host.shared.blind.store(false, std::sync::atomic::Ordering::SeqCst);
    // Nobody lays it down again: the node tries by itself.
    node.until("new generation", |status| status.generation == Some(6));
    assert_eq!((host.running("a"), refusal(&node)), (vec!["b".to_owned()], None));
}
