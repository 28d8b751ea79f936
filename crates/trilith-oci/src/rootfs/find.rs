//! Files of an image, read out of its layers with nothing unpacked.
//!
//! Layers are streamed from the top down, each once, and the stream ends where all that is looked
//! for has been found: what lies behind and below is never asked for. So the layer that ends the
//! search is not read to its end and its digest not checked; of every other it is. Follows no link.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use trilith_core::{Digest, Owner};

use super::apply::{OPAQUE, refused, safe_path};
use super::pack::WHITEOUT;
use crate::decompress::unpacked;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::image::Image;
use crate::reading::{BlockingReader, off_thread, read_failure};
use crate::store::ImageStore;
use crate::tar_reader::{Member, MemberKind, TarReader, show};

/// A regular file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// What is in it.
    pub content: Bytes,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    /// Who owns it.
    pub owner: Owner,
}

/// How files are looked for.
#[derive(Clone, Copy)]
pub struct FindOptions<'a> {
    /// Where a layer is read from if it is there.
    pub nearby: &'a Arc<dyn ImageStore>,
    /// The most bytes that a file may have.
    pub limit: u64,
    /// Whether a layer is known to be one of [`FoundFiles::without`] for these paths; it is not
    /// read then.
    pub is_without: &'a (dyn Fn(&Digest) -> bool + Send + Sync),
}

/// What was found of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFiles<const N: usize> {
    /// The files, `None` for those that the image does not have.
    pub files: [Option<ImageFile>; N],
    /// Layers that neither hold nor hide any of the files, read to their ends and checked.
    pub without: Vec<Digest>,
}

/// Looks for the files at `paths` in `image`, whose layers are in `source`. Paths have no slash in
/// front.
///
/// # Errors
/// [`Error::Unsupported`] where something at a path, or above it, is neither what it has to be nor
/// absent: a link, a directory, a file that is too large. [`Error::Malformed`] where a layer is no
/// tar, and whatever reading it comes to.
pub async fn find_files<const N: usize>(
    source: &Arc<dyn ImageStore>,
    image: &Image,
    paths: [&str; N],
    options: FindOptions<'_>,
) -> Result<FoundFiles<N>, Error> {
    let mut search = Search {
        wanted: paths.map(Wanted::new),
        limit: options.limit,
        touched: false,
    };
    let mut without = Vec::new();
    for layer in image.manifest().layers().iter().rev() {
        if search.is_over() {
            break;
        }
        if (options.is_without)(&layer.digest) {
            continue;
        }
        let store = holder(source, options.nearby, layer).await?;
        let stream = store.fetch_blob(layer).await?;
        let reader = BlockingReader::new(stream, Handle::current());
        let object = format!("layer `{}` of `{}`", layer.digest, store.describe());
        search = off_thread(move || {
            search.read(reader, &object)?;
            Ok(search)
        })
        .await?;
        if !search.touched {
            without.push(layer.digest.clone());
        }
    }
    Ok(FoundFiles {
        files: search.wanted.map(|wanted| wanted.found),
        without,
    })
}

/// Returns where `layer` is read from.
async fn holder<'s>(
    source: &'s Arc<dyn ImageStore>,
    nearby: &'s Arc<dyn ImageStore>,
    layer: &Descriptor,
) -> Result<&'s Arc<dyn ImageStore>, Error> {
    let is_near = nearby.has_blob(layer).await?;
    Ok(if is_near { nearby } else { source })
}

struct Search<const N: usize> {
    wanted: [Wanted; N],
    limit: u64,
    /// Whether the present layer has to do with any of the files, found before or not.
    touched: bool,
}

/// A file that is looked for.
struct Wanted {
    path: Vec<Vec<u8>>,
    found: Option<ImageFile>,
    /// Whether the present layer hides it in those below.
    hidden: bool,
    /// Whether it is known not to be there.
    absent: bool,
}

impl Wanted {
    fn new(path: &str) -> Self {
        Self {
            path: path.split('/').map(Into::into).collect(),
            found: None,
            hidden: false,
            absent: false,
        }
    }

    fn is_settled(&self) -> bool {
        self.found.is_some() || self.absent
    }

    /// Returns whether the path begins with these names.
    fn is_below(&self, names: &[&[u8]]) -> bool {
        names.len() <= self.path.len() && self.path.iter().zip(names).all(|(a, b)| a == b)
    }

    /// Returns whether a whiteout of this name in `parent` hides the file.
    fn is_hidden_by(&self, parent: &[&[u8]], hidden: &[u8]) -> bool {
        if hidden == OPAQUE {
            return parent.len() < self.path.len() && self.is_below(parent);
        }
        // Others that begin so are bookkeeping of aufs.
        !hidden.starts_with(WHITEOUT) && self.is_below(&[parent, &[hidden]].concat())
    }
}

impl<const N: usize> Search<N> {
    fn is_over(&self) -> bool {
        self.wanted.iter().all(Wanted::is_settled)
    }

    /// Reads a layer, `object` in messages, as far as is needed. A path stands in it once (OCI image
    /// specification 1.1, `layer.md`: no duplicate entries), so a file that was found is not looked
    /// for again; a whiteout hides nothing of its own layer, wherever it stands.
    fn read(&mut self, content: impl Read + Send, object: &str) -> Result<(), Error> {
        self.touched = false;
        let (plain, _) = unpacked(content).map_err(|error| read_failure(object, error))?;
        let mut tar = TarReader::new(plain, object.to_owned());
        while let Some(member) = tar.next_member()? {
            self.see(&member, &mut tar, object)?;
            if self.is_over() {
                return Ok(());
            }
        }
        io::copy(&mut tar.into_inner(), &mut io::sink())
            .map_err(|error| read_failure(object, error))?;
        for wanted in &mut self.wanted {
            wanted.absent |= wanted.hidden && wanted.found.is_none();
        }
        Ok(())
    }

    fn see(&mut self, member: &Member, data: &mut impl Read, object: &str) -> Result<(), Error> {
        let path = safe_path(&member.path).map_err(|reason| refused(object, member, reason))?;
        let Some((name, parent)) = path.split_last() else {
            return Ok(());
        };
        for wanted in &mut self.wanted {
            if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                let hides = wanted.is_hidden_by(parent, hidden);
                self.touched |= hides;
                wanted.hidden |= hides;
                continue;
            }
            let is_file = wanted.path == path;
            let is_in_the_way = wanted.is_below(&path) && member.kind != MemberKind::Directory;
            if !is_file && !is_in_the_way {
                continue;
            }
            self.touched = true;
            if wanted.is_settled() {
                continue;
            }
            if !is_file {
                return Err(unusable(member, object, kind_in_words(member)));
            }
            wanted.found = Some(read_file(member, data, object, self.limit)?);
        }
        Ok(())
    }
}

fn read_file(
    member: &Member,
    data: &mut impl Read,
    object: &str,
    limit: u64,
) -> Result<ImageFile, Error> {
    if member.kind != MemberKind::File {
        return Err(unusable(member, object, kind_in_words(member)));
    }
    if member.size > limit {
        let reason = format!("it has {} bytes, more than {limit}", member.size);
        return Err(unusable(member, object, reason));
    }
    let mut content = Vec::new();
    data.read_to_end(&mut content)
        .map_err(|error| read_failure(object, error))?;
    Ok(ImageFile {
        content: content.into(),
        mode: member.mode,
        owner: Owner {
            uid: member.uid,
            gid: member.gid,
        },
    })
}

fn kind_in_words(member: &Member) -> String {
    let link = show(&member.link);
    match member.kind {
        MemberKind::Symlink => format!("it is a symbolic link to `{link}`"),
        MemberKind::HardLink => format!("it is a hard link to `{link}`"),
        MemberKind::Directory => "it is a directory".to_owned(),
        MemberKind::File => "it is a file".to_owned(),
        MemberKind::CharDevice | MemberKind::BlockDevice => "it is a device".to_owned(),
        MemberKind::Fifo => "it is a pipe".to_owned(),
    }
}

fn unusable(member: &Member, object: &str, reason: String) -> Error {
    Error::Unsupported {
        object: format!("`{}` in {object}", show(&member.path)),
        reason,
        advice: "make it a plain file, and what is above it a directory, in the image",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Line, layer, store_of};
    use super::*;
    use crate::testing::Call;

    const PASSWD: &str = "etc/passwd";
    const GROUP: &str = "etc/group";

    /// Returns what is found in `layers`, lowest first, and how many of them were asked for.
    async fn find(layers: &[Vec<u8>]) -> (Result<[Option<String>; 2], String>, usize) {
        let (store, image) = store_of(layers);
        let source: Arc<dyn ImageStore> = store.clone();
        let nearby: Arc<dyn ImageStore> = Arc::new(crate::testing::MemoryStore::default());
        let options = FindOptions {
            nearby: &nearby,
            limit: 100,
            is_without: &|_| false,
        };
        let found = find_files(&source, &image, [PASSWD, GROUP], options).await;
        let text = |file: ImageFile| {
            assert_eq!((file.mode, file.owner), (0o644, Owner::default()));
            String::from_utf8(file.content.to_vec()).unwrap()
        };
        let found = found.map(|found| found.files.map(|file| file.map(text)));
        (
            found.map_err(|error| error.to_string()),
            store.count(Call::FetchBlob),
        )
    }

    async fn check(layers: &[&[Line<'_>]], expected: [Option<&str>; 2], read: usize) {
        let tars: Vec<Vec<u8>> = layers.iter().map(|lines| layer(lines)).collect();
        let expected = expected.map(|text| text.map(str::to_owned));
        assert_eq!(find(&tars).await, (Ok(expected), read), "{layers:?}");
    }

    #[tokio::test]
    async fn the_newest_counts_and_no_more_is_read() {
        let both: &[Line<'_>] = &[('d', "etc/", ""), ('f', PASSWD, "p"), ('f', GROUP, "g")];
        let other: &[Line<'_>] = &[('f', "etc/motd", "hello"), ('f', "usr/etc/passwd", "no")];
        let newer: &[Line<'_>] = &[('f', "./etc/passwd", "newer")];
        let found = |passwd, group| [Some(passwd), Some(group)];
        check(&[both], found("p", "g"), 1).await;
        check(&[both, other], found("p", "g"), 2).await;
        check(&[other, both], found("p", "g"), 1).await;
        check(&[both, newer], found("newer", "g"), 2).await;
        check(&[both, newer, both], found("p", "g"), 1).await;
        check(&[other], [None, None], 1).await;
        check(&[], [None, None], 0).await;
    }

    #[tokio::test]
    async fn what_is_hidden_is_not_there() {
        let both: &[Line<'_>] = &[('f', PASSWD, "p"), ('f', GROUP, "g")];
        for (hiding, expected, read) in [
            (&[('f', "etc/.wh.passwd", "")][..], [None, Some("g")], 2),
            (&[('f', ".wh.etc", "")], [None, None], 1),
            (&[('f', "etc/.wh..wh..opq", "")], [None, None], 1),
            (&[('f', ".wh..wh..opq", "")], [None, None], 1),
            (&[('f', "etc/.wh..wh.plnk", "")], [Some("p"), Some("g")], 2),
            (&[('f', "usr/.wh..wh..opq", "")], [Some("p"), Some("g")], 2),
            (&[('f', "etc/.wh.passwd-", "")], [Some("p"), Some("g")], 2),
            // Of its own layer a whiteout hides nothing, before or after.
            (
                &[('f', "etc/.wh..wh..opq", ""), ('f', PASSWD, "new")],
                [Some("new"), None],
                1,
            ),
            (
                &[('f', GROUP, "new"), ('f', "etc/.wh..wh..opq", "")],
                [None, Some("new")],
                1,
            ),
        ] {
            check(&[both, hiding], expected, read).await;
        }
        // What is hidden above stays hidden, whatever lies below.
        check(&[both, &[('f', ".wh.etc", "")], &[]], [None, None], 2).await;
    }

    #[tokio::test]
    async fn what_cannot_be_edited_is_refused() {
        let long = "x".repeat(101);
        for (line, reason) in [
            (('s', PASSWD, "../x"), "symbolic link to `../x`"),
            (('h', GROUP, "x"), "hard link to `x`"),
            (('d', PASSWD, ""), "it is a directory"),
            (('p', PASSWD, ""), "it is a pipe"),
            (('c', PASSWD, ""), "it is a device"),
            (('s', "etc", "usr/etc"), "symbolic link to `usr/etc`"),
            (('f', "etc", ""), "it is a file"),
            (('f', PASSWD, long.as_str()), "more than 100"),
            (('f', "../etc/passwd", ""), "may not hold `..`"),
        ] {
            let (found, _) = find(&[layer(&[line])]).await;
            let error = found.unwrap_err();
            assert!(error.contains(reason), "{line:?}: {error}");
            assert!(error.contains("layer `sha256:"), "{error}");
        }
        let (found, _) = find(&[b"no tar at all".to_vec()]).await;
        assert!(found.unwrap_err().contains("cut off"));
    }

    #[tokio::test]
    async fn any_compression_and_the_nearest_place() {
        let tar = layer(&[('f', PASSWD, "p"), ('f', GROUP, "g")]);
        let zstd = zstd::encode_all(tar.as_slice(), 0).unwrap();
        let expected = ["p", "g"].map(|text| Some(text.to_owned()));
        assert_eq!(find(&[zstd]).await, (Ok(expected), 1));
        let (far, image) = store_of(std::slice::from_ref(&tar));
        let near = Arc::new(crate::testing::MemoryStore::named("near"));
        near.insert(&tar);
        let (source, nearby): (Arc<dyn ImageStore>, Arc<dyn ImageStore>) =
            (far.clone(), near.clone());
        let options = FindOptions {
            nearby: &nearby,
            limit: 100,
            is_without: &|_| false,
        };
        let found = find_files(&source, &image, [PASSWD], options).await;
        let [found] = found.unwrap().files;
        assert_eq!(found.unwrap().content, "p");
        assert!(far.calls().is_empty());
    }

    #[tokio::test]
    async fn layers_without_any_are_told_and_passed_over() {
        let layers = [
            layer(&[('f', PASSWD, "p"), ('f', GROUP, "g")]),
            layer(&[('d', "etc", ""), ('f', "etc/motd", "m")]),
            layer(&[('f', "etc/passwd", "newer")]),
            // Of what was found above, and of what it hides.
            layer(&[('f', "etc/.wh.passwd", "")]),
            layer(&[]),
            layer(&[('f', PASSWD, "newest")]),
            layer(&[('f', "usr/.wh.etc", "")]),
        ];
        let (store, image) = store_of(&layers);
        let source: Arc<dyn ImageStore> = store.clone();
        let without = [6, 4, 1].map(|at| Digest::of(&layers[at]));
        let options = FindOptions {
            nearby: &source,
            limit: 100,
            is_without: &|_| false,
        };
        let paths = [PASSWD, GROUP];
        let found = find_files(&source, &image, paths, options).await.unwrap();
        assert_eq!(found.without, without);
        assert_eq!(store.count(Call::FetchBlob), 7);
        store.forget_calls();
        let options = FindOptions {
            is_without: &|digest| without.contains(digest),
            ..options
        };
        let again = find_files(&source, &image, paths, options).await.unwrap();
        assert_eq!((again.files, again.without.len()), (found.files, 0));
        assert_eq!(store.count(Call::FetchBlob), 4);
    }
}
