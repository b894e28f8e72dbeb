//! Whose work is in the binaries, and under which licences: what has to go with them.

use super::binaries::BINARIES;
use crate::process::capture;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// How deep below a crate's directory licences are looked for: libbpf's is two down.
const DEPTH: usize = 2;

/// Lists the crates that the binaries are linked from, with the texts of their licences.
pub(super) fn collect(workspace: &Workspace) -> Result<String> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = workspace.cargo("metadata");
    let text =
        capture(cargo.args(["--locked", "--format-version=1", "--filter-platform", &platform]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is no JSON")?;
    let roots: Vec<_> = BINARIES.iter().map(|binary| binary.package).collect();
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut list = String::new();
    for package in linked(&metadata, &roots)? {
        let field = |key: &str| package[key].as_str().unwrap_or("unknown");
        let name = format!("{} {}", field("name"), field("version"));
        writeln!(list, "{name}: {}", field("license"))?;
        let directory =
            Path::new(field("manifest_path")).parent().context("a manifest has a directory")?;
        for text in licences(directory, DEPTH)? {
            texts.entry(text).or_default().insert(name.clone());
        }
    }
    let mut all = format!(
        "The binaries of Pointsman hold work of other authors: of these crates of crates.io, each\n\
         under the licence named. The texts that the crates bring follow.\n\n{list}"
    );
    for (text, names) in texts {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        write!(all, "\n{:=<80}\nOf {names}:\n\n{}\n", "", text.trim())?;
    }
    Ok(all)
}

/// The packages of others that the roots are linked from, by name.
fn linked<'a>(metadata: &'a Value, roots: &[&str]) -> Result<Vec<&'a Value>> {
    let list = |value: &'a Value| value.as_array().map_or(&[][..], Vec::as_slice);
    let packages: BTreeMap<_, _> = list(&metadata["packages"])
        .iter()
        .map(|package| (package["id"].as_str(), package))
        .collect();
    let nodes: BTreeMap<_, _> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (node["id"].as_str(), node))
        .collect();
    let is_root = |package: &Value| {
        package["source"].is_null() && roots.iter().any(|root| package["name"] == *root)
    };
    let mut open: Vec<_> =
        packages.iter().filter(|(_, package)| is_root(package)).map(|(id, _)| *id).collect();
    if open.len() != roots.len() {
        bail!("cargo metadata lacks one of {roots:?}");
    }
    let mut seen: BTreeSet<_> = open.iter().copied().collect();
    while let Some(id) = open.pop() {
        let node = nodes.get(&id).with_context(|| format!("cargo metadata resolves no {id:?}"))?;
        for dependency in list(&node["deps"]) {
            // Neither what tests nor what build scripts need is in the binary.
            let is_linked =
                list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let id = dependency["pkg"].as_str();
            if is_linked && seen.insert(id) {
                open.push(id);
            }
        }
    }
    let mut found: Vec<_> = seen
        .iter()
        .filter_map(|id| packages.get(id).copied())
        .filter(|package| !package["source"].is_null())
        .collect();
    found.sort_by_key(|package| (package["name"].as_str(), package["version"].as_str()));
    Ok(found)
}

/// The texts of the licences in a directory.
fn licences(directory: &Path, depth: usize) -> Result<Vec<String>> {
    let told = || format!("cannot read {}", directory.display());
    let mut entries = fs::read_dir(directory)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(told)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut texts = Vec::new();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let is_text = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"]
            .iter()
            .any(|start| name.starts_with(start));
        let kind = entry.file_type().with_context(told)?;
        if kind.is_dir() && depth > 0 {
            texts.extend(licences(&entry.path(), depth - 1)?);
        } else if kind.is_file() && is_text {
            let bytes = fs::read(entry.path()).with_context(told)?;
            texts.push(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_or_tests_is_not() {
        let package = |name: &str, source: Option<&str>| json!({"id": name, "name": name, "version": "1.0.0", "source": source});
        let kinds = |kind: &[Option<&str>]| {
            kind.iter().map(|kind| json!({"kind": kind})).collect::<Vec<_>>()
        };
        let metadata = json!({
            "packages": [package("ours", None), package("lib", None), package("used", Some("r")),
                         package("both", Some("r")), package("tests", Some("r")), package("build", Some("r"))],
            "resolve": {"nodes": [
                {"id": "ours", "deps": [
                    {"pkg": "lib", "dep_kinds": kinds(&[None])},
                    {"pkg": "tests", "dep_kinds": kinds(&[Some("dev")])},
                    {"pkg": "both", "dep_kinds": kinds(&[Some("dev"), None])}]},
                {"id": "lib", "deps": [
                    {"pkg": "used", "dep_kinds": kinds(&[None])},
                    {"pkg": "build", "dep_kinds": kinds(&[Some("build")])}]},
                {"id": "used", "deps": []}, {"id": "both", "deps": []}]}});
        let found = linked(&metadata, &["ours"]).unwrap();
        let names: Vec<_> = found.iter().filter_map(|package| package["name"].as_str()).collect();
        assert_eq!(names, ["both", "used"]);
        assert!(linked(&metadata, &["gone"]).unwrap_err().to_string().contains("gone"));
    }

    #[test]
    fn licences_are_found_by_their_names() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in
            [("LICENSE-MIT", "one\r\n"), ("lib.rs", "no"), ("c/lib/LICENSE.BSD", "two")]
        {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(licences(directory.path(), DEPTH).unwrap(), ["one\n", "two"]);
        assert_eq!(licences(directory.path(), 0).unwrap(), ["one\n"]);
    }
}
