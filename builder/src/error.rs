//! What the program tells the person who called it when it cannot go on: see [`errors`].

pub use errors::{Error, Kind, Result};

impl From<crate::dockerfile::DockerfileError> for Error {
    fn from(error: crate::dockerfile::DockerfileError) -> Self {
        Self::new(Kind::Input, error.to_string())
    }
}

/// Sorts the failures of the `images` crate by whose fault they are.
pub trait Told<T> {
    /// The same with the program's error.
    ///
    /// # Errors
    /// Whenever it already was one.
    fn told(self) -> Result<T>;
}

impl<T> Told<T> for std::result::Result<T, images::Error> {
    fn told(self) -> Result<T> {
        self.map_err(of_images)
    }
}

/// The program's error for one of the `images` crate.
pub(crate) fn of_images(error: images::Error) -> Error {
    Error::new(error.io_kind().into(), error.to_string()).hint(error.remedy()).because(error)
}
