//! Simulated nodes: for each the courier's real code, and a daemon without a host.

use crate::control::Control;
use crate::daemon::Daemon;
use crate::figures::Figures;
use anyhow::{Context as _, Result, bail, ensure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use pointsman_courier::source::{Blobs, Client, ClientOptions, HttpBlobs, Sources, Traffic, Web};
use pointsman_courier::{
    Config, Courier, HttpControl, MemorySink, Outcome, Reporter, Secret, Trust,
};
use pointsman_model::fleet::{EnrolReply, EnrolRequest, Enrolment, PublishReport};
use pointsman_snapshot::keys::PublicKey;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How often a courier asks, as it says in its reports.
const INTERVAL: Duration = Duration::from_secs(10);

/// How many entries the policy's map has: a document of about 4 KB.
const ENTRIES: u32 = 90;

/// All of them.
pub(crate) struct Fleet<'a> {
    control: &'a Control,
    nodes: Vec<Node>,
    traffic: Traffic,
    at_once: usize,
    edition: u32,
}

struct Node {
    courier: Courier<Sources, MemorySink>,
    reporter: Reporter<Daemon, HttpControl>,
    daemon: Daemon,
}

/// A publish, and how long it took.
pub(crate) struct Published {
    report: PublishReport,
}

impl Published {
    pub(crate) fn written_mib(&self) -> f64 {
        let written = self.report.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes_written);
        written as f64 / f64::from(1 << 20)
    }
}

fn name(number: u32) -> String {
    format!("node-{number}")
}

impl<'a> Fleet<'a> {
    /// Enrols nodes: invites each and trades its token.
    pub(crate) async fn enrol(control: &'a Control, nodes: u32, at_once: usize) -> Result<Self> {
        let traffic = Traffic::default();
        let client = Client::new(&ClientOptions::default())?;
        let enrol = |number: u32| {
            let (client, traffic) = (client.clone(), traffic.clone());
            async move {
                let wanted = json!({"node": name(number), "labels": {"role": "edge"}});
                let invited: Enrolment =
                    control.ask(Method::POST, "v1/enrolments", &wanted).await?;
                let request = EnrolRequest { token: invited.token };
                let reply: EnrolReply = control.ask(Method::POST, "v1/enrol", &request).await?;
                node(control, &client, &traffic, reply)
            }
        };
        let nodes = stream::iter(0..nodes).map(enrol).buffered(at_once).try_collect().await?;
        Ok(Self { control, nodes, traffic, at_once, edition: 0 })
    }

    /// What all run, and what the first one runs beside.
    pub(crate) async fn first_policies(&mut self) -> Result<()> {
        self.control.put_policy("all", &policy(&json!({"all": true}), 0)).await?;
        self.put_of_first().await
    }

    async fn put_of_first(&mut self) -> Result<()> {
        self.edition += 1;
        let spec = json!({"selector": {"nodes": [name(0)]}, "interface": "eth0", "chain": [
            {"program": "builtin:counting-pass", "name": "meter", "priority": self.edition}]});
        self.control.put_policy("of-first", &spec).await
    }

    /// Publishes what was changed.
    pub(crate) async fn publish_new(
        &mut self,
        figures: &mut Figures,
        what: &str,
    ) -> Result<Published> {
        let started = Instant::now();
        let report = self.control.publish().await?;
        figures.tell(what, "s", &[started.elapsed().as_secs_f64()]);
        ensure!(report.snapshot.is_some(), "nothing was published");
        Ok(Published { report })
    }

    /// The size of a node's document.
    pub(crate) async fn document_bytes(&self) -> Result<usize> {
        let last = self.nodes.len().saturating_sub(1);
        let path = format!("v1/nodes/{}/document", name(u32::try_from(last)?));
        let document: Value = self.control.get(&path).await?;
        Ok(document.to_string().len())
    }

    /// Every node polls until it has handed over what is published: only `changed` of them, where
    /// that is given.
    pub(crate) async fn fetch(
        &mut self,
        figures: &mut Figures,
        what: &str,
        changed: Option<usize>,
    ) -> Result<()> {
        let before = self.traffic.counted();
        let started = Instant::now();
        let polls = stream::iter(&mut self.nodes).map(|node| async {
            loop {
                match node.courier.poll_once().await? {
                    Outcome::HandedOver { .. } => return Ok(1),
                    Outcome::Unchanged | Outcome::NothingNew => return Ok(0),
                    Outcome::Fetching { .. } => {}
                    other => bail!("a courier: {other:?}"),
                }
            }
        });
        let handed: Vec<usize> = polls.buffer_unordered(self.at_once).try_collect().await?;
        let took = started.elapsed().as_secs_f64();
        let handed: usize = handed.into_iter().sum();
        let wanted = changed.unwrap_or(self.nodes.len());
        ensure!(handed == wanted, "{handed} nodes took something, not {wanted}");
        let after = self.traffic.counted();
        let each = |count: u64| count as f64 / self.nodes.len() as f64;
        figures.tell(what, "s", &[took]);
        figures.tell("  requests a node", "", &[each(after.requests - before.requests)]);
        figures.tell("  bytes a node", "B", &[each(after.bytes - before.bytes)]);
        for node in &self.nodes {
            let generation = node.courier.status().handed_over;
            node.daemon.takes(generation);
        }
        Ok(())
    }

    /// Changes that are for all nodes.
    pub(crate) async fn change_all(&mut self, figures: &mut Figures, rounds: u32) -> Result<()> {
        let mut took = Vec::new();
        let mut written = 0.0;
        for round in 1..=rounds {
            self.control.put_policy("all", &policy(&json!({"all": true}), round)).await?;
            let started = Instant::now();
            let published = Published { report: self.control.publish().await? };
            took.push(started.elapsed().as_secs_f64());
            written = published.written_mib();
        }
        figures.tell("publish, all nodes change", "s", &took);
        figures.tell("  written", "MiB", &[written]);
        self.fetch(figures, "all nodes fetch a change", None).await
    }

    /// Changes that are for one node.
    pub(crate) async fn change_one(&mut self, figures: &mut Figures, rounds: u32) -> Result<()> {
        let mut took = Vec::new();
        let mut written = 0.0;
        for _ in 0..rounds {
            self.put_of_first().await?;
            let started = Instant::now();
            let published = Published { report: self.control.publish().await? };
            took.push(started.elapsed().as_secs_f64() * 1000.0);
            written = published.written_mib();
        }
        figures.tell("publish, one node changes", "ms", &took);
        figures.tell("  written", "MiB", &[written]);
        let before = self.traffic.counted();
        let first = self.nodes.first_mut().context("there are nodes")?;
        let Outcome::HandedOver { .. } = first.courier.poll_once().await? else {
            bail!("the node that changed takes nothing");
        };
        let after = self.traffic.counted();
        let (requests, bytes) = (after.requests - before.requests, after.bytes - before.bytes);
        figures.tell("  requests of the node that changed", "", &[requests as f64]);
        figures.tell("  bytes of the node that changed", "B", &[bytes as f64]);
        self.fetch(figures, "all nodes find nothing for them in it", Some(0)).await
    }

    /// Polls that find nothing new.
    pub(crate) async fn look(&mut self, figures: &mut Figures) -> Result<()> {
        let started = Instant::now();
        let nodes = self.nodes.len() as f64;
        self.fetch(figures, "all nodes ask, and nothing is new", Some(0)).await?;
        figures.tell("  polls", "1/s", &[nodes / started.elapsed().as_secs_f64()]);
        Ok(())
    }

    /// Reports of all nodes: whole ones, then with new counters, then with nothing new.
    pub(crate) async fn report(&mut self, figures: &mut Figures) -> Result<()> {
        self.reports(figures, "reports: all of it").await?;
        self.reports(figures, "reports: new counters").await?;
        for node in &self.nodes {
            node.daemon.rests();
        }
        self.reports(figures, "reports: nothing new").await?;
        let well: Value = self.control.get("v1/nodes?health=well&limit=1000").await?;
        let well = well["items"].as_array().map_or(0, Vec::len);
        let expected = self.nodes.len().min(1000);
        ensure!(well == expected, "{well} of {expected} nodes are well");
        Ok(())
    }

    async fn reports(&mut self, figures: &mut Figures, what: &str) -> Result<()> {
        let started = Instant::now();
        let nodes = self.nodes.len() as f64;
        let reports = stream::iter(&mut self.nodes).map(|node| async {
            let reported = node.reporter.report_once(node.courier.status()).await;
            reported.control.map_err(anyhow::Error::from)
        });
        reports.buffer_unordered(self.at_once).try_collect::<Vec<()>>().await?;
        figures.tell(what, "1/s", &[nodes / started.elapsed().as_secs_f64()]);
        Ok(())
    }
}

fn node(control: &Control, client: &Client, traffic: &Traffic, reply: EnrolReply) -> Result<Node> {
    let EnrolReply { fleet, node, credential, public_key, source: _ } = reply;
    let key = PublicKey::from_base64(&public_key)?;
    let credential = Secret::new(credential);
    let daemon = Daemon::new(node.as_str());
    let trust = Trust::Key(Box::new(key));
    let config = Config { fleet, node, trust, interval: INTERVAL };
    let blobs = control.url.join("blobs/")?;
    let blobs = HttpBlobs::new(client.clone(), blobs, Some(credential.clone()), traffic.clone());
    let source = Sources::new(Blobs::Http(blobs), Web::new(client.clone(), traffic.clone()));
    Ok(Node {
        courier: Courier::new(config, source, MemorySink::default()),
        reporter: Reporter::new(
            daemon.clone(),
            HttpControl::new(client.clone(), control.url.clone(), credential),
        ),
        daemon,
    })
}

/// A policy that makes a document of about 4 KB. Each round's differs from the one before.
fn policy(selector: &Value, round: u32) -> Value {
    let entries: Vec<_> =
        (0..ENTRIES).map(|at| json!({"key": 20_000 + round + at, "value": 1})).collect();
    json!({"selector": selector, "interface": "eth0", "chain": [
        {"program": "builtin:udp-port-filter", "name": "ports", "priority": 1_000_000,
         "maps": {"ports": {"entries": entries}}}]})
}
