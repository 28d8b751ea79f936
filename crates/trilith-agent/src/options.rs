//! Arguments of the program. The ones that the server of `OpenHands` knows mean the same here.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub(crate) const USAGE: &str = "\
Usage: trilith-agent [OPTION]...

Runs commands, moves files and reads git repositories for whoever has the key.

  --host ADDRESS    address to listen on [default: 127.0.0.1]
  --port PORT       port to listen on, 0 for a free one [default: 8000]
  --key-file FILE   file with the key, one a line if there are several; `-` is standard input
  --root DIR        directory that files have to be in
  --help, --version

Without --key-file the key is taken from OH_SESSION_API_KEYS_0 (and _1, ...) or SESSION_API_KEY.";

/// What the program was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) host: IpAddr,
    pub(crate) port: u16,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) root: Option<PathBuf>,
}

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Serve(Options),
    Help,
    Version,
}

/// Parses arguments, without the program's name; the error says what is wrong with them.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Request, String> {
    let mut options = Options {
        host: IpAddr::from([127, 0, 0, 1]),
        port: 8000,
        key_file: None,
        root: None,
    };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        let (name, attached) = match name.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
            None => (name, None),
        };
        let mut value = || {
            let value = attached.clone().or_else(|| arguments.next());
            value.ok_or_else(|| format!("`{name}` needs a value"))
        };
        match name.as_str() {
            "--help" | "-h" => return Ok(Request::Help),
            "--version" | "-V" => return Ok(Request::Version),
            "--host" => options.host = parse_value(&name, &value()?)?,
            "--port" => options.port = parse_value(&name, &value()?)?,
            "--key-file" => options.key_file = Some(value()?.into()),
            "--root" => options.root = Some(absolute(&name, value()?.into())?),
            _ => return Err(format!("there is no option `{name}`")),
        }
    }
    Ok(Request::Serve(options))
}

impl Options {
    /// Returns the arguments that mean the same, with the key on standard input.
    pub(crate) fn with_key_on_stdin(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--host".into(), self.host.to_string().into()];
        arguments.extend(["--port".into(), self.port.to_string().into()]);
        arguments.extend(["--key-file".into(), "-".into()]);
        if let Some(root) = &self.root {
            arguments.extend(["--root".into(), root.into()]);
        }
        arguments
    }
}

fn parse_value<T: std::str::FromStr>(name: &str, value: &OsString) -> Result<T, String> {
    let text = value.to_string_lossy();
    text.parse()
        .map_err(|_| format!("`{name}` cannot be `{text}`"))
}

fn absolute(name: &str, path: PathBuf) -> Result<PathBuf, String> {
    if Path::is_absolute(&path) {
        Ok(path)
    } else {
        Err(format!(
            "`{name}` has to be absolute, and `{}` is not",
            path.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Request, String> {
        parse(arguments.iter().map(Into::into))
    }

    #[test]
    fn arguments_are_understood_in_both_forms() {
        let Ok(Request::Serve(options)) = parsed(&["--host", "::1", "--port=0", "--root", "/w"])
        else {
            panic!("not understood");
        };
        assert_eq!(
            (options.host.to_string().as_str(), options.port),
            ("::1", 0)
        );
        assert_eq!(options.root, Some("/w".into()));
        let again = parse(options.with_key_on_stdin().into_iter()).unwrap();
        let key_file = Some("-".into());
        assert_eq!(
            again,
            Request::Serve(Options {
                key_file,
                ..options
            })
        );
        assert_eq!(parsed(&["--version"]), Ok(Request::Version));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (arguments, reason) in [
            (&["--port", "x"][..], "`--port` cannot be `x`"),
            (&["--port"], "`--port` needs a value"),
            (
                &["--root", "w"],
                "`--root` has to be absolute, and `w` is not",
            ),
            (&["serve"], "there is no option `serve`"),
        ] {
            assert_eq!(parsed(arguments), Err(reason.to_owned()));
        }
    }
}
