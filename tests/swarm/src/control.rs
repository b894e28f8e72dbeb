//! The control plane, as its administrator sees it.

use anyhow::{Context as _, Result, bail, ensure};
use pointsman_model::fleet::{PublishReport, PublishRequest};
use reqwest::{Client, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use url::Url;

/// A running control plane. Killed when dropped, with all that it kept.
#[derive(Debug)]
pub(crate) struct Control {
    child: Child,
    pub(crate) url: Url,
    token: String,
    http: Client,
    directory: TempDir,
}

impl Control {
    /// Starts one and waits until it listens.
    pub(crate) fn start(program: &Path, database: Option<&str>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pointsman-swarm-").tempdir()?;
        let log = File::create(directory.path().join("log"))?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--fleet", "swarm"])
            .args(["--log-format", "json"])
            .args(["--state-dir".as_ref(), directory.path().join("state").as_os_str()])
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(database) = database {
            command.env("POINTSMAN_DATABASE", database);
        }
        let mut child = command.spawn().context("start the control plane")?;
        let output = child.stdout.take().context("a pipe")?;
        let (mut token, mut url) = (None, None);
        for line in BufReader::new(output).lines() {
            let line: Value = serde_json::from_str(&line?).unwrap_or_default();
            token = token.or_else(|| line["admin_token"].as_str().map(str::to_owned));
            url = url.or_else(|| line["listening"].as_str().map(str::to_owned));
            if url.is_some() {
                break;
            }
        }
        let (Some(token), Some(url)) = (token, url) else {
            let _ = child.kill();
            let _ = child.wait();
            let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            bail!("the control plane does not start:\n{log}");
        };
        let http = Client::builder().no_proxy().build()?;
        let url = Url::parse(&url)?;
        Ok(Self { child, url, token, http, directory })
    }

    /// Asks for something and reads the answer.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let request = self.http.request(method, self.url.join(path)?).bearer_auth(&self.token);
        let response = request.json(body).send().await?;
        let status = response.status();
        let text = response.bytes().await?;
        ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&text));
        Ok(serde_json::from_slice(&text)?)
    }

    /// What is at a path.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let request = self.http.get(self.url.join(path)?).bearer_auth(&self.token);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// Makes or replaces a policy.
    pub(crate) async fn put_policy(&self, name: &str, spec: &Value) -> Result<()> {
        let url = self.url.join(&format!("v1/policies/{name}"))?;
        let there = self.http.get(url.clone()).bearer_auth(&self.token).send().await?;
        let tag = there.headers().get("etag").cloned();
        let request = self.http.put(url).bearer_auth(&self.token).json(spec);
        let request = match (there.status(), tag) {
            (StatusCode::NOT_FOUND, _) => request.header("if-none-match", "*"),
            (_, Some(tag)) => request.header("if-match", tag),
            (status, None) => bail!("policy {name}: {status}"),
        };
        let response = request.send().await?;
        let status = response.status();
        ensure!(status.is_success(), "policy {name}: {status} {}", response.text().await?);
        Ok(())
    }

    pub(crate) async fn publish(&self) -> Result<PublishReport> {
        self.ask(Method::POST, "v1/publish", &PublishRequest::default()).await
    }

    /// Its resident memory, in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        self.memory("VmRSS:")
    }

    /// The most that it ever had resident, in MiB.
    pub(crate) fn peak(&self) -> Result<f64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, line: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let found = status.lines().find_map(|text| text.strip_prefix(line));
        let kib = found.and_then(|text| text.trim().strip_suffix(" kB"));
        let kib: f64 = kib.with_context(|| format!("no {line}"))?.parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = &self.directory;
    }
}
