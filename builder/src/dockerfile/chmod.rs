//! `--chmod`: permissions as an octal number, or changes to those that a file has, as BSD's `chmod` reads them.

/// Set-user-id and set-group-id, and what everybody may do; the sticky bit changes only when it is named.
const STANDARD: u32 = 0o6777;
const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const READ: u32 = 0o444;
const WRITE: u32 = 0o222;
const RUN: u32 = 0o111;

/// What `--chmod` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// The permissions, whatever they were.
    Octal(u32),
    /// Changes, one after another.
    Symbolic(Vec<Change>),
}

/// One change to permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// These bits are set.
    Set(u32),
    /// These bits are cleared.
    Clear(u32),
    /// These bits are set on folders, and on files that anybody could run before.
    SetIfRunnable(u32),
    /// What one class may do is given to (or taken from) others.
    Like {
        /// How far the class's bits lie from the right: 6, 3 or 0.
        from: u32,
        /// Bits of the classes that change.
        to: u32,
        /// How.
        how: Operator,
    },
}

/// `+`, `-` or `=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    /// `+`
    Add,
    /// `-`
    Remove,
    /// `=`
    Replace,
}

impl Chmod {
    /// Reads `0755` or `u=rwX,go=rX`. Nothing for what is neither.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.bytes().next()? {
            b'0'..=b'9' => u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Self::Octal),
            _ => {
                text.split(',').map(clause).collect::<Option<Vec<_>>>().map(|it| Self::Symbolic(it.concat()))
            }
        }
    }

    /// The permissions of a file or folder that had `mode`.
    pub(crate) fn of(&self, mode: u32, is_folder: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(changes) => {
                let runnable = is_folder || mode & RUN != 0;
                changes.iter().fold(mode, |now, change| change.applied(now, runnable))
            }
        }
    }
}

impl Change {
    fn applied(self, mode: u32, runnable: bool) -> u32 {
        match self {
            Self::Set(bits) => mode | bits,
            Self::SetIfRunnable(bits) if runnable => mode | bits,
            Self::SetIfRunnable(_) => mode,
            Self::Clear(bits) => mode & !bits,
            Self::Like { from, to, how } => {
                let bits = (((mode >> from) & 0o7) * 0o111) & to;
                match how {
                    Operator::Add => mode | bits,
                    Operator::Remove => mode & !bits,
                    Operator::Replace => (mode & !to) | bits,
                }
            }
        }
    }
}

/// One clause between commas: whose bits, and then operators with what they do.
fn clause(text: &str) -> Option<Vec<Change>> {
    let start = text.find(|letter| !matches!(letter, 'a' | 'u' | 'g' | 'o'))?;
    let who = text[..start].bytes().fold(0, |who, letter| {
        who | match letter {
            b'a' => STANDARD,
            b'u' => SET_USER | 0o700,
            b'g' => SET_GROUP | 0o070,
            _ => 0o007,
        }
    });
    let mut changes = Vec::new();
    let mut rest = &text[start..];
    while !rest.is_empty() {
        let how = match rest.as_bytes()[0] {
            b'+' => Operator::Add,
            b'-' => Operator::Remove,
            b'=' => Operator::Replace,
            _ => return None,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        Permissions { who, how, bits: 0, if_runnable: 0, cleared: false }
            .read(&rest[1..end], &mut changes)?;
        rest = &rest[end..];
    }
    Some(changes)
}

/// What stands behind one operator, while it is read.
struct Permissions {
    who: u32,
    how: Operator,
    bits: u32,
    if_runnable: u32,
    /// Whether `=` has taken away what was there.
    cleared: bool,
}

impl Permissions {
    fn read(mut self, letters: &str, changes: &mut Vec<Change>) -> Option<()> {
        // Neither exists for others alone.
        let special = self.who == 0 || self.who & !0o007 != 0;
        for letter in letters.bytes() {
            match letter {
                b'r' => self.bits |= READ,
                b'w' => self.bits |= WRITE,
                b'x' => self.bits |= RUN,
                b'X' if self.how == Operator::Remove => self.bits |= RUN,
                b'X' => self.if_runnable |= RUN,
                b's' if special => self.bits |= SET_USER | SET_GROUP,
                b't' if special => {
                    self.who |= STICKY;
                    self.bits |= STICKY;
                }
                b's' | b't' => {}
                b'u' => self.like(6, changes),
                b'g' => self.like(3, changes),
                b'o' => self.like(0, changes),
                _ => return None,
            }
        }
        if self.bits != 0 || (self.how == Operator::Replace && !self.cleared) {
            self.flush(changes);
        }
        self.flush_runnable(changes);
        Some(())
    }

    fn like(&mut self, from: u32, changes: &mut Vec<Change>) {
        if self.bits != 0 {
            self.flush(changes);
        }
        self.cleared = true;
        self.flush_runnable(changes);
        let to = match self.who {
            0 => 0o777,
            // A class is meant when its right to read is among the bits: always, unless the sticky bit came first.
            who => (who & READ) / 4 * 7,
        };
        changes.push(Change::Like { from, to, how: self.how });
    }

    fn flush(&mut self, changes: &mut Vec<Change>) {
        let bits = std::mem::take(&mut self.bits) & self.of_whom(u32::MAX);
        match self.how {
            Operator::Add => changes.push(Change::Set(bits)),
            Operator::Remove => changes.push(Change::Clear(bits)),
            Operator::Replace => {
                changes.push(Change::Clear(self.of_whom(STANDARD)));
                changes.push(Change::Set(bits));
            }
        }
    }

    fn flush_runnable(&mut self, changes: &mut Vec<Change>) {
        if self.if_runnable != 0 {
            changes
                .push(Change::SetIfRunnable(std::mem::take(&mut self.if_runnable) & self.of_whom(u32::MAX)));
        }
    }

    /// The bits that may change; `otherwise` where nobody is named, which means everybody.
    fn of_whom(&self, otherwise: u32) -> u32 {
        if self.who == 0 { otherwise } else { self.who }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_and_changes() {
        let table = [
            ("0755", 0o600, false, 0o755),
            ("7", 0o600, false, 0o007),
            ("4711", 0o600, true, 0o4711),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o610, false, 0o755),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("u=rwX,go=rX", 0o6600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("+X", 0o644, false, 0o644),
            ("+X", 0o644, true, 0o755),
            ("a-w", 0o777, false, 0o555),
            ("go=", 0o4777, false, 0o4700),
            ("=", 0o7777, false, 0o1000),
            ("u+s,g+s,+t", 0o755, false, 0o7755),
            ("o+s", 0o755, false, 0o755),
            ("o+t", 0o755, true, 0o755),
            ("go=u-w", 0o750, false, 0o755),
            ("g=u", 0o741, false, 0o771),
            ("o-g", 0o775, false, 0o770),
            ("u+x-w=r", 0o200, false, 0o400),
            ("-X", 0o755, false, 0o644),
            ("=rw,+X", 0o711, false, 0o777),
            ("=rt", 0o777, false, 0o1777),
            ("u=gr", 0o070, false, 0o470),
        ];
        for (text, before, is_folder, after) in table {
            let chmod = Chmod::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                chmod.of(before, is_folder),
                after,
                "{text} on {before:o} gives {:o}",
                chmod.of(before, is_folder)
            );
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in [
            "", "u", "u+x,", ",u+x", "u+y", "rwx", "8", "10000", "+755", "u+x,go", "a=rw x", "0x7", "-1",
            "ü+x",
        ] {
            assert_eq!(Chmod::parse(text), None, "{text}");
        }
    }
}
