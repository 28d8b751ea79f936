//! The grammars of single values in `trilith.toml`, which the command line's flags share.
//!
//! Only text is looked at: whether a path, user or stage exists is found out later.

use trilith_core::{Destination, DestinationError};

/// Labels with this prefix are written by every build and cannot be set.
pub const RESERVED_LABEL_PREFIX: &str = "dev.trilith.";

/// Why a text is not a value of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The text is empty.
    #[error("{0} cannot be empty")]
    Empty(&'static str),
    /// The text holds a NUL byte.
    #[error("`{}` holds a NUL byte", .0.escape_default())]
    Nul(String),
    /// A path that must lie in the project is absolute.
    #[error("`{0}` must be relative to the project")]
    Absolute(String),
    /// A path leaves the project.
    #[error("`{0}` must not hold `..`")]
    Parent(String),
    /// A path in an image is not a normal absolute path.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// The text is not a port.
    #[error("`{0}` is not a port; write `8000` or `8000/udp`")]
    Port(String),
    /// The text is not the name of an environment variable or build argument.
    #[error("`{0}` is not a variable's name")]
    Variable(String),
    /// The label is one that builds write.
    #[error("labels under `{RESERVED_LABEL_PREFIX}` are written by the build, `{0}` among them")]
    ReservedLabel(String),
    /// The text is not a user.
    #[error("`{0}` is not a user; write `uid`, `uid:gid` or a name the base knows")]
    User(String),
    /// The text is not the name of a user that can be made.
    #[error(
        "`{0}` is not a user's name: a letter or `_`, then letters, digits, `_`, `-` or `.`, 32 at most"
    )]
    UserName(String),
    /// The number is none that a user or group can have.
    #[error("{0} is no number of a user or group; they go to 4294967294, and `uid` begins with 1")]
    UserId(String),
    /// The path cannot stand in `/etc/passwd`.
    #[error("`{}` cannot be in `/etc/passwd`; it is a path without `:` and control characters, and not `/`", .0.escape_default())]
    UserPath(String),
    /// The text is not a signal.
    #[error("`{0}` is not a signal; write a name or number, as in `SIGTERM`")]
    Signal(String),
    /// The text is not the name of a build stage.
    #[error("`{0}` is not a stage's name: a letter, then letters, digits, `_`, `-` or `.`")]
    Stage(String),
}

/// Returns `text`, which must not be empty or hold a NUL byte; `what` names it in messages.
pub fn parse_text(text: &str, what: &'static str) -> Result<String, ValueError> {
    if text.trim().is_empty() {
        return Err(ValueError::Empty(what));
    }
    refuse_nul(text)?;
    Ok(text.to_owned())
}

/// Returns `text`, which must not hold a NUL byte: an argument or a variable's value.
pub fn parse_argument(text: &str) -> Result<String, ValueError> {
    refuse_nul(text)?;
    Ok(text.to_owned())
}

/// Returns a path in the project in normal form: relative, without `.`, `..`, doubled or
/// trailing slashes. The project itself is `.`.
pub fn parse_project_path(text: &str) -> Result<String, ValueError> {
    let text = parse_text(text, "a path")?;
    if text.starts_with('/') {
        return Err(ValueError::Absolute(text));
    }
    let components: Vec<&str> = text
        .split('/')
        .filter(|c| !matches!(*c, "" | "."))
        .collect();
    if components.contains(&"..") {
        return Err(ValueError::Parent(text));
    }
    if components.is_empty() {
        return Ok(".".to_owned());
    }
    Ok(components.join("/"))
}

/// Returns a path in an image in normal form, as [`Destination`] has it.
pub fn parse_image_path(text: &str) -> Result<String, ValueError> {
    let path: Destination = parse_text(text, "a path")?.parse()?;
    Ok(path.as_str().to_owned())
}

/// Returns an exposed port, `8000` or `8000/udp`, as image configurations write it
/// (OCI image specification 1.1, `config.md`, `ExposedPorts`).
pub fn parse_port(text: &str) -> Result<String, ValueError> {
    let (number, protocol) = match text.split_once('/') {
        Some((number, protocol)) => (number, Some(protocol)),
        None => (text, None),
    };
    let digits = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
    let known = matches!(protocol, None | Some("tcp" | "udp" | "sctp"));
    if !digits || !known || number.parse::<u16>().is_err() {
        return Err(ValueError::Port(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// Returns the name of an environment variable: not empty, without `=`, NUL and white space.
pub fn parse_env_name(text: &str) -> Result<String, ValueError> {
    let bad = |c: char| c == '=' || c.is_control() || c.is_whitespace();
    if text.is_empty() || text.contains(bad) {
        return Err(ValueError::Variable(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// Returns the name of a build argument: `[A-Za-z_][A-Za-z0-9_]*`.
pub fn parse_argument_name(text: &str) -> Result<String, ValueError> {
    let word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if text.is_empty() || !word || text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(ValueError::Variable(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// Returns a label's name, which is not one of those that builds write.
pub fn parse_label_name(text: &str) -> Result<String, ValueError> {
    let text = parse_text(text, "a label's name")?;
    if text.starts_with(RESERVED_LABEL_PREFIX) {
        return Err(ValueError::ReservedLabel(text));
    }
    Ok(text)
}

/// Returns a user as image configurations write it: `user`, `uid`, `user:group`, `uid:gid`.
pub fn parse_user(text: &str) -> Result<String, ValueError> {
    let bad = |c: char| c.is_control() || c.is_whitespace() || c == '/';
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 2 || parts.contains(&"") || text.contains(bad) {
        return Err(ValueError::User(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// Returns the name of a user to be made: as Debian's and Alpine's tools take it, upper case and
/// dots too, which are in use.
pub fn parse_user_name(text: &str) -> Result<String, ValueError> {
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !text.starts_with(first) || !text.bytes().all(rest) || text.len() > 32 {
        return Err(ValueError::UserName(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// Returns the number of a user or group, at least `least`. The highest means "none" to the kernel.
pub fn parse_user_id(text: &str, least: u32) -> Result<u32, ValueError> {
    let id = text.parse().ok();
    id.filter(|id| (least..u32::MAX).contains(id))
        .ok_or_else(|| ValueError::UserId(text.to_owned()))
}

/// Returns a path that can be a field of `/etc/passwd`: a home directory or a shell.
pub fn parse_user_path(text: &str) -> Result<Destination, ValueError> {
    let path: Destination = text.parse()?;
    let bad = |c: char| c.is_control() || c == ':';
    if path.as_str() == "/" || path.as_str().contains(bad) {
        return Err(ValueError::UserPath(text.to_owned()));
    }
    Ok(path)
}

/// The names of Linux's signals, without the `SIG` before each.
const SIGNALS: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS",
    "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
    "XFSZ",
];

/// Returns a signal in normal form: a number from 1 to 64, or `SIGTERM`, `SIGRTMIN+3`.
pub fn parse_signal(text: &str) -> Result<String, ValueError> {
    let refuse = || ValueError::Signal(text.to_owned());
    if let Some(number) = small_number(text) {
        let known = (1..=64).contains(&number);
        return if known {
            Ok(number.to_string())
        } else {
            Err(refuse())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |prefix: &str, sign: char| {
        let offset = name.strip_prefix(prefix)?.strip_prefix(sign)?;
        small_number(offset).filter(|offset| (1..=30).contains(offset))
    };
    let known = SIGNALS.contains(&name)
        || real_time("RTMIN", '+').is_some()
        || real_time("RTMAX", '-').is_some();
    if known {
        Ok(format!("SIG{name}"))
    } else {
        Err(refuse())
    }
}

/// Returns the number that `text` spells in digits alone; `str::parse` would allow a sign.
fn small_number(text: &str) -> Option<u8> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Returns the name of a stage of a Dockerfile, in lower case, as case does not tell stages apart.
pub fn parse_stage(text: &str) -> Result<String, ValueError> {
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) || !text.bytes().all(rest) {
        return Err(ValueError::Stage(text.to_owned()));
    }
    Ok(text.to_ascii_lowercase())
}

fn refuse_nul(text: &str) -> Result<(), ValueError> {
    if text.contains('\0') {
        return Err(ValueError::Nul(text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks what `parse` makes of each text, and that its results are in normal form.
    fn check(
        parse: impl Fn(&str) -> Result<String, ValueError>,
        good: &[(&str, &str)],
        bad: &[&str],
    ) {
        for (text, expected) in good {
            assert_eq!(parse(text).unwrap(), *expected);
            assert_eq!(parse(expected).unwrap(), *expected);
        }
        for text in bad {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn paths() {
        check(
            parse_project_path,
            &[
                ("app", "app"),
                ("./app//x/", "app/x"),
                (".", "."),
                ("./", "."),
                ("a..b/..c", "a..b/..c"),
                ("a b", "a b"),
            ],
            &["", " ", "/app", "..", "a/../b", "a/..", "a\0"],
        );
        check(
            parse_image_path,
            &[("/", "/"), ("/a//b/.", "/a/b")],
            &["", "a", "/a/../b", "/a\0"],
        );
    }

    #[test]
    fn ports() {
        check(
            parse_port,
            &[
                ("1", "1"),
                ("8000", "8000"),
                ("65535/udp", "65535/udp"),
                ("9/sctp", "9/sctp"),
            ],
            &[
                "", "0", "080", "65536", "+80", "-1", "80/", "80/TCP", "/tcp", "80-90", "80/tcp/x",
            ],
        );
    }

    #[test]
    fn names() {
        check(
            parse_env_name,
            &[("A", "A"), ("a.b-c", "a.b-c")],
            &["", "A=B", "A B", "A\0"],
        );
        check(
            parse_argument_name,
            &[("_A9", "_A9")],
            &["", "9A", "a-b", "é"],
        );
        check(
            parse_label_name,
            &[(
                "org.opencontainers.image.title",
                "org.opencontainers.image.title",
            )],
            &["", " ", "dev.trilith.scheme"],
        );
        check(
            parse_user,
            &[
                ("0", "0"),
                ("1:2", "1:2"),
                ("node", "node"),
                ("www-data:www-data", "www-data:www-data"),
            ],
            &["", ":", "1:", ":1", "1:2:3", "a b", "a/b", "a\n"],
        );
        check(
            parse_stage,
            &[("deps", "deps"), ("Deps-1.x_y", "deps-1.x_y")],
            &["", "1x", "a b", "a/b", "é"],
        );
    }

    #[test]
    fn signals() {
        check(
            parse_signal,
            &[
                ("SIGTERM", "SIGTERM"),
                ("int", "SIGINT"),
                ("15", "15"),
                ("SIGRTMIN+3", "SIGRTMIN+3"),
                ("rtmax-1", "SIGRTMAX-1"),
            ],
            &[
                "",
                "SIG",
                "SIGTERMINATE",
                "0",
                "65",
                "256",
                "-1",
                "RTMIN+31",
                "RTMIN-1",
                "RTMIN++3",
                "+15",
                "é",
            ],
        );
    }
}
