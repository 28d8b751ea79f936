//! Mistakes in a text file: where they are, in words and with the line shown.
//!
//! Everything shown comes from files others wrote, so control characters never get through
//! and long lines are cut around the mistake.

use std::fmt;
use std::ops::Range;
use std::path::Path;

/// The most characters of a line that are shown.
const MAX_SHOWN: usize = 100;
/// The most characters of a message, which may quote what was written.
const MAX_MESSAGE: usize = 600;
/// How many characters before the mistake a cut line begins.
const SHOWN_BEFORE: usize = 40;

/// One mistake in a file. Displays as the message and, below it, the line with a caret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, where, and what would be right, as ``unknown key `x` at `trilith.toml`:3:1``.
    pub message: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The line with a caret below the mistake; three lines, without a newline at the end.
    pub excerpt: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.message, self.excerpt)
    }
}

/// A mistake that is known by its bytes only, before lines are counted.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    /// The bytes of the file that are wrong.
    pub(super) span: Range<usize>,
    /// What the message says before the place.
    pub(super) before: String,
    /// What the message says after the place, with its punctuation.
    pub(super) after: String,
}

impl Mistake {
    /// Returns the mistake as it is shown, with `path` as the name of the file.
    pub(super) fn locate(&self, path: &Path, text: &str) -> Problem {
        let start = floor_char_boundary(text, self.span.start);
        let end = floor_char_boundary(text, self.span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_text = text[line_start..].split('\n').next().unwrap_or_default();
        let line_text = line_text.strip_suffix('\r').unwrap_or(line_text);
        let line = text[..line_start].matches('\n').count() + 1;
        // A byte order mark is not a column anyone sees.
        let mark = usize::from(line_text.starts_with('\u{feff}'));
        let before = text[line_start..start].chars().count();
        let shown: Vec<char> = line_text.chars().skip(mark).collect();
        let at = before.saturating_sub(mark);
        let column = at + 1;
        let Self { before, after, .. } = self;
        let message = format!("{before} at `{}`:{line}:{column}{after}", path.display());
        Problem {
            message: visible(&message),
            line,
            column,
            excerpt: excerpt(line, &shown, at, text[start..end].chars().count()),
        }
    }
}

/// Returns `text` with control characters written as escapes, and cut where it is very long.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        match c {
            _ if index == MAX_MESSAGE => {
                out.push('…');
                break;
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// Draws line number `line` with `width` carets from the character `at` on.
fn excerpt(line: usize, text: &[char], at: usize, width: usize) -> String {
    let from = if text.len() > MAX_SHOWN {
        at.saturating_sub(SHOWN_BEFORE).min(text.len() - MAX_SHOWN)
    } else {
        0
    };
    let to = text.len().min(from + MAX_SHOWN);
    let (head, tail) = (
        if from > 0 { "…" } else { "" },
        if to < text.len() { "…" } else { "" },
    );
    let shown: String = text[from..to]
        .iter()
        .map(|&c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect();
    let indent = at - from.min(at) + head.chars().count();
    let carets = width.min(to.saturating_sub(at)).max(1);
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    let shown = format!("{number} | {head}{shown}{tail}");
    let marker = format!("{gutter} | {}{}", " ".repeat(indent), "^".repeat(carets));
    format!("{gutter} |\n{}\n{marker}", shown.trim_end())
}

fn floor_char_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str, span: Range<usize>) -> Problem {
        let mistake = Mistake {
            span,
            before: "bad".to_owned(),
            after: ", sorry".to_owned(),
        };
        mistake.locate(Path::new("f.toml"), text)
    }

    #[test]
    fn lines_and_columns_count_characters() {
        for (text, span, expected) in [
            ("abc", 0..1, (1, 1)),
            ("é = 1\nx", 7..8, (2, 1)),
            ("é = 1", 2..3, (1, 2)),
            ("a\r\nb\r\n", 3..4, (2, 1)),
            ("\u{feff}abc", 3..4, (1, 1)),
            ("", 0..0, (1, 1)),
            ("a\n", 2..2, (2, 1)),
            ("é", 1..1, (1, 1)),
            ("a", 7..9, (1, 2)),
        ] {
            let problem = problem(text, span.clone());
            assert_eq!(
                (problem.line, problem.column),
                expected,
                "{text:?} {span:?}"
            );
        }
    }

    #[test]
    fn a_mistake_over_several_lines_is_marked_to_the_end_of_the_first() {
        insta::assert_snapshot!(problem("x = [\n1]\n", 4..8), @r"
        bad at `f.toml`:1:5, sorry
          |
        1 | x = [
          |     ^
        ");
    }

    #[test]
    fn long_lines_are_cut_around_the_mistake() {
        let text = format!("{}!!{}", "a".repeat(3000), "b".repeat(3000));
        let problem = problem(&text, 3000..3002);
        let lines: Vec<&str> = problem.excerpt.lines().collect();
        assert_eq!(lines[1].chars().count(), "1 | ".len() + 2 + MAX_SHOWN);
        assert_eq!(lines[1].chars().position(|c| c == '!'), lines[2].find('^'));
        assert!(lines[2].ends_with(" ^^"), "{}", lines[2]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let shown = problem("a\u{1b}[31m\tb", 0..1).to_string();
        assert!(!shown.contains(['\u{1b}', '\t']), "{shown:?}");
        assert_eq!(
            visible(&"a".repeat(10_000)).chars().count(),
            MAX_MESSAGE + 1
        );
        assert_eq!(visible("a\u{1b}b\nc"), "a\\u{1b}b\\nc");
    }
}
