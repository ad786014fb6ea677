//! Models of several layers and directions of one kind of cell.

mod model;

pub use model::{BiGru, BiLstm, BiRnn, Gru, Lstm, Recurrent, RecurrentCache, Rnn};
