//! The sum over all shards of a batch.

use gradflow::Tensors;
use gradflow::TensorsExt;

use crate::element::{Element, scatter};
use crate::options::Wire;
use crate::ranks::{Call, Ranks, reciprocal};
use crate::shard::Shard;
use crate::tree::Tree;

/// The gradient and the loss of a batch, summed from those of its shards along the [tree of shards](crate#the-tree-of-shards).
///
/// Each rank [adds](TreeSum::add) its shards in order; then all call [`mean`](TreeSum::mean) or [`sum`](TreeSum::sum).
/// [`Ranks::tree_sum`] makes one, which can be reused for all steps.
#[derive(Debug)]
pub struct TreeSum<'r, F> {
    ranks: &'r Ranks,
    length: usize,
    tensors: Tree<F>,
    /// Weight, and weight times loss.
    numbers: Tree<f64>,
    /// The number of the next shard.
    next: usize,
}

impl<'r, F: Element> TreeSum<'r, F> {
    pub(crate) fn new(ranks: &'r Ranks, length: usize) -> Self {
        let wire = ranks.options().wire;
        let next = ranks.shards_of(ranks.rank()).start;
        TreeSum { ranks, length, tensors: Tree::new(length, wire), numbers: Tree::new(2, Wire::Exact), next }
    }

    /// Adds the gradient and the loss of a shard. Their weight in the mean is the number of terms in the loss, which
    /// [`Loss::weight`](gradflow::loss::Loss::weight) gives.
    ///
    /// # Panics
    /// Panics if it is not one of the shards after those already added, or if `grad` has another number of elements than the model.
    #[track_caller]
    pub fn add(&mut self, shard: &Shard, grad: &(impl Tensors<F> + ?Sized), loss: f64, weight: f64) {
        let (index, last) = (shard.index(), self.ranks.shards_of(self.ranks.rank()).end);
        let expected = self.next..last;
        assert!(expected.contains(&index), "TreeSum: shard: expected one of {expected:?}, got {index}");
        let (expected, got) = (self.length, grad.element_count());
        assert_eq!(expected, got, "TreeSum: grad: expected {expected} elements, got {got}");
        self.skip_to(index);
        self.tensors.add_leaf((0..grad.count()).map(|i| grad.values(i)), F::of(weight));
        self.numbers.add_leaf([&[weight, weight * loss][..]].into_iter(), 1.0);
        self.next = index + 1;
    }

    /// Adds zeros for the shards before `index`, which have no sequences.
    fn skip_to(&mut self, index: usize) {
        if self.next < index {
            let zeros = vec![F::zero(); self.length];
            for _ in self.next..index {
                self.tensors.add_leaf([&zeros[..]].into_iter(), F::one());
                self.numbers.add_leaf([&[0.0; 2][..]].into_iter(), 1.0);
            }
        }
    }

    /// Writes the gradient of the whole batch's mean loss into `grad` and returns that loss, on all ranks.
    ///
    /// ```text
    /// g = Σ_s w_s g_s / Σ_s w_s        L = Σ_s w_s L_s / Σ_s w_s
    /// ```
    ///
    /// # Panics
    /// Panics if `grad` has another number of elements than the model.
    #[track_caller]
    pub fn mean(&mut self, grad: &mut (impl Tensors<F> + ?Sized)) -> f64 {
        self.finish(grad, reciprocal)
    }

    /// Writes the weighted sum of the gradients over all shards, without division, into `sums`, and returns that of the losses:
    ///
    /// ```text
    /// g = Σ_s w_s g_s        L = Σ_s w_s L_s
    /// ```
    ///
    /// Use it with weights of 1 for a loss that is a sum, or for [metrics](gradflow::metrics), which are tensors.
    ///
    /// # Panics
    /// Panics if `sums` has another number of elements than the model.
    #[track_caller]
    pub fn sum(&mut self, sums: &mut (impl Tensors<F> + ?Sized)) -> f64 {
        self.finish(sums, |_| 1.0)
    }

    #[track_caller]
    fn finish(&mut self, grad: &mut (impl Tensors<F> + ?Sized), factor: impl Fn(f64) -> f64) -> f64 {
        let (expected, got) = (self.length, grad.element_count());
        assert_eq!(expected, got, "TreeSum: grad: expected {expected} elements, got {got}");
        let own = self.ranks.shards_of(self.ranks.rank());
        self.skip_to(own.end);
        self.next = own.start;
        let (ranks, call) = (self.ranks, self.ranks.called(Call::Mean));
        ranks.check_length::<F>(call, self.length);
        let mut numbers = self.numbers.total();
        ranks.f64.borrow_mut().sum_of_any(ranks, call, &mut numbers);
        let factor = factor(numbers[0]);
        let loss = numbers[1] * factor;
        self.numbers.give_back(numbers);
        let mut total = self.tensors.total();
        F::buffers(ranks).borrow_mut().total(ranks, call, &mut total, F::of(factor));
        scatter(&total, &mut { grad });
        self.tensors.give_back(total);
        loss
    }
}
