//! A copy of a log in exactly the form of `tlog-tiles`, to be served by any web server or handed to an auditor.

use std::fs;
use std::path::Path;

use errors::files;

use super::read::Reader;
use crate::error::{Error, Result};
use crate::layout::{self, CHECKPOINT, WIDTH};

impl Reader {
    /// Writes the log into an empty or missing folder: bundles, tiles, and last the checkpoint.
    ///
    /// # Errors
    /// When the folder holds something, the disk fails, or the log's own files are not what its checkpoint covers.
    pub fn export(&self, folder: &Path) -> Result<()> {
        let size = self.checkpoint().size;
        fs::create_dir_all(folder).map_err(Error::file("making", folder))?;
        let mut found = fs::read_dir(folder).map_err(Error::file("reading", folder))?;
        if found.next().is_some() {
            let cause = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
            return Err(Error::file("writing into", folder)(cause));
        }
        for number in 0..size.div_ceil(WIDTH) {
            let width = layout::width_of(size, number);
            let mut bundle = Vec::new();
            for index in number * WIDTH..number * WIDTH + width {
                bundle.extend(layout::framed(&self.entry(index)?)?);
            }
            write(folder, &layout::partial_path(&layout::bundle_path(number), width), &bundle)?;
        }
        for level in layout::levels(size) {
            let all = layout::hashes_at(size, level);
            for number in 0..all.div_ceil(WIDTH) {
                let path =
                    layout::partial_path(&layout::tile_path(level, number), layout::width_of(all, number));
                write(folder, &path, &self.tile(level, number)?)?;
            }
        }
        write(folder, CHECKPOINT, self.signed().to_string().as_bytes())
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let parent = files::folder_of(&path);
    fs::create_dir_all(parent).map_err(Error::file("making", parent))?;
    fs::write(&path, bytes).map_err(Error::file("writing", &path))
}
