//! Files that are replaced atomically.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Replaces the file at `path` by what `write` writes: see "A crash while saving" in [`io`](crate::io).
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    replace_unnamed(path, write).map_err(|error| named(path, error))
}

/// The error with the file's name in its text.
pub fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn replace_unnamed(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "not the name of a file"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let (temporary, file) = Temporary::create(folder, name.into())?;
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    write(&mut writer)?;
    writer.into_inner()?.sync_all()?;
    temporary.rename(path)?;
    sync_folder(folder)
}

/// A file that is removed unless it was renamed.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// A new file in `folder` beside the one called `name`, which no other call and no other process has.
    fn create(folder: &Path, name: OsString) -> io::Result<(Temporary, File)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let mut own = OsString::from(".");
            own.push(&name);
            own.push(format!(".{}-{}.tmp", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
            let path = folder.join(own);
            match File::create_new(&path) {
                Ok(file) => return Ok((Temporary { path, renamed: false }, file)),
                // Left behind by a process of the same id that was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // An error is on its way already, and this one would hide it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Puts the folder's list of names on the disk, if the system and the file system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A new, empty folder, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("gradflow-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> Vec<OsString> {
            let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn an_error_after_any_number_of_bytes_leaves_the_old_file_and_no_other() {
        let folder = Folder::new("failing");
        let path = folder.0.join("file");
        replace(&path, |writer| writer.write_all(b"old")).unwrap();
        // More than the buffer of the writer, so that some failures come after bytes that are in the file.
        let new = vec![7; 150_000];
        for bytes in (0..new.len()).step_by(997) {
            for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::Other] {
                let error = replace(&path, |writer| {
                    writer.write_all(&new[..bytes])?;
                    Err(kind.into())
                });
                assert_eq!(error.unwrap_err().kind(), kind);
                assert_eq!((fs::read(&path).unwrap(), folder.names()), (b"old".to_vec(), vec!["file".into()]));
            }
        }
        replace(&path, |writer| writer.write_all(&new)).unwrap();
        assert_eq!((fs::read(&path).unwrap(), folder.names()), (new, vec!["file".into()]));
    }

    #[test]
    fn a_panic_while_writing_leaves_the_old_file_and_no_other() {
        let folder = Folder::new("panicking");
        let path = folder.0.join("file");
        replace(&path, |writer| writer.write_all(b"old")).unwrap();
        std::panic::catch_unwind(|| replace(&path, |_| panic!("while writing"))).unwrap_err();
        assert_eq!((fs::read(&path).unwrap(), folder.names()), (b"old".to_vec(), vec!["file".into()]));
    }

    #[test]
    fn threads_that_save_at_once_leave_one_whole_file() {
        let folder = Folder::new("threads");
        let path = folder.0.join("file");
        std::thread::scope(|scope| {
            for byte in 0..4 {
                let path = &path;
                scope.spawn(move || (0..25).for_each(|_| replace(path, |w| w.write_all(&[byte; 100_000])).unwrap()));
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == 100_000 && bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(folder.names(), ["file"]);
    }

    #[test]
    fn a_file_that_was_left_behind_is_not_in_the_way() {
        let folder = Folder::new("left-behind");
        let path = folder.0.join("file");
        let left: Vec<_> = (0..200).map(|n| format!(".file.{}-{n}.tmp", std::process::id())).collect();
        left.iter().for_each(|name| fs::write(folder.0.join(name), b"broken").unwrap());
        replace(&path, |writer| writer.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(folder.names().len(), left.len() + 1);
    }
}
