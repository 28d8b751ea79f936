//! What an image is: platforms, layers, configuration, and the inputs it was made from.

use trilith_core::{Digest, InputsDocument, Platform};
use trilith_oci::image::{Image, Index, Manifest};
use trilith_oci::place::Place;
use trilith_oci::{Descriptor, Name, RawManifest, media_type};

use crate::carried;
use crate::context::Context;
use crate::error::Error;

/// An image, described.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The image as it was named.
    pub image: String,
    /// What the name points to: a manifest or an index.
    pub top: RawManifest,
    /// The platforms there are.
    pub platforms: Vec<Platform>,
    /// The image of the platform asked for.
    pub selected: Image,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// The inputs it was made from, where it carries them.
    pub inputs: Option<InputsDocument>,
}

impl Inspection {
    /// Returns the layers, bottom first.
    #[must_use]
    pub fn layers(&self) -> &[Descriptor] {
        self.selected.manifest().layers()
    }
}

/// Describes the image at `place`; of an index the image for `platform`, for this machine if
/// none is given, and the only one if there is but one.
///
/// # Errors
/// The image does not exist, cannot be read, or has nothing for the platform.
pub async fn inspect(
    context: &Context,
    place: &Place,
    platform: Option<&Platform>,
) -> Result<Inspection, Error> {
    let host = Platform::host();
    let (store, name) = context.open(place, platform.unwrap_or(&host)).await?;
    let top = store.fetch_manifest(&name).await?;
    let image = place.to_string();
    let (platforms, wanted) = if media_type::is_index(&top.descriptor.media_type) {
        let platforms = Index::parse(&top)?.platforms();
        let only = (platforms.len() == 1).then(|| platforms[0].clone());
        let wanted = platform.cloned().or(only).unwrap_or(host);
        (platforms, Some(wanted))
    } else {
        (Vec::new(), platform.cloned())
    };
    let by_digest = Name::Digest(top.descriptor.digest.clone());
    let (selected, manifest) = if let Some(platform) = wanted {
        let resolved = Image::load(&*store, &by_digest, &platform).await?;
        (resolved.image, resolved.manifest.digest)
    } else {
        let image = Image::fetch(&*store, Manifest::parse(&top)?).await?;
        (image, top.descriptor.digest.clone())
    };
    let inputs = carried::of_image(&*store, &selected, &top.descriptor, &image).await?;
    let platforms = if platforms.is_empty() {
        vec![selected.config().platform()]
    } else {
        platforms
    };
    Ok(Inspection {
        image,
        top,
        platforms,
        selected,
        manifest,
        inputs,
    })
}
