//! Parameters and whole training runs in files: [`StateDict`] and [`Checkpoint`].
//!
//! # Parameters
//!
//! A [`StateDict`] holds tensors under their names, as PyTorch's `state_dict()` does, and is saved in the safetensors format:
//! `safetensors.torch.load_file` reads what is written here, and files that it writes are read here. Names, gate orders and
//! shapes are PyTorch's; if only names differ, such as the `_l0` of an `nn.LSTM`, [`LoadOptions::rename`] maps them.
//!
//! ```
//! use gradflow::io::{LoadOptions, StateDict};
//! use gradflow::{rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell};
//!
//! # let path = std::env::temp_dir().join(format!("gradflow-doc-dict-{}.safetensors", std::process::id()));
//! let rng = &mut StdRng::seed_from_u64(0);
//! let (lstm, mut other) = (LstmCell::<f32>::new(3, 4, rng), LstmCell::<f32>::new(3, 4, rng));
//! StateDict::of(&lstm).save(&path)?;
//! StateDict::open(&path)?.load(&mut other)?;
//! assert_eq!(other.weight_ih, lstm.weight_ih);
//!
//! // As the part `encoder.lstm` of a PyTorch module whose LSTM has one layer, and back.
//! StateDict::new().with_renamed(&lstm, |name| format!("encoder.lstm.{name}_l0")).save(&path)?;
//! let torch = LoadOptions::new().prefix("encoder.lstm").rename(|name| format!("{name}_l0"));
//! StateDict::open(&path)?.load_with(&torch, &mut other)?;
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With the feature `pytorch`, `StateDict::open_pytorch` reads files of `torch.save`, without Python. A model of `f32` or `f64`
//! loads weights in half precision with [`LoadOptions::convert`].
//!
//! Loading is strict by default: one error, [`Mismatch`], names everything that is missing, unexpected, of another shape or of
//! another type, and nothing is changed. Values are not checked: a NaN is loaded as it is, to the bit.
//!
//! # Trainings
//!
//! A [`Checkpoint`] holds what a training needs to continue, to the bit, as if it had not been interrupted.
//!
//! ```
//! use gradflow::io::Checkpoint;
//! use gradflow::ndarray::{Array3, ArrayRef3};
//! use gradflow::rand::{SeedableRng, rngs::StdRng};
//! use gradflow::{Layer, ZerosLike, optim::{AdamW, Optimizer, Schedule}, recurrent::GruCell};
//!
//! # let path = std::env::temp_dir().join(format!("gradflow-doc-checkpoint-{}.safetensors", std::process::id()));
//! fn train(model: &mut GruCell<f32>, optimizer: &mut AdamW<f32>, schedule: &Schedule, steps: std::ops::Range<u64>) {
//!     let (mut cache, mut grad) = (model.cache(), model.zeros_like());
//!     for step in steps {
//!         let x = Array3::from_elem((5, 2, 3), 0.1 * step as f32);
//!         let pass = model.pass(&x, &mut model.zero_state(2), &mut cache);
//!         let dy = pass.output().to_owned();
//!         pass.backward_into(&dy, &mut grad);
//!         optimizer.set_learning_rate(schedule.learning_rate(step));
//!         optimizer.step(model, &grad);
//!     }
//! }
//!
//! let new = |seed| (GruCell::new(3, 4, &mut StdRng::seed_from_u64(seed)), AdamW::new(0.1));
//! let (schedule, (mut model, mut optimizer)) = (Schedule::cosine(0.1, 20, 0.0), new(0));
//! train(&mut model, &mut optimizer, &schedule, 0..10);
//! Checkpoint::new()
//!     .with_tensors("model", &model)
//!     .with_optimizer(&optimizer)
//!     .with_schedule(&schedule)
//!     .with_number("step", 10)
//!     .with_metadata("data", "a constant")
//!     .save(&path)?;
//! train(&mut model, &mut optimizer, &schedule, 10..20);
//!
//! let checkpoint = Checkpoint::open(&path)?;
//! let (mut resumed, mut optimizer) = new(1);
//! checkpoint.load_training("model", &mut resumed, &mut optimizer)?;
//! train(&mut resumed, &mut optimizer, &checkpoint.schedule()?, checkpoint.number("step")?..20);
//! assert_eq!(resumed.weight_ih, model.weight_ih);
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The format of a checkpoint
//!
//! A checkpoint is a safetensors file; this is format 1. The names of its tensors begin with their section:
//! `model.lstm.weight_ih`, `state.h`, `optimizer.exp_avg.lstm.weight_ih`. Everything else is metadata, strings under these keys:
//!
//! | key | value |
//! | --- | --- |
//! | `gradflow.format` | `1` |
//! | `gradflow.checksum` | 16 hexadecimal digits, see below |
//! | `gradflow.optimizer.kind` | the optimizer's name, `AdamW` |
//! | `gradflow.optimizer.steps` | how many steps it took, decimal |
//! | `gradflow.optimizer.setting.<name>` | a setting, in decimal digits that give the same `f64` |
//! | `gradflow.average.<section>.kind`, `.steps`, `.setting.<name>` | the same for an average of weights, whose tensors are in the section |
//! | `gradflow.schedule` | the text of the [`Schedule`](crate::optim::Schedule) |
//! | `gradflow.number.<name>` | a number of the caller's, a decimal `u64` |
//! | any other | the caller's |
//!
//! A file of another format is refused with [`LoadError::Version`]. The same content gives the same bytes.
//!
//! The checksum is the 64-bit FNV-1a hash of the content: the number of tensors; of each tensor, by name, the name, the type
//! (`F32`), the number of axes and their sizes, and the bytes; then of each metadata entry but the checksum, by key, key and
//! value. Numbers are hashed as 8 bytes, little-endian, and a string as its length and its bytes. It detects any single altered
//! byte, but does not protect against deliberate changes.
//!
//! # A crash while saving
//!
//! `save` never touches an existing file. It writes a temporary file, `.gradflow-<process>-<number>.tmp` in the same folder,
//! flushes it to the disk (`fsync`), renames it to the file's name, and flushes the folder to the disk. The rename is atomic:
//! even if the process is killed or the power fails, readers find either the whole old content or the whole new content. Once
//! `save` has returned, it is the new one. Several processes or threads may save to one path at once: the file is always the
//! whole file of one of them.
//!
//! An error, such as that of a full disk, comes before the rename: the old file is untouched and the temporary one is removed.
//! (Only the folder's own `fsync` comes later; if that fails, the new file is in place and a power failure may bring the old one
//! back.) A process that is killed cannot clean up: its temporary file stays and is never read. On Unix, the next `save` into the
//! folder removes it. A file that a running process is writing is locked, and so is left alone.
//!
//! # What is replaced
//!
//! Only regular files are replaced. A folder, a named pipe, a socket or a device is refused with an error that names it; to write
//! into a pipe or a device, open it and use `save_to`. A symbolic link is replaced, not followed.
//!
//! On Unix, a new file gets its mode from the umask. A file that replaces another takes over its mode, and its owner and group if
//! the process may set them; if it may not set the group, the group gets the permissions of all others. While the file is
//! written, only its owner can read it. Access control lists and extended attributes are not copied. As with any rename, the
//! folder's permissions decide whether a file can be replaced: one that is read-only is replaced and stays read-only.
//!
//! # Files from elsewhere
//!
//! `open` and `read_from` accept untrusted files. They never panic, and take memory in proportion to the file: [`ReadLimits`]
//! bounds the header, whose entries take several times their length. A file of another kind, such as a PyTorch zip file, is
//! recognised by its first bytes, and the error says how to read it ([`FileKind`]). A reader is read to its end; if it never
//! ends, as a network connection may, bound it by `reader.take(limit)`.

mod checkpoint;
mod error;
mod format;
#[cfg(feature = "pytorch")]
mod pytorch;
mod state_dict;

pub use crate::base::file_kind::FileKind;
pub use checkpoint::Checkpoint;
pub use error::{Elsewhere, LoadError, Mismatch, ShapeMismatch, TensorError, TypeMismatch};
pub use format::ReadLimits;
pub use state_dict::{LoadOptions, Skipped, StateDict};
