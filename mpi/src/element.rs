//! Sums over all ranks, of elements of either type.

use std::cell::RefCell;

use gradflow::author::{from_bf16, to_bf16};
use gradflow::{Float, Tensors, TensorsExt};
use mpi::collective::SystemOperation;
use mpi::request::scope;
use mpi::traits::{CommunicatorCollectives, Destination, Equivalence, Source};

use crate::options::{Reduction, Wire};
use crate::ranks::{Call, Ranks};
use crate::tree::{add, round};

/// An element type: `f32` or `f64`.
pub trait Element: Float + Equivalence {
    /// The memory for sums of this type.
    #[doc(hidden)]
    fn buffers(ranks: &Ranks) -> &RefCell<Buffers<Self>>;
}

impl Element for f32 {
    fn buffers(ranks: &Ranks) -> &RefCell<Buffers<f32>> {
        &ranks.f32
    }
}

impl Element for f64 {
    fn buffers(ranks: &Ranks) -> &RefCell<Buffers<f64>> {
        &ranks.f64
    }
}

/// Maximum number of elements per message: while one is added, the next are on their way. Below the limit of MPI's counts.
pub(crate) const PIECE: usize = 1 << 16;

/// Memory that is reused from call to call.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Buffers<F> {
    /// The elements of all tensors, one tensor after the other.
    flat: Vec<F>,
    received: Vec<F>,
    halves_to_send: Vec<u16>,
    halves_received: Vec<u16>,
}

impl<F: Element> Buffers<F> {
    /// Replaces `tensors` by `factor_of_all` times the sum over all ranks of `factor` times `tensors`.
    pub(crate) fn sum_of_tensors(
        &mut self,
        ranks: &Ranks,
        call: Call,
        tensors: &mut dyn Tensors<F>,
        factor: F,
        factor_of_all: F,
    ) {
        let mut flat = std::mem::take(&mut self.flat);
        flat.clear();
        for i in 0..tensors.count() {
            flat.extend(tensors.values(i).iter().map(|&value| factor * value));
        }
        self.total(ranks, call, &mut flat, factor_of_all);
        scatter(&flat, tensors);
        self.flat = flat;
    }

    /// Sums a few numbers, exactly on the wire, for any number of ranks.
    pub(crate) fn sum_of_any(&mut self, ranks: &Ranks, call: Call, numbers: &mut [F]) {
        if ranks.count().is_power_of_two() {
            self.whole(ranks, call, numbers, Wire::Exact);
        } else {
            self.by_mpi(ranks, call, numbers);
        }
    }

    /// Replaces `own` by `factor` times the sum of all ranks' `own`.
    pub(crate) fn total(&mut self, ranks: &Ranks, call: Call, own: &mut [F], factor: F) {
        let options = ranks.options();
        let scale = |values: &mut [F]| {
            values.iter_mut().for_each(|value| *value *= factor);
            round(options.wire, values);
        };
        if options.reduction == Reduction::AllReduce {
            self.by_mpi(ranks, call, own);
            scale(own);
        } else if size_of_val(own) <= options.whole_up_to || own.len() < ranks.count() {
            self.whole(ranks, call, own, options.wire);
            scale(own);
        } else {
            self.by_halves(ranks, call, own, options.wire, scale);
        }
    }

    /// Sums by recursive doubling, in log₂ R messages of all elements.
    fn whole(&mut self, ranks: &Ranks, call: Call, own: &mut [F], wire: Wire) {
        for bit in bits(ranks.count()) {
            ranks.at_level_of(bit);
            round(wire, own);
            self.received.resize(own.len().max(self.received.len()), F::zero());
            let received = &mut self.received[..own.len()];
            let (to, from) = (&mut self.halves_to_send, &mut self.halves_received);
            swap(ranks, ranks.rank() ^ bit, call, own, received, wire, (to, from), |_, _| {});
            add(own, received);
        }
    }

    /// Sums by recursive halving and doubling, in 2 log₂ R messages that together hold 2 (R - 1) / R times all elements.
    ///
    /// On the way down, each rank sends the half that it gives up and adds to the half that it keeps; the sums are those of recursive
    /// doubling. On the way up, finished parts are exchanged.
    fn by_halves(&mut self, ranks: &Ranks, call: Call, own: &mut [F], wire: Wire, finish: impl Fn(&mut [F])) {
        let (rank, mut part, mut parents) = (ranks.rank(), 0..own.len(), Vec::new());
        let levels = bits(ranks.count());
        for bit in levels.clone() {
            ranks.at_level_of(bit);
            let is_last = 2 * bit == ranks.count();
            let middle = part.start + part.len() / 2;
            let (left, right) = own[part.clone()].split_at_mut(middle - part.start);
            let (kept, given, next) =
                if rank & bit == 0 { (left, right, part.start..middle) } else { (right, left, middle..part.end) };
            round(wire, kept);
            self.received.resize(kept.len().max(self.received.len()), F::zero());
            let received = &mut self.received[..kept.len()];
            let halves = (&mut self.halves_to_send, &mut self.halves_received);
            swap(ranks, rank ^ bit, call, given, received, wire, halves, |place, piece| {
                let sums = &mut kept[place..place + piece.len()];
                add(sums, piece);
                if is_last {
                    finish(sums); // while they are in the cache
                }
            });
            parents.push(part);
            part = next;
        }
        if ranks.count() == 1 {
            finish(own);
        }
        for bit in levels.rev() {
            ranks.at_level_of(bit);
            let part = parents.pop().expect("one for each level");
            let middle = part.start + part.len() / 2;
            let (left, right) = own[part.clone()].split_at_mut(middle - part.start);
            let (kept, given) = if rank & bit == 0 { (left, right) } else { (right, left) };
            let halves = (&mut self.halves_to_send, &mut self.halves_received);
            swap(ranks, rank ^ bit, call, kept, given, wire, halves, |_, _| {});
        }
    }

    fn by_mpi(&mut self, ranks: &Ranks, call: Call, own: &mut [F]) {
        ranks.at_level_of(1);
        self.received.resize(own.len().max(self.received.len()), F::zero());
        let received = &mut self.received[..own.len()];
        // Stays below the limit of MPI's counts.
        for (own, received) in own.chunks(1 << 30).zip(received.chunks_mut(1 << 30)) {
            scope(|scope| {
                let sum = SystemOperation::sum();
                ranks.wait(ranks.world().immediate_all_reduce_into(scope, own, received, sum), None, call);
            });
        }
        own.copy_from_slice(received);
    }
}

/// The powers of two below `ranks`.
pub(crate) fn bits(ranks: usize) -> impl DoubleEndedIterator<Item = usize> + Clone {
    (0..ranks.ilog2()).map(|level| 1 << level)
}

/// Copies `flat` back into the tensors.
pub(crate) fn scatter<F: Float>(flat: &[F], tensors: &mut dyn Tensors<F>) {
    let mut rest = flat;
    for i in 0..tensors.count() {
        let place = tensors.tensor_mut(i);
        let (own, after) = rest.split_at(place.len());
        place.copy_from_slice(own);
        rest = after;
    }
}

/// Sends `own` to a rank and receives as many elements from it as `received` holds; hands over each piece that has arrived, with its
/// place.
#[allow(clippy::too_many_arguments)]
fn swap<F: Element>(
    ranks: &Ranks,
    with: usize,
    call: Call,
    own: &[F],
    received: &mut [F],
    wire: Wire,
    (halves_to_send, halves_received): (&mut Vec<u16>, &mut Vec<u16>),
    mut came: impl FnMut(usize, &[F]),
) {
    if wire == Wire::Exact {
        return exchange(ranks, with, call, own, received, came);
    }
    halves_to_send.resize(own.len(), 0);
    halves_to_send.iter_mut().zip(own).for_each(|(half, x)| *half = to_bf16(x.widen() as f32));
    halves_received.resize(received.len(), 0);
    exchange(ranks, with, call, halves_to_send, halves_received, |place, piece| {
        let wide = &mut received[place..place + piece.len()];
        wide.iter_mut().zip(piece).for_each(|(wide, &half)| *wide = F::of(from_bf16(half).into()));
        came(place, wide);
    });
}

/// Sends `own` to a rank and receives as many elements from it as `received` holds, in pieces.
fn exchange<T: Equivalence>(
    ranks: &Ranks,
    with: usize,
    call: Call,
    own: &[T],
    received: &mut [T],
    mut came: impl FnMut(usize, &[T]),
) {
    let (other, tag) = (ranks.other(with), call.tag());
    scope(|scope| {
        let receive = |piece| other.immediate_receive_into_with_tag(scope, piece, tag);
        let receiving: Vec<_> = received.chunks_mut(PIECE).map(receive).collect();
        let send = |piece| other.immediate_send_with_tag(scope, piece, tag);
        let sending: Vec<_> = own.chunks(PIECE).map(send).collect();
        for (k, request) in receiving.into_iter().enumerate() {
            let (status, piece) = ranks.wait(request, Some(with), call);
            let got = status.count(T::equivalent_datatype()) as usize;
            if got != piece.len() {
                let expected = piece.len();
                ranks.end_all(&format_args!("expected {expected} elements from rank {with} in {call}, got {got}"));
            }
            came(k * PIECE, piece);
        }
        sending.into_iter().for_each(|request| _ = ranks.wait(request, Some(with), call));
    });
}

/// Sends `own` to a rank.
pub(crate) fn send<T: Equivalence>(ranks: &Ranks, to: usize, call: Call, own: &[T]) {
    let (other, tag) = (ranks.other(to), call.tag());
    scope(|scope| {
        let sending: Vec<_> = own.chunks(PIECE).map(|piece| other.immediate_send_with_tag(scope, piece, tag)).collect();
        sending.into_iter().for_each(|request| _ = ranks.wait(request, Some(to), call));
    });
}

/// Receives from a rank as many elements as `received` holds.
pub(crate) fn receive<T: Equivalence>(ranks: &Ranks, from: usize, call: Call, received: &mut [T]) {
    exchange::<T>(ranks, from, call, &[], received, |_, _| {});
}
