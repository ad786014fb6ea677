//! What most programs need, in one line: `use gradflow::prelude::*;`.

pub use crate::base::{Init, Mode, Tensors, TensorsExt, ZerosLike};
pub use crate::clip::ClipNorm;
pub use crate::compose::{Residual, Stacked};
pub use crate::kernels::Float;
pub use crate::layer::{Causal, Layer, Sequence};
pub use crate::layers::{Activation, Dropout, Embedding, LastStep, LayerNorm, Linear, Pool, Repeat};
pub use crate::loss::{Loss, MeanSquaredError, SoftmaxCrossEntropy};
pub use crate::optim::{AdamW, Optimizer, Sgd};
pub use crate::recurrent::{BiLstm, Gru, Lstm};
pub use crate::{parameters, sequential};
