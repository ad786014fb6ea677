//! One layer at a time, for `bench.mjs`, which writes to [`input`], calls [`run`] and reads from [`output`].

use std::cell::RefCell;

use gradflow::ndarray::Array3;
use gradflow::onnx::{ExportOptions, export};
use gradflow::prelude::*;
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::wrap::Prepacked;

/// A layer, an input and the output for it.
trait Case {
    fn run(&mut self);
    fn input(&mut self) -> &mut [f32];
    fn output(&self) -> &[f32];
    fn onnx(&self) -> &[u8];
}

struct Inference<M: Layer<Elem = f32>> {
    model: Prepacked<M>,
    cache: M::Cache,
    x: Array3<f32>,
    y: Array3<f32>,
    onnx: Vec<u8>,
}

impl<M: Layer<Elem = f32>> Inference<M> {
    fn new(model: M, [steps, batch, size]: [usize; 3]) -> Self {
        let onnx = export(&model, size, &ExportOptions::new()).expect("a recurrent layer");
        let x = Array3::zeros((steps, batch, size));
        Inference { cache: model.cache(), model: Prepacked::new(model), y: x.clone(), x, onnx }
    }
}

impl<M: Layer<Elem = f32>> Case for Inference<M> {
    fn run(&mut self) {
        let mut state = self.model.zero_state(self.x.dim().1);
        self.y.assign(&self.model.forward(Sequence::from(&self.x).infer(), &mut state, &mut self.cache));
    }

    fn input(&mut self) -> &mut [f32] {
        self.x.as_slice_mut().expect("contiguous")
    }

    fn output(&self) -> &[f32] {
        self.y.as_slice().expect("contiguous")
    }

    fn onnx(&self) -> &[u8] {
        &self.onnx
    }
}

thread_local!(static CASE: RefCell<Option<Box<dyn Case>>> = const { RefCell::new(None) });

fn with<R>(act: impl FnOnce(&mut dyn Case) -> R) -> R {
    CASE.with_borrow_mut(|case| act(case.as_deref_mut().expect("`prepare` was called")))
}

/// Makes an LSTM, or if `lstm` is false a GRU, of `size` inputs and units, with random weights and an input of zeros,
/// `[steps, batch, size]`.
#[unsafe(no_mangle)]
pub extern "C" fn prepare(lstm: bool, steps: usize, batch: usize, size: usize) {
    let (rng, shape) = (&mut StdRng::seed_from_u64(0), [steps, batch, size]);
    let case: Box<dyn Case> = if lstm {
        Box::new(Inference::new(Lstm::<f32>::new(size, size, rng), shape))
    } else {
        Box::new(Inference::new(Gru::<f32>::new(size, size, rng), shape))
    };
    CASE.set(Some(case));
}

/// The input, `[T, B, I]`.
#[unsafe(no_mangle)]
pub extern "C" fn input() -> *mut f32 {
    with(|case| case.input().as_mut_ptr())
}

/// Computes the output from a zero state.
#[unsafe(no_mangle)]
pub extern "C" fn run() {
    with(|case| case.run());
}

/// The output, `[T, B, H]`.
#[unsafe(no_mangle)]
pub extern "C" fn output() -> *const f32 {
    with(|case| case.output().as_ptr())
}

/// The layer as an ONNX file.
#[unsafe(no_mangle)]
pub extern "C" fn onnx() -> *const u8 {
    with(|case| case.onnx().as_ptr())
}

/// The number of bytes of the ONNX file.
#[unsafe(no_mangle)]
pub extern "C" fn onnx_bytes() -> usize {
    with(|case| case.onnx().len())
}
