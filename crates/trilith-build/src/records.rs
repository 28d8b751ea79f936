//! What this machine remembers of images: which keys a digest carries, which layer a
//! payload became, what a project was last built into, which layers know no users, and the manifests
//! and configurations that builds have read.
//!
//! Records only ever save work. Each is one small JSON file, written beside its place and
//! renamed into it; one that is missing, unreadable or does not parse is as good as none.

use std::borrow::Cow;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;
use trilith_core::{Digest, InputHash, Level};
use trilith_oci::{Descriptor, RawManifest};

/// The records of one store, in the directory `records` beside its blobs.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    directory: PathBuf,
}

/// What is known of an image by its digest. Digests are content, so this never goes stale.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ImageRecord {
    /// The input key of the image's level.
    pub(crate) key: InputHash,
    /// The layers that are not the base's.
    pub(crate) layers: Vec<LayerRecord>,
}

/// One layer of an image, and the level it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerRecord {
    /// The level whose image the layer first appears in.
    pub level: Level,
    /// Digest of the compressed layer.
    pub digest: Digest,
    /// Compressed size in bytes.
    pub size: u64,
}

/// The layer that a payload was written into.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct PayloadRecord {
    /// The compressed layer.
    pub(crate) descriptor: Descriptor,
    /// Digest of the uncompressed tar.
    pub(crate) diff_id: Digest,
    /// Whether it is a layer of the image it comes from, and not in the store.
    #[serde(default)]
    pub(crate) foreign: bool,
}

/// A manifest, whose media type need not be in it.
#[derive(serde::Serialize, serde::Deserialize)]
struct ManifestRecord<'a> {
    media_type: Cow<'a, str>,
    text: Cow<'a, str>,
}

/// What a project was last built into.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct LastBuild {
    /// Where the image is, as it was reported.
    pub(crate) reference: String,
    /// Digest of the image.
    pub(crate) digest: Digest,
    /// The document of its inputs, `application/vnd.trilith.inputs.v1+json`.
    pub(crate) inputs: String,
}

impl Records {
    /// Returns the records kept under `store`.
    #[must_use]
    pub(crate) fn new(store: &Path) -> Self {
        Self {
            directory: store.join("records"),
        }
    }

    /// Returns what is known of the image `digest`.
    #[must_use]
    pub(crate) fn image(&self, digest: &Digest) -> Option<ImageRecord> {
        self.read("images", digest.hex())
    }

    /// Returns when the image `digest` was last built or found, `None` where it is not known.
    pub(crate) fn last_used(&self, digest: &Digest) -> Option<SystemTime> {
        let path = self.directory.join("images").join(digest.hex());
        path.metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    }

    /// Notes that the image `digest`, which is known, was found now.
    pub(crate) fn mark_used(&self, digest: &Digest) {
        let path = self.directory.join("images").join(digest.hex());
        let file = std::fs::File::open(path);
        let _best_effort = file.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Remembers the image `digest`.
    pub(crate) fn remember_image(&self, digest: &Digest, record: &ImageRecord) {
        self.write("images", digest.hex(), record);
    }

    /// Returns the layer that the payload `key` was written into.
    #[must_use]
    pub(crate) fn payload(&self, key: InputHash) -> Option<PayloadRecord> {
        self.read("payloads", &key.to_hex())
    }

    /// Remembers the layer of the payload `key`.
    pub(crate) fn remember_payload(&self, key: InputHash, record: &PayloadRecord) {
        self.write("payloads", &key.to_hex(), record);
    }

    /// Returns the manifest `digest`, where it has been read before.
    pub(crate) fn manifest(&self, digest: &Digest) -> Option<RawManifest> {
        let record: ManifestRecord<'_> = self.read("manifests", digest.hex())?;
        let bytes = Bytes::from(record.text.into_owned());
        let descriptor = Descriptor::of(&record.media_type, &bytes);
        (descriptor.digest == *digest).then_some(RawManifest { descriptor, bytes })
    }

    /// Returns whether the manifest `digest` has been read before.
    pub(crate) fn has_manifest(&self, digest: &Digest) -> bool {
        let path = self.directory.join("manifests").join(digest.hex());
        path.exists()
    }

    /// Remembers a manifest.
    pub(crate) fn remember_manifest(&self, manifest: &RawManifest) {
        if let Ok(text) = str::from_utf8(&manifest.bytes) {
            let record = ManifestRecord {
                media_type: manifest.descriptor.media_type.as_str().into(),
                text: text.into(),
            };
            self.write("manifests", manifest.descriptor.digest.hex(), &record);
        }
    }

    /// Returns the configuration `digest`, where it has been read before.
    pub(crate) fn config(&self, digest: &Digest) -> Option<Bytes> {
        let text: String = self.read("configs", digest.hex())?;
        (Digest::of(text.as_bytes()) == *digest).then(|| text.into())
    }

    /// Remembers a configuration; what is no text is none.
    pub(crate) fn remember_config(&self, digest: &Digest, config: &[u8]) {
        if let Ok(text) = str::from_utf8(config) {
            self.write("configs", digest.hex(), &text);
        }
    }

    /// Returns what the project in `directory` was last built into.
    #[must_use]
    pub(crate) fn last_build(&self, directory: &Path) -> Option<LastBuild> {
        self.read(
            "projects",
            Digest::of(directory.as_os_str().as_encoded_bytes()).hex(),
        )
    }

    /// Remembers what the project in `directory` was built into.
    pub(crate) fn remember_last_build(&self, directory: &Path, record: &LastBuild) {
        self.write(
            "projects",
            Digest::of(directory.as_os_str().as_encoded_bytes()).hex(),
            record,
        );
    }

    /// Returns whether the layer of a base is known to have nothing of users and groups.
    #[must_use]
    pub(crate) fn is_without_users(&self, layer: &Digest) -> bool {
        self.read("without-users", layer.hex()) == Some(true)
    }

    /// Remembers that a layer has nothing of users and groups.
    pub(crate) fn remember_without_users(&self, layer: &Digest) {
        self.write("without-users", layer.hex(), &true);
    }

    /// Returns the layers of all payloads, each with the path of its record.
    pub(crate) fn payloads(&self) -> Vec<(PathBuf, PayloadRecord)> {
        let files = self.files("payloads").into_iter();
        files
            .filter_map(|path| {
                let bytes = std::fs::read(&path).ok()?;
                Some((path, serde_json::from_slice(&bytes).ok()?))
            })
            .collect()
    }

    /// Returns the files of every kind of record.
    pub(crate) fn all_files(&self) -> Vec<PathBuf> {
        let kinds = [
            "configs",
            "images",
            "manifests",
            "payloads",
            "projects",
            "without-users",
        ];
        let kinds = kinds.into_iter();
        kinds.flat_map(|kind| self.files(kind)).collect()
    }

    fn files(&self, kind: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.join(kind));
        let entries = entries.into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    fn read<T: DeserializeOwned>(&self, kind: &str, name: &str) -> Option<T> {
        let bytes = std::fs::read(self.directory.join(kind).join(name)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes a record, or does not: a full or read-only disk costs the next run some work.
    /// One that says the same already is left alone.
    fn write<T: Serialize>(&self, kind: &str, name: &str, record: &T) {
        let directory = self.directory.join(kind);
        let path = directory.join(name);
        let write = || -> std::io::Result<()> {
            let json = serde_json::to_vec(record)?;
            if std::fs::read(&path).is_ok_and(|old| old == json) {
                return Ok(());
            }
            let mut file = match NamedTempFile::new_in(&directory) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    std::fs::create_dir_all(&directory)?;
                    NamedTempFile::new_in(&directory)?
                }
                file => file?,
            };
            file.write_all(&json)?;
            file.persist(&path)?;
            Ok(())
        };
        let _best_effort = write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ImageRecord {
        ImageRecord {
            key: trilith_core::FieldHasher::new("k").finish(),
            layers: vec![LayerRecord {
                level: Level::Source,
                digest: Digest::of(b"layer"),
                size: 5,
            }],
        }
    }

    #[test]
    fn remembers_and_forgives() {
        let store = tempfile::tempdir().unwrap();
        let records = Records::new(store.path());
        let digest = Digest::of(b"image");
        assert_eq!(records.image(&digest), None);
        records.remember_image(&digest, &record());
        assert_eq!(records.image(&digest), Some(record()));

        let path = store.path().join("records/images").join(digest.hex());
        std::fs::write(&path, b"{\"key\":").unwrap();
        assert_eq!(records.image(&digest), None);
    }

    #[test]
    fn documents_are_what_their_digests_say() {
        let store = tempfile::tempdir().unwrap();
        let records = Records::new(store.path());
        let bytes = Bytes::from("{\"schemaVersion\": 2,\n \"é\": \"\\n\"}");
        let descriptor = Descriptor::of("application/vnd.oci.image.manifest.v1+json", &bytes);
        let manifest = RawManifest { descriptor, bytes };
        let digest = &manifest.descriptor.digest;
        assert_eq!(records.manifest(digest), None);
        records.remember_manifest(&manifest);
        records.remember_config(digest, &manifest.bytes);
        assert_eq!(records.manifest(digest).as_ref(), Some(&manifest));
        assert_eq!(records.config(digest).as_ref(), Some(&manifest.bytes));

        for kind in ["manifests", "configs"] {
            let path = store.path().join("records").join(kind).join(digest.hex());
            let changed = std::fs::read_to_string(&path).unwrap().replace('2', "3");
            std::fs::write(&path, changed).unwrap();
        }
        assert_eq!(records.manifest(digest), None);
        assert_eq!(records.config(digest), None);

        let layer = Digest::of(b"\xff");
        records.remember_config(&layer, b"\xff");
        assert_eq!(records.config(&layer), None);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_no_failure() {
        let records = Records::new(Path::new("/proc/nowhere"));
        records.remember_image(&Digest::of(b"image"), &record());
        assert_eq!(records.image(&Digest::of(b"image")), None);
    }
}
