//! What there is in a repository, and the removal of it.
//!
//! Deletes by digest alone: what registries make of the deletion of a tag differs, down to the
//! deletion of everything the tag points to.

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use trilith_core::{Digest, Tag};

use super::exchange::Body;
use super::failure::Failure;
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
    match pages(repository, MAX_PAGES).await? {
        Listed::All(tags) => Ok(tags),
        Listed::Nothing(_) => Ok(Vec::new()),
        Listed::Part => Err(malformed(
            repository,
            format!("it has more than {MAX_PAGES} pages"),
        )),
    }
}

/// Returns the tags of `repository`, `None` where the registry does not tell them in `limit`
/// pages.
pub(super) async fn tags_within(
    repository: &RegistryRepository,
    limit: usize,
) -> Result<Option<Vec<Tag>>, Error> {
    Ok(match pages(repository, limit).await? {
        Listed::All(tags) => Some(tags),
        // Another 404 may be one of a registry that lists nothing.
        Listed::Nothing(failure) => failure.has_code("NAME_UNKNOWN").then(Vec::new),
        Listed::Part => None,
    })
}

/// What a registry tells of the tags of a repository.
enum Listed {
    All(Vec<Tag>),
    /// It says 404.
    Nothing(Failure),
    /// There are more pages.
    Part,
}

async fn pages(repository: &RegistryRepository, limit: usize) -> Result<Listed, Error> {
    let mut call = repository.call(Method::GET, "tags/list");
    call.url.query_pairs_mut().append_pair("n", PAGE);
    call.limit = MAX_PAGE_SIZE;
    let mut tags = Vec::new();
    for _ in 0..limit {
        let answer = repository.perform(&call).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(Listed::Nothing(answer.refused())),
            _ => return Err(answer.refused().into()),
        }
        let Body::Whole(bytes) = &answer.body else {
            let limit = MAX_PAGE_SIZE >> 20;
            let reason = format!("a page is larger than {limit} MiB");
            return Err(malformed(repository, reason));
        };
        let page: Page = serde_json::from_slice(bytes)
            .map_err(|error| malformed(repository, error.to_string()))?;
        let page = page.tags.unwrap_or_default().into_iter();
        tags.extend(page.filter_map(|tag| tag.parse().ok()));
        match next_page(repository, &answer, &call)? {
            Some(next) => call = next,
            None => return Ok(Listed::All(tags)),
        }
    }
    Ok(Listed::Part)
}

fn malformed(repository: &RegistryRepository, reason: String) -> Error {
    Error::Malformed {
        object: format!("the list of tags of `{}`", repository.name()),
        reason,
    }
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
