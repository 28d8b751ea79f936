//! Reading templates and rendering them with Jinja2's defaults: nothing is escaped, undefined
//! variables are empty, one newline at the end goes, and no other white space does.
//!
//! What Jinja2 knows and templates cannot use here: `%` on strings (there is the filter
//! `format`), `varargs` and `kwargs` in macros, and a few filters.
//!
//! A template that never ends, or includes what is not below its directory, is refused.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use minijinja::{AutoEscape, Environment, ErrorKind};
use trilith_core::{Digest, FieldHasher};

use super::error::TemplateError;
use super::variables::{BuildStart, TemplateVariables};

/// The most bytes that a template may have.
pub(super) const MAX_TEMPLATE_SIZE: u64 = 4 << 20;
/// How many steps a template may take; each 64 bytes of output count as one too.
const MAX_STEPS: u64 = 5_000_000;
/// The domain that the content of a template is hashed under; its version is the format's.
const CONTENT_DOMAIN: &str = "trilith/template/v1";

/// A template that was read, with the directory it may include files from.
#[derive(Clone, Debug)]
pub struct Template {
    path: PathBuf,
    directory: PathBuf,
    text: String,
}

/// Reads the template at `path`.
///
/// # Errors
/// [`TemplateError`] when the file cannot be read, is too large or is not UTF-8.
pub fn load_template(path: &Path) -> Result<Template, TemplateError> {
    let text = read(path)?;
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let directory = directory
        .canonicalize()
        .map_err(TemplateError::io("find the directory of", path))?;
    Ok(Template {
        path: path.to_owned(),
        directory,
        text,
    })
}

impl Template {
    /// Returns the file that the template was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the Dockerfile that the template makes of `variables`.
    ///
    /// # Errors
    /// [`TemplateError`] when the template or one it includes is wrong, cannot be read or never
    /// ends.
    pub fn render(&self, variables: &TemplateVariables) -> Result<String, TemplateError> {
        let name = self
            .path
            .file_name()
            .map(OsStr::to_string_lossy)
            .unwrap_or_default();
        let mut environment = self.environment();
        environment
            .add_template(&name, &self.text)
            .and_then(|()| environment.get_template(&name)?.render(variables.value()))
            .map_err(|error| self.failure(error))
    }

    /// Returns the digest of what the template makes of `variables`, whatever a build starts
    /// from: of the texts for all starts, each with the same base image, under
    /// `trilith/template/v1`. Two templates that differ for any start have two digests.
    ///
    /// # Errors
    /// Those of [`Template::render`].
    pub fn content(&self, variables: &TemplateVariables) -> Result<Digest, TemplateError> {
        let mut hasher = FieldHasher::new(CONTENT_DOMAIN);
        for build_from in BuildStart::ALL {
            let variables = TemplateVariables {
                build_from,
                ..variables.clone()
            };
            hasher.field(build_from.as_str(), self.render(&variables)?);
        }
        Ok(hasher.finish().to_digest())
    }

    fn environment(&self) -> Environment<'_> {
        let mut environment = Environment::new();
        minijinja_contrib::add_to_environment(&mut environment);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        // By its default, a template named `.html` would be escaped.
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(MAX_STEPS));
        let directory = self.directory.clone();
        environment.set_loader(move |name| {
            included(&directory, name).map_err(|error| {
                let kind = ErrorKind::InvalidOperation;
                minijinja::Error::new(kind, "cannot include a template").with_source(error)
            })
        });
        environment
    }

    fn failure(&self, error: minijinja::Error) -> TemplateError {
        match error.kind() {
            ErrorKind::OutOfFuel => TemplateError::Endless(self.path.clone()),
            _ => TemplateError::Render {
                path: self.path.clone(),
                source: error,
            },
        }
    }
}

/// Returns the text of the template `name` below `directory`, if it exists.
fn included(directory: &Path, name: &str) -> Result<Option<String>, TemplateError> {
    let outside = || TemplateError::Outside {
        name: name.to_owned(),
        directory: directory.to_owned(),
    };
    // As Jinja2, which takes a leading slash for the directory itself.
    let relative = Path::new(name.trim_start_matches('/'));
    if relative
        .components()
        .any(|component| component == Component::ParentDir)
    {
        return Err(outside());
    }
    let path = directory.join(relative);
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TemplateError::io("find", &path)(error)),
    };
    if !path.starts_with(directory) {
        return Err(outside());
    }
    read(&path).map(Some)
}

/// Returns the text of a template, with the line ends that Jinja2 gives it.
fn read(path: &Path) -> Result<String, TemplateError> {
    let file = File::open(path).map_err(TemplateError::io("read", path))?;
    let metadata = file.metadata().map_err(TemplateError::io("read", path))?;
    if !metadata.is_file() {
        return Err(TemplateError::NotAFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_TEMPLATE_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(TemplateError::io("read", path))?;
    if bytes.len() as u64 > MAX_TEMPLATE_SIZE {
        return Err(TemplateError::TooLarge(path.to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| TemplateError::NotUtf8(path.to_owned()))?;
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}
