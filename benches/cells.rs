//! The speed of cells, convolutions in time and the pre-norm residual block, in `f32`: forward, forward and backward, with lengths,
//! with resets, one step, and one step of a stream.
//!
//! ```text
//! cargo bench --bench cells                                 everything
//! cargo bench --bench cells -- 'forward_backward::.*LstmCell'   names that match
//! cargo bench --bench cells -- --test                       each once, unmeasured
//! cargo bench --bench cells -- --help                       more samples, other orders
//! ```
//!
//! The throughput is in floating-point operations of the matrix products: divan's `Gitem/s` are GFLOP/s. Elementwise work takes
//! time too but is not counted.

use std::fmt;
use std::hint::black_box;

use divan::Bencher;
use divan::counter::ItemsCount;
use gradflow::ndarray::{Array2, Array3};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::{
    Causal, Layer, Sequence, ZerosLike,
    compose::{PreNormBlock, Stacked},
    layers::{CausalConv1d, Linear, Nonlinearity},
    recurrent::{GruCell, LstmCell, RnnCell},
    stream::Stream,
};

fn main() {
    divan::main();
}

/// A cell with its number of gates.
trait Gated: Causal<Elem = f32> {
    const GATES: usize;

    fn new(input: usize, hidden: usize) -> Self;
}

impl Gated for RnnCell<f32> {
    const GATES: usize = 1;

    fn new(input: usize, hidden: usize) -> Self {
        RnnCell::new(input, hidden, &mut rng())
    }
}

impl Gated for GruCell<f32> {
    const GATES: usize = 3;

    fn new(input: usize, hidden: usize) -> Self {
        GruCell::new(input, hidden, &mut rng())
    }
}

impl Gated for LstmCell<f32> {
    const GATES: usize = 4;

    fn new(input: usize, hidden: usize) -> Self {
        LstmCell::new(input, hidden, &mut rng())
    }
}

/// T, B, I and H.
struct Size {
    length: usize,
    batch: usize,
    input: usize,
    hidden: usize,
}

impl Size {
    const fn new(length: usize, batch: usize, input: usize, hidden: usize) -> Self {
        Size { length, batch, input, hidden }
    }

    fn dims(&self) -> (usize, usize, usize) {
        (self.length, self.batch, self.input)
    }

    /// The operations of a cell's forward pass over one row.
    fn flops<C: Gated>(&self) -> usize {
        2 * C::GATES * self.hidden * (self.input + self.hidden)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size { length, batch, input, hidden } = self;
        write!(f, "T{length} B{batch} I{input} H{hidden}")
    }
}

const TINY: Size = Size::new(1, 1, 1, 16);
const SMALL: Size = Size::new(32, 1, 32, 32);
const MEDIUM: Size = Size::new(64, 16, 64, 64);
const LARGE: Size = Size::new(50, 32, 128, 256);

fn rng() -> StdRng {
    StdRng::seed_from_u64(0)
}

fn uniform(dims: (usize, usize, usize)) -> Array3<f32> {
    let rng = &mut rng();
    Array3::from_shape_simple_fn(dims, || rng.random_range(-1.0..1.0))
}

/// Measures a forward pass; `flops` are its operations over one row.
fn measure_forward(bencher: Bencher<'_, '_>, layer: &impl Layer<Elem = f32>, x: Sequence<'_, f32>, flops: usize) {
    let (mut state, mut cache) = (layer.zero_state(x.dims().1), layer.cache());
    layer.forward(x, &mut state, &mut cache);
    bencher.counter(ItemsCount::new(x.valid_count() * flops)).bench_local(|| {
        black_box(layer.forward(x, &mut state, &mut cache));
    });
}

/// Measures a forward and a backward pass; `flops` are the operations of the forward pass over one row.
fn measure_forward_backward(
    bencher: Bencher<'_, '_>,
    layer: &impl Layer<Elem = f32>,
    x: Sequence<'_, f32>,
    flops: usize,
) {
    let (mut state, mut cache, mut grad) = (layer.zero_state(x.dims().1), layer.cache(), layer.zeros_like());
    let dy = layer.forward(x, &mut state, &mut cache).to_owned();
    // A backward pass multiplies twice as much: for the weights' gradient and for the input's.
    bencher.counter(ItemsCount::new(3 * x.valid_count() * flops)).bench_local(|| {
        black_box(layer.pass(x, &mut state, &mut cache).backward_into(&dy, &mut grad));
    });
}

/// A convolution, and a linear layer with a product of the same size: the difference is the cost of gathering the rows.
#[divan::bench_group(min_time = 1, max_time = 3, skip_ext_time)]
mod convolution {
    use super::*;

    /// T, B, features, kernel, dilation, groups.
    struct Conv(usize, usize, usize, usize, usize, usize);

    impl fmt::Display for Conv {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Conv(length, batch, features, kernel, dilation, groups) = self;
            write!(f, "T{length} B{batch} D{features} K{kernel} d{dilation} G{groups}")
        }
    }

    impl Conv {
        fn layer(&self) -> CausalConv1d<f32> {
            let &Conv(_, _, features, kernel, dilation, groups) = self;
            CausalConv1d::builder(features, features, kernel).dilation(dilation).groups(groups).build(&mut rng())
        }

        fn flops(&self) -> usize {
            2 * self.2 * self.2 / self.5 * self.3
        }
    }

    const SIZES: [Conv; 6] = [
        Conv(256, 1, 16, 3, 4, 1),
        Conv(400, 16, 32, 2, 8, 1),
        Conv(400, 16, 64, 3, 8, 1),
        Conv(100, 16, 256, 3, 1, 1),
        Conv(400, 16, 64, 7, 1, 4),
        Conv(400, 16, 64, 3, 8, 64),
    ];

    #[divan::bench(args = SIZES)]
    fn forward(bencher: Bencher<'_, '_>, size: &Conv) {
        let x = uniform((size.0, size.1, size.2));
        measure_forward(bencher, &size.layer(), Sequence::from(&x), size.flops());
    }

    #[divan::bench(args = SIZES)]
    fn forward_backward(bencher: Bencher<'_, '_>, size: &Conv) {
        let x = uniform((size.0, size.1, size.2));
        measure_forward_backward(bencher, &size.layer(), Sequence::from(&x), size.flops());
    }

    #[divan::bench(args = &SIZES[..4])]
    fn linear_forward(bencher: Bencher<'_, '_>, size: &Conv) {
        let x = uniform((size.0, size.1, size.2 * size.3));
        measure_forward(bencher, &Linear::new(size.2 * size.3, size.2, &mut rng()), Sequence::from(&x), size.flops());
    }

    #[divan::bench(args = &SIZES[..4])]
    fn linear_forward_backward(bencher: Bencher<'_, '_>, size: &Conv) {
        let x = uniform((size.0, size.1, size.2 * size.3));
        let linear = Linear::new(size.2 * size.3, size.2, &mut rng());
        measure_forward_backward(bencher, &linear, Sequence::from(&x), size.flops());
    }

    #[divan::bench(args = &SIZES[..4])]
    fn stream(bencher: Bencher<'_, '_>, size: &Conv) {
        let (mut stream, x) = (Stream::new(&size.layer(), size.2).expect("sizes that fit"), vec![0.1; size.2]);
        bencher.counter(ItemsCount::new(size.flops())).bench_local(|| {
            black_box(stream.push(&x));
        });
    }
}

/// One small sequence, a small and a large batch.
#[divan::bench_group(min_time = 1, max_time = 3, skip_ext_time)]
mod whole {
    use super::*;

    #[divan::bench(types = [RnnCell<f32>, GruCell<f32>, LstmCell<f32>], args = [SMALL, MEDIUM, LARGE])]
    fn forward<C: Gated>(bencher: Bencher<'_, '_>, size: &Size) {
        let x = uniform(size.dims());
        measure_forward(bencher, &C::new(size.input, size.hidden), Sequence::from(&x), size.flops::<C>());
    }

    #[divan::bench(types = [RnnCell<f32>, GruCell<f32>, LstmCell<f32>], args = [SMALL, MEDIUM, LARGE])]
    fn forward_backward<C: Gated>(bencher: Bencher<'_, '_>, size: &Size) {
        let x = uniform(size.dims());
        measure_forward_backward(bencher, &C::new(size.input, size.hidden), Sequence::from(&x), size.flops::<C>());
    }
}

/// Sequences of different lengths, padded.
#[divan::bench_group(min_time = 1, max_time = 3, skip_ext_time)]
mod with_lengths {
    use super::*;

    fn lengths(size: &Size) -> Vec<usize> {
        let rng = &mut rng();
        (0..size.batch).map(|_| rng.random_range(size.length / 2..=size.length)).collect()
    }

    #[divan::bench(types = [RnnCell<f32>, GruCell<f32>, LstmCell<f32>], args = [MEDIUM, LARGE])]
    fn forward<C: Gated>(bencher: Bencher<'_, '_>, size: &Size) {
        let (x, lengths) = (uniform(size.dims()), lengths(size));
        let x = Sequence::from(&x).with_lengths(&lengths).expect("lengths that fit");
        measure_forward(bencher, &C::new(size.input, size.hidden), x, size.flops::<C>());
    }

    #[divan::bench(types = [RnnCell<f32>, GruCell<f32>, LstmCell<f32>], args = [MEDIUM, LARGE])]
    fn forward_backward<C: Gated>(bencher: Bencher<'_, '_>, size: &Size) {
        let (x, lengths) = (uniform(size.dims()), lengths(size));
        let x = Sequence::from(&x).with_lengths(&lengths).expect("lengths that fit");
        measure_forward_backward(bencher, &C::new(size.input, size.hidden), x, size.flops::<C>());
    }
}

/// An LSTM without a mask of resets, with a mask without a reset, and with resets before some of the steps.
#[divan::bench_group(min_time = 1, max_time = 3, skip_ext_time)]
mod with_resets {
    use super::*;

    /// The share of steps with a reset, if a mask of them is given.
    struct Resets(Size, Option<f64>);

    impl fmt::Display for Resets {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.1 {
                None => write!(f, "{}, without", self.0),
                Some(share) => write!(f, "{}, {} %", self.0, 100.0 * share),
            }
        }
    }

    const SIZES: [Resets; 8] = [
        Resets(MEDIUM, None),
        Resets(MEDIUM, Some(0.0)),
        Resets(MEDIUM, Some(0.02)),
        Resets(MEDIUM, Some(0.1)),
        Resets(LARGE, None),
        Resets(LARGE, Some(0.0)),
        Resets(LARGE, Some(0.02)),
        Resets(LARGE, Some(0.1)),
    ];

    #[divan::bench(args = SIZES)]
    fn forward_backward(bencher: Bencher<'_, '_>, Resets(size, share): &Resets) {
        let (x, rng) = (uniform(size.dims()), &mut rng());
        let share_or_none = share.unwrap_or(0.0);
        let resets = Array2::from_shape_simple_fn((size.length, size.batch), || rng.random_bool(share_or_none));
        let x = Sequence::from(&x);
        let x = if share.is_some() { x.with_resets(&resets) } else { x };
        let flops = size.flops::<LstmCell<f32>>();
        measure_forward_backward(bencher, &LstmCell::new(size.input, size.hidden, &mut super::rng()), x, flops);
    }
}

/// One step after another, as in a stream.
#[divan::bench(
    types = [RnnCell<f32>, GruCell<f32>, LstmCell<f32>],
    args = [TINY, Size::new(1, 1, 32, 32), Size::new(1, 16, 64, 64), Size::new(1, 32, 128, 256)],
    min_time = 1,
    max_time = 3,
    skip_ext_time,
)]
fn step<C: Gated>(bencher: Bencher<'_, '_>, size: &Size) {
    let (x, cell) = (uniform(size.dims()), C::new(size.input, size.hidden));
    let (mut state, mut cache) = (cell.zero_state(size.batch), cell.cache());
    bencher.counter(ItemsCount::new(size.batch * size.flops::<C>())).bench_local(|| {
        black_box(cell.step(&x, &mut state, &mut cache));
    });
}

/// The same for one sequence, by a [`Stream`].
#[divan::bench(
    types = [RnnCell<f32>, GruCell<f32>, LstmCell<f32>],
    args = [TINY, Size::new(1, 1, 32, 32)],
    min_time = 1,
    max_time = 3,
    skip_ext_time,
)]
fn stream<C: Gated>(bencher: Bencher<'_, '_>, size: &Size) {
    let mut stream = Stream::new(&C::new(size.input, size.hidden), size.input).expect("the cell's input size");
    let x: Vec<f32> = uniform(size.dims()).into_iter().collect();
    bencher.counter(ItemsCount::new(size.flops::<C>())).bench_local(|| {
        black_box(stream.push(black_box(&x)));
    });
}

/// A stack of pre-norm residual blocks.
#[divan::bench_group(min_time = 1, max_time = 3, skip_ext_time)]
mod pre_norm {
    use super::*;

    const DEPTH: usize = 4;

    /// Rows and width of the blocks; inside, they are four times as wide.
    struct Rows(usize, usize);

    impl fmt::Display for Rows {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "N{} D{} x{DEPTH}", self.0, self.1)
        }
    }

    const SIZES: [Rows; 4] = [Rows(16, 64), Rows(256, 64), Rows(16, 256), Rows(256, 256)];

    impl Rows {
        fn input(&self) -> Array3<f32> {
            uniform((1, self.0, self.1))
        }

        fn net(&self) -> Stacked<PreNormBlock<f32>> {
            let (width, rng) = (self.1, &mut rng());
            Stacked::build(DEPTH, |_| PreNormBlock::new(width, 4 * width, Nonlinearity::Gelu, rng))
        }

        /// The operations of a forward pass over one row.
        fn flops(&self) -> usize {
            DEPTH * 2 * 2 * self.1 * 4 * self.1
        }
    }

    #[divan::bench(args = SIZES)]
    fn forward(bencher: Bencher<'_, '_>, size: &Rows) {
        measure_forward(bencher, &size.net(), Sequence::from(&size.input()), size.flops());
    }

    #[divan::bench(args = SIZES)]
    fn forward_backward(bencher: Bencher<'_, '_>, size: &Rows) {
        measure_forward_backward(bencher, &size.net(), Sequence::from(&size.input()), size.flops());
    }
}
