//! The input of every layer: a time-major batch of sequences.

mod marks;

use std::ops::Range;

use ndarray::{Array2, Array3, ArrayRef2, ArrayView2, ArrayView3, Axis, s};

use crate::base::error::{check_not_empty, mismatch};
use crate::base::{Mode, Size};
use crate::kernels::{Float, PackedWeights};
use crate::layer::context::Context;
use crate::layer::fingerprint::{CHECKS_ALL, Fingerprint};
use crate::layer::ids::{Id, Ids};
use crate::layer::positions::Positions;
use crate::layer::steps::Steps;

#[derive(Clone, Copy, Debug)]
enum Values<'a, F> {
    Features(ArrayView3<'a, F>),
    Tokens(Ids<'a>),
}

/// A time-major batch of sequences, borrowed: features `[T, B, D]` or token ids `[T, B]` of any integer type, with the sequences'
/// lengths, a mask, resets and the [`Mode`] if they were given.
///
/// `T` counts steps, `B` sequences, `D` features. A single step is `T = 1`; plain rows of a feed-forward net are
/// [`Sequence::rows`].
///
/// # Padding
/// Steps past a sequence's [length](Sequence::with_lengths), or not in its [mask](Sequence::with_mask), are padding: no
/// layer reads them, so they may hold anything, NaN included. Outputs and input gradients are zero there, and states do not
/// change. A sequence without a valid step leaves its state as it is, has only zeros as outputs, and does not count in a loss.
///
/// # Resets
/// A row of the batch may hold several sequences, one after the other: see [`with_resets`](Sequence::with_resets).
///
/// ```
/// use gradflow::{Sequence, ndarray::Array3};
///
/// let x = Array3::<f32>::zeros((5, 2, 3)); // T = 5, B = 2, D = 3
/// let x = Sequence::from(&x).with_lengths(&[5, 3])?.train(7);
/// assert_eq!(x.dims(), (5, 2));
/// assert!(x.valid(2, 1) && !x.valid(3, 1));
/// # Ok::<(), gradflow::author::LengthsError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a, F> {
    values: Values<'a, F>,
    positions: Positions<'a>,
    context: Context<'a, F>,
}

impl<'a, F> Sequence<'a, F> {
    fn new(values: Values<'a, F>) -> Self {
        Sequence { values, positions: Positions::default(), context: Context::default() }
    }

    fn with_context(self, context: Context<'a, F>) -> Self {
        Sequence { context, ..self }
    }
}

impl<'a, F: Float> Sequence<'a, F> {
    /// `N` independent rows, `[N, D]`, as one step: `[1, N, D]`.
    pub fn rows(x: &'a ArrayRef2<F>) -> Self {
        x.view().insert_axis(Axis(0)).into()
    }

    /// One sequence, `[T, D]`, as a batch of one: `[T, 1, D]`.
    pub fn unbatched(x: &'a ArrayRef2<F>) -> Self {
        x.view().insert_axis(Axis(1)).into()
    }

    /// The steps `range` alone: a chunk of the batch. Lengths are cut with it; a sequence that ended before has length 0
    /// there, and its state stays as it is.
    ///
    /// # Panics
    /// Panics if `range` is past the last step.
    #[track_caller]
    pub fn steps(self, range: Range<usize>) -> Self {
        let (steps, _) = self.dims();
        if range.start > range.end || range.end > steps {
            mismatch("Sequence::steps", "range", &format_args!("steps within 0..{steps}"), &format_args!("{range:?}"))
        }
        if range.len() < steps && self.positions.have_rows_of_other_steps() {
            let expected = "all steps after a change of steps, with resets and a learned state";
            mismatch("Sequence::steps", "range", &expected, &format_args!("{range:?}"))
        }
        let positions = self.positions.of_steps(range.clone());
        let context = Context { first_step: self.context.first_step + range.start, ..self.context };
        let values = match self.values {
            Values::Features(x) => Values::Features(x.slice_move(s![range, .., ..])),
            Values::Tokens(ids) => Values::Tokens(ids.steps(range)),
        };
        Sequence { values, positions, context }
    }

    /// The sequences `range` alone: a shard of the batch, for one of several threads. Dropout draws the same for it as in
    /// the whole batch.
    ///
    /// ```
    /// # use gradflow::{Sequence, ndarray::Array3};
    /// let x = Array3::<f32>::zeros((5, 3, 2));
    /// let shard = Sequence::from(&x).with_lengths(&[5, 1, 4])?.sequences(1..3);
    /// assert_eq!((shard.dims(), shard.length(1), shard.first_sequence()), ((5, 2), 4, 1));
    /// # Ok::<(), gradflow::author::LengthsError>(())
    /// ```
    ///
    /// # Panics
    /// Panics if `range` is past the last sequence.
    #[track_caller]
    pub fn sequences(self, range: Range<usize>) -> Self {
        let (_, batch) = self.dims();
        if range.start > range.end || range.end > batch {
            let expected = format_args!("sequences within 0..{batch}");
            mismatch("Sequence::sequences", "range", &expected, &format_args!("{range:?}"))
        }
        let positions = self.positions.of_sequences(&range);
        let context = Context { first_sequence: self.context.first_sequence + range.start, ..self.context };
        let values = match self.values {
            Values::Features(x) => Values::Features(x.slice_move(s![.., range, ..])),
            Values::Tokens(ids) => Values::Tokens(ids.sequences(range)),
        };
        Sequence { values, positions, context }
    }

    /// The same sequences as part of a larger batch, in which they start at index `first` and the others are elsewhere: on
    /// another machine, which has read its own part of the data. Dropout draws the same for them as in the whole batch, as
    /// for a [shard](Sequence::sequences) of it.
    ///
    /// ```
    /// # use gradflow::{Sequence, ndarray::Array3};
    /// let second_half = Array3::<f32>::zeros((5, 3, 2));
    /// let x = Sequence::from(&second_half).starting_at_sequence(3);
    /// assert_eq!((x.dims(), x.first_sequence()), ((5, 3), 3));
    /// ```
    pub fn starting_at_sequence(self, first: usize) -> Self {
        self.with_context(Context { first_sequence: first, ..self.context })
    }

    /// The batch in chunks of `steps` steps, in order; the last one may be shorter.
    ///
    /// ```
    /// # use gradflow::{Sequence, ndarray::Array3};
    /// let x = Array3::<f32>::zeros((5, 2, 3));
    /// let x = Sequence::from(&x).with_lengths(&[5, 1])?;
    /// let lengths: Vec<_> = x.chunks(2).map(|chunk| (chunk.length(0), chunk.length(1))).collect();
    /// assert_eq!(lengths, [(2, 1), (2, 0), (1, 0)]);
    /// # Ok::<(), gradflow::author::LengthsError>(())
    /// ```
    ///
    /// # Panics
    /// Panics if `steps` is 0.
    #[track_caller]
    pub fn chunks(self, steps: usize) -> impl ExactSizeIterator<Item = Self> + DoubleEndedIterator + use<'a, F> {
        if steps == 0 {
            mismatch("Sequence::chunks", "steps", &"at least 1", &steps)
        }
        let all = self.dims().0;
        (0..all.div_ceil(steps)).map(move |chunk| self.steps(chunk * steps..all.min((chunk + 1) * steps)))
    }

    /// A batch whose first axis counts the sequences: features `[B, T, D]` or token ids `[B, T]`, the same values seen as
    /// `[T, B, D]` or `[T, B]`. Nothing is copied.
    ///
    /// An array does not say which of its axes is time, and mixing them up gives no error if the sizes fit: say it with this
    /// function. `y.permuted_axes([1, 0, 2])` and `ids.t()` transpose views of an output and of targets.
    ///
    /// ```
    /// use gradflow::{Layer, Sequence, ndarray::{Array2, Array3}, recurrent::GruCell};
    ///
    /// let x = Array3::<f32>::zeros((2, 5, 3)); // B = 2, T = 5, D = 3
    /// assert_eq!(Sequence::batch_first(&x).dims(), (5, 2));
    /// let ids = Array2::<u32>::zeros((2, 5));
    /// assert_eq!(Sequence::<f32>::batch_first(&ids).with_lengths(&[5, 3])?.dims(), (5, 2));
    ///
    /// let gru = GruCell::zeros(3, 4);
    /// let y = gru.forward(Sequence::batch_first(&x), &mut gru.zero_state(2), &mut gru.cache()).to_owned();
    /// assert_eq!(y.permuted_axes([1, 0, 2]).dim(), (2, 5, 4));
    /// # Ok::<(), gradflow::author::LengthsError>(())
    /// ```
    ///
    /// # Panics
    /// Panics if `x` has lengths, a mask or resets already: they were checked against another axis.
    #[track_caller]
    pub fn batch_first(x: impl Into<Self>) -> Self {
        let x = x.into();
        for (has, what) in [(x.has_lengths(), "lengths"), (x.has_mask(), "a mask"), (x.has_resets(), "resets")] {
            if has {
                let expected = format_args!("{what} to be given afterwards");
                mismatch("Sequence::batch_first", "x", &expected, &format_args!("a batch with {what}"))
            }
        }
        let values = match x.values {
            Values::Features(x) => Values::Features(x.permuted_axes([1, 0, 2])),
            Values::Tokens(ids) => Values::Tokens(ids.transposed()),
        };
        x.holding(values)
    }

    /// The same batch, to be read from each sequence's last valid step to its first, as by the reverse direction of a
    /// [`Bidirectional`](crate::wrap::Bidirectional) layer. Steps keep their positions, in the output too; a state enters
    /// at the last valid step and leaves at the first. Reversing twice restores the order; feed-forward layers ignore it.
    pub fn reversed(self) -> Self {
        self.with_context(Context { reversed: !self.context.reversed, ..self.context })
    }

    /// Whether the last step comes first.
    pub fn is_reversed(&self) -> bool {
        self.context.reversed
    }

    /// The same batch for training. Dropout draws from `seed`, so give a different one in each step.
    pub fn train(self, seed: u64) -> Self {
        self.with_context(Context { mode: Some(Mode::Train { seed }), ..self.context })
    }

    /// The same batch for evaluation: dropout passes everything.
    pub fn eval(self) -> Self {
        self.with_context(Context { mode: Some(Mode::Eval), ..self.context })
    }

    /// The same batch for inference: as evaluation, but no backward pass can follow.
    pub fn infer(self) -> Self {
        self.with_context(Context { mode: Some(Mode::Infer), ..self.context })
    }

    /// The same batch for the layers of a model whose packed weights are `weights`.
    pub(crate) fn with_packed(self, weights: &'a PackedWeights<F>) -> Self {
        self.with_context(Context { packed: Some(weights), ..self.context })
    }

    /// The packed weights of a [prepacked](crate::wrap::Prepacked) model.
    pub(crate) fn packed_weights(&self) -> Option<&'a PackedWeights<F>> {
        self.context.packed
    }

    /// The same batch as data that needs no gradient: a backward pass may skip the work for `dL/dx`.
    pub fn constant(self) -> Self {
        self.with_context(Context { constant: true, ..self.context })
    }

    /// Whether a backward pass computes `dL/dx`: not for token ids, nor for [`constant`](Sequence::constant) data.
    pub fn wants_gradient(&self) -> bool {
        !self.context.constant && self.size() != Size::Tokens
    }

    /// The mode of the pass, if it was set.
    pub fn mode(&self) -> Option<Mode> {
        self.context.mode
    }

    /// `(T, B)`.
    pub fn dims(&self) -> (usize, usize) {
        match &self.values {
            Values::Features(x) => (x.dim().0, x.dim().1),
            Values::Tokens(ids) => ids.dim(),
        }
    }

    /// The index of the first step here in the whole sequence: not 0 in a later [chunk](Sequence::steps). Random draws for a
    /// step depend on this index, so that chunks get the same as the whole sequence.
    pub fn first_step(&self) -> usize {
        self.context.first_step
    }

    /// The index of the first sequence here in the whole batch: not 0 in a later [shard](Sequence::sequences). Random draws
    /// for a sequence depend on this index.
    pub fn first_sequence(&self) -> usize {
        self.context.first_sequence
    }

    /// The number of features, or [`Size::Tokens`] for token ids.
    pub fn size(&self) -> Size {
        match &self.values {
            Values::Features(x) => Size::Features(x.dim().2),
            Values::Tokens(_) => Size::Tokens,
        }
    }

    /// The same batch, borrowed for a shorter time. (The views inside are invariant, so the compiler does not do this itself.)
    pub fn reborrow<'s>(self) -> Sequence<'s, F>
    where
        'a: 's,
    {
        let values = match self.values {
            Values::Features(x) => Values::Features(x.reborrow()),
            Values::Tokens(ids) => Values::Tokens(ids.reborrow()),
        };
        self.holding(values)
    }

    /// Other features with the same lengths, mask, resets and mode, as a wrapper passes to its next layer. For the output of a layer that
    /// [changes the number of steps](crate::Layer::output_steps), see [`Layer::output_sequence`](crate::Layer::output_sequence).
    ///
    /// # Panics
    /// Panics if their T or B differs.
    #[track_caller]
    pub fn with<'s>(self, features: ArrayView3<'s, F>) -> Sequence<'s, F>
    where
        'a: 's,
    {
        let (steps, batch, _) = features.dim();
        if (steps, batch) != self.dims() {
            let (expected, got) = (self.dims(), (steps, batch));
            let expected = format_args!("[T, B] = {expected:?}");
            let got = format_args!("{got:?} (a stale cache, or see `Layer::output_sequence`)");
            mismatch("Sequence::with", "features", &expected, &got)
        }
        let other = self.holding(Values::Features(features));
        other.with_context(Context { constant: false, ..other.context })
    }

    /// One of every `stride` steps, from the first on, with lengths that count them.
    pub(crate) fn every(self, stride: usize) -> Self {
        let values = match self.values {
            Values::Features(x) => Values::Features(x.slice_move(s![..; stride, .., ..])),
            Values::Tokens(ids) => Values::Tokens(ids.every(stride)),
        };
        let context = Context { first_step: self.context.first_step / stride, ..self.context };
        Sequence { values, positions: self.positions.every(stride), context }
    }

    /// The output, with `steps`, of layers over this batch.
    #[doc(hidden)]
    #[track_caller]
    pub fn with_output<'s>(self, steps: Steps, output: ArrayView3<'s, F>) -> Sequence<'s, F>
    where
        'a: 's,
    {
        let steps = match steps {
            Steps::Same => return self.with(output),
            Steps::Every(stride) => return self.every(stride).with(output),
            Steps::Count(steps) => steps,
        };
        let (got, batch) = (output.dim(), self.dims().1);
        if (got.0, got.1) != (steps, batch) {
            let expected = (steps, batch);
            let expected = format_args!("[T, B] = {expected:?}");
            mismatch(
                "Sequence::with_output",
                "output",
                &expected,
                &format_args!("{:?} (a stale cache)", (got.0, got.1)),
            )
        }
        let context = Context { constant: false, first_step: 0, ..self.context };
        Sequence { values: Values::Features(output), positions: self.positions.reborrow().of_other_steps(), context }
    }

    /// Other values, with everything else unchanged.
    fn holding<'s>(self, values: Values<'s, F>) -> Sequence<'s, F>
    where
        'a: 's,
    {
        Sequence { values, positions: self.positions.reborrow(), context: self.context }
    }

    /// The features `[T, B, D]`, for the layer named `layer`, which takes `size` of them (`None`: any number).
    ///
    /// # Panics
    /// Panics if these are token ids, `D` is not `size`, or the batch is empty.
    #[track_caller]
    pub fn features(&self, layer: &str, size: Option<usize>) -> ArrayView3<'a, F> {
        let expected = || size.map_or("[T, B, features]".into(), |size| format!("[T, B, {size}]"));
        match self.values {
            Values::Features(x) if size.is_some_and(|size| size != x.dim().2) => {
                mismatch(layer, "x", &expected(), &format_args!("{:?}", x.shape()))
            }
            Values::Features(x) => {
                check_not_empty(layer, x.shape());
                x
            }
            Values::Tokens(ids) => mismatch(layer, "x", &expected(), &format_args!("token ids {:?}", ids.dim())),
        }
    }

    /// The token ids `[T, B]`, for the layer named `layer`.
    ///
    /// # Panics
    /// Panics if these are features, or the batch is empty.
    #[track_caller]
    pub fn tokens(&self, layer: &str) -> Ids<'a> {
        match self.values {
            Values::Tokens(ids) => {
                let (steps, batch) = ids.dim();
                check_not_empty(layer, &[steps, batch]);
                ids
            }
            Values::Features(x) => mismatch(layer, "x", &"token ids [T, B]", &format_args!("features {:?}", x.shape())),
        }
    }

    /// A hash of the batch: of [all](CHECKS_ALL) its values or, in release builds, of 16 of them.
    pub(crate) fn fingerprint(&self) -> u64 {
        let (steps, batch) = self.dims();
        let mut all = Fingerprint::default();
        all.add(steps as u64);
        all.add(batch as u64);
        if let Some(Mode::Train { seed }) = self.mode() {
            all.add(seed);
        }
        if CHECKS_ALL {
            self.add_all_values(&mut all);
        } else {
            self.add_samples(&mut all);
        }
        all.add(self.is_reversed().into());
        all.add(self.first_step() as u64);
        all.add(self.first_sequence() as u64);
        if self.has_lengths() {
            (0..batch).for_each(|b| all.add(self.length(b) as u64));
        }
        for is_read in [self.has_mask(), self.has_resets()] {
            all.add(is_read.into());
        }
        if self.has_mask() || self.has_resets() {
            for (t, b) in (0..steps).flat_map(|t| (0..batch).map(move |b| (t, b))) {
                all.add(u64::from(self.valid(t, b)) << 1 | u64::from(self.starts_anew(t, b)));
            }
        }
        all.bits()
    }

    /// Adds the values of the valid positions.
    fn add_all_values(&self, all: &mut Fingerprint) {
        let (steps, batch) = self.dims();
        for (t, b) in (0..steps).flat_map(|t| (0..batch).map(move |b| (t, b))).filter(|&(t, b)| self.valid(t, b)) {
            match &self.values {
                Values::Features(x) => all.add_values(x.index_axis(Axis(0), t).index_axis_move(Axis(0), b)),
                Values::Tokens(ids) => all.add(ids.get(t, b) as u64),
            }
        }
    }

    /// Adds those of 16 values, evenly spread, that are at valid positions.
    fn add_samples(&self, all: &mut Fingerprint) {
        const SAMPLES: usize = 16;
        let (steps, batch) = self.dims();
        let features = match self.size() {
            Size::Features(features) => features,
            Size::Tokens => 1,
        };
        let count = steps * batch * features;
        let samples = SAMPLES.min(count);
        for at in (0..samples).map(|sample| sample * (count / samples)) {
            let (t, b, d) = (at / (batch * features), at / features % batch, at % features);
            if self.valid(t, b) {
                all.add(match &self.values {
                    Values::Features(x) => x[[t, b, d]].bits(),
                    Values::Tokens(ids) => ids.get(t, b) as u64,
                });
            }
        }
    }
}

impl<'s, 'a: 's, F: Float> From<&'s Sequence<'a, F>> for Sequence<'s, F> {
    fn from(x: &'s Sequence<'a, F>) -> Self {
        x.reborrow()
    }
}

impl<'a, F> From<ArrayView3<'a, F>> for Sequence<'a, F> {
    fn from(x: ArrayView3<'a, F>) -> Self {
        Sequence::new(Values::Features(x))
    }
}

impl<'a, F> From<&'a ArrayView3<'_, F>> for Sequence<'a, F> {
    fn from(x: &'a ArrayView3<'_, F>) -> Self {
        x.view().into()
    }
}

impl<'a, F> From<&'a Array3<F>> for Sequence<'a, F> {
    fn from(x: &'a Array3<F>) -> Self {
        x.view().into()
    }
}

impl<'a, F: Float, I: Id> From<ArrayView2<'a, I>> for Sequence<'a, F> {
    fn from(ids: ArrayView2<'a, I>) -> Self {
        Sequence::new(Values::Tokens(I::view(ids)))
    }
}

impl<'a, F: Float, I: Id> From<&'a Array2<I>> for Sequence<'a, F> {
    fn from(ids: &'a Array2<I>) -> Self {
        ids.view().into()
    }
}
