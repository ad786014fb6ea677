//! Gradients that are sent layer by layer, while the backward pass still runs.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gradflow::{Tensors, TensorsExt};
use mpi::Tag;
use mpi::request::{LocalScope, Request, scope};
use mpi::traits::{Destination, Source};

use crate::element::{Element, bits};
use crate::launch::message;
use crate::options::{Reduction, Wire};
use crate::ranks::{BUCKETS, Call, Ranks, reciprocal};
use crate::shard::Shard;
use crate::tree::{Tree, add};

/// Maximum number of parts: each needs tags of its own.
const MOST_PARTS: usize = 500;

/// A [`TreeSum`](crate::TreeSum) that sends a gradient in parts while the backward pass still runs.
///
/// The parts become complete one after the other, and the messages of each are on their way while the backward pass goes on. The bits
/// are those of `TreeSum`.
///
/// It pays off if the network is slow and moves bytes without the processor: see the
/// [measurements](crate#gradients-that-go-out-during-the-backward-pass). [`Ranks::bucket_sum`] makes one.
///
/// ```
/// use gradflow::author::Gradient;
/// use gradflow::ndarray::Array3;
/// use gradflow::prelude::*;
/// use gradflow::rand::{SeedableRng, rngs::StdRng};
/// # gradflow_mpi::run(gradflow_mpi::Options::new(), |ranks| {
/// let rng = &mut StdRng::seed_from_u64(0);
/// let (lstm, head) = (Lstm::<f32>::new(3, 8, rng), Linear::new(8, 2, rng));
/// let (mut caches, mut dlstm, mut dhead) = ((lstm.cache(), head.cache()), lstm.zeros_like(), head.zeros_like());
/// let (x, targets, mut squared_error) = (Array3::ones((5, 16, 3)), Array3::zeros((5, 16, 2)), MeanSquaredError::new());
///
/// let mut sum = ranks.bucket_sum(&[&dlstm, &dhead]);
/// sum.during(|going| {
///     for shard in ranks.shards(16) {
///         let x = shard.of(&x);
///         let y = lstm.forward(x, &mut lstm.zero_state(shard.count()), &mut caches.0).to_owned();
///         let logits = head.forward(&y, &mut (), &mut caches.1);
///         let loss = squared_error.of(x.with(logits), &shard.part(&targets));
///         going.shard(&shard, loss.value(), shard.count() as f64);
///         let dy = head.backward(&y, loss.gradient(), None, &mut caches.1, Gradient::overwrite(&mut dhead)).to_owned();
///         going.add(1, &dhead); // on its way, if this is the last shard
///         lstm.backward(x, &dy, None, &mut caches.0, Gradient::overwrite(&mut dlstm));
///         going.add(0, &dlstm);
///     }
/// });
/// let loss = sum.mean(&mut [&mut dlstm, &mut dhead]);
/// # assert!(loss > 0.0);
/// # Ok::<_, String>(()) });
/// ```
#[derive(Debug)]
pub struct BucketSum<'r, F> {
    ranks: &'r Ranks,
    parts: Vec<Part<F>>,
    trees: Vec<Tree<F>>,
    /// Weight, and weight times loss.
    numbers: Tree<f64>,
}

/// The memory of a part's messages.
#[derive(Debug, Default)]
struct Part<F> {
    /// The sum of this rank's shards; later, in this rank's piece, the sum of all shards.
    own: Vec<F>,
    /// Received summands, level after level.
    received: Vec<F>,
    /// The other ranks' pieces.
    pieces: Vec<F>,
}

impl<'r, F: Element> BucketSum<'r, F> {
    #[track_caller]
    pub(crate) fn new(ranks: &'r Ranks, parts: &[&dyn Tensors<F>]) -> Self {
        let (count, wire) = (parts.len(), ranks.options().wire);
        assert!(count <= MOST_PARTS, "Ranks: bucket_sum: expected at most {MOST_PARTS} parts, got {count}");
        // At each level, one half may be one element longer than the other.
        let levels = bits(ranks.count()).count();
        let memory = |length| {
            let [own, received, pieces] = [0, levels, 0].map(|more| vec![F::zero(); length + more]);
            Part { own, received, pieces }
        };
        BucketSum {
            ranks,
            parts: parts.iter().map(|part| memory(part.element_count())).collect(),
            trees: parts.iter().map(|part| Tree::new(part.element_count(), wire)).collect(),
            numbers: Tree::new(2, Wire::Exact),
        }
    }

    /// Runs the passes over this rank's shards and waits until all parts of the gradient are summed. The passes hand over each part as
    /// soon as it is complete.
    ///
    /// # Panics
    /// Panics if the ranks' parts differ in their numbers of elements, or if the previous sums were not taken by [`mean`](BucketSum::mean).
    #[track_caller]
    pub fn during<T>(&mut self, passes: impl FnOnce(&mut Going<'_, '_, F>) -> T) -> T {
        let BucketSum { ranks, parts, trees, numbers } = self;
        assert!(numbers.is_empty(), "BucketSum: during: expected `mean` to take the sums before, got new ones");
        let (ranks, call) = (*ranks, ranks.called(Call::Mean));
        for part in parts.iter() {
            ranks.check_length::<F>(call, part.own.len());
        }
        let shards = ranks.shards_of(ranks.rank());
        scope(|scope| {
            let waiting = parts.iter_mut().map(|part| State::Adds { part, next: shards.start }).collect();
            let mut going =
                Going { ranks, scope, call, shards, trees, numbers, parts: waiting, current: None, counted: 0 };
            // Unwinding would end the process while messages are on their way, without saying on which rank.
            match catch_unwind(AssertUnwindSafe(|| passes(&mut going))) {
                Ok(done) => {
                    going.finish();
                    done
                }
                Err(panic) => ranks.end_all(&format_args!("panicked: {}", message(&*panic))),
            }
        })
    }

    /// Writes the gradient of the whole batch's mean loss into the parts of a gradient, and returns that loss, on all ranks. See
    /// [`TreeSum::mean`](crate::TreeSum::mean).
    ///
    /// # Panics
    /// Panics if the parts differ in number or length from those that were summed, or if none were summed.
    #[track_caller]
    pub fn mean(&mut self, grads: &mut [&mut dyn Tensors<F>]) -> f64 {
        let (ranks, call) = (self.ranks, self.ranks.called(Call::Mean));
        let (expected, got) = (self.parts.len(), grads.len());
        assert_eq!(expected, got, "BucketSum: grads: expected {expected} parts, got {got}");
        assert!(!self.numbers.is_empty(), "BucketSum: mean: expected sums of `during`, got none");
        let mut numbers = self.numbers.total();
        ranks.f64.borrow_mut().sum_of_any(ranks, call, &mut numbers);
        let factor = reciprocal(numbers[0]);
        let loss = numbers[1] * factor;
        self.numbers.give_back(numbers);
        for (k, (part, grad)) in self.parts.iter_mut().zip(grads).enumerate() {
            let (expected, got) = (part.own.len(), grad.element_count());
            assert_eq!(expected, got, "BucketSum: grads: expected {expected} elements in part {k}, got {got}");
            if goes_out(ranks) {
                let piece = piece_of(ranks.rank(), ranks.count(), part.own.len());
                part.pieces[piece.clone()].copy_from_slice(&part.own[piece]);
                let factor = F::of(factor);
                part.pieces.iter_mut().for_each(|value| *value *= factor);
            } else {
                F::buffers(ranks).borrow_mut().total(ranks, call, &mut part.own, F::of(factor));
                part.pieces.copy_from_slice(&part.own);
            }
            crate::element::scatter(&part.pieces, *grad);
        }
        loss
    }
}

/// Whether parts are sent before the end at all.
fn goes_out(ranks: &Ranks) -> bool {
    let options = ranks.options();
    options.reduction == Reduction::Tree && options.wire == Wire::Exact
}

/// The elements whose sum is completed on a rank by recursive halving.
fn piece_of(rank: usize, count: usize, length: usize) -> Range<usize> {
    bits(count).fold(0..length, |part, bit| half(&part, rank, bit))
}

/// The half of a part that a rank keeps at a level.
fn half(part: &Range<usize>, rank: usize, bit: usize) -> Range<usize> {
    let middle = part.start + part.len() / 2;
    if rank & bit == 0 { part.start..middle } else { middle..part.end }
}

/// Takes the gradients of the passes in [`BucketSum::during`].
pub struct Going<'a, 's, F> {
    ranks: &'a Ranks,
    scope: &'s LocalScope<'a>,
    call: Call,
    shards: Range<usize>,
    trees: &'a mut [Tree<F>],
    numbers: &'a mut Tree<f64>,
    parts: Vec<State<'a, 's, F>>,
    /// The shard whose parts are being added, and its weight.
    current: Option<(usize, f64)>,
    /// Number of shards so far, including empty ones.
    counted: usize,
}

impl<F> std::fmt::Debug for Going<'_, '_, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Going").field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

type Message<'a, 's, F> = Request<'a, [F], &'s LocalScope<'a>>;

/// The progress of a part.
enum State<'a, 's, F> {
    /// It is summed on this rank; `next` is the next shard.
    Adds { part: &'a mut Part<F>, next: usize },
    /// Halves are exchanged and added: the bit in which the other rank's number differs, the kept half, and memory for the levels to
    /// come.
    Down {
        bit: usize,
        kept: &'a mut [F],
        memory: &'a mut [F],
        pieces: Pieces<'a, F>,
        receiving: Message<'a, 's, F>,
        sending: Vec<Message<'a, 's, F>>,
    },
    /// Finished pieces are exchanged; `here` holds those that have arrived, with their ranks.
    Up {
        bit: usize,
        here: Vec<(usize, &'a [F])>,
        pieces: Pieces<'a, F>,
        receiving: Vec<(usize, Message<'a, 's, F>)>,
        sending: Vec<Message<'a, 's, F>>,
    },
    /// Everything has arrived; some messages may not have been sent yet.
    Here { sending: Vec<Message<'a, 's, F>> },
    /// There is nothing to send, or a change of state is under way.
    Done,
}

/// Memory for the pieces of all ranks, indexed by rank.
type Pieces<'a, F> = Vec<Option<&'a mut [F]>>;

impl<'a, F: Element> Going<'a, '_, F> {
    /// Announces the shard whose gradient comes next, with its loss and its weight.
    ///
    /// # Panics
    /// Panics if it is not one of the shards after those already announced.
    #[track_caller]
    pub fn shard(&mut self, shard: &Shard, loss: f64, weight: f64) {
        let expected = self.shards.start + self.counted..self.shards.end;
        let index = shard.index();
        assert!(expected.contains(&index), "Going: shard: expected one of {expected:?}, got {index}");
        self.count_to(index);
        self.numbers.add_leaf([&[weight, weight * loss][..]].into_iter(), 1.0);
        self.counted += 1;
        self.current = Some((index, weight));
    }

    /// Adds zeros for the shards before `index`, which have no sequences.
    fn count_to(&mut self, index: usize) {
        while self.shards.start + self.counted < index {
            self.numbers.add_leaf([&[0.0; 2][..]].into_iter(), 1.0);
            self.counted += 1;
        }
    }

    /// Adds part number `part` of the current shard's gradient. After this rank's last shard, the messages begin.
    ///
    /// # Panics
    /// Panics if there is no such part, if it has another number of elements, or if it was added before for this shard.
    #[track_caller]
    pub fn add(&mut self, part: usize, grad: &dyn Tensors<F>) {
        let (index, weight) = self.current.expect("Going: add: expected a shard before its gradient, got none");
        let count = self.parts.len();
        assert!(part < count, "Going: add: expected a part below {count}, got {part}");
        let State::Adds { part: memory, next } = &mut self.parts[part] else {
            panic!("Going: add: expected part {part} once for each shard, got it again")
        };
        assert!(*next <= index, "Going: add: expected part {part} once for each shard, got it again");
        let (expected, got) = (memory.own.len(), grad.element_count());
        assert_eq!(expected, got, "Going: add: expected {expected} elements in part {part}, got {got}");
        let zeros = (*next..index).len();
        *next = index + 1;
        let is_last = *next == self.shards.end;
        self.add_zeros(part, zeros);
        self.trees[part].add_leaf((0..grad.count()).map(|i| grad.values(i)), F::of(weight));
        if is_last {
            self.start(part);
        }
        self.poll();
    }

    fn add_zeros(&mut self, part: usize, count: usize) {
        if let State::Adds { part: memory, .. } = &self.parts[part]
            && count > 0
        {
            let zeros = vec![F::zero(); memory.own.len()];
            (0..count).for_each(|_| self.trees[part].add_leaf([&zeros[..]].into_iter(), F::one()));
        }
    }

    /// Makes progress on pending messages. Every [`add`](Going::add) calls it; in a long backward pass, calling it more often helps.
    pub fn poll(&mut self) {
        for k in 0..self.parts.len() {
            while self.moves_on(k, false) {}
        }
    }

    /// Sends the first messages of a part whose sum on this rank is complete.
    fn start(&mut self, k: usize) {
        let State::Adds { part, .. } = std::mem::replace(&mut self.parts[k], State::Done) else { return };
        let total = self.trees[k].total();
        self.trees[k].give_back(std::mem::replace(&mut part.own, total));
        let (count, length) = (self.ranks.count(), part.own.len());
        if !goes_out(self.ranks) || count == 1 {
            return;
        }
        // The pieces of all ranks lie side by side, but not in the order of the ranks.
        let mut ranges: Vec<_> = (0..count).map(|rank| (piece_of(rank, count, length), rank)).collect();
        ranges.sort_by_key(|(range, _)| (range.start, range.end));
        let (mut pieces, mut rest): (Pieces<'a, F>, _) = ((0..count).map(|_| None).collect(), &mut part.pieces[..]);
        for (range, rank) in ranges {
            let (piece, after) = rest.split_at_mut(range.len());
            pieces[rank] = Some(piece);
            rest = after;
        }
        self.parts[k] = self.down(k, 1, &mut part.own, &mut part.received, pieces, Vec::new());
    }

    /// The tag of a part's messages at a level, on the way down or up.
    fn tag(k: usize, bit: usize, is_up: bool) -> Tag {
        BUCKETS + (k as Tag * 2 + Tag::from(is_up)) * 32 + bit.ilog2() as Tag
    }
}

impl<'a, 's, F: Element> Going<'a, 's, F> {
    fn down(
        &self,
        k: usize,
        bit: usize,
        kept: &'a mut [F],
        memory: &'a mut [F],
        pieces: Pieces<'a, F>,
        mut sending: Vec<Message<'a, 's, F>>,
    ) -> State<'a, 's, F> {
        let (rank, middle) = (self.ranks.rank(), kept.len() / 2);
        let (left, right) = kept.split_at_mut(middle);
        let (kept, given) = if rank & bit == 0 { (left, right) } else { (right, left) };
        let (received, memory) = memory.split_at_mut(kept.len());
        let (other, tag) = (self.ranks.other(rank ^ bit), Self::tag(k, bit, false));
        let receiving = other.immediate_receive_into_with_tag(self.scope, received, tag);
        sending.push(other.immediate_send_with_tag(self.scope, &*given, tag));
        State::Down { bit, kept, memory, pieces, receiving, sending }
    }

    fn up(
        &self,
        k: usize,
        bit: usize,
        here: Vec<(usize, &'a [F])>,
        mut pieces: Pieces<'a, F>,
        mut sending: Vec<Message<'a, 's, F>>,
    ) -> State<'a, 's, F> {
        let other = self.ranks.rank() ^ bit;
        let (process, tag) = (self.ranks.other(other), Self::tag(k, bit, true));
        // The other rank has as many pieces: those of the ranks that differ in this bit from the ranks of the pieces here.
        let receive = |&(rank, _): &(usize, _)| {
            let piece = pieces[rank ^ bit].take().expect("memory for each piece");
            (rank ^ bit, process.immediate_receive_into_with_tag(self.scope, piece, tag))
        };
        // Both sides process the pieces in the order of the receiving ranks.
        let mut ordered = here.clone();
        ordered.sort_by_key(|&(rank, _)| rank ^ bit);
        let receiving = ordered.iter().map(receive).collect();
        ordered.sort_by_key(|&(rank, _)| rank);
        for (_, piece) in &ordered {
            sending.push(process.immediate_send_with_tag(self.scope, *piece, tag));
        }
        State::Up { bit, here, pieces, receiving, sending }
    }

    /// Takes what has arrived for part `k` and sends what follows from it; waits for it if `waits`. Returns whether anything changed.
    fn moves_on(&mut self, k: usize, waits: bool) -> bool {
        let (ranks, call, count) = (self.ranks, self.call, self.ranks.count());
        let come = |request: Message<'a, 's, F>, bit: usize| {
            if waits {
                ranks.at_level_of(bit);
                return Ok(ranks.wait(request, Some(ranks.rank() ^ bit), call).1);
            }
            request.test_with_data().map(|(_, data)| data)
        };
        let (state, moved) = match std::mem::replace(&mut self.parts[k], State::Done) {
            State::Down { bit, kept, memory, pieces, receiving, sending } => match come(receiving, bit) {
                Err(receiving) => (State::Down { bit, kept, memory, pieces, receiving, sending }, false),
                Ok(received) => {
                    add(kept, received);
                    let next = if 2 * bit < count {
                        self.down(k, 2 * bit, kept, memory, pieces, sending)
                    } else {
                        self.up(k, bit, vec![(ranks.rank(), &*kept)], pieces, sending)
                    };
                    (next, true)
                }
            },
            State::Up { bit, mut here, pieces, receiving, sending } => {
                let before = receiving.len();
                let mut pending = Vec::new();
                for (rank, request) in receiving {
                    match come(request, bit) {
                        Ok(piece) => here.push((rank, piece)),
                        Err(request) => pending.push((rank, request)),
                    }
                }
                let moved = pending.len() < before;
                let next = match (pending.is_empty(), bit) {
                    (false, _) => State::Up { bit, here, pieces, receiving: pending, sending },
                    (true, 1) => State::Here { sending },
                    (true, _) => self.up(k, bit / 2, here, pieces, sending),
                };
                (next, moved)
            }
            other => (other, false),
        };
        self.parts[k] = state;
        moved
    }

    /// Waits until all parts have arrived and all messages are sent.
    fn finish(mut self) {
        self.count_to(self.shards.end);
        for k in 0..self.parts.len() {
            if let State::Adds { next, .. } = &self.parts[k] {
                let zeros = (*next..self.shards.end).len();
                self.add_zeros(k, zeros);
                self.start(k);
            }
        }
        for k in 0..self.parts.len() {
            while self.moves_on(k, true) {}
            if let State::Here { sending } = std::mem::replace(&mut self.parts[k], State::Done) {
                sending.into_iter().for_each(|request| _ = self.ranks.wait(request, None, self.call));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_all_ranks_are_the_whole() {
        for (count, length) in [(1, 5), (2, 0), (4, 3), (8, 1), (8, 1001)] {
            let mut pieces: Vec<_> = (0..count).map(|rank| piece_of(rank, count, length)).collect();
            pieces.sort_by_key(|piece| (piece.start, piece.end));
            assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start), "{pieces:?}");
            assert_eq!((pieces[0].start, pieces[count - 1].end), (0, length));
        }
    }
}
