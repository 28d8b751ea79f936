//! Manifests: asked for, read and written, each with its digest and media type checked.
//!
//! Understands of a manifest only what tells its kind. Schema 1 is refused.

use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use trilith_core::{Digest, Digester};

use super::client::Attempts;
use super::exchange::{Answer, Body, Call};
use super::failure::{Failure, clean};
use super::referrers;
use super::repository::RegistryRepository;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::media_type::{self, MANIFESTS, OCI_INDEX, OCI_MANIFEST};
use crate::store::{MAX_MANIFEST_SIZE, Name, RawManifest};

/// Returns `name` in words for messages.
pub(crate) fn shown(repository: &RegistryRepository, name: &Name) -> String {
    match name {
        Name::Tag(tag) => format!("`{}:{tag}`", repository.name()),
        Name::Digest(digest) => format!("`{}@{digest}`", repository.name()),
    }
}

/// Returns the digest a registry says that what it answered about has; `None` where it
/// does not say or in a way we do not know.
pub(crate) fn digest_header(answer: &Answer) -> Option<Digest> {
    answer.header("docker-content-digest")?.parse().ok()
}

/// Checks the digest that the registry says something has, where it says it.
pub(crate) fn check_digest(
    answer: &Answer,
    expected: &Digest,
    object: impl FnOnce() -> String,
) -> Result<(), Error> {
    match digest_header(answer) {
        Some(actual) if actual.algorithm() == expected.algorithm() && actual != *expected => {
            Err(Error::DigestMismatch {
                object: object(),
                expected: expected.clone(),
                actual,
            })
        }
        _ => Ok(()),
    }
}

fn call(repository: &RegistryRepository, method: Method, name: &Name) -> Call {
    let identifier = match name {
        Name::Tag(tag) => tag.as_str(),
        Name::Digest(digest) => digest.as_str(),
    };
    let mut call = repository.call(method, &format!("manifests/{identifier}"));
    if let Ok(accept) = HeaderValue::try_from(MANIFESTS.join(", ")) {
        call.headers.insert(ACCEPT, accept);
    }
    call.limit = MAX_MANIFEST_SIZE;
    call
}

/// Returns what `name` points to. Asks with HEAD, and with GET where the answer to that
/// lacks digest, length or media type, all three of which registries leave out at times.
pub(crate) async fn resolve(
    repository: &RegistryRepository,
    name: &Name,
) -> Result<Option<Descriptor>, Error> {
    let answer = repository
        .perform(&call(repository, Method::HEAD, name))
        .await?;
    match answer.status {
        StatusCode::OK => match described(repository, name, &answer)? {
            Some(descriptor) => Ok(Some(descriptor)),
            None => read(repository, name).await,
        },
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            read(repository, name).await
        }
        _ => Err(answer.refused().into()),
    }
}

async fn read(repository: &RegistryRepository, name: &Name) -> Result<Option<Descriptor>, Error> {
    Ok(fetch(repository, name)
        .await?
        .map(|manifest| manifest.descriptor))
}

/// Returns the descriptor that the answer to a HEAD request holds, if all of it is there.
fn described(
    repository: &RegistryRepository,
    name: &Name,
    answer: &Answer,
) -> Result<Option<Descriptor>, Error> {
    if let Name::Digest(digest) = name {
        check_digest(answer, digest, || shown(repository, name))?;
    }
    let digest = match name {
        Name::Digest(digest) => Some(digest.clone()),
        Name::Tag(_) => digest_header(answer),
    };
    let size = answer
        .header(CONTENT_LENGTH.as_str())
        .and_then(|text| text.parse::<u64>().ok())
        // Servers that do not produce the body may say that it is empty.
        .filter(|&size| size > 0);
    let media_type = answer
        .header(CONTENT_TYPE.as_str())
        .map(essence)
        .filter(|media_type| is_known(media_type));
    let (Some(digest), Some(size), Some(media_type)) = (digest, size, media_type) else {
        return Ok(None);
    };
    if size > MAX_MANIFEST_SIZE {
        return Err(too_large(repository, name));
    }
    Ok(Some(Descriptor::new(&media_type, digest, size)))
}

/// Returns the manifest `name` points to, `None` where it is absent.
///
/// # Errors
/// A digest other than asked for or than the registry says, and a manifest that can be
/// taken for two kinds.
pub(crate) async fn fetch(
    repository: &RegistryRepository,
    name: &Name,
) -> Result<Option<RawManifest>, Error> {
    let answer = repository
        .perform(&call(repository, Method::GET, name))
        .await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        _ => return Err(answer.refused().into()),
    }
    let bytes = match &answer.body {
        Body::Whole(bytes) => bytes.clone(),
        Body::TooLong | Body::Stream(_) => return Err(too_large(repository, name)),
    };
    let expected = match name {
        Name::Digest(digest) => Some(digest.clone()),
        Name::Tag(_) => digest_header(&answer),
    };
    let digest = match expected {
        Some(expected) => {
            check(&bytes, &expected, || shown(repository, name))?;
            expected
        }
        None => Digest::of(&bytes),
    };
    let declared = answer.header(CONTENT_TYPE.as_str()).map(essence);
    let media_type =
        media_type_of(declared.as_deref(), &bytes).map_err(|reason| Error::Malformed {
            object: shown(repository, name),
            reason,
        })?;
    let descriptor = Descriptor::new(&media_type, digest, bytes.len() as u64);
    Ok(Some(RawManifest { descriptor, bytes }))
}

fn too_large(repository: &RegistryRepository, name: &Name) -> Error {
    Error::ManifestTooLarge {
        object: shown(repository, name).trim_matches('`').to_owned(),
    }
}

fn check(bytes: &[u8], expected: &Digest, object: impl FnOnce() -> String) -> Result<(), Error> {
    let mut digester = Digester::new(expected.algorithm());
    digester.update(bytes);
    let actual = digester.finish();
    if actual == *expected {
        return Ok(());
    }
    Err(Error::DigestMismatch {
        object: object(),
        expected: expected.clone(),
        actual,
    })
}

/// Writes `manifest` under its digest, and into the list of its subject's referrers where
/// the registry keeps none.
pub(crate) async fn push(
    repository: &RegistryRepository,
    manifest: &RawManifest,
) -> Result<(), Error> {
    let name = Name::Digest(manifest.descriptor.digest.clone());
    let answer = put(repository, &name, manifest).await?;
    if answer.headers.contains_key("oci-subject") {
        return Ok(());
    }
    referrers::register(repository, manifest).await
}

/// Writes `manifest` as `name`.
pub(crate) async fn put(
    repository: &RegistryRepository,
    name: &Name,
    manifest: &RawManifest,
) -> Result<Answer, Error> {
    let descriptor = &manifest.descriptor;
    if manifest.bytes.len() as u64 > MAX_MANIFEST_SIZE {
        return Err(too_large(repository, name));
    }
    check(&manifest.bytes, &descriptor.digest, || {
        shown(repository, name)
    })?;
    let content_type = HeaderValue::from_str(&descriptor.media_type).map_err(|_| {
        Failure::config(format!(
            "media type `{}` cannot be sent",
            descriptor.media_type
        ))
    })?;
    let mut call = call(repository, Method::PUT, name);
    call.scopes = repository.write_scopes();
    call.headers.remove(ACCEPT);
    call.headers.insert(CONTENT_TYPE, content_type);
    call.body = manifest.bytes.clone();
    call.patience = repository.client().timeouts().commit;
    let counters = repository.client().counters();
    counters.uploaded_bytes.add(descriptor.size);
    let mut attempts = Attempts::new(repository.client(), repository.host());
    let answer = loop {
        let answer = repository.perform(&call).await?;
        if answer.status.is_success() {
            break answer;
        }
        // The digest is right, so bytes were lost on the way; or `docker-registry` looked at
        // a file that another request was just writing.
        let failure = answer.refused();
        let again = failure.has_code("DIGEST_INVALID");
        if failure.has_code("MANIFEST_BLOB_UNKNOWN") || failure.has_code("BLOB_UNKNOWN") {
            let host = repository.host();
            host.blobs.forget(repository.name().path());
        }
        attempts.failed_if(failure, again).await?;
    };
    check_digest(&answer, &descriptor.digest, || shown(repository, name))?;
    Ok(answer)
}

/// What tells the kind of a manifest. A field that occurs twice is an error, as readers
/// differ in which of the two counts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Returns the media type of the manifest `bytes` that came as `declared`.
///
/// # Errors
/// Why there is none, or more than one: a document that one reader takes for an image and
/// another for an index of images shows them different content under one digest
/// (CVE-2021-41190).
pub(crate) fn media_type_of(declared: Option<&str>, bytes: &[u8]) -> Result<String, String> {
    let outline: Outline =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no manifest ({error})"))?;
    if outline.fs_layers.is_some() || declared.is_some_and(is_schema_1) {
        return Err("it has schema version 1, which is no longer read".to_owned());
    }
    let is_index = outline.manifests.is_some();
    let is_image = outline.layers.is_some() || outline.config.is_some();
    let shape = match (is_index, is_image) {
        (true, true) => return Err("it is an image and an index of images at once".to_owned()),
        (false, false) => return Err("it is neither an image nor an index".to_owned()),
        (true, false) => OCI_INDEX,
        (false, true) => OCI_MANIFEST,
    };
    let inside = outline.media_type.as_deref().map(essence);
    let declared = declared.filter(|declared| !is_generic(declared));
    let media_type = match (declared, inside) {
        (Some(declared), Some(inside)) if declared != inside => {
            return Err(format!(
                "it came as `{}` and calls itself `{}`",
                clean(declared),
                clean(&inside)
            ));
        }
        (Some(declared), _) => declared.to_owned(),
        (None, Some(inside)) => inside,
        (None, None) => shape.to_owned(),
    };
    if !is_known(&media_type) {
        return Err(format!(
            "its media type `{}` is not known",
            clean(&media_type)
        ));
    }
    if media_type::is_index(&media_type) != is_index {
        let kind = if is_index { "an index" } else { "an image" };
        return Err(format!("it came as `{media_type}` and is {kind}"));
    }
    Ok(media_type)
}

/// Returns a media type without parameters, in lower case.
pub(crate) fn essence(text: &str) -> String {
    text.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

fn is_known(media_type: &str) -> bool {
    media_type::is_index(media_type) || media_type::is_manifest(media_type)
}

/// What servers that do not look at what they serve say.
fn is_generic(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/json" | "application/octet-stream" | "binary/octet-stream" | "text/plain"
    )
}

fn is_schema_1(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media_type::{DOCKER_INDEX, DOCKER_MANIFEST};

    #[test]
    fn media_types() {
        let image = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let named = |media_type: &str, body: &str| {
            format!(r#"{{"mediaType":"{media_type}",{}"#, &body[1..])
        };
        for (declared, body, expected) in [
            (Some(OCI_MANIFEST), image.to_owned(), Ok(OCI_MANIFEST)),
            (Some(DOCKER_MANIFEST), image.to_owned(), Ok(DOCKER_MANIFEST)),
            (Some(OCI_INDEX), index.to_owned(), Ok(OCI_INDEX)),
            (None, image.to_owned(), Ok(OCI_MANIFEST)),
            (None, index.to_owned(), Ok(OCI_INDEX)),
            (
                Some("application/json"),
                named(DOCKER_INDEX, index),
                Ok(DOCKER_INDEX),
            ),
            (
                Some("text/plain"),
                named(OCI_MANIFEST, image),
                Ok(OCI_MANIFEST),
            ),
            (
                Some(OCI_MANIFEST),
                named(DOCKER_MANIFEST, image),
                Err("calls itself"),
            ),
            (
                Some(OCI_INDEX),
                named(OCI_MANIFEST, image),
                Err("calls itself"),
            ),
            (Some(OCI_INDEX), image.to_owned(), Err("is an image")),
            (Some(OCI_MANIFEST), index.to_owned(), Err("is an index")),
            (
                None,
                r#"{"manifests":[],"layers":[]}"#.to_owned(),
                Err("at once"),
            ),
            (
                Some(OCI_INDEX),
                r#"{"manifests":[],"config":{}}"#.to_owned(),
                Err("at once"),
            ),
            (
                Some(OCI_MANIFEST),
                r#"{"mediaType":"a","mediaType":"b","layers":[]}"#.to_owned(),
                Err("duplicate field"),
            ),
            (Some("text/html"), image.to_owned(), Err("not known")),
            (None, named("application/x", image), Err("not known")),
            (
                None,
                r#"{"fsLayers":[]}"#.to_owned(),
                Err("schema version 1"),
            ),
            (
                Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
                image.to_owned(),
                Err("schema version 1"),
            ),
            (None, "{}".to_owned(), Err("neither")),
            (None, "[]".to_owned(), Err("no manifest")),
            (None, String::new(), Err("no manifest")),
        ] {
            let got = media_type_of(declared, body.as_bytes());
            match (&got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
                _ => panic!("{declared:?} {body}: {got:?}"),
            }
        }
    }

    #[test]
    fn essences() {
        for (text, expected) in [
            ("Application/JSON; charset=utf-8", "application/json"),
            (" a/b ", "a/b"),
            ("", ""),
        ] {
            assert_eq!(essence(text), expected);
        }
    }
}
