//! The journal of batches: an append-only file of JSON lines, each on disk before it is told.
//!
//! A run begins with a line that says so; every image that is done with, whether it was built,
//! reused or failed, adds one. A line that a crash cut off is no line; the next run ends it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use trilith_core::{Digest, InputHash, Level};
use trilith_oci::Kind;

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum JournalLine {
    /// A run begins.
    Run(RunRecord),
    /// An image is done with.
    Image(Box<ImageLine>),
}

/// The beginning of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Tells runs in one journal apart: 16 hexadecimal digits.
    pub run: String,
    /// When it began, in seconds since the Unix epoch.
    pub started: f64,
    /// How many images it is about.
    pub images: usize,
    /// The version of Trilith.
    pub trilith: String,
}

/// How an image of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    /// It was built and published.
    Built,
    /// It was there, of the same inputs.
    Reused,
    /// It is not there.
    Failed,
}

/// An image that is done with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageLine {
    /// The run it belongs to.
    pub run: String,
    /// The base as the list has it.
    pub base: String,
    /// Its line in the list.
    pub line: usize,
    /// The variant; empty without a matrix.
    pub variant: String,
    /// What the base pointed to; `null` for scratch and where it could not be told.
    pub base_digest: Option<Digest>,
    /// The source image.
    pub reference: Option<String>,
    /// The tags that were written, least specific first.
    pub tags: Vec<String>,
    /// What the source tag points to.
    pub digest: Option<Digest>,
    /// The key of the image's inputs, which it carries too.
    pub key: Option<InputHash>,
    /// How it ended.
    pub status: BatchStatus,
    /// The level that was reused or built from; `null` for the base.
    pub level: Option<Level>,
    /// Why the plan was what it was.
    pub reason: String,
    /// How often it was tried, earlier processes of the run included.
    pub attempts: u32,
    /// When the last attempt began, in seconds since the run did.
    pub at: f64,
    /// How long the last attempt took, by phase.
    pub seconds: PhaseSeconds,
    /// Bytes of blobs sent.
    pub uploaded_bytes: u64,
    /// What went wrong.
    pub error: Option<BatchError>,
    /// What an engine wrote.
    pub log: Option<PathBuf>,
}

impl ImageLine {
    /// Returns why the image failed: the innermost cause, the same whatever base it hit.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        let cause = error.causes.last().unwrap_or(&error.message);
        Some(cause.replace(&self.base, "BASE"))
    }
}

/// How long the phases of an image took, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseSeconds {
    /// Until the base's digest was known.
    pub resolve: f64,
    /// Until it was known what exists.
    pub plan: f64,
    /// Until the images were made.
    pub build: f64,
    /// Until all tags were written.
    pub publish: f64,
}

/// Why an image failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchError {
    /// `usage`, `not_found`, `denied`, `unavailable`, `corrupt` or `system`.
    pub kind: String,
    /// What failed.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("cannot {action} the manifest `{}`", path.display())]
    Io {
        /// What could not be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it is none of ours.
    #[error("`{}` is no manifest of a batch: line {line}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// Why.
        reason: String,
    },
    /// It is there, and nobody said to go on with it.
    #[error("the manifest `{}` exists", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no run to go on with.
    #[error("there is no run to resume in `{}`", path.display())]
    NoRun {
        /// The file.
        path: PathBuf,
    },
}

impl JournalError {
    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } => Kind::System,
            Self::Malformed { .. } | Self::Exists { .. } | Self::NoRun { .. } => Kind::Usage,
        }
    }

    /// Returns what to do next.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => Some(
                "pass `--resume` to go on with its last run, or name another file with `--manifest`"
                    .to_owned(),
            ),
            Self::NoRun { .. } => Some("leave out `--resume` to begin one".to_owned()),
            Self::Io { .. } | Self::Malformed { .. } => None,
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Reads a journal, but for a last line that is not whole.
///
/// # Errors
/// The file cannot be read, or a line of it is none of ours.
pub fn read_journal(path: &Path) -> Result<Vec<JournalLine>, JournalError> {
    let mut text = Vec::new();
    let mut file = File::open(path).map_err(JournalError::io("open", path))?;
    file.read_to_end(&mut text)
        .map_err(JournalError::io("read", path))?;
    let whole = text.iter().rposition(|&byte| byte == b'\n');
    let whole = &text[..whole.map_or(0, |end| end)];
    let lines = whole.split(|&byte| byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty());
    let parse = |(index, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|error| JournalError::Malformed {
            path: path.to_owned(),
            line: index + 1,
            reason: error.to_string(),
        })
    };
    lines.map(parse).collect()
}

/// Writes a journal. A thread of its own writes and syncs all lines that are there at a time, so
/// that many images that end together wait for one sync.
pub(crate) struct Journal {
    lines: Sender<Pending>,
}

struct Pending {
    line: Vec<u8>,
    done: oneshot::Sender<io::Result<()>>,
}

impl Journal {
    /// Opens the journal at `path` to append to it; a line that is not whole is cut off.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let mut file = opened.map_err(JournalError::io("open", path))?;
        cut_off(&mut file).map_err(JournalError::io("read", path))?;
        let (lines, inbox) = channel();
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write_all(file, &inbox))
            .map_err(JournalError::io("write", path))?;
        Ok(Self { lines })
    }

    /// Appends `line` and returns when it is on disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) async fn append(&self, line: &JournalLine) -> io::Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        let (done, written) = oneshot::channel();
        let ended = || io::Error::other("the thread that writes it has ended");
        self.lines
            .send(Pending { line, done })
            .map_err(|_| ended())?;
        written.await.map_err(|_| ended())?
    }
}

/// Goes to the end of the last whole line, and removes what is behind it.
fn cut_off(file: &mut File) -> io::Result<()> {
    const PIECE: u64 = 64 * 1024;
    let mut end = file.metadata()?.len();
    let mut buffer = Vec::new();
    let whole = loop {
        let start = end.saturating_sub(PIECE);
        buffer.resize(usize::try_from(end - start).unwrap_or_default(), 0);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut buffer)?;
        match buffer.iter().rposition(|&byte| byte == b'\n') {
            Some(position) => break start + position as u64 + 1,
            None if start == 0 => break 0,
            None => end = start,
        }
    };
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    Ok(())
}

fn write_all(mut file: File, inbox: &Receiver<Pending>) {
    while let Ok(first) = inbox.recv() {
        let mut group = vec![first];
        group.extend(inbox.try_iter());
        let text: Vec<u8> = group
            .iter()
            .flat_map(|pending| &pending.line)
            .copied()
            .collect();
        let written = file.write_all(&text).and_then(|()| file.sync_data());
        for pending in group {
            let outcome = match &written {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            // Whoever waits no longer has been ended.
            let _nobody = pending.done.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> JournalLine {
        JournalLine::Run(RunRecord {
            run: name.to_owned(),
            started: 1.5,
            images: 2,
            trilith: "0".to_owned(),
        })
    }

    #[tokio::test]
    async fn lines_are_appended_and_what_a_crash_cut_off_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        journal.append(&run("a")).await.unwrap();
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"record\":\"ima").unwrap();
        assert_eq!(read_journal(&path).unwrap(), [run("a")]);
        let journal = Journal::open(&path).unwrap();
        let (one, other) = (run("b"), run("c"));
        let (one, other) = tokio::join!(journal.append(&one), journal.append(&other));
        one.unwrap();
        other.unwrap();
        assert_eq!(read_journal(&path).unwrap(), [run("a"), run("b"), run("c")]);
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        std::fs::write(&path, "\nhello\n").unwrap();
        let error = read_journal(&path).unwrap_err().to_string();
        assert!(
            error.contains("notes` is no manifest of a batch: line 2"),
            "{error}"
        );
    }
}
