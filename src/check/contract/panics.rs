//! The contract after a panic: backward passes are refused, and the cache can be used again.

use super::values::{LENGTHS, output_gradient, panics};
use super::{BATCH, Contract, STEPS};
use crate::base::ZerosLike;
use crate::layer::{Layer, Sequence};

impl<L: Layer> Contract<'_, L> {
    /// Checks a layer after a pass in which a part of it panicked. Backward passes must be refused until a forward pass is done,
    /// and that one must give, in the same cache, the same numbers as in a new one.
    ///
    /// `arm(Some(n))` makes some part of the layer panic at its call `n` from then on, counted from 0, and `arm(None)` at none.
    /// Every call of a forward and of a backward pass is tried. A layer passes if its cache, or those of its parts, have a
    /// [`Pending`](crate::author::Pending) mark.
    ///
    /// ```
    /// use gradflow::{Float, author::*, check::Contract, compose::Residual, ndarray::ArrayViewMut2, parameters, row_layer};
    /// use std::marker::PhantomData;
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    ///
    /// static CALLS_LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);
    ///
    /// fn call() {
    ///     assert!(CALLS_LEFT.fetch_sub(1, Relaxed) > 0, "told to panic");
    /// }
    ///
    /// /// y = 2 x, until it is told to panic
    /// #[derive(Clone)]
    /// struct Double<F> { elem: PhantomData<F> }
    /// parameters! { impl<F: Float> Tensors<F> for Double<F> { ; skip elem } }
    ///
    /// impl<F: Float> RowLayer for Double<F> {
    ///     type Elem = F;
    ///     type Kept = ();
    ///     const NAME: &'static str = "Double";
    ///
    ///     fn forward_rows(&self, rows: Rows<'_, F>, mut y: ArrayViewMut2<'_, F>, _: &mut ()) {
    ///         call();
    ///         y.assign(&rows.x.mapv(|x| x + x));
    ///     }
    ///     fn backward_rows(&self, _: Rows<'_, F>, d: RowGradients<'_, F>, _: &mut (), _: Gradient<'_, Self>) {
    ///         call();
    ///         if let Some(mut dx) = d.dx {
    ///             dx.assign(&d.dy.mapv(|dy| dy + dy));
    ///         }
    ///     }
    /// }
    /// row_layer! { impl<F: Float> Layer for Double<F> }
    ///
    /// let block = Residual::new(Double::<f64> { elem: PhantomData });
    /// let arm = |call: Option<usize>| CALLS_LEFT.store(call.unwrap_or(usize::MAX), Relaxed);
    /// Contract::new("a block", &block, 3).check_after_panics(&arm);
    /// ```
    ///
    /// # Panics
    /// Panics at the first breach, or if no call panics.
    #[track_caller]
    pub fn check_after_panics(&self, arm: &dyn Fn(Option<usize>)) {
        let batch = self.batch(STEPS, BATCH);
        let x = batch.sequence().train(3);
        for (what, x) in [("", x), (", with lengths", x.with_lengths(&LENGTHS).expect("lengths that fit"))] {
            let want = self.pass(x, self.state(BATCH), &mut self.layer.cache());
            for in_backward in [false, true] {
                let calls =
                    (0..).take_while(|&call| self.panic_is_survived(x, arm, call, in_backward, &want.bits(), what));
                self.assert(calls.count() > 0, "no call of it panics");
            }
        }
    }

    /// Whether the layer has a call of this number.
    fn panic_is_survived(
        &self,
        x: Sequence<'_, L::Elem>,
        arm: &dyn Fn(Option<usize>),
        call: usize,
        in_backward: bool,
        want: &[u64],
        what: &str,
    ) -> bool {
        let output = self.layer.output_size(x.size()).expect("a size that fits");
        let dy = output_gradient((STEPS, BATCH, output));
        let mut cache = self.layer.cache();
        let forward = |cache: &mut L::Cache| {
            self.layer.forward(x, &mut self.state(BATCH), cache);
        };
        let backward = |cache: &mut L::Cache| {
            self.layer.backward(x, &dy, Some(&mut self.state(BATCH)), cache, &mut self.layer.zeros_like());
        };
        // A pass that awaits its backward pass, so that there are marks, which the panic must not leave.
        forward(&mut cache);
        arm(Some(call));
        let panicked = panics(&mut || if in_backward { backward(&mut cache) } else { forward(&mut cache) });
        arm(None);
        if panicked {
            let pass = if in_backward { "backward" } else { "forward" };
            let refused = panics(&mut || backward(&mut cache));
            self.assert(
                refused,
                &format!("`backward` is accepted after a panic in call {call} of a {pass} pass{what}"),
            );
            let got = self.pass(x, self.state(BATCH), &mut cache);
            self.assert(
                got.bits() == want,
                &format!("after a panic in a {pass} pass{what}, a cache gives other numbers"),
            );
        }
        panicked
    }
}
