//! Container images as values, and the places they are kept.
//!
//! Knows descriptors, manifests, layers, the OCI layout, archives and registries; knows no
//! Dockerfile and no recipe, and of engines only how they save and load an image.

pub mod archive;
pub mod copy;
mod decompress;
mod descriptor;
mod diff_id;
mod error;
mod graft;
pub mod image;
pub mod layer;
pub mod layout;
mod links;
pub mod media_type;
pub mod place;
pub mod publish;
mod reading;
pub mod registry;
pub mod rootfs;
mod store;
mod tar_reader;
#[cfg(test)]
mod testing;
pub mod transfer;
mod verified;

pub use descriptor::{Descriptor, DescriptorPlatform};
pub use diff_id::DiffId;
pub use error::{Error, Kind};
pub use graft::{Graft, GraftLayer, graft};
pub use store::{
    BlobSource, BlobStream, ImageStore, MAX_MANIFEST_SIZE, Mount, Name, Pushed, RawManifest,
    read_blob,
};
