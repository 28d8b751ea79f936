//! What Docker makes of a `.dockerignore` file before it looks at a single pattern.

/// Returns the patterns in `text` with the numbers of their lines.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    (1..)
        .zip(text.split('\n'))
        .filter(|(_, line)| !line.starts_with('#'))
        .filter_map(|(number, line)| Some((number, pattern(line.trim())?)))
}

/// Returns the pattern in a trimmed line, none if there is nothing.
fn pattern(line: &str) -> Option<String> {
    if let Some(inner) = line.strip_prefix('!') {
        return Some(format!("!{}", relative(inner.trim())));
    }
    (!line.is_empty()).then(|| relative(line))
}

fn relative(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let path = clean(path);
    match path.strip_prefix('/') {
        Some(relative) if !relative.is_empty() => relative.to_owned(),
        _ => path,
    }
}

/// Returns the shortest path with the same meaning, as Go's `filepath.Clean` does: without double
/// slashes, `.`, `..` behind a name, and a slash at the end; `.` if nothing is left.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            name => parts.push(name),
        }
    }
    match (rooted, parts.is_empty()) {
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
        (true, _) => format!("/{}", parts.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaned_paths() {
        for (path, expected) in [
            ("", "."),
            (".", "."),
            ("./", "."),
            ("/", "/"),
            ("//", "/"),
            ("/..", "/"),
            ("/../a", "/a"),
            ("..", ".."),
            ("../..", "../.."),
            ("../../a/../b", "../../b"),
            ("a/..", "."),
            ("a/../..", ".."),
            ("a//b/./c/", "a/b/c"),
            ("a/b/../../c", "c"),
            ("!/a", "!/a"),
            ("!a/..", "."),
            ("..a/.b", "..a/.b"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn lines_of_a_file() {
        let text = "\u{feff}test1\n/test2\n/a/file/here\r\n\nlast \t\n# comment\n #not one\n! /x/y\n!\n! \n/\n./\n!./a/../b//c/\n\u{a0}\u{2003}d\u{3000}";
        let expected = [
            (1, "test1"),
            (2, "test2"),
            (3, "a/file/here"),
            (5, "last"),
            (7, "#not one"),
            (8, "!x/y"),
            (9, "!"),
            (10, "!"),
            (11, "/"),
            (12, "."),
            (13, "!b/c"),
            (14, "d"),
        ];
        let found: Vec<_> = lines(text).collect();
        let expected = expected.map(|(line, pattern)| (line, pattern.to_owned()));
        assert_eq!(found, expected);
        // The mark is the first line's only.
        assert_eq!(lines("\n\u{feff}#a").collect::<Vec<_>>().len(), 1);
        assert_eq!(lines("").count(), 0);
    }
}
