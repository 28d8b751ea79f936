//! Rebase: the layers of an image that exists, put on another base without a build.
//!
//! Only what graft made is ever moved: its layers are files that do not depend on what lies below,
//! but for that of a named user, which is made anew of the new base.
//! Steps of a Dockerfile ran on the base and may have read anything of it, so such an image is built
//! again. That the image really is what graft makes of its old base, its layers and its settings is
//! checked before anything is written, by making it once more: the digest has to be the same. What
//! comes of the new base is then, bit for bit, what a build on it gives.

use std::collections::BTreeMap;
use std::path::PathBuf;

use trilith_core::{
    ConfigRecipe, Digest, Input, InputList, InputsDocument, Level, Platform, Reference, Tag,
    UserRecipe,
};
use trilith_oci::image::{Image, Index, Manifest};
use trilith_oci::layer::{Compression, Layer};
use trilith_oci::place::Place;
use trilith_oci::publish::{
    BlobOrigin, BlobOutcome, DEFAULT_CONCURRENCY, Publication, PublicationBlob, publish,
};
use trilith_oci::{
    BlobSource, Descriptor, Graft, GraftLayer, ImageStore, Name, RawManifest, graft, media_type,
};

use crate::build::add_level;
use crate::builder::BuiltLevel;
use crate::carried;
use crate::context::{Context, Event};
use crate::error::Error;
use crate::labels;
use crate::layers::GRAFTED;
use crate::load::{ResolvedImage, resolve};
use crate::target::{Destination, Target};
use crate::user;

/// The input that is the digest of the base.
const BASE: &str = "base";
/// The input that is the user, whose layer is made for the base.
const USER: &str = "user";

/// What to put on what.
#[derive(Clone, Debug)]
pub struct RebaseOptions {
    /// The image whose layers are taken.
    pub image: Reference,
    /// The base they are put on.
    pub new_base: Reference,
    /// Where the base that the image stands on is; where there is none, in the repository of the
    /// new one.
    pub old_base: Option<Reference>,
    /// The tag of the result, in the repository of the image.
    pub tag: Tag,
}

/// What a rebase came to.
#[derive(Clone, Debug)]
pub struct RebaseReport {
    /// The result.
    pub reference: Reference,
    /// Its digest.
    pub digest: Digest,
    /// What the image stood on.
    pub old_base: Digest,
    /// What the result stands on.
    pub new_base: Digest,
    /// How many layers were taken along, for each platform.
    pub layers: usize,
    /// Bytes of blobs sent to the registry.
    pub uploaded_bytes: u64,
    /// Bytes of layers among them; none where bases and image share a registry.
    pub uploaded_layer_bytes: u64,
}

/// An image of one platform, taken apart.
struct Parts {
    platform: Platform,
    image: Image,
    own: Vec<GraftLayer>,
}

/// Puts the layers of an image on another base.
///
/// # Errors
/// [`Error::NotRebasable`] where the image is not what graft made of its base, or the bases are for
/// other platforms. Nothing has changed then.
pub async fn rebase(context: &Context, options: &RebaseOptions) -> Result<RebaseReport, Error> {
    let repository = options.image.repository();
    let target = Target::open(context, repository, Destination::Registry)?;
    let name = options.image.to_string();
    let unsafe_because = |reason: String| Error::NotRebasable {
        image: name.clone(),
        reason,
    };
    let place = Place::Registry(options.image.clone());
    let resolved = base(context, &place).await?;
    let top = target.store.fetch_manifest(&resolved.name()).await?;
    let document = carried::load(&*target.store, &top, &name)
        .await?
        .ok_or_else(|| Error::NoInputs {
            image: name.clone(),
        })?;
    let old = old_base(&document).map_err(unsafe_because)?;
    let parts = parts(&*target.store, &top, &document).await?;
    let mut parts = parts.map_err(unsafe_because)?;
    let user = named_user(&document, &parts).map_err(unsafe_because)?;

    let old_place = match &options.old_base {
        Some(reference) => reference.repository(),
        None => options.new_base.repository(),
    };
    let old_place = Place::Registry(old_place.with_digest(old.clone()));
    let old_image = base(context, &old_place).await?;
    let again = match grafted(&old_image, &parts, &document, document.inputs()).await {
        Err(Error::Oci(trilith_oci::Error::NotFound { .. })) => {
            return Err(unsafe_because(format!(
                "its base is not there as `{old_place}`, to compare with; `--old-base` names another \
                 repository"
            )));
        }
        other => other?,
    };
    if again.top.descriptor.digest != top.descriptor.digest {
        let made = &again.top.descriptor.digest;
        return Err(unsafe_because(format!(
            "its base, layers and settings give `{made}`, which is something else"
        )));
    }

    let new_image = base(context, &Place::Registry(options.new_base.clone())).await?;
    let inputs = on_base(document.inputs(), &new_image.digest)?;
    let made = match &user {
        Some(user) => make_users(context, user, &new_image, &mut parts).await?,
        None => BTreeMap::new(),
    };
    let built = grafted(&new_image, &parts, &document, &inputs).await?;
    let digest = built.top.descriptor.digest.clone();
    let mut publication = Publication {
        blobs: blobs(&built, &parts, &made, &new_image, &target),
        tags: vec![(options.tag.clone(), digest.clone())],
        ..Publication::default()
    };
    add_level(&mut publication, &inputs, &built);
    let described = target.store.describe();
    context.observe(Event::Publishing { place: &described });
    let published = publish(&*target.store, &publication, DEFAULT_CONCURRENCY).await?;
    let layers = built.images.iter();
    let layers: Vec<&Descriptor> = layers
        .flat_map(|(_, image)| image.manifest().layers())
        .collect();
    let sent = published.blobs.iter().filter(|blob| {
        let is_layer = layers.iter().any(|layer| layer.digest == blob.digest);
        is_layer && blob.outcome == BlobOutcome::Uploaded
    });
    Ok(RebaseReport {
        reference: repository.with_tag(options.tag.clone()),
        digest,
        old_base: old,
        new_base: new_image.digest,
        layers: parts.first().map_or(0, |parts| parts.own.len()) - usize::from(user.is_some()),
        uploaded_bytes: published.uploaded_bytes(),
        uploaded_layer_bytes: sent.map(|blob| blob.size).sum(),
    })
}

/// Returns what `place` points to.
async fn base(context: &Context, place: &Place) -> Result<ResolvedImage, Error> {
    let resolved = resolve(context, place, &Platform::host()).await?;
    resolved.ok_or_else(|| {
        let object = format!("image `{place}`");
        trilith_oci::Error::NotFound { object }.into()
    })
}

/// Returns the digest of the base that `document` names.
///
/// # Errors
/// Why the image cannot be rebased.
fn old_base(document: &InputsDocument) -> Result<Digest, String> {
    let inputs = document.inputs().as_slice();
    if inputs
        .iter()
        .any(|input| input.name.starts_with("dockerfile"))
    {
        return Err("an engine ran its steps on the base, and they may depend on it".to_owned());
    }
    let base = inputs.iter().find(|input| input.name == BASE);
    match base.map(|base| &base.digest) {
        Some(digest) if *digest != Digest::of(b"scratch") => Ok(digest.clone()),
        _ => Err("it stands on no base image".to_owned()),
    }
}

/// Takes the image of each platform apart; the inner error says why it cannot be rebased.
async fn parts(
    store: &dyn ImageStore,
    top: &RawManifest,
    document: &InputsDocument,
) -> Result<Result<Vec<Parts>, String>, Error> {
    let manifests = if media_type::is_index(&top.descriptor.media_type) {
        let children = Index::parse(top)?.manifests().to_vec();
        let mut manifests = Vec::new();
        for child in children {
            manifests.push(store.fetch_manifest(&Name::Digest(child.digest)).await?);
        }
        manifests
    } else {
        vec![top.clone()]
    };
    let inputs = document.inputs().as_slice().iter();
    let expected = inputs
        .filter(|input| input.name == USER || input.name.starts_with("layer/"))
        .count();
    let mut parts = Vec::new();
    for manifest in manifests {
        let image = Image::fetch(store, Manifest::parse(&manifest)?).await?;
        let own = own_layers(&image);
        if own.len() != expected {
            let found = own.len();
            return Ok(Err(format!(
                "{expected} layers were grafted onto its base, of which it has {found}"
            )));
        }
        parts.push(Parts {
            platform: image.config().platform(),
            image,
            own,
        });
    }
    Ok(Ok(parts))
}

/// Returns the topmost layers, as many as graft put there, lowest first.
fn own_layers(image: &Image) -> Vec<GraftLayer> {
    let config = image.config();
    let history = config.history();
    let made_layers = history.iter().rev().filter(|entry| !entry.empty_layer);
    let layers = image
        .manifest()
        .layers()
        .iter()
        .zip(config.diff_ids())
        .rev();
    let mut own = Vec::new();
    for (entry, (layer, diff_id)) in made_layers.zip(layers) {
        let created_by = entry.created_by.as_deref().unwrap_or_default();
        if !created_by.starts_with(GRAFTED) {
            break;
        }
        own.push(GraftLayer {
            layer: Layer {
                descriptor: Descriptor::new(&layer.media_type, layer.digest.clone(), layer.size),
                diff_id: diff_id.clone(),
            },
            created_by: created_by.to_owned(),
            comment: entry.comment.clone(),
        });
    }
    own.reverse();
    own
}

/// Returns the user whose layer is the lowest of `parts`. The list of inputs has its hash alone, the
/// history of the image all of it.
///
/// # Errors
/// Why the image cannot be rebased.
fn named_user(document: &InputsDocument, parts: &[Parts]) -> Result<Option<UserRecipe>, String> {
    let mut inputs = document.inputs().as_slice().iter();
    let Some(input) = inputs.find(|input| input.name == USER) else {
        return Ok(None);
    };
    let lowest = parts.first().and_then(|parts| parts.own.first());
    let user = lowest.and_then(|layer| user::parse_created_by(&layer.created_by));
    let user = user.filter(|user| Input::of_user(user) == *input);
    user.map(Some)
        .ok_or_else(|| "its history does not say which user it has".to_owned())
}

/// Replaces the layer of `user` in all of `parts` by that for `base`. Returns where each new one is.
async fn make_users(
    context: &Context,
    user: &UserRecipe,
    base: &ResolvedImage,
    parts: &mut [Parts],
) -> Result<BTreeMap<Digest, PathBuf>, Error> {
    let mut made = BTreeMap::new();
    for Parts { platform, own, .. } in parts {
        let below = Image::load(&*base.store, &base.name(), platform).await?;
        for layer in own.iter_mut().take(1) {
            let media_type = &layer.layer.descriptor.media_type;
            let compression = Compression::of_media_type(media_type).unwrap_or_default();
            let new =
                user::ensure_layer(context, user, Some(base), &below.image, compression).await?;
            made.insert(new.layer.descriptor.digest.clone(), new.path);
            layer.layer = new.layer;
        }
    }
    Ok(made)
}

/// Returns the image of `parts` on `base`, with the keys of `inputs`.
async fn grafted(
    base: &ResolvedImage,
    parts: &[Parts],
    document: &InputsDocument,
    inputs: &InputList,
) -> Result<BuiltLevel, Error> {
    let level = document.level();
    let labels = labels::labels(&inputs.keys(), level);
    let mut images = Vec::new();
    for Parts {
        platform,
        image,
        own,
    } in parts
    {
        let below = Image::load(&*base.store, &base.name(), platform)
            .await?
            .image;
        let config = config(image, document.inputs());
        let grafted = graft(
            &below,
            &Graft {
                layers: own,
                config: (level == Level::Source).then_some(&config),
                labels: &labels,
                base: Some(&base.digest),
            },
        )?;
        let grafted = carried::put_into(&grafted, inputs, level)?;
        images.push((platform.clone(), grafted));
    }
    Ok(BuiltLevel::new(level, images))
}

/// Returns the settings that the recipe made: those that the list of inputs names, with the values
/// that the image has.
fn config(image: &Image, inputs: &InputList) -> ConfigRecipe {
    let config = image.config();
    let words = |words: Vec<&str>| Some(words.into_iter().map(str::to_owned).collect());
    let env: BTreeMap<&str, &str> = config
        .env()
        .into_iter()
        .filter_map(|variable| variable.split_once('='))
        .collect();
    let labels = config.labels();
    let mut recipe = ConfigRecipe::default();
    for Input { name, .. } in inputs.as_slice() {
        let Some(setting) = name.strip_prefix("config/") else {
            continue;
        };
        let (kind, name) = setting.split_once('/').unwrap_or((setting, ""));
        match kind {
            "entrypoint" => recipe.entrypoint = words(config.entrypoint()),
            "cmd" => recipe.cmd = words(config.cmd()),
            "user" => recipe.user = config.user().map(str::to_owned),
            "workdir" => recipe.workdir = config.workdir().and_then(|path| path.parse().ok()),
            "stop-signal" => recipe.stop_signal = config.stop_signal().map(str::to_owned),
            "expose" => recipe.expose.push(name.to_owned()),
            "env" => {
                let value = env.get(name).copied().unwrap_or_default();
                recipe.env.insert(name.to_owned(), value.to_owned());
            }
            "label" => {
                let value = labels.get(name).copied().unwrap_or_default();
                recipe.labels.insert(name.to_owned(), value.to_owned());
            }
            // What is not known here makes another digest, and that is noticed.
            _ => {}
        }
    }
    recipe
}

/// Returns `inputs` with another base.
fn on_base(inputs: &InputList, base: &Digest) -> Result<InputList, Error> {
    let inputs = inputs.as_slice().iter().cloned().map(|mut input| {
        if input.name == BASE {
            input.digest = base.clone();
        }
        input
    });
    Ok(InputList::new(inputs.collect())?)
}

/// Returns every layer of the result, and where it may come from; `made` are those in the store.
fn blobs(
    built: &BuiltLevel,
    parts: &[Parts],
    made: &BTreeMap<Digest, PathBuf>,
    base: &ResolvedImage,
    target: &Target,
) -> Vec<PublicationBlob> {
    let own = parts.iter().flat_map(|parts| &parts.own);
    let own: Vec<&Digest> = own.map(|own| &own.layer.descriptor.digest).collect();
    let layers = built
        .images
        .iter()
        .flat_map(|(_, image)| image.manifest().layers());
    let blob = |layer: &Descriptor| PublicationBlob {
        descriptor: layer.clone(),
        origins: if let Some(path) = made.get(&layer.digest) {
            vec![BlobOrigin::Upload(BlobSource::File(path.clone()))]
        } else if own.contains(&&layer.digest) {
            vec![BlobOrigin::Present]
        } else {
            base.origins(target)
        },
    };
    layers.map(blob).collect()
}
