//! Layers, cells and tensors that lie: implementations in safe code that return different sizes, shapes or counts from call to call. A
//! pass then panics or computes nonsense. AddressSanitizer checks that it stays within its memory
//! (`bash .ci/nightly 0 address_sanitizer`). Without it, a test fails if it crashes, if no lie was told, or if no lie was detected.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use gradflow::ndarray::{Array2, Array3, ArrayRef3, ArrayView2, ArrayView3, ArrayViewMut2, s};
use gradflow::{
    Causal, Float, Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    author::{
        Cell, CellSizes, CellStep, CellStepBackward, Gradient, NamedTensors, RowGradients, RowLayer, Rows, Size,
        SizeError,
    },
    clip::{ClipNorm, clip_grad_norm, clip_grad_value},
    compose::{BoxLayer, DenseConcat, Highway, Residual, Stacked, StochasticDepth, TiedEmbedding},
    layers::{Activation, CausalConv1d, Embedding, FeedForward, LayerNorm, Linear, Nonlinearity},
    optim::{Adagrad, Adam, AdamW, NAdam, Optimizer, RmsProp, Sgd, WeightAverage},
    parameters,
    recurrent::{GruCell, LstmCell, LstmState, Recurrent},
    row_layer,
    wrap::{
        Bidirectional, GradientProbe, LearnedState, Merge, Prepacked, Probed, TruncatedBptt, WeightDrop, WeightNorm,
    },
};

use crate::common::{panics, rng, temporary, wave};

const FEATURES: usize = 3;
const STEPS: usize = 4;
const BATCH: usize = 5;
const LENGTHS: [usize; BATCH] = [3, 4, 1, 2, 4];

/// Answers truthfully up to a certain call, and then lies.
#[derive(Clone)]
struct Lies(Arc<[AtomicUsize; 3]>);

impl Lies {
    const WAYS: usize = 8;

    fn new() -> Self {
        Lies(Arc::new([usize::MAX, usize::MAX, 0].map(AtomicUsize::new)))
    }

    /// Lies in way number `way` from call `at` on.
    fn start(&self, at: usize, way: usize) {
        for (to, value) in self.0.iter().zip([at, at + way % 2, way / 2]) {
            to.store(value, SeqCst);
        }
    }

    /// Another size than `truth`, in one call or in all calls from then on.
    fn of(&self, truth: usize) -> usize {
        let [left, last, way] = &*self.0;
        let now = left.load(SeqCst);
        if now == usize::MAX {
            return truth;
        }
        if now > 0 {
            left.store(now - 1, SeqCst);
            last.store(last.load(SeqCst) - 1, SeqCst);
            return truth;
        }
        if last.load(SeqCst) == 0 {
            left.store(usize::MAX, SeqCst); // Once.
        }
        match way.load(SeqCst) {
            0 => truth + 1,
            1 => truth.saturating_sub(1),
            2 => 7 * truth + 64,
            _ => 0,
        }
    }
}

/// Runs `act` with lies in every way from every call on, until there are no more calls.
fn with_lies(lies: &Lies, what: &str, mut act: impl FnMut()) {
    lies.start(usize::MAX, 0);
    act(); // the truth
    let (mut told, mut refused) = (0, 0);
    for way in 0..Lies::WAYS {
        for at in 0.. {
            lies.start(at, way);
            let panicked = panics(&mut act);
            let left = lies.0[0].load(SeqCst);
            if left != usize::MAX && left > 0 {
                break;
            }
            (told, refused) = (told + 1, refused + usize::from(panicked));
        }
    }
    lies.start(usize::MAX, 0);
    assert!(told > 0, "{what}: no lie was told");
    assert!(refused > 0, "{what}: none of {told} lies was refused");
}

/// Forward and backward passes, with and without lengths, and inference, all in one cache.
fn passes<L: Layer<Elem = f64>>(layer: &L) {
    passes_over(layer, (&wave((STEPS, BATCH, FEATURES), 0.3)).into());
}

/// [`passes`] over a given input, `[STEPS, BATCH, ..]`.
fn passes_over<L: Layer<Elem = f64>>(layer: &L, x: Sequence<'_, f64>) {
    let mut cache = layer.cache();
    for x in [x.train(1), x.train(1).with_lengths(&LENGTHS).unwrap(), x.eval(), x.infer(), x.steps(0..1).infer()] {
        let mut state = layer.zero_state(BATCH);
        let y = layer.forward(x, &mut state, &mut cache).to_owned();
        if x.mode() != Some(gradflow::Mode::Infer) {
            let (mut grad, mut dstate) = (layer.zeros_like(), state.clone());
            layer.backward(x, &y, Some(&mut dstate), &mut cache, Gradient::overwrite(&mut grad));
        }
    }
}

/// Runs the layer in everything that takes a layer. Its neighbours are layers of this crate, whose kernels get its outputs.
fn everywhere<L>(lies: &Lies, layer: L)
where
    L: Causal<Elem = f64> + 'static,
    L::State: 'static,
    L::Cache: 'static,
{
    let rng = &mut rng(0);
    let layer = || layer.clone();
    let mut linear = || Linear::<f64>::new(FEATURES, FEATURES, rng);
    let around = (linear(), linear());
    let highway = Highway::new(layer(), FEATURES, rng);
    let depth = StochasticDepth::new(layer(), 0.5, rng);
    let blocks = (FeedForward::new(FEATURES, 20, Nonlinearity::Gelu, rng), LstmCell::new(FEATURES, FEATURES, rng));
    let norm = LayerNorm::new(FEATURES);
    let convolutions = CausalConv1d::new(FEATURES, FEATURES, 3, rng);
    let probe = GradientProbe::new();
    macro_rules! check {
        ($($what:literal: $layer:expr;)+) => {$({
            let model = $layer;
            with_lies(lies, $what, || passes(&model));
        })+};
    }
    check! {
        "alone": layer();
        "between linear layers": (around.0.clone(), layer(), around.1.clone());
        "before others": (layer(), blocks.0.clone(), layer(), blocks.1.clone(), norm.clone(), Activation::tanh());
        "Residual": Residual::new(layer());
        "scaled Residual": Residual::new((layer(), around.0.clone())).layer_scale(FEATURES, 0.5);
        "projected Residual": Residual { shortcut: Some(around.0.clone()), ..Residual::new(layer()) };
        "Highway": highway.clone();
        "DenseConcat": (DenseConcat::new(layer()), Activation::gelu());
        "StochasticDepth": Residual::new(depth.clone());
        "Stacked": Stacked::new(vec![Residual::new(layer()), Residual::new(layer())]);
        "BoxLayer": Stacked::new(vec![BoxLayer::new(layer()), BoxLayer::new(blocks.1.clone())]);
        "Bidirectional": Bidirectional::new(layer(), layer());
        "an average of directions": Bidirectional::new(layer(), layer()).merge(Merge::Average);
        "a product of directions": Bidirectional::new(layer(), layer()).merge(Merge::Multiply);
        "LearnedState": LearnedState::new(layer());
        "TruncatedBptt": TruncatedBptt::new((layer(), around.0.clone()), 2).pass_gradients();
        "TruncatedBptt, recomputed": TruncatedBptt::new(layer(), 3).pass_gradients().recompute();
        "Prepacked": Prepacked::new((layer(), around.0.clone()));
        "convolutions": (convolutions.clone(), layer(), convolutions.clone());
        "WeightDrop": WeightDrop::of((layer(), around.0.clone()), &["1.weight"], 0.5, &mut crate::common::rng(0));
        "WeightNorm": WeightNorm::of((layer(), around.0.clone()), "1.weight");
    }
    let embedding = Embedding::<f64>::new(7, FEATURES, rng);
    let ids = Array2::from_shape_fn((STEPS, BATCH), |(t, b)| (t + 2 * b) % 7);
    with_lies(lies, "TiedEmbedding", || {
        // The layer may also lie about its size.
        let layer = (layer(), around.0.clone());
        let tied = TiedEmbedding { embedding: embedding.clone(), layer, bias: None }.bias();
        passes_over(&tied, (&ids).into());
    });
    let mut count = 0;
    with_lies(lies, "Probed", || {
        count += 1;
        passes(&Probed::new(format!("{count}"), layer(), &probe));
    });
}

/// A cell whose sizes and states change.
#[derive(Clone)]
struct LyingCell {
    weight: Array2<f64>,
    lies: Lies,
}

impl Tensors<f64> for LyingCell {
    fn count(&self) -> usize {
        1
    }
    fn name(&self, _: usize) -> String {
        "weight".into()
    }
    fn tensor(&self, i: usize) -> (&[usize], &[f64]) {
        let (shape, values) = self.weight.tensor(i);
        (shape, &values[..self.lies.of(values.len()).min(values.len())])
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [f64] {
        let len = self.lies.of(self.weight.len()).min(self.weight.len());
        &mut self.weight.tensor_mut(i)[..len]
    }
}

impl Cell for LyingCell {
    type Elem = f64;
    type State = LstmState<f64>;
    type Buffers = ();

    fn sizes(&self) -> CellSizes {
        let [input, output, memory] = [FEATURES, FEATURES, 2].map(|size| self.lies.of(size));
        CellSizes { name: "LyingCell", input, output, memory }
    }

    fn initial_state(&self, batch: usize) -> LstmState<f64> {
        let [h, c] = [FEATURES, 2].map(|size| Array2::zeros((self.lies.of(batch), self.lies.of(size))));
        LstmState { h, c }
    }

    fn forward_step(&self, mut step: CellStep<'_, f64>, _: &mut ()) {
        step.h.fill(0.5);
        step.c.assign(&step.c_before);
    }

    fn backward_step(&self, mut step: CellStepBackward<'_, f64>, _: &mut (), _: &mut Self) {
        if let Some(dx) = &mut step.dx {
            dx.fill(1.0);
        }
        step.dh.fill(0.25);
    }
}

#[test]
fn cells_that_lie() {
    let lies = Lies::new();
    let cell = || LyingCell { weight: Array2::ones((FEATURES, FEATURES)), lies: lies.clone() };
    everywhere(&lies, cell());
    let model = Recurrent::<_, 1>::from_cells(vec![[cell()], [cell()]]);
    with_lies(&lies, "Recurrent", || passes(&model));
}

/// A row-wise layer whose numbers of features change.
#[derive(Clone)]
struct LyingRows<F> {
    weight: Array2<F>,
    lies: Lies,
}
parameters! { impl<F: Float> Tensors<F> for LyingRows<F> { weight; skip lies } }

impl<F: Float> RowLayer for LyingRows<F> {
    type Elem = F;
    type Kept = ();
    const NAME: &'static str = "LyingRows";

    fn takes(&self) -> Option<usize> {
        Some(self.lies.of(FEATURES))
    }

    fn gives(&self, _: usize) -> usize {
        self.lies.of(FEATURES)
    }

    fn forward_rows(&self, _: Rows<'_, F>, mut y: ArrayViewMut2<'_, F>, _: &mut ()) {
        y.fill(F::one());
    }

    fn backward_rows(&self, _: Rows<'_, F>, d: RowGradients<'_, F>, _: &mut (), grad: Gradient<'_, Self>) {
        grad.to_add();
        if let Some(mut dx) = d.dx {
            dx.fill(F::one());
        }
    }
}
row_layer! { impl<F: Float> Layer for LyingRows<F> }

#[test]
fn row_layers_that_lie() {
    let lies = Lies::new();
    everywhere(&lies, LyingRows { weight: Array2::ones((2, 2)), lies: lies.clone() });
}

/// A layer whose outputs and gradients change their shapes and layouts.
#[derive(Clone)]
struct LyingLayer {
    weight: Array2<f64>,
    lies: Lies,
}
parameters! { impl Tensors<f64> for LyingLayer { weight; skip lies } }

#[derive(Default)]
struct LyingCache {
    y: Array3<f64>,
    outputs: [Array3<f64>; 2],
}

impl LyingLayer {
    fn values(&self, x: &Sequence<'_, f64>) -> Array3<f64> {
        let (steps, batch) = x.dims();
        let shape = (self.lies.of(batch), self.lies.of(FEATURES), self.lies.of(steps));
        Array3::from_elem(shape, 0.5).permuted_axes([2, 0, 1])
    }
}

impl Layer for LyingLayer {
    type Elem = f64;
    type State = Array2<f64>;
    type Cache = LyingCache;

    fn output_size(&self, _: Size) -> Result<usize, SizeError> {
        Ok(self.lies.of(FEATURES))
    }

    fn zero_state(&self, batch: usize) -> Array2<f64> {
        Array2::zeros((self.lies.of(batch), self.lies.of(2)))
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        state: &mut Array2<f64>,
        cache: &'c mut LyingCache,
    ) -> ArrayView3<'c, f64> {
        let width = self.lies.of(state.ncols());
        if width != state.ncols() {
            *state = Array2::zeros((state.nrows(), width));
        }
        cache.y = self.values(x);
        cache.outputs = [cache.y.clone(), cache.y.slice(s![..1, .., ..]).to_owned()];
        cache.y.view()
    }

    fn output<'c>(&self, cache: &'c LyingCache) -> ArrayView3<'c, f64> {
        cache.outputs[usize::from(self.lies.of(0) > 0)].view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        _: &ArrayRef3<f64>,
        dstate: Option<&mut Array2<f64>>,
        cache: &'c mut LyingCache,
        _: Gradient<'_, Self>,
    ) -> ArrayView3<'c, f64> {
        if let Some(dstate) = dstate {
            *dstate = Array2::zeros((self.lies.of(dstate.nrows()), dstate.ncols()));
        }
        cache.y = self.values(x);
        cache.y.view()
    }
}

impl Causal for LyingLayer {}

#[test]
fn layers_that_lie() {
    let lies = Lies::new();
    everywhere(&lies, LyingLayer { weight: Array2::ones((2, 2)), lies: lies.clone() });
}

/// Tensors whose count, shapes and lengths change.
#[derive(Clone)]
struct LyingTensors {
    values: Vec<f64>,
    shapes: [[usize; 2]; 4],
    lies: Lies,
}

impl Tensors<f64> for LyingTensors {
    fn count(&self) -> usize {
        self.lies.of(2)
    }
    fn name(&self, i: usize) -> String {
        self.lies.of(i).to_string()
    }
    fn tensor(&self, _: usize) -> (&[usize], &[f64]) {
        // Each lie selects another of the shapes.
        let shape = &self.shapes[self.lies.of(5) % self.shapes.len()];
        (shape, &self.values[..self.lies.of(12).min(self.values.len())])
    }
    fn tensor_mut(&mut self, _: usize) -> &mut [f64] {
        let len = self.lies.of(12).min(self.values.len());
        &mut self.values[..len]
    }
}

impl LyingTensors {
    fn new(lies: &Lies) -> Self {
        let shapes = [[0, usize::MAX], [3, 4], [1, usize::MAX], [4, 3]];
        LyingTensors { values: vec![0.5; 20], shapes, lies: lies.clone() }
    }
}

#[test]
fn tensors_that_lie() {
    let lies = Lies::new();
    let tensors = || LyingTensors::new(&lies);
    fn steps(optimizer: &mut dyn Optimizer<f64>, tensors: &dyn Fn() -> LyingTensors) {
        let mut model = tensors();
        for _ in 0..2 {
            optimizer.step(&mut model, &tensors());
            let _ = optimizer.step_clipped(&mut model, &tensors(), ClipNorm::new(1.0));
        }
    }
    with_lies(&lies, "Sgd", || steps(&mut Sgd::new(0.1).momentum(0.9), &tensors));
    with_lies(&lies, "Adam", || steps(&mut Adam::new(0.1), &tensors));
    with_lies(&lies, "AdamW", || steps(&mut AdamW::new(0.1), &tensors));
    with_lies(&lies, "AdamW", || steps(&mut AdamW::new(0.1).amsgrad(), &tensors));
    with_lies(&lies, "NAdam", || steps(&mut NAdam::new(0.1), &tensors));
    with_lies(&lies, "RmsProp", || steps(&mut RmsProp::new(0.1), &tensors));
    with_lies(&lies, "Adagrad", || steps(&mut Adagrad::new(0.1), &tensors));
    with_lies(&lies, "WeightAverage", || {
        let (mut average, mut model) = (WeightAverage::ema(0.5), tensors());
        for _ in 0..3 {
            let _ = average.update(&model);
            drop(average.swap_in(&mut model));
            average.copy_to(&mut model);
        }
    });
    with_lies(&lies, "clipping and sums", || {
        let mut sum = tensors();
        let _ = clip_grad_norm(&mut sum, 0.1);
        let _ = clip_grad_value(&mut sum, 0.1);
        sum.add_assign(&tensors());
        sum.copy_from(&tensors());
        let _ = sum.zeros_like();
        NamedTensors::zeros_like(&sum);
    });
}

/// A saved file can be read, whatever was claimed meanwhile; otherwise a panic names the tensor and what is wrong with it.
#[cfg(feature = "safetensors")]
#[test]
fn tensors_that_lie_while_they_are_saved_or_loaded() {
    use gradflow::io::{Checkpoint, StateDict};

    let lies = Lies::new();
    let file = temporary("lies");
    let readable = |dict: &StateDict| {
        for name in dict.names() {
            let tensor = dict.tensor::<f64>(name).expect("a tensor of its name");
            assert_eq!((Some(tensor.shape()), tensor.iter().all(|&value| value == 0.5)), (dict.shape(name), true));
        }
    };
    let (mut wrong, mut saved) = (Vec::new(), 0);
    let mut check = |act: &dyn Fn()| match catch_unwind(AssertUnwindSafe(act)) {
        Ok(()) => saved += 1,
        Err(panic) => {
            let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            if !(message.starts_with("StateDict: ") && message.contains("expected ")) {
                wrong.push(message);
            }
            resume_unwind(panic);
        }
    };
    with_lies(&lies, "StateDict", || {
        check(&|| {
            let dict = StateDict::of(&LyingTensors::new(&lies));
            dict.save(&file).expect("a file that can be written");
            let again = StateDict::open(&file).expect("a file that can be read");
            assert_eq!(again, dict);
            readable(&again);
        });
    });
    with_lies(&lies, "Checkpoint", || {
        check(&|| {
            let checkpoint = Checkpoint::new().with_tensors("model", &LyingTensors::new(&lies)).with_number("step", 3);
            checkpoint.save(&file).expect("a file that can be written");
            let again = Checkpoint::open(&file).expect("a file that can be read");
            assert_eq!(again, checkpoint);
            readable(again.state_dict());
        });
    });
    let dict = StateDict::of(&LyingTensors::new(&Lies::new()));
    with_lies(&lies, "StateDict: load", || {
        check(&|| {
            // An error is acceptable too: another name, another shape.
            if let Err(error) = dict.load(&mut LyingTensors::new(&lies)) {
                assert!(!error.to_string().is_empty());
                panic!("StateDict: expected its tensors: {error}");
            }
        });
    });
    std::fs::remove_file(&file).unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(saved > 3, "no lie passes unnoticed: {saved}"); // a smaller count does
}

/// A model that claims that its tensors are elsewhere: packed weights are found by their address.
#[test]
fn a_prepacked_model_that_lies_about_its_tensors() {
    #[derive(Clone)]
    struct Elsewhere {
        layer: (Linear<f64>, GruCell<f64>),
        other: Linear<f64>,
        lies: Lies,
    }
    impl Elsewhere {
        fn listed(&self) -> &dyn Tensors<f64> {
            if self.lies.of(0) > 0 { &self.other } else { &self.layer }
        }
    }
    impl Tensors<f64> for Elsewhere {
        fn count(&self) -> usize {
            self.listed().count()
        }
        fn name(&self, i: usize) -> String {
            self.listed().name(i)
        }
        fn tensor(&self, i: usize) -> (&[usize], &[f64]) {
            self.listed().tensor(i)
        }
        fn tensor_mut(&mut self, i: usize) -> &mut [f64] {
            self.layer.tensor_mut(i)
        }
    }
    type Inner = (Linear<f64>, GruCell<f64>);
    impl Layer for Elsewhere {
        type Elem = f64;
        type State = <Inner as Layer>::State;
        type Cache = <Inner as Layer>::Cache;
        fn output_size(&self, input: Size) -> Result<usize, SizeError> {
            self.layer.output_size(input)
        }
        fn zero_state(&self, batch: usize) -> Self::State {
            self.layer.zero_state(batch)
        }
        fn forward_pass<'c>(
            &self,
            x: &Sequence<'_, f64>,
            state: &mut Self::State,
            cache: &'c mut Self::Cache,
        ) -> ArrayView3<'c, f64> {
            self.layer.forward_pass(x, state, cache)
        }
        fn output<'c>(&self, cache: &'c Self::Cache) -> ArrayView3<'c, f64> {
            self.layer.output(cache)
        }
        fn backward_pass<'c>(
            &self,
            x: &Sequence<'_, f64>,
            dy: &ArrayRef3<f64>,
            dstate: Option<&mut Self::State>,
            cache: &'c mut Self::Cache,
            grad: Gradient<'_, Self>,
        ) -> ArrayView3<'c, f64> {
            let (grad, how) = grad.parts();
            self.layer.backward_pass(x, dy, dstate, cache, Gradient::new(&mut grad.layer, how))
        }
    }
    let rng = &mut rng(0);
    let (lies, x) = (Lies::new(), wave((STEPS, BATCH, FEATURES), 0.3));
    let layer = (Linear::new(FEATURES, 40, rng), GruCell::new(40, 33, rng));
    let model = Elsewhere { layer, other: Linear::new(60, 50, rng), lies: lies.clone() };
    with_lies(&lies, "Prepacked", || {
        let packed = Prepacked::new(model.clone());
        let (mut cache, mut state) = (packed.cache(), packed.zero_state(BATCH));
        for x in [Sequence::from(&x).infer(), Sequence::from(&x).steps(0..1).infer(), Sequence::from(&x).infer()] {
            packed.forward(x, &mut state, &mut cache);
        }
    });
}

/// The kernels check their arguments: a matrix product of shapes that do not fit is refused.
#[test]
fn views_of_other_shapes_are_refused() {
    let (linear, rows): (_, ArrayView2<'_, f64>) =
        (Linear::<f64>::zeros(3, 4), ArrayView2::from_shape((1, 3), &[0.0; 3]).unwrap());
    let mut other = linear.clone();
    other.weight = Array2::zeros((4, 2));
    assert!(panics(&mut || drop(other.forward(Sequence::rows(&rows), &mut (), &mut other.cache()).to_owned())));
    other.weight = Array2::zeros((5, 3));
    assert!(panics(&mut || drop(other.forward(Sequence::rows(&rows), &mut (), &mut other.cache()).to_owned())));
}
