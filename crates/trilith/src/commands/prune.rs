//! `trilith prune`: what nobody needs any more, removed.

use std::fmt::Write as _;

use serde::Serialize;
use trilith_build::{
    Context, PruneOptions, PruneReport, RegistryPruneReport, prune, prune_registry,
};
use trilith_core::{Digest, Level, Repository};

use crate::args;
use crate::output::{Failure, Output, bytes};

#[derive(Serialize)]
struct Document {
    dry_run: bool,
    images: Vec<Pruned>,
    layers: usize,
    blobs: usize,
    records: usize,
    temporary: usize,
    freed_bytes: u64,
    kept_bytes: u64,
    kept_images: usize,
    running_images: usize,
    spared_blobs: usize,
}

#[derive(Serialize)]
struct Pruned {
    image: String,
    digest: Digest,
    level: Option<Level>,
    unused_seconds: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct RegistryDocument {
    repository: String,
    dry_run: bool,
    images: Vec<Tag>,
    manifests: usize,
    kept_images: usize,
    unknown_images: usize,
    running_images: usize,
}

#[derive(Serialize)]
struct Tag {
    image: String,
    digest: Digest,
    level: Option<Level>,
    unused_seconds: u64,
}

impl RegistryDocument {
    fn new(repository: &Repository, report: RegistryPruneReport, dry_run: bool) -> Self {
        let images = report.images.into_iter();
        let images = images.map(|(reference, digest, level, unused)| Tag {
            image: reference.to_string(),
            digest,
            level,
            unused_seconds: unused.as_secs(),
        });
        Self {
            repository: repository.to_string(),
            dry_run,
            images: images.collect(),
            manifests: report.manifests,
            kept_images: report.kept_images,
            unknown_images: report.unknown_images,
            running_images: report.running_images,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let verb = verb(self.dry_run);
        for tag in &self.images {
            let unused = age(tag.unused_seconds);
            let _infallible = writeln!(text, "{verb} {}, unused for {unused}", tag.image);
        }
        let (tags, manifests) = (self.images.len(), self.manifests);
        let _infallible = writeln!(text, "{verb} {tags} tags, {manifests} manifests");
        let (kept, unknown) = (self.kept_images, self.unknown_images);
        let _infallible = writeln!(text, "  {kept} tags kept, {unknown} of unknown age");
        if self.dry_run && !self.images.is_empty() {
            text.push_str("  pass --yes to remove them\n");
        }
        text
    }
}

fn verb(dry_run: bool) -> &'static str {
    if dry_run { "would remove" } else { "removed" }
}

pub(crate) async fn run(
    context: &Context,
    args: &args::Prune,
    output: Output,
) -> Result<(), Failure> {
    let options = PruneOptions {
        older_than: args.older_than,
        keep_size: args.keep_size,
        keep_levels: args.keep_level.clone(),
        dry_run: args.dry_run || (args.registry.is_some() && !args.yes),
    };
    if let Some(repository) = &args.registry {
        let report = prune_registry(context, repository, &options).await?;
        let document = RegistryDocument::new(repository, report, options.dry_run);
        return output.result(&document, || document.text());
    }
    let document = document(prune(context, &options).await?, args.dry_run);
    output.result(&document, || text(&document))
}

fn document(report: PruneReport, dry_run: bool) -> Document {
    let images = report.images.into_iter().map(|image| Pruned {
        image: image.name,
        digest: image.digest,
        level: image.level,
        unused_seconds: image.unused.as_secs(),
        bytes: image.bytes,
    });
    Document {
        dry_run,
        images: images.collect(),
        layers: report.layers,
        blobs: report.blobs,
        records: report.records,
        temporary: report.temporary,
        freed_bytes: report.freed_bytes,
        kept_bytes: report.kept_bytes,
        kept_images: report.kept_images,
        running_images: report.running_images,
        spared_blobs: report.spared_blobs,
    }
}

fn text(document: &Document) -> String {
    let mut text = String::new();
    let verb = verb(document.dry_run);
    for image in &document.images {
        let size = bytes(image.bytes);
        let unused = age(image.unused_seconds);
        let _infallible = writeln!(text, "{verb} {}, {size}, unused for {unused}", image.image);
    }
    let Document {
        layers,
        blobs,
        records,
        temporary,
        ..
    } = document;
    let freed = bytes(document.freed_bytes);
    let _infallible = writeln!(
        text,
        "{verb} {} images, {layers} cached layers, {records} records, {temporary} temporary files\n  \
         {blobs} blobs, {freed}",
        document.images.len(),
    );
    let kept = bytes(document.kept_bytes);
    let _infallible = writeln!(text, "  {} images kept, {kept}", document.kept_images);
    if document.running_images > 0 {
        let count = document.running_images;
        let _infallible = writeln!(text, "  {count} of them run in containers");
    }
    if document.spared_blobs > 0 {
        let count = document.spared_blobs;
        let _infallible = writeln!(text, "  {count} blobs left to builds that run");
    }
    text
}

/// Returns a time for people, in its largest whole unit: `3 d`.
fn age(seconds: u64) -> String {
    let units = [("d", 24 * 60 * 60), ("h", 60 * 60), ("min", 60)];
    let unit = units.into_iter().find(|(_, unit)| seconds >= *unit);
    let (name, unit) = unit.unwrap_or(("s", 1));
    format!("{} {name}", seconds / unit)
}
