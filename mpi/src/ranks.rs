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

/// The operations of a rank, for the tags of messages and the texts of errors.
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

/// Completes "it is waiting in …".
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

/// First tag of the [buckets](crate::BucketSum).
pub(crate) const BUCKETS: Tag = 100;

/// Number of tests of a request before the rank yields its core.
const SPINS: u32 = 2000;

/// Extra waiting time for each level of the tree, so that a rank that waits for a silent one reports before those that wait for it.
const LONGER: Duration = Duration::from_millis(500);

/// How long a message may still be on its way after its sender has gone on to another call.
const GRACE: Duration = Duration::from_millis(200);

/// The processes that train together, each with its number, the rank.
///
/// [`run`](crate::run) makes it. All ranks must call the same methods in the same order, as in any program over MPI.
pub struct Ranks {
    world: SimpleCommunicator,
    options: Options,
    rank: usize,
    count: usize,
    /// Number of calls so far, for errors.
    calls: Cell<u64>,
    /// The level of the tree at which this rank exchanges messages.
    level: Cell<u32>,
    /// The numbers of elements already checked to be equal on all ranks, for each call and type.
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

    /// The number of this process, counted from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of ranks.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether this is rank 0, which prints and writes files.
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

    /// The options that were given to `run`.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// This rank's part of a batch of `batch` sequences: the sequences of all its shards, as one shard. It is meant for the shortest
    /// loop, which ends with [`mean`](Ranks::mean) or [`weighted_mean`](Ranks::weighted_mean). Unlike the bits of a loop over
    /// [`shards`](Ranks::shards), its bits depend on the number of ranks.
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

    /// The numbers of a rank's shards.
    pub(crate) fn shards_of(&self, rank: usize) -> Range<usize> {
        let shards = self.options.shards;
        start(shards, rank, self.count)..start(shards, rank + 1, self.count)
    }

    /// The shards of a batch of `batch` sequences that this rank computes, in order. Shard s of S has the sequences from `s B / S` to
    /// `(s + 1) B / S`, rounded down; shards without sequences are left out.
    pub fn shards(&self, batch: usize) -> impl DoubleEndedIterator<Item = Shard> + use<> {
        let (own, shards) = (self.shards_of(self.rank), self.options.shards);
        let first = own.start;
        own.map(move |index| {
            let sequences = start(batch, index, shards)..start(batch, index + 1, shards);
            Shard { index, place: index - first, sequences }
        })
        .filter(|shard| !shard.sequences.is_empty())
    }

    /// The largest number of shards of a batch that this rank can have: one more than the largest [`place`](Shard::place).
    #[must_use]
    pub fn own_shards(&self) -> usize {
        self.shards_of(self.rank).len()
    }

    /// The states before the first step of this rank's shards, by [`place`](Shard::place), for a batch of `batch` sequences.
    ///
    /// A shard without sequences has the state of an empty batch.
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

    /// A sum over all shards of a gradient in parts like `parts`, which are sent while the backward pass still runs.
    ///
    /// # Panics
    /// Panics if there are more than 500 parts.
    #[must_use]
    #[track_caller]
    pub fn bucket_sum<F: Element>(&self, parts: &[&dyn Tensors<F>]) -> BucketSum<'_, F> {
        BucketSum::new(self, parts)
    }

    /// Another rank, to send to or to receive from.
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

    /// Checks that all ranks sum the same number of elements, the first time that this number occurs. A message of unexpected length
    /// would end the program without an explanation.
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

    /// Notes that the next messages are exchanged between ranks that differ in this bit.
    pub(crate) fn at_level_of(&self, bit: usize) {
        self.level.set(bit.ilog2());
    }

    /// Waits until `request` is done, for which rank `from`, or any rank if it is `None`, must do its part of `call`. Does not return
    /// if the request takes longer than the patience, or can never be done.
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
            // If there are more ranks than cores, the others need this core to work.
            yield_now();
            let waited = begin.elapsed();
            if waited > GRACE {
                // What the other rank does instead, if known, and since when: had it sent a message for this call, that would have
                // arrived first.
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

    /// Prints the reason and ends all ranks.
    pub(crate) fn end_all(&self, why: &dyn fmt::Display) -> ! {
        let Ranks { rank, count, .. } = self;
        // In one piece, since other ranks may write too.
        let line = format!("error: rank {rank} of {count}: {why}\n");
        let mut stderr = std::io::stderr();
        let _ = stderr.write_all(line.as_bytes()).and_then(|()| stderr.flush());
        // The line reaches rank 0's terminal through the launcher, which ends with the ranks.
        sleep(Duration::from_millis(100));
        self.world.abort(1)
    }

    /// Returns once all ranks have reached this call.
    pub(crate) fn leave(&self) {
        let call = self.called(Call::Leave);
        let mut none = [0.0];
        self.f64.borrow_mut().sum_of_any(self, call, &mut none);
    }

    /// Sums numbers such as losses, weights and counts over all ranks, along the tree. For metrics, which are tensors, use
    /// [`sum`](Ranks::sum).
    ///
    /// # Panics
    /// Panics if the number of numbers differs between ranks.
    #[track_caller]
    pub fn sum_numbers(&self, numbers: &mut [f64]) {
        let call = self.called(Call::Numbers);
        self.check_length::<f64>(call, numbers.len());
        self.f64.borrow_mut().sum_of_any(self, call, numbers);
    }

    /// Sums tensors, such as metrics or gradients of summed losses, over all ranks.
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
    /// Panics if the number of elements differs between ranks.
    #[track_caller]
    pub fn sum<F: Element>(&self, tensors: &mut (impl Tensors<F> + ?Sized)) {
        let call = self.called(Call::Sum);
        self.check_length::<F>(call, tensors.element_count());
        F::buffers(self).borrow_mut().sum_of_tensors(self, call, &mut { tensors }, F::one(), F::one());
    }

    /// Replaces a gradient by its mean over all ranks, if every rank has the same number of terms in its loss. It is the one line that
    /// a training loop needs after its backward pass.
    ///
    /// ```text
    /// g = 1/R Σ_r g_r
    /// ```
    ///
    /// # Panics
    /// Panics if the number of elements differs between ranks.
    #[track_caller]
    pub fn mean<F: Element>(&self, grad: &mut (impl Tensors<F> + ?Sized)) {
        let call = self.called(Call::Mean);
        self.check_length::<F>(call, grad.element_count());
        let factor = F::of(1.0 / self.count as f64);
        F::buffers(self).borrow_mut().sum_of_tensors(self, call, &mut { grad }, F::one(), factor);
    }

    /// Replaces a gradient by its mean over all ranks, weighted by the number of terms in each loss, and returns the loss averaged in
    /// the same way: gradient and loss of the whole batch, even if parts and lengths differ.
    ///
    /// ```text
    /// g = Σ_r w_r g_r / Σ_r w_r        L = Σ_r w_r L_r / Σ_r w_r
    /// ```
    ///
    /// [`Loss::weight`](gradflow::loss::Loss::weight) computes the weight.
    ///
    /// # Panics
    /// Panics if the number of elements differs between ranks.
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

/// 1 / x, or 0 for x = 0, so that a mean of no terms is 0.
pub(crate) fn reciprocal(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}
