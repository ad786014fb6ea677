//! Models of several layers and directions of one kind of cell.

use std::fmt;

use ndarray::{Array3, ArrayRef3, ArrayView3, s};
use num_traits::Zero;
use rand::Rng;

use crate::base::error::mismatch;
use crate::base::tensors::{join, out_of_range};
use crate::base::{RandomDrop, Size, SizeError, Tensors, check_gradient};
use crate::cells::{
    BuiltCell, CellBuilder, GruCell, LstmCell, MguCell, MinGruCell, MinLstmCell, Model, RnnCell, SlstmCell,
};
use crate::layer::kit::{Pending, opaque_debug, reuse};
use crate::layer::stage::StackedStage;
use crate::layer::{
    Causal, Gradient, Graph, Layer, LayerStage, RowCache, Sequence, Signal, Stages, Summary, Unsupported,
};
use crate::layers::Dropout;
use crate::recurrence::{Cell, CellCache, CellSizes, StackState, StateViewMut, fits, refuse_state};

const NAME: &str = "Recurrent";

/// Layers of recurrent cells, one after another, in one direction or in both: PyTorch's `nn.RNN`, `nn.LSTM` and `nn.GRU`, for any
/// [`Cell`].
///
/// ```text
/// y⁰ = x        yᵏ⁺¹ = [ →cell_k(dropout(yᵏ)) ; ←cell_k(dropout(yᵏ)) ]        y = yᴸ
/// ```
///
/// The reverse direction starts at each sequence's last valid step. Dropout acts only between layers, and a pass with dropout must
/// have a mode.
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` | `[T, B, D H]`, D directions, forward first |
/// | state: `h` and, with a memory, `c` | `[L D, B, H]`: layer by layer, forward before reverse; see [`StackState`] |
///
/// Parameters are named as PyTorch names them, `weight_ih_l0`, `weight_hh_l1_reverse`, so its state dicts load unchanged.
/// [`Recurrent::new`] makes one layer of [`Rnn`], [`Lstm`], [`Gru`] or their bidirectional forms. Their [builders](CellBuilder) set
/// the number of layers and all options of their cells. [`Recurrent::from_cells`] takes your own cells. For residual or highway
/// connections between layers, stack the cells in [`Residual`](crate::compose::Residual) or [`Highway`](crate::compose::Highway):
/// `Stacked::build(8, |_| Residual::new(cell))`.
///
/// ```
/// use gradflow::{
///     Layer, Sequence, TensorsExt, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::{BiLstm, Lstm},
/// };
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let lstm: BiLstm<f32> = Lstm::builder(3, 4).num_layers(2).dropout(0.1).bidirectional().build(rng);
/// let x = Array3::ones((5, 2, 3));
/// let x = Sequence::from(&x).with_lengths(&[5, 2])?.train(7);
/// let mut state = lstm.zero_state(2);
/// let y = lstm.forward(x, &mut state, &mut lstm.cache()).to_owned();
/// assert_eq!(y.dim(), (5, 2, 2 * 4));
/// assert_eq!(state.h.dim(), (2 * 2, 2, 4));
/// assert_eq!(lstm.names()[4], "weight_ih_l0_reverse");
/// # Ok::<(), gradflow::author::LengthsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent<C: Cell, const DIRECTIONS: usize = 1> {
    cells: Vec<C>,                  // [L D]
    dropout: Vec<Dropout<C::Elem>>, // [L - 1], or empty
}

/// Layers of [`RnnCell`]s: PyTorch's `nn.RNN`.
pub type Rnn<F> = Recurrent<RnnCell<F>>;
/// Layers of [`LstmCell`]s: PyTorch's `nn.LSTM`.
pub type Lstm<F> = Recurrent<LstmCell<F>>;
/// Layers of [`GruCell`]s: PyTorch's `nn.GRU`.
pub type Gru<F> = Recurrent<GruCell<F>>;
/// Layers of [`MguCell`]s.
pub type Mgu<F> = Recurrent<MguCell<F>>;
/// Layers of [`MinGruCell`]s.
pub type MinGru<F> = Recurrent<MinGruCell<F>>;
/// Layers of [`MinLstmCell`]s.
pub type MinLstm<F> = Recurrent<MinLstmCell<F>>;
/// Layers of [`SlstmCell`]s.
pub type Slstm<F> = Recurrent<SlstmCell<F>>;
/// Layers of [`RnnCell`]s in both directions: PyTorch's `nn.RNN` with `bidirectional=True`.
pub type BiRnn<F> = Recurrent<RnnCell<F>, 2>;
/// Layers of [`LstmCell`]s in both directions: PyTorch's `nn.LSTM` with `bidirectional=True`.
pub type BiLstm<F> = Recurrent<LstmCell<F>, 2>;
/// Layers of [`GruCell`]s in both directions: PyTorch's `nn.GRU` with `bidirectional=True`.
pub type BiGru<F> = Recurrent<GruCell<F>, 2>;
/// Layers of [`MguCell`]s in both directions.
pub type BiMgu<F> = Recurrent<MguCell<F>, 2>;
/// Layers of [`MinGruCell`]s in both directions.
pub type BiMinGru<F> = Recurrent<MinGruCell<F>, 2>;
/// Layers of [`MinLstmCell`]s in both directions.
pub type BiMinLstm<F> = Recurrent<MinLstmCell<F>, 2>;
/// Layers of [`SlstmCell`]s in both directions.
pub type BiSlstm<F> = Recurrent<SlstmCell<F>, 2>;

impl<C: BuiltCell, const DIRECTIONS: usize> Recurrent<C, DIRECTIONS> {
    /// One layer, in all its directions, with the defaults of [`CellBuilder`].
    ///
    /// ```
    /// use gradflow::{Layer, rand::{SeedableRng, rngs::StdRng}, recurrent::{BiGru, Lstm}};
    ///
    /// let rng = &mut StdRng::seed_from_u64(0);
    /// let (lstm, gru) = (Lstm::<f32>::new(16, 32, rng), BiGru::<f32>::new(16, 32, rng));
    /// assert_eq!(lstm.output_size(16.into()), Ok(32));
    /// assert_eq!(gru.output_size(16.into()), Ok(2 * 32));
    /// ```
    ///
    /// # Panics
    /// Panics if a size is 0.
    #[track_caller]
    pub fn new(input: usize, hidden: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
        CellBuilder::<Self>::new(input, hidden).build(rng)
    }
}

impl<C: Cell, const DIRECTIONS: usize> Recurrent<C, DIRECTIONS>
where
    C::State: StackState<C::Elem>,
{
    /// A model of the given cells, layer by layer from first to last, with one cell for each direction.
    ///
    /// # Panics
    /// Panics if `layers` is empty, `DIRECTIONS` is neither 1 nor 2, or the sizes of the cells do not fit each other.
    #[track_caller]
    pub fn from_cells(layers: Vec<[C; DIRECTIONS]>) -> Self {
        assert!(DIRECTIONS == 1 || DIRECTIONS == 2, "{NAME}: expected 1 or 2 directions, got {DIRECTIONS}");
        assert!(!layers.is_empty(), "{NAME}: expected at least one layer, got none");
        let model = Recurrent { cells: layers.into_iter().flatten().collect(), dropout: Vec::new() };
        if let Err(error) = model.output_size(Size::Features(model.cells[0].sizes().input)) {
            panic!("{NAME}: layers: {error}")
        }
        model
    }

    #[track_caller]
    fn check_state(&self, what: &str, x: &Sequence<'_, C::Elem>, state: &<Self as Layer>::State) {
        let rows = x.state_rows();
        if !fits(state, &[self.cells.len(), rows], self.sizes()) {
            refuse_state(NAME, what, x.dims(), &self.zero_state(rows), state)
        }
    }
}

impl<C: Cell, const DIRECTIONS: usize> Recurrent<C, DIRECTIONS> {
    /// The number of layers.
    pub fn num_layers(&self) -> usize {
        self.cells.len() / DIRECTIONS
    }

    /// The cell of a layer in a direction; 0 is forward.
    pub fn cell(&self, layer: usize, direction: usize) -> &C {
        &self.cells[layer * DIRECTIONS + direction]
    }

    /// The cell of a layer in a direction; 0 is forward.
    pub fn cell_mut(&mut self, layer: usize, direction: usize) -> &mut C {
        &mut self.cells[layer * DIRECTIONS + direction]
    }

    /// The cells of each layer, one per direction.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &[C]> {
        self.cells.chunks_exact(DIRECTIONS)
    }

    /// The sizes of all cells, which differ only in the input.
    fn sizes(&self) -> CellSizes {
        self.cells[0].sizes()
    }

    /// The cell of tensor `i`, and the tensor's index in the cell.
    fn locate(&self, i: usize) -> (usize, usize) {
        let mut rest = i;
        for (k, cell) in self.cells.iter().enumerate() {
            match rest.checked_sub(cell.count()) {
                None => return (k, rest),
                Some(less) => rest = less,
            }
        }
        out_of_range(i)
    }
}

impl<C: BuiltCell> Recurrent<C> {
    /// A builder, to choose layers, directions, variants and how each parameter is initialized.
    pub fn builder(input: usize, hidden: usize) -> CellBuilder<Self> {
        CellBuilder::new(input, hidden)
    }
}

impl<C: BuiltCell, const DIRECTIONS: usize> Model for Recurrent<C, DIRECTIONS> {
    type Cell = C;
    const DIRECTIONS: usize = DIRECTIONS;

    fn of_cells(cells: Vec<C>, dropout: Vec<RandomDrop>) -> Self {
        Recurrent { cells, dropout: dropout.into_iter().map(Dropout::from_drop).collect() }
    }
}

impl<C: BuiltCell, const DIRECTIONS: usize> CellBuilder<Recurrent<C, DIRECTIONS>> {
    /// The number of layers.
    ///
    /// # Panics
    /// Panics if `num_layers` is 0.
    #[track_caller]
    pub fn num_layers(self, num_layers: usize) -> Self {
        self.with_layers(num_layers)
    }

    /// Dropout between layers, with probability `p`: PyTorch's `dropout`. For dropout after the last layer, put a
    /// [`Dropout`](crate::layers::Dropout) after the model; [`recurrent_dropout`](CellBuilder::recurrent_dropout) acts inside a
    /// layer.
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics if `p` is not in `0..1`, or if there is only one layer. A pass panics if it has no
    /// mode.
    #[track_caller]
    pub fn dropout(self, p: f64) -> Self {
        self.with_dropout(p)
    }
}

impl<C: BuiltCell> CellBuilder<Recurrent<C>> {
    /// Makes the model run in both directions.
    pub fn bidirectional(self) -> CellBuilder<Recurrent<C, 2>> {
        self.retarget()
    }
}

impl<C: Cell, const DIRECTIONS: usize> Tensors<C::Elem> for Recurrent<C, DIRECTIONS> {
    fn count(&self) -> usize {
        self.cells.iter().map(C::count).sum()
    }
    fn name(&self, i: usize) -> String {
        let (cell, i) = self.locate(i);
        let direction = if cell % DIRECTIONS == 0 { "" } else { "_reverse" };
        format!("{}_l{}{direction}", self.cells[cell].name(i), cell / DIRECTIONS)
    }
    fn tensor(&self, i: usize) -> (&[usize], &[C::Elem]) {
        let (cell, i) = self.locate(i);
        self.cells[cell].tensor(i)
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [C::Elem] {
        let (cell, i) = self.locate(i);
        self.cells[cell].tensor_mut(i)
    }
}

/// The cache of a [`Recurrent`] model.
pub struct RecurrentCache<C: Cell> {
    pending: Pending,
    layers: Vec<LayerCache<C>>,
}
opaque_debug! { RecurrentCache<C: Cell> }

struct LayerCache<C: Cell> {
    cells: Vec<CellCache<C>>,            // one per direction
    joined: Array3<C::Elem>,             // [T, B, D H], with two directions
    dropout: RowCache<Dropout<C::Elem>>, // of the next layer's input
    dx: Array3<C::Elem>,                 // [T, B, I], with two directions: the sum of both
}

impl<C: Cell> Default for RecurrentCache<C> {
    fn default() -> Self {
        RecurrentCache { pending: Pending::default(), layers: Vec::new() }
    }
}

impl<C: Cell> LayerCache<C> {
    fn new(directions: usize) -> Self {
        let empty = || Array3::default((0, 0, 0));
        let cells = (0..directions).map(|_| CellCache::default()).collect();
        LayerCache { cells, joined: empty(), dropout: RowCache::default(), dx: empty() }
    }
}

impl<C: Cell, const DIRECTIONS: usize> Recurrent<C, DIRECTIONS> {
    /// The outputs of a layer's cells, side by side.
    fn joined<'c>(cells: &'c [CellCache<C>], joined: &'c Array3<C::Elem>) -> ArrayView3<'c, C::Elem> {
        if DIRECTIONS == 1 { cells[0].output() } else { joined.view() }
    }

    /// The input of layer `k`: `x`, or the output of the layer before, whose cache is `before`.
    fn input<'s>(
        &self,
        k: usize,
        x: &Sequence<'s, C::Elem>,
        before: Option<&'s LayerCache<C>>,
    ) -> Sequence<'s, C::Elem> {
        let Some(before) = before else { return *x };
        x.with(match self.dropout.get(k - 1) {
            None => Self::joined(&before.cells, &before.joined),
            Some(_) => before.dropout.output(),
        })
    }
}

impl<C: Cell, const DIRECTIONS: usize> Layer for Recurrent<C, DIRECTIONS>
where
    C::State: StackState<C::Elem>,
{
    type Elem = C::Elem;
    type State = <C::State as StackState<C::Elem>>::Stacked;
    type Cache = RecurrentCache<C>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let mut size = input;
        for (k, cells) in self.cells.chunks_exact(DIRECTIONS).enumerate() {
            let mut features = 0;
            for cell in cells {
                features += cell.output_size(size).map_err(|error| error.inside(format_args!("l{k}")))?;
            }
            size = Size::Features(features);
        }
        Ok(DIRECTIONS * self.sizes().output)
    }

    fn describe(&self, name: &str, summary: &mut Summary) {
        for (at, cell) in self.cells.iter().enumerate() {
            let direction = if at % DIRECTIONS == 0 { "" } else { "_reverse" };
            cell.describe(&join(name, format!("l{}{direction}", at / DIRECTIONS)), summary);
        }
    }

    fn zero_state(&self, batch: usize) -> Self::State {
        self.cells[0].initial_state(batch).stack(self.cells.len())
    }

    fn add_to_graph(&self, graph: &mut Graph<C::Elem>, x: Signal) -> Result<Signal, Unsupported> {
        let count = self.zero_state(1).count();
        let tensors = (0..count).map(|_| graph.take_state()).collect::<Result<Vec<_>, _>>()?;
        let first: Vec<_> = tensors.iter().map(|&tensor| graph.initial_state(tensor)).collect();
        // One node per layer or, for a reversed sequence, in which the directions are swapped, one per cell.
        let together = if x.is_reversed { 1 } else { DIRECTIONS };
        let mut signal = x;
        let mut last = vec![Vec::new(); count]; // for each tensor, the parts from the nodes
        for (k, layer) in self.layers().enumerate() {
            let mut outputs = Vec::new();
            for (direction, cells) in layer.chunks_exact(together).enumerate() {
                let at = (k * DIRECTIONS + direction * together) as i64;
                let mut initial = Vec::new();
                for &all in &first {
                    let is_all = together == self.cells.len();
                    initial.push(
                        all.map(|all| if is_all { all } else { graph.slice(all, [at, at + together as i64], 0) }),
                    );
                }
                let part = Signal { is_reversed: x.is_reversed ^ (direction == 1), ..signal };
                let add = |graph: &mut Graph<C::Elem>| C::add_cells_to_graph(cells, graph, part, &initial);
                let (y, finals) = graph.inside(&format!("l{k}"), add)?;
                outputs.push(y);
                last.iter_mut().zip(finals).for_each(|(last, value)| last.push(value));
            }
            signal = match outputs[..] {
                [y] => Signal { is_reversed: x.is_reversed, ..y },
                _ => {
                    let values: Vec<_> = outputs.iter().map(|y| y.value).collect();
                    let value = graph.node("Concat", &values, &[("axis", 2.into())]);
                    x.with(value, DIRECTIONS * self.sizes().output)
                }
            };
        }
        for (tensor, parts) in tensors.into_iter().zip(last) {
            if graph.has_states() {
                let is_one = parts.len() == 1;
                let value = if is_one { parts[0] } else { graph.node("Concat", &parts, &[("axis", 0.into())]) };
                graph.set_final_state(tensor, value);
            }
        }
        Ok(signal)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, C::Elem>,
        state: &mut Self::State,
        cache: &'c mut RecurrentCache<C>,
    ) -> ArrayView3<'c, C::Elem> {
        let mark = cache.pending.begin(&(), x);
        self.expect_size(x);
        let ((steps, batch), output) = (x.dims(), self.sizes().output);
        self.check_state("state", x, state);
        cache.layers.resize_with(self.num_layers(), || LayerCache::new(DIRECTIONS));
        for k in 0..self.num_layers() {
            let (before, own) = cache.layers.split_at_mut(k);
            let input = self.input(k, &x.reborrow(), before.last());
            let LayerCache { cells, joined, dropout, .. } = &mut own[0];
            if DIRECTIONS > 1 {
                reuse(joined, (steps, batch, DIRECTIONS * output));
            }
            for (direction, cache) in cells.iter_mut().enumerate() {
                let at = k * DIRECTIONS + direction;
                let input = if direction == 0 { input } else { input.reversed() };
                let state = StateViewMut::of_cell(state, at, self.cells.len(), x.state_rows());
                self.cells[at].loop_forward(&input, state, cache);
                if DIRECTIONS > 1 {
                    joined.slice_mut(s![.., .., direction * output..(direction + 1) * output]).assign(&cache.output());
                }
            }
            if let Some(drop) = self.dropout.get(k) {
                drop.forward_pass(&x.with(Self::joined(cells, joined)), &mut (), dropout);
            }
        }
        mark.set();
        self.output(cache)
    }

    fn output<'c>(&self, cache: &'c RecurrentCache<C>) -> ArrayView3<'c, C::Elem> {
        let last = cache.layers.last().expect("a forward pass has filled the cache");
        Self::joined(&last.cells, &last.joined)
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, C::Elem>,
        dy: &ArrayRef3<C::Elem>,
        mut dstate: Option<&mut Self::State>,
        cache: &'c mut RecurrentCache<C>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, C::Elem> {
        let ((steps, batch), output) = (x.dims(), self.sizes().output);
        cache.pending.take(NAME, &(), x, dy, DIRECTIONS * output);
        if cache.layers.len() != self.num_layers() {
            mismatch(NAME, "cache", &"a forward pass that awaits its backward", &"that of another model (stale cache)")
        }
        let (grad, how) = grad.parts();
        check_gradient(NAME, self, &*grad);
        if let Some(dstate) = &dstate {
            self.check_state("dstate", x, dstate);
        }
        let mut rest = &mut cache.layers[..];
        let mut after: Option<ArrayView3<'c, C::Elem>> = None; // dL/dx of the layer after
        while let Some((own, before)) = std::mem::take(&mut rest).split_last_mut() {
            let k = before.len();
            let input = self.input(k, &x.reborrow(), before.last());
            let LayerCache { cells, joined, dropout, dx } = own;
            let mut d = after.as_ref().map_or(dy.view(), |after| after.view());
            if let Some(drop) = self.dropout.get(k) {
                let grad = Gradient::new(&mut grad.dropout[k], how);
                d = drop.backward_pass(&x.with(Self::joined(cells, joined)), &d, None, dropout, grad);
            }
            let features = if input.wants_gradient() { self.cells[k * DIRECTIONS].sizes().input } else { 0 };
            if DIRECTIONS > 1 {
                reuse(dx, (steps, batch, features));
                dx.fill(C::Elem::zero());
            }
            let mut d_input = None;
            for (direction, cache) in cells.iter_mut().enumerate() {
                let at = k * DIRECTIONS + direction;
                let input = if direction == 0 { input } else { input.reversed() };
                let dy = d.slice(s![.., .., direction * output..(direction + 1) * output]);
                let dstate = dstate.as_deref_mut();
                let dstate = dstate.map(|dstate| StateViewMut::of_cell(dstate, at, self.cells.len(), x.state_rows()));
                let grad = Gradient::new(&mut grad.cells[at], how);
                self.cells[at].loop_backward(&input, dy, dstate, cache, grad);
                let through = cache.input_gradient();
                if DIRECTIONS > 1 {
                    *dx += &through;
                }
                d_input = Some(through);
            }
            after = if DIRECTIONS > 1 { Some(dx.view()) } else { d_input };
            rest = before;
        }
        after.expect("a layer")
    }
}

impl<C: Cell> Causal for Recurrent<C>
where
    C::State: StackState<C::Elem>,
{
    fn stages(&self, stages: &mut Stages<C::Elem>) {
        let Some(cells) = self.cells.iter().map(C::stage).collect::<Option<Vec<_>>>() else {
            return stages.push(LayerStage::boxed(self, stages.features()));
        };
        let last = cells.len() - 1;
        for (cell, stage) in cells.into_iter().enumerate() {
            stages.push(Box::new(StackedStage { stage, cell, is_last: cell == last }));
        }
    }
}

impl<C: Cell, const DIRECTIONS: usize> fmt::Display for Recurrent<C, DIRECTIONS>
where
    Self: Layer,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary().fmt(f)
    }
}
