//! Referrers: the manifests that say they are about another (`subject`).
//!
//! A registry of version 1.1 keeps the list; for others it is an index under a tag made
//! from the subject's digest (distribution specification, "Referrers Tag Schema"). Nothing
//! is ever taken off such a list here.

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use trilith_core::{Digest, Tag};

use super::exchange::{Answer, Body, Call};
use super::manifests::{self, essence};
use super::repository::RegistryRepository;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::media_type::OCI_INDEX;
use crate::store::{MAX_MANIFEST_SIZE, Name, RawManifest};

/// The most pages of a list that are read.
const MAX_PAGES: usize = 100;
/// How often a list is written anew because another process wrote it at the same time.
const MAX_ROUNDS: usize = 5;
/// The longest encoded part of a digest in a referrers tag.
const MAX_ENCODED: usize = 64;

/// Returns the referrers of `digest` with `artifact_type`.
pub(crate) async fn list(
    repository: &RegistryRepository,
    digest: &Digest,
    artifact_type: &str,
) -> Result<Vec<Descriptor>, Error> {
    let found = match from_api(repository, digest, artifact_type).await? {
        Some(found) => found,
        None => match load(repository, digest).await? {
            Some(list) => parse(list.bytes.as_ref(), &object(repository, digest))?.manifests,
            None => Vec::new(),
        },
    };
    // A registry need not filter, and says so only in a header.
    Ok(found
        .into_iter()
        .filter(|descriptor| descriptor.artifact_type.as_deref() == Some(artifact_type))
        .collect())
}

fn object(repository: &RegistryRepository, digest: &Digest) -> String {
    format!("the list of referrers of `{}@{digest}`", repository.name())
}

/// Returns the list the registry keeps; `None` where it keeps none.
async fn from_api(
    repository: &RegistryRepository,
    digest: &Digest,
    artifact_type: &str,
) -> Result<Option<Vec<Descriptor>>, Error> {
    let mut call = repository.call(Method::GET, &format!("referrers/{digest}"));
    call.url
        .query_pairs_mut()
        .append_pair("artifactType", artifact_type);
    call.headers
        .insert(ACCEPT, HeaderValue::from_static(OCI_INDEX));
    call.limit = MAX_MANIFEST_SIZE;
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let answer = repository.perform(&call).await?;
        if !keeps_referrers(&answer) {
            return match answer.status {
                // Before the API there were as many ways to say no as registries.
                StatusCode::NOT_FOUND
                | StatusCode::BAD_REQUEST
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::NOT_ACCEPTABLE
                | StatusCode::NOT_IMPLEMENTED
                | StatusCode::OK => Ok(None),
                _ => Err(answer.refused().into()),
            };
        }
        let object = object(repository, digest);
        let Body::Whole(bytes) = &answer.body else {
            return Err(Error::ManifestTooLarge { object });
        };
        found.extend(parse(bytes, &object)?.manifests);
        match next_page(repository, &answer, &call)? {
            Some(next) => call = next,
            None => return Ok(Some(found)),
        }
    }
    Err(Error::Malformed {
        object: object(repository, digest),
        reason: format!("it has more than {MAX_PAGES} pages"),
    })
}

/// Some registries answer 200 with a page for people.
fn keeps_referrers(answer: &Answer) -> bool {
    let media_type = answer.header(CONTENT_TYPE.as_str()).map(essence);
    answer.status == StatusCode::OK && media_type.as_deref() == Some(OCI_INDEX)
}

/// Returns the call for the next page (RFC 8288, `rel="next"`).
pub(crate) fn next_page(
    repository: &RegistryRepository,
    answer: &Answer,
    call: &Call,
) -> Result<Option<Call>, Error> {
    let Some(link) = answer.header("link").and_then(next_link) else {
        return Ok(None);
    };
    let endpoints = repository.client().endpoints();
    let url = endpoints
        .follow(&answer.url, link)
        .map_err(|reason| answer.nonsense(format!("its next page cannot be followed: {reason}")))?;
    Ok(Some(Call {
        url,
        ..call.clone()
    }))
}

fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some(start) = rest.find('<') {
        let (target, parameters) = rest[start + 1..].split_once('>')?;
        let end = parameters.find('<').unwrap_or(parameters.len());
        let is_next = parameters[..end].split([';', ',']).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
            })
        });
        if is_next {
            return Some(target);
        }
        rest = &parameters[end..];
    }
    None
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

fn parse(bytes: &[u8], object: &str) -> Result<List, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Malformed {
        object: object.to_owned(),
        reason: error.to_string(),
    })
}

/// Returns the tag that holds the referrers of `digest`, `sha256-<hex>`.
pub(crate) fn tag_of(digest: &Digest) -> Result<Tag, Error> {
    let encoded = digest.hex();
    let encoded = &encoded[..encoded.len().min(MAX_ENCODED)];
    let text = format!("{}-{encoded}", digest.algorithm().as_str());
    text.parse().map_err(|error| Error::Malformed {
        object: format!("referrers tag `{text}`"),
        reason: format!("{error}"),
    })
}

/// Returns the index under the referrers tag of `digest`.
async fn load(
    repository: &RegistryRepository,
    digest: &Digest,
) -> Result<Option<RawManifest>, Error> {
    let name = Name::Tag(tag_of(digest)?);
    let list = manifests::fetch(repository, &name).await?;
    // GitLab reads `sha256-<hex>` as the digest and answers with the subject itself.
    let Some(list) = list.filter(|list| list.descriptor.digest != *digest) else {
        return Ok(None);
    };
    if list.descriptor.media_type != OCI_INDEX {
        return Err(Error::Malformed {
            object: object(repository, digest),
            reason: format!(
                "its tag holds `{}` instead of an index",
                list.descriptor.media_type
            ),
        });
    }
    Ok(Some(list))
}

/// What of a manifest goes into a list of referrers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    config: Option<Typed>,
    #[serde(default)]
    annotations: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

/// Adds `manifest` to the list under its subject's referrers tag; does nothing where it has no subject.
///
/// The registry offers no way to change a tag only if it is still what it was, so the list
/// is read again after it was written, and written again where another process overwrote it.
pub(crate) async fn register(
    repository: &RegistryRepository,
    manifest: &RawManifest,
) -> Result<(), Error> {
    let malformed = |error: serde_json::Error| Error::Malformed {
        object: format!("manifest `{}`", manifest.descriptor.digest),
        reason: error.to_string(),
    };
    let referrer: Referrer = serde_json::from_slice(&manifest.bytes).map_err(malformed)?;
    let Some(subject) = &referrer.subject else {
        return Ok(());
    };
    let digest = &subject.digest;
    let entry = entry(manifest, &referrer);
    let tag = tag_of(digest)?;
    let _turn = repository.host().referrers_turn(digest).await;
    for _ in 0..MAX_ROUNDS {
        let list = load(repository, digest).await?;
        let Some(changed) = with_entry(list.as_ref(), &entry, &object(repository, digest))? else {
            return Ok(());
        };
        manifests::put(repository, &Name::Tag(tag.clone()), &changed).await?;
        // Of an image that had no list nobody else knows yet but who made the same, with the
        // same entry.
        if list.is_none() {
            return Ok(());
        }
    }
    Err(Error::Malformed {
        object: object(repository, digest),
        reason: "it was overwritten again and again while an entry was added".to_owned(),
    })
}

/// Returns the descriptor of `manifest` as lists of referrers hold it (distribution
/// specification, "Pushing Manifests with Subject").
fn entry(manifest: &RawManifest, referrer: &Referrer) -> Value {
    let descriptor = &manifest.descriptor;
    let artifact_type = referrer
        .artifact_type
        .as_ref()
        .filter(|artifact_type| !artifact_type.is_empty())
        .or_else(|| referrer.config.as_ref()?.media_type.as_ref());
    let mut entry = json!({
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    });
    if let Some(artifact_type) = artifact_type {
        entry["artifactType"] = json!(artifact_type);
    }
    if let Some(annotations) = &referrer.annotations {
        entry["annotations"] = json!(annotations);
    }
    entry
}

/// Returns `list` with `entry` added and doubled entries dropped; `None` where it is there already.
fn with_entry(
    list: Option<&RawManifest>,
    entry: &Value,
    object: &str,
) -> Result<Option<RawManifest>, Error> {
    let malformed = |reason: String| Error::Malformed {
        object: object.to_owned(),
        reason,
    };
    let mut index = match list {
        Some(list) => {
            serde_json::from_slice(&list.bytes).map_err(|error| malformed(error.to_string()))?
        }
        None => json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}),
    };
    let manifests = index
        .get_mut("manifests")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| malformed("its `manifests` is no list".to_owned()))?;
    if manifests.iter().any(|one| one["digest"] == entry["digest"]) {
        return Ok(None);
    }
    let mut digests = std::collections::HashSet::new();
    manifests.retain(|one| digests.insert(one["digest"].to_string()));
    manifests.push(entry.clone());
    let bytes = serde_json::to_vec(&index).map_err(|error| malformed(error.to_string()))?;
    Ok(Some(RawManifest {
        descriptor: Descriptor::of(OCI_INDEX, &bytes),
        bytes: Bytes::from(bytes),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media_type::OCI_MANIFEST;

    #[test]
    fn tags() {
        let digest = Digest::of(b"");
        assert_eq!(
            tag_of(&digest).unwrap().as_str(),
            format!("sha256-{}", digest.hex())
        );
        let mut digester = trilith_core::Digester::new(trilith_core::Algorithm::Sha512);
        digester.update(b"");
        let long = digester.finish();
        assert_eq!(
            tag_of(&long).unwrap().as_str(),
            format!("sha512-{}", &long.hex()[..64])
        );
    }

    #[test]
    fn links() {
        for (header, expected) in [
            (r#"</v2/a?n=1>; rel="next""#, Some("/v2/a?n=1")),
            ("<a>;rel=next", Some("a")),
            (r#"<a>; rel="prev", <b>; x=y; REL="Next""#, Some("b")),
            (r#"<a>; rel="prev""#, None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next_link(header), expected, "{header}");
        }
    }

    #[test]
    fn lists_keep_what_they_hold() {
        let manifest = |content: &str| RawManifest {
            descriptor: Descriptor::of(OCI_MANIFEST, content.as_bytes()),
            bytes: Bytes::copy_from_slice(content.as_bytes()),
        };
        let pushed = manifest(
            r#"{"artifactType":"a/b","config":{"mediaType":"x/y"},"annotations":{"k":"v"}}"#,
        );
        let entry_of = |manifest: &RawManifest| {
            entry(manifest, &serde_json::from_slice(&manifest.bytes).unwrap())
        };
        let entry = entry_of(&pushed);
        assert_eq!(entry["artifactType"], "a/b");
        assert_eq!(entry["annotations"]["k"], "v");
        let plain = manifest(r#"{"artifactType":"","config":{"mediaType":"x/y"}}"#);
        assert_eq!(entry_of(&plain)["artifactType"], "x/y");

        let first = with_entry(None, &entry, "list").unwrap().unwrap();
        assert!(with_entry(Some(&first), &entry, "list").unwrap().is_none());

        let old = manifest(r#"{"other":1,"manifests":[{"digest":"d"},{"digest":"d"}]}"#);
        let changed = with_entry(Some(&old), &entry, "list").unwrap().unwrap();
        let value: Value = serde_json::from_slice(&changed.bytes).unwrap();
        assert_eq!(value["other"], 1);
        assert_eq!(value["manifests"].as_array().unwrap().len(), 2);

        for bad in [r#"{"manifests":{}}"#, "{}", "["] {
            assert!(with_entry(Some(&manifest(bad)), &entry, "list").is_err());
        }
    }
}
