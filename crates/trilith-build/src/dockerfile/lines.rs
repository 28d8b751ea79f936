//! A Dockerfile's text as logical lines: parser directives, comments, continuations and
//! here-documents taken care of, every byte accounted for.
//!
//! Follows `BuildKit`'s parser line by line, as two readings of one file would make keys that
//! miss a change. Which instructions exist and what their arguments mean is not known here.

use std::ops::Range;

use super::error::{DockerfileError, Problem};
use super::heredoc::{self, Heredoc};
use super::words::{self, Json};

/// One instruction as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The instruction's name in upper case.
    pub(super) keyword: String,
    /// Its flags with their dashes, without quotes.
    pub(super) flags: Vec<String>,
    /// All else, continuations joined and comments between them gone.
    pub(super) arguments: String,
    /// The here-documents, in order.
    pub(super) heredocs: Vec<Heredoc>,
    /// The bytes it takes up in the text, from the start of its first line to the end of its
    /// last, without the line end.
    pub(super) span: Range<usize>,
    /// Its first line, from 1.
    pub(super) number: usize,
}

impl Line {
    /// Returns the line that `text` holds, which has no continuation: what follows `ONBUILD`.
    pub(super) fn of(text: &str, escape: char, span: Range<usize>, number: usize) -> Self {
        let (keyword, rest) = words::keyword(text);
        let (flags, arguments) = words::flags(rest, escape);
        Self {
            keyword: keyword.to_uppercase(),
            flags,
            arguments: arguments.to_owned(),
            heredocs: Vec::new(),
            span,
            number,
        }
    }

    /// Returns whether here-documents may follow.
    fn may_announce(&self, escape: char) -> bool {
        match self.keyword.as_str() {
            "RUN" | "COPY" | "ADD" => !matches!(words::json(&self.arguments), Json::Strings(_)),
            "ONBUILD" => {
                let inner = Self::of(&self.arguments, escape, 0..0, 0);
                inner.keyword != "ONBUILD" && inner.may_announce(escape)
            }
            _ => false,
        }
    }
}

/// The comments at the top that tell the parser something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directives {
    /// What escapes a character and continues a line.
    pub(super) escape: char,
    /// The frontend that the engine is to use, as in `docker/dockerfile:1`.
    pub(super) syntax: Option<String>,
}

/// Returns the directives and instructions of `text`.
pub(super) fn split(text: &str) -> Result<(Directives, Vec<Line>), DockerfileError> {
    let mut reader = Reader::new(text);
    let mut lines = Vec::new();
    while let Some(line) = reader.instruction()? {
        lines.push(line);
    }
    Ok((reader.directives, lines))
}

/// A line of the text.
#[derive(Clone, Copy)]
struct Raw<'t> {
    /// Where it starts.
    start: usize,
    /// From 1.
    number: usize,
    /// With its line end.
    text: &'t str,
}

impl<'t> Raw<'t> {
    fn content(self) -> &'t str {
        self.text.trim_end_matches(['\r', '\n'])
    }

    fn end(self) -> usize {
        self.start + self.content().len()
    }

    fn is_comment(self) -> bool {
        self.text.trim_start().starts_with('#')
    }
}

struct Reader<'t> {
    rest: std::str::SplitInclusive<'t, char>,
    at: usize,
    number: usize,
    directives: Directives,
    /// The directives seen so far; `None` once there can be no more.
    seen: Option<Vec<String>>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        let content = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            rest: content.split_inclusive('\n'),
            at: text.len() - content.len(),
            number: 0,
            directives: Directives {
                escape: '\\',
                syntax: None,
            },
            seen: Some(Vec::new()),
        }
    }

    fn raw(&mut self) -> Option<Raw<'t>> {
        let text = self.rest.next()?;
        self.number += 1;
        let start = self.at;
        self.at += text.len();
        Some(Raw {
            start,
            number: self.number,
            text,
        })
    }

    /// Returns the next instruction with all that belongs to it.
    fn instruction(&mut self) -> Result<Option<Line>, DockerfileError> {
        while let Some(first) = self.raw() {
            let content = first.content().trim_start();
            self.directive(content, first.number)?;
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let (text, end) = self.join(first, content);
            let mut line = Line::of(
                &text,
                self.directives.escape,
                first.start..end,
                first.number,
            );
            if line.may_announce(self.directives.escape) {
                self.heredocs(&text, &mut line)?;
            }
            return Ok(Some(line));
        }
        Ok(None)
    }

    /// Returns the instruction that starts with `content`, its lines joined, and where it ends.
    fn join(&mut self, first: Raw<'t>, content: &str) -> (String, usize) {
        let mut end = first.end();
        let (text, mut goes_on) = self.continued(content);
        let mut joined = text.to_owned();
        while goes_on {
            let Some(next) = self.raw() else { break };
            end = next.end();
            if next.is_comment() || next.content().trim_start().is_empty() {
                continue;
            }
            let text;
            (text, goes_on) = self.continued(next.content());
            joined.push_str(text);
        }
        (joined, end)
    }

    /// Returns `line` without its continuation character, and whether it has one. An escaped
    /// one is none.
    fn continued<'l>(&self, line: &'l str) -> (&'l str, bool) {
        let escape = self.directives.escape;
        match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(before) if !before.ends_with(escape) => (before, true),
            _ => (line, false),
        }
    }

    /// Reads the contents of the here-documents that `text` announces.
    fn heredocs(&mut self, text: &str, line: &mut Line) -> Result<(), DockerfileError> {
        for mut heredoc in heredoc::announced(text) {
            let before = (self.rest.clone(), self.at, self.number);
            if let Some(end) = self.content(&mut heredoc) {
                line.span.end = end;
                line.heredocs.push(heredoc);
            } else if heredoc.spaced {
                // A shift, as in `$((1 << 2))`.
                (self.rest, self.at, self.number) = before;
            } else {
                return Err(Problem::Unterminated(heredoc.name).at(line.number));
            }
        }
        Ok(())
    }

    /// Reads the content of `heredoc`, and returns where it ends, if it does.
    fn content(&mut self, heredoc: &mut Heredoc) -> Option<usize> {
        loop {
            let raw = self.raw()?;
            if heredoc.ends_with(raw.text) {
                return Some(raw.end());
            }
            heredoc.content.push_str(raw.text);
        }
    }

    /// Takes note of the directive that `line` holds, if it does and one can still stand here.
    fn directive(&mut self, line: &str, number: usize) -> Result<(), DockerfileError> {
        let Some(mut seen) = self.seen.take() else {
            return Ok(());
        };
        let Some((name, value)) = directive(line) else {
            return Ok(());
        };
        if seen.contains(&name) {
            return Err(Problem::RepeatedDirective(name).at(number));
        }
        match name.as_str() {
            "escape" => {
                self.directives.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => return Err(Problem::Escape(value.to_owned()).at(number)),
                };
            }
            "syntax" => {
                let frontend = value.split(' ').next().unwrap_or(value);
                self.directives.syntax = Some(frontend.to_owned());
            }
            // `check` sets up the linter, which changes no image.
            _ => {}
        }
        seen.push(name);
        self.seen = Some(seen);
        Ok(())
    }
}

/// Returns the name and value of the directive that the comment `line` is.
fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let name = name.trim().to_lowercase();
    let value = value.trim();
    let known = matches!(name.as_str(), "escape" | "syntax" | "check");
    (known && !value.is_empty()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns keyword, arguments and the text of each instruction.
    fn lines(text: &str) -> Vec<(String, String, &str)> {
        let (_, lines) = split(text).unwrap();
        let line = |line: Line| (line.keyword, line.arguments, &text[line.span]);
        lines.into_iter().map(line).collect()
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|&(keyword, arguments, span)| (keyword.to_owned(), arguments.to_owned(), span))
            .collect();
        assert_eq!(lines(text), expected);
    }

    #[test]
    fn comments_and_blank_lines() {
        check(
            "# a\n\n  from a # b\n\t# c\nRUN x\n#",
            &[("FROM", "a # b", "  from a # b"), ("RUN", "x", "RUN x")],
        );
    }

    #[test]
    fn continuations() {
        check(
            "RUN a \\\n  b \\ \n# c\n\n  d \\\n",
            &[("RUN", "a   b   d", "RUN a \\\n  b \\ \n# c\n\n  d \\")],
        );
        check(
            "RUN a \\\\\nRUN b",
            &[("RUN", "a \\\\", "RUN a \\\\"), ("RUN", "b", "RUN b")],
        );
        check("FR\\\nOM a", &[("FROM", "a", "FR\\\nOM a")]);
        check("RUN a \\", &[("RUN", "a", "RUN a \\")]);
        check("\\\nRUN a", &[("RUN", "a", "\\\nRUN a")]);
    }

    #[test]
    fn line_ends_and_byte_order_mark() {
        check(
            "\u{feff}FROM a\r\nRUN a \\\r\n b\r\n",
            &[("FROM", "a", "FROM a"), ("RUN", "a  b", "RUN a \\\r\n b")],
        );
    }

    #[test]
    fn here_documents() {
        let text = "RUN <<A cat <<-B && \\\n x\n# a\nA\n\tb\\\n\tB\nUSER a\n";
        let (_, lines) = split(text).unwrap();
        assert_eq!(lines.len(), 2);
        let contents: Vec<&str> = lines[0]
            .heredocs
            .iter()
            .map(|h| h.content.as_str())
            .collect();
        assert_eq!(contents, ["# a\n", "\tb\\\n"]);
        assert_eq!(lines[0].arguments, "<<A cat <<-B &&  x");
        assert_eq!(
            &text[lines[0].span.clone()],
            text.strip_suffix("\nUSER a\n").unwrap()
        );
        for (text, heredocs) in [
            ("ONBUILD RUN <<E\nx\nE\n", 1),
            ("CMD cat <<E\n", 0),
            ("RUN [\"cat\", \"<<E\"]\n", 0),
            ("COPY <<E /x\nx\nE\n", 1),
        ] {
            assert_eq!(split(text).unwrap().1[0].heredocs.len(), heredocs, "{text}");
        }
        let (_, lines) = split("RUN cat << E\nx\nE\nRUN echo $((1 << 2))\nUSER a\n").unwrap();
        assert_eq!(lines.len(), 3);
        let error = split("FROM a\nRUN <<E\nx\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2: here-document `E` never ends");
    }

    #[test]
    fn directives() {
        for (text, escape, syntax) in [
            ("# escape=`\nFROM a", '`', None),
            (
                "#syntax = docker/dockerfile:1 x\n# Escape = `\nFROM a",
                '`',
                Some("docker/dockerfile:1"),
            ),
            ("# check=skip=all\n# escape=`\nFROM a", '`', None),
            ("# a\n# escape=`\nFROM a", '\\', None),
            ("\n# escape=`\nFROM a", '\\', None),
            ("# other=1\n# escape=`\nFROM a", '\\', None),
            ("FROM a\n# escape=`\n", '\\', None),
        ] {
            let (directives, _) = split(text).unwrap();
            assert_eq!(directives.escape, escape, "{text}");
            assert_eq!(directives.syntax.as_deref(), syntax, "{text}");
        }
        for (text, message) in [
            (
                "# escape=x\n",
                "line 1: `x` cannot escape; write `\\` or `` ` ``",
            ),
            (
                "# escape=`\n# escape=`\n",
                "line 2: directive `escape` is there twice",
            ),
        ] {
            assert_eq!(split(text).unwrap_err().to_string(), message);
        }
    }
}
