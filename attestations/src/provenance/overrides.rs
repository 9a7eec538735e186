//! Parameters of a build that the reviewed tree does not give.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::through_text::through_text;

/// One parameter that somebody chose when the build was asked for. Its value stands where that of every build stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Override {
    /// The Dockerfile's path.
    Dockerfile,
    /// The context's path.
    Context,
    /// The stage.
    Target,
    /// The platform: neither the tree's nor the builder's own.
    Platform,
    /// A build argument, by its name.
    BuildArg(String),
    /// A label, by its key.
    Label(String),
    /// A secret that no instruction of the Dockerfile names, by its id.
    Secret(String),
    /// A port that steps could reach.
    Port(u16),
    /// A base image that was taken from elsewhere than the Dockerfile says, by its name there.
    Base(String),
}

impl Override {
    /// The kind alone, as it is written.
    fn kind(&self) -> &'static str {
        match self {
            Self::Dockerfile => "dockerfile",
            Self::Context => "context",
            Self::Target => "target",
            Self::Platform => "platform",
            Self::BuildArg(_) => "build-arg",
            Self::Label(_) => "label",
            Self::Secret(_) => "secret",
            Self::Port(_) => "port",
            Self::Base(_) => "base",
        }
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Self::BuildArg(name) | Self::Label(name) | Self::Secret(name) | Self::Base(name) => {
                write!(f, ":{name}")
            }
            Self::Port(port) => write!(f, ":{port}"),
            Self::Dockerfile | Self::Context | Self::Target | Self::Platform => Ok(()),
        }
    }
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("`{text}` is no parameter that is known here");
        let found = match text.split_once(':') {
            None => match text {
                "dockerfile" => Self::Dockerfile,
                "context" => Self::Context,
                "target" => Self::Target,
                "platform" => Self::Platform,
                _ => return Err(unknown()),
            },
            Some((_, "")) => return Err(unknown()),
            Some(("build-arg", name)) => Self::BuildArg(name.to_owned()),
            Some(("label", name)) => Self::Label(name.to_owned()),
            Some(("secret", name)) => Self::Secret(name.to_owned()),
            Some(("base", name)) => Self::Base(name.to_owned()),
            Some(("port", port)) => Self::Port(port.parse().map_err(|_| unknown())?),
            Some(_) => return Err(unknown()),
        };
        // One way to write each: `port:080` is none.
        if found.to_string() == text { Ok(found) } else { Err(unknown()) }
    }
}

through_text!(Override: String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_as_it_is_written_and_nothing_else_is() {
        let all = [
            Override::Dockerfile,
            Override::Context,
            Override::Target,
            Override::Platform,
            Override::BuildArg("A".to_owned()),
            Override::Label("a:b".to_owned()),
            Override::Secret("token".to_owned()),
            Override::Port(8443),
            Override::Base("debian:12".to_owned()),
        ];
        for one in all {
            assert_eq!(one.to_string().parse::<Override>().unwrap(), one);
        }
        for text in
            ["", "Target", "target:x", "build-arg", "build-arg:", "port:080", "port:x", "entrypoint:x"]
        {
            assert!(text.parse::<Override>().is_err(), "{text}");
        }
    }
}
