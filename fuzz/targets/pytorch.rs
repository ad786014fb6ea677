//! Bytes as a file of `torch.save`: no panic, whatever they are, and what is read can be saved as safetensors.

use gradflow::io::{LoadError, ReadLimits, StateDict};

use super::state_dict::survives;

pub fn run(data: &[u8]) {
    let tight = ReadLimits::new().header_bytes(400).tensors(2).axes(2).metadata_entries(1);
    let tight = StateDict::read_pytorch_with(data, tight);
    match StateDict::read_pytorch(data) {
        Ok(dict) => {
            match tight {
                Ok(tight) => assert_eq!(tight, dict),
                // Within fewer bytes, the pickle of an older file has no end.
                Err(error) => assert!(matches!(error, LoadError::Limit { .. } | LoadError::PyTorch { .. }), "{error}"),
            }
            survives(&dict);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(tight.is_err(), "lower limits accept what higher ones refuse");
        }
    }
}
