//! The ranks, and how they wait for each other.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::hint::spin_loop;
use std::io::Write;
use std::ops::Range;
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use gradflow::{Layer, Tensors, TensorsExt};
use mpi::Tag;
use mpi::point_to_point::Status;
use mpi::request::{Request, Scope};
use mpi::topology::{Process, SimpleCommunicator};
use mpi::traits::{Communicator, Source};

use crate::buckets::BucketSum;
use crate::element::{Buffers, Element};
use crate::options::Options;
use crate::shard::{Shard, start};
use crate::sum::TreeSum;

/// What a rank was called to do, for the messages' tags and the errors' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Mean = 1,
    Sum,
    Numbers,
    Broadcast,
    Agree,
    State,
    Length,
    /// The end of `run`.
    Leave,
}

impl Call {
    const ALL: [Call; 8] =
        [Call::Mean, Call::Sum, Call::Numbers, Call::Broadcast, Call::Agree, Call::State, Call::Length, Call::Leave];

    pub fn tag(self) -> Tag {
        self as Tag
    }

    fn of_tag(tag: Tag) -> Option<Call> {
        if tag >= BUCKETS {
            return Some(Call::Mean);
        }
        Call::ALL.into_iter().find(|call| call.tag() == tag)
    }
}

/// As the end of "it is waiting in …".
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Call::Mean => "a mean of gradients",
            Call::Sum => "a sum of tensors",
            Call::Numbers => "a sum of numbers",
            Call::Broadcast => "a broadcast or a check of tensors",
            Call::Agree => "an agreement on errors",
            Call::State => "a gathering of states",
            Call::Length => "a check of the number of elements",
            Call::Leave => "its end",
        })
    }
}

/// Tags from here on are of [buckets](crate::BucketSum).
pub(crate) const BUCKETS: Tag = 100;

/// How often a request is tested before the rank lets others run.
const SPINS: u32 = 2000;

/// How much longer a rank waits for each level of the tree: a rank that waits for a silent one speaks before those that wait for it.
const LONGER: Duration = Duration::from_millis(500);

/// How long a message may be on its way while its sender is already doing something else.
const GRACE: Duration = Duration::from_millis(200);

/// The processes that train together, each with its number, the rank. [`run`](crate::run) makes it.
///
/// All ranks must call the same methods in the same order, as in any program over MPI.
pub struct Ranks {
    world: SimpleCommunicator,
    options: Options,
    rank: usize,
    count: usize,
    /// How many calls there were, for errors.
    calls: Cell<u64>,
    /// The level of the tree at which it exchanges messages.
    level: Cell<u32>,
    /// The numbers of elements that all ranks are known to have, for each call and type.
    lengths: RefCell<Vec<(Call, &'static str, usize)>>,
    pub(crate) f32: RefCell<Buffers<f32>>,
    pub(crate) f64: RefCell<Buffers<f64>>,
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ranks { options, rank, count, .. } = self;
        let mut shown = f.debug_struct("Ranks");
        shown.field("rank", rank).field("count", count).field("options", options).finish_non_exhaustive()
    }
}

impl Ranks {
    pub(crate) fn new(world: SimpleCommunicator, options: Options) -> Self {
        let (rank, count) = (world.rank() as usize, world.size() as usize);
        let (calls, level, lengths, f32, f64) = Default::default();
        Ranks { world, options, rank, count, calls, level, lengths, f32, f64 }
    }

    /// The number of this process, from 0 up.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether this is rank 0: the one that prints, and that writes files.
    ///
    /// ```
    /// # gradflow_mpi::run(gradflow_mpi::Options::new(), |ranks| {
    /// if ranks.is_first() {
    ///     println!("{} ranks", ranks.count());
    /// }
    /// # Ok::<_, String>(()) });
    /// ```
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// How they work together.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// This rank's part of a batch of `batch` sequences: those of all its shards, in one. For the shortest loop, which ends with
    /// [`mean`](Ranks::mean) or [`weighted_mean`](Ranks::weighted_mean); its bits depend on the number of ranks, unlike those of a loop
    /// over [`shards`](Ranks::shards).
    ///
    /// # Panics
    /// Panics if there are fewer sequences than ranks.
    #[must_use]
    #[track_caller]
    pub fn shard(&self, batch: usize) -> Shard {
        let (rank, count) = (self.rank, self.count);
        assert!(batch >= count, "Ranks: shard: expected at least {count} sequences for {count} ranks, got {batch}");
        Shard { index: rank, place: 0, sequences: start(batch, rank, count)..start(batch, rank + 1, count) }
    }

    /// The numbers of the shards that belong to a rank.
    pub(crate) fn shards_of(&self, rank: usize) -> Range<usize> {
        let shards = self.options.shards;
        start(shards, rank, self.count)..start(shards, rank + 1, self.count)
    }

    /// The shards of a batch of `batch` sequences that this rank computes, in order. Shard s of S has the sequences from `s B / S` to
    /// `(s + 1) B / S`, rounded down; shards without a sequence are left out.
    pub fn shards(&self, batch: usize) -> impl DoubleEndedIterator<Item = Shard> + use<> {
        let (own, shards) = (self.shards_of(self.rank), self.options.shards);
        let first = own.start;
        own.map(move |index| {
            let sequences = start(batch, index, shards)..start(batch, index + 1, shards);
            Shard { index, place: index - first, sequences }
        })
        .filter(|shard| !shard.sequences.is_empty())
    }

    /// How many shards of a batch this rank has at most: one more than the largest [`place`](Shard::place).
    #[must_use]
    pub fn own_shards(&self) -> usize {
        self.shards_of(self.rank).len()
    }

    /// The state before the first step of each of this rank's shards, by [`place`](Shard::place), for a batch of `batch` sequences.
    ///
    /// A shard without a sequence has the state of an empty batch.
    #[must_use]
    pub fn zero_states<L: Layer>(&self, model: &L, batch: usize) -> Vec<L::State> {
        let shards = self.options.shards;
        let counts = self.shards_of(self.rank).map(|s| start(batch, s + 1, shards) - start(batch, s, shards));
        counts.map(|count| model.zero_state(count)).collect()
    }

    /// A sum over all shards of tensors like `model`'s, with memory that is reused from step to step.
    #[must_use]
    pub fn tree_sum<F: Element>(&self, model: &(impl Tensors<F> + ?Sized)) -> TreeSum<'_, F> {
        TreeSum::new(self, model.element_count())
    }

    /// A sum over all shards of a gradient in parts like `parts`, which go out while the backward pass still runs.
    ///
    /// # Panics
    /// Panics if there are more than 500 parts.
    #[must_use]
    #[track_caller]
    pub fn bucket_sum<F: Element>(&self, parts: &[&dyn Tensors<F>]) -> BucketSum<'_, F> {
        BucketSum::new(self, parts)
    }

    /// Another rank, to send to and to receive from.
    pub(crate) fn other(&self, rank: usize) -> Process<'_> {
        self.world.process_at_rank(rank as mpi::Rank)
    }

    pub(crate) fn world(&self) -> &SimpleCommunicator {
        &self.world
    }

    /// Counts a call.
    pub(crate) fn called(&self, call: Call) -> Call {
        self.calls.set(self.calls.get() + 1);
        call
    }

    /// Checks that all ranks sum as many elements, the first time for this number: messages of another length than is expected would
    /// end the program without a word.
    #[track_caller]
    pub(crate) fn check_length<F: Element>(&self, call: Call, length: usize) {
        let key = (call, std::any::type_name::<F>(), length);
        if !self.lengths.borrow().contains(&key) {
            if let Err(error) = self.check_same_length(call, length) {
                panic!("{error}");
            }
            self.lengths.borrow_mut().push(key);
        }
    }

    /// That the next messages are exchanged between ranks that differ in this bit.
    pub(crate) fn at_level_of(&self, bit: usize) {
        self.level.set(bit.ilog2());
    }

    /// Waits until `request` is done, for which `from` must do its part of `call`; of a call of MPI's own, any rank. Does not return if
    /// that takes longer than the patience, or cannot happen.
    pub(crate) fn wait<'a, D: ?Sized, S: Scope<'a>>(
        &self,
        mut request: Request<'a, D, S>,
        from: Option<usize>,
        call: Call,
    ) -> (Status, &'a D) {
        for _ in 0..SPINS {
            match request.test_with_data() {
                Ok(done) => return done,
                Err(again) => request = again,
            }
            spin_loop();
        }
        let (begin, mut elsewhere) = (Instant::now(), None);
        let patience = self.options.patience + LONGER * self.level.get();
        loop {
            match request.test_with_data() {
                Ok(done) => return done,
                Err(again) => request = again,
            }
            // More ranks than cores: the others need this one to work.
            yield_now();
            let waited = begin.elapsed();
            if waited > GRACE {
                // What it does instead, if that is known, and since when: its message to this call would have been here before.
                let other =
                    from.and_then(|from| self.other(from).immediate_probe()).and_then(|s| Call::of_tag(s.tag()));
                let (place, since) = *elsewhere.get_or_insert((other, waited));
                if place != other {
                    elsewhere = Some((other, waited));
                } else if let (Some(other), Some(from)) = (other.filter(|&other| other != call), from)
                    && waited - since > GRACE
                {
                    self.end_all(&format_args!(
                        "waits in {call} for rank {from}, which is in {other} (call {})",
                        self.calls.get()
                    ));
                }
                sleep(Duration::from_micros(20));
            }
            if waited > patience {
                let whom = from.map_or("another rank".into(), |from| format!("rank {from}"));
                let calls = self.calls.get();
                self.end_all(&format_args!(
                    "waited {waited:.1?} in {call} for {whom}, which sent nothing (call {calls})"
                ));
            }
        }
    }

    /// Says why, and ends all ranks.
    pub(crate) fn end_all(&self, why: &dyn fmt::Display) -> ! {
        let Ranks { rank, count, .. } = self;
        // As a whole: the other ranks may write too.
        let line = format!("error: rank {rank} of {count}: {why}\n");
        let mut stderr = std::io::stderr();
        let _ = stderr.write_all(line.as_bytes()).and_then(|()| stderr.flush());
        // The line is on its way to rank 0's terminal through the starter, which ends with the ranks.
        sleep(Duration::from_millis(100));
        self.world.abort(1)
    }

    /// Returns when all ranks have come here.
    pub(crate) fn leave(&self) {
        let call = self.called(Call::Leave);
        let mut none = [0.0];
        self.f64.borrow_mut().sum_of_any(self, call, &mut none);
    }

    /// Sums of numbers over all ranks, along the tree: losses, weights, counts. Of metrics, which are tensors, by
    /// [`sum`](Ranks::sum).
    ///
    /// # Panics
    /// Panics if ranks have other numbers of them.
    #[track_caller]
    pub fn sum_numbers(&self, numbers: &mut [f64]) {
        let call = self.called(Call::Numbers);
        self.check_length::<f64>(call, numbers.len());
        self.f64.borrow_mut().sum_of_any(self, call, numbers);
    }

    /// The sum over all ranks of tensors that each of them has: of metrics, or of gradients of sums.
    ///
    /// ```
    /// use gradflow::{metrics::Accuracy, ndarray::{arr2, arr3}};
    /// # gradflow_mpi::run(gradflow_mpi::Options::new(), |ranks| {
    /// let mut accuracy = Accuracy::new();
    /// accuracy.add(&arr3(&[[[0.0_f32, 1.0]]]), &arr2(&[[1]])); // of this rank's part of the data
    /// ranks.sum(&mut accuracy);
    /// assert_eq!((accuracy.value(), accuracy.total()), (1.0, ranks.count() as f64));
    /// # Ok::<_, String>(()) });
    /// ```
    ///
    /// # Panics
    /// Panics if ranks have other numbers of elements.
    #[track_caller]
    pub fn sum<F: Element>(&self, tensors: &mut (impl Tensors<F> + ?Sized)) {
        let call = self.called(Call::Sum);
        self.check_length::<F>(call, tensors.element_count());
        F::buffers(self).borrow_mut().sum_of_tensors(self, call, &mut { tensors }, F::one(), F::one());
    }

    /// The mean over all ranks of a gradient, if every rank has as many terms in its loss: the one line that a training loop needs
    /// after its backward pass.
    ///
    /// ```text
    /// g = 1/R Σ_r g_r
    /// ```
    ///
    /// # Panics
    /// Panics if ranks have other numbers of elements.
    #[track_caller]
    pub fn mean<F: Element>(&self, grad: &mut (impl Tensors<F> + ?Sized)) {
        let call = self.called(Call::Mean);
        self.check_length::<F>(call, grad.element_count());
        let factor = F::of(1.0 / self.count as f64);
        F::buffers(self).borrow_mut().sum_of_tensors(self, call, &mut { grad }, F::one(), factor);
    }

    /// The mean over all ranks of a gradient and a loss, each weighted by the number of terms in it: that of the whole batch, for
    /// parts and lengths that differ. Returns the loss.
    ///
    /// ```text
    /// g = Σ_r w_r g_r / Σ_r w_r        L = Σ_r w_r L_r / Σ_r w_r
    /// ```
    ///
    /// The weight is what [`Loss::weight`](gradflow::loss::Loss::weight) gives.
    ///
    /// # Panics
    /// Panics if ranks have other numbers of elements.
    #[track_caller]
    pub fn weighted_mean<F: Element>(&self, grad: &mut (impl Tensors<F> + ?Sized), loss: f64, weight: f64) -> f64 {
        let call = self.called(Call::Mean);
        self.check_length::<F>(call, grad.element_count());
        let mut numbers = [weight, weight * loss];
        self.f64.borrow_mut().sum_of_any(self, call, &mut numbers);
        let [total, loss] = numbers;
        let factor = reciprocal(total);
        let (own, factor_of_all) = (F::of(weight), F::of(factor));
        F::buffers(self).borrow_mut().sum_of_tensors(self, call, &mut { grad }, own, factor_of_all);
        loss * factor
    }
}

/// 1 / x; 0 of 0, as the mean of no terms.
pub(crate) fn reciprocal(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}
