//! Files that are replaced atomically.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::named;

/// Replaces the file at `path` with the bytes that `write` writes: see "A crash while saving" in `io`.
pub fn replace(path: &Path, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    replace_unnamed(path, write).map_err(|error| named(path, error))
}

fn replace_unnamed(path: &Path, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    if path.file_name().is_none() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not the name of a file"));
    }
    refuse_special(path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    remove_left_behind(folder);
    // `metadata` follows symbolic links: the target of one that is replaced may be readable by few.
    let old = fs::metadata(path).ok().filter(fs::Metadata::is_file);
    let temporary = Temporary::create(folder, old.as_ref())?;
    let mut writer = BufWriter::with_capacity(1 << 16, &temporary.file);
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    if let Some(old) = &old {
        access::copy(old, &temporary.file)?;
    }
    temporary.file.sync_all()?;
    temporary.rename(path)?;
    sync_folder(folder)
}

/// Fails if the path names something that must not be replaced by a file: a folder, a pipe, a socket, a device.
fn refuse_special(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) }; // nothing is there
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_symlink() {
        return Ok(());
    }
    if kind.is_dir() {
        return Err(io::Error::new(ErrorKind::IsADirectory, "is a directory"));
    }
    let what = access::special_kind(kind);
    let reason = format!("{what} cannot be replaced by a file; open it and use `save_to` to write into it");
    Err(io::Error::new(ErrorKind::InvalidInput, reason))
}

/// A file that is removed on drop unless it was renamed. It stays locked until then, so that other processes can tell it from
/// one whose process is dead.
struct Temporary {
    path: PathBuf,
    file: File,
    renamed: bool,
}

const PREFIX: &str = ".gradflow-";
const SUFFIX: &str = ".tmp";

impl Temporary {
    /// A new file in `folder` that no other call and no other process has. Its name does not contain the name of the
    /// file that it will replace, because that name may already have the maximum length.
    fn create(folder: &Path, old: Option<&fs::Metadata>) -> io::Result<Temporary> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let (process, number) = (process(), NUMBER.fetch_add(1, Ordering::Relaxed));
            let path = folder.join(format!("{PREFIX}{process}-{number}{SUFFIX}"));
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            if old.is_some() {
                access::owner_only(&mut options);
            }
            let file = match options.open(&path) {
                Ok(file) => file,
                // Left behind by a process that had the same id and was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            // On other systems nothing is cleaned up, and a lock would only hinder readers.
            let locked = if cfg!(unix) { file.try_lock() } else { Ok(()) };
            let temporary = Temporary { path, file, renamed: false };
            // Before it was locked, a process that cleans up may have taken it for one that was left behind. On file
            // systems without locks nothing is cleaned up.
            match locked {
                Err(fs::TryLockError::WouldBlock) => continue,
                _ if access::is_removed(&temporary.file) => continue,
                _ => return Ok(temporary),
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
            // An error is already being returned, and this one would hide it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The id of this process. WebAssembly has no process ids; names of files are unique there because a name that exists is not
/// taken.
fn process() -> u32 {
    if cfg!(target_family = "wasm") { 0 } else { std::process::id() }
}

/// Removes the temporary files of processes that were killed: those that no process has locked. Failures are ignored, because
/// they are no reason not to save.
fn remove_left_behind(folder: &Path) {
    if !cfg!(unix) {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_temporary(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let path = entry.path();
            // Opened for writing, because network file systems need that for locks.
            let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
            if file.try_lock().is_ok() && access::is_same(&file, &path) {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// Whether a file of this name can only be a [`Temporary`].
fn is_temporary(name: &OsStr) -> bool {
    let numbers = || name.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('-');
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers().is_some_and(|(process, number)| is_number(process) && is_number(number))
}

/// Access rights of files.
#[cfg(unix)]
mod access {
    use std::fs::{self, File, FileType, Metadata, OpenOptions, Permissions};
    use std::io;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
    use std::path::Path;

    /// Makes a new file readable by its owner only until [`copy`] is called. Without this, its mode is the umask's.
    pub fn owner_only(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    /// Gives `file` the owner, group and mode of the file that it will replace, as far as the process is allowed to.
    pub fn copy(old: &Metadata, file: &File) -> io::Result<()> {
        let new = file.metadata()?;
        let owner = (new.uid() != old.uid()).then_some(old.uid());
        let group = (new.gid() != old.gid()).then_some(old.gid());
        let owner_kept = owner.is_none() || fchown(file, owner, None).is_ok();
        let group_kept = group.is_none() || fchown(file, None, group).is_ok();
        let mut mode = old.mode() & 0o7777;
        if !group_kept {
            // The rights of the old group are not for the new one, which gets at most the rights of others.
            mode = mode & !0o070 | (mode & 0o007) << 3 & mode;
        }
        if !(owner_kept && group_kept) {
            mode &= 0o777; // no set-user-ID and the like for another owner
        }
        file.set_permissions(Permissions::from_mode(mode))
    }

    /// Whether the file no longer has a name.
    pub fn is_removed(file: &File) -> bool {
        file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Whether `path` names this file.
    pub fn is_same(file: &File, path: &Path) -> bool {
        let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
        file.metadata().ok().map(id) == fs::symlink_metadata(path).ok().map(id)
    }

    pub fn special_kind(kind: FileType) -> &'static str {
        match () {
            () if kind.is_fifo() => "a named pipe",
            () if kind.is_socket() => "a socket",
            () if kind.is_block_device() => "a block device",
            () if kind.is_char_device() => "a character device",
            () => "a special file",
        }
    }
}

/// Access rights of files, which are left to the folder on these systems.
#[cfg(not(unix))]
mod access {
    use std::fs::{File, FileType, Metadata, OpenOptions};
    use std::io;
    use std::path::Path;

    pub fn owner_only(_: &mut OpenOptions) {}

    pub fn copy(_: &Metadata, _: &File) -> io::Result<()> {
        Ok(())
    }

    pub fn is_removed(_: &File) -> bool {
        false
    }

    pub fn is_same(_: &File, _: &Path) -> bool {
        false
    }

    pub fn special_kind(_: FileType) -> &'static str {
        "a special file"
    }
}

/// Writes the folder's list of names to the disk, if the system and the file system can.
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
    use std::ffi::OsString;

    use super::*;

    /// A new, empty folder, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            // WASI names no folder for temporary files.
            let folder = if cfg!(target_os = "wasi") { "/tmp".into() } else { std::env::temp_dir() };
            let path = folder.join(format!("gradflow-{name}-{}", process()));
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
        replace(&path, &mut |writer| writer.write_all(b"old")).unwrap();
        // More than the buffer of the writer, so that some failures come after bytes that are in the file.
        let new = vec![7; 150_000];
        for bytes in (0..new.len()).step_by(997) {
            for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::Other] {
                let error = replace(&path, &mut |writer| {
                    writer.write_all(&new[..bytes])?;
                    Err(kind.into())
                });
                assert_eq!(error.unwrap_err().kind(), kind);
                assert_eq!((fs::read(&path).unwrap(), folder.names()), (b"old".to_vec(), vec!["file".into()]));
            }
        }
        replace(&path, &mut |writer| writer.write_all(&new)).unwrap();
        assert_eq!((fs::read(&path).unwrap(), folder.names()), (new, vec!["file".into()]));
    }

    #[test]
    fn a_panic_while_writing_leaves_the_old_file_and_no_other() {
        let folder = Folder::new("panicking");
        let path = folder.0.join("file");
        replace(&path, &mut |writer| writer.write_all(b"old")).unwrap();
        std::panic::catch_unwind(|| replace(&path, &mut |_| panic!("while writing"))).unwrap_err();
        assert_eq!((fs::read(&path).unwrap(), folder.names()), (b"old".to_vec(), vec!["file".into()]));
    }

    #[test]
    #[cfg_attr(target_family = "wasm", ignore = "starts threads")]
    fn threads_that_save_at_once_leave_one_whole_file() {
        let folder = Folder::new("threads");
        let path = folder.0.join("file");
        std::thread::scope(|scope| {
            for byte in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    (0..25).for_each(|_| replace(path, &mut |w| w.write_all(&[byte; 100_000])).unwrap())
                });
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == 100_000 && bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(folder.names(), ["file"]);
    }

    #[test]
    #[cfg_attr(target_family = "wasm", ignore = "locks a file")]
    fn files_that_were_left_behind_are_removed_and_no_others() {
        let folder = Folder::new("left-behind");
        let path = folder.0.join("file");
        let id = process();
        let left: Vec<_> =
            (0..50).flat_map(|n| [id, 1, u32::MAX].map(|id| format!(".gradflow-{id}-{n}.tmp"))).collect();
        left.iter().for_each(|name| fs::write(folder.0.join(name), b"broken").unwrap());
        let others =
            [".gradflow-1-.tmp", ".gradflow-1.tmp", ".gradflow-a-1.tmp", ".gradflow-1-1.tmp.old", "gradflow-1-1.tmp"];
        others.iter().for_each(|name| fs::write(folder.0.join(name), b"").unwrap());
        let saving = folder.0.join(".gradflow-7-7.tmp");
        let saver = File::create(&saving).unwrap();
        saver.lock().unwrap();
        replace(&path, &mut |writer| writer.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mut kept: Vec<OsString> = others.iter().map(Into::into).collect();
        kept.extend(["file".into(), ".gradflow-7-7.tmp".into()]);
        if !cfg!(unix) {
            kept.extend(left.iter().map(Into::into));
        }
        kept.sort();
        assert_eq!(folder.names(), kept);
        drop(saver);
        replace(&path, &mut |writer| writer.write_all(b"newer")).unwrap();
        assert_eq!((fs::read(&path).unwrap(), saving.exists()), (b"newer".to_vec(), !cfg!(unix)));
    }

    /// Several threads save into one folder at once: cleaning up never removes the temporary file of a running save.
    #[test]
    #[cfg_attr(target_family = "wasm", ignore = "starts threads")]
    fn savers_and_those_who_tidy_up_do_not_disturb_each_other() {
        let folder = Folder::new("tidy");
        std::thread::scope(|scope| {
            for k in 0..4_u8 {
                let path = folder.0.join(format!("file-{k}"));
                scope.spawn(move || {
                    for n in 0..50 {
                        replace(&path, &mut |writer| writer.write_all(&[k, n])).unwrap();
                        assert_eq!(fs::read(&path).unwrap(), [k, n]);
                    }
                });
            }
        });
        assert_eq!(folder.names(), ["file-0", "file-1", "file-2", "file-3"]);
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
        use std::os::unix::net::UnixListener;
        use std::process::Command;

        use super::*;

        fn mode(path: &Path) -> u32 {
            fs::metadata(path).unwrap().mode() & 0o7777
        }

        fn save(path: &Path) {
            replace(path, &mut |writer| writer.write_all(b"new")).unwrap();
            assert_eq!(fs::read(path).unwrap(), b"new");
        }

        #[test]
        fn special_files_are_refused_by_name_and_stay() {
            let folder = Folder::new("special");
            let at = |name: &str| folder.0.join(name);
            assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
            let _listener = UnixListener::bind(at("socket")).unwrap();
            // Only root can create a device, and not everywhere; otherwise the test uses one of the system's.
            let device = Command::new("mknod").arg(at("device")).args(["c", "1", "3"]).output().unwrap();
            let device = if device.status.success() { at("device") } else { "/dev/null".into() };
            fs::create_dir(at("folder")).unwrap();
            let cases = [
                (at("pipe"), "a named pipe"),
                (at("socket"), "a socket"),
                (device, "a character device"),
                (at("folder"), "is a directory"),
            ];
            for (path, what) in cases {
                let before = fs::symlink_metadata(&path).unwrap();
                let error = replace(&path, &mut |_| panic!("nothing is to be written")).unwrap_err().to_string();
                assert!(error.contains(path.to_str().unwrap()) && error.contains(what), "{error}");
                let after = fs::symlink_metadata(&path).unwrap();
                assert_eq!((before.ino(), before.file_type()), (after.ino(), after.file_type()));
            }
            assert!(folder.names().iter().all(|name| !is_temporary(name)));
        }

        #[test]
        fn the_mode_is_kept_and_a_new_file_has_the_umasks() {
            let folder = Folder::new("mode");
            let (path, plain) = (folder.0.join("file"), folder.0.join("plain"));
            fs::write(&plain, b"").unwrap(); // what the umask allows
            save(&path);
            assert_eq!(mode(&path), mode(&plain));
            for kept in [0o640, 0o600, 0o664, 0o666, 0o444, 0o400, 0o755] {
                fs::set_permissions(&path, fs::Permissions::from_mode(kept)).unwrap();
                save(&path);
                assert_eq!(mode(&path), kept, "{kept:o}");
            }
        }

        /// Only the owner can read it while it is written.
        #[test]
        fn a_private_file_is_private_while_it_is_written() {
            let folder = Folder::new("private");
            let path = folder.0.join("file");
            save(&path);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            replace(&path, &mut |writer| {
                let files: Vec<_> = fs::read_dir(&folder.0)?.map(|entry| entry.unwrap().path()).collect();
                assert_eq!(files.len(), 2, "the old one and the new one: {files:?}");
                files.iter().for_each(|file| assert_eq!(mode(file), 0o600, "{}", file.display()));
                writer.write_all(b"secret")
            })
            .unwrap();
            assert_eq!(mode(&path), 0o600);
        }

        #[test]
        fn the_owner_is_kept_where_that_is_allowed() {
            let folder = Folder::new("owner");
            let path = folder.0.join("file");
            save(&path);
            if chown(&path, Some(12_345), Some(23_456)).is_err() {
                println!("only root can give a file away");
                return;
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o4640)).unwrap();
            save(&path);
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (12_345, 23_456, 0o4640));
        }

        #[test]
        fn a_symbolic_link_is_replaced_with_the_rights_of_its_target() {
            let folder = Folder::new("link");
            let (target, link) = (folder.0.join("target"), folder.0.join("link"));
            fs::write(&target, b"old").unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
            symlink(&target, &link).unwrap();
            save(&link);
            assert!(fs::symlink_metadata(&link).unwrap().is_file());
            assert_eq!((fs::read(&target).unwrap(), mode(&link)), (b"old".to_vec(), 0o600));
            // A link to a device or to nothing is a link: what it points to stays.
            for to in ["/dev/null", "nowhere"] {
                let link = folder.0.join("other");
                let _ = fs::remove_file(&link);
                symlink(to, &link).unwrap();
                save(&link);
            }
        }

        /// File systems take names of up to 255 bytes.
        #[test]
        fn names_as_long_as_names_can_be_are_saved() {
            let folder = Folder::new("long");
            for length in (1..=255).rev().step_by(2).chain(236..=255) {
                let path = folder.0.join("n".repeat(length));
                save(&path);
                fs::remove_file(&path).unwrap();
            }
            let path = folder.0.join("n".repeat(256));
            let error = replace(&path, &mut |writer| writer.write_all(b"new")).unwrap_err().to_string();
            assert!(error.contains(&"n".repeat(256)), "{error}");
            assert_eq!(folder.names().len(), 0);
        }
    }
}
