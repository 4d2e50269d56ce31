//! A secret of the operator: named in the configuration by where it is, never written there, never printed.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

/// A secret value; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Reads `env:NAME` or `file:/path`. A file that others may read is refused.
    ///
    /// # Errors
    /// What is wrong with the place or what is there, never its value.
    pub fn load(source: &str, folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Secret, String> {
        let value = if let Some(name) = source.strip_prefix("env:") {
            env(name).ok_or_else(|| format!("the environment variable {name} is not set"))?
        } else if let Some(path) = source.strip_prefix("file:") {
            read_private(&folder.join(path))?
        } else {
            return Err("a secret is named by its place, env:NAME or file:/path, and never stands in the file itself".into());
        };
        let value = value.trim();
        if value.is_empty() {
            return Err(format!("{source} is empty"));
        }
        Ok(Secret(Zeroizing::new(value.to_owned())))
    }

    /// For the one place that needs the value.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Secret(Zeroizing::new(value))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

pub(super) fn read_private(path: &Path) -> Result<String, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = path.display();
    let mode = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{shown} can be read by others; run chmod 600 {shown}"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))
}
