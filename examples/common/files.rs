//! Reading and writing files.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Failure;

/// The text of a file, which must be UTF-8.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::Run(format!("{}: {error}", path.display())))?;
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) => Err(Failure::Run(format!("{}: not text: it holds NUL characters", path.display()))),
        Err(_) => Err(Failure::Run(format!("{}: not UTF-8 text", path.display()))),
    }
}

/// A file that is opened before the work and written after it, so that a folder without write access is found early. Its old
/// contents stay until then.
pub struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// Creates the file, and the folder if it is missing.
    pub fn create(folder: &Path, name: &str) -> Result<Self, Failure> {
        let path = folder.join(name);
        let file = std::fs::create_dir_all(folder)
            .and_then(|()| File::options().write(true).create(true).truncate(false).open(&path));
        match file {
            Ok(file) => Ok(Output { path, file }),
            Err(error) => Err(Failure::Run(format!("{}: {error}", path.display()))),
        }
    }

    /// Writes the contents and gives the path.
    pub fn write(mut self, contents: &str) -> Result<PathBuf, Failure> {
        match self.file.set_len(0).and_then(|()| self.file.write_all(contents.as_bytes())) {
            Ok(()) => Ok(self.path),
            Err(error) => Err(Failure::Run(format!("{}: {error}", self.path.display()))),
        }
    }
}
