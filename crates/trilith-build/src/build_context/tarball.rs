//! Build contexts as archives: written to anything, or into a file of their own.

use std::fs::Permissions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use trilith_core::{Digest, EntryKind, StatCache};
use trilith_oci::layer::{Compression, write_archive};

use super::agent_server::{AgentServerContext, load_agent_server_context};
use super::context::{BuildContext, ContextEntry, Dockerfile};
use super::error::BuildContextError;
use super::ignore_file::IgnoreRules;

/// Bytes that are written to a file at once.
const WRITE_SIZE: usize = 128 * 1024;

/// How the archive of a context is made.
#[derive(Clone, Debug, Default)]
pub struct ContextOptions {
    /// What is left out.
    pub ignore: IgnoreRules,
    /// How the archive is compressed. Every engine takes gzip and none.
    pub compression: Compression,
}

/// A context that was written as an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextArchive {
    /// Digest of what was written.
    pub digest: Digest,
    /// Length of what was written, in bytes.
    pub size: u64,
    /// Digest of the tar before it was compressed.
    pub tar_digest: Digest,
    /// How many files there are in it.
    pub files: u64,
    /// How many bytes they hold together.
    pub content_size: u64,
}

impl BuildContext {
    /// Writes the context to `output` as an archive.
    ///
    /// # Errors
    /// A file is not what it was when it was listed, or cannot be read; `output` fails. What was
    /// written by then is not an archive.
    pub fn write(
        &self,
        compression: Compression,
        output: impl Write,
    ) -> Result<ContextArchive, BuildContextError> {
        let (mut files, mut content_size) = (0, 0);
        for entry in self.archive_entries() {
            if let EntryKind::File { size, .. } = entry.entry.kind {
                files += 1;
                content_size += size;
            }
        }
        let entries = self.archive_entries().map(ContextEntry::to_layer_entry);
        let archive = write_archive(entries.collect(), compression, output)?;
        Ok(ContextArchive {
            digest: archive.digest,
            size: archive.size,
            tar_digest: archive.tar_digest,
            files,
            content_size,
        })
    }

    /// Writes the context into the file `output`, which is there whole or not at all.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_file(
        &self,
        compression: Compression,
        output: &Path,
    ) -> Result<ContextArchive, BuildContextError> {
        let directory = match output.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut file = tempfile::Builder::new()
            .prefix(".context-")
            // Less what the umask takes away.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .map_err(BuildContextError::io("write into", directory))?;
        let buffered = BufWriter::with_capacity(WRITE_SIZE, &mut file);
        let archive = self.write(compression, buffered)?;
        file.persist(output)
            .map_err(|failed| BuildContextError::io("create", output)(failed.error))?;
        Ok(archive)
    }
}

/// Writes the build context in `directory` into the file `output`, which is there whole or not at
/// all.
///
/// # Errors
/// As [`BuildContext::load`] and [`BuildContext::write`].
pub fn create_build_context_tarball(
    directory: &Path,
    dockerfile: &Dockerfile,
    output: &Path,
    options: &ContextOptions,
    cache: &StatCache,
) -> Result<ContextArchive, BuildContextError> {
    let context = BuildContext::load(directory, dockerfile, &options.ignore, cache)?;
    context.write_file(options.compression, output)
}

/// Writes the context of the agent server in the checkout at `sdk_root` into the file `output`,
/// and returns its list too.
///
/// # Errors
/// As [`load_agent_server_context`] and [`BuildContext::write`].
pub fn create_agent_server_context_tarball(
    sdk_root: &Path,
    dockerfile: &Dockerfile,
    output: &Path,
    compression: Compression,
    cache: &StatCache,
) -> Result<(ContextArchive, AgentServerContext), BuildContextError> {
    let loaded = load_agent_server_context(sdk_root, dockerfile, cache)?;
    let archive = loaded.context.write_file(compression, output)?;
    Ok((archive, loaded))
}
