//! The contract of [`Layer`], as a test that every layer passes: this crate's and yours.

mod batch;
mod panics;
mod positions;
mod stream;
mod values;
mod wrapper;

use super::gradcheck::GradCheck;
use crate::base::{Size, Tensors, TensorsExt, ZerosLike};
use crate::kernels::Float;
use crate::layer::fingerprint::CHECKS_ALL;
use crate::layer::{Causal, Gradient, Layer, Sequence, Steps};
use batch::Batch;
pub use batch::Input;
use ndarray::{Array3, ArrayRef3, Axis, Dimension, arr2};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use values::{
    BATCH, LENGTHS, MASK, RESETS, STEPS, all_near, batch_first, bits, cut, fill, fill_padding, first_difference,
    output_gradient, padding_is_zero, panics, same,
};

/// Checks that a layer keeps everything that [`Layer`] promises, and panics at the first breach with a message that names it.
///
/// The contract covers:
///
/// - shapes, for a layer that [changes the number of steps](Layer::output_steps) too;
/// - gradients by finite differences, with and without lengths, a mask and resets;
/// - valid steps and pieces alone against the whole batch;
/// - gradients that are overwritten;
/// - a reused cache, a stale cache, another input and, in debug builds, an input or parameters that differ in a single value;
/// - each sequence alone against itself in the batch;
/// - padding that holds NaN;
/// - memory in another order than row-major;
/// - empty batches, and chunks that no sequence reaches;
/// - with a counter, that nothing is allocated from the second pass of a shape on.
///
/// A [`Causal`] layer ([`check_causal`](Contract::check_causal)) is also run in chunks, step by step, and as a
/// [`Stream`](crate::stream::Stream).
///
/// ```
/// use gradflow::{check::Contract, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell};
///
/// let cell = LstmCell::<f64>::new(3, 4, &mut StdRng::seed_from_u64(0));
/// Contract::new("LstmCell", &cell, 3).check_causal();
/// ```
#[derive(Debug)]
#[must_use = "a contract is checked by `check` or `check_causal`"]
pub struct Contract<'a, L: Layer> {
    name: &'a str,
    layer: &'a L,
    input: Input,
    gradients: GradCheck,
    allocations: Option<CountAllocations>,
}

/// Calls a function and returns the number of its allocations.
pub type CountAllocations = fn(&mut dyn FnMut()) -> u64;

/// Sets the mode of a sequence.
type InMode<F> = for<'a> fn(Sequence<'a, F>) -> Sequence<'a, F>;

impl<'a, L: Layer> Contract<'a, L> {
    /// The contract of `layer`, which is called `name` in messages.
    pub fn new(name: &'a str, layer: &'a L, input: impl Into<Input>) -> Self {
        Contract { name, layer, input: input.into(), gradients: GradCheck::new(), allocations: None }
    }

    /// Sets how gradients are checked.
    pub fn gradients(self, gradients: GradCheck) -> Self {
        Contract { gradients, ..self }
    }

    /// Sets a function that counts the allocations of the function that it calls.
    pub fn allocations(self, count: CountAllocations) -> Self {
        Contract { allocations: Some(count), ..self }
    }

    /// Checks everything that holds for any layer. Returns the largest error of the gradient checks.
    ///
    /// # Panics
    /// Panics at the first breach.
    #[track_caller]
    pub fn check(&self) -> f64 {
        self.tensors_are_named();
        self.shapes_are_as_promised();
        let worst = self.gradients_are_right();
        self.cache_is_reusable();
        self.stale_cache_is_refused();
        self.unwanted_gradients_change_nothing();
        self.gradients_are_overwritten();
        self.empty_batch_is_refused();
        self.sequences_do_not_mix();
        self.valid_steps_are_all();
        let modes: [InMode<L::Elem>; 2] = [|x| x.eval(), |x| x.train(3)];
        for mode in modes {
            self.padding_is_never_read(mode);
            self.layout_does_not_matter(mode);
            self.pieces_are_apart(mode, false);
        }
        self.nothing_is_allocated();
        worst
    }

    fn assert(&self, holds: bool, what: &str) {
        assert!(holds, "{}: {what}", self.name);
    }

    fn batch(&self, steps: usize, batch: usize) -> Batch<L::Elem> {
        Batch::draw(self.input, steps, batch)
    }

    /// The number of steps of an output over `steps` steps.
    fn output_steps(&self, steps: usize) -> usize {
        self.layer.output_steps().of(steps)
    }

    /// The shape of an output over a batch of the usual size.
    fn output_shape(&self, features: usize) -> (usize, usize, usize) {
        (self.output_steps(STEPS), BATCH, features)
    }

    /// A state that is not zero.
    fn state(&self, batch: usize) -> L::State {
        let (mut state, rng) = (self.layer.zero_state(batch), &mut StdRng::seed_from_u64(5));
        fill(&mut state, &mut |_| rng.random_range(-0.5..0.5));
        state
    }

    /// One forward and backward pass, the loss `Σ w ∘ y + Σ w ∘ final state`.
    fn pass(&self, x: Sequence<'_, L::Elem>, state: L::State, cache: &mut L::Cache) -> Outcome<L> {
        let mut state = state;
        let y = self.layer.forward(x, &mut state, cache).to_owned();
        self.assert(same(&y, self.layer.output(cache)), "`output` is not what `forward` returned");
        let dy = output_gradient(y.dim());
        self.backward(x, y, &dy, state, cache)
    }

    fn backward(
        &self,
        x: Sequence<'_, L::Elem>,
        y: Array3<L::Elem>,
        dy: &ArrayRef3<L::Elem>,
        state: L::State,
        cache: &mut L::Cache,
    ) -> Outcome<L> {
        let mut dstate = self.seed_gradient(&state);
        let mut grad = self.layer.zeros_like();
        let dx = self.layer.backward(x, dy, Some(&mut dstate), cache, &mut grad).to_owned();
        let dx = if x.wants_gradient() { dx } else { Array3::zeros((0, 0, 0)) };
        Outcome { y, state, dx, dstate, grad }
    }

    fn tensors_are_named(&self) {
        let mut names = self.layer.names();
        for (i, name) in names.iter().enumerate() {
            let (shape, values) = self.layer.tensor(i);
            self.assert(shape.iter().product::<usize>() == values.len(), &format!("{name}: shape {shape:?}"));
        }
        names.sort();
        names.dedup();
        self.assert(names.len() == self.layer.count(), "two tensors share a name");
        self.assert(!names.iter().any(String::is_empty), "a tensor has no name");
        let mut copy = self.layer.zeros_like();
        copy.copy_from(self.layer);
        self.assert(bits(&copy) == bits(self.layer), "a copy of its tensors is not the layer");
    }

    fn shapes_are_as_promised(&self) {
        let batch = self.batch(STEPS, BATCH);
        let output =
            self.layer.output_size(batch.sequence().size()).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let outcome = self.pass(batch.sequence().eval(), self.state(BATCH), &mut self.layer.cache());
        self.assert(outcome.y.dim() == self.output_shape(output), &format!("y is {:?}", outcome.y.dim()));
        if let Input::Features(features) = self.input {
            self.assert(outcome.dx.dim() == (STEPS, BATCH, features), &format!("dL/dx is {:?}", outcome.dx.dim()));
        }
        let wrong_kind = match self.input {
            Input::Features(_) => Size::Tokens,
            Input::Tokens(_) => Size::Features(3),
        };
        self.assert(self.layer.output_size(wrong_kind).is_err(), "`output_size` takes features and token ids alike");
    }

    fn gradients_are_right(&self) -> f64 {
        let batch = self.batch(STEPS, BATCH);
        let x = batch.sequence().train(3);
        let lengths = x.with_lengths(&LENGTHS).expect("lengths that fit");
        let check = |what: &str, x| {
            let report = self.gradients.check(self.layer, x, &self.state(BATCH));
            self.assert(report.passed(), &format!("gradients{what}\n{report}"));
            report.worst_error()
        };
        let (mask, resets) = (arr2(&MASK), arr2(&RESETS));
        let marked = x.with_mask(&mask).with_resets(&resets);
        let worst = check("", x).max(check(", with lengths", lengths));
        // From a state of zero, some functions curve too much for the larger steps of f32.
        if size_of::<L::Elem>() < size_of::<f64>() || !self.takes_marks() {
            return worst;
        }
        worst.max(check(", with a mask and resets", marked))
    }

    fn cache_is_reusable(&self) {
        let batch = self.batch(STEPS, BATCH);
        let want = self.pass(batch.sequence().eval(), self.state(BATCH), &mut self.layer.cache());
        let mut cache = self.layer.cache();
        for (steps, sequences) in [(STEPS + 3, BATCH + 2), (1, 1), (STEPS, BATCH)] {
            let other = self.batch(steps, sequences);
            self.pass(other.sequence().eval(), self.state(sequences), &mut cache);
        }
        let got = self.pass(batch.sequence().eval(), self.state(BATCH), &mut cache);
        self.assert(got.bits() == want.bits(), "a used cache gives other numbers than a new one");
        let mut state = self.state(BATCH);
        let y = self.layer.forward(batch.sequence().infer(), &mut state, &mut cache).to_owned();
        self.assert(y == want.y && bits(&state) == bits(&want.state), "inference gives other numbers than evaluation");
    }

    fn stale_cache_is_refused(&self) {
        let batch = self.batch(STEPS, BATCH);
        let (other, x) = (self.batch(STEPS, BATCH).changed(), batch.sequence().eval());
        let output = self.layer.output_size(x.size()).expect("a size that fits");
        let dy = output_gradient(self.output_shape(output));
        let refuses =
            |what: &str, forward: &dyn Fn(&mut L::Cache), x: Sequence<'_, L::Elem>, dy: &ArrayRef3<L::Elem>| {
                let mut cache = self.layer.cache();
                forward(&mut cache);
                let mut grad = self.layer.zeros_like();
                let refused = panics(&mut || {
                    self.layer.backward(x, dy, None, &mut cache, &mut grad);
                });
                self.assert(refused, &format!("`backward` accepts {what}"));
            };
        let forward = |x: Sequence<'_, L::Elem>, cache: &mut L::Cache| {
            self.layer.forward(x, &mut self.state(BATCH), cache);
        };
        refuses("a cache without a forward pass", &|_| {}, x, &dy);
        refuses("a cache that a backward pass has used", &|cache| drop(self.pass(x, self.state(BATCH), cache)), x, &dy);
        refuses("another x than the forward pass", &|cache| forward(other.sequence().eval(), cache), x, &dy);
        if CHECKS_ALL {
            for k in 0..batch.len() {
                let other = self.batch(STEPS, BATCH).changed_at(k);
                let forward = |cache: &mut L::Cache| forward(other.sequence().eval(), cache);
                refuses(&format!("an x of which value {k} was another in the forward pass"), &forward, x, &dy);
            }
            self.changed_parameters_are_refused(x, &dy);
        }
        refuses("an inference pass's cache", &|cache| forward(x.infer(), cache), x, &dy);
        let wrong = output_gradient(self.output_shape(output + 1));
        refuses("a dy of another size", &|cache| forward(x, cache), x, &wrong);
        let (steps, ..) = self.output_shape(output);
        let wrong = output_gradient((steps + 1, BATCH, output));
        refuses("a dy of more steps", &|cache| forward(x, cache), x, &wrong);
        let refused = panics(&mut || {
            self.layer.forward(x, &mut self.state(BATCH + 1), &mut self.layer.cache());
        });
        self.assert(refused || self.state(BATCH).count() == 0, "`forward` accepts a state of another batch");
    }

    /// A backward pass is refused if a parameter changed after the forward pass: here, in its first or last value.
    fn changed_parameters_are_refused(&self, x: Sequence<'_, L::Elem>, dy: &ArrayRef3<L::Elem>) {
        for i in 0..self.layer.count() {
            let last = self.layer.values(i).len() - 1;
            for k in if last == 0 { vec![0] } else { vec![0, last] } {
                let (mut layer, mut cache) = (self.layer.clone(), self.layer.cache());
                layer.forward(x, &mut self.state(BATCH), &mut cache);
                layer.tensor_mut(i)[k] += L::Elem::of(0.5);
                let refused = panics(&mut || {
                    layer.backward(x, dy, None, &mut cache, &mut self.layer.zeros_like());
                });
                self.assert(refused, &format!("`backward` accepts another {} than `forward` had", self.layer.name(i)));
            }
        }
    }

    /// No gradient of the final state means zero, and leaving out `dL/dx` does not change the other gradients.
    fn unwanted_gradients_change_nothing(&self) {
        let batch = self.batch(STEPS, BATCH);
        let run = |x: Sequence<'_, L::Elem>, dstate: Option<&mut L::State>| {
            let (mut cache, mut grad) = (self.layer.cache(), self.layer.zeros_like());
            let y = self.layer.forward(x, &mut self.state(BATCH), &mut cache).raw_dim();
            let dx = self.layer.backward(x, &output_gradient(y.into_pattern()), dstate, &mut cache, &mut grad);
            (bits(&dx.to_owned()), bits(&grad))
        };
        let x = batch.sequence().eval();
        let (dx, grad) = run(x, None);
        let zero = run(x, Some(&mut self.layer.zero_state(BATCH)));
        let dx_fits = self.input_is_tokens() || dx == zero.0;
        self.assert(dx_fits && grad == zero.1, "no `dstate` gives other gradients than a zero one");
        self.assert(run(x.constant(), None).1 == grad, "a constant x changes the parameters' gradients");
    }

    /// A gradient that is overwritten equals one that is added to zero, whatever it held before, and the next pass can add to it.
    /// This holds with lengths too, and in a chunk that no sequence reaches.
    fn gradients_are_overwritten(&self) {
        let batch = self.batch(STEPS, BATCH);
        let x = batch.sequence().train(3);
        // With a stride, chunks begin at a multiple of it; there may be none.
        let end = match self.layer.output_steps() {
            Steps::Every(stride) => (STEPS / 2).next_multiple_of(stride).min(STEPS),
            _ => STEPS / 2,
        };
        let (lengths, over) = (x.with_lengths(&LENGTHS).expect("fits"), [end; BATCH]);
        let ended = (end < STEPS).then(|| x.with_lengths(&over).expect("fits").steps(end..STEPS));
        let ended = ended.map(|ended| (", where all sequences are over", ended));
        for (what, x) in [("", x), (", with lengths", lengths)].into_iter().chain(ended) {
            let mut cache = self.layer.cache();
            let mut run = |grad: &mut L, overwrite: bool| {
                let mut state = self.state(BATCH);
                let y = self.layer.forward(x, &mut state, &mut cache).raw_dim();
                let (dy, mut dstate) = (output_gradient(y.into_pattern()), self.seed_gradient(&state));
                let (layer, dstate_in) = (self.layer, Some(&mut dstate));
                let grad = if overwrite { Gradient::overwrite(grad) } else { Gradient::add(grad) };
                let dx = layer.backward(x, &dy, dstate_in, &mut cache, grad);
                let dx = if x.wants_gradient() { bits(&dx.to_owned()) } else { Vec::new() };
                (dx, bits(&dstate))
            };
            let (mut added, mut overwritten) = (self.layer.zeros_like(), self.layer.zeros_like());
            fill(&mut overwritten, &mut |_| f64::NAN);
            for (pass, overwrite) in [("overwriting", true), ("adding after overwriting", false)] {
                let (want, got) = (run(&mut added, false), run(&mut overwritten, overwrite));
                let other = first_difference(&added, &overwritten);
                let other = other.map(|(name, want, got)| format!(": {name}: {got} in place of {want}"));
                self.assert(
                    other.is_none(),
                    &format!("{pass} gives another gradient{what}{}", other.unwrap_or_default()),
                );
                self.assert(want == got, &format!("{pass} gives another dL/dx or gradient of the state{what}"));
            }
        }
    }

    fn empty_batch_is_refused(&self) {
        for (steps, batch) in [(0, BATCH), (STEPS, 0)] {
            let x = self.batch(steps, batch);
            let refused = panics(&mut || {
                self.layer.forward(x.sequence().eval(), &mut self.layer.zero_state(batch), &mut self.layer.cache());
            });
            self.assert(refused, &format!("`forward` accepts an empty batch, [{steps}, {batch}]"));
        }
    }

    /// A sequence alone, cut to its length, gives the same as in the batch.
    fn sequences_do_not_mix(&self) {
        let state = self.state(BATCH);
        let mut back = self.layer.zero_state(BATCH);
        self.layer.put_state(&mut back, &[2, 0, 1], &self.layer.select_state(&state, &[2, 0, 1]));
        self.assert(bits(&back) == bits(&state), "a state that is taken apart and put together is another");
        let batch = self.batch(STEPS, BATCH);
        let x = batch.sequence().eval().with_lengths(&LENGTHS).expect("lengths that fit");
        let all = self.pass(x, self.state(BATCH), &mut self.layer.cache());
        let mut sum = self.layer.zeros_like();
        for (b, &length) in LENGTHS.iter().enumerate() {
            let one = batch.cut(b, length);
            let mut state = self.layer.select_state(&self.state(BATCH), &[b]);
            let mut cache = self.layer.cache();
            let y = self.layer.forward(one.sequence().eval(), &mut state, &mut cache).to_owned();
            let out = self.output_steps(length);
            let dy = cut(&output_gradient(all.y.dim()), b, out);
            let mut dstate = self.layer.select_state(&self.seed_gradient(&all.state), &[b]);
            let dx =
                self.layer.backward(one.sequence().eval(), &dy, Some(&mut dstate), &mut cache, &mut sum).to_owned();

            self.assert(all_near(&y, &cut(&all.y, b, out)), "a sequence alone gives another y than in its batch");
            let dx_fits = self.input_is_tokens() || all_near(&dx, &cut(&all.dx, b, length));
            self.assert(dx_fits, "a sequence alone gives another dL/dx than in its batch");
            let expected = self.layer.select_state(&all.state, &[b]);
            self.assert(all_near(&state, &expected), "the final state is not that of the last valid step");
            let expected = self.layer.select_state(&all.dstate, &[b]);
            self.assert(all_near(&dstate, &expected), "the initial state's gradient depends on the batch");
        }
        self.assert(all_near(&sum, &all.grad), "the batch's gradient is not the sum of its sequences'");
    }

    fn padding_is_never_read(&self, mode: InMode<L::Elem>) {
        let batch = self.batch(STEPS, BATCH);
        let junk = batch.with_padding(&LENGTHS);
        let lengths = |batch: &Batch<L::Elem>, cache: &mut L::Cache| {
            let x = mode(batch.sequence()).with_lengths(&LENGTHS).expect("lengths that fit");
            let mut state = self.state(BATCH);
            let y = self.layer.forward(x, &mut state, cache).to_owned();
            let mut dy = output_gradient(y.dim());
            if self.layer.output_steps() == Steps::Same {
                fill_padding(&mut dy, if batch.junk { f64::NAN } else { 0.5 });
            }
            self.backward(x, y, &dy, state, cache)
        };
        // A cache full of other numbers: stale values must not show either.
        let mut cache = self.layer.cache();
        self.pass(mode(self.batch(STEPS, BATCH).changed().sequence()), self.state(BATCH), &mut cache);
        let (want, got) = (lengths(&batch, &mut self.layer.cache()), lengths(&junk, &mut cache));
        self.assert(got.bits() == want.bits(), "what the padding holds changes the result");
        let has_padding = self.layer.output_steps() == Steps::Same;
        self.assert(!has_padding || padding_is_zero(&got.y), "y is not zero past a length");
        self.assert(self.input_is_tokens() || padding_is_zero(&got.dx), "dL/dx is not zero past a length");
        let full = [STEPS; BATCH];
        let x = mode(batch.sequence());
        let with = self.pass(x.with_lengths(&full).expect("fits"), self.state(BATCH), &mut self.layer.cache());
        let without = self.pass(x, self.state(BATCH), &mut self.layer.cache());
        self.assert(with.bits() == without.bits(), "full lengths give other numbers than no lengths");
    }

    fn layout_does_not_matter(&self, mode: InMode<L::Elem>) {
        let batch = self.batch(STEPS, BATCH);
        let want = self.pass(mode(batch.sequence()), self.state(BATCH), &mut self.layer.cache());
        let turned = batch.in_other_order();
        let mut cache = self.layer.cache();
        for (there, back) in [(&turned, &turned), (&turned, &batch), (&batch, &turned)] {
            let mut state = self.state(BATCH);
            let y = self.layer.forward(mode(there.sequence()), &mut state, &mut cache).to_owned();
            let dy = batch_first(&output_gradient(y.dim()));
            let got = self.backward(mode(back.sequence()), y, &dy, state, &mut cache);
            self.assert(got.bits() == want.bits(), "another memory layout of x and dy gives other numbers");
        }
    }

    fn nothing_is_allocated(&self) {
        let Some(count) = self.allocations else { return };
        let batch = self.batch(STEPS, BATCH);
        let (mask, resets) = (arr2(&MASK), arr2(&RESETS));
        let x = batch.sequence().train(1);
        let marked = self.takes_marks().then(|| x.with_mask(&mask).with_resets(&resets));
        for x in [x, x.with_lengths(&LENGTHS).expect("lengths that fit")].into_iter().chain(marked) {
            let (mut state, mut dstate) = (self.state(BATCH), self.state(BATCH));
            let (mut cache, mut grad) = (self.layer.cache(), self.layer.zeros_like());
            let output = self.layer.output_size(x.size()).expect("a size that fits");
            let dy = output_gradient(self.output_shape(output));
            let mut pass = || {
                self.layer.forward(x, &mut state, &mut cache);
                self.layer.backward(x, &dy, Some(&mut dstate), &mut cache, &mut grad);
                self.layer.forward(x, &mut state, &mut cache);
                self.layer.backward(x, &dy, Some(&mut dstate), &mut cache, Gradient::overwrite(&mut grad));
            };
            pass();
            let allocations = count(&mut pass);
            self.assert(allocations == 0, &format!("the second pass allocates {allocations} times"));
        }
    }

    fn input_is_tokens(&self) -> bool {
        matches!(self.input, Input::Tokens(_))
    }

    /// The final state's gradient that [`Contract::backward`] starts from.
    fn seed_gradient(&self, state: &L::State) -> L::State {
        let mut seed = state.clone();
        fill(&mut seed, &mut |k| (k as f64 + 0.5).cos());
        seed
    }
}

impl<L: Causal> Contract<'_, L> {
    /// Checks everything that holds for a [`Causal`] layer. Returns the largest error of the gradient checks.
    ///
    /// # Panics
    /// Panics at the first breach.
    #[track_caller]
    pub fn check_causal(&self) -> f64 {
        self.assert(self.layer.output_steps() == Steps::Same, "a causal layer changes the number of steps");
        self.chunks_equal_the_whole();
        self.chunks_keep_positions();
        self.pieces_are_apart(|x| x.eval(), true);
        self.pieces_are_apart(|x| x.train(3), true);
        self.steps_equal_the_whole();
        self.stream_equals_the_whole();
        self.check()
    }

    /// Truncated BPTT with the gradient passed on is BPTT.
    fn chunks_equal_the_whole(&self) {
        let batch = self.batch(STEPS, BATCH);
        let whole = self.pass(batch.sequence().eval(), self.state(BATCH), &mut self.layer.cache());
        let (first, second) = batch.split(STEPS / 2);
        let mut caches = [self.layer.cache(), self.layer.cache()];
        let mut state = self.state(BATCH);
        let y_first = self.layer.forward(first.sequence().eval(), &mut state, &mut caches[0]).to_owned();
        let y_second = self.layer.forward(second.sequence().eval(), &mut state, &mut caches[1]).to_owned();
        let y = ndarray::concatenate![Axis(0), y_first, y_second];
        self.assert(y == whole.y, "two chunks give another y than the whole sequence");
        self.assert(bits(&state) == bits(&whole.state), "two chunks end in another state than the whole sequence");

        let dy = output_gradient::<L::Elem>(y.dim());
        let (dy_first, dy_second) = dy.view().split_at(Axis(0), STEPS / 2);
        let mut dstate = self.seed_gradient(&state);
        let mut grad = self.layer.zeros_like();
        self.layer.backward(second.sequence().eval(), &dy_second, Some(&mut dstate), &mut caches[1], &mut grad);
        self.layer.backward(first.sequence().eval(), &dy_first, Some(&mut dstate), &mut caches[0], &mut grad);
        self.assert(all_near(&dstate, &whole.dstate), "two chunks give another gradient of the initial state");
        self.assert(all_near(&grad, &whole.grad), "two chunks give another gradient than the whole sequence");
    }

    fn steps_equal_the_whole(&self) {
        let batch = self.batch(STEPS, BATCH);
        let whole = self.pass(batch.sequence().eval(), self.state(BATCH), &mut self.layer.cache());
        let (mut state, mut cache) = (self.state(BATCH), self.layer.cache());
        let mut rest = batch.clone();
        for t in 0..STEPS {
            let (step, after) = rest.split(1);
            let y = self.layer.step(step.sequence(), &mut state, &mut cache);
            let expected = whole.y.index_axis(Axis(0), t).to_owned();
            self.assert(all_near(&y.to_owned(), &expected), "step by step, y is another than for the whole sequence");
            rest = after;
        }
        self.assert(all_near(&state, &whole.state), "step by step, the state is another");
        let refused = panics(&mut || {
            self.layer.step(batch.sequence(), &mut self.state(BATCH), &mut self.layer.cache());
        });
        self.assert(refused, "`step` accepts several steps");
    }
}

/// All results of a pass.
struct Outcome<L: Layer> {
    y: Array3<L::Elem>,
    state: L::State,
    dx: Array3<L::Elem>,
    dstate: L::State,
    grad: L,
}

impl<L: Layer> Outcome<L> {
    fn bits(&self) -> Vec<u64> {
        let tensors: [&dyn Tensors<L::Elem>; 5] = [&self.y, &self.dx, &self.state, &self.dstate, &self.grad];
        tensors.map(bits).concat()
    }
}
