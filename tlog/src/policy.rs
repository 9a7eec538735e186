//! Whose cosignatures make a checkpoint count (`c2sp.org/tlog-policy`): logs, witnesses, groups of them, and the quorum.

use std::collections::{BTreeMap, BTreeSet};

use attestations::Foreign;

use crate::checkpoint::SignedCheckpoint;
use crate::cosignature;
use crate::error::{Error, Result};
use crate::note::{Purpose, VerifierKey};

const WHAT: &str = "policy of witnesses";
/// The most bytes of a policy.
pub const MAX_TEXT: usize = 256 << 10;
/// The most logs, witnesses and groups together.
const MAX_LINES: usize = 1024;

/// Whose cosignatures make a checkpoint count.
#[derive(Debug, Clone)]
pub struct Policy {
    logs: Vec<VerifierKey>,
    witnesses: Vec<Witness>,
    members: BTreeMap<String, Member>,
    quorum: Quorum,
}

/// A witness of a policy.
#[derive(Debug, Clone)]
pub struct Witness {
    /// Its name in the policy.
    pub name: String,
    /// Its key.
    pub key: VerifierKey,
    /// Where it is asked, if it is.
    pub url: Option<String>,
}

/// How many cosignatures a checkpoint needs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Quorum {
    /// The policy says `quorum none`.
    None,
    /// That of a witness or group.
    Of(String),
}

#[derive(Debug, Clone)]
enum Member {
    Witness(usize),
    Group { threshold: usize, members: Vec<String> },
}

/// Who cosigned a checkpoint, and whether that is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// The witnesses whose cosignatures hold, and the seconds since 1970 that they say.
    pub by: Vec<(String, u64)>,
    /// Whether they are a quorum.
    pub standing: Standing,
}

/// Whether cosignatures are enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// They are, or none are needed.
    Quorum,
    /// More are needed.
    TooFew,
}

impl Policy {
    /// Parses a policy.
    ///
    /// # Errors
    /// When a line has another form, names what no line before it defines, or names something twice; the line is told.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_TEXT {
            return Err(Error::malformed(WHAT, "it has more than 256 KiB"));
        }
        let text =
            std::str::from_utf8(bytes).map_err(|_| Error::malformed(WHAT, "it is not text in UTF-8"))?;
        let mut reading = Reading::default();
        for (at, line) in text.split('\n').enumerate() {
            let items: Vec<&str> = line.split([' ', '\t']).filter(|item| !item.is_empty()).collect();
            let read = match items.as_slice() {
                [] => Ok(()),
                [first, ..] if first.starts_with('#') => Ok(()),
                items => reading.line(items),
            };
            read.map_err(|problem| Error::malformed(WHAT, format!("line {}: {problem}", at + 1)))?;
        }
        reading.finish().map_err(|problem| Error::malformed(WHAT, problem))
    }

    /// The logs whose checkpoints count; none where the log is known otherwise.
    pub fn logs(&self) -> &[VerifierKey] {
        &self.logs
    }

    /// The witnesses.
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// Who cosigned this checkpoint.
    ///
    /// # Errors
    /// When a cosignature names a witness of the policy and is not its own.
    pub fn cosigned(&self, checkpoint: &SignedCheckpoint) -> Result<Cosigned> {
        let mut by = Vec::new();
        let mut signed = BTreeSet::new();
        for (at, witness) in self.witnesses.iter().enumerate() {
            match cosignature::verify(checkpoint, &witness.key) {
                Ok(seconds) => {
                    by.push((witness.name.clone(), seconds));
                    signed.insert(at);
                }
                Err(Error::Unsigned(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let standing = match &self.quorum {
            Quorum::None => Standing::Quorum,
            Quorum::Of(name) => self.standing(name, &signed),
        };
        Ok(Cosigned { by, standing })
    }

    fn standing(&self, name: &str, signed: &BTreeSet<usize>) -> Standing {
        let met = match self.members.get(name) {
            Some(Member::Witness(at)) => signed.contains(at),
            // A group names only what stands before it, so this ends.
            Some(Member::Group { threshold, members }) => {
                let standing = members.iter().filter(|it| self.standing(it, signed) == Standing::Quorum);
                standing.count() >= *threshold
            }
            None => false,
        };
        if met { Standing::Quorum } else { Standing::TooFew }
    }
}

#[derive(Default)]
struct Reading {
    logs: Vec<VerifierKey>,
    witnesses: Vec<Witness>,
    members: BTreeMap<String, Member>,
    grouped: BTreeSet<String>,
    quorum: Option<Quorum>,
}

impl Reading {
    fn line(&mut self, items: &[&str]) -> Result<(), String> {
        if self.logs.len() + self.members.len() >= MAX_LINES {
            return Err(format!("more than {MAX_LINES} logs, witnesses and groups"));
        }
        match items {
            ["log", key] | ["log", key, _] => self.log(key),
            ["witness", name, key] => self.witness(name, key, None),
            ["witness", name, key, url] => self.witness(name, key, Some((*url).to_owned())),
            ["group", name, threshold, members @ ..] => self.group(name, threshold, members),
            ["quorum", name] => self.quorum(name),
            _ => Err("it is none of log, witness, group and quorum with what belongs to them".to_owned()),
        }
    }

    fn log(&mut self, key: &str) -> Result<(), String> {
        let key = parse_key(key, Purpose::Log)?;
        if self.logs.iter().any(|other| other.key() == key.key()) {
            return Err("this log's key stands there twice".to_owned());
        }
        self.logs.push(key);
        Ok(())
    }

    fn witness(&mut self, name: &str, key: &str, url: Option<String>) -> Result<(), String> {
        let key = parse_key(key, Purpose::Witness)?;
        if self.witnesses.iter().any(|other| other.key.key() == key.key()) {
            return Err("this witness's key stands there twice".to_owned());
        }
        self.define(name, Member::Witness(self.witnesses.len()))?;
        self.witnesses.push(Witness { name: name.to_owned(), key, url });
        Ok(())
    }

    fn group(&mut self, name: &str, threshold: &str, members: &[&str]) -> Result<(), String> {
        for member in members {
            if !self.members.contains_key(*member) {
                return Err(format!("`{}` is not defined before it", Foreign::new(member)));
            }
            if !self.grouped.insert((*member).to_owned()) {
                return Err(format!("`{}` is in a group already", Foreign::new(member)));
            }
        }
        let threshold = match threshold {
            "any" => Some(1),
            "all" => Some(members.len()),
            digits => digits.parse().ok().filter(|it: &usize| it.to_string() == digits),
        };
        let threshold = threshold.filter(|it| (1..=members.len()).contains(it));
        let threshold = threshold.ok_or("its threshold is neither any, all, nor from 1 to its members")?;
        self.define(
            name,
            Member::Group { threshold, members: members.iter().map(ToString::to_string).collect() },
        )
    }

    fn quorum(&mut self, name: &str) -> Result<(), String> {
        let quorum = match name {
            "none" => Quorum::None,
            name if self.members.contains_key(name) => Quorum::Of(name.to_owned()),
            name => return Err(format!("`{}` is not defined before it", Foreign::new(name))),
        };
        match self.quorum.replace(quorum) {
            None => Ok(()),
            Some(_) => Err("the quorum is defined twice".to_owned()),
        }
    }

    fn define(&mut self, name: &str, member: Member) -> Result<(), String> {
        if name == "none" || self.members.contains_key(name) {
            return Err(format!("`{}` is taken", Foreign::new(name)));
        }
        self.members.insert(name.to_owned(), member);
        Ok(())
    }

    fn finish(self) -> Result<Policy, String> {
        let Self { logs, witnesses, members, quorum, .. } = self;
        let quorum = quorum.ok_or("it has no quorum: `quorum none` asks for none")?;
        Ok(Policy { logs, witnesses, members, quorum })
    }
}

fn parse_key(text: &str, purpose: Purpose) -> Result<VerifierKey, String> {
    let key = VerifierKey::parse(text).map_err(|cause| cause.to_string())?;
    match key.purpose() == purpose {
        true => Ok(key),
        false => Err("the key is of the other kind: 1 signs a log, 4 cosigns".to_owned()),
    }
}
