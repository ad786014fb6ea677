//! Layers and cells that panic on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use gradflow::ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView2, ArrayView3, ArrayViewMut2, s};
use gradflow::{
    Causal, Float, Layer, Sequence,
    author::{
        Cell, CellSizes, CellStep, CellStepBackward, Gradient, Pending, RowGradients, RowLayer, Rows, Size, SizeError,
        Unrolled, check_shape, reuse,
    },
    parameters, row_layer,
};

/// Counts calls, on any thread, and panics at a given call.
#[derive(Clone)]
pub struct Fuse(Arc<AtomicUsize>);

const NEVER: usize = usize::MAX;

impl Fuse {
    pub fn new() -> Self {
        Fuse(Arc::new(AtomicUsize::new(NEVER)))
    }

    /// Panics at the call of this number, counted from now, or never.
    pub fn arm(&self, call: Option<usize>) {
        self.0.store(call.unwrap_or(NEVER), SeqCst);
    }

    fn call(&self) {
        let left =
            self.0.fetch_update(SeqCst, SeqCst, |left| (left != NEVER).then(|| left.checked_sub(1).unwrap_or(NEVER)));
        assert!(left != Ok(0), "the fuse");
    }
}

/// `h_t = h_{t-1} / 2 + W x_t`
#[derive(Clone)]
pub struct FailingCell {
    pub weight: Array2<f64>,
    pub fuse: Fuse,
}
parameters! { impl Tensors<f64> for FailingCell { weight; skip fuse } }

impl Cell for FailingCell {
    type Elem = f64;
    type State = Array2<f64>;
    type Buffers = ();

    fn sizes(&self) -> CellSizes {
        CellSizes { name: "FailingCell", input: self.weight.ncols(), output: self.weight.nrows(), memory: 0 }
    }

    fn initial_state(&self, batch: usize) -> Array2<f64> {
        Array2::zeros((batch, self.weight.nrows()))
    }

    fn begin(&self, _: &Unrolled<'_, f64>, _: &mut ()) {
        self.fuse.call();
    }

    fn project_input(&self, _: &Unrolled<'_, f64>, _: ArrayView2<'_, f64>, _: &mut ()) {
        self.fuse.call();
    }

    fn forward_step(&self, mut step: CellStep<'_, f64>, _: &mut ()) {
        self.fuse.call();
        step.h.assign(&step.x.dot(&self.weight.t()));
        step.h.scaled_add(0.5, &step.h_before);
    }

    fn begin_backward(&self, _: &Unrolled<'_, f64>, _: &mut ()) {
        self.fuse.call();
    }

    fn backward_step(&self, mut step: CellStepBackward<'_, f64>, _: &mut (), grad: &mut Self) {
        self.fuse.call();
        grad.weight += &step.dh.t().dot(&step.x);
        if let Some(dx) = &mut step.dx {
            dx.assign(&step.dh.dot(&self.weight));
        }
        step.dh *= 0.5;
    }
}

/// `y = x W`
#[derive(Clone)]
pub struct FailingRows<F> {
    pub weight: Array2<F>,
    pub fuse: Fuse,
}
parameters! { impl<F: Float> Tensors<F> for FailingRows<F> { weight; skip fuse } }

impl<F: Float> RowLayer for FailingRows<F> {
    type Elem = F;
    type Kept = ();
    const NAME: &'static str = "FailingRows";

    fn takes(&self) -> Option<usize> {
        Some(self.weight.nrows())
    }

    fn gives(&self, _: usize) -> usize {
        self.weight.ncols()
    }

    fn begin(&self, _: &Sequence<'_, F>, _: &mut ()) {
        self.fuse.call();
    }

    fn forward_rows(&self, rows: Rows<'_, F>, mut y: ArrayViewMut2<'_, F>, _: &mut ()) {
        self.fuse.call();
        y.assign(&rows.x.dot(&self.weight));
    }

    fn backward_rows(&self, rows: Rows<'_, F>, d: RowGradients<'_, F>, _: &mut (), grad: Gradient<'_, Self>) {
        self.fuse.call();
        grad.to_add().weight += &rows.x.t().dot(&d.dy);
        if let Some(mut dx) = d.dx {
            dx.assign(&d.dy.dot(&self.weight.t()));
        }
    }
}
row_layer! { impl<F: Float> Layer for FailingRows<F> }

/// `y_t = s_t = s_{t-1} + gain ∘ x_t`, implemented by hand.
#[derive(Clone)]
pub struct FailingLayer {
    pub gain: Array1<f64>, // [D]
    pub fuse: Fuse,
    /// Sets its mark before the work is done, as no layer should.
    pub marks_first: bool,
}
parameters! { impl Tensors<f64> for FailingLayer { gain; skip fuse, marks_first } }

#[derive(Default)]
pub struct FailingLayerCache {
    pending: Pending,
    y: Array3<f64>,
    dx: Array3<f64>,
}

impl Layer for FailingLayer {
    type Elem = f64;
    type State = Array2<f64>; // [B, D]
    type Cache = FailingLayerCache;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let features = self.gain.len();
        if input == Size::Features(features) { Ok(features) } else { Err(SizeError::features("it", features, input)) }
    }

    fn zero_state(&self, batch: usize) -> Array2<f64> {
        Array2::zeros((batch, self.gain.len()))
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        state: &mut Array2<f64>,
        FailingLayerCache { pending, y, .. }: &'c mut FailingLayerCache,
    ) -> ArrayView3<'c, f64> {
        let mut mark = Some(pending.begin(self, x));
        if self.marks_first {
            mark.take().expect("begun").set();
        }
        let features = x.features("FailingLayer", Some(self.gain.len()));
        check_shape("FailingLayer", "state", &[x.state_rows(), self.gain.len()], state.shape());
        reuse(y, features.dim());
        for piece in x.pieces() {
            let b = piece.sequence;
            let mut s = piece.initial.map_or_else(|| Array1::zeros(self.gain.len()), |row| state.row(row).to_owned());
            for t in in_order(x, x.steps_of(&piece)) {
                self.fuse.call();
                s += &(&self.gain * &features.slice(s![t, b, ..]));
                y.slice_mut(s![t, b, ..]).assign(&s);
            }
            if let Some(row) = piece.last {
                state.row_mut(row).assign(&s);
            }
        }
        x.zero_padding(y);
        self.fuse.call();
        if let Some(mark) = mark {
            mark.set();
        }
        y.view()
    }

    fn output<'c>(&self, cache: &'c FailingLayerCache) -> ArrayView3<'c, f64> {
        cache.y.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        dy: &ArrayRef3<f64>,
        dstate: Option<&mut Array2<f64>>,
        FailingLayerCache { pending, dx, .. }: &'c mut FailingLayerCache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, f64> {
        pending.take("FailingLayer", self, x, dy, self.gain.len());
        let grad = grad.to_add();
        let features = x.features("FailingLayer", Some(self.gain.len()));
        reuse(dx, features.dim());
        let mut dstate = dstate;
        for piece in x.pieces_backward() {
            let b = piece.sequence;
            let given = dstate.as_ref().zip(piece.last).map(|(dstate, row)| dstate.row(row).to_owned());
            let mut ds = given.unwrap_or_else(|| Array1::zeros(self.gain.len()));
            for t in in_order(x, x.steps_of(&piece)).into_iter().rev() {
                self.fuse.call();
                ds += &dy.slice(s![t, b, ..]);
                grad.gain += &(&ds * &features.slice(s![t, b, ..]));
                dx.slice_mut(s![t, b, ..]).assign(&(&ds * &self.gain));
            }
            if let (Some(dstate), Some(row)) = (&mut dstate, piece.initial) {
                dstate.row_mut(row).assign(&ds);
            }
        }
        x.zero_padding(dx);
        dx.view()
    }
}

/// Steps in the order in which they are processed.
fn in_order(x: &Sequence<'_, f64>, steps: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut steps: Vec<_> = steps.collect();
    if x.is_reversed() {
        steps.reverse();
    }
    steps
}

impl Causal for FailingLayer {}
