//! Bytes as a file of Keras: no panic, whatever they are, and every layer, requested as each kind that it may be, makes at most one
//! model.

use gradflow::convert::KerasFile;
use gradflow::recurrent::{BiLstm, Gru, Lstm, Rnn};

pub fn run(data: &[u8]) {
    let file = match KerasFile::read_from(data) {
        Ok(file) => file,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for (name, _) in file.layers() {
        if let Ok(layer) = file.recurrent::<f32>(name) {
            // At most one kind of model, or none if its arrays disagree.
            let layers = [layer];
            let models = [
                Lstm::from_keras(&layers).is_ok(),
                Gru::from_keras(&layers).is_ok(),
                Rnn::from_keras(&layers).is_ok(),
                BiLstm::from_keras(&layers).is_ok(),
            ];
            assert!(models.into_iter().filter(|made| *made).count() <= 1);
        }
        if let Ok(dense) = file.dense::<f64>(name) {
            let outputs = dense.linear.weight.nrows();
            assert!(outputs > 0 && dense.linear.bias.is_none_or(|bias| bias.len() == outputs));
        }
        if let Ok(embedding) = file.embedding::<f32>(name) {
            assert!(!embedding.weight.is_empty());
        }
        if let Ok(norm) = file.layer_norm::<f32>(name) {
            assert_eq!(norm.weight.len(), norm.bias.len());
        }
    }
}
