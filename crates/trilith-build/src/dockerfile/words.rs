//! Splitting a Dockerfile's logical lines into words, as `BuildKit`'s parser does.
//!
//! Each instruction has its own idea of a word: flags lose their quotes, `ARG` and `ENV` keep
//! them for later, `COPY` knows none. No variable is expanded here.

/// The white space that separates an instruction from its arguments, and words without quotes.
const BLANK: [char; 5] = [' ', '\t', '\r', '\x0b', '\x0c'];

/// Returns the first word of `line` and the rest, both trimmed.
pub(super) fn keyword(line: &str) -> (&str, &str) {
    let line = line.trim();
    match line.split_once(BLANK) {
        Some((word, rest)) => (word, rest.trim_start_matches(BLANK)),
        None => (line, ""),
    }
}

/// Returns the `--flags` that `rest` starts with, without quotes and escapes, and what follows.
pub(super) fn flags(rest: &str, escape: char) -> (Vec<String>, &str) {
    let mut words = Vec::new();
    let mut rest = rest.trim_start();
    while rest.starts_with("--") {
        let (word, after) = flag(rest, escape);
        rest = after.trim_start();
        if word == "--" {
            break;
        }
        words.push(word);
    }
    (words, rest.trim())
}

/// Returns the flag that `text` starts with and what follows it.
fn flag(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, &text[at..]),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, c)| c)),
            _ => word.push(c),
        }
    }
    (word, "")
}

/// Returns the words of `text` between white space; quotes mean nothing.
pub(super) fn blank_separated(text: &str) -> Vec<String> {
    let words = text.split(BLANK).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// Returns the words of `text` with their quotes and escapes; white space in quotes separates
/// nothing.
pub(super) fn quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        if c == escape && quote != Some('\'') {
            // An escape at the very end is dropped.
            if let Some(next) = chars.next() {
                word.extend([c, next]);
            }
            continue;
        }
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What `text` is if it is meant as a JSON array.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// An array of strings.
    Strings(Vec<String>),
    /// An array with something else in it, which no instruction accepts.
    Mixed,
    /// No JSON array, so plain words or a shell's command.
    No,
}

/// Returns `text` as a JSON array, if it is one.
pub(super) fn json(text: &str) -> Json {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Json::No;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Json::No;
    };
    let string = |value: serde_json::Value| match value {
        serde_json::Value::String(string) => Some(string),
        _ => None,
    };
    values
        .into_iter()
        .map(string)
        .collect::<Option<_>>()
        .map_or(Json::Mixed, Json::Strings)
}

/// Returns the comma-separated fields of a mount option (RFC 4180); `None` where a quote is wrong.
pub(super) fn comma_separated(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let (field, after) = field(text)?;
        fields.push(field);
        rest = after;
    }
    Some(fields)
}

/// Returns the field that `text` starts with, and what follows its comma, if one does.
fn field(text: &str) -> Option<(String, Option<&str>)> {
    let Some(mut quoted) = text.strip_prefix('"') else {
        let (field, after) = text
            .split_once(',')
            .map_or((text, None), |(field, after)| (field, Some(after)));
        return (!field.contains('"')).then(|| (field.to_owned(), after));
    };
    let mut field = String::new();
    loop {
        let (part, after) = quoted.split_once('"')?;
        field.push_str(part);
        let Some(again) = after.strip_prefix('"') else {
            let next = after.strip_prefix(',');
            return (next.is_some() || after.is_empty()).then_some((field, next));
        };
        field.push('"');
        quoted = again;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn keywords() {
        for (line, expected) in [
            ("RUN make all", ("RUN", "make all")),
            ("  from\t a ", ("from", "a")),
            ("CMD", ("CMD", "")),
            ("", ("", "")),
        ] {
            assert_eq!(keyword(line), expected, "{line}");
        }
    }

    #[test]
    fn flags_end_with_the_first_other_word() {
        for (text, expected, rest) in [
            ("--from=x a --b", &["--from=x"][..], "a --b"),
            ("--a='x y'  --b=\"1\" c", &["--a=x y", "--b=1"], "c"),
            ("--a=x\\ y c", &["--a=x y"], "c"),
            ("--a -- --b", &["--a"], "--b"),
            ("--a=\u{e4}", &["--a=\u{e4}"], ""),
            ("-a b", &[], "-a b"),
            ("--a=\\", &["--a="], ""),
            ("", &[], ""),
        ] {
            let (words, after) = flags(text, '\\');
            assert_eq!((words, after), (owned(expected), rest), "{text}");
        }
    }

    #[test]
    fn quotes_stay_and_hold_words_together() {
        for (text, expected) in [
            ("A=1 B=\"2 3\" C", &["A=1", "B=\"2 3\"", "C"][..]),
            ("A='x \\' B", &["A='x \\'", "B"]),
            ("A=\"x \\\" y\" B", &["A=\"x \\\" y\"", "B"]),
            ("A=x\\ y\\", &["A=x\\ y"]),
            ("A=\"open B", &["A=\"open B"]),
            (" ", &[]),
        ] {
            assert_eq!(quoted(text, '\\'), owned(expected), "{text}");
        }
        assert_eq!(quoted("A=x` y", '`'), ["A=x` y"]);
    }

    #[test]
    fn json_arrays() {
        let strings = |words: &[&str]| Json::Strings(owned(words));
        for (text, expected) in [
            ("[\"a b\", \"\\u0063\"]", strings(&["a b", "c"])),
            (" []", strings(&[])),
            ("[a]", Json::No),
            ("[\"a\"] b", Json::No),
            ("['a']", Json::No),
            ("[\"a\", 1]", Json::Mixed),
            ("[ -f x ]", Json::No),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
    }

    #[test]
    fn fields_of_mounts() {
        for (text, expected) in [
            ("type=bind,source=a", Some(&["type=bind", "source=a"][..])),
            ("\"source=a,b\",ro", Some(&["source=a,b", "ro"])),
            ("\"a\"\"b\"", Some(&["a\"b"])),
            ("", Some(&[""])),
            ("a,", Some(&["a", ""])),
            ("a\"b", None),
            ("\"a", None),
            ("\"a\"b", None),
        ] {
            let expected = expected.map(owned);
            assert_eq!(comma_separated(text), expected, "{text}");
        }
    }
}
