//! Reading the project's own manifests: bounded, regular, UTF-8, and as loose values.
//!
//! Other tools own these files and check them; here only their syntax is checked, and each
//! key where it is used.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::error::{MAX_FILE_SIZE, ProjectError};
use super::file::malformed;
use super::problem::Mistake;

/// Returns the path of `name` in `directory`, as short as a person would write it.
pub(super) fn path_in(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    match path.strip_prefix(".") {
        Ok(short) => short.to_owned(),
        Err(_) => path,
    }
}

/// Returns the text of the file, `None` where there is none.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, ProjectError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        // A link that leads nowhere was meant to be a file.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() =>
        {
            return Ok(None);
        }
        Err(error) => return Err(ProjectError::io("read", path)(error)),
    };
    // Opening a pipe would wait for a writer.
    if !metadata.is_file() {
        return Err(ProjectError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(ProjectError::io("open", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(ProjectError::io("read", path))?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        return Err(ProjectError::TooLarge(path.to_owned()));
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        ProjectError::NotUtf8 {
            path: path.to_owned(),
            line: bytes[..at].split(|&b| b == b'\n').count(),
            byte: bytes.get(at).copied().unwrap_or_default(),
        }
    })
}

/// Returns the TOML file as a table, `None` where there is none.
pub(super) fn load_toml(path: &Path) -> Result<Option<toml::Table>, ProjectError> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    let table = text
        .parse()
        .map_err(|error| malformed(&error, path, &text))?;
    Ok(Some(table))
}

/// Returns the JSON file as a value, `None` where there is none.
pub(super) fn load_json(path: &Path) -> Result<Option<serde_json::Value>, ProjectError> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    // Windows editors write a byte order mark, and npm reads over it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let value = serde_json::from_str(text).map_err(|error| malformed_json(&error, path, text))?;
    Ok(Some(value))
}

/// Returns the value at the dotted `key`.
pub(super) fn lookup<'t>(table: &'t toml::Table, key: &str) -> Option<&'t toml::Value> {
    let mut parts = key.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

fn malformed_json(error: &serde_json::Error, path: &Path, text: &str) -> ProjectError {
    let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
    // A mistake at the end of a line is told as column 0 of the next one.
    let line = error.line().saturating_sub(1);
    let start = starts.into_iter().nth(line).unwrap_or(text.len());
    let offset = (start + error.column()).saturating_sub(1).min(text.len());
    let words = error.to_string();
    let reason = words
        .rsplit_once(" at line ")
        .map_or(words.as_str(), |(reason, _)| reason);
    let mistake = Mistake {
        span: offset..offset,
        before: "malformed JSON".to_owned(),
        after: format!(": {reason}"),
    };
    ProjectError::Invalid {
        path: path.to_owned(),
        problems: vec![mistake.locate(path, text)],
        omitted: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_readable_file_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(read_text(&path).unwrap().is_none());
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(matches!(read_text(&path), Err(ProjectError::Io { .. })));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(read_text(&path), Err(ProjectError::NotAFile(_))));
        assert!(matches!(
            read_text(Path::new("/dev/zero")),
            Err(ProjectError::NotAFile(_))
        ));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, b"a\nb\xff").unwrap();
        let error = read_text(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("is not UTF-8: line 2 holds the byte 0xff"),
            "{error}"
        );
    }

    #[test]
    fn a_sparse_giant_is_refused_without_reading_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        File::create(&path).unwrap().set_len(5 << 30).unwrap();
        assert!(matches!(read_text(&path), Err(ProjectError::TooLarge(_))));
    }

    #[test]
    fn json_mistakes_are_shown_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("package.json");
        for text in ["{\n  \"a\": é\n}", "", "{", "{}\n\n}", "[1,\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(load_json(&path).unwrap_err().problems().len(), 1, "{text}");
        }
        fs::write(&path, "{\n  \"a\": nul\n}").unwrap();
        let error = load_json(&path).unwrap_err();
        let problem = &error.problems()[0];
        assert_eq!(
            (problem.line, problem.message.contains("expected ident")),
            (2, true)
        );
    }

    #[test]
    fn paths_are_short() {
        for (directory, path) in [
            (".", "f"),
            ("./a", "a/f"),
            ("", "f"),
            ("..", "../f"),
            ("/", "/f"),
        ] {
            assert_eq!(path_in(Path::new(directory), "f"), Path::new(path));
        }
    }

    #[test]
    fn lookups_follow_dots() {
        let table: toml::Table = "[a.b]\nc = \"x\"\nd = 1".parse().unwrap();
        assert_eq!(
            lookup(&table, "a.b.c").and_then(toml::Value::as_str),
            Some("x")
        );
        assert!(lookup(&table, "a.b.c.e").is_none());
    }
}
