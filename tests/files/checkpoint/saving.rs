//! Writers that fail, paths that cannot be written, and processes that are killed while they save.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use gradflow::io::Checkpoint;
use gradflow::ndarray::Array1;
use gradflow::rand::RngExt;

use super::{Folder, bytes, small_checkpoint};
use crate::common::{assert_says, rng};

/// Takes at most `most` bytes, one or a few at a time, with an interruption now and then, and then fails.
struct Failing {
    taken: Vec<u8>,
    most: usize,
    kind: ErrorKind,
    calls: usize,
}

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(ErrorKind::Interrupted.into());
        }
        let taken = bytes.len().min(1 + self.calls % 40).min(self.most - self.taken.len());
        self.taken.extend_from_slice(&bytes[..taken]);
        if taken == 0 && !bytes.is_empty() { Err(self.kind.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_fails_after_any_number_of_bytes_is_reported() {
    let checkpoint = small_checkpoint();
    let whole = bytes(|file| checkpoint.save_to(file));
    for kind in [ErrorKind::StorageFull, ErrorKind::BrokenPipe] {
        for most in 0..whole.len() {
            let mut writer = Failing { taken: Vec::new(), most, kind, calls: 0 };
            assert_eq!(checkpoint.save_to(&mut writer).unwrap_err().kind(), kind);
            assert_eq!(writer.taken, whole[..most]);
        }
    }
    // Short and interrupted writes alone do no harm.
    let mut writer = Failing { taken: Vec::new(), most: whole.len(), kind: ErrorKind::Other, calls: 0 };
    checkpoint.save_to(&mut writer).unwrap();
    assert_eq!(writer.taken, whole);
    println!("{} failing writers", 2 * whole.len());
}

#[test]
fn places_that_cannot_be_written_are_named_and_left_alone() {
    let folder = Folder::new("places");
    let checkpoint = small_checkpoint();
    let is_a_folder = folder.path("folder");
    fs::create_dir_all(is_a_folder.join("not-empty")).unwrap();
    fs::write(folder.path("file"), b"a file").unwrap();
    let before = folder.names();
    for path in [is_a_folder, folder.path("missing/model"), folder.path("file/model"), folder.path(".."), "".into()] {
        let error = checkpoint.save(&path).unwrap_err();
        assert_says(&error.to_string(), &[path.to_str().unwrap()]);
        let error = checkpoint.state_dict().save(&path).unwrap_err();
        assert_says(&error.to_string(), &[path.to_str().unwrap()]);
    }
    assert_eq!(folder.names(), before);
    assert_eq!(fs::read(folder.path("file")).unwrap(), b"a file");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_and_a_read_only_one_are_reported() {
    let error = small_checkpoint().save_to(fs::File::create("/dev/full").unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    // Not even root can write here.
    assert_says(&small_checkpoint().save("/proc/model.safetensors").unwrap_err().to_string(), &["/proc/model"]);
}

/// State number `k` of the process that is killed: about a megabyte that depends only on `k`.
fn state_number(k: u64) -> Checkpoint {
    let values = Array1::from_elem(1 << 18, k as f32);
    Checkpoint::new().with_tensors("model", &values).with_number("k", k)
}

#[test]
#[ignore = "not a test: the process that `a_process_killed_while_saving_leaves_a_whole_file` starts and kills"]
fn saves_until_killed() {
    let Some(path) = std::env::var_os("GRADFLOW_SAVES_UNTIL_KILLED") else { return };
    for k in 0.. {
        state_number(k).save(&path).unwrap();
        println!("\nsaved {k}");
    }
}

/// The file is always complete, and holds the last state whose saving was reported, or the one after it.
#[test]
#[cfg_attr(target_family = "wasm", ignore = "starts a process")]
fn a_process_killed_while_saving_leaves_a_whole_file() {
    let kills: u64 = std::env::var("GRADFLOW_KILLS").map_or(25, |kills| kills.parse().unwrap());
    let (mut cut_short, mut saved) = (0, 0);
    let rng = &mut rng(u64::from(std::process::id()));
    for _ in 0..kills {
        let folder = Folder::new("killed");
        let path = folder.path("model.safetensors");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["checkpoint::saving::saves_until_killed", "--exact", "--ignored", "--nocapture"])
            .env("GRADFLOW_SAVES_UNTIL_KILLED", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut reported =
            lines.filter_map(|line| line.unwrap().strip_prefix("saved ").map(|k| k.parse::<u64>().unwrap()));
        assert_eq!(reported.next(), Some(0));
        std::thread::sleep(Duration::from_micros(rng.random_range(0..40_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = reported.last().unwrap_or(0);
        let checkpoint = Checkpoint::open(&path).unwrap();
        let k = checkpoint.number("k").unwrap();
        assert!(k == last || k == last + 1, "{k} after {last}");
        assert_eq!(checkpoint, state_number(k));
        saved += k + 1;
        cut_short += u64::from(folder.names().len() > 1);
        // Leftover files do not get in the way.
        state_number(k + 1).save(&path).unwrap();
        assert_eq!(Checkpoint::open(&path).unwrap(), state_number(k + 1));
    }
    println!("{kills} kills, {cut_short} of them in the middle of a file, {saved} files saved");
    assert!(cut_short > 0, "no kill hit a file being written");
}
