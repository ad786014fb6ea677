//! Bytes as an ONNX file: no panic, whatever they are. A model is loaded completely or not at all, and a loaded model is written and
//! read again.

use gradflow::compose::{BoxLayer, Residual, Stacked};
use gradflow::layers::{Activation, Embedding, FeedForward, LastStep, LayerNorm, Linear, Nonlinearity};
use gradflow::onnx::{ExportOptions, LoadError, LoadOptions, export, load_from};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::recurrent::{BiLstm, Gru, LstmCell, Rnn};
use gradflow::wrap::LearnedState;
use gradflow::{Float, Layer, TensorsExt, author::Size};

/// An action on a model and its input.
trait Visit {
    fn visit<M: Layer>(&mut self, model: M, input: Size);
}

/// Several models that a file may belong to; the last one is PyTorch's in the seeds.
fn models(visit: &mut impl Visit, rng: &mut StdRng) {
    let lstm = LstmCell::<f32>::builder(3, 4).peepholes().build(rng);
    visit.visit((lstm, LastStep::new(), Linear::new(4, 2, rng)), 3.into());
    visit.visit((Linear::<f64>::new(3, 4, rng), Gru::new(4, 4, rng), Activation::gelu()), 3.into());
    let block = (LayerNorm::<f32>::new(3), FeedForward::new(3, 5, Nonlinearity::Silu, rng));
    let stack = vec![BoxLayer::new(Residual::new(block)), BoxLayer::new(LearnedState::new(Rnn::new(3, 2, rng)))];
    visit.visit(Stacked::new(stack), 3.into());
    let (both, last) = (BiLstm::<f32>::new(4, 5, rng), LastStep::both_directions());
    visit.visit((Embedding::new(11, 4, rng), both, last, LayerNorm::new(10), Linear::new(10, 3, rng)), Size::Tokens);
}

/// The number of these models that the file can be loaded into.
pub fn loaded(data: &[u8]) -> usize {
    struct Into<'a>(&'a [u8], usize);
    impl Visit for Into<'_> {
        fn visit<M: Layer>(&mut self, model: M, input: Size) {
            self.1 += into(model, input, self.0);
        }
    }
    let mut into = Into(data, 0);
    models(&mut into, &mut StdRng::seed_from_u64(0));
    into.1
}

pub fn run(data: &[u8]) {
    loaded(data);
}

/// A file of each model.
pub fn seeds() -> Vec<Vec<u8>> {
    struct Write(Vec<Vec<u8>>);
    impl Visit for Write {
        fn visit<M: Layer>(&mut self, model: M, input: Size) {
            let flag = |k: usize| self.0.len() & k != 0;
            let options = ExportOptions::new().lengths(flag(1)).states(flag(2)).batch_first(flag(1));
            self.0.push(export(&model, input, &options).expect("a file"));
        }
    }
    let mut write = Write(Vec::new());
    models(&mut write, &mut StdRng::seed_from_u64(1));
    write.0
}

fn bits<M: Layer>(model: &M) -> Vec<u64> {
    (0..model.count()).flat_map(|i| model.values(i).iter().map(|value| value.bits())).collect()
}

/// 1 if the file can be loaded into the model, 0 if not.
fn into<M: Layer>(model: M, input: Size, data: &[u8]) -> usize {
    let mut count = 0;
    let before = bits(&model);
    for options in
        [LoadOptions::new(), LoadOptions::new().convert(), LoadOptions::new().by_name(str::to_owned).input(input)]
    {
        let mut loaded = model.clone();
        match load_from(&mut loaded, data, &options) {
            Ok(()) => {
                let file = export(&loaded, input, &ExportOptions::new()).expect("a file");
                let mut again = model.clone();
                load_from(&mut again, &file[..], &LoadOptions::new()).expect("what was written");
                assert_eq!(bits(&again), bits(&loaded));
                count = 1;
            }
            Err(error) => {
                assert_eq!(bits(&loaded), before, "an error changes something");
                let text = error.to_string();
                assert!(!text.is_empty() && text.len() < 200_000, "{} bytes", text.len());
                assert!(!matches!(error, LoadError::Unsupported(_)), "{error}");
            }
        }
    }
    // A lower limit refuses more, and never accepts anything else.
    let lower = LoadOptions::new().max_fields(data.len() / 8);
    if load_from(&mut model.clone(), data, &lower).is_ok() {
        load_from(&mut model.clone(), data, &LoadOptions::new()).expect("what is within a lower limit");
    }
    count
}
