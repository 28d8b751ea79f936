//! What there is in a repository, and the removal of it.
//!
//! Deletes by digest alone: what registries make of the deletion of a tag differs, down to the
//! deletion of everything the tag points to.

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use trilith_core::{Digest, Tag};

use super::exchange::Body;
use super::referrers::next_page;
use super::repository::RegistryRepository;
use crate::error::Error;

/// The most bytes of one page of tags, and the most pages, that are read.
const MAX_PAGE_SIZE: u64 = 16 * 1024 * 1024;
const MAX_PAGES: usize = 10_000;
/// How many tags a page is asked to have.
const PAGE: &str = "1000";

#[derive(Deserialize)]
struct Page {
    /// Some registries say `null` for none.
    tags: Option<Vec<String>>,
}

/// Returns the tags of `repository`; what is no tag by the specification is left out.
pub(super) async fn tags(repository: &RegistryRepository) -> Result<Vec<Tag>, Error> {
    let object = || format!("the list of tags of `{}`", repository.name());
    let malformed = |reason: String| Error::Malformed {
        object: object(),
        reason,
    };
    let mut call = repository.call(Method::GET, "tags/list");
    call.url.query_pairs_mut().append_pair("n", PAGE);
    call.limit = MAX_PAGE_SIZE;
    let mut tags = Vec::new();
    for _ in 0..MAX_PAGES {
        let answer = repository.perform(&call).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(tags),
            _ => return Err(answer.refused().into()),
        }
        let Body::Whole(bytes) = &answer.body else {
            let limit = MAX_PAGE_SIZE >> 20;
            return Err(malformed(format!("a page is larger than {limit} MiB")));
        };
        let page: Page =
            serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        let page = page.tags.unwrap_or_default().into_iter();
        tags.extend(page.filter_map(|tag| tag.parse().ok()));
        match next_page(repository, &answer, &call)? {
            Some(next) => call = next,
            None => return Ok(tags),
        }
    }
    Err(malformed(format!("it has more than {MAX_PAGES} pages")))
}

/// Deletes the manifest `digest`; returns whether it was there.
pub(super) async fn delete(
    repository: &RegistryRepository,
    digest: &Digest,
) -> Result<bool, Error> {
    let call = repository.write_call(Method::DELETE, &format!("manifests/{digest}"));
    let answer = repository.perform(&call).await?;
    match answer.status {
        status if status.is_success() => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        StatusCode::METHOD_NOT_ALLOWED => Err(Error::Unsupported {
            object: format!("to delete from `{}`", repository.name()),
            reason: "the registry deletes nothing (405)".to_owned(),
            advice: "allow it in the registry's settings (docker-registry: \
                     `storage.delete.enabled`), or use the retention rules that it has",
        }),
        _ => Err(answer.refused().into()),
    }
}
