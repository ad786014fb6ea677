//! Models of several layers and directions of one kind of cell.

mod model;

pub use model::{BiGru, BiLstm, BiMgu, BiMinGru, BiRnn, Gru, Lstm, Mgu, MinGru, Recurrent, RecurrentCache, Rnn};
