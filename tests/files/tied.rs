//! A language model with tied weights and a padding id, compared with PyTorch's: its state dict, its gradients and its training.
//!
//! `tests/files/data/tied.py` wrote the file.

use std::path::Path;

use gradflow::clip::ClipNorm;
use gradflow::compose::TiedEmbedding;
use gradflow::io::{Checkpoint, LoadOptions, StateDict};
use gradflow::layers::{Embedding, Linear};
use gradflow::loss::{Loss, SoftmaxCrossEntropy};
use gradflow::ndarray::{Array1, Array2, Array3, Ix1, Ix2, Ix3};
use gradflow::optim::{AdamW, Optimizer};
use gradflow::recurrent::Lstm;
use gradflow::{Layer, Tensors, TensorsExt, ZerosLike};

use crate::common::{Within, assert_all_near, assert_near, assert_says, rng};

type Model = TiedEmbedding<Lstm<f64>>;

const FIRST: [&str; 2] = ["encoder.weight", "decoder.weight"];

fn file() -> StateDict {
    StateDict::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/data/tied.safetensors")).unwrap()
}

/// Maps names to PyTorch's.
fn rename(name: &str) -> String {
    match name {
        "embedding.weight" => "encoder.weight".into(),
        "bias" => "decoder.bias".into(),
        _ => format!("rnn.{}", name.strip_prefix("layer.").unwrap()),
    }
}

fn options(prefix: &str) -> LoadOptions<'static> {
    LoadOptions::new().rename(rename).tied(FIRST[0], FIRST[1]).prefix(prefix)
}

fn model() -> Model {
    let mut model =
        TiedEmbedding::new(Embedding::builder(11, 6).padding_idx(0).zeros(), Lstm::builder(6, 6).zeros()).bias();
    file().load_with(&options("first"), &mut model).unwrap();
    model
}

fn ids(name: &str) -> Array2<usize> {
    file().indices(name).unwrap().into_dimensionality::<Ix2>().unwrap()
}

fn values(name: &str) -> Array1<f64> {
    file().tensor(name).unwrap().into_dimensionality::<Ix1>().unwrap()
}

#[test]
fn it_trains_as_in_pytorch() {
    let (mut model, ids, targets) = (model(), ids("ids"), ids("targets"));
    let (mut cross_entropy, mut optimizer) = (SoftmaxCrossEntropy::new(), AdamW::new(0.05).weight_decay(0.1));
    let (mut cache, mut grad) = (model.cache(), model.zeros_like());
    let (curve, norms) = (values("curve"), values("norms"));
    let within = Within::either(1e-12);
    for (step, (&want, &norm)) in curve.iter().zip(&norms).enumerate() {
        let mut state = model.zero_state(3);
        let pass = model.pass(&ids, &mut state, &mut cache);
        if step == 0 {
            let logits: Array3<f64> = file().tensor("logits").unwrap().into_dimensionality::<Ix3>().unwrap();
            assert_all_near(pass.output().to_slice().unwrap(), logits.as_slice().unwrap(), within, "logits");
        }
        let loss = cross_entropy.of(&pass, &targets);
        assert_near(loss.value(), want, within, &format!("loss of step {step}"));
        pass.backward_into(loss.gradient(), &mut grad);
        if step == 0 {
            let mut wanted = grad.zeros_like();
            // The file has a tied parameter's gradient under its first name only.
            file().load_with(&options("gradient"), &mut wanted).unwrap();
            for i in 0..grad.count() {
                assert_all_near(grad.values(i), wanted.values(i), within, "gradient");
            }
            assert!(grad.embedding.weight.row(0).iter().all(|&d| d != 0.0), "that of the logit");
        }
        let clipped = optimizer.step_clipped(&mut model, &grad, ClipNorm::new(0.5)).unwrap();
        assert_near(clipped.norm, norm, within, &format!("norm of step {step}"));
    }
    let mut last = model.zeros_like();
    file().load_with(&options("last"), &mut last).unwrap();
    for i in 0..last.count() {
        assert_all_near(model.values(i), last.values(i), Within::either(1e-11), "trained");
    }
}

#[test]
fn padding_gets_no_gradient_from_the_embedding() {
    let ids = ids("ids");
    let embedding = Embedding::<f64>::builder(11, 6).padding_idx(0u8).build(&mut rng(0));
    assert!(embedding.weight.row(0).iter().all(|&w| w == 0.0));
    let dy: Array3<f64> = file().tensor("alone.dy").unwrap().into_dimensionality::<Ix3>().unwrap();
    let want: Array2<f64> = file().tensor("alone.gradient").unwrap().into_dimensionality::<Ix2>().unwrap();
    let (mut cache, mut grad) = (embedding.cache(), embedding.zeros_like());
    embedding.pass(&ids, &mut (), &mut cache).backward_into(&dy, &mut grad);
    assert_all_near(grad.weight.as_slice().unwrap(), want.as_slice().unwrap(), Within::either(1e-12), "gradient");
    assert!(grad.weight.row(0).iter().all(|&d| d == 0.0) && ids.iter().any(|&id| id == 0));
    // The values in the padding row are read as they are, as with loaded weights.
    let mut loaded = embedding.clone();
    let file = StateDict::new().with_tensors("weight", &Array2::from_elem((11, 6), 0.25));
    file.load(&mut loaded).unwrap();
    let y = loaded.forward(&ids, &mut (), &mut cache);
    assert!(y.iter().all(|&y| y == 0.25));
    assert_eq!((loaded.padding_idx, StateDict::of(&loaded).names().count()), (Some(0), 1));
}

#[test]
fn one_tensor_under_two_names() {
    let (file, model) = (file(), model());
    assert_eq!(StateDict::of(&model).names().filter(|name| name.ends_with(".weight")).count(), 1, "saved once");
    assert_eq!(model.summary().parameters(), 11 * 6 + 11 + 4 * 6 * (6 + 6 + 2));

    // Without the option, the second name is unexpected; with it, either name is accepted.
    let plain = || LoadOptions::new().rename(rename);
    let error = file.load_with(&plain().prefix("first"), &mut model.clone()).unwrap_err();
    assert_eq!(error.unexpected, ["first.decoder.weight"]);
    for kept in FIRST {
        let bias = model.bias.as_ref().unwrap();
        let mut one = StateDict::new().with_tensors(kept, &model.embedding.weight).with_tensors("decoder.bias", bias);
        one = one.with_tensors("rnn", &model.layer);
        let mut loaded = model.zeros_like();
        one.load_with(&plain().tied(FIRST[1], FIRST[0]), &mut loaded).unwrap();
        assert_eq!(loaded, model);
        // Three names of one tensor, tied by two pairs.
        let mut loaded = model.zeros_like();
        let options = plain().tied("decoder.weight", "lm_head.weight").tied("encoder.weight", "lm_head.weight");
        one.load_with(&options, &mut loaded).unwrap();
        assert_eq!(loaded, model);
        // With both names, as in PyTorch.
        let other = FIRST.into_iter().find(|&name| name != kept).unwrap();
        let both = one.clone().with_tensors(other, &model.embedding.weight);
        both.load_with(&plain().tied(FIRST[0], FIRST[1]), &mut loaded).unwrap();
        // Two tensors that differ cannot be tied.
        let mut wrong = model.embedding.weight.clone();
        wrong[[10, 5]] += 1e-9;
        let before = loaded.clone();
        let differing = one.with_tensors(other, &wrong);
        let error = differing.load_with(&plain().tied(FIRST[0], FIRST[1]), &mut loaded).unwrap_err();
        assert_eq!(error.tied.as_deref(), Some(&FIRST.map(str::to_owned)));
        let says = "encoder.weight and decoder.weight: expected one tensor under two names, found two";
        assert_says(&error.to_string(), &[says]);
        assert_eq!(loaded, before);
    }
    let error = StateDict::new().load_with(&plain().tied(FIRST[0], FIRST[1]), &mut model.clone()).unwrap_err();
    assert!(error.missing.contains(&"encoder.weight".to_owned()) && error.tied.is_none());
}

#[test]
fn it_is_saved_and_goes_on() {
    let rng = &mut rng(1);
    let layer = || (Lstm::<f32>::builder(4, 5).zeros(), Linear::zeros(5, 4));
    let embedding = Embedding::builder(9, 4).padding_idx(2).build(rng);
    let mut model = TiedEmbedding::new(embedding, layer()).bias();
    let mut optimizer = AdamW::new(0.1);
    optimizer.step(&mut model.clone(), &model);
    let checkpoint = Checkpoint::new().with_tensors("model", &model).with_optimizer(&optimizer);
    let mut loaded = TiedEmbedding::new(Embedding::builder(9, 4).padding_idx(2).zeros(), layer()).bias();
    checkpoint.load_training("model", &mut loaded, &mut AdamW::new(0.1)).unwrap();
    assert_eq!(loaded, model);
    model.embedding.padding_idx = None;
    assert_ne!(loaded, model, "another padding id is another layer");
}
