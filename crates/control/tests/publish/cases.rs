//! What a publish does.

use crate::lab::{ALLOW_EMPTY, DRY_RUN, Lab, PLAIN, Place, ann, counter, node, outcomes};
use crate::on_both;
use pointsman_control::db::PageRequest;
use pointsman_model::Sha256;
use pointsman_model::fleet::Cause;
use serde_json::json;

on_both!(
    who_only_looks_waits_for_nobody,
    a_policy_becomes_records_that_nodes_take,
    only_what_changes_is_made_anew,
    nothing_new_is_no_snapshot,
    a_node_is_emptied_only_where_that_is_allowed,
    policies_that_do_not_go_together_hold_their_nodes_back_alone,
    nodes_that_leave_and_come_back_go_on_counting,
    objects_are_beside_the_records_that_need_them,
    what_a_policy_would_change_is_shown,
    a_fleet_grows_into_more_shards,
);

async fn a_policy_becomes_records_that_nodes_take(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(1..=3, json!({})).await;
    lab.policy("count", counter("eth0", 10)).await;

    let dry = lab.publish(DRY_RUN).await;
    assert_eq!(dry.snapshot, None);
    assert!(dry.nodes[0].diff.contains("+        \"chain\""), "{}", dry.nodes[0].diff);
    assert!(lab.auditor.latest.is_none());

    let report = lab.publish(PLAIN).await;
    assert_eq!(outcomes(&report), ["edge-1 added 1", "edge-2 added 1", "edge-3 added 1"]);
    assert_eq!(report.nodes, dry.nodes);
    let snapshot = report.snapshot.unwrap();
    assert_eq!((snapshot.number, snapshot.nodes, snapshot.changed), (1, 3, 3));
    assert_eq!((&*snapshot.by, snapshot.cause), ("ann", Cause::Request));
    assert_eq!(lab.db.snapshot(1).await.unwrap(), snapshot);
    assert!(lab.db.newest_snapshot().await.unwrap().unwrap().1);
    assert_eq!(lab.auditor.latest.as_ref().unwrap().snapshot, 1);
    let (generation, document) = &lab.auditor.now[&node(2)];
    assert_eq!((*generation, &document["node"]), (1, &json!("edge-2")));
    assert_eq!(document["interfaces"]["eth0"]["xdp"]["chain"][0]["priority"], 10);
    let audit = lab.db.audit(None, None, &PageRequest::default()).await.unwrap();
    let entry = &audit.items[0];
    assert_eq!((&*entry.verb, &*entry.object, &*entry.who), ("publish", "snapshot 1", "ann"));
}

async fn only_what_changes_is_made_anew(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(1..=2, json!({"site": "fra"})).await;
    lab.enrol(3..=4, json!({"site": "ams"})).await;
    lab.policy("count", counter("eth0", 10)).await;
    lab.publish(PLAIN).await;
    let before = lab.db.record(&node(1)).await.unwrap();
    let mut more = counter("eth1", 5);
    more["selector"] = json!({"labels": {"site": "ams"}});
    lab.policy("ams", more).await;
    let report = lab.publish(PLAIN).await;
    assert_eq!(outcomes(&report), ["edge-3 changed 2", "edge-4 changed 2"]);
    assert_eq!((report.unchanged, report.snapshot.unwrap().changed), (2, 2));
    assert_eq!(lab.db.record(&node(1)).await.unwrap(), before);

    // Said in other words, it is the same document: and that is remembered.
    lab.policy("count", {
        let mut same = counter("eth0", 10);
        same["mode"] = json!(null);
        same["description"] = json!("for people");
        same
    })
    .await;
    let report = lab.publish(PLAIN).await;
    assert_eq!((report.snapshot, report.nodes.len(), report.unchanged), (None, 0, 4));
    lab.policy("more-names", {
        let mut nobody = counter("eth0", 10);
        nobody["selector"] = json!({"nodes": ["edge-17"]});
        nobody
    })
    .await;
    assert_eq!(lab.publish(PLAIN).await.unchanged, 4);
    // One policy becomes two that together say what it said.
    let both = json!([
        {"program": "builtin:counting-pass", "priority": 10},
        {"program": "builtin:udp-port-filter", "priority": 20},
    ]);
    lab.policy("count", {
        let mut spec = counter("eth0", 10);
        spec["chain"] = both;
        spec
    })
    .await;
    assert_eq!(lab.publish(PLAIN).await.nodes.len(), 4);
    lab.policy("count", counter("eth0", 10)).await;
    lab.policy("filter", {
        let mut spec = counter("eth0", 0);
        spec["chain"] = json!([{"program": "builtin:udp-port-filter", "priority": 20}]);
        spec
    })
    .await;
    for _ in 0..2 {
        let report = lab.publish(PLAIN).await;
        assert_eq!((report.snapshot, report.nodes.len(), report.unchanged), (None, 0, 4));
    }
}

async fn nothing_new_is_no_snapshot(place: Place) {
    let mut lab = Lab::new(place).await;
    // A fleet without nodes has a snapshot too: `latest` must be there.
    let report = lab.publish(PLAIN).await;
    assert_eq!(report.snapshot.unwrap().nodes, 0);
    let publisher = lab.publisher();
    for _ in 0..3 {
        let report = lab.try_publish(&publisher, PLAIN).await.unwrap();
        assert_eq!((report.snapshot, report.nodes.len()), (None, 0));
    }
    lab.audit();
    assert_eq!(lab.auditor.latest.as_ref().unwrap().snapshot, 1);
}

async fn a_node_is_emptied_only_where_that_is_allowed(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol([1], json!({})).await;
    lab.policy("count", counter("eth0", 10)).await;
    lab.publish(PLAIN).await;
    lab.drop_policy("count").await;
    for request in [DRY_RUN, PLAIN] {
        let report = lab.publish(request).await;
        assert_eq!(outcomes(&report), ["edge-1 would_empty 1"]);
        assert!(report.nodes[0].diff.contains("\"priority\": 10"));
        assert_eq!(report.snapshot, None);
    }
    // What nobody asked for is never empty either.
    let by_itself = lab.publisher();
    let request = PLAIN;
    let report = by_itself.publish(request, crate::lab::ann(), Cause::Interval).await.unwrap();
    assert_eq!(outcomes(&report), ["edge-1 would_empty 1"]);
    assert_eq!(lab.auditor.now[&node(1)].0, 1);

    let report = lab.publish(ALLOW_EMPTY).await;
    assert_eq!(outcomes(&report), ["edge-1 changed 2"]);
    assert_eq!(lab.auditor.now[&node(1)].1["allow_empty"], true);
    for request in [PLAIN, ALLOW_EMPTY] {
        assert_eq!(lab.publish(request).await.unchanged, 1);
    }
    // Empty in another way: the node may have missed the first.
    let mut empty = counter("eth0", 10);
    empty["chain"] = json!([]);
    lab.policy("count", empty).await;
    assert_eq!(outcomes(&lab.publish(PLAIN).await), ["edge-1 changed 3"]);
    assert_eq!(lab.auditor.now[&node(1)].1["allow_empty"], true);
    lab.policy("count", counter("eth0", 10)).await;
    assert_eq!(outcomes(&lab.publish(PLAIN).await), ["edge-1 changed 4"]);
    assert_eq!(lab.auditor.now[&node(1)].1.get("allow_empty"), None);
}

async fn policies_that_do_not_go_together_hold_their_nodes_back_alone(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(1..=2, json!({"site": "fra"})).await;
    lab.enrol([3], json!({"site": "ams"})).await;
    lab.policy("count", counter("eth0", 10)).await;
    lab.publish(PLAIN).await;
    lab.enrol([4], json!({"site": "fra"})).await;
    let mut fused = counter("eth0", 10);
    fused["selector"] = json!({"labels": {"site": "fra"}});
    lab.policy("twice", fused).await;
    lab.policy("count", counter("eth0", 11)).await;
    let report = lab.publish(PLAIN).await;
    assert_eq!(
        outcomes(&report),
        ["edge-1 refused 1", "edge-2 refused 1", "edge-3 changed 2", "edge-4 refused 0"]
    );
    let error = &report.nodes[0].errors[0];
    assert_eq!(error.pointer, "/policies/twice/chain/0");
    assert!(error.message.contains("\"count\""), "{error}");
    assert_eq!(lab.auditor.now[&node(1)].0, 1);
    assert!(!lab.auditor.now.contains_key(&node(4)));
    let errors = lab.publisher().wanted(&node(1)).await.unwrap().unwrap_err();
    assert_eq!(errors[0].pointer, "/policies/twice/chain/0");
    lab.drop_policy("twice").await;
    let report = lab.publish(PLAIN).await;
    assert_eq!(outcomes(&report), ["edge-1 changed 2", "edge-2 changed 2", "edge-4 added 1"]);
}

async fn nodes_that_leave_and_come_back_go_on_counting(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(1..=2, json!({})).await;
    lab.policy("count", counter("eth0", 10)).await;
    lab.publish(PLAIN).await;
    lab.policy("count", counter("eth0", 11)).await;
    lab.publish(PLAIN).await;
    lab.expel(1).await;
    let report = lab.publish(PLAIN).await;
    assert_eq!(outcomes(&report), ["edge-1 removed 2"]);
    assert_eq!(report.snapshot.unwrap().nodes, 1);
    assert!(!lab.auditor.now.contains_key(&node(1)));
    assert_eq!(lab.db.record(&node(1)).await.unwrap().unwrap().record, None);
    assert_eq!(lab.publish(PLAIN).await.snapshot, None);
    lab.enrol([1], json!({})).await;
    let wanted = lab.publisher().wanted(&node(1)).await.unwrap().unwrap();
    assert_eq!(wanted["generation"], 3);
    assert_eq!(outcomes(&lab.publish(PLAIN).await), ["edge-1 added 3"]);
    assert_eq!(lab.auditor.now[&node(1)].1, wanted);
}

async fn objects_are_beside_the_records_that_need_them(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol([1], json!({})).await;
    lab.program("ddos", b"first object").await;
    lab.program("unused", b"nobody needs it").await;
    let mut spec = counter("eth0", 10);
    spec["chain"] = json!([{"program": "ddos"}]);
    lab.policy("guard", spec).await;
    lab.publish(PLAIN).await;
    let file = |bytes: &[u8]| lab.blobs().join("objects").join(Sha256::of(bytes).to_string());
    let (first, second) = (file(b"first object"), file(b"second object"));
    let unused = file(b"nobody needs it");
    assert_eq!(std::fs::read(&first).unwrap(), b"first object");
    assert!(!unused.exists());
    // What the store lost or tore comes back.
    std::fs::write(&first, "half").unwrap();
    lab.auditor.may_be_torn = true;
    lab.publish(PLAIN).await;
    lab.auditor.may_be_torn = false;
    assert_eq!(std::fs::read(&first).unwrap(), b"first object");
    lab.program("ddos", b"second object").await;
    assert_eq!(outcomes(&lab.publish(PLAIN).await), ["edge-1 changed 2"]);
    assert_eq!(std::fs::read(&second).unwrap(), b"second object");
    // Somebody may have the record of before still.
    assert!(first.exists());
    let object = &lab.auditor.now[&node(1)].1["programs"]["ddos"]["object"];
    assert_eq!(*object, json!({"sha256": Sha256::of(b"second object")}));
}

async fn what_a_policy_would_change_is_shown(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.enrol(1..=2, json!({"site": "fra"})).await;
    lab.enrol([3], json!({})).await;
    lab.policy("count", counter("eth0", 10)).await;
    lab.publish(PLAIN).await;
    let publisher = lab.publisher();
    let mut spec = counter("eth1", 20);
    spec["selector"] = json!({"labels": {"site": "fra"}});
    let spec = serde_json::from_value(spec).unwrap();
    let name = "filter".parse().unwrap();
    let diff = publisher.policy_diff(&name, Some(spec)).await.unwrap();
    assert!(diff.policy.starts_with("@@ -0,0 +1,"), "{}", diff.policy);
    let nodes: Vec<_> = diff.nodes.iter().map(|change| change.node.as_str()).collect();
    assert_eq!(nodes, ["edge-1", "edge-2"]);
    assert!(diff.nodes[0].diff.contains("+    \"eth1\": {"), "{}", diff.nodes[0].diff);
    assert_eq!(diff.nodes[0].diff, diff.nodes[1].diff);
    let gone = publisher.policy_diff(&"count".parse().unwrap(), None).await.unwrap();
    assert_eq!(gone.nodes.len(), 3);
    let outcome = serde_json::to_value(gone.nodes[0].outcome).unwrap();
    assert_eq!(outcome, "would_empty");
    let none = publisher.policy_diff(&name, None).await.unwrap();
    assert_eq!((none.policy.as_str(), none.nodes.len()), ("", 0));
    // Nothing of it was done.
    assert_eq!(lab.publish(PLAIN).await.snapshot, None);
}

async fn a_fleet_grows_into_more_shards(place: Place) {
    let mut lab = Lab::new(place).await;
    lab.policy("count", counter("eth0", 10)).await;
    lab.enrol(0..600, json!({})).await;
    let snapshot = lab.publish(PLAIN).await.snapshot.unwrap();
    assert_eq!((snapshot.shards.len(), snapshot.nodes, lab.auditor.now.len()), (2, 600, 600));
    let publisher = lab.publisher();
    lab.try_publish(&publisher, PLAIN).await.unwrap();
    // One node of 600: one shard, and nobody else's record.
    let mut one = counter("eth1", 10);
    one["selector"] = json!({"nodes": ["edge-5"]});
    lab.policy("one", one).await;
    let report = lab.try_publish(&publisher, PLAIN).await.unwrap();
    let next = report.snapshot.unwrap();
    assert_eq!((next.changed, report.unchanged), (1, 599));
    let same = snapshot.shards.iter().zip(&next.shards).filter(|(a, b)| a == b).count();
    assert_eq!(same, 1);
    assert!(next.bytes_written < snapshot.bytes_written * 2 / 3, "{next:?}");
    lab.audit();
}

async fn who_only_looks_waits_for_nobody(place: Place) {
    let lab = Lab::new(place).await;
    lab.enrol(1..=2, json!({})).await;
    lab.policy("count", counter("eth0", 1)).await;
    let publisher = lab.publisher();
    // Somebody changes something, and takes his time.
    let change = lab.db.change(&ann(), 1).await.unwrap();
    let report = lab.try_publish(&publisher, DRY_RUN).await.unwrap();
    assert_eq!(report.nodes.len(), 2);
    let spec = serde_json::from_value(counter("eth0", 2)).unwrap();
    let diff = publisher.policy_diff(&"count".parse().unwrap(), Some(spec)).await.unwrap();
    assert_eq!(diff.nodes.len(), 2);
    publisher.wanted(&node(1)).await.unwrap().unwrap();
    // And who looks keeps nobody from changing something, nor sees it.
    change.commit().await.unwrap();
    let mut moment = lab.db.moment().await.unwrap();
    assert_eq!(moment.all_policies().await.unwrap().len(), 1);
    lab.policy("more", counter("eth1", 1)).await;
    lab.enrol([3], json!({})).await;
    assert_eq!(moment.all_policies().await.unwrap().len(), 1);
    assert_eq!(moment.all_nodes_labels().await.unwrap().len(), 2);
    drop(moment);
    assert_eq!(lab.db.moment().await.unwrap().all_nodes_labels().await.unwrap().len(), 3);
}
