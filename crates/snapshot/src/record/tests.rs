use super::*;
use crate::keys::SigningKey;
use crate::sign;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pointsman_model::Sha256;
use pointsman_model::fleet::RecordPayload;
use proptest::prelude::*;
use serde_json::json;
use std::sync::LazyLock;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());

fn fleet() -> FleetName {
    FleetName::new("lab").unwrap()
}

fn node() -> NodeName {
    NodeName::new("edge-17").unwrap()
}

fn payload() -> RecordPayload {
    RecordPayload {
        schema: RECORD_SCHEMA.to_owned(),
        fleet: fleet(),
        node: node(),
        generation: 42,
        issued_unix_ms: 1_700_000_000_000,
        objects: vec![RecordObject { sha256: Sha256::of(b"object"), bytes: 6 }],
        document: json!({"schema": "pointsman.node/v1", "node": "edge-17", "generation": 42}),
    }
}

fn take(record: &[u8]) -> Result<Verified<'_>, RecordError> {
    Record::parse(record)?.verify(KEY.public_key(), &fleet(), &node())
}

/// Signs anything: what [`sign`] would refuse.
fn signed(comment: &str, payload: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    KEY.save(&path).unwrap();
    let text =
        minisign::SecretKeyBox::from_string(&std::fs::read_to_string(path).unwrap()).unwrap();
    let key = text.into_unencrypted_secret_key().unwrap();
    let signature = minisign::sign(None, &key, payload, Some(comment), Some(COMMENT)).unwrap();
    [signature.into_string().as_bytes(), payload].concat()
}

const CLAIM: &str = "pointsman fleet=lab node=edge-17 generation=42";

#[test]
fn a_record_gives_the_documents_bytes_as_they_were_signed() {
    let payload = payload();
    let record = sign(&KEY, &payload).unwrap();
    let parts = Record::parse(&record).unwrap();
    assert_eq!([parts.signature_text.as_bytes(), parts.payload_bytes].concat(), record);
    assert_eq!(parts.signature_text.lines().nth(2), Some(&*format!("trusted comment: {CLAIM}")));
    let verified = take(&record).unwrap();
    assert_eq!((verified.generation, verified.issued_unix_ms), (42, 1_700_000_000_000));
    assert_eq!(verified.objects, payload.objects);

    // Spaces, the order of keys, a number's digits: all as they were.
    let document = r#"{ "node":"edge-17",  "x": 1.50, "generation":42 }"#;
    let text = format!(
        r#"{{"document":{document},"schema":"{RECORD_SCHEMA}","fleet":"lab","node":"edge-17",
        "generation":42,"issued_unix_ms":1}}"#
    );
    let record = signed(CLAIM, text.as_bytes());
    assert_eq!(take(&record).unwrap().document_bytes, document.as_bytes());
}

#[test]
fn a_record_cut_off_at_any_byte_is_none() {
    let record = sign(&KEY, &payload()).unwrap();
    for len in 0..record.len() {
        let error = take(&record[..len]).unwrap_err();
        assert!(matches!(error.kind(), "unsigned" | "bad_signature"), "{len}: {error}");
    }
    let longer = [record.as_slice(), b" "].concat();
    assert_eq!(take(&longer), Err(RecordError::BadSignature));
}

#[test]
fn a_record_with_any_bit_flipped_is_none() {
    let record = sign(&KEY, &payload()).unwrap();
    let signature = Record::parse(&record).unwrap().signature_text.len();
    // Each bit of the signature's lines, and one of each byte of the payload: there all go
    // through the same hash.
    let bits = (0..signature * 8).chain((signature..record.len()).map(|at| at * 8 + at % 8));
    for bit in bits {
        let mut altered = record.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let error = take(&altered).unwrap_err();
        assert!(matches!(error.kind(), "unsigned" | "bad_signature"), "{bit}: {error}");
    }
}

#[test]
fn a_record_of_somebody_elses_is_none() {
    let other = SigningKey::generate().unwrap();
    let record = sign(&other, &payload()).unwrap();
    let error = take(&record).unwrap_err();
    assert_eq!(error.kind(), "bad_signature");
    let text = error.to_string();
    for key in [&other, &*KEY] {
        assert!(text.contains(&key.public_key().key_id()), "{text}");
    }

    let record = sign(&KEY, &payload()).unwrap();
    let parts = Record::parse(&record).unwrap();
    let verify = |fleet: &str, node: &str| {
        let (fleet, node) = (FleetName::new(fleet).unwrap(), NodeName::new(node).unwrap());
        parts.verify(KEY.public_key(), &fleet, &node).map(|_| ()).map_err(|error| error.kind())
    };
    assert_eq!(verify("lab", "edge-17"), Ok(()));
    assert_eq!(verify("Lab", "edge-17"), Err("other_fleet"));
    assert_eq!(verify("lab", "edge-1"), Err("other_node"));
    assert_eq!(verify("lab", "edge-170"), Err("other_node"));
}

#[test]
fn what_was_signed_by_mistake_is_refused_and_said() {
    let good = serde_json::to_string(&payload()).unwrap();
    take(&signed(CLAIM, good.as_bytes())).unwrap();
    let hash = Sha256::of(b"object").to_string();
    let twice = format!(r#"{{"sha256":"{hash}","bytes":6}},"#);
    for (from, to, expected) in [
        ("record/v1", "record/v2", "knows"),
        (r#""fleet":"lab""#, r#""fleet":"lib""#, "trusted comment says"),
        (
            r#""node":"edge-17","generation":42,"issued"#,
            r#""node":"edge-1","generation":42,"issued"#,
            "trusted comment says",
        ),
        (r#""generation":42,"issued"#, r#""generation":43,"issued"#, "trusted comment says"),
        (
            r#""document":{"generation":42"#,
            r#""document":{"generation":41"#,
            "document is generation 41",
        ),
        (
            r#""node":"edge-17","schema":"pointsman.node"#,
            r#""node":"edge-18","schema":"pointsman.node"#,
            "of the node edge-18",
        ),
        ("{", r#"{"more":1,"#, "unknown field"),
        ("{", r#"{"fleet":"lab","#, "duplicate field"),
        (r#""document":{"#, r#""document":{"node":"edge-17","#, "duplicate field"),
        (r#""document":{"#, r#""document":[{"#, "cannot be read"),
        (r#""objects":["#, &*format!(r#""objects":[{twice}"#), "twice"),
        (&*hash, "../../etc/shadow", "valid sha256"),
        (r#","issued_unix_ms":1700000000000"#, "", "missing field"),
        ("{", " {", "not a JSON object"),
        ("{", "[{", "not a JSON object"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from} is there");
        let record = signed(CLAIM, text.as_bytes());
        let error = take(&record).unwrap_err();
        assert_eq!(error.kind(), "invalid");
        assert!(error.to_string().contains(expected), "{to}: {error}");
    }
    for comment in [
        "",
        "pointsman",
        "timestamp:1700000000\tfile:payload",
        "pointsman fleet=lab node=edge-17",
        "pointsman fleet=lab node=edge-17 generation=+42",
        "pointsman fleet=lab node=edge-17 generation=042",
        "pointsman fleet=lab node=edge-17 generation=99999999999999999999",
        "pointsman fleet=lab  node=edge-17 generation=42",
        "pointsman fleet=lab node=edge-17 generation=42 more",
        "pointsman fleet=l/b node=edge-17 generation=42",
    ] {
        let record = signed(comment, good.as_bytes());
        let error = take(&record).unwrap_err();
        assert!(error.to_string().contains("trusted comment is not"), "{comment}: {error}");
    }
    for generation in [0, MAX_GENERATION + 1] {
        let text = good.replace(":42", &format!(":{generation}"));
        let record = signed(&CLAIM.replace("42", &generation.to_string()), text.as_bytes());
        assert!(take(&record).unwrap_err().to_string().contains("expected 1 to"));
    }
}

#[test]
fn what_no_node_would_take_is_not_signed() {
    let of = |change: fn(&mut RecordPayload)| {
        let mut payload = payload();
        change(&mut payload);
        sign(&KEY, &payload).unwrap_err().kind()
    };
    assert_eq!(of(|payload| payload.generation = 43), "invalid");
    assert_eq!(of(|payload| payload.node = NodeName::new("edge-1").unwrap()), "invalid");
    assert_eq!(of(|payload| payload.schema.clear()), "invalid");
    assert_eq!(of(|payload| payload.document["node"] = json!("edge-18")), "invalid");
    assert_eq!(of(|payload| payload.document["x"] = "x".repeat(MAX_RECORD).into()), "too_large");
}

#[test]
fn unsigned_and_huge_ones_are_refused_before_anything_is_looked_at() {
    let payload = serde_json::to_vec(&payload()).unwrap();
    assert_eq!(take(&payload).unwrap_err().kind(), "unsigned");
    assert_eq!(take(&vec![b'\n'; MAX_RECORD + 1]).unwrap_err().kind(), "too_large");
    assert_eq!(take(&vec![b'\n'; MAX_RECORD]).unwrap_err().kind(), "unsigned");
    let record = sign(&KEY, &self::payload()).unwrap();
    let text = String::from_utf8(record).unwrap();
    for (from, to) in [
        ("pointsman record", "pointsman records"),
        ("\n", "\r\n"),
        ("untrusted comment", "Untrusted comment"),
        ("untrusted comment: ", ""),
        ("\ntrusted comment: ", "\ncomment: "),
    ] {
        assert_eq!(
            take(text.replacen(from, to, 1).as_bytes()).unwrap_err().kind(),
            "unsigned",
            "{to}"
        );
    }
    // Minisign's older signatures are over the bytes themselves: "Ed" in place of "ED".
    let line = text.lines().nth(1).unwrap();
    let mut signature = STANDARD.decode(line).unwrap();
    signature[1] = b'd';
    let old = text.replacen(line, &STANDARD.encode(signature), 1);
    let error = take(old.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("old kind"), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_at_all_are_refused(bytes: Vec<u8>, lines in "(untrusted comment: pointsman record\n)?[ -~]{0,120}\ntrusted comment: [ -~]{0,60}\n[A-Za-z0-9+/]{86}==\n") {
        prop_assert!(take(&bytes).is_err());
        prop_assert!(take(&[lines.as_bytes(), &bytes].concat()).is_err());
    }

    #[test]
    fn mutated_records_are_refused(
        at: proptest::sample::Index, remove in 0..20_usize, insert in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        static RECORD: LazyLock<Vec<u8>> = LazyLock::new(|| sign(&KEY, &payload()).unwrap());
        let mut bytes = RECORD.clone();
        let at = at.index(bytes.len());
        bytes.splice(at..(at + remove).min(bytes.len()), insert);
        prop_assume!(bytes != *RECORD);
        prop_assert!(take(&bytes).is_err());
    }
}
