//! A layout as an image store: the tags of one repository in `index.json`, blobs shared by all.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use trilith_core::{Digest, Digester, Reference, Repository, Tag};

use super::Layout;
use super::blob::{self, BlobWriter};
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::image::{Index, Manifest, media_type_of};
use crate::media_type;
use crate::reading::off_thread;
use crate::store::{
    BlobSource, BlobStream, ImageStore, MAX_MANIFEST_SIZE, Mount, Name, Pushed, RawManifest,
};

/// Bytes of a file that are copied at once.
const COPY_SIZE: usize = 256 * 1024;

/// How the names in `index.json` come from tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The name is the tag, as in `oci:PATH:TAG`.
    Tags,
    /// The name is the full reference of the tag in this repository; others live beside it.
    References(Repository),
}

/// One repository in a layout. Its inherent methods block.
#[derive(Clone, Debug)]
pub struct LayoutRepository {
    layout: Layout,
    naming: Naming,
}

impl LayoutRepository {
    pub(super) fn new(layout: Layout, naming: Naming) -> Self {
        Self { layout, naming }
    }

    /// Returns the layout.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the tags of the repository and what they point to.
    pub fn tags(&self) -> Result<Vec<(Tag, Descriptor)>, Error> {
        let names = self.layout.names()?.into_iter();
        Ok(names
            .filter_map(|(name, descriptor)| Some((self.tag_of(&name)?, descriptor)))
            .collect())
    }

    /// Removes `tag`, and nothing it points to. Returns whether it was there.
    pub fn remove_tag(&self, tag: &Tag) -> Result<bool, Error> {
        let name = self.name_of(tag);
        self.layout.change_index(|index| index.remove(&name))
    }

    fn name_of(&self, tag: &Tag) -> String {
        match &self.naming {
            Naming::Tags => tag.to_string(),
            Naming::References(repository) => repository.with_tag(tag.clone()).to_string(),
        }
    }

    fn tag_of(&self, name: &str) -> Option<Tag> {
        match &self.naming {
            Naming::Tags => name.parse().ok(),
            Naming::References(repository) => {
                let reference: Reference = name.parse().ok()?;
                let is_here = reference.repository() == repository;
                reference.tag().filter(|_| is_here).cloned()
            }
        }
    }

    fn object(&self, kind: &str, name: &str) -> String {
        format!("{kind} `{name}` in `{}`", self.layout.root().display())
    }

    /// Returns the descriptor that `name` points to. A tag whose manifest is gone is absent, so that
    /// the next build mends it.
    fn find(&self, name: &Name) -> Result<Option<Descriptor>, Error> {
        match name {
            Name::Tag(tag) => {
                let found = self.layout.read_index()?.find(&self.name_of(tag));
                Ok(found.filter(|descriptor| self.layout.has_blob(descriptor)))
            }
            Name::Digest(digest) => {
                let path = self.layout.blob_path(digest);
                let Some(bytes) = read_if_present(&path)? else {
                    return Ok(None);
                };
                check_digest(|| format!("`{}`", path.display()), digest, &bytes)?;
                let size = bytes.len() as u64;
                Ok(media_type_of(&bytes)
                    .map(|media_type| Descriptor::new(&media_type, digest.clone(), size)))
            }
        }
    }

    fn read_manifest(&self, name: &Name) -> Result<RawManifest, Error> {
        let text = match name {
            Name::Tag(tag) => self.name_of(tag),
            Name::Digest(digest) => digest.to_string(),
        };
        let missing = || Error::NotFound {
            object: self.object("manifest", &text),
        };
        let descriptor = self.find(name)?.ok_or_else(missing)?;
        let path = self.layout.blob_path(&descriptor.digest);
        let bytes = read_if_present(&path)?.ok_or_else(missing)?;
        check_digest(
            || format!("`{}`", path.display()),
            &descriptor.digest,
            &bytes,
        )?;
        Ok(RawManifest { descriptor, bytes })
    }

    fn write_manifest(&self, raw: &RawManifest) -> Result<(), Error> {
        let descriptor = &raw.descriptor;
        let object = || format!("manifest `{}`", descriptor.digest);
        if raw.bytes.len() as u64 > MAX_MANIFEST_SIZE {
            return Err(Error::ManifestTooLarge {
                object: descriptor.digest.to_string(),
            });
        }
        check_digest(object, &descriptor.digest, &raw.bytes)?;
        let subject = self.check_complete(raw)?;
        let path = self.layout.blob_path(&descriptor.digest);
        if read_if_present(&path).ok().flatten().as_ref() != Some(&raw.bytes) {
            let algorithm = descriptor.digest.algorithm();
            let mut writer = self.layout.blob_writer_of(algorithm)?;
            writer.append(&raw.bytes)?;
            writer.finish_as(descriptor)?;
        }
        if let Some(artifact_type) = subject {
            let mut entry = descriptor.clone();
            entry.artifact_type = Some(artifact_type);
            self.layout.change_index(|index| index.add(&entry))?;
        }
        Ok(())
    }

    /// Checks that everything the manifest points to is here. Returns its artifact type if it is
    /// about another manifest, which need not be here.
    fn check_complete(&self, raw: &RawManifest) -> Result<Option<String>, Error> {
        let (mut children, mut subject) = (Vec::new(), None);
        if media_type::is_index(&raw.descriptor.media_type) {
            children.extend_from_slice(Index::parse(raw)?.manifests());
        } else {
            let manifest = Manifest::parse(raw)?;
            children.push(manifest.config().clone());
            // Layers with URLs are foreign: whoever runs the image fetches them there.
            let layers = manifest.layers().iter();
            children.extend(layers.filter(|layer| layer.urls.is_empty()).cloned());
            let artifact_type = manifest.artifact_type().to_owned();
            subject = manifest.subject().map(|_| artifact_type);
        }
        match children.iter().find(|child| !self.layout.find_blob(child)) {
            None => Ok(subject),
            Some(missing) => {
                let user = format!("of manifest `{}`", raw.descriptor.digest);
                let name = missing.digest.as_str();
                Err(Error::NotFound {
                    object: format!("{} {user}", self.object("blob", name)),
                })
            }
        }
    }

    fn write_tag(&self, tag: &Tag, manifest: &RawManifest) -> Result<(), Error> {
        let descriptor = &manifest.descriptor;
        if !self.layout.find_blob(descriptor) {
            return Err(Error::NotFound {
                object: self.object("manifest", descriptor.digest.as_str()),
            });
        }
        let name = self.name_of(tag);
        let mut whole = Ok(());
        self.layout.change_index(|index| {
            // Under the lock, for a sweep may have come between.
            whole = self.layout.check_whole(tag, descriptor);
            let is_new = index.find(&name).as_ref() != Some(descriptor);
            if is_new && whole.is_ok() {
                index.set(&name, descriptor);
            }
            is_new && whole.is_ok()
        })?;
        whole
    }

    fn find_referrers(
        &self,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, Error> {
        let mut found: Vec<Descriptor> = Vec::new();
        for entry in self.layout.read_index()?.entries() {
            let descriptor = entry.descriptor;
            // Entries of images are many and named; those of artifacts say their type.
            let may_be = match &descriptor.artifact_type {
                Some(own) => own == artifact_type,
                None => entry.name.is_none(),
            };
            let is_new = found.iter().all(|f| f.digest != descriptor.digest);
            if !may_be || !is_new || !media_type::is_manifest(&descriptor.media_type) {
                continue;
            }
            let name = Name::Digest(descriptor.digest.clone());
            let manifest = Manifest::parse(&self.read_manifest(&name)?)?;
            let is_about = manifest.subject().is_some_and(|s| s.digest == *subject);
            if is_about && manifest.artifact_type() == artifact_type {
                found.push(descriptor);
            }
        }
        Ok(found)
    }

    fn copy_file(&self, blob: &Descriptor, source: &Path) -> Result<(), Error> {
        let file = File::open(source).map_err(Error::io("open", source))?;
        // One byte more than expected is enough to know.
        let mut file = file.take(blob.size.saturating_add(1));
        let mut writer = self.layout.blob_writer_of(blob.digest.algorithm())?;
        let mut buffer = vec![0; COPY_SIZE];
        loop {
            match file.read(&mut buffer).map_err(Error::io("read", source))? {
                0 => return writer.finish_as(blob),
                count => writer.append(&buffer[..count])?,
            }
        }
    }

    async fn copy_stream(&self, blob: &Descriptor, mut stream: BlobStream) -> Result<(), Error> {
        let (layout, algorithm) = (self.layout.clone(), blob.digest.algorithm());
        let mut writer: BlobWriter = off_thread(move || layout.blob_writer_of(algorithm)).await?;
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            writer = off_thread(move || writer.append(&piece).map(|()| writer)).await?;
        }
        let blob = blob.clone();
        off_thread(move || writer.finish_as(&blob)).await
    }

    /// Runs `work` with this repository, off the async threads.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let this = self.clone();
        off_thread(move || work(&this)).await
    }
}

#[async_trait]
impl ImageStore for LayoutRepository {
    fn describe(&self) -> String {
        let root = self.layout.root().display();
        match &self.naming {
            Naming::Tags => format!("oci:{root}"),
            Naming::References(repository) => format!("{repository} in {root}"),
        }
    }

    async fn resolve(&self, name: &Name) -> Result<Option<Descriptor>, Error> {
        let name = name.clone();
        self.run(move |this| this.find(&name)).await
    }

    async fn fetch_manifest(&self, name: &Name) -> Result<RawManifest, Error> {
        let name = name.clone();
        self.run(move |this| this.read_manifest(&name)).await
    }

    async fn fetch_blob(&self, blob: &Descriptor) -> Result<BlobStream, Error> {
        let blob = blob.clone();
        self.run(move |this| blob::stream(&this.layout, &blob))
            .await
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool, Error> {
        let blob = blob.clone();
        self.run(move |this| Ok(this.layout.has_blob(&blob))).await
    }

    async fn push_blob(&self, blob: &Descriptor, content: BlobSource) -> Result<Pushed, Error> {
        let wanted = blob.clone();
        let find = move |this: &Self| Ok(this.layout.find_blob(&wanted));
        if self.run(find).await? {
            return Ok(Pushed::Present);
        }
        let blob = blob.clone();
        match content {
            BlobSource::Memory(bytes) => {
                self.run(move |this| {
                    let mut writer = this.layout.blob_writer_of(blob.digest.algorithm())?;
                    writer.append(&bytes)?;
                    writer.finish_as(&blob)
                })
                .await?;
            }
            BlobSource::File(path) => self.run(move |this| this.copy_file(&blob, &path)).await?,
            BlobSource::Store(store) => {
                let stream = store.fetch_blob(&blob).await?;
                self.copy_stream(&blob, stream).await?;
            }
        }
        Ok(Pushed::Written)
    }

    async fn mount_blob(&self, blob: &Descriptor, _from: &Repository) -> Result<Mount, Error> {
        // All repositories of a layout share their blobs.
        let blob = blob.clone();
        let is_here = self.run(move |this| Ok(this.layout.find_blob(&blob)));
        Ok(if is_here.await? {
            Mount::Mounted
        } else {
            Mount::Declined
        })
    }

    async fn push_manifest(&self, manifest: &RawManifest) -> Result<(), Error> {
        let manifest = manifest.clone();
        self.run(move |this| this.write_manifest(&manifest)).await
    }

    async fn tag(&self, tag: &Tag, manifest: &RawManifest) -> Result<(), Error> {
        let (tag, manifest) = (tag.clone(), manifest.clone());
        self.run(move |this| this.write_tag(&tag, &manifest)).await
    }

    async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, Error> {
        let (digest, artifact_type) = (digest.clone(), artifact_type.to_owned());
        self.run(move |this| this.find_referrers(&digest, &artifact_type))
            .await
    }
}

/// Returns the content of the manifest at `path`, `None` where there is no file.
fn read_if_present(path: &Path) -> Result<Option<Bytes>, Error> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io("examine", path))?,
    };
    if metadata.len() > MAX_MANIFEST_SIZE {
        return Err(Error::ManifestTooLarge {
            object: path.display().to_string(),
        });
    }
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    Ok(Some(bytes.into()))
}

fn check_digest(
    object: impl FnOnce() -> String,
    expected: &Digest,
    bytes: &[u8],
) -> Result<(), Error> {
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
