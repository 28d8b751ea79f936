//! The list of inputs that every image carries: in its configuration, or beside it.
//!
//! A short one is a field of the configuration, where no tool that copies images loses it and where it
//! costs no request, as BuildKit keeps its inline cache there. A long one, or that of an image that an
//! engine has made, is an artifact whose subject is the image (`docs/inputs.md`).

use serde_json::Value;
use trilith_core::{InputList, InputsDocument, Level};
use trilith_oci::image::{Image, Index, Manifest};
use trilith_oci::publish::{Publication, PublicationBlob};
use trilith_oci::{Descriptor, ImageStore, Name, RawManifest, media_type, read_blob};

use crate::error::Error;
use crate::labels;

/// The field of the configuration.
const FIELD: &str = media_type::TRILITH_INPUTS;
/// The longest list, in bytes, that goes into the configuration: some 500 files. Whoever runs an
/// image reads its configuration.
const LONGEST: usize = 64 << 10;
/// The most bytes of a list that are read, enough for a million files.
const MAX_SIZE: u64 = 256 << 20;

/// Returns `image` with the list of its inputs in it where that is short, and without any of what it
/// was made from.
///
/// # Errors
/// As [`Image::with_config_field`].
pub(crate) fn put_into(image: &Image, inputs: &InputList, level: Level) -> Result<Image, Error> {
    let document = InputsDocument::new(inputs, level).to_json();
    Ok(image.with_config_field(FIELD, field(&document))?)
}

/// Returns `document` as a field of a configuration, `None` where it is too long.
fn field(document: &str) -> Option<Value> {
    let is_short = document.len() <= LONGEST;
    is_short.then(|| serde_json::from_str(document).ok())?
}

/// Returns the list that is in `image`, `None` where there is none or it is not its own.
fn inside(image: &Image) -> Option<InputsDocument> {
    let field = image.config().field(FIELD)?.to_string();
    let document = InputsDocument::parse(field.as_bytes()).ok()?;
    // What another tool made of an image has the field still.
    let key = labels::key(image, document.level())?;
    (key == document.key().to_hex()).then_some(document)
}

/// Adds the list of the inputs of `images`, which are of `level` and have `top` as manifest or index,
/// to `publication`, unless it is in them.
pub(crate) fn attach<'a>(
    publication: &mut Publication,
    inputs: &InputList,
    level: Level,
    mut images: impl Iterator<Item = &'a Image>,
    top: &RawManifest,
) {
    let document = InputsDocument::new(inputs, level).to_json();
    let own = field(&document);
    if own.is_some() && images.all(|image| image.config().field(FIELD) == own.as_ref()) {
        return;
    }
    let document = PublicationBlob::of(FIELD, document.into());
    let (empty, bytes) = Manifest::empty_config();
    let artifact = Manifest::artifact(FIELD, &document.descriptor, &top.descriptor);
    let empty = PublicationBlob::of(&empty.media_type, bytes);
    publication.blobs.extend([empty, document]);
    publication.manifests.push(artifact.to_raw());
}

/// Returns the list that the image or index `top` carries, `None` where it carries none. `name` is for
/// errors.
///
/// # Errors
/// The image cannot be read, or its list is broken.
pub(crate) async fn load(
    store: &dyn ImageStore,
    top: &RawManifest,
    name: &str,
) -> Result<Option<InputsDocument>, Error> {
    let manifest = if media_type::is_index(&top.descriptor.media_type) {
        match Index::parse(top)?.manifests().first() {
            Some(first) => {
                store
                    .fetch_manifest(&Name::Digest(first.digest.clone()))
                    .await?
            }
            None => return Ok(None),
        }
    } else {
        top.clone()
    };
    let image = Image::fetch(store, Manifest::parse(&manifest)?).await?;
    of_image(store, &image, &top.descriptor, name).await
}

/// Returns the list that `image` carries, which is `top` or one of its images.
///
/// # Errors
/// As [`load`].
pub(crate) async fn of_image(
    store: &dyn ImageStore,
    image: &Image,
    top: &Descriptor,
    name: &str,
) -> Result<Option<InputsDocument>, Error> {
    match inside(image) {
        Some(document) => Ok(Some(document)),
        None => beside(store, top, name).await,
    }
}

/// Returns the list that is attached to the image or index `top`, `None` where there is none.
///
/// # Errors
/// It cannot be read, or is broken.
async fn beside(
    store: &dyn ImageStore,
    top: &Descriptor,
    name: &str,
) -> Result<Option<InputsDocument>, Error> {
    let referrers = store.referrers(&top.digest, FIELD).await?;
    let Some(referrer) = referrers.first() else {
        return Ok(None);
    };
    let referrer = Name::Digest(referrer.digest.clone());
    let manifest = Manifest::parse(&store.fetch_manifest(&referrer).await?)?;
    let [content] = manifest.layers() else {
        return Ok(None);
    };
    let bytes = read_blob(store, content, MAX_SIZE).await?;
    let document = InputsDocument::parse(&bytes).map_err(|source| Error::Inputs {
        image: name.to_owned(),
        source,
    })?;
    Ok(Some(document))
}
