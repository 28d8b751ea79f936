//! `trilith rebase`: the layers of an image, on another base.

use serde::Serialize;
use trilith_build::{Context, RebaseOptions, rebase};
use trilith_core::Digest;

use crate::args;
use crate::output::{Failure, Output, bytes};

#[derive(Serialize)]
struct Document {
    image: String,
    reference: String,
    digest: Digest,
    old_base: Digest,
    new_base: Digest,
    layers: usize,
    uploaded_bytes: u64,
    uploaded_layer_bytes: u64,
}

pub(crate) async fn run(
    context: &Context,
    args: &args::Rebase,
    output: Output,
) -> Result<(), Failure> {
    let options = RebaseOptions {
        image: args.image.clone(),
        new_base: args.new_base.clone(),
        old_base: args.old_base.clone(),
        tag: args.tag.clone(),
    };
    let report = rebase(context, &options).await?;
    let document = Document {
        image: args.image.to_string(),
        reference: report.reference.to_string(),
        digest: report.digest,
        old_base: report.old_base,
        new_base: report.new_base,
        layers: report.layers,
        uploaded_bytes: report.uploaded_bytes,
        uploaded_layer_bytes: report.uploaded_layer_bytes,
    };
    output.result(&document, || {
        format!(
            "rebased {} onto {}\n  digest {}\n  {} layers taken along, {} of layers uploaded\n  \
             tagged {}\n",
            document.image,
            args.new_base,
            document.digest,
            document.layers,
            bytes(document.uploaded_layer_bytes),
            document.reference,
        )
    })
}
