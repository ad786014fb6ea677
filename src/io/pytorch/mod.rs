//! Files of `torch.save`: a pickle, and storages that its tensors are views of.

mod archive;
mod pickle;
mod tensors;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{LoadError, ReadLimits, StateDict};

/// PyTorch's own files, with the feature `pytorch`.
impl StateDict {
    /// Reads a file of `torch.save` with tensors in dictionaries and lists, within the default [`ReadLimits`].
    ///
    /// It accepts any `.pt` or `.pth` file of a state dict, from PyTorch 1.6 and later (a zip file) or from the versions before.
    /// A tensor's name is its path, joined by dots. For `{"model": net.state_dict(), "epoch": 3}` it begins with `model.`, which
    /// [`LoadOptions::prefix`] removes, as it removes the `module.` of `DataParallel` and the `_orig_mod.` of `torch.compile`. An
    /// element of a list is named by its index. Numbers, booleans and text become [metadata](StateDict::metadata) under such
    /// names; `None` and bytes are left out. Tensors that share a storage, or are transposed or sliced, are each read whole.
    ///
    /// ```no_run
    /// use gradflow::{io::{LoadOptions, StateDict}, recurrent::Lstm};
    ///
    /// // torch.save({"model": torch.nn.LSTM(8, 16).half().state_dict(), "epoch": 3}, "model.pt")
    /// let file = StateDict::open_pytorch("model.pt")?;
    /// assert_eq!(file.metadata()["epoch"], "3");
    /// let mut lstm = Lstm::<f32>::zeros(8, 16);
    /// file.load_with(&LoadOptions::new().prefix("model").convert(), &mut lstm)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A pickle is a program that may call any function of Python. None of it is run here: the values are those above, and a file
    /// that names any other function or class, as a file of a whole module does, is refused with that name.
    ///
    /// Sources: `torch/serialization.py`, `torch/_utils.py` and Python's `pickletools`.
    ///
    /// # Errors
    /// Returns an error if it cannot be read, is not a file of `torch.save`, holds another object, or exceeds the limits.
    ///
    /// [`LoadOptions::prefix`]: crate::io::LoadOptions::prefix
    pub fn open_pytorch(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        StateDict::open_pytorch_with(path, ReadLimits::new())
    }

    /// [`open_pytorch`](StateDict::open_pytorch) within `limits`.
    ///
    /// # Errors
    /// Returns an error as [`open_pytorch`](StateDict::open_pytorch) does.
    pub fn open_pytorch_with(path: impl AsRef<Path>, limits: ReadLimits) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let read = || StateDict::read_pytorch_with(File::open(path)?, limits);
        read().map_err(|error| error.at(path))
    }

    /// Reads a file's bytes to their end, as [`open_pytorch`](StateDict::open_pytorch) does.
    ///
    /// # Errors
    /// Returns an error as [`open_pytorch`](StateDict::open_pytorch) does.
    pub fn read_pytorch(reader: impl Read) -> Result<Self, LoadError> {
        StateDict::read_pytorch_with(reader, ReadLimits::new())
    }

    /// Reads a file's bytes to their end, within `limits`, as [`open_pytorch`](StateDict::open_pytorch) does.
    ///
    /// # Errors
    /// Returns an error as [`open_pytorch`](StateDict::open_pytorch) does.
    pub fn read_pytorch_with(mut reader: impl Read, limits: ReadLimits) -> Result<Self, LoadError> {
        Ok(StateDict { content: archive::read(&mut reader, limits)? })
    }
}
