//! Secrets of a build: held only in memory, mounted into the steps that ask for them, and searched for in everything
//! that a step leaves. The searched forms are specified in `docs/materials.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use errors::files;
use zeroize::Zeroizing;

use recorder::SecretPatterns;

use crate::error::{Error, Kind, Result};

pub(crate) use recorder::Redactor;

/// Most bytes of a secret, as in Docker.
const MAX_SIZE: u64 = 500 * 1024;
/// Shorter values occur everywhere, so that a leak could not be detected.
const MIN_SIZE: usize = 8;

/// `--secret`: the source of a secret. Nothing is read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    id: String,
    origin: Origin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    File(PathBuf),
    Variable(String),
    /// The variable of that name if there is one, and otherwise the file.
    Either(String),
}

impl FromStr for Given {
    type Err = String;

    /// Parses `id=NAME,src=FILE`, `id=NAME,env=VARIABLE` or `id=NAME`, as Docker does.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (mut id, mut kind, mut file, mut variable) = (None, None, None, None);
        for field in text.split(',') {
            let (name, value) = field
                .split_once('=')
                .filter(|(_, value)| !value.is_empty())
                .ok_or_else(|| format!("{field} is not of the form NAME=VALUE"))?;
            let slot = match name {
                "id" => &mut id,
                "type" => &mut kind,
                "src" | "source" => &mut file,
                "env" => &mut variable,
                _ => return Err(format!("{name} is unknown: a secret has id, and src or env")),
            };
            if slot.replace(value.to_owned()).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        let id = id.ok_or("a secret needs an id, which the Dockerfile names it by")?;
        if id.len() > 128 || id.contains(char::is_control) {
            return Err("an id has at most 128 bytes, none of them a control character".to_owned());
        }
        let origin = match (kind.as_deref(), file, variable) {
            (None | Some("file"), Some(file), None) => Origin::File(file.into()),
            (None | Some("env"), None, Some(variable)) | (Some("env"), Some(variable), None) => {
                Origin::Variable(variable)
            }
            (None, None, None) => Origin::Either(id.clone()),
            (Some("env"), None, None) => Origin::Variable(id.clone()),
            (Some("file"), None, None) => Origin::File(PathBuf::from(&id)),
            (Some(other), ..) if !matches!(other, "env" | "file") => {
                return Err(format!("type={other} is neither file nor env"));
            }
            _ => return Err("a secret comes from src or from env".to_owned()),
        };
        Ok(Self { id, origin })
    }
}

impl Given {
    fn read(&self) -> Result<Zeroizing<Vec<u8>>> {
        let of_variable = |name: &str| std::env::var_os(name).map(|value| Zeroizing::new(value.into_vec()));
        let bytes = match &self.origin {
            Origin::File(path) => Zeroizing::new(files::read(path, MAX_SIZE)?),
            Origin::Variable(name) => of_variable(name).ok_or_else(|| {
                Error::new(Kind::NotFound, format!("secret {}: the variable {name} is not set", self.id))
            })?,
            Origin::Either(name) => match of_variable(name) {
                Some(value) => value,
                None => Zeroizing::new(files::read(&PathBuf::from(name), MAX_SIZE)?),
            },
        };
        if bytes.trim_ascii().len() < MIN_SIZE {
            return Err(Error::new(
                Kind::Input,
                format!("secret {} has fewer than {MIN_SIZE} bytes", self.id),
            )
            .hint("so few are found wherever one looks, and nobody could tell whether they leaked: use a longer one"));
        }
        match bytes.len() as u64 > MAX_SIZE {
            true => {
                Err(Error::new(Kind::Input, format!("secret {} has more than {MAX_SIZE} bytes", self.id)))
            }
            false => Ok(bytes),
        }
    }
}

/// The secrets of a build, by id. They are wiped from memory at its end, and never printed.
#[derive(Clone, Default)]
pub(crate) struct Secrets(BTreeMap<String, Arc<Zeroizing<Vec<u8>>>>);

impl Secrets {
    /// Reads all secrets, before any work is done for nothing.
    ///
    /// # Errors
    /// When one is missing, too short, too long, or given twice.
    pub(crate) fn read(given: &[Given]) -> Result<Self> {
        let mut all = BTreeMap::new();
        for one in given {
            if all.insert(one.id.clone(), Arc::new(one.read()?)).is_some() {
                return Err(Error::new(Kind::Usage, format!("secret {} is given twice", one.id)));
            }
        }
        Ok(Self(all))
    }

    /// Only the secrets with these ids.
    ///
    /// # Errors
    /// [`Kind::Usage`] when one of them was not given.
    pub(crate) fn only(&self, ids: &BTreeSet<String>) -> Result<Self> {
        let one = |id: &String| match self.0.get(id) {
            Some(bytes) => Ok((id.clone(), bytes.clone())),
            None => Err(Error::new(Kind::Usage, format!("the build was given the secret {id}"))
                .hint(format!("give it, too: --secret id={id},src=FILE"))),
        };
        ids.iter().map(one).collect::<Result<_>>().map(Self)
    }

    /// The secret with this id.
    pub(crate) fn get(&self, id: &str) -> Option<&[u8]> {
        self.0.get(id).map(|bytes| bytes.as_slice())
    }

    /// The patterns to search for, for the secrets with these ids.
    pub(crate) fn needles<'a>(&self, ids: impl Iterator<Item = &'a str>) -> SecretPatterns {
        SecretPatterns::of(ids.filter_map(|id| Some((id, self.get(id)?))))
    }

    /// The patterns for all secrets.
    pub(crate) fn all_needles(&self) -> SecretPatterns {
        self.needles(self.0.keys().map(String::as_str))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn secrets_are_given_as_to_docker() {
        let origin = |text: &str| text.parse::<Given>().map(|given| given.origin);
        assert_eq!(origin("id=a,src=/x"), Ok(Origin::File("/x".into())));
        assert_eq!(origin("type=file,id=a,source=x"), Ok(Origin::File("x".into())));
        assert_eq!(origin("id=a,env=A"), Ok(Origin::Variable("A".into())));
        assert_eq!(origin("type=env,id=a,src=A"), Ok(Origin::Variable("A".into())));
        assert_eq!(origin("id=a"), Ok(Origin::Either("a".into())));
        for text in ["", "a", "src=/x", "id=", "id=a,src=x,env=y", "id=a,id=b", "id=a,type=x", "id=a,mode=1"]
        {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_searched_for_is_refused_and_nothing_prints() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let given: Given = format!("id=a,src={}", path.display()).parse().unwrap();
            Secrets::read(std::slice::from_ref(&given))
        };
        assert!(read(b"1234567\n\n").unwrap_err().to_string().contains("fewer than 8"));
        assert!(read(&vec![b'x'; 600 * 1024]).is_err());
        let secrets = read(b"12345678\n").unwrap();
        assert_eq!(secrets.get("a"), Some(&b"12345678\n"[..]));
        assert_eq!(format!("{secrets:?}"), "{\"a\"}");
        assert!(secrets.only(&BTreeSet::from(["b".to_owned()])).unwrap_err().hint_text().is_some());
        let given: Given = "id=a,env=NO_SUCH_VARIABLE_HERE".parse().unwrap();
        assert_eq!(Secrets::read(&[given]).unwrap_err().kind(), Kind::NotFound);
    }
}
