//! What a registry asks for in `WWW-Authenticate` (RFC 9110 §11.6.1, RFC 6750 §3).
//!
//! Parses only; knows neither credentials nor tokens.

/// A kind of authentication the registry takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token from `realm`.
    Bearer {
        /// The address of the token server.
        realm: String,
        /// The name the token server knows the registry by.
        service: Option<String>,
        /// What access the refused request needs.
        scope: Option<String>,
    },
    /// User name and password.
    Basic,
}

/// Returns the challenge to answer: bearer before basic, whatever else is offered
/// (`Negotiate` on Windows servers) and in whatever order and number of headers.
pub(crate) fn choose<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Option<Challenge> {
    let mut found = None;
    for header in headers {
        for (scheme, parameters) in parse(&String::from_utf8_lossy(header)) {
            let get = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = get("realm") {
                    return Some(Challenge::Bearer {
                        realm,
                        service: get("service"),
                        scope: get("scope"),
                    });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                found = Some(Challenge::Basic);
            }
        }
    }
    found
}

type Parameters = Vec<(String, String)>;

/// Splits a header into its challenges. Lenient: what fits no rule is skipped.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let word = &rest[..end];
        if word.is_empty() {
            match rest.chars().next() {
                Some(c) => rest = &rest[c.len_utf8()..],
                None => return challenges,
            }
            continue;
        }
        let after = rest[end..].trim_start_matches([' ', '\t']);
        if let Some(after) = after.strip_prefix('=') {
            let (value, remaining) = value(after.trim_start_matches([' ', '\t']));
            if let Some((_, parameters)) = challenges.last_mut() {
                parameters.push((word.to_owned(), value));
            }
            rest = remaining;
        } else {
            challenges.push((word.to_owned(), Vec::new()));
            rest = &rest[end..];
        }
    }
}

/// Returns the value `text` begins with, a token or a quoted string, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[position + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges() {
        for (headers, expected) in [
            (
                &[r#"Bearer realm="https://a/t",service="r",scope="repository:a/b:pull,push""#][..],
                Some(bearer(
                    "https://a/t",
                    Some("r"),
                    Some("repository:a/b:pull,push"),
                )),
            ),
            (
                &[r#"bearer REALM = "https://a" , x=y"#],
                Some(bearer("https://a", None, None)),
            ),
            (
                &["Bearer realm=https://a/t,service=r"],
                Some(bearer("https://a/t", Some("r"), None)),
            ),
            (&[r#"Basic realm="x, y=z""#], Some(Challenge::Basic)),
            (&["Basic"], Some(Challenge::Basic)),
            (
                &["Negotiate", r#"Basic realm="x""#, r#"Bearer realm="r""#],
                Some(bearer("r", None, None)),
            ),
            (
                &[r#"Basic realm="x", Bearer realm="r", error="invalid_token""#],
                Some(bearer("r", None, None)),
            ),
            (
                &[r#"Bearer realm="a\"b\\c""#],
                Some(bearer("a\"b\\c", None, None)),
            ),
            (
                &["Negotiate YII=,Basic realm=\"x\""],
                Some(Challenge::Basic),
            ),
            (&["Bearer service=x"], None),
            (&["Digest nonce=\"x\""], None),
            (&["realm=\"x\""], None),
            (&[""], None),
            (
                &["=,=\"\"\"", "Bearer realm=\"unclosed"],
                Some(bearer("unclosed", None, None)),
            ),
            (&[], None),
        ] {
            let got = choose(headers.iter().map(|text| text.as_bytes()));
            assert_eq!(got, expected, "{headers:?}");
        }
        let bytes: &[u8] = b"Bearer realm=\"https://a/\xff\"";
        assert!(choose([bytes].into_iter()).is_some());
    }
}
