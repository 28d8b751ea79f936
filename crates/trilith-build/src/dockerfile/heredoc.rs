//! Here-documents: which a line announces, as `BuildKit`'s parser finds them.
//!
//! A marker counts where a shell would see one, so not in quotes. What `BuildKit` does not take
//! for a marker, such as `cat<<EOF` in one word, is none here either. Contents are not looked at.

use std::iter::Peekable;
use std::str::Chars;

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heredoc {
    /// The word that ends it, without quotes.
    pub(super) name: String,
    /// Whether leading tabs go, as with `<<-`.
    pub(super) strip_tabs: bool,
    /// Whether white space follows `<<`, which older versions of `BuildKit` take for a shift.
    pub(super) spaced: bool,
    /// The lines up to the word that ends it.
    pub(super) content: String,
}

impl Heredoc {
    /// Returns whether `line`, with its line end, is the one that ends the document.
    pub(super) fn ends_with(&self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = if self.strip_tabs {
            line.trim_start_matches('\t')
        } else {
            line
        };
        line == self.name
    }
}

/// Returns the here-documents that the instruction `line` announces, in order and empty.
///
/// None where quotes or braces do not match: `BuildKit` leaves such a line to the shell.
pub(super) fn announced(line: &str) -> Vec<Heredoc> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let words = Lexer::new(line, Quotes::Keep).words().unwrap_or_default();
    words.iter().filter_map(|word| marker(word)).collect()
}

/// Returns the here-document that `word` announces: digits, `<<`, maybe `-`, and a name.
pub(super) fn marker(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix("<<")?;
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let name = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
    if name.contains('<') {
        return None;
    }
    let spaced = name.len() < rest.len();
    let mut names = Lexer::new(name, Quotes::Remove).words()?.into_iter();
    let heredoc = Heredoc {
        name: names.next()?,
        strip_tabs,
        spaced,
        content: String::new(),
    };
    names.next().is_none().then_some(heredoc)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Keep,
    Remove,
}

/// Splits a line into words as a shell does, leaving variables as they are.
struct Lexer<'t> {
    chars: Peekable<Chars<'t>>,
    quotes: Quotes,
    words: Vec<String>,
    word: String,
}

impl<'t> Lexer<'t> {
    fn new(text: &'t str, quotes: Quotes) -> Self {
        Self {
            chars: text.chars().peekable(),
            quotes,
            words: Vec::new(),
            word: String::new(),
        }
    }

    /// Returns the words; `None` where a quote or brace is never closed.
    fn words(mut self) -> Option<Vec<String>> {
        while let Some(c) = self.chars.next() {
            self.step(c)?;
        }
        self.end_word();
        Some(self.words)
    }

    fn step(&mut self, c: char) -> Option<()> {
        match c {
            '\'' => self.single_quoted(),
            '"' => self.double_quoted(),
            '\\' => {
                if self.quotes == Quotes::Keep {
                    self.word.push(c);
                }
                self.word.extend(self.chars.next());
                Some(())
            }
            '$' => self.dollar(),
            '<' => {
                self.less_than();
                Some(())
            }
            c if c.is_whitespace() => {
                self.end_word();
                Some(())
            }
            c => {
                self.word.push(c);
                Some(())
            }
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn quote(&mut self, quote: char) {
        if self.quotes == Quotes::Keep {
            self.word.push(quote);
        }
    }

    fn single_quoted(&mut self) -> Option<()> {
        self.quote('\'');
        loop {
            match self.chars.next()? {
                '\'' => break,
                c => self.word.push(c),
            }
        }
        self.quote('\'');
        Some(())
    }

    fn double_quoted(&mut self) -> Option<()> {
        self.quote('"');
        loop {
            match self.chars.next()? {
                '"' => break,
                '$' => self.dollar()?,
                '\\' => {
                    let escapes = matches!(self.chars.peek(), Some('"' | '$' | '\\'));
                    if self.quotes == Quotes::Keep || !escapes {
                        self.word.push('\\');
                    }
                    if escapes {
                        self.word.extend(self.chars.next());
                    }
                }
                c => self.word.push(c),
            }
        }
        self.quote('"');
        Some(())
    }

    /// Takes `<<` with the white space behind it as one piece.
    fn less_than(&mut self) {
        self.word.push('<');
        if self.chars.next_if_eq(&'<').is_some() {
            self.word.push('<');
            while let Some(blank) = self.chars.next_if(|c| matches!(c, ' ' | '\t' | '\r')) {
                self.word.push(blank);
            }
        }
    }

    /// Takes `$` and, where it follows, the whole of `{…}`, whose white space separates words.
    fn dollar(&mut self) -> Option<()> {
        self.word.push('$');
        if self.chars.next_if_eq(&'{').is_none() {
            return Some(());
        }
        self.word.push('{');
        if matches!(self.chars.peek(), None | Some('{' | '}' | ':')) {
            return None;
        }
        while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
            self.word.push(c);
        }
        if let Some(colon) = self.chars.next_if_eq(&':') {
            self.word.push(colon);
            self.chars.peek().filter(|c| matches!(c, '-' | '+' | '?'))?;
        }
        self.chars
            .peek()
            .filter(|c| matches!(c, '}' | '-' | '+' | '?' | '#' | '%' | '/'))?;
        loop {
            match self.chars.next()? {
                '}' => break,
                c => self.step(c)?,
            }
        }
        self.word.push('}');
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> Vec<(String, bool)> {
        let announced = announced(line);
        announced
            .into_iter()
            .map(|h| (h.name, h.strip_tabs))
            .collect()
    }

    #[test]
    fn markers_in_lines() {
        for (line, expected) in [
            ("RUN cat <<EOF > /x", &[("EOF", false)][..]),
            ("RUN cat <<-'E F' <<B", &[("E F", true), ("B", false)]),
            ("RUN cat 3<<EOF", &[("EOF", false)]),
            ("RUN cat << EOF", &[("EOF", false)]),
            ("RUN a; cat <<EOF;b", &[("EOF;b", false)]),
            (
                "COPY <<a.txt <<\"b\" /d/",
                &[("a.txt", false), ("b", false)],
            ),
            ("RUN cat <<E\\OF", &[("EOF", false)]),
            ("RUN echo ${x:-\"a b\"} <<EOF", &[("EOF", false)]),
            ("RUN echo $x <<$y", &[("$y", false)]),
            ("RUN echo \"it's\" <<EOF", &[("EOF", false)]),
            ("RUN echo \"<<EOF\"", &[]),
            ("RUN echo '<<EOF'", &[]),
            ("RUN echo \"\\\" <<EOF\"", &[]),
            ("RUN echo it's <<EOF", &[]),
            ("RUN echo ${x <<EOF", &[]),
            ("RUN echo ${} <<EOF", &[]),
            ("RUN echo ${x]} <<EOF", &[]),
            ("RUN echo ${x:} <<EOF", &[]),
            ("RUN cat <<<word", &[]),
            ("RUN cat <<< word", &[]),
            ("RUN cat<<EOF", &[]),
            ("RUN echo $((1<<2))", &[]),
            ("RUN cat <<", &[]),
            ("RUN cat < x", &[]),
        ] {
            let expected: Vec<_> = expected.iter().map(|&(n, s)| (n.to_owned(), s)).collect();
            assert_eq!(names(line), expected, "{line}");
        }
    }

    #[test]
    fn ends() {
        let plain = marker("<<EOF").unwrap();
        for (line, ends) in [
            ("EOF\n", true),
            ("EOF\r\n", true),
            ("\tEOF\n", false),
            ("EOF x", false),
        ] {
            assert_eq!(plain.ends_with(line), ends, "{line:?}");
        }
        assert!(marker("<<-EOF").unwrap().ends_with("\t\tEOF"));
    }
}
