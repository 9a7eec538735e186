//! A tree as filtered by `--exclude` and `--parents`.

use std::collections::BTreeMap;

use super::tree::child;
use super::{CopyError, Node, NodeKind, NodeLookup, Tree, Walk};
use crate::dockerfile::ignore::Ignore;
use crate::dockerfile::pattern::{Pattern, is_pattern};

/// A tree with only some of the entries below one folder.
pub(crate) struct Picked<'a> {
    tree: &'a dyn Tree,
    base: &'a [u8],
    /// The entries, and whether each is there only because it contains others.
    paths: BTreeMap<Vec<u8>, bool>,
}

impl<'a> Picked<'a> {
    /// Entries below the folder `base` that `pattern` matches, with their contents, and that `excludes` does not;
    /// both match paths relative to `base`. Other folders are there only if they contain a selected entry.
    ///
    /// # Errors
    /// A pattern that cannot be parsed, a folder that cannot be read.
    pub(crate) fn of(
        tree: &'a dyn Tree,
        base: &'a [u8],
        pattern: Option<&str>,
        excludes: &Ignore,
    ) -> Result<Self, CopyError> {
        let wanted = pattern.map(NamePattern::parse).transpose()?;
        let mut picked = Self { tree, base, paths: BTreeMap::new() };
        let mut open = vec![(Vec::new(), wanted.is_none())];
        while let Some((folder, all)) = open.pop() {
            for name in tree.children(&within(base, &folder))? {
                let path = child(&folder, &name);
                let named = all || wanted.as_ref().is_some_and(|wanted| wanted.pattern.matches(&path));
                let left_out = excludes.leaves_out(&path);
                if named && !left_out {
                    picked.add(&path);
                }
                let below = named || wanted.as_ref().is_some_and(|wanted| wanted.may_lie_below(&path));
                if below
                    && (!left_out || excludes.has_exceptions())
                    && matches!(
                        tree.node(&within(base, &path))?,
                        Some(Node { kind: NodeKind::Directory, .. })
                    )
                {
                    open.push((path, named));
                }
            }
        }
        Ok(picked)
    }

    /// Whether anything was selected.
    pub(crate) fn found(&self) -> bool {
        !self.paths.is_empty()
    }

    fn add(&mut self, path: &[u8]) {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.paths.entry(within(self.base, &path[..at])).or_insert(true);
        }
        self.paths.insert(within(self.base, path), false);
    }

    fn has(&self, path: &[u8]) -> bool {
        let below = match self.base {
            b"" => !path.is_empty(),
            base => path.strip_prefix(base).is_some_and(|rest| rest.first() == Some(&b'/')),
        };
        !below || self.paths.contains_key(path)
    }
}

impl NodeLookup for Picked<'_> {
    fn node(&self, path: &[u8]) -> Result<Option<Node>, CopyError> {
        if self.has(path) { self.tree.node(path) } else { Ok(None) }
    }

    fn target(&self, path: &[u8]) -> Result<Vec<u8>, CopyError> {
        self.tree.target(path)
    }
}

impl Walk for Picked<'_> {
    fn children(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CopyError> {
        let mut names = self.tree.children(path)?;
        names.retain(|name| self.has(&child(path, name)));
        Ok(names)
    }

    fn is_on_the_way(&self, folder: &[u8]) -> bool {
        self.paths.get(folder).copied().unwrap_or(false)
    }
}

fn within(base: &[u8], path: &[u8]) -> Vec<u8> {
    if path.is_empty() { base.to_vec() } else { child(base, path) }
}

/// A pattern with limits on the folders that it can match in, so that a whole stage is not walked for one file.
struct NamePattern {
    pattern: Pattern,
    /// Its leading parts without wildcards.
    plain: Vec<Vec<u8>>,
    /// The depth of its matches; unlimited if it contains `**`.
    depth: Option<usize>,
}

impl NamePattern {
    fn parse(text: &str) -> Result<Self, CopyError> {
        let parts: Vec<&str> = text.split('/').collect();
        let plain = parts.iter().take_while(|part| !is_pattern(part));
        Ok(Self {
            pattern: Pattern::deep(text)?,
            plain: plain.map(|part| part.as_bytes().to_vec()).collect(),
            depth: (!text.contains("**")).then_some(parts.len()),
        })
    }

    fn may_lie_below(&self, folder: &[u8]) -> bool {
        let parts: Vec<&[u8]> = folder.split(|byte| *byte == b'/').collect();
        let fits = parts.iter().zip(&self.plain).all(|(part, plain)| part == plain);
        fits && self.depth.is_none_or(|depth| parts.len() < depth)
    }
}
