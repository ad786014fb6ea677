//! What all ranks must have in common: the model, the optimizer's state, a checkpoint, an error.

use std::fmt::Display;
use std::path::Path;

use gradflow::io::Checkpoint;
use gradflow::optim::Optimizer;
use gradflow::{Float, Layer, Tensors, TensorsExt};
use mpi::traits::Equivalence;

use crate::element::{Element, receive, scatter, send};
use crate::error::RankError;
use crate::ranks::{Call, Ranks};
use crate::shard::start;

/// Maximum length in bytes of a reason that is sent to the other ranks.
const REASON: usize = 1 << 10;

impl Ranks {
    /// Returns the result of `this` rank or, if some rank failed, the error of the lowest such rank, on all ranks.
    ///
    /// ```
    /// # gradflow_mpi::run(gradflow_mpi::Options::new(), |ranks| {
    /// let text = ranks.agree("7".parse::<u32>())?; // if it is not a number on one rank, all return that error
    /// assert_eq!(text, 7);
    /// # Ok::<_, gradflow_mpi::RankError>(()) });
    /// ```
    ///
    /// # Errors
    /// Returns an error on all ranks if `this` is an error on any rank.
    pub fn agree<T, E: Display>(&self, this: Result<T, E>) -> Result<T, RankError> {
        let call = self.called(Call::Agree);
        self.at_level_of(1);
        // 1 and the text; 0 if there is no error.
        let mut own = this.as_ref().map_or_else(|error| format!("\u{1}{error}"), |_| String::new()).into_bytes();
        own.resize(REASON, 0);
        let mut first = vec![0_u8; REASON + 8];
        if self.is_first() {
            for rank in 0..self.count() {
                let mut theirs = own.clone();
                if rank > 0 {
                    receive(self, rank, call, &mut theirs);
                }
                if theirs[0] != 0 && first[0] == 0 {
                    first[..REASON].copy_from_slice(&theirs);
                    first[REASON..].copy_from_slice(&(rank as u64).to_le_bytes());
                }
            }
        } else {
            send(self, 0, call, &own);
        }
        self.broadcast_values(call, &mut first);
        if first[0] == 0 {
            return Ok(this.unwrap_or_else(|_| unreachable!("this rank's error is one of all")));
        }
        let rank = u64::from_le_bytes(first[REASON..].try_into().expect("8 bytes")) as usize;
        let end = first.iter().position(|&byte| byte == 0).unwrap_or(REASON).min(REASON);
        Err(RankError { rank, reason: String::from_utf8_lossy(&first[1..end]).into_owned() })
    }

    /// Sends rank 0's `values` to all ranks along a binomial tree: a rank that has them sends them on to those that differ from it in a
    /// higher bit.
    fn broadcast_values<T: Equivalence>(&self, call: Call, values: &mut [T]) {
        let (rank, count) = (self.rank(), self.count());
        let mut bit = 1;
        while bit < count {
            self.at_level_of(bit);
            if rank < bit && rank + bit < count {
                send(self, rank + bit, call, values);
            } else if (bit..2 * bit).contains(&rank) {
                receive(self, rank - bit, call, values);
            }
            bit *= 2;
        }
    }

    /// Sends rank 0's bytes, of any length, to all ranks.
    fn broadcast_bytes(&self, call: Call, own: Vec<u8>) -> Vec<u8> {
        let mut length = [own.len() as u64];
        self.broadcast_values(call, &mut length);
        let mut bytes = if self.is_first() { own } else { vec![0; length[0] as usize] };
        self.broadcast_values(call, &mut bytes);
        bytes
    }

    /// Checks that all ranks run the same version with the same options.
    pub(crate) fn check_options(&self) -> Result<(), RankError> {
        let call = self.called(Call::Broadcast);
        let own = format!("{:?} of version {}", self.options(), env!("CARGO_PKG_VERSION"));
        let first = self.broadcast_bytes(call, own.clone().into_bytes());
        let same = own.as_bytes() == first;
        let misfit = || format!("options: expected {} as on rank 0, got {own}", String::from_utf8_lossy(&first));
        self.agree(if same { Ok(()) } else { Err(misfit()) })
    }

    /// Checks that all ranks sum the same number of elements in a call.
    pub(crate) fn check_same_length(&self, call: Call, length: usize) -> Result<(), RankError> {
        let mut first = [length as u64];
        self.broadcast_values(Call::Length, &mut first);
        let [first] = first;
        let same = first == length as u64;
        self.agree(if same {
            Ok(())
        } else {
            Err(format!("expected {first} elements in {call} as on rank 0, got {length}"))
        })
    }

    /// Checks that all ranks have tensors of the same names, shapes and element type, in the same order.
    ///
    /// # Errors
    /// Returns an error on all ranks otherwise. It names the lowest rank whose tensors differ from those of rank 0, and the first
    /// tensor that differs.
    pub fn check_alike<F: Float>(&self, tensors: &(impl Tensors<F> + ?Sized)) -> Result<(), RankError> {
        let call = self.called(Call::Broadcast);
        let element = std::any::type_name::<F>();
        let line = |i| format!("{}: {:?} of {element}", shown(&tensors.name(i)), tensors.shape(i));
        let own: Vec<String> = (0..tensors.count()).map(line).collect();
        let first = self.broadcast_bytes(call, own.join("\n").into_bytes());
        let first = String::from_utf8_lossy(&first);
        let first: Vec<&str> = first.lines().collect();
        let misfit = if let Some(i) = (0..own.len().min(first.len())).find(|&i| own[i] != first[i]) {
            Err(format!("tensor {i}: expected {} as on rank 0, got {}", first[i], own[i]))
        } else if own.len() != first.len() {
            let (expected, got) = (first.len(), own.len());
            let i = expected.min(got);
            let which = first.get(i).copied().or(own.get(i).map(String::as_str)).unwrap_or_default();
            Err(format!("expected {expected} tensors as on rank 0, got {got}: {which} is on one of them only"))
        } else {
            Ok(())
        };
        self.agree(misfit)
    }

    /// Checks that all ranks' tensors have the same bits, as they do after every step of a training. If a rank's bits differ, it has
    /// another machine, another version or another loop.
    ///
    /// # Errors
    /// Returns an error on all ranks otherwise. It names the lowest rank whose tensors differ from those of rank 0, and the first
    /// tensor that differs.
    pub fn check_equal<F: Float>(&self, tensors: &(impl Tensors<F> + ?Sized)) -> Result<(), RankError> {
        self.check_alike(tensors)?;
        let call = self.called(Call::Broadcast);
        let own: Vec<u64> = (0..tensors.count()).map(|i| hash(tensors.values(i))).collect();
        let mut first = own.clone();
        self.broadcast_values(call, &mut first);
        self.agree(match own.iter().zip(&first).position(|(own, first)| own != first) {
            Some(i) => Err(format!("{}: other values than on rank 0", shown(&tensors.name(i)))),
            None => Ok(()),
        })
    }

    /// Gives all ranks the values of rank 0, such as a model's initial weights.
    ///
    /// # Errors
    /// Returns an error on all ranks, as [`check_alike`](Ranks::check_alike) does, if they do not have the same tensors; then nothing
    /// is changed.
    pub fn broadcast<F: Element>(&self, tensors: &mut (impl Tensors<F> + ?Sized)) -> Result<(), RankError> {
        self.check_alike(tensors)?;
        let call = self.called(Call::Broadcast);
        let mut flat: Vec<F> = (0..tensors.count()).flat_map(|i| tensors.values(i)).copied().collect();
        self.broadcast_values(call, &mut flat);
        scatter(&flat, &mut { tensors });
        Ok(())
    }

    /// Gives all ranks the model and the optimizer of rank 0: at the start, or after rank 0 has read them from a file of its own.
    ///
    /// # Errors
    /// Returns an error on all ranks if their tensors, their kinds of optimizer or the optimizers' settings differ.
    pub fn broadcast_training<F: Element>(
        &self,
        model: &mut (impl Tensors<F> + ?Sized),
        optimizer: &mut dyn Optimizer<F>,
    ) -> Result<(), RankError> {
        self.broadcast(model)?;
        let call = self.called(Call::Broadcast);
        let mut bytes = Vec::new();
        if self.is_first() {
            let written = Checkpoint::new().with_optimizer(&*optimizer).save_to(&mut bytes);
            written.expect("memory takes all bytes");
        }
        let bytes = self.broadcast_bytes(call, bytes);
        let read = Checkpoint::read_from(&bytes[..]);
        self.agree(read.and_then(|checkpoint| checkpoint.load_optimizer(&{ model }, optimizer)))
    }

    /// Saves a checkpoint on rank 0 alone, while the other ranks wait.
    ///
    /// ```no_run
    /// # use gradflow::{io::Checkpoint, ndarray::arr1, optim::{AdamW, Optimizer}};
    /// # gradflow_mpi::run(gradflow_mpi::Options::new(), |ranks| {
    /// # let (mut model, mut optimizer) = (arr1(&[1.0_f32]), AdamW::new(1e-3));
    /// ranks.save("run.safetensors", || {
    ///     Checkpoint::new().with_tensors("model", &model).with_optimizer(&optimizer)
    /// })?;
    /// let checkpoint = ranks.open("run.safetensors")?;
    /// ranks.agree(checkpoint.load_training("model", &mut model, &mut optimizer))?;
    /// # Ok::<_, gradflow_mpi::RankError>(()) });
    /// ```
    ///
    /// # Errors
    /// Returns an error on all ranks if the file could not be written.
    pub fn save(&self, path: impl AsRef<Path>, checkpoint: impl FnOnce() -> Checkpoint) -> Result<(), RankError> {
        let path = path.as_ref();
        let saved = if self.is_first() { checkpoint().save(path) } else { Ok(()) };
        self.agree(saved.map_err(|error| format!("{}: {error}", path.display())))
    }

    /// Reads a checkpoint on rank 0 and gives it to all ranks: the others need no access to the file.
    ///
    /// # Errors
    /// Returns an error on all ranks if it could not be read.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Checkpoint, RankError> {
        let mut bytes = Vec::new();
        // The checksum is verified here, and again on every rank.
        let read = if self.is_first() {
            Checkpoint::open(path).map(|checkpoint| checkpoint.save_to(&mut bytes).expect("memory takes all bytes"))
        } else {
            Ok(())
        };
        self.agree(read)?;
        let call = self.called(Call::Broadcast);
        let bytes = self.broadcast_bytes(call, bytes);
        self.agree(Checkpoint::read_from(&bytes[..]))
    }

    /// The state of the whole batch of `batch` sequences, gathered from all ranks' shards (by [`place`](crate::Shard::place)), for a
    /// checkpoint that any number of ranks can continue. [`Layer::select_state`] extracts a shard's part again.
    ///
    /// ```
    /// use gradflow::{Layer, recurrent::LstmCell};
    /// # gradflow_mpi::run(gradflow_mpi::Options::new(), |ranks| {
    /// let model = LstmCell::<f32>::zeros(3, 4);
    /// let mut states = ranks.zero_states(&model, 16);
    /// let whole = ranks.gather_states(&model, 16, &states);
    /// for shard in ranks.shards(16) {
    ///     let sequences: Vec<_> = shard.sequences().collect();
    ///     states[shard.place()] = model.select_state(&whole, &sequences);
    /// }
    /// # Ok::<_, String>(()) });
    /// ```
    ///
    /// # Panics
    /// Panics if the states are not those of this rank's shards.
    #[track_caller]
    pub fn gather_states<L: Layer>(&self, model: &L, batch: usize, states: &[L::State]) -> L::State
    where
        L::Elem: Element,
    {
        let call = self.called(Call::State);
        let (expected, got) = (self.own_shards(), states.len());
        assert_eq!(expected, got, "Ranks: states: expected one for each of {expected} shards, got {got}");
        let (shards, mut whole) = (self.options().shards, model.zero_state(batch));
        for rank in 0..self.count() {
            for (place, index) in self.shards_of(rank).enumerate() {
                let sequences: Vec<_> = (start(batch, index, shards)..start(batch, index + 1, shards)).collect();
                if sequences.is_empty() {
                    continue;
                }
                let mut state =
                    if rank == self.rank() { states[place].clone() } else { model.zero_state(sequences.len()) };
                let mut flat: Vec<L::Elem> = (0..state.count()).flat_map(|i| state.values(i)).copied().collect();
                if rank != 0 && self.is_first() {
                    receive(self, rank, call, &mut flat);
                } else if rank != 0 && rank == self.rank() {
                    send(self, 0, call, &flat);
                }
                self.broadcast_values(call, &mut flat);
                scatter(&flat, &mut state);
                model.put_state(&mut whole, &sequences, &state);
            }
        }
        whole
    }
}

/// A tensor's name, if it has one.
fn shown(name: &str) -> &str {
    if name.is_empty() { "(without a name)" } else { name }
}

/// The 64-bit hash of Fowler, Noll and Vo, over elements.
fn hash<F: Float>(values: &[F]) -> u64 {
    let step = |hash: u64, value: &F| (hash ^ value.bits()).wrapping_mul(0x0100_0000_01b3);
    values.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
