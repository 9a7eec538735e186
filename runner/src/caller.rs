//! Who asks this node: users of this machine, by what the kernel says of them and what the machine calls them.

use attestations::Caller;
use nix::unistd::{Uid, User};

/// Whoever started this process.
pub(crate) fn of_process() -> Caller {
    of_uid(Uid::current().as_raw())
}

/// The user with this number. Asks the machine's list of users, so it may block.
pub(crate) fn of_uid(uid: u32) -> Caller {
    let user = User::from_uid(Uid::from_raw(uid)).unwrap_or_else(|error| {
        // Known by number alone, they are whom a rule lists by number, and nobody else.
        tracing::warn!(%error, uid, "the name of a user could not be looked up");
        None
    });
    Caller { user: user.map(|user| user.name), uid: Some(uid) }
}

/// The user whom a person means by this text: a name, or `uid:` and a number. As serving them would find it.
pub(crate) fn named(text: &str) -> Caller {
    if let Some(uid) = text.strip_prefix("uid:").and_then(|number| number.parse().ok()) {
        return of_uid(uid);
    }
    let known = User::from_name(text).ok().flatten();
    Caller { user: Some(text.to_owned()), uid: known.map(|user| user.uid.as_raw()) }
}
