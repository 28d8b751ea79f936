use proptest::prelude::*;

use super::*;

fn list(patterns: &[&str]) -> DockerIgnore {
    DockerIgnore::new(patterns).unwrap()
}

#[test]
fn single_patterns() {
    for (pattern, path, expected) in [
        ("a", "a", true),
        ("a", "a/b/c", true),
        ("a", "b/a", false),
        ("a/", "a", true),
        ("./a//b/../c", "a/c", true),
        ("*", "a/b", true),
        ("*.b", "a.b", true),
        ("*.b", "c/a.b", false),
        ("**/*.b", "a.b", true),
        ("**/*.b", "c/d/a.b", true),
        ("a/**", "a", false),
        ("a/**", "a/b/c", true),
        ("**", "a/b", true),
        ("a**b", "a/x/b", true),
        ("a**b", "ab", true),
        ("a**b", "axb", false),
        ("a?c", "abc", true),
        ("a?c", "a/c", false),
        ("a?c", "aéc", true),
        // Brackets may stand for a slash.
        ("a[^b]c", "a/c", true),
        ("a[!b]c", "a!c", true),
        ("a[!b]c", "axc", false),
        (r"a\*", "a*", true),
        (r"a\*", "ab", false),
        // What Docker never says: escaped letters are those of regular expressions.
        (r"v\d", "v7", true),
        (r"v\d", "vd", false),
        (r"\Qa*", "a[^/]*$", true),
        (r"*\x61", "ba", true),
        ("[[:digit:]]*", "1a", true),
        ("a&&b*", "a&&bc", true),
        ("[a&&b]", "&", true),
        // Stars between brackets are translated like others.
        ("[*]", "*", false),
        ("[*]", "^/[]", true),
        // A circumflex is an anchor, but not where there is nothing else special.
        ("a^b", "a^b", true),
        ("a^b*", "a^bc", false),
        // Two patterns, and a repetition.
        ("x*|y", "zy", true),
        ("x*|y", "x", true),
        ("a{2}*", "aab", true),
        ("a{2}", "a{2}", true),
        ("*.{js,ts}", "a.{js,ts}", true),
        // `**` does not reach across a newline, except where it is all that is special.
        ("**/a*", "x\n/ab", false),
        ("**/a", "x\n/a", true),
        // The root is never left out.
        ("**", "", false),
        (".", "", false),
        ("**", ".", false),
    ] {
        assert_eq!(list(&[pattern]).matches(path), expected, "{pattern} {path}");
    }
}

#[test]
fn the_last_match_decides() {
    for (patterns, path, expected) in [
        (vec!["docs", "!docs/a.md"], "docs/a.md", false),
        (vec!["docs", "!docs/a.md"], "docs/b.md", true),
        (vec!["!docs/a.md", "docs"], "docs/a.md", true),
        (vec!["**", "!a/b", "a/b/c"], "a/b/c", true),
        (vec!["**", "!a/b", "a/b/c"], "a/b/d", false),
        // The short cut of other walks would leave it out.
        (vec!["**/*.md", "!docs"], "docs/a.md", false),
        (vec!["", " ", "a ", " !a"], "a", false),
        (vec!["/a"], "a", false),
        (vec!["#a"], "#a", true),
    ] {
        assert_eq!(
            list(&patterns).matches(path),
            expected,
            "{patterns:?} {path}"
        );
    }
}

#[test]
fn files() {
    let ignore =
        DockerIgnore::parse("\u{feff}# keep\n/build/\n ! build/keep \r\n\n*.log\n").unwrap();
    for (path, expected) in [
        ("build", true),
        ("build/x", true),
        ("build/keep", false),
        ("a.log", true),
        ("x/a.log", false),
    ] {
        assert_eq!(ignore.matches(path), expected, "{path}");
    }
    // Names in another encoding than UTF-8.
    let ignore = DockerIgnore::parse(b"# caf\xe9\ncaf\xe9\nx?y*\n").unwrap();
    assert!(ignore.matches(b"caf\xe9"));
    assert!(!ignore.matches(b"caf\xe8"));
    assert!(ignore.matches(b"x\xffy"));
    assert!(!ignore.matches(b"x\xff\xffy"));
}

#[test]
fn refused_lists() {
    for (text, message) in [
        ("a\n!", "pattern `!` in line 2 has nothing after the `!`"),
        ("! ", "pattern `!` in line 1 has nothing after the `!`"),
        ("[", "pattern `[` in line 1 has a `[` without its `]`"),
        (
            "\n\n/x[",
            "pattern `x[` in line 3 has a `[` without its `]`",
        ),
        (
            "a\\",
            "pattern `a\\` in line 1 has a backslash that escapes nothing",
        ),
        (
            "[a-]",
            "pattern `[a-]` in line 1 has a `-` or `]` out of place in brackets",
        ),
        (
            "[b-a]",
            "pattern `[b-a]` in line 1 has a range the wrong way round",
        ),
        (
            "[a-*]",
            "pattern `[a-*]` in line 1 has a range the wrong way round",
        ),
        (
            r"\é",
            r"pattern `\é` in line 1 has an escape that means nothing",
        ),
        (
            r"\e",
            r"pattern `\e` in line 1 has an escape that means nothing",
        ),
        (
            r"\1",
            r"pattern `\1` in line 1 has an escape that means nothing",
        ),
        (
            r"\p{Klingon}",
            r"pattern `\p{Klingon}` in line 1 has an escape that means nothing",
        ),
        (
            "[[:x:]]",
            "pattern `[[:x:]]` in line 1 has an unknown class in brackets",
        ),
        (
            "*{2}",
            "pattern `*{2}` in line 1 repeats something that cannot be repeated",
        ),
        (
            "?{2,1}",
            "pattern `?{2,1}` in line 1 repeats something that cannot be repeated",
        ),
    ] {
        let error = DockerIgnore::parse(text).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(!error.hint().is_empty());
    }
    for pattern in ["?".repeat(70_000), "?{1000}".repeat(1000)] {
        let error = DockerIgnore::new([pattern]).unwrap_err();
        assert!(error.to_string().ends_with("is too large"));
    }
}

#[test]
fn directories_without_a_look_inside() {
    for (patterns, directory, expected) in [
        (vec!["a"], "a", true),
        (vec!["a"], "b", false),
        (vec!["a", "!b"], "a", true),
        (vec!["a", "!a/b"], "a", false),
        (vec!["*", "!src"], "node_modules", true),
        (vec!["*", "!src"], "src", false),
        (vec!["*", "!src/app/*.py"], "src", false),
        (vec!["*", "!src/app/*.py"], "src/lib", true),
        (vec!["*", "!src/app/*.py"], "src/app/deep", true),
        (vec!["*", "!*/app"], "lib", false),
        (vec!["*", "!*/app"], "lib/b", true),
        (vec!["*", "!**/*.py"], "lib", false),
        (vec!["*", "!lib**"], "lib/a", false),
        (vec!["*", "!lib/**"], "lib2", true),
        (vec!["*", "![l]ib/a"], "src", false),
        (vec!["*", "!x|src/a*"], "src", false),
        (vec!["a", "!b", "!a"], "a", false),
        (vec!["!a", "a"], "a", true),
    ] {
        let ignore = list(&patterns);
        assert_eq!(
            ignore.matches_all_below(directory),
            expected,
            "{patterns:?} {directory}"
        );
    }
}

fn pattern() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a", "b", "c", "ab", "/", "/", "*", "**", "?", "[ab]", "[^a]", "[*]", ".", "!", r"\d",
        r"\*", "|", "{2}", "^", "é", r"\x2f", "(", "\u{feff}",
    ]);
    prop::collection::vec(piece, 1..7).prop_map(|pieces| pieces.concat())
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let names = [
        &b"a"[..],
        b"b",
        b"c",
        b"ab",
        b"aa",
        b".a",
        b"*",
        b"\xc3\xa9",
        b"1",
        b"a\xff",
        b"a\nb",
    ];
    let name = prop::sample::select(names.to_vec());
    prop::collection::vec(name, 1..5).prop_map(|names| names.join(&b'/'))
}

proptest! {
    #[test]
    fn walking_and_asking_for_paths_are_one(
        patterns in prop::collection::vec(pattern(), 1..5),
        path in path(),
    ) {
        let Ok(ignore) = DockerIgnore::new(&patterns) else { return Ok(()) };
        let expected = ignore.matches(&path);
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let starts: Vec<usize> = slashes.map(|(position, _)| position + 1).collect();
        for start in [0].iter().chain(&starts) {
            let inside = Ignore::in_directory(&ignore, &path[..*start]);
            if inside.is_decided() {
                prop_assert_eq!(inside.verdict(), expected);
            }
        }
        let name = starts.last().copied().unwrap_or_default();
        let inside = Ignore::in_directory(&ignore, &path[..name]);
        prop_assert_eq!(inside.matches(&path[name..]), expected);
        let below = [&path[..], b"/"].concat();
        prop_assert_eq!(Ignore::in_directory(&ignore, &below).verdict(), expected);
    }

    #[test]
    fn no_text_is_too_odd(text in prop::collection::vec(any::<u8>(), 0..200), path in any::<Vec<u8>>()) {
        if let Ok(ignore) = DockerIgnore::parse(&text) {
            let left_out = ignore.matches(&path);
            prop_assert!(!path.is_empty() || !left_out);
            let _ = ignore.matches_all_below(&path);
        }
    }
}
