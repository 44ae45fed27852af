//! Servers for programs that embed this: by a name, or from the text of a bundle, with one error for whatever is wrong.

use std::fmt;

use super::server::Server;
use super::store::Dirs;
use crate::config::ConfigError;
use crate::crypto::Secret;
use crate::enrol::{Bundle, EnrolError};
use crate::text::{NameError, ServerName};

impl Server {
    /// The server that was imported under this name.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(dirs: &Dirs, name: &str) -> Result<Self, OpenError> {
        let name: ServerName = name.parse().map_err(OpenError::Name)?;
        Self::load(dirs, &name).map_err(OpenError::Broken)
    }

    /// The server of a bundle whose text the caller has. `private_key` is for a bundle without one.
    ///
    /// `dirs.config` is not looked at. `dirs.state` is made where it is missing, and has to be kept: a client that
    /// forgets its counters is taken for somebody who repeats old knocks.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn from_bundle(dirs: &Dirs, text: &str, private_key: Option<Secret<32>>) -> Result<Self, OpenError> {
        let bundle = Bundle::parse("the bundle", text).map_err(OpenError::Broken)?;
        let name = bundle.server.clone();
        let enrolment = bundle.into_enrolment(private_key).map_err(OpenError::Enrol)?;
        Ok(Self { dirs: dirs.clone(), name, enrolment })
    }
}

/// Why there is no server to knock at.
#[derive(Debug)]
pub enum OpenError {
    /// No server can be called that.
    Name(NameError),
    /// What is wrong with the file or the bundle, or that there is none.
    Broken(Vec<ConfigError>),
    /// The bundle and the private key do not go together.
    Enrol(EnrolError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Enrol(error) => error.fmt(f),
            Self::Broken(errors) => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

impl std::error::Error for OpenError {}
