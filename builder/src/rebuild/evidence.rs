//! Chooses the provenance to repeat, and checks who signed it.

use attestations::provenance::Provenance;
use attestations::{Bundle, Digest, Foreign, PublicKey, Subject, Unverified, Verified};

use crate::error::{Error, Kind, Result};

/// A provenance to repeat.
pub(crate) struct Chosen {
    /// Its statement, with the result of the check.
    pub(crate) account: Account,
    /// The image it is about.
    pub(crate) subject: Digest,
    /// The digest of its bundle.
    pub(crate) bundle: Digest,
    /// Where it was found.
    pub(crate) origin: String,
}

impl Chosen {
    /// The statement.
    pub(crate) fn provenance(&self) -> &Provenance {
        match &self.account {
            Account::Verified(provenance) => provenance.value(),
            Account::Unverified(provenance) => provenance.value(),
        }
    }
}

/// A provenance statement, with or without a verified signature.
pub(crate) enum Account {
    /// Signed by one of the given keys.
    Verified(Verified<Provenance>),
    /// The signer was not checked.
    Unverified(Unverified<Provenance>),
}

/// Whose provenance is accepted.
pub(crate) enum Trust {
    /// That of the holders of these keys.
    Keys(Vec<PublicKey>),
    /// Anyone's, as the caller asked. The result is then only as good as the parameters.
    Unverified,
}

/// Chooses the provenance of `subject`, or of the only image it is about, among `candidates` (origin and bytes). One
/// of a rebuild comes last.
///
/// # Errors
/// [`Kind::NotFound`] when there is none, [`Kind::Key`] when there are some, but none is signed by a known key.
pub(crate) fn choose(
    candidates: &[(String, Vec<u8>)],
    subject: Option<&Digest>,
    trust: &Trust,
) -> Result<Chosen> {
    let mut found = Vec::new();
    let mut ignored = Vec::new();
    for (origin, bytes) in candidates {
        match read(origin, bytes, subject, trust) {
            Ok(chosen) => found.push(chosen),
            Err(reason) => ignored.push(format!("{}: {reason}", Foreign::new(origin))),
        }
    }
    found.sort_by_key(|chosen| chosen.provenance().build_definition.internal_parameters.rebuild_of.is_some());
    match found.into_iter().next() {
        Some(chosen) => Ok(chosen),
        None if ignored.is_empty() => Err(Error::new(Kind::NotFound, "there is no provenance to repeat")
            .hint("give one with --provenance FILE, or have the image's builder attach it")),
        None => Err(Error::new(Kind::Key, "there is no provenance that can be believed").details(ignored).hint(
            "give the builders' public keys with --builder-keys, or say --trust-unverified to repeat whatever it says",
        )),
    }
}

fn read(
    origin: &str,
    bytes: &[u8],
    subject: Option<&Digest>,
    trust: &Trust,
) -> std::result::Result<Chosen, String> {
    let bundle = Bundle::parse(bytes).map_err(|error| error.to_string())?;
    let (about, account) = match trust {
        Trust::Unverified => {
            let statement = bundle.statement_unverified().map_err(|error| error.to_string())?;
            let about = image_of(&statement.value().subject)?;
            (about, statement.into_provenance().map(Account::Unverified))
        }
        Trust::Keys(keys) => {
            let verified = keys.iter().find_map(|key| bundle.verify(key).ok());
            let payload = verified.ok_or("it is signed by none of the builders' keys")?;
            let statement = payload.statement().map_err(|error| error.to_string())?;
            let about = image_of(&statement.value().subject)?;
            (about, statement.into_provenance().map(Account::Verified))
        }
    };
    let account = account.ok_or("it is a statement of another kind")?;
    match subject {
        Some(wanted) if about != *wanted => Err(format!("it is about {about}")),
        _ => Ok(Chosen { account, subject: about, bundle: bundle.digest(), origin: origin.to_owned() }),
    }
}

/// The one image that a statement is about.
fn image_of(subjects: &[Subject]) -> std::result::Result<Digest, &'static str> {
    let [about] = subjects else { return Err("it is not about exactly one image") };
    about.sha256().ok_or("its subject has no SHA-256 digest")
}
