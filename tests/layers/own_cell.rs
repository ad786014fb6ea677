//! Cells from outside the crate whose state is neither h alone nor h and c: an sLSTM with its stabiliser, and a memory that is a
//! matrix. Like any other cell, they get the loop over time, lengths, directions, chunks, streams and models of several layers.

use gradflow::check::Contract;
use gradflow::ndarray::{Array, Array1, Array2, Array3, ArrayView1, ArrayViewMut1, Axis, Dimension, Ix2, Ix3, Ix4, s};
use gradflow::rand::{Rng, SeedableRng, rngs::StdRng};
use gradflow::{
    Float, Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    author::{Cell, CellSizes, CellStep, CellStepBackward, StackState, Unrolled},
    layers::Init,
    parameters,
    recurrent::{Recurrent, Zoneout},
    wrap::{LearnedState, TruncatedBptt},
};

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

fn uniform<F: Float>(shape: (usize, usize), bound: f64, rng: &mut impl Rng) -> Array2<F> {
    let mut weight = Array2::zeros(shape);
    Init::Uniform { bound }.fill(&mut weight, rng);
    weight
}

/// `out += w v`
fn add_product<F: Float>(w: &Array2<F>, v: ArrayView1<'_, F>, out: &mut [F]) {
    for (row, out) in w.outer_iter().zip(out) {
        *out += row.iter().zip(v).map(|(&w, &v)| w * v).sum();
    }
}

/// `out += wᵀ d`
fn add_transposed_product<F: Float>(w: &Array2<F>, d: &[F], mut out: ArrayViewMut1<'_, F>) {
    for (row, &d) in w.outer_iter().zip(d) {
        out.scaled_add(d, &row);
    }
}

/// `dw += d vᵀ`
fn add_outer<F: Float>(dw: &mut Array2<F>, d: &[F], v: ArrayView1<'_, F>) {
    for (mut row, &d) in dw.outer_iter_mut().zip(d) {
        row.scaled_add(d, &v);
    }
}

/// sLSTM (Beck et al. 2024): an LSTM with exponential gates, a normaliser n, and a stabiliser m that keeps both exponentials
/// from overflowing.
///
/// ```text
/// a = W x_t + R h_{t-1} + b                 in the order z, i, f, o
/// z = tanh(a_z)      o = σ(a_o)
/// m_t = max(a_f + m_{t-1}, a_i)
/// i = exp(a_i - m_t)      f = exp(a_f + m_{t-1} - m_t)
/// c_t = f c_{t-1} + i z      n_t = f n_{t-1} + i      h_t = o c_t / n_t
/// ```
#[derive(Clone)]
struct Slstm<F> {
    input: Array2<F>,     // [4 H, I]
    recurrent: Array2<F>, // [4 H, H]
    bias: Array1<F>,      // [4 H]
    zoneout: Option<Zoneout>,
}
parameters! { impl<F: Float> Tensors<F> for Slstm<F> { input, recurrent, bias; skip zoneout } }

impl<F: Float> Slstm<F> {
    fn new(input: usize, hidden: usize, rng: &mut impl Rng) -> Self {
        // In some units the input gate is larger, in others the forget gate: both sides of the maximum occur.
        let mut bias = Array1::zeros(4 * hidden);
        for k in 0..hidden {
            bias[2 * hidden + k] = F::of(if k % 2 == 0 { 0.2 } else { -0.8 });
        }
        let (input, recurrent) = (uniform((4 * hidden, input), 0.2, rng), uniform((4 * hidden, hidden), 0.2, rng));
        Slstm { input, recurrent, bias, zoneout: None }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct SlstmState<F, D: Dimension = Ix2> {
    h: Array<F, D>,
    c: Array<F, D>,
    n: Array<F, D>,
    m: Array<F, D>,
}
parameters! { impl<F: Float, D: Dimension> Tensors<F> for SlstmState<F, D> { h, c, n, m } }

impl<F: Float> StackState<F> for SlstmState<F> {
    type Stacked = SlstmState<F, Ix3>;

    fn stack(&self, cells: usize) -> Self::Stacked {
        let SlstmState { h, c, n, m } = self;
        SlstmState { h: h.stack(cells), c: c.stack(cells), n: n.stack(cells), m: m.stack(cells) }
    }
}

impl<F: Float> Cell for Slstm<F> {
    type Elem = F;
    type State = SlstmState<F>;
    type Buffers = Vec<F>; // [R, 4 H]: a, then z, i, f, o and, on the way back, da

    fn sizes(&self) -> CellSizes {
        let hidden = self.recurrent.ncols();
        CellSizes { name: "Slstm", input: self.input.ncols(), output: hidden, memory: 3 * hidden }
    }

    fn initial_state(&self, batch: usize) -> SlstmState<F> {
        let zeros = || Array2::zeros((batch, self.recurrent.ncols()));
        SlstmState { h: zeros(), c: zeros(), n: zeros(), m: zeros() }
    }

    fn zoneout(&self) -> Option<Zoneout> {
        self.zoneout
    }

    fn begin(&self, pass: &Unrolled<'_, F>, gates: &mut Vec<F>) {
        gates.resize(pass.rows() * self.bias.len(), F::zero());
    }

    fn forward_step(&self, mut step: CellStep<'_, F>, gates: &mut Vec<F>) {
        let hidden = self.recurrent.ncols();
        for (j, row) in step.rows.enumerate() {
            let a = &mut gates[row * 4 * hidden..(row + 1) * 4 * hidden];
            a.copy_from_slice(self.bias.as_slice().unwrap());
            add_product(&self.input, step.x.row(j), a);
            add_product(&self.recurrent, step.h_before.row(j), a);
            for k in 0..hidden {
                let [c_before, n_before, m_before] = [0, 1, 2].map(|tensor| step.c_before[[j, tensor * hidden + k]]);
                let [a_z, a_i, a_f, a_o] = [0, 1, 2, 3].map(|gate| a[gate * hidden + k]);
                let z = a_z.tanh();
                let o = F::one() / (F::one() + (-a_o).exp());
                let m = (a_f + m_before).max(a_i);
                let (i, f) = ((a_i - m).exp(), (a_f + m_before - m).exp());
                let (c, n) = (f * c_before + i * z, f * n_before + i);
                for (gate, value) in [z, i, f, o].into_iter().enumerate() {
                    a[gate * hidden + k] = value;
                }
                for (tensor, value) in [c, n, m].into_iter().enumerate() {
                    step.c[[j, tensor * hidden + k]] = value;
                }
                step.h[[j, k]] = o * c / n;
            }
        }
    }

    fn backward_step(&self, mut step: CellStepBackward<'_, F>, gates: &mut Vec<F>, grad: &mut Self) {
        let hidden = self.recurrent.ncols();
        for (j, row) in step.rows.enumerate() {
            let da = &mut gates[row * 4 * hidden..(row + 1) * 4 * hidden];
            for k in 0..hidden {
                let [z, i, f, o] = [0, 1, 2, 3].map(|gate| da[gate * hidden + k]);
                let [c_before, n_before] = [0, 1].map(|tensor| step.c_before[[j, tensor * hidden + k]]);
                let [c, n] = [0, 1].map(|tensor| step.c[[j, tensor * hidden + k]]);
                let [mut dc, mut dn, mut dm] = [0, 1, 2].map(|tensor| step.dc[[j, tensor * hidden + k]]);
                let dh = step.dh[[j, k]];
                dc += dh * o / n;
                dn -= dh * o * c / (n * n);
                let (da_i, da_f) = ((dc * z + dn) * i, (dc * c_before + dn * n_before) * f);
                dm -= da_i + da_f;
                // The gradient of m goes to the larger operand of the maximum, whose gate is 1.
                let (dm_i, dm_f) = if f >= i { (F::zero(), dm) } else { (dm, F::zero()) };
                let da_z = dc * i * (F::one() - z * z);
                let da_o = dh * c / n * o * (F::one() - o);
                for (gate, value) in [da_z, da_i + dm_i, da_f + dm_f, da_o].into_iter().enumerate() {
                    da[gate * hidden + k] = value;
                }
                for (tensor, value) in [dc * f, dn * f, da_f + dm_f].into_iter().enumerate() {
                    step.dc[[j, tensor * hidden + k]] = value;
                }
            }
            step.dh.row_mut(j).fill(F::zero());
            add_transposed_product(&self.recurrent, da, step.dh.row_mut(j));
            if let Some(dx) = &mut step.dx {
                dx.row_mut(j).fill(F::zero());
                add_transposed_product(&self.input, da, dx.row_mut(j));
            }
            add_outer(&mut grad.input, da, step.x.row(j));
            add_outer(&mut grad.recurrent, da, step.h_before.row(j));
            grad.bias += &ArrayView1::from(&*da);
        }
    }
}

/// Linear attention as a recurrence (Katharopoulos et al. 2020): a matrix stores pairs of keys and values.
///
/// ```text
/// (q, k, v) = W x_t        S_t = S_{t-1} + v kᵀ        y_t = S_t q
/// ```
#[derive(Clone)]
struct MatrixMemory<F> {
    weight: Array2<F>, // [3 D, I]: q, k, v
}
parameters! { impl<F: Float> Tensors<F> for MatrixMemory<F> { weight } }

impl<F: Float> MatrixMemory<F> {
    fn new(input: usize, output: usize, rng: &mut impl Rng) -> Self {
        MatrixMemory { weight: uniform((3 * output, input), 0.7, rng) }
    }

    fn size(&self) -> usize {
        self.weight.nrows() / 3
    }
}

#[derive(Clone, Debug, PartialEq)]
struct MatrixState<F, D: Dimension = Ix2, E: Dimension = Ix3> {
    y: Array<F, D>, // [B, D]
    s: Array<F, E>, // [B, D, D]
}
parameters! { impl<F: Float, D: Dimension, E: Dimension> Tensors<F> for MatrixState<F, D, E> { y, s } }

impl<F: Float> StackState<F> for MatrixState<F> {
    type Stacked = MatrixState<F, Ix3, Ix4>;

    fn stack(&self, cells: usize) -> Self::Stacked {
        MatrixState { y: self.y.stack(cells), s: self.s.stack(cells) }
    }
}

impl<F: Float> Cell for MatrixMemory<F> {
    type Elem = F;
    type State = MatrixState<F>;
    type Buffers = (Vec<F>, Vec<F>); // [R, 3 D]: q, k, v; [3 D]: their gradients

    fn sizes(&self) -> CellSizes {
        let size = self.size();
        CellSizes { name: "MatrixMemory", input: self.weight.ncols(), output: size, memory: size * size }
    }

    fn initial_state(&self, batch: usize) -> MatrixState<F> {
        let size = self.size();
        MatrixState { y: Array2::zeros((batch, size)), s: Array3::zeros((batch, size, size)) }
    }

    fn begin(&self, pass: &Unrolled<'_, F>, (qkv, d): &mut (Vec<F>, Vec<F>)) {
        qkv.resize(pass.rows() * self.weight.nrows(), F::zero());
        d.resize(self.weight.nrows(), F::zero());
    }

    fn forward_step(&self, mut step: CellStep<'_, F>, (qkv, _): &mut (Vec<F>, Vec<F>)) {
        let size = self.size();
        for (j, row) in step.rows.enumerate() {
            let qkv = &mut qkv[row * 3 * size..(row + 1) * 3 * size];
            qkv.fill(F::zero());
            add_product(&self.weight, step.x.row(j), qkv);
            let (q, kv) = qkv.split_at(size);
            let (k, v) = kv.split_at(size);
            for (a, &v) in v.iter().enumerate() {
                let mut y = F::zero();
                for b in 0..size {
                    let s = step.c_before[[j, a * size + b]] + v * k[b];
                    step.c[[j, a * size + b]] = s;
                    y += s * q[b];
                }
                step.h[[j, a]] = y;
            }
        }
    }

    fn backward_step(&self, mut step: CellStepBackward<'_, F>, (qkv, d): &mut (Vec<F>, Vec<F>), grad: &mut Self) {
        let size = self.size();
        for (j, row) in step.rows.enumerate() {
            let (q, kv) = qkv[row * 3 * size..(row + 1) * 3 * size].split_at(size);
            let (k, v) = kv.split_at(size);
            d.fill(F::zero());
            let (dq, dkv) = d.split_at_mut(size);
            let (dk, dv) = dkv.split_at_mut(size);
            for a in 0..size {
                let dy = step.dh[[j, a]];
                for b in 0..size {
                    let ds = &mut step.dc[[j, a * size + b]];
                    *ds += dy * q[b];
                    dq[b] += step.c[[j, a * size + b]] * dy;
                    dv[a] += *ds * k[b];
                    dk[b] += *ds * v[a];
                }
            }
            step.dh.row_mut(j).fill(F::zero()); // y_{t-1} is not read
            if let Some(dx) = &mut step.dx {
                dx.row_mut(j).fill(F::zero());
                add_transposed_product(&self.weight, d, dx.row_mut(j));
            }
            add_outer(&mut grad.weight, d, step.x.row(j));
        }
    }
}

fn allocations(run: &mut dyn FnMut()) -> u64 {
    allocation_counter::measure(run).count_total
}

/// Checks the contract for a cell alone, with a learned state, in chunks, in a model of two layers, and in both directions.
fn check_everywhere<C: Cell>(name: &str, make: impl Fn(usize, usize, &mut StdRng) -> C)
where
    C::State: StackState<C::Elem>,
{
    let rng = &mut rng();
    let cell = make(3, 4, rng);
    Contract::new(name, &cell, 3).allocations(allocations).check_causal();
    Contract::new("learned", &LearnedState::new(cell.clone()), 3).allocations(allocations).check_causal();
    let chunks = TruncatedBptt::new(cell.clone(), 2).pass_gradients();
    Contract::new("chunks", &chunks, 3).allocations(allocations).check_causal();
    Contract::new("chunks, again", &chunks.recompute(), 3).allocations(allocations).check_causal();
    let layers = Recurrent::from_cells(vec![[make(3, 4, rng)], [make(4, 4, rng)]]);
    Contract::new("two layers", &layers, 3).allocations(allocations).check_causal();
    let both = |input, rng: &mut StdRng| [make(input, 4, rng), make(input, 4, rng)];
    let directions = Recurrent::from_cells(vec![both(3, rng), both(8, rng)]);
    Contract::new("both directions", &directions, 3).allocations(allocations).check();
    Contract::new("learned, both directions", &LearnedState::new(directions), 3).allocations(allocations).check();
}

#[test]
fn slstm_keeps_the_contract() {
    check_everywhere("Slstm", Slstm::<f64>::new);
    check_everywhere("Slstm", Slstm::<f32>::new);
}

#[test]
fn slstm_with_zoneout_keeps_the_contract() {
    let make = |input: usize, hidden: usize, rng: &mut StdRng| {
        let zoneout = Some(Zoneout::new(0.3, 0.2, rng));
        Slstm::<f64> { zoneout, ..Slstm::new(input, hidden, rng) }
    };
    // A chunk gets the same masks as that part of the whole sequence, for every tensor of the memory.
    check_everywhere("Slstm with zoneout", make);
}

#[test]
fn matrix_memory_keeps_the_contract() {
    check_everywhere("MatrixMemory", MatrixMemory::<f64>::new);
    check_everywhere("MatrixMemory", MatrixMemory::<f32>::new);
}

/// The gates' exponents are far beyond the range of `exp`; the stabiliser is the tensor that keeps the result finite.
#[test]
fn the_stabiliser_keeps_large_exponents_finite() {
    let mut cell = Slstm::<f32>::new(3, 4, &mut rng());
    cell.bias.slice_mut(s![4..8]).fill(300.0); // i
    cell.bias.slice_mut(s![8..12]).fill(2.0); // f
    let x = Array3::from_shape_fn((6, 2, 3), |(t, b, k)| (t as f32 + 2.0 * b as f32 - k as f32).sin());
    let (mut state, mut cache, mut grad) = (cell.zero_state(2), cell.cache(), cell.zeros_like());
    let pass = cell.pass(&x, &mut state, &mut cache);
    assert!(pass.output().iter().all(|h| h.is_finite() && h.abs() < 1.0));
    let dy = pass.output().to_owned();
    assert!(pass.backward_into(&dy, &mut grad).iter().all(|dx| dx.is_finite()));
    assert!((0..grad.count()).all(|i| grad.values(i).iter().all(|d| d.is_finite())));
    assert!(state.m.iter().all(|m| (300.0..320.0).contains(m)), "{}", state.m);
}

/// With lengths, each sequence's memory is the sum over its own steps, in both directions and in every layer.
#[test]
fn the_final_state_is_that_of_the_last_valid_step() {
    let (rng, lengths) = (&mut rng(), [2, 5, 3]);
    let cells = [MatrixMemory::<f64>::new(3, 2, rng), MatrixMemory::new(3, 2, rng)];
    let model = Recurrent::from_cells(vec![cells.clone()]);
    let mut x = Array3::from_shape_fn((5, 3, 3), |(t, b, k)| ((5 * t + 3 * b + k) as f64).sin());
    for (b, &length) in lengths.iter().enumerate() {
        x.slice_mut(s![length.., b, ..]).fill(f64::NAN);
    }
    let mut state = model.zero_state(3);
    assert_eq!((state.y.dim(), state.s.dim()), ((2, 3, 2), (2, 3, 2, 2)));
    let y =
        model.forward(Sequence::from(&x).with_lengths(&lengths).unwrap(), &mut state, &mut model.cache()).to_owned();
    for (direction, cell) in cells.iter().enumerate() {
        for (b, &length) in lengths.iter().enumerate() {
            let mut s = Array2::<f64>::zeros((2, 2));
            for t in 0..length {
                let qkv = cell.weight.dot(&x.slice(s![t, b, ..]));
                for ((row, column), s) in s.indexed_iter_mut() {
                    *s += qkv[4 + row] * qkv[2 + column];
                }
            }
            let got = state.s.index_axis(Axis(0), direction).index_axis_move(Axis(0), b).to_owned();
            assert!((&got - &s).iter().all(|error| error.abs() < 1e-12), "{got} in place of {s}");
            let last = if direction == 0 { length - 1 } else { 0 };
            let columns = 2 * direction..2 * direction + 2;
            assert_eq!(state.y.slice(s![direction, b, ..]), y.slice(s![last, b, columns]));
        }
    }
}

fn panic_of<T>(act: impl FnOnce() -> T) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).err().expect("a panic");
    panic.downcast_ref::<String>().expect("a message").clone()
}

#[test]
fn a_state_that_does_not_fit_is_named() {
    let rng = &mut rng();
    let (cell, x) = (Slstm::<f32>::new(3, 4, rng), Array3::ones((2, 2, 3)));
    let mut state = SlstmState { n: Array2::zeros((2, 5)), ..cell.zero_state(2) };
    let message = panic_of(|| cell.forward(&x, &mut state, &mut cell.cache()).sum());
    assert!(
        message.contains("Slstm: state.n") && message.contains("[2, 4]") && message.contains("[2, 5]"),
        "{message}"
    );

    let model = Recurrent::from_cells(vec![[MatrixMemory::<f32>::new(3, 2, rng)]]);
    let mut state = MatrixState { s: Array::zeros((1, 2, 2, 3)), ..model.zero_state(2) };
    let message = panic_of(|| model.forward(&x, &mut state, &mut model.cache()).sum());
    assert!(message.contains("Recurrent: state.s") && message.contains("[1, 2, 2, 3]"), "{message}");

    // Sizes that contradict the state.
    #[derive(Clone)]
    struct Liar(MatrixMemory<f32>);
    impl Tensors<f32> for Liar {
        fn count(&self) -> usize {
            self.0.count()
        }
        fn name(&self, i: usize) -> String {
            self.0.name(i)
        }
        fn tensor(&self, i: usize) -> (&[usize], &[f32]) {
            self.0.tensor(i)
        }
        fn tensor_mut(&mut self, i: usize) -> &mut [f32] {
            self.0.tensor_mut(i)
        }
    }
    impl Cell for Liar {
        type Elem = f32;
        type State = MatrixState<f32>;
        type Buffers = ();
        fn sizes(&self) -> CellSizes {
            CellSizes { memory: 7, ..self.0.sizes() }
        }
        fn initial_state(&self, batch: usize) -> MatrixState<f32> {
            self.0.initial_state(batch)
        }
        fn forward_step(&self, _: CellStep<'_, f32>, _: &mut ()) {}
        fn backward_step(&self, _: CellStepBackward<'_, f32>, _: &mut (), _: &mut Self) {}
    }
    let liar = Liar(MatrixMemory::new(3, 2, rng));
    let message = panic_of(|| liar.forward(&x, &mut liar.zero_state(2), &mut liar.cache()).sum());
    assert!(message.contains("MatrixMemory: initial_state"), "{message}");
}

/// A batch that is cut into shards gives the same bits as in one piece, for any number of threads.
#[cfg(feature = "rayon")]
#[test]
fn shards_change_no_bit_of_outputs_and_states() {
    let (steps, batch) = (24, 70);
    let cell = MatrixMemory::<f32>::new(64, 32, &mut rng());
    let x = Array3::from_shape_fn((steps, batch, 64), |(t, b, k)| ((7 * t + 3 * b + k) as f32).sin());
    let lengths: Vec<usize> = (0..batch).map(|b| 1 + 5 * b % steps).collect();
    let x = Sequence::from(&x).with_lengths(&lengths).unwrap();
    let start = |batch: usize, first: usize| {
        let mut state = cell.zero_state(batch);
        state.s.indexed_iter_mut().for_each(|((b, i, k), s)| *s = ((first + b + 3 * i + 5 * k) as f32).cos());
        state
    };
    let run = |x: Sequence<'_, f32>, first: usize| {
        let mut state = start(x.dims().1, first);
        let (mut dstate, mut grad, mut cache) = (state.clone(), cell.zeros_like(), cell.cache());
        let pass = cell.pass(x, &mut state, &mut cache);
        let y = pass.output().to_owned();
        let dx = pass.with_state_gradient(&mut dstate).backward_into(&y, &mut grad).to_owned();
        (y, state, dx, dstate, grad.weight)
    };
    let in_pool = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(x, 0))
    };
    let (one, three) = (in_pool(1), in_pool(3));
    assert!(one == three);
    // Seven sequences are too few to be cut into shards.
    for first in (0..batch).step_by(7) {
        let own = first..first + 7;
        let (y, state, dx, dstate, _) = run(x.sequences(own.clone()), first);
        let of = |all: &Array3<f32>| all.slice(s![.., own.clone(), ..]).to_owned();
        assert!(y == of(&one.0) && dx == of(&one.2));
        for (part, all) in [(&state, &one.1), (&dstate, &one.3)] {
            assert_eq!(part.y, all.y.slice(s![own.clone(), ..]));
            assert_eq!(part.s, all.s.slice(s![own.clone(), .., ..]));
        }
    }
}
