//! `trilith copy`: an image from one place to another.

use serde::Serialize;
use trilith_build::Context;
use trilith_core::Digest;
use trilith_oci::place::Place;

use crate::args;
use crate::output::{Failure, Output, bytes};

#[derive(Serialize)]
struct Document {
    from: String,
    to: String,
    digest: Digest,
    blobs_copied: usize,
    blobs_skipped: usize,
    blobs_mounted: usize,
    bytes_copied: u64,
}

pub(crate) async fn run(
    context: &Context,
    args: &args::Copy,
    output: Output,
) -> Result<(), Failure> {
    let from: Place = args.from.parse().map_err(Failure::usage)?;
    let to: Place = args.to.parse().map_err(Failure::usage)?;
    let report = trilith_build::copy(context, &from, &to, args.platform.as_ref()).await?;
    let document = Document {
        from: from.to_string(),
        to: to.to_string(),
        digest: report.digest,
        blobs_copied: report.blobs_copied,
        blobs_skipped: report.blobs_skipped,
        blobs_mounted: report.blobs_mounted,
        bytes_copied: report.bytes_copied,
    };
    output.result(&document, || {
        format!(
            "copied {from} to {to}\n  digest {}\n  {} blobs copied ({}), {} mounted, {} already there\n",
            document.digest,
            document.blobs_copied,
            bytes(document.bytes_copied),
            document.blobs_mounted,
            document.blobs_skipped,
        )
    })
}
