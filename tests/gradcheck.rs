//! Every layer's gradients against central differences in f64, in full; and that planted mistakes are found.

use gradflow::ndarray::{Array2, Array3, ArrayRef3, ArrayView3};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{
    Activation, Bidirectional, DenseConcat, Dropout, Embedding, GradCheck, GradReport, Gru, GruCell, GruReset, Highway,
    Identity, Layer, LayerNorm, LearnedState, Linear, Lstm, LstmCell, LstmState, Nonlinearity, PostNormBlock,
    PreNormBlock, Residual, Rnn, RnnCell, RnnNonlinearity, Sequence, Size, SizeError, Stacked, StochasticDepth,
    TensorsExt, TruncatedBptt, parameters,
};

const LENGTHS: [usize; 3] = [4, 6, 2];

fn input(features: usize) -> Array3<f64> {
    Array3::from_shape_fn((6, 3, features), |(t, b, d)| (1.7 * t as f64 + 3.1 * b as f64 + 5.3 * d as f64 + 0.2).sin())
}

fn varied_state<L: Layer<Elem = f64>>(layer: &L) -> L::State {
    use gradflow::Tensors;
    let mut state = layer.zero_state(3);
    for i in 0..state.count() {
        let values = state.tensor_mut(i).iter_mut().enumerate();
        values.for_each(|(k, value)| *value = 0.5 * (1.9 * k as f64 + i as f64).cos());
    }
    state
}

/// Checks in full, without and with lengths, and prints the line of the table.
fn check<L: Layer<Elem = f64>>(name: &str, layer: &L, x: Sequence<'_, f64>) {
    check_by(GradCheck::default(), name, layer, x);
}

/// With a smaller step. Normalising the small sums of a few hidden units is steep, and the error of central differences
/// falls with the square of their step.
fn check_finely<L: Layer<Elem = f64>>(name: &str, layer: &L, x: Sequence<'_, f64>) {
    check_by(GradCheck::default().step(1e-6), name, layer, x);
}

fn check_by<L: Layer<Elem = f64>>(differences: GradCheck, name: &str, layer: &L, x: Sequence<'_, f64>) {
    let report = |x| differences.check(layer, x, &varied_state(layer));
    let reports = [report(x), report(x.with_lengths(&LENGTHS).unwrap())];
    let worst = reports.iter().map(GradReport::worst_error).fold(0.0, f64::max);
    println!("{name:<36} {:>3} tensors  worst error {worst:.1e}", reports[0].tensors.len());
    for report in reports {
        assert!(report.passed() && report.tolerance <= 1e-6, "{name}\n{report}");
    }
}

#[test]
fn every_layer() {
    let rng = &mut StdRng::seed_from_u64(3);
    let (x, ids) = (input(5), Array2::from_shape_fn((6, 3), |(t, b)| (2 * t + 3 * b) % 7));
    let x = Sequence::from(&x);
    check("Linear", &Linear::new(5, 4, rng), x);
    check("Linear without bias", &Linear::new(5, 4, rng).without_bias(), x);
    for f in [
        Nonlinearity::Tanh,
        Nonlinearity::Sigmoid,
        Nonlinearity::Relu,
        Nonlinearity::LeakyRelu { slope: 0.01 },
        Nonlinearity::Gelu,
        Nonlinearity::Silu,
    ] {
        check(&format!("Activation {f:?}"), &Activation::new(f), x);
        check(&format!("PreNormBlock {f:?}"), &PreNormBlock::pre_norm(5, 7, f, rng), x);
    }
    check("LayerNorm", &LayerNorm::new(5), x);
    check("Embedding", &Embedding::new(7, 4, rng), (&ids).into());
    check("RnnCell tanh", &RnnCell::new(5, 4, rng), x);
    check("RnnCell relu", &RnnCell::builder(5, 4).nonlinearity(RnnNonlinearity::Relu).build(rng), x);
    check("LstmCell", &LstmCell::builder(5, 4).pytorch().build(rng), x);
    check("LstmCell without bias", &LstmCell::builder(5, 4).bias(false).build(rng), x);
    check("LstmCell projected", &LstmCell::builder(5, 4).projection(3).build(rng), x);
    check("GruCell", &GruCell::builder(5, 4).pytorch().build(rng), x);
    check("GruCell without bias", &GruCell::builder(5, 4).bias(false).build(rng), x);
    check("PostNormBlock", &PostNormBlock::new(5, 7, Nonlinearity::Gelu, rng), x);
    check("Residual projected", &Residual::projected(Linear::new(5, 3, rng), 5, rng), x);
    check("Residual LayerScale LSTM", &Residual::new(LstmCell::new(5, 5, rng)).layer_scale(5, 0.3), x);
}

/// Every option of the cells alone, and all together: forwards and backwards in time.
#[test]
fn every_variant_of_the_cells() {
    let rng = &mut StdRng::seed_from_u64(7);
    let x = input(5);
    let x = Sequence::from(&x);
    macro_rules! variants {
        ($($name:literal: $builder:expr;)+) => {$({
            let cell = lively($builder.build(rng), rng);
            for seed in [1, 2] {
                check_finely(concat!($name, ", training"), &cell, x.train(seed));
            }
            check_finely($name, &cell, x.eval());
            check_finely(concat!($name, ", reversed"), &cell, x.train(3).reversed());
        })+};
    }
    variants! {
        "LSTM peepholes": LstmCell::builder(5, 4).peepholes();
        "LSTM coupled": LstmCell::builder(5, 4).coupled();
        "LSTM layer norm": LstmCell::builder(5, 4).layer_norm();
        "LSTM recurrent dropout": LstmCell::builder(5, 4).recurrent_dropout(0.4);
        "LSTM zoneout": LstmCell::builder(5, 4).zoneout(0.3, 0.4);
        "LSTM projection": LstmCell::builder(5, 4).projection(3);
        "LSTM forget bias, chrono": LstmCell::builder(5, 4).chrono(20.0);
        "LSTM peepholes, coupled": LstmCell::builder(5, 4).peepholes().coupled();
        "LSTM peepholes, layer norm": LstmCell::builder(5, 4).peepholes().layer_norm();
        "LSTM all": LstmCell::builder(5, 4).peepholes().coupled().layer_norm().projection(3)
            .recurrent_dropout(0.3).zoneout(0.3, 0.2);
        "GRU reset before": GruCell::builder(5, 4).reset(GruReset::BeforeProduct);
        "GRU layer norm": GruCell::builder(5, 4).layer_norm();
        "GRU recurrent dropout": GruCell::builder(5, 4).recurrent_dropout(0.4);
        "GRU zoneout": GruCell::builder(5, 4).zoneout(0.4, 0.0);
        "GRU all": GruCell::builder(5, 4).reset(GruReset::BeforeProduct).layer_norm().recurrent_dropout(0.3)
            .zoneout(0.3, 0.0);
        "RNN layer norm": RnnCell::builder(5, 4).layer_norm();
        "RNN recurrent dropout": RnnCell::builder(5, 4).recurrent_dropout(0.4);
        "RNN zoneout": RnnCell::builder(5, 4).zoneout(0.4, 0.0);
        "RNN all": RnnCell::builder(5, 4).layer_norm().recurrent_dropout(0.3).zoneout(0.3, 0.0);
    }
}

/// Layers, directions, connections between layers, learned starts, chunks.
#[test]
fn recurrent_models() {
    let rng = &mut StdRng::seed_from_u64(8);
    let x = input(5);
    let x = Sequence::from(&x).train(4);
    check("RNN, 3 layers", &Rnn::builder(5, 4).num_layers(3).dropout(0.2).build(rng), x);
    check("LSTM, 3 layers", &Lstm::builder(5, 4).num_layers(3).dropout(0.2).build(rng), x);
    check("GRU, 3 layers", &Gru::builder(5, 4).num_layers(3).dropout(0.2).build(rng), x);
    check("RNN, 2 layers, both directions", &Rnn::builder(5, 4).num_layers(2).bidirectional().build(rng), x);
    check("LSTM, 3 layers, both directions", &Lstm::builder(5, 3).num_layers(3).bidirectional().build(rng), x);
    check("GRU, 2 layers, both directions", &Gru::builder(5, 4).num_layers(2).bidirectional().build(rng), x);
    let lstm = Lstm::builder(5, 4).num_layers(2).bidirectional().peepholes().coupled().layer_norm().projection(3);
    let lstm = lstm.recurrent_dropout(0.3).zoneout(0.3, 0.2).dropout(0.2).build(rng);
    check_finely("LSTM, 2 layers, both directions, all", &lively(lstm, rng), x);
    let gru = Gru::builder(5, 4).num_layers(2).bidirectional().reset(GruReset::BeforeProduct).layer_norm();
    let gru = gru.recurrent_dropout(0.3).zoneout(0.3, 0.0).dropout(0.2).build(rng);
    check_finely("GRU, 2 layers, both directions, all", &lively(gru, rng), x);
    check(
        "Bidirectional residual GRU",
        &{
            let mut direction = || Residual::new(GruCell::new(5, 5, rng));
            Bidirectional::new(direction(), direction())
        },
        x,
    );
    check("3 residual LSTMs", &Stacked::build(3, |_| Residual::new(LstmCell::new(5, 5, rng))), x);
    check("2 highway RNNs", &Stacked::build(2, |_| Highway::new(RnnCell::new(5, 5, rng), 5, rng)), x);
    check("learned state, LSTM", &lively(LearnedState::new(Lstm::builder(5, 4).num_layers(2).build(rng)), rng), x);
    let gru = Gru::builder(5, 4).bidirectional().build(rng);
    check("learned state, GRU in both directions", &lively(LearnedState::new(gru), rng), x);
    let lstm = Lstm::builder(5, 4).num_layers(2).zoneout(0.2, 0.1).build(rng);
    check("chunks with gradients passed", &TruncatedBptt::new(lstm.clone(), 4).pass_gradients(), x);
    check("chunks, recomputed", &TruncatedBptt::new(lstm, 2).pass_gradients().recompute(), x.reversed());
}

/// Every parameter moved from where it starts: peepholes that are 0 and gains that are 1 would hide mistakes.
fn lively<L: Layer<Elem = f64>>(mut layer: L, rng: &mut StdRng) -> L {
    use gradflow::rand::RngExt;
    for i in 0..layer.count() {
        layer.tensor_mut(i).iter_mut().for_each(|value| *value += rng.random_range(-0.3..0.3));
    }
    layer
}

#[test]
fn what_is_dropped_and_what_is_gated() {
    let rng = &mut StdRng::seed_from_u64(6);
    let x = input(5);
    let x = Sequence::from(&x);
    check("Identity", &Identity::new(), x);
    check("Highway", &Highway::new(Linear::new(5, 5, rng), 5, rng), x);
    check("Highway GRU", &Highway::new(GruCell::new(5, 5, rng), 5, rng).gate_bias(0.3), x);
    check("DenseConcat", &DenseConcat::new(Linear::new(5, 3, rng)), x);
    check("DenseConcat LSTM", &DenseConcat::new(LstmCell::new(5, 3, rng)), x);
    for seed in 0..4 {
        let x = x.train(seed);
        check("Dropout", &Dropout::new(0.4, rng), x);
        check("StochasticDepth", &StochasticDepth::new(Linear::new(5, 3, rng), 0.5, rng), x);
        let lstm = StochasticDepth::new(LstmCell::new(5, 5, rng), 0.5, rng);
        check("StochasticDepth LSTM", &Residual::new(lstm.clone()), x);
        check("StochasticDepth LSTM, whole batch", &Residual::new(lstm.whole_batch()), x);
        let deep = Stacked::build(3, |k| {
            let branch = (LayerNorm::new(5), GruCell::new(5, 5, rng), Dropout::new(0.3, rng));
            Highway::new(StochasticDepth::linear(branch, 0.5, k, 3, rng), 5, rng)
        });
        check("3 highways, all of it", &deep, x);
    }
}

#[test]
fn deep_mixtures() {
    let rng = &mut StdRng::seed_from_u64(4);
    let (x, ids) = (input(5), Array2::from_shape_fn((6, 3), |(t, b)| (2 * t + 3 * b) % 7));
    let deep = (
        Linear::new(5, 4, rng),
        Stacked::build(5, |k| Residual::new((LayerNorm::new(4), GruCell::new(4, 4, rng))).scaled(1.0 / (k + 1) as f64)),
        LstmCell::new(4, 6, rng),
        Activation::gelu(),
        RnnCell::new(6, 3, rng),
    );
    check("Linear, 5 residual GRUs, LSTM, RNN", &deep, (&x).into());
    let residual = Stacked::build(8, |_| PreNormBlock::pre_norm(5, 9, Nonlinearity::Silu, rng));
    check("8 pre-norm blocks", &residual, (&x).into());
    let tagger = (
        Embedding::new(7, 4, rng),
        Residual::projected((LstmCell::new(4, 5, rng), LayerNorm::new(5)), 4, rng),
        PostNormBlock::new(5, 6, Nonlinearity::Tanh, rng),
        Linear::new(5, 3, rng),
    );
    check("Embedding, residual LSTM, post-norm", &tagger, (&ids).into());
}

/// A layer whose backward pass is wrong in a chosen way.
#[derive(Clone)]
struct Flawed {
    cell: LstmCell<f64>,
    flaw: Flaw,
}
parameters! { impl Tensors<f64> for Flawed { cell as ""; skip flaw } }

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    /// The gradient by the cell state does not reach the initial state.
    DroppedTerm,
    WrongSign,
    FactorTwo,
    /// `=` for `+=`.
    Overwritten,
    /// The input gate's rows for the forget gate's.
    GatesSwapped,
    /// One element of the input's gradient is NaN.
    NotANumber,
}

impl Layer for Flawed {
    type Elem = f64;
    type State = LstmState<f64>;
    type Cache = (<LstmCell<f64> as Layer>::Cache, Array3<f64>);

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.cell.output_size(input)
    }

    fn zero_state(&self, batch: usize) -> LstmState<f64> {
        self.cell.zero_state(batch)
    }

    fn forward<'c>(
        &self,
        x: Sequence<'_, f64>,
        state: &mut LstmState<f64>,
        cache: &'c mut Self::Cache,
    ) -> ArrayView3<'c, f64> {
        self.cell.forward(x, state, &mut cache.0)
    }

    fn output<'c>(&self, cache: &'c Self::Cache) -> ArrayView3<'c, f64> {
        self.cell.output(&cache.0)
    }

    fn backward<'c>(
        &self,
        x: Sequence<'_, f64>,
        dy: &ArrayRef3<f64>,
        mut dstate: Option<&mut LstmState<f64>>,
        (inner, dx): &'c mut Self::Cache,
        grad: &mut Self,
    ) -> ArrayView3<'c, f64> {
        let mut own = self.cell.zeros_like();
        *dx = self.cell.backward(x, dy, dstate.as_deref_mut(), inner, &mut own).to_owned();
        let hidden = self.cell.hidden_size();
        match self.flaw {
            Flaw::None => {}
            Flaw::DroppedTerm => dstate.unwrap().c.fill(0.0),
            Flaw::WrongSign => own.weight_hh.row_mut(2 * hidden).mapv_inplace(|g| -g),
            Flaw::FactorTwo => own.bias_hh.as_mut().unwrap().mapv_inplace(|g| 2.0 * g),
            Flaw::Overwritten => grad.cell.bias_ih.as_mut().unwrap().fill(0.0),
            Flaw::GatesSwapped => {
                for row in 0..hidden {
                    let (i, f) = (own.weight_ih.row(row).to_owned(), own.weight_ih.row(hidden + row).to_owned());
                    own.weight_ih.row_mut(row).assign(&f);
                    own.weight_ih.row_mut(hidden + row).assign(&i);
                }
            }
            Flaw::NotANumber => dx[[1, 1, 1]] = f64::NAN,
        }
        grad.cell.add_assign(&own);
        dx.view()
    }
}

#[test]
fn planted_mistakes_are_found_and_named() {
    let cell = LstmCell::builder(5, 4).pytorch().build(&mut StdRng::seed_from_u64(5));
    let x = input(5);
    for (flaw, tensor) in [
        (Flaw::None, None),
        (Flaw::DroppedTerm, Some("state.c")),
        (Flaw::WrongSign, Some("weight_hh")),
        (Flaw::FactorTwo, Some("bias_hh")),
        (Flaw::Overwritten, Some("bias_ih")),
        (Flaw::GatesSwapped, Some("weight_ih")),
        (Flaw::NotANumber, Some("x")),
    ] {
        let layer = Flawed { cell: cell.clone(), flaw };
        for (mode, check) in [("full", GradCheck::default()), ("fast", GradCheck::default().fast(8))] {
            let report = check.check(&layer, (&x).into(), &varied_state(&layer));
            let failed: Vec<_> = report.failures().map(|check| check.tensor.as_str()).collect();
            assert_eq!(failed, Vec::from_iter(tensor), "{flaw:?}, {mode}\n{report}");
            assert_eq!(report.passed(), tensor.is_none());
            let printed = report.to_string();
            assert!(tensor.is_none_or(|tensor| {
                printed.lines().any(|line| line.starts_with(tensor) && line.ends_with("FAIL"))
            }));
        }
    }
}

#[test]
fn the_report_gives_the_worst_element_with_both_values() {
    let cell = LstmCell::builder(5, 4).pytorch().build(&mut StdRng::seed_from_u64(5));
    let x = input(5);
    let report = |flaw| {
        let layer = Flawed { cell: cell.clone(), flaw };
        GradCheck::default().check(&layer, (&x).into(), &varied_state(&layer))
    };
    let (right, wrong) = (report(Flaw::None), report(Flaw::FactorTwo));
    let worst = wrong.tensors.iter().find(|check| check.tensor == "bias_hh").unwrap();
    assert_eq!(worst.tried, 16);
    assert!((worst.analytic / worst.numeric - 2.0).abs() < 1e-6, "{worst:?}");
    assert!((worst.error - 0.5).abs() < 1e-6, "half of the doubled largest gradient: {worst:?}");
    assert!(right.worst_error() < 1e-8);
}

#[test]
fn single_precision_has_a_tolerance_of_its_own() {
    let cell = LstmCell::<f32>::builder(5, 4).pytorch().build(&mut StdRng::seed_from_u64(5));
    let x = input(5).mapv(|value| value as f32);
    let check = |check: GradCheck| check.check(&cell, (&x).into(), &cell.zero_state(3));
    let report = check(GradCheck::default());
    assert!(report.passed() && report.tolerance == 1e-2, "{report}");
    assert!(!check(GradCheck::default().tolerance(1e-6)).passed(), "f32 cannot pass the tolerance of f64");
}
