//! The keys that open the server: read once, compared in constant time, never printed.

use std::fmt;

use subtle::ConstantTimeEq as _;

/// Variables with this prefix or name hold keys; they are taken out of the environment.
const SLOTS: &str = "OH_SESSION_API_KEYS_";
const SINGLE: &str = "SESSION_API_KEY";

/// One or more keys, each of which opens the server.
#[derive(Clone)]
pub(crate) struct Keys(Vec<Vec<u8>>);

impl Keys {
    /// Returns the keys of a text with one in each line; `None` when it has none.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let keys: Vec<Vec<u8>> = lines
            .filter(|line| !line.is_empty())
            .map(Into::into)
            .collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Returns whether `candidate` is one of the keys, in a time that depends on its length alone.
    pub(crate) fn accepts(&self, candidate: &[u8]) -> bool {
        let matches = self.0.iter().map(|key| key.as_slice().ct_eq(candidate));
        matches
            .fold(subtle::Choice::from(0), |any, one| any | one)
            .into()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} redacted)", self.0.len())
    }
}

/// Returns whether the variable `name` holds a key, or a secret of the server that the agent replaces.
pub(crate) fn is_secret(name: &[u8]) -> bool {
    name.starts_with(SLOTS.as_bytes()) || name == SINGLE.as_bytes() || name == b"OH_SECRET_KEY"
}

/// Returns the keys in `variables`, one in each line: those of all slots, or else the single one.
pub(crate) fn from_variables<'a>(
    variables: &(impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone),
) -> Vec<u8> {
    let named = |wanted: fn(&[u8]) -> bool| {
        let values = variables.clone().filter(move |(name, _)| wanted(name));
        values
            .map(|(_, value)| value)
            .collect::<Vec<_>>()
            .join(&b'\n')
    };
    let slots = named(|name| name.starts_with(SLOTS.as_bytes()));
    if Keys::parse(&slots).is_some() {
        slots
    } else {
        named(|name| name == SINGLE.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_opens_and_nothing_else() {
        let keys = Keys::parse(b"first\n\n second \r\n").unwrap();
        for (candidate, accepted) in [
            ("first", true),
            ("second", true),
            ("", false),
            ("firs", false),
            ("first\n", false),
            ("firstsecond", false),
        ] {
            assert_eq!(keys.accepts(candidate.as_bytes()), accepted, "{candidate}");
        }
        assert!(Keys::parse(b" \n").is_none());
        assert_eq!(format!("{keys:?}"), "Keys(2 redacted)");
    }

    #[test]
    fn slots_come_before_the_single_key() {
        let of = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
            String::from_utf8(from_variables(&variables)).unwrap()
        };
        let single = ("SESSION_API_KEY", "old");
        assert_eq!(of(&[single]), "old");
        assert_eq!(of(&[single, ("OH_SESSION_API_KEYS_0", "")]), "old");
        let slots = [
            ("OH_SESSION_API_KEYS_0", "a"),
            single,
            ("OH_SESSION_API_KEYS_1", "b"),
        ];
        assert_eq!(of(&slots), "a\nb");
        assert_eq!(of(&[("PATH", "/bin")]), "");
    }
}
