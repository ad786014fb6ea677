//! Models of several layers and directions of one kind of cell.

pub(crate) mod model;

pub use crate::cells::{
    CellBuilder, CommonOptions, GruCell, GruOptions, GruReset, LstmCell, LstmOptions, MguCell, MguOptions, MinGruCell,
    MinGruOptions, RnnCell, RnnOptions,
};
pub use crate::layers::Nonlinearity;
pub use crate::recurrence::{LstmState, Zoneout};
pub use model::{BiGru, BiLstm, BiMgu, BiMinGru, BiRnn, Gru, Lstm, Mgu, MinGru, Recurrent, Rnn};
