//! Planted mistakes: a case fails whatever is wrong with it or with its results.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use super::{Verdict, own_folder, run};

/// A case taken apart, so that a mistake can be planted in it.
struct Planted {
    options: Value,
    tensors: HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Planted {
    fn in_case(name: &str) -> Planted {
        let bytes = fs::read(own_folder().join(name).with_extension("safetensors")).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let options = serde_json::from_str(&header.metadata().as_ref().unwrap()["case"]).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let own = |(name, view): (&str, TensorView<'_>)| {
            (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        Planted { options, tensors: tensors.iter().map(own).collect() }
    }

    fn set(mut self, option: &str, value: Value) -> Planted {
        *self.options.pointer_mut(option).expect(option) = value;
        self
    }

    fn with(mut self, option: &str, value: Value) -> Planted {
        self.options[option] = value;
        self
    }

    fn without(mut self, tensor: &str) -> Planted {
        self.tensors.remove(tensor).expect(tensor);
        self
    }

    fn with_copy(mut self, tensor: &str, name: &str) -> Planted {
        self.tensors.insert(name.to_owned(), self.tensors[tensor].clone());
        self
    }

    /// Changes the last element of a tensor of floats.
    fn change(mut self, tensor: &str, change: impl Fn(f64) -> f64) -> Planted {
        let (dtype, _, bytes) = self.tensors.get_mut(tensor).expect(tensor);
        if *dtype == Dtype::F64 {
            let last = bytes.last_chunk_mut().expect("an element");
            *last = change(f64::from_le_bytes(*last)).to_le_bytes();
        } else {
            let last = bytes.last_chunk_mut().expect("an element");
            *last = (change(f32::from_le_bytes(*last).into()) as f32).to_le_bytes();
        }
        self
    }

    /// The largest element of a tensor of floats, or 1 if that is larger.
    fn size(&self, tensor: &str) -> f64 {
        let (dtype, _, bytes) = &self.tensors[tensor];
        let values: Vec<f64> = match dtype {
            Dtype::F64 => bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect(),
            _ => bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes).into()).collect(),
        };
        values.iter().fold(1.0, |size, value| size.max(value.abs()))
    }

    fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).expect("a valid tensor"))
        });
        let metadata = [("case".to_owned(), self.options.to_string())].into_iter().collect();
        safetensors::serialize(views, Some(metadata)).unwrap()
    }

    #[track_caller]
    fn fails(&self, because: &str) {
        let verdict = Verdict::on(&self.bytes());
        let line = verdict.to_string();
        assert!(!verdict.passed() && line.contains("FAIL") && line.contains(because), "{line}");
    }
}

/// A case of each kind, and one of its outputs.
const CASES: [(&str, &str); 9] = [
    ("lstm_lengths_below_t", "output.y"),
    ("gru_2layer_bi_lengths_below_t", "output.y"),
    ("variant_lstm_all_lengths_nan_padding", "output.y"),
    ("onnx_lstm_peephole_bi_lengths", "output.y"),
    ("keras_gru_reset_after", "output.y"),
    ("attention_additive_lengths", "output.context"),
    ("cell_gru_all_1", "output.hn"),
    ("residual_ff_gelu_depth4", "output.y"),
    ("train_lstm_sgd_momentum_norm", "output.losses"),
];

#[test]
fn a_case_with_nothing_planted_passes() {
    for (case, _) in CASES {
        let verdict = Verdict::on(&Planted::in_case(case).bytes());
        assert!(verdict.passed() && verdict.to_string().contains("ok"), "{case}: {verdict}");
    }
}

#[test]
fn a_wrong_value_fails() {
    for (case, output) in CASES {
        let planted = Planted::in_case(case);
        // Every expected tensor counts, and a little more than the tolerance is too much.
        let error = match case {
            case if case.starts_with("train") => 2e-9,
            case if case.starts_with("onnx") || case.starts_with("keras") => 2e-5,
            _ => 2e-12,
        };
        let expected: Vec<_> = planted.tensors.keys().filter(|name| name.starts_with("output.")).cloned().collect();
        assert!(expected.iter().any(|name| name == output));
        for name in planted.tensors.keys().filter(|name| name.starts_with("output.") || name.starts_with("grad.")) {
            let size = planted.size(name);
            Planted::in_case(case).change(name, |value| value + error * size).fails(name);
        }
    }
}

#[test]
fn a_case_has_a_larger_tolerance_up_to_a_limit() {
    for (case, output, largest) in [("lstm_lengths_below_t", "output.y", 1e-11), ("lstm_lengths_f32", "grad.x", 3e-5)] {
        let with_error = |of_tolerance: f64, tolerance: f64| {
            let planted = Planted::in_case(case).with("tolerance", json!(tolerance));
            let error = of_tolerance * largest * planted.size(output);
            planted.change(output, |value| value + error)
        };
        let verdict = Verdict::on(&with_error(0.7, largest).bytes());
        assert!(verdict.passed(), "{case}: {verdict}");
        with_error(1.5, largest).fails(output);
        with_error(0.0, 1.01 * largest).fails("tolerance");
        with_error(0.0, f64::NAN).fails("tolerance");
    }
}

#[test]
fn every_memory_layout_is_run() {
    for case in ["lstm_2layer_bi_lengths", "cell_gru_i9_h17_b7_f32"] {
        for layout in ["batch_first", "features_first", "every_second", "reversed"] {
            let verdict = Verdict::on(&Planted::in_case(case).with("memory_layout", json!(layout)).bytes());
            assert!(verdict.passed(), "{case}, {layout}: {verdict}");
        }
        Planted::in_case(case).with("memory_layout", json!("diagonal")).fails("unknown memory_layout diagonal");
    }
}

#[test]
fn nan_fails() {
    for (case, output) in CASES {
        Planted::in_case(case).change(output, |_| f64::NAN).fails("NaN");
        Planted::in_case(case).change(output, |_| f64::INFINITY).fails("NaN");
    }
    // A NaN in a weight makes the results NaN.
    for (case, parameter) in [
        ("lstm_lengths_below_t", "state_dict.bias_hh_l0"),
        ("gru_2layer_bi_lengths_below_t", "state_dict.bias_hh_l1_reverse"),
        ("variant_lstm_all_lengths_nan_padding", "state_dict.peephole"),
        ("onnx_lstm_peephole_bi_lengths", "onnx.P"),
        ("keras_gru_reset_after", "keras.bias"),
        ("cell_gru_all_1", "state_dict.bias_hh"),
        ("residual_ff_gelu_depth4", "state_dict.3.fc2.bias"),
        ("train_lstm_sgd_momentum_norm", "state_dict.head.bias"),
    ] {
        Planted::in_case(case).change(parameter, |_| f64::NAN).fails("NaN");
    }
}

#[test]
fn a_missing_tensor_fails() {
    for (case, _) in CASES {
        for name in Planted::in_case(case).tensors.keys() {
            // A state or lengths may be absent, but then it is another case with other results.
            let verdict = Verdict::on(&Planted::in_case(case).without(name).bytes());
            assert!(!verdict.passed(), "{case} without {name}: {verdict}");
        }
    }
}

#[test]
fn a_tensor_too_many_fails() {
    let planted = || Planted::in_case("lstm_lengths_below_t");
    planted().with_copy("input.h0", "input.mask").fails("input.mask");
    planted().with_copy("grad.h0", "grad.mask").fails("grad.mask");
    planted().with_copy("state_dict.weight_hh_l0", "state_dict.weight_hr_l0").fails("state_dict.weight_hr_l0");
    // Biases, in a case whose options say that it has none.
    planted().set("/bias", json!(false)).fails("state_dict.bias_");
}

#[test]
fn what_is_unknown_or_not_supported_fails() {
    let sequence = || Planted::in_case("lstm_lengths_below_t");
    sequence().set("/kind", json!("transformer")).fails("unknown kind transformer");
    sequence().set("/dtype", json!("F16")).fails("F16");
    sequence().set("/dtype", json!("F32")).fails("in a case of F32");
    sequence().set("/module", json!("MGU")).fails("unknown module MGU");
    sequence().set("/nonlinearity", json!("relu")).fails("unknown module LSTM with relu");
    sequence().set("/num_layers", json!(0)).fails("num_layers = 0");
    sequence().set("/num_layers", json!(2)).fails("state_dict.weight_ih_l1");
    sequence().set("/bidirectional", json!(true)).fails("state_dict.weight_ih_l0_reverse");
    sequence().set("/bidirectional", json!("yes")).fails("bidirectional: unknown value");
    sequence().set("/proj_size", json!(3)).fails("state_dict.weight_");
    Planted::in_case("gru_lengths_below_t").set("/proj_size", json!(3)).fails("a projection of GRU is not supported");
    Planted::in_case("residual_ff_gelu_depth4").set("/activation", json!("mish")).fails("unknown activation mish");

    let variant = || Planted::in_case("variant_lstm_all");
    variant().set("/cell", json!("MGU")).fails("unknown cell MGU");
    variant().set("/norm_eps", json!(1e-3)).fails("norm_eps");
    variant().set("/peephole", json!(false)).fails("state_dict.peephole");
    variant().set("/coupled", json!(false)).fails("state_dict.weight_ih");
    variant().set("/zoneout_c", json!(null)).fails("zoneout_c");
    Planted::in_case("variant_gru_reset_before").set("/reset", json!("never")).fails("unknown reset never");

    let onnx = || Planted::in_case("onnx_lstm_peephole_lengths");
    onnx().set("/module", json!("QRNN")).fails("unknown module QRNN");
    onnx().set("/direction", json!("sideways")).fails("unknown direction sideways");
    onnx().set("/direction", json!("bidirectional")).fails("directions: 2, got 1");
    onnx().set("/peephole", json!(false)).fails("onnx.P is given");
    onnx().set("/input_forget", json!(2)).fails("input_forget: unknown value");
    onnx().without("onnx.P").fails("onnx.P is missing");
    let keras = || Planted::in_case("keras_gru_reset_after");
    keras().set("/module", json!("ConvLSTM1D")).fails("unknown module ConvLSTM1D");
    keras().set("/reset_after", json!(false)).fails("bias: expected [15], got [2, 15]");
    keras().set("/use_bias", json!(false)).fails("keras.bias is given");

    let train = || Planted::in_case("train_lstm_sgd_momentum_norm");
    train().set("/optimizer", json!("Lion")).fails("unknown optimizer Lion");
    train().set("/optimizer_args", json!({"lr": 0.5, "maximize": true})).fails("unknown option maximize");
    train().set("/clip/type", json!("quantile")).fails("unknown type quantile");
    train().set("/clip", json!({"type": "norm", "max": 0.05, "per": "tensor"})).fails("unknown option per");
    train().set("/carry_state", json!(false)).fails("carry_state = false is not supported yet");
}

#[test]
fn an_unreadable_file_fails() {
    let bytes = Planted::in_case("cell_gru_all_1").bytes();
    for length in [0, 7, 100, bytes.len() - 1] {
        let verdict = Verdict::on(&bytes[..length]);
        assert!(matches!(verdict, Verdict::Failed(_)) && !verdict.passed(), "{length} bytes: {verdict}");
    }
}

/// A fresh folder with these files.
fn folder(name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for (file, bytes) in files {
        fs::write(folder.join(file), bytes).unwrap();
    }
    folder
}

#[test]
fn one_failure_fails_its_folder() {
    let good = Planted::in_case("cell_gru_all_1").bytes();
    let bad = Planted::in_case("cell_gru_all_1").change("output.hn", |value| value + 0.1).bytes();
    let mixed = folder("mixed", &[("a.safetensors", &good), ("b.safetensors", &bad), ("c.safetensors", &good[..99])]);
    let wrong = run(&[mixed], |_| true).unwrap_err();
    let [b, c] = wrong.lines().collect::<Vec<_>>()[..] else { panic!("{wrong}") };
    assert!(b.starts_with("b: ") && b.ends_with("output.hn FAIL") && c.starts_with("c: "), "{wrong}");
    let good = folder("good", &[("a.safetensors", &good), ("b.safetensors", &good), ("notes.txt", b"")]);
    assert_eq!(run(&[good], |_| true), Ok(2));
}

#[test]
fn a_folder_without_cases_fails() {
    let empty = folder("empty", &[("notes.txt", b"")]);
    let missing = empty.join("missing");
    let good = folder("one", &[("a.safetensors", &Planted::in_case("cell_gru_all_1").bytes())]);
    assert!(run(&[good.clone(), empty], |_| true).unwrap_err().contains("no case"));
    assert!(run(&[good.clone(), missing], |_| true).unwrap_err().contains("missing"));
    assert!(run(&[PathBuf::new(), good], |_| true).is_err());
}
