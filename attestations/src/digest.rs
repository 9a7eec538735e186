//! What names content: SHA-256 digests, and git's object ids.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

use crate::foreign::Foreign;
use crate::through_text::through_text;

/// A SHA-256 digest, written `sha256:` and 64 lowercase hexadecimal digits.
///
/// Other algorithms are refused: everything this project compares is compared under one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest with these raw bytes, as a hasher gives them.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 digits without the algorithm, as a `DigestSet` holds them.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Parses the 64 digits of a `DigestSet`.
    ///
    /// # Errors
    /// Unless they are 64 lowercase hexadecimal digits.
    pub fn from_hex(digits: &str) -> Result<Self, NotADigest> {
        let refused = || NotADigest {
            text: Foreign::new(digits),
            wanted: "64 lowercase hexadecimal digits of SHA-256",
        };
        if digits.len() != 64 || !is_lower_hex(digits) {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| refused())?;
        Ok(Self(bytes))
    }
}

/// Reads a `DigestSet`, in which no algorithm may stand twice: two readers could take different ones.
pub(crate) fn set<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Set;
    impl<'de> Visitor<'de> for Set {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("digests by algorithm")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut found = BTreeMap::new();
            while let Some((algorithm, digest)) = entries.next_entry::<String, String>()? {
                if let Some(_twice) = found.insert(algorithm, digest) {
                    return Err(A::Error::custom("an algorithm stands twice in a set of digests"));
                }
            }
            Ok(found)
        }
    }
    from.deserialize_map(Set)
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let wanted = "sha256: and 64 lowercase hexadecimal digits";
        let digits =
            text.strip_prefix("sha256:").ok_or_else(|| NotADigest { text: Foreign::new(text), wanted })?;
        Self::from_hex(digits)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

through_text!(Digest: NotADigest);

/// A git object id: 40 lowercase hexadecimal digits (SHA-1) or 64 (SHA-256), never abbreviated.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitId(String);

impl GitId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GitId {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        if matches!(text.len(), 40 | 64) && is_lower_hex(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(NotADigest {
            text: Foreign::new(text),
            wanted: "a whole git object id: 40 or 64 lowercase hexadecimal digits",
        })
    }
}

through_text!(GitId: NotADigest);

impl fmt::Display for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! git_object {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(GitId);

        impl $name {
            /// The object's id.
            pub fn id(&self) -> &GitId {
                &self.0
            }

            /// The id's digits.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = NotADigest;

            fn from_str(text: &str) -> Result<Self, NotADigest> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

git_object! {
    /// The id of a commit.
    Commit
}
git_object! {
    /// The id of a tree.
    Tree
}

/// A text that is no digest of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct NotADigest {
    text: Foreign,
    wanted: &'static str,
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
