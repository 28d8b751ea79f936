//! `/etc/passwd` and `/etc/group` with one user more.
//!
//! Lines are added, never changed: whatever else a file holds, comments, odd lines and the ends
//! of lines among it, stays byte for byte. Knows no image.

use trilith_core::UserRecipe;

/// Where users are, in an image.
pub(super) const PASSWD: &str = "etc/passwd";
/// Where groups are, in an image.
pub(super) const GROUP: &str = "etc/group";

/// What users begin with where a base has none. No password is right.
const ROOT: &[u8] = b"root:*:0:0:root:/root:/bin/sh\n";
/// What groups begin with where a base has none.
const ROOT_GROUP: &[u8] = b"root:*:0:\n";
/// How much of a line a message shows, in bytes.
const SHOWN: usize = 120;

/// Why a base cannot get a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is taken by line {line} of `/{file}`: `{text}`")]
pub struct AccountError {
    /// What is taken, as in ``user ID 10001``.
    what: String,
    /// The file, without its slash in front.
    file: &'static str,
    /// Where it is taken, counted from 1.
    line: usize,
    /// What stands there.
    text: String,
}

/// The files of a base that has no such user yet, with the user in them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accounts {
    pub(super) passwd: Vec<u8>,
    /// `None` where the group is there already, by whatever name.
    pub(super) group: Option<Vec<u8>>,
}

/// Returns what the files become with `user` in them, `None` where it is there with these IDs.
///
/// # Errors
/// Its name has other IDs, or another user its ID, or a group is made whose name is taken.
pub(super) fn with_user(
    passwd: Option<&[u8]>,
    group: Option<&[u8]>,
    user: &UserRecipe,
) -> Result<Option<Accounts>, AccountError> {
    let passwd = passwd.unwrap_or(ROOT);
    let ids = (Some(user.owner.uid), Some(user.owner.gid));
    let is_user = |entry: &Entry<'_>| {
        entry.name == user.name.as_bytes() && (entry.number(2), entry.number(3)) == ids
    };
    if entries(passwd).any(|entry| is_user(&entry)) {
        return Ok(None);
    }
    for entry in entries(passwd) {
        if entry.name == user.name.as_bytes() {
            return Err(entry.takes(PASSWD, format!("the name `{}`", user.name)));
        }
        if entry.number(2) == ids.0 {
            return Err(entry.takes(PASSWD, format!("user ID {}", user.owner.uid)));
        }
    }
    Ok(Some(Accounts {
        passwd: with_line(passwd, &user_line(user)),
        group: with_group(group.unwrap_or(ROOT_GROUP), user)?,
    }))
}

/// Returns the line that makes `user`. It has no password, and none that a shadow file would hold.
pub(super) fn user_line(user: &UserRecipe) -> String {
    let UserRecipe {
        name,
        owner,
        home,
        shell,
    } = user;
    format!("{name}:*:{owner}::{home}:{shell}")
}

/// Returns the user of a line that [`user_line`] made.
pub(super) fn parse_user_line(line: &str) -> Option<UserRecipe> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, "*", uid, gid, "", home, shell] = fields.as_slice() else {
        return None;
    };
    Some(UserRecipe {
        name: (*name).to_owned(),
        owner: format!("{uid}:{gid}").parse().ok()?,
        home: home.parse().ok()?,
        shell: shell.parse().ok()?,
    })
}

fn with_group(group: &[u8], user: &UserRecipe) -> Result<Option<Vec<u8>>, AccountError> {
    let gid = user.owner.gid;
    if entries(group).any(|entry| entry.number(2) == Some(gid)) {
        return Ok(None);
    }
    match entries(group).find(|entry| entry.name == user.name.as_bytes()) {
        Some(entry) => Err(entry.takes(GROUP, format!("the name `{}`", user.name))),
        None => Ok(Some(with_line(group, &format!("{}:*:{gid}:", user.name)))),
    }
}

fn with_line(text: &[u8], line: &str) -> Vec<u8> {
    let mut text = text.to_vec();
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
    text
}

/// A line that names somebody.
struct Entry<'a> {
    line: usize,
    text: &'a [u8],
    name: &'a [u8],
}

impl Entry<'_> {
    /// Returns the number that is the field `at`.
    fn number(&self, at: usize) -> Option<u32> {
        let field = self.text.split(|&byte| byte == b':').nth(at)?;
        let text = std::str::from_utf8(field.trim_ascii()).ok()?;
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_number)
    }

    fn takes(&self, file: &'static str, what: String) -> AccountError {
        let shown = &self.text[..self.text.len().min(SHOWN)];
        AccountError {
            what,
            file,
            line: self.line,
            text: shown.escape_ascii().to_string(),
        }
    }
}

/// Returns the entries of a file as the C library reads them: white space in front does not count,
/// and what begins with `#` is a comment.
fn entries(text: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    lines.zip(1..).filter_map(|(text, line)| {
        let name = text.split(|&byte| byte == b':').next()?;
        let is_entry = name.len() < text.len() && !name.starts_with(b"#");
        is_entry.then_some(Entry { line, text, name })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = "agent:*:10001:10002::/home/agent:/bin/sh\n";
    const GROUP_LINE: &str = "agent:*:10002:\n";

    fn agent() -> UserRecipe {
        UserRecipe {
            name: "agent".to_owned(),
            owner: "10001:10002".parse().unwrap(),
            home: "/home/agent".parse().unwrap(),
            shell: "/bin/sh".parse().unwrap(),
        }
    }

    /// Returns what is added to both files, nothing for what stays as it is.
    fn added(passwd: &str, group: &str) -> Result<[String; 2], String> {
        let made = with_user(Some(passwd.as_bytes()), Some(group.as_bytes()), &agent());
        let rest = |text: Vec<u8>, old: &str| {
            let text = String::from_utf8(text).unwrap();
            text.strip_prefix(old).unwrap().to_owned()
        };
        match made.map_err(|error| error.to_string())? {
            Some(made) => Ok([
                rest(made.passwd, passwd),
                made.group.map(|text| rest(text, group)).unwrap_or_default(),
            ]),
            None => Ok(<[String; 2]>::default()),
        }
    }

    #[test]
    fn lines_are_added() {
        let open = |line: &str| format!("\n{line}");
        for (passwd, group, expected) in [
            ("", "", [LINE.to_owned(), GROUP_LINE.to_owned()]),
            (
                "root:x:0:0:root:/root:/bin/sh\n",
                "root:x:0:\n",
                [LINE.to_owned(), GROUP_LINE.to_owned()],
            ),
            // The last line has no end.
            (
                "root:x:0:0::/:",
                "root:x:0:",
                [open(LINE), open(GROUP_LINE)],
            ),
            // Ends of lines as on Windows, comments, what is no entry, names that only begin so.
            (
                "root:x:0:0::/:\r\n#agent:x:10001:1::/:\n\n agent\nagent2:x:1:10002::/:\n",
                "+\nagents:x:1:agent\r\n# agent:x:3:\n",
                [LINE.to_owned(), GROUP_LINE.to_owned()],
            ),
            // The group is there, by its own or another name.
            ("", "agent:x:10002:\n", [LINE.to_owned(), String::new()]),
            (
                "",
                "users:x:10002:a,b\r\n",
                [LINE.to_owned(), String::new()],
            ),
            // IDs that are none.
            (
                "a:x:+10001:0::/:\nb:x::0::/:\nc:x:18446744073709561617:0::/:\n",
                "g:x:-1:\n",
                [LINE.to_owned(), GROUP_LINE.to_owned()],
            ),
        ] {
            assert_eq!(added(passwd, group), Ok(expected), "{passwd:?} {group:?}");
        }
    }

    #[test]
    fn files_that_are_not_there_begin_with_root() {
        let made = with_user(None, None, &agent()).unwrap().unwrap();
        let passwd = format!("root:*:0:0:root:/root:/bin/sh\n{LINE}");
        assert_eq!(made.passwd, passwd.as_bytes());
        let group = format!("root:*:0:\n{GROUP_LINE}");
        assert_eq!(made.group, Some(group.into_bytes()));
    }

    #[test]
    fn the_same_user_stays_as_it_is() {
        for passwd in [
            "agent:x:10001:10002::/data:/bin/bash\n",
            "other:x:10001:1::/:\nagent:x:10001:10002::/data:/bin/bash\r\n",
            "  agent:x:10001:10002",
        ] {
            let unchanged = <[String; 2]>::default();
            assert_eq!(added(passwd, "agent:x:5:\n"), Ok(unchanged), "{passwd:?}");
        }
    }

    #[test]
    fn what_is_taken_is_told_with_its_line() {
        let long = format!("root:x:0:0::/:\nagent:{}:1:1", "x".repeat(1000));
        for (passwd, group, expected) in [
            (
                "root:x:0:0::/:\nagent:x:1000:1000::/:\n",
                "",
                "the name `agent` is taken by line 2 of `/etc/passwd`: `agent:x:1000:1000::/:`",
            ),
            (
                "agent:x:10001:1::/:\n",
                "",
                "the name `agent` is taken by line 1 of `/etc/passwd`: `agent:x:10001:1::/:`",
            ),
            (
                "#\n\nb\u{1b}:x:10001:10002::/:\n",
                "",
                "user ID 10001 is taken by line 3 of `/etc/passwd`: `b\\x1b:x:10001:10002::/:`",
            ),
            (
                "",
                "agent:x:1:\n",
                "the name `agent` is taken by line 1 of `/etc/group`: `agent:x:1:`",
            ),
            (&long, "", "line 2 of `/etc/passwd`: `agent:xxxx"),
        ] {
            let error = added(passwd, group).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(error.len() < 300, "{error}");
        }
    }

    #[test]
    fn a_user_is_its_line() {
        let line = user_line(&agent());
        assert_eq!(format!("{line}\n"), LINE);
        assert_eq!(parse_user_line(&line), Some(agent()));
        for line in [
            "",
            "agent",
            "agent:x:1:1::/:/bin/sh",
            "agent:*:1:1:me:/:/bin/sh",
            "agent:*:a:1::/:/bin/sh",
            "agent:*:1:1::home:/bin/sh",
            "agent:*:1:1::/:/bin/sh:",
        ] {
            assert_eq!(parse_user_line(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn every_other_line_stays(
            passwd in "([a-c#+ ]{0,3}(:[x0-9]{0,2}){0,7}(\r?\n)?){0,8}",
            group in any::<Vec<u8>>(),
            uid in 1..12_u32,
            gid in 0..12_u32,
        ) {
            let user = UserRecipe {
                name: "a".to_owned(),
                owner: trilith_core::Owner { uid, gid },
                ..agent()
            };
            let old = passwd.as_bytes();
            let Ok(Some(made)) = with_user(Some(old), Some(&group), &user) else {
                return Ok(());
            };
            let added = made.passwd.strip_prefix(old).unwrap();
            let end = if old.is_empty() || old.ends_with(b"\n") { "" } else { "\n" };
            let line = format!("{end}{}\n", user_line(&user));
            prop_assert_eq!(added, line.as_bytes());
            if let Some(made) = &made.group {
                let added = made.strip_prefix(group.as_slice()).unwrap();
                let line = format!("a:*:{gid}:\n");
                prop_assert!(added.ends_with(line.as_bytes()));
            }
            // It is there now, so that nothing is added again.
            let again = with_user(Some(&made.passwd), made.group.as_deref(), &user);
            prop_assert_eq!(again, Ok(None));
        }
    }
}
