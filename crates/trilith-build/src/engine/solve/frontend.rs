//! What the Dockerfile frontend is told of a build.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry, SolveRequest};

use super::cache::Caches;
use super::files::DOCKERFILE_NAME;
use crate::engine::{BuildRequest, CacheEntry, Network};

/// The frontend that is built into BuildKit.
const FRONTEND: &str = "dockerfile.v0";

/// Returns the request to build `request` with `caches`, without a session and an exporter.
pub(super) fn solve_request(request: &BuildRequest<'_>, caches: &Caches) -> SolveRequest {
    SolveRequest {
        frontend: FRONTEND.to_owned(),
        frontend_attrs: attributes(request, caches),
        entitlements: match request.network {
            // BuildKit wants to hear it twice.
            Network::Host => vec!["network.host".to_owned()],
            Network::Default | Network::None => Vec::new(),
        },
        cache: Some(CacheOptions {
            exports: entries(&caches.to),
            imports: entries(&caches.from),
            ..CacheOptions::default()
        }),
        ..SolveRequest::default()
    }
}

fn attributes(request: &BuildRequest<'_>, caches: &Caches) -> HashMap<String, String> {
    let mut attributes = HashMap::from([
        ("filename".to_owned(), DOCKERFILE_NAME.to_owned()),
        ("platform".to_owned(), request.platform.to_string()),
    ]);
    let mut set = |name: String, value: String| {
        attributes.insert(name, value);
    };
    if let Some(target) = request.target {
        set("target".to_owned(), target.to_owned());
    }
    for (name, value) in request.args {
        set(format!("build-arg:{name}"), value.clone());
    }
    for (name, value) in request.labels {
        set(format!("label:{name}"), value.clone());
    }
    for context in request.named_contexts {
        let image = format!("docker-image://{}", context.image);
        set(format!("context:{}", context.stage), image);
    }
    if !request.extra_hosts.is_empty() {
        let hosts = request.extra_hosts.iter();
        let hosts: Vec<String> = hosts.map(|(name, ip)| format!("{name}={ip}")).collect();
        set("add-hosts".to_owned(), hosts.join(","));
    }
    match request.network {
        Network::Default => {}
        Network::None => set("force-network-mode".to_owned(), "none".to_owned()),
        Network::Host => set("force-network-mode".to_owned(), "host".to_owned()),
    }
    if request.no_cache {
        // Empty: all stages.
        set("no-cache".to_owned(), String::new());
    }
    // Where images are in containerd, a registry would go before what the engine has.
    let resolved = if request.pull { "pull" } else { "local" };
    set("image-resolve-mode".to_owned(), resolved.to_owned());
    if !caches.from.is_empty() {
        set("cache-imports".to_owned(), json(&caches.from));
    }
    attributes
}

/// Returns the entries as the frontend reads them.
fn json(entries: &[CacheEntry]) -> String {
    let entries = entries
        .iter()
        .map(|entry| serde_json::json!({ "Type": entry.kind, "Attrs": entry.options }));
    entries.collect::<serde_json::Value>().to_string()
}

fn entries(entries: &[CacheEntry]) -> Vec<CacheOptionsEntry> {
    let entries = entries.iter().map(|entry| CacheOptionsEntry {
        r#type: entry.kind.clone(),
        attrs: entry.options.clone().into_iter().collect(),
    });
    entries.collect()
}
