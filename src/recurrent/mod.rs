//! Models of several layers and directions of one kind of cell.

pub(crate) mod model;

pub use crate::cells::{
    CellBuilder, CommonOptions, GruCell, GruOptions, GruReset, LstmCell, LstmOptions, MguCell, MguOptions, MinGruCell,
    MinGruOptions, MinLstmCell, MinLstmOptions, RnnCell, RnnOptions, SlstmCell, SlstmOptions, SlstmState,
};
pub use crate::layers::Nonlinearity;
pub use crate::recurrence::{LstmState, Zoneout};
pub use model::{
    BiGru, BiLstm, BiMgu, BiMinGru, BiMinLstm, BiRnn, BiSlstm, Gru, Lstm, Mgu, MinGru, MinLstm, Recurrent, Rnn, Slstm,
};
