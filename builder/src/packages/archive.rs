//! File names of packages: a name, a version, and what is known of how the two are told apart.

/// The endings of archives, the longer before those they end in.
const ARCHIVES: [&str; 14] = [
    ".tar.gz",
    ".tar.bz2",
    ".tar.xz",
    ".tar.zst",
    ".tar.lzma",
    ".tar.Z",
    ".tgz",
    ".tbz2",
    ".txz",
    ".zip",
    ".gz",
    ".xz",
    ".bz2",
    ".zst",
];

/// A file's name without the ending of an archive, if it has one.
pub(super) fn stem(file: &str) -> Option<&str> {
    ARCHIVES.iter().find_map(|ending| file.strip_suffix(ending)).filter(|stem| !stem.is_empty())
}

/// `name-version`, cut at the last dash that a digit follows.
pub(super) fn at_version(stem: &str) -> Option<(&str, &str)> {
    let cut = stem
        .rmatch_indices('-')
        .map(|(at, _)| at)
        .find(|at| stem[at + 1..].bytes().next().is_some_and(|byte| byte.is_ascii_digit()))?;
    Some((&stem[..cut], &stem[cut + 1..])).filter(|(name, _)| !name.is_empty())
}

/// Whether it is a word that a name or version may be: no control characters, spaces or separators, and not too long.
pub(super) fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '\\' | '?' | '#' | '"' | '<' | '>');
    !text.is_empty() && text.len() <= 200 && text != "." && text != ".." && text.chars().all(allowed)
}
