//! The policy for dependencies, written down in `[workspace.metadata.dependencies]` of the root manifest.
//!
//! - `licenses`: a package needs a licence that can be met with these;
//! - `banned`: packages that must not come in, each with the reason;
//! - `duplicates`: packages that may come in several versions, each with the reason;
//! - `order`: our crates, each of which may use only those before it.
//!
//! Everything comes from crates.io. Development dependencies count; other platforms than
//! Linux on x86-64 do not. Advisories are not looked up: their database is no package.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::run::{Outcome, cargo, show};
use crate::spdx;

/// How cargo names crates.io.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Returns the target directory.
pub(crate) fn target_dir() -> Outcome<PathBuf> {
    let metadata = load_metadata(&["--no-deps"])?;
    let path = metadata["target_directory"].as_str();
    path.map(PathBuf::from)
        .ok_or_else(|| "`cargo metadata` names no target directory".to_owned())
}

/// Checks all packages against the policy and reports every breach.
pub(crate) fn check() -> Outcome {
    let metadata = load_metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"])?;
    let breaches = find_breaches(&metadata);
    if breaches.is_empty() {
        println!(
            "{} packages follow the policy",
            used_packages(&metadata).len()
        );
        return Ok(());
    }
    Err(breaches.join("\nerror: "))
}

fn load_metadata(arguments: &[&str]) -> Outcome<Value> {
    let mut command = cargo();
    command
        .args(["metadata", "--format-version=1", "--locked"])
        .args(arguments)
        .stderr(Stdio::inherit());
    let output = command.output();
    let fail = |reason: String| format!("`{}` failed: {reason}", show(&command));
    let output = output.map_err(|error| fail(error.to_string()))?;
    if !output.status.success() {
        return Err(fail(output.status.to_string()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| fail(error.to_string()))
}

/// Returns one line for each breach of the policy.
fn find_breaches(metadata: &Value) -> Vec<String> {
    let policy = &metadata["metadata"]["dependencies"];
    let packages = used_packages(metadata);
    let mut breaches = Vec::new();
    breaches.extend(licence_breaches(policy, &packages));
    breaches.extend(origin_breaches(policy, &packages));
    breaches.extend(duplicate_breaches(policy, &packages));
    breaches.extend(order_breaches(policy, &packages));
    breaches
}

/// Returns the packages that the workspace is made of on this platform.
fn used_packages(metadata: &Value) -> Vec<&Value> {
    let nodes = items(&metadata["resolve"]["nodes"]);
    let used: BTreeSet<&str> = nodes.filter_map(|node| node["id"].as_str()).collect();
    let packages = items(&metadata["packages"]);
    packages
        .filter(|package| used.contains(text(&package["id"])))
        .collect()
}

fn licence_breaches(policy: &Value, packages: &[&Value]) -> Vec<String> {
    let allowed: Vec<&str> = items(&policy["licenses"]).map(text).collect();
    let refused = packages
        .iter()
        .filter(|package| !spdx::is_allowed(text(&package["license"]), &allowed));
    let line = |package: &&Value| {
        let license = package["license"].as_str().unwrap_or("no licence");
        format!(
            "`{}` has {license}, which `licenses` does not allow",
            title(package)
        )
    };
    refused.map(line).collect()
}

fn origin_breaches(policy: &Value, packages: &[&Value]) -> Vec<String> {
    let mut breaches = Vec::new();
    for package in packages {
        if let Some(source) = package["source"]
            .as_str()
            .filter(|source| *source != CRATES_IO)
        {
            breaches.push(format!("`{}` comes from `{source}`", title(package)));
        }
        if let Some(reason) = policy["banned"][text(&package["name"])].as_str() {
            breaches.push(format!("`{}` is banned: {reason}", title(package)));
        }
    }
    breaches
}

fn duplicate_breaches(policy: &Value, packages: &[&Value]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let list = versions.entry(text(&package["name"])).or_default();
        list.push(text(&package["version"]));
    }
    let explained = &policy["duplicates"];
    let mut breaches = Vec::new();
    for (name, list) in &versions {
        if list.len() > 1 && explained[name].as_str().is_none() {
            let list = list.join(", ");
            breaches.push(format!(
                "`{name}` comes in versions {list}, which `duplicates` does not explain"
            ));
        }
    }
    for name in explained
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
    {
        if versions
            .get(name.as_str())
            .is_none_or(|list| list.len() < 2)
        {
            breaches.push(format!(
                "`duplicates` explains `{name}`, which comes in one version or none"
            ));
        }
    }
    breaches
}

fn order_breaches(policy: &Value, packages: &[&Value]) -> Vec<String> {
    let order: Vec<&str> = items(&policy["order"]).map(text).collect();
    let place = |name: &str| order.iter().position(|other| *other == name);
    let mut breaches = Vec::new();
    for package in packages {
        let Some(own) = place(text(&package["name"])) else {
            continue;
        };
        for dependency in items(&package["dependencies"]) {
            let name = text(&dependency["name"]);
            if place(name).is_some_and(|other| other >= own) {
                breaches.push(format!("`{}` may not use `{name}`", title(package)));
            }
        }
    }
    breaches
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn title(package: &Value) -> String {
    format!("{} {}", text(&package["name"]), text(&package["version"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, version: &str, license: &str, source: &str, uses: &[&str]) -> Value {
        let dependencies: Vec<Value> = uses.iter().map(|name| json!({"name": name})).collect();
        let source = (!source.is_empty()).then_some(source);
        json!({"id": format!("{name}@{version}"), "name": name, "version": version,
            "license": license, "source": source, "dependencies": dependencies})
    }

    #[test]
    fn every_breach_is_found() {
        let packages = [
            package("core", "1.0.0", "MIT", "", &["oci", "log"]),
            package("oci", "1.0.0", "MIT", "", &["core"]),
            package("log", "0.4.1", "MIT OR Apache-2.0", CRATES_IO, &[]),
            package("log", "0.3.9", "GPL-3.0-only", CRATES_IO, &[]),
            package("rand", "0.8.0", "MIT", CRATES_IO, &[]),
            package("rand", "0.9.0", "MIT", CRATES_IO, &[]),
            package(
                "openssl-sys",
                "1.0.0",
                "MIT",
                "git+https://example.org/o",
                &[],
            ),
            package("unused", "1.0.0", "", "elsewhere", &[]),
        ];
        let used = packages
            .iter()
            .filter(|package| package["name"] != "unused");
        let nodes: Vec<Value> = used.map(|package| json!({"id": package["id"]})).collect();
        let metadata = json!({
            "packages": packages,
            "resolve": {"nodes": nodes},
            "metadata": {"dependencies": {
                "licenses": ["MIT"],
                "banned": {"openssl-sys": "TLS is rustls"},
                "duplicates": {"rand": "two generations", "syn": "no longer true"},
                "order": ["core", "oci"],
            }},
        });
        assert_eq!(
            find_breaches(&metadata),
            [
                "`log 0.3.9` has GPL-3.0-only, which `licenses` does not allow",
                "`openssl-sys 1.0.0` comes from `git+https://example.org/o`",
                "`openssl-sys 1.0.0` is banned: TLS is rustls",
                "`log` comes in versions 0.4.1, 0.3.9, which `duplicates` does not explain",
                "`duplicates` explains `syn`, which comes in one version or none",
                "`core 1.0.0` may not use `oci`",
            ]
        );
    }
}
