//! Copies of images from place to place, and of what was just built to where it is wanted.

use std::sync::Arc;

use trilith_core::{Digest, Platform};
use trilith_oci::copy::{CopyOptions, CopyReport};
use trilith_oci::layout::Naming;
use trilith_oci::place::Place;
use trilith_oci::transfer::{TransferOptions, transfer, write_destination};
use trilith_oci::{ImageStore, Name};

use crate::context::{Context, Event};
use crate::error::Error;
use crate::report::BuildReport;

/// Copies the image at `from`, or of an index the image for `platform`, to `to`.
///
/// # Errors
/// The image cannot be read or written. What was at `to` is then as it was before.
pub async fn copy(
    context: &Context,
    from: &Place,
    to: &Place,
    platform: Option<&Platform>,
) -> Result<CopyReport, Error> {
    let host = Platform::host();
    // Reading from an archive or writing to one: either may need a place for what is large.
    let larger = if matches!(from, Place::Registry(_) | Place::Layout { .. }) {
        to
    } else {
        from
    };
    let opening = context.opening(larger, platform.unwrap_or(&host))?;
    let options = TransferOptions {
        platform: platform.cloned(),
        ..TransferOptions::default()
    };
    let report = transfer(from, to, &opening, &options).await?;
    warn(context, &report);
    Ok(report)
}

/// Copies what was built into the local store to `to`.
///
/// # Errors
/// See [`copy`].
pub async fn export(context: &Context, report: &BuildReport, to: &Place) -> Result<(), Error> {
    let Some(digest) = report.digest.clone() else {
        return Ok(());
    };
    let naming = Naming::References(report.reference.repository().clone());
    let store = Arc::new(context.layout()?.repository(naming));
    write(context, store, &digest, to).await
}

/// Writes the image `digest` of `store` to `to`.
pub(crate) async fn write(
    context: &Context,
    store: Arc<dyn ImageStore>,
    digest: &Digest,
    to: &Place,
) -> Result<(), Error> {
    let opening = context.opening(to, &Platform::host())?;
    let options = CopyOptions::default();
    let name = Name::Digest(digest.clone());
    let written = write_destination(to, store, &name, &opening, options).await?;
    warn(context, &written);
    Ok(())
}

fn warn(context: &Context, report: &CopyReport) {
    for warning in &report.warnings {
        context.observe(Event::Warning(warning));
    }
}
