//! Models that ONNX cannot express, and inputs that do not fit.

use gradflow::layers::{CausalConv1d, Embedding, Linear, Nonlinearity};
use gradflow::onnx::{ExportError, ExportOptions, export};
use gradflow::recurrent::{BiLstm, Gru, GruCell, Lstm, LstmCell, MguCell, MinGru, RnnCell, SlstmCell};
use gradflow::{Float, Layer, author::Size, compose::Stacked, sequential};

use crate::common::{assert_says, rng, temporary};

fn refusal<M: Layer>(model: &M, input: impl Into<Size>) -> String {
    let error = export(model, input, &ExportOptions::new()).unwrap_err();
    assert!(matches!(error, ExportError::Unsupported(_) | ExportError::Size(_)), "{error:?}");
    error.to_string()
}

sequential! {
    #[derive(Clone, Debug)]
    struct Named<F: Float>: Layer<F> {
        lstm: LstmCell<F>,
        head: Linear<F>,
    }
}

#[test]
fn layers_that_onnx_does_not_have_are_named_by_their_place() {
    let rng = &mut rng(0);
    let lstm = LstmCell::<f32>::builder(4, 5).projection(3).build(rng);
    let model = (Embedding::new(7, 4, rng), Named { lstm, head: Linear::new(3, 2, rng) });
    assert_eq!(refusal(&model, Size::Tokens), "1.lstm: ONNX's LSTM has no projection");

    let cell = GruCell::<f32>::builder(3, 4).layer_norm().build(rng);
    assert_eq!(refusal(&cell, 3), "ONNX's GRU has no layer normalisation");
    let cell = RnnCell::<f64>::builder(3, 4).zoneout(0.1).build(rng);
    assert_eq!(refusal(&(cell,), 3), "0: ONNX's RNN has no zoneout");
    let lstm = Lstm::<f32>::builder(3, 4).num_layers(2).projection(2).build(rng);
    assert_eq!(refusal(&Stacked::new(vec![lstm]), 3), "0.l0: ONNX's LSTM has no projection");
    let cell = RnnCell::<f32>::builder(3, 4).nonlinearity(Nonlinearity::Silu).build(rng);
    assert_eq!(refusal(&(cell,), 3), "0: ONNX's RNN has no activation SiLU");
    let gru = Gru::<f32>::builder(3, 4).candidate_activation(Nonlinearity::Gelu).build(rng);
    assert_eq!(refusal(&gru, 3), "l0: ONNX's GRU has no activation GELU");
    let clipped = |clip| LstmCell::<f32>::builder(3, 4).clip(clip).zeros();
    let both = BiLstm::from_cells(vec![[clipped(1.0), clipped(2.0)]]);
    assert_says(
        &refusal(&both, 3),
        &["the same options in both directions, not a direction with clip Some(1.0), another Some(2.0)"],
    );
    assert_eq!(refusal(&MguCell::<f32>::new(3, 4, rng), 3), "ONNX has no operator for MguCell");
    assert_eq!(refusal(&MinGru::<f32>::new(3, 4, rng), 3), "l0: ONNX has no operator for MinGruCell");
    assert_eq!(refusal(&SlstmCell::<f32>::new(3, 4, rng), 3), "ONNX has no operator for SlstmCell");
    let heads = GruCell::<f32>::builder(3, 4).heads(2).build(rng);
    assert_eq!(refusal(&heads, 3), "ONNX's GRU has no heads");
    let conv = CausalConv1d::<f32>::new(3, 4, 2, rng).strided(2);
    assert_eq!(refusal(&(conv,), 3), "0: StridedConv1d gives fewer steps than it gets: a graph here has one time axis");
}

#[test]
fn inputs_that_do_not_fit_are_refused_as_by_a_forward_pass() {
    let model = (Linear::<f32>::zeros(3, 4), Linear::zeros(5, 2));
    assert_eq!(refusal(&model, 3), "1: Linear takes 5 features, got 4");
    assert_eq!(refusal(&model, Size::Tokens), "0: Linear takes 3 features, got token ids");
}

#[test]
fn files_that_cannot_be_written_are_errors() {
    let path = temporary("no-such-folder").join("model.onnx");
    let model = Linear::<f32>::zeros(3, 4);
    let error = gradflow::onnx::export_to_file(&path, &model, 3, &ExportOptions::new()).unwrap_err();
    assert!(matches!(error, ExportError::Io(_)) && error.to_string().contains("model.onnx"), "{error}");
}
