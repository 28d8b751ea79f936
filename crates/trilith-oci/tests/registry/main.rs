//! The registry client against a real registry and against servers that misbehave.

// The configuration allows it in test functions only, not in what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod auth;
mod blobs;
mod docker_registry;
mod manifests;
mod real;
mod referrers;
mod server;
mod uploads;

use std::error::Error as StdError;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use trilith_core::Digest;
use trilith_oci::media_type::OCI_MANIFEST;
use trilith_oci::registry::{
    CredentialSource, RegistryClient, RegistryConfig, RegistryRepository, RetryPolicy, Timeouts,
};
use trilith_oci::{BlobStream, Descriptor, Error, Name, RawManifest};

use server::Server;

/// Three attempts with hardly a pause between them.
fn config() -> RegistryConfig {
    RegistryConfig {
        retry: RetryPolicy {
            attempts: 3,
            base_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(2),
            ..RetryPolicy::default()
        },
        ..RegistryConfig::default()
    }
}

/// Two attempts, and little patience with servers that never answer.
fn impatient() -> RegistryConfig {
    let config = config();
    RegistryConfig {
        retry: RetryPolicy {
            attempts: 2,
            ..config.retry
        },
        timeouts: Timeouts {
            answer: Duration::from_secs(1),
            stall: Duration::from_millis(200),
            commit: Duration::from_millis(200),
            ..Timeouts::default()
        },
        ..config
    }
}

fn client(config: RegistryConfig) -> RegistryClient {
    RegistryClient::try_new(config).unwrap()
}

fn repository(server: &Server, config: RegistryConfig) -> RegistryRepository {
    client(config)
        .repository(&server.repository("a/b"))
        .unwrap()
}

/// A new file in `directory` with the credential `entry` for `registry`.
fn credentials(directory: &Path, registry: &str, entry: &str) -> CredentialSource {
    let file = tempfile::Builder::new().tempfile_in(directory).unwrap();
    let (_, path) = file.keep().unwrap();
    let content = format!(r#"{{"auths": {{"{registry}": {{{entry}}}}}}}"#);
    std::fs::write(&path, content).unwrap();
    CredentialSource::Files(vec![path])
}

const PASSWORD: &str = r#""username": "user", "password": "hunter2""#;

fn tag(name: &str) -> Name {
    Name::Tag(name.parse().unwrap())
}

fn manifest(content: &str) -> RawManifest {
    RawManifest {
        descriptor: Descriptor::of(OCI_MANIFEST, content.as_bytes()),
        bytes: Bytes::copy_from_slice(content.as_bytes()),
    }
}

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn blob(content: &[u8]) -> Descriptor {
    Descriptor::of("application/octet-stream", content)
}

async fn content(stream: BlobStream) -> Result<Vec<u8>, Error> {
    stream
        .try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

/// The message with those of its sources.
fn chain(error: &dyn StdError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}
