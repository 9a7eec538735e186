//! What the program tells the person who called it when it cannot go on: see [`answers`].

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
    use images::{Error as Images, RegistryFailure};
    let (kind, hint) = match &error {
        Images::Io { .. } => (Kind::Machine, "check the rights and the space of that path"),
        Images::NotFound { .. } => (Kind::NotFound, "check the name, and that it was built or pushed"),
        Images::Registry { failure: RegistryFailure::Unauthorized, .. } => {
            (Kind::Key, RegistryFailure::Unauthorized.hint())
        }
        Images::Registry { failure, .. } => (Kind::Network, failure.hint()),
        Images::Digest { .. } | Images::Size { .. } => {
            (Kind::Input, "the content was changed or damaged: fetch it again from a source you trust")
        }
        Images::TooLarge { .. } | Images::Refused { .. } => {
            (Kind::Input, "the image is malformed or of a kind that is not supported")
        }
    };
    let hint = match error.is_disk_full() {
        true => "the disk is full: free some space, or put the state directory elsewhere with --state-dir",
        false => hint,
    };
    Error::new(kind, error.to_string()).hint(hint).because(error)
}
