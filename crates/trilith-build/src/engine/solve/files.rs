//! Files for BuildKit: the context and the Dockerfile, by the protocol of `fsutil`.
//!
//! BuildKit is sent the list, compares it with what it kept from the last build, and asks for the
//! files that differ. Nothing else is read, and what is read is compared with the hash in the
//! list. The patterns that it sends along are not used to leave anything out: the rules of the
//! ignore file were applied when the context was listed. Nor are `followpaths`, which ask for what
//! `COPY` names and where links on the way to it lead: all of that is in the list, with its links.
//!
//! # Times
//! Every file has the time 0, so that images do not depend on checkouts. But BuildKit takes a file
//! of the same size and time for the one that it has. So the nanoseconds, which no layer keeps,
//! are taken from the digest of the content: a changed file has another time, but for one in 10⁹
//! of those that keep their size.

use std::cmp::Ordering;
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use trilith_core::EntryKind;

use super::session::{Answers, OwnFailure};
use crate::build_context::{BuildContext, BuildContextError, ContextEntry};

/// What the directory of the context is called.
pub(super) const CONTEXT: &str = "context";
/// What the directory of the Dockerfile is called.
pub(super) const DOCKERFILE: &str = "dockerfile";
/// What the Dockerfile is called in its directory.
pub(super) const DOCKERFILE_NAME: &str = "Dockerfile";

/// Packets that wait to be taken; one has at most 128 KiB.
const PACKETS: usize = 16;

/// What BuildKit can ask for.
#[derive(Clone, Debug)]
pub(super) struct Files {
    context: Arc<BuildContext>,
    failure: OwnFailure,
}

/// What BuildKit wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// The content of an entry, by its number in the list.
    Content(u32),
    /// Nothing more.
    End,
}

impl Files {
    pub(super) fn new(context: Arc<BuildContext>, failure: OwnFailure) -> Self {
        Self { context, failure }
    }

    /// Sends a directory: answers `FileSync/DiffCopy`.
    pub(super) fn send(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Answers<Packet>>, Status> {
        let list = self.list(request.metadata())?;
        let (sender, packets) = mpsc::channel(PACKETS);
        // Not bounded, or both sides could wait for each other. There is a number per file at most.
        let (wish, wishes) = mpsc::unbounded_channel();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(packet)) = incoming.message().await {
                let wanted = match packet.r#type() {
                    PacketType::PacketReq => Wish::Content(packet.id),
                    PacketType::PacketFin => Wish::End,
                    PacketType::PacketErr => break,
                    PacketType::PacketStat | PacketType::PacketData => continue,
                };
                if wish.send(wanted).is_err() {
                    break;
                }
            }
        });
        let failure = self.failure.clone();
        tokio::task::spawn_blocking(move || {
            let mut output = Output { sender };
            if let Err(error) = list.send(wishes, &mut output) {
                output.fail(&failure, error);
            }
        });
        let packets = futures_util::stream::unfold(packets, |mut packets| async {
            Some((packets.recv().await?, packets))
        });
        Ok(Response::new(packets.boxed()))
    }

    fn list(&self, metadata: &MetadataMap) -> Result<List, Status> {
        let value = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        match value("dir-name") {
            Some(CONTEXT) => {
                let wanted = Wanted::of(metadata);
                Ok(List::of_context(&self.context, &wanted))
            }
            Some(DOCKERFILE) => {
                let path = self.context.dockerfile();
                let entry = self
                    .context
                    .archive_entries()
                    .find(|entry| entry.entry.path == path);
                Ok(List(entry.into_iter().map(renamed).collect()))
            }
            other => {
                let name = other.unwrap_or_default();
                Err(Status::not_found(format!("there is no directory `{name}`")))
            }
        }
    }
}

fn renamed(entry: &ContextEntry) -> Item {
    Item {
        path: DOCKERFILE_NAME.into(),
        entry: entry.clone(),
    }
}

/// Which entries BuildKit wants of a directory; all that it does not want are a waste at most.
#[derive(Debug)]
enum Wanted {
    All,
    /// Files with these paths.
    Only(Vec<String>),
}

impl Wanted {
    fn of(metadata: &MetadataMap) -> Self {
        const KEY: &str = "include-patterns";
        let encoded = metadata.contains_key("include-patterns-encoded");
        let patterns: Option<Vec<String>> = metadata
            .get_all(KEY)
            .iter()
            .map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        match patterns {
            // Without a character that could mean something else than itself.
            Some(patterns)
                if !encoded
                    && !patterns.is_empty()
                    && !patterns
                        .iter()
                        .any(|p| p.contains(['*', '?', '[', '\\', '!'])) =>
            {
                Self::Only(patterns)
            }
            _ => Self::All,
        }
    }

    fn has(&self, path: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Only(paths) => paths.iter().any(|wanted| {
                let wanted = wanted.trim_matches('/').as_bytes();
                // With the directories above it, and with what is below it.
                is_at_or_below(wanted, path) || is_at_or_below(path, wanted)
            }),
        }
    }
}

fn is_at_or_below(path: &[u8], root: &[u8]) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// A directory to be sent, in the order of `fsutil`: what is in a directory comes right after it.
struct List(Vec<Item>);

struct Item {
    path: Vec<u8>,
    entry: ContextEntry,
}

impl List {
    fn of_context(context: &BuildContext, wanted: &Wanted) -> Self {
        let entries = context.entries().iter();
        let mut items: Vec<Item> = entries
            .filter(|entry| wanted.has(&entry.entry.path))
            .map(|entry| Item {
                path: entry.entry.path.clone(),
                entry: entry.clone(),
            })
            .collect();
        items.sort_by(|a, b| compare_paths(&a.path, &b.path));
        Self(items)
    }

    /// Sends the list, and then what is wished for.
    fn send(
        &self,
        mut wishes: mpsc::UnboundedReceiver<Wish>,
        output: &mut Output,
    ) -> Result<(), Interrupted> {
        for item in &self.0 {
            output.stat(Some(item.stat()?))?;
        }
        output.stat(None)?;
        while let Some(Wish::Content(id)) = wishes.blocking_recv() {
            let item = usize::try_from(id).ok().and_then(|id| self.0.get(id));
            let item = item.ok_or(Interrupted::Nonsense(id))?;
            item.entry.read_pieces(|piece| output.data(id, piece))??;
            // The end of this file.
            output.data(id, Vec::new())?;
        }
        output.packet(PacketType::PacketFin, |_| ())
    }
}

impl Item {
    fn stat(&self) -> Result<Stat, BuildContextError> {
        const DIRECTORY: u32 = 1 << 31;
        const SYMLINK: u32 = 1 << 27;
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).map_err(|_| BuildContextError::Entry {
                path: String::from_utf8_lossy(&self.path).into_owned(),
                reason: "BuildKit takes no names that are not UTF-8".to_owned(),
            })
        };
        let mut stat = Stat {
            path: text(&self.path)?,
            ..Stat::default()
        };
        match &self.entry.entry.kind {
            EntryKind::Directory { mode } => stat.mode = DIRECTORY | go_mode(*mode),
            EntryKind::Symlink { target } => {
                stat.mode = SYMLINK | 0o777;
                stat.size = length(target.len());
                stat.linkname = text(target)?;
            }
            EntryKind::File { mode, size, digest } => {
                stat.mode = go_mode(*mode);
                stat.size = i64::try_from(*size).unwrap_or(i64::MAX);
                let nanoseconds = u32::from_str_radix(&digest.hex()[..8], 16).unwrap_or_default();
                stat.mod_time = i64::from(nanoseconds % 1_000_000_000);
            }
        }
        Ok(stat)
    }
}

/// Returns the mode as Go's `os.FileMode` has it.
fn go_mode(mode: u32) -> u32 {
    [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)]
        .iter()
        .filter(|(bit, _)| mode & bit != 0)
        .fold(mode & 0o777, |mode, (_, bit)| mode | bit)
}

fn length(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Compares as if the slash came before everything else.
fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// Why no more is sent.
#[derive(Debug)]
enum Interrupted {
    /// Nobody listens any more.
    Closed,
    /// There is no such entry.
    Nonsense(u32),
    Failed(BuildContextError),
}

impl From<BuildContextError> for Interrupted {
    fn from(error: BuildContextError) -> Self {
        Self::Failed(error)
    }
}

struct Output {
    sender: mpsc::Sender<Result<Packet, Status>>,
}

impl Output {
    fn stat(&self, stat: Option<Stat>) -> Result<(), Interrupted> {
        self.packet(PacketType::PacketStat, |packet| packet.stat = stat)
    }

    fn data(&self, id: u32, data: Vec<u8>) -> Result<(), Interrupted> {
        self.packet(PacketType::PacketData, |packet| {
            packet.id = id;
            packet.data = data;
        })
    }

    fn packet(&self, kind: PacketType, fill: impl FnOnce(&mut Packet)) -> Result<(), Interrupted> {
        let mut packet = Packet::default();
        packet.set_type(kind);
        fill(&mut packet);
        let sent = self.sender.blocking_send(Ok(packet));
        sent.map_err(|_| Interrupted::Closed)
    }

    fn fail(&self, failure: &OwnFailure, why: Interrupted) {
        let status = match why {
            Interrupted::Closed => return,
            Interrupted::Nonsense(id) => Status::invalid_argument(format!("there is no file {id}")),
            Interrupted::Failed(error) => failure.note(error.into()),
        };
        // Only a hint by then: what counts was noted.
        let _ = self.sender.blocking_send(Err(status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_directory_follows_it() {
        let mut paths = ["a-b", "a/b", "a", "a/b/c", "a.txt", "a/b-c", "b"];
        paths.sort_by(|a, b| compare_paths(a.as_bytes(), b.as_bytes()));
        let expected = ["a", "a/b", "a/b/c", "a/b-c", "a-b", "a.txt", "b"];
        assert_eq!(paths, expected);
    }

    #[test]
    fn modes_as_go_has_them() {
        for (mode, expected) in [
            (0o644, 0o644),
            (0o4755, 1 << 23 | 0o755),
            (0o2755, 1 << 22 | 0o755),
            (0o1777, 1 << 20 | 0o777),
        ] {
            assert_eq!(go_mode(mode), expected, "{mode:o}");
        }
    }

    #[test]
    fn single_files_are_asked_for_by_name() {
        let wanted = |patterns: &[&'static str]| {
            let mut metadata = MetadataMap::new();
            for pattern in patterns {
                metadata.append("include-patterns", pattern.parse().unwrap());
            }
            Wanted::of(&metadata)
        };
        for (patterns, path, expected) in [
            (&[][..], "src/a", true),
            (&[".dockerignore"], "src/a", false),
            (&[".dockerignore"], ".dockerignore", true),
            (&["x", "src/a"], "src", true),
            (&["src"], "src/a", true),
            (&["src"], "src-a", false),
            (&["*.rs"], "src/a", true),
        ] {
            assert_eq!(
                wanted(patterns).has(path.as_bytes()),
                expected,
                "{patterns:?} {path}"
            );
        }
    }
}
