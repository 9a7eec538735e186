//! The program's errors: see [`errors`].

pub(crate) use errors::{Error, Kind, Result};

impl From<crate::dockerfile::DockerfileError> for Error {
    fn from(error: crate::dockerfile::DockerfileError) -> Self {
        Self::new(Kind::Input, error.to_string())
    }
}
