//! A named user as a layer: the base's `/etc/passwd` and `/etc/group` with it, and its home.
//!
//! It is the one layer that depends on what lies below, so it lies at the bottom, where those of
//! the recipe do not depend on it. Of the base no more is read than [`find_files`] needs.

mod accounts;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use trilith_core::{Digest, FieldHasher, InputHash, Owner, UserRecipe};
use trilith_oci::ImageStore;
use trilith_oci::image::Image;
use trilith_oci::layer::{Compression, EntryKind, FORMAT_VERSION, Layer, LayerContent, LayerEntry};
use trilith_oci::layout::Naming;
use trilith_oci::rootfs::{FindOptions, ImageFile, find_files};

pub use accounts::AccountError;

use crate::context::Context;
use crate::error::Error;
use crate::layers::GRAFTED;
use crate::load::ResolvedImage;
use crate::records::PayloadRecord;
use crate::settings::Settings;
use accounts::{GROUP, PASSWD, parse_user_line, user_line, with_user};

/// The most bytes that a file of users or groups may have.
const MAX_FILE: u64 = 4 << 20;
/// What the history says before the user's line, behind [`GRAFTED`].
const USER: &str = "user ";

/// The layer of a user, in the store.
pub(crate) struct UserLayer {
    pub(crate) layer: Layer,
    pub(crate) path: PathBuf,
    /// Whether it had been written before.
    pub(crate) reused: bool,
}

/// Checks that a user that is asked for can be put into the image.
///
/// # Errors
/// [`Error::UserInDockerfile`].
pub(crate) fn check(settings: &Settings) -> Result<(), Error> {
    if settings.user.is_some() && settings.dockerfile.is_some() {
        return Err(Error::UserInDockerfile {
            project: settings.project.clone(),
        });
    }
    Ok(())
}

/// Returns what the history of an image says of the layer of `user`.
pub(crate) fn created_by(user: &UserRecipe) -> String {
    format!("{GRAFTED}{USER}{}", user_line(user))
}

/// Returns the user of a layer of which the history says `text`.
pub(crate) fn parse_created_by(text: &str) -> Option<UserRecipe> {
    parse_user_line(text.strip_prefix(GRAFTED)?.strip_prefix(USER)?)
}

/// Returns the layer that gives `image`, of one platform of `base`, the user. It is empty where the
/// image has the user already.
///
/// # Errors
/// [`Error::User`] where the name or its ID is taken; the image's files cannot be read or are none.
pub(crate) async fn ensure_layer(
    context: &Context,
    user: &UserRecipe,
    base: Option<&ResolvedImage>,
    image: &Image,
    compression: Compression,
) -> Result<UserLayer, Error> {
    let layout = context.layout()?;
    let key = key(user, image, compression);
    if let Some(record) = context.records().payload(key)
        && layout.find_blob(&record.descriptor)
    {
        return Ok(UserLayer {
            path: layout.blob_path(&record.descriptor.digest),
            layer: Layer {
                descriptor: record.descriptor,
                diff_id: record.diff_id.into(),
            },
            reused: true,
        });
    }
    let [passwd, group] = match base {
        Some(base) => find(context, base, image).await?,
        None => [None, None],
    };
    let entries = entries(user, passwd.as_ref(), group.as_ref()).map_err(|source| Error::User {
        user: user.name.clone(),
        base: base.map_or_else(
            || "scratch".to_owned(),
            |base| format!("{}@{}", base.store.describe(), base.digest),
        ),
        source,
    })?;
    let for_writing = layout.clone();
    let write = move || for_writing.write_layer(entries, compression);
    let layer = match tokio::task::spawn_blocking(write).await {
        Ok(written) => written?,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    let record = PayloadRecord {
        descriptor: layer.descriptor.clone(),
        diff_id: layer.diff_id.as_digest().clone(),
        foreign: false,
    };
    context.records().remember_payload(key, &record);
    Ok(UserLayer {
        path: layout.blob_path(&layer.descriptor.digest),
        layer,
        reused: false,
    })
}

/// Returns what `image` has of users and groups. Layers that have nothing of them are remembered,
/// as bases have many in common.
async fn find(
    context: &Context,
    base: &ResolvedImage,
    image: &Image,
) -> Result<[Option<ImageFile>; 2], Error> {
    let nearby: Arc<dyn ImageStore> = Arc::new(context.layout()?.repository(Naming::Tags));
    let records = context.records();
    let options = FindOptions {
        nearby: &nearby,
        limit: MAX_FILE,
        is_without: &|layer| records.is_without_users(layer),
    };
    let found = find_files(&base.store, image, [PASSWD, GROUP], options).await?;
    for layer in &found.without {
        records.remember_without_users(layer);
    }
    Ok(found.files)
}

/// Returns what the layer depends on.
fn key(user: &UserRecipe, image: &Image, compression: Compression) -> InputHash {
    let mut key = FieldHasher::new("trilith/user-layer/v1");
    key.field("format", FORMAT_VERSION.to_le_bytes())
        .field("compression", compression.to_string())
        .field("user", user_line(user));
    for layer in image.manifest().layers() {
        key.field("layer", layer.digest.as_str());
    }
    key.finish()
}

/// Returns what is in the layer: files that are there keep their modes and owners.
fn entries(
    user: &UserRecipe,
    passwd: Option<&ImageFile>,
    group: Option<&ImageFile>,
) -> Result<Vec<LayerEntry>, AccountError> {
    let old_passwd = passwd.map(|file| &*file.content);
    let old_group = group.map(|file| &*file.content);
    let Some(made) = with_user(old_passwd, old_group, user)? else {
        return Ok(Vec::new());
    };
    let home = LayerEntry {
        path: user.home.relative().into(),
        kind: EntryKind::Directory { mode: 0o755 },
        owner: user.owner,
    };
    let mut entries = vec![home, file(PASSWD, passwd, made.passwd)];
    entries.extend(made.group.map(|text| file(GROUP, group, text)));
    Ok(entries)
}

fn file(path: &str, old: Option<&ImageFile>, text: Vec<u8>) -> LayerEntry {
    LayerEntry {
        path: path.into(),
        kind: EntryKind::File {
            mode: old.map_or(0o644, |file| file.mode),
            size: text.len() as u64,
            digest: Digest::of(&text),
            content: LayerContent::Bytes(Bytes::from(text)),
        },
        owner: old.map_or(Owner::default(), |file| file.owner),
    }
}
