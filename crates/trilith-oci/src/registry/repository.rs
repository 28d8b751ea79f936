//! One repository on a registry, as a place for images.
//!
//! Says what is asked; how it is asked, again and again if need be, is the client's part.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use reqwest::{Method, StatusCode, Url};
use trilith_core::{Digest, Repository, Tag};

use super::auth::Scope;
use super::client::RegistryClient;
use super::exchange::{Answer, Call};
use super::host::{Host, lock};
use super::manifests::check_digest;
use super::{download, manifests, referrers, removal, upload};
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::store::{BlobSource, BlobStream, ImageStore, Mount, Name, Pushed, RawManifest};

/// A repository on a registry. Cheap to clone; clones share the uploads that declined
/// mounts have opened.
#[derive(Clone)]
pub struct RegistryRepository {
    client: RegistryClient,
    host: Arc<Host>,
    name: Repository,
    /// Whether reading asks for write access too.
    writes: bool,
    uploads: Arc<Mutex<HashMap<Digest, Url>>>,
}

impl RegistryRepository {
    pub(crate) fn new(client: RegistryClient, host: Arc<Host>, name: Repository) -> Self {
        Self {
            client,
            host,
            name,
            writes: false,
            uploads: Arc::default(),
        }
    }

    /// Returns the same repository for a caller that is going to write to it: reading then
    /// asks for write access too. That saves a token, and without it Docker Hub denies even
    /// the question whether something is there in a repository that does not exist yet.
    #[must_use]
    pub fn for_writing(mut self) -> Self {
        self.writes = true;
        self
    }

    /// Returns which repository this is.
    #[must_use]
    pub fn name(&self) -> &Repository {
        &self.name
    }

    /// Returns the client behind it.
    #[must_use]
    pub fn client(&self) -> &RegistryClient {
        &self.client
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Returns a call to `path` below the repository that needs read access.
    pub(crate) fn call(&self, method: Method, path: &str) -> Call {
        let url = self.host.endpoint.url(self.name.path(), path);
        let mut call = Call::new(method, url, self.client.timeouts().answer);
        call.scopes = vec![self.scope(self.writes)];
        call
    }

    /// Returns a call to `path` below the repository that needs write access.
    pub(crate) fn write_call(&self, method: Method, path: &str) -> Call {
        let mut call = self.call(method, path);
        call.scopes = self.write_scopes();
        call
    }

    pub(crate) fn write_scopes(&self) -> Vec<Scope> {
        vec![self.scope(true)]
    }

    fn scope(&self, push: bool) -> Scope {
        Scope {
            repository: self.name.path().to_owned(),
            push,
        }
    }

    /// Returns the tags of the repository, in the registry's order; none where there is no
    /// repository.
    pub async fn tags(&self) -> Result<Vec<Tag>, Error> {
        removal::tags(self).await
    }

    /// Returns the tags of the repository, `None` where the registry does not tell all of them in
    /// `pages` requests or lists none.
    pub async fn tags_within(&self, pages: usize) -> Result<Option<Vec<Tag>>, Error> {
        removal::tags_within(self, pages).await
    }

    /// Deletes the manifest `digest` and with it every tag that points to it. Returns whether it was
    /// there.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the registry deletes nothing.
    pub async fn delete_manifest(&self, digest: &Digest) -> Result<bool, Error> {
        removal::delete(self, digest).await
    }

    /// Returns the tag under which a registry without referrers of its own lists those of `digest`.
    pub fn referrers_tag(digest: &Digest) -> Result<Tag, Error> {
        referrers::tag_of(digest)
    }

    pub(crate) async fn perform(&self, call: &Call) -> Result<Answer, Error> {
        Ok(self.client.perform(&self.host, call).await?)
    }

    /// Returns `blob` in words for messages.
    pub(crate) fn blob_name(&self, blob: &Descriptor) -> String {
        format!("blob `{}` of `{}`", blob.digest, self.name)
    }

    pub(crate) async fn blob_exists(&self, blob: &Descriptor) -> Result<bool, Error> {
        let call = self.call(Method::HEAD, &format!("blobs/{}", blob.digest));
        let answer = self.perform(&call).await?;
        match answer.status {
            StatusCode::OK => {
                check_digest(&answer, &blob.digest, || self.blob_name(blob))?;
                Ok(true)
            }
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(answer.refused().into()),
        }
    }

    /// Keeps the upload that a declined mount has opened for `blob`. Returns the one kept before.
    pub(crate) fn keep_upload(&self, blob: &Descriptor, url: Url) -> Option<Url> {
        lock(&self.uploads).insert(blob.digest.clone(), url)
    }

    /// Returns the upload that is open for `blob`, at most once.
    pub(crate) fn take_upload(&self, blob: &Descriptor) -> Option<Url> {
        lock(&self.uploads).remove(&blob.digest)
    }
}

impl fmt::Debug for RegistryRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegistryRepository")
            .field(&self.name.to_string())
            .finish()
    }
}

#[async_trait]
impl ImageStore for RegistryRepository {
    fn describe(&self) -> String {
        self.name.to_string()
    }

    async fn resolve(&self, name: &Name) -> Result<Option<Descriptor>, Error> {
        manifests::resolve(self, name).await
    }

    fn counts_reads(&self) -> bool {
        self.host.counts_reads()
    }

    async fn fetch_manifest(&self, name: &Name) -> Result<RawManifest, Error> {
        manifests::fetch(self, name)
            .await?
            .ok_or_else(|| Error::NotFound {
                object: manifests::shown(self, name),
            })
    }

    async fn fetch_blob(&self, blob: &Descriptor) -> Result<BlobStream, Error> {
        download::fetch(self, blob).await
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool, Error> {
        self.blob_exists(blob).await
    }

    async fn push_blob(&self, blob: &Descriptor, content: BlobSource) -> Result<Pushed, Error> {
        upload::push(self, blob, &content).await
    }

    /// A registry that declines has opened an upload instead; the next
    /// [`ImageStore::push_blob`] of the blob through this value or a clone of it uses it.
    async fn mount_blob(&self, blob: &Descriptor, from: &Repository) -> Result<Mount, Error> {
        upload::mount(self, blob, from).await
    }

    /// Also lists a manifest with a `subject` in that subject's referrers tag, where the
    /// registry does not keep referrers itself.
    async fn push_manifest(&self, manifest: &RawManifest) -> Result<(), Error> {
        manifests::push(self, manifest).await
    }

    fn tags_with_manifest(&self) -> bool {
        true
    }

    async fn tag(&self, tag: &Tag, manifest: &RawManifest) -> Result<(), Error> {
        manifests::put(self, &Name::Tag(tag.clone()), manifest).await?;
        Ok(())
    }

    async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, Error> {
        referrers::list(self, digest, artifact_type).await
    }
}
