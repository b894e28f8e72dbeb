//! Our files and those of the standard tools stand in for each other: tinycdb's `cdb`, and
//! minisign.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use pointsman_model::fleet::{LATEST_SCHEMA, Latest, RECORD_SCHEMA, RecordPayload};
use pointsman_model::{FleetName, NodeName, Sha256};
use pointsman_snapshot::cdb::{self, Writer};
use pointsman_snapshot::keys::{PublicKey, SigningKey};
use pointsman_snapshot::latest;
use pointsman_snapshot::record::Record;
use pointsman_snapshot::sign;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs a tool; `None`, and a word about it, where it is not installed.
fn run(test: &str, command: &mut Command, input: &[u8]) -> Option<Output> {
    let started =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIP {test}: {} is not installed", command.get_program().display());
            return None;
        }
        Err(error) => panic!("{command:?}: {error}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A tool need not read what it is given.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Some(output)
}

fn succeeded(output: &Output) -> &[u8] {
    assert!(output.status.success(), "{output:?}");
    &output.stdout
}

/// Keys and values of all kinds: empty, binary, long, and many.
fn content() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut content: BTreeMap<Vec<u8>, Vec<u8>> =
        (0..3000_u32).map(|n| (format!("edge-{n}").into(), n.to_le_bytes().repeat(9))).collect();
    content.insert(Vec::new(), b"of the empty key".to_vec());
    content.insert(b"empty".to_vec(), Vec::new());
    content.insert((0..=255).collect(), (0..=255).rev().collect());
    content.insert(b"long".to_vec(), vec![b'x'; 100_000]);
    content
}

/// What `cdb -c` reads and `cdb -d` writes.
fn dump<'a>(records: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        write!(text, "+{},{}:", key.len(), value.len()).unwrap();
        text.extend([key, b"->", value, b"\n"].concat());
    }
    text.push(b'\n');
    text
}

fn pairs(content: &BTreeMap<Vec<u8>, Vec<u8>>) -> impl Iterator<Item = (&[u8], &[u8])> {
    content.iter().map(|(key, value)| (&**key, &**value))
}

#[test]
fn tinycdb_reads_what_we_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ours.cdb");
    let content = content();
    let mut writer = Writer::new();
    for (key, value) in pairs(&content) {
        writer.add(key, value).unwrap();
    }
    std::fs::write(&path, writer.finish()).unwrap();
    let cdb = |arguments: &[&str], key: Option<&str>| {
        let mut command = Command::new("cdb");
        run("tinycdb_reads_what_we_write", command.args(arguments).arg(&path).args(key), b"")
    };
    let Some(all) = cdb(&["-d"], None) else { return };
    assert!(succeeded(&all) == dump(pairs(&content)), "everything, in the order of writing");
    for key in ["edge-0", "edge-1777", "edge-2999", "empty", "long"] {
        let found = cdb(&["-q"], Some(key)).unwrap();
        assert_eq!(succeeded(&found), content[key.as_bytes()], "{key}");
    }
    assert!(!cdb(&["-q"], Some("edge-3000")).unwrap().status.success());
}

#[test]
fn we_read_what_tinycdb_writes_and_write_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("theirs.cdb");
    let content = content();
    let mut command = Command::new("cdb");
    let text = dump(pairs(&content));
    let test = "we_read_what_tinycdb_writes_and_write_the_same_bytes";
    let Some(made) = run(test, command.arg("-c").arg(&path), &text) else { return };
    succeeded(&made);
    let theirs = std::fs::read(&path).unwrap();
    for (key, value) in pairs(&content) {
        assert_eq!(cdb::find(&theirs, key), Ok(Some(value)));
    }
    assert_eq!(cdb::find(&theirs, b"edge-3000"), Ok(None));
    let mut writer = Writer::new();
    for entry in cdb::entries(&theirs) {
        let (key, value) = entry.unwrap();
        writer.add(key, value).unwrap();
    }
    assert_eq!(writer.len(), content.len());
    assert!(writer.finish() == theirs, "byte for byte");
}

#[test]
fn of_a_key_that_tinycdb_wrote_twice_we_find_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("twice.cdb");
    let records: [(&[u8], &[u8]); 3] = [(b"a", b"one"), (b"b", b"two"), (b"a", b"three")];
    let mut command = Command::new("cdb");
    let test = "of_a_key_that_tinycdb_wrote_twice_we_find_the_first";
    let Some(made) = run(test, command.arg("-c").arg(&path), &dump(records)) else { return };
    succeeded(&made);
    let file = std::fs::read(&path).unwrap();
    assert_eq!(cdb::find(&file, b"a"), Ok(Some(&b"one"[..])));
    assert_eq!(cdb::entries(&file).map(Result::unwrap).collect::<Vec<_>>(), records);
}

fn payload() -> RecordPayload {
    RecordPayload {
        schema: RECORD_SCHEMA.to_owned(),
        fleet: FleetName::new("lab").unwrap(),
        node: NodeName::new("edge-17").unwrap(),
        generation: 42,
        issued_unix_ms: 1_700_000_000_000,
        objects: Vec::new(),
        document: serde_json::json!({
            "schema": "pointsman.node/v1", "node": "edge-17", "generation": 42
        }),
    }
}

fn verify<'a>(record: &'a [u8], key: &PublicKey) -> &'a [u8] {
    let payload = payload();
    let record = Record::parse(record).unwrap();
    record.verify(key, &payload.fleet, &payload.node).unwrap().document_bytes
}

fn minisign(test: &str, directory: &Path, arguments: &[&str]) -> Option<Output> {
    run(test, Command::new("minisign").current_dir(directory).args(arguments), b"")
}

#[test]
fn minisign_accepts_what_we_sign() {
    let directory = tempfile::tempdir().unwrap();
    let key = SigningKey::generate().unwrap();
    let record = sign(&key, &payload()).unwrap();
    let parts = Record::parse(&record).unwrap();
    std::fs::write(directory.path().join("edge-17"), parts.payload_bytes).unwrap();
    std::fs::write(directory.path().join("edge-17.minisig"), parts.signature_text).unwrap();
    let public = key.public_key();
    std::fs::write(directory.path().join("fleet.pub"), public.to_file_text()).unwrap();
    let check =
        |arguments: &[&str]| minisign("minisign_accepts_what_we_sign", directory.path(), arguments);

    let Some(by_text) = check(&["-Vm", "edge-17", "-P", public.to_base64()]) else { return };
    let said = String::from_utf8_lossy(succeeded(&by_text)).into_owned();
    assert!(said.contains("pointsman fleet=lab node=edge-17 generation=42"), "{said}");
    let by_file = check(&["-Vm", "edge-17", "-p", "fleet.pub", "-H"]).unwrap();
    succeeded(&by_file);

    // It shows the same id of the key as we do.
    let other = SigningKey::generate().unwrap();
    let refused = check(&["-Vm", "edge-17", "-P", other.public_key().to_base64()]).unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    for id in [public.key_id(), other.public_key().key_id()] {
        assert!(said.contains(&id), "{id}: {said}");
    }
}

#[test]
fn minisign_signs_with_our_key_and_we_with_its() {
    let directory = tempfile::tempdir().unwrap();
    let tool = |arguments: &[&str]| {
        minisign("minisign_signs_with_our_key_and_we_with_its", directory.path(), arguments)
    };
    let payload_bytes = serde_json::to_vec(&payload()).unwrap();
    std::fs::write(directory.path().join("edge-17"), &payload_bytes).unwrap();
    let sign_by_tool = |key: &str| {
        let comment = "pointsman fleet=lab node=edge-17 generation=42";
        let comments = ["-c", "pointsman record", "-t", comment];
        let signed = tool(&[&["-S", "-W", "-s", key, "-m", "edge-17"][..], &comments].concat())?;
        succeeded(&signed);
        let signature = std::fs::read(directory.path().join("edge-17.minisig")).unwrap();
        Some([signature, payload_bytes.clone()].concat())
    };

    let ours = SigningKey::generate().unwrap();
    ours.save(&directory.path().join("our.key")).unwrap();
    let Some(record) = sign_by_tool("our.key") else { return };
    verify(&record, ours.public_key());

    let made = tool(&["-G", "-W", "-p", "their.pub", "-s", "their.key"]).unwrap();
    succeeded(&made);
    let path = directory.path().join("their.key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let theirs = SigningKey::load(&path).unwrap();
    let public = std::fs::read_to_string(directory.path().join("their.pub")).unwrap();
    assert_eq!(public, theirs.public_key().to_file_text());
    verify(&sign(&theirs, &payload()).unwrap(), theirs.public_key());
    verify(&sign_by_tool("their.key").unwrap(), theirs.public_key());

    // A key of its kind has no checksum: halves that do not belong together are noticed.
    let text = std::fs::read_to_string(&path).unwrap();
    // Within the half that is the public key.
    let at = text.find('\n').unwrap() + 1 + 4 * 33;
    let letter = if &text[at..=at] == "A" { "B" } else { "A" };
    let broken = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
    std::fs::write(&path, broken).unwrap();
    let error = SigningKey::load(&path).unwrap_err().to_string();
    assert!(error.contains("their.key is not a minisign secret key"), "{error}");
}

/// The commands that `docs/snapshot.md` tells to type: its `sh` blocks, in order.
fn documented() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/snapshot.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```sh\n").skip(1);
    blocks.map(|block| block.split_once("```").unwrap().0.to_owned()).collect()
}

#[test]
fn the_documented_commands_take_a_record_out_and_make_one() {
    let test = "the_documented_commands_take_a_record_out_and_make_one";
    for tool in ["cdb", "minisign"] {
        let Some(_) = run(test, Command::new(tool).arg("-h"), b"") else { return };
    }
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    std::fs::create_dir_all(store.join("shards")).unwrap();
    let key = SigningKey::generate().unwrap();
    let record = sign(&key, &payload()).unwrap();

    // The node's record is in the shard of its place, and in no other.
    let place = Latest::place(&payload().node, 4);
    let shards = (0..4_usize).map(|at| {
        let mut writer = Writer::new();
        writer.add(format!("other-{at}").as_bytes(), b"not it").unwrap();
        if at == place {
            writer.add(b"edge-17", &record).unwrap();
        }
        let shard = writer.finish();
        let hash = Sha256::of(&shard);
        std::fs::write(store.join(latest::shard_name(&hash)), shard).unwrap();
        hash
    });
    let latest = Latest {
        schema: LATEST_SCHEMA.to_owned(),
        fleet: payload().fleet,
        snapshot: 17,
        shards: shards.collect(),
    };
    std::fs::write(store.join(latest::NAME), latest::write(&latest).unwrap()).unwrap();

    let shell = |commands: &str| {
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", commands]).current_dir(directory.path());
        command.env("STORE", &store).env("NODE", "edge-17").env("FLEET", "lab");
        command.env("KEY", key.public_key().to_base64()).env("GENERATION", "42");
        command.env("SECRET", directory.path().join("fleet.key"));
        run(test, &mut command, b"").unwrap()
    };
    let [take, make] = &documented()[..] else { panic!("two blocks") };
    let said = shell(take);
    let said = String::from_utf8_lossy(succeeded(&said)).into_owned();
    assert!(said.contains("verified"), "{said}");
    assert!(said.contains("pointsman fleet=lab node=edge-17 generation=42"), "{said}");
    assert_eq!(std::fs::read(directory.path().join("record")).unwrap(), record);

    key.save(&directory.path().join("fleet.key")).unwrap();
    succeeded(&shell(make));
    let file = std::fs::read(directory.path().join("snapshot.cdb")).unwrap();
    let made = cdb::find(&file, b"edge-17").unwrap().unwrap();
    assert_eq!(verify(made, key.public_key()), verify(&record, key.public_key()));
}
