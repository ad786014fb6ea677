//! A hash of values, to tell them from others.

use ndarray::ArrayView1;

use crate::kernels::Float;

/// Whether a backward pass checks all values of its input and its parameters, as debug builds do, or only a few of the
/// input's.
pub(crate) const CHECKS_ALL: bool = cfg!(debug_assertions);

/// A hash after Fowler, Noll and Vo (FNV-1a), of integers instead of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    pub fn add(&mut self, bits: u64) {
        self.0 = (self.0 ^ bits).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    /// Adds each value, in any memory layout, and their number.
    pub fn add_values<F: Float>(&mut self, values: ArrayView1<'_, F>) {
        // Several hashes in turn, because a single one would wait for each of its products.
        const LANES: usize = 8;
        let mut lanes = [*self; LANES];
        let (whole, rest) = values.to_slice().unwrap_or(&[]).as_chunks::<LANES>();
        for values in whole {
            for (lane, value) in lanes.iter_mut().zip(values) {
                lane.add(value.bits());
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            lane.add(value.bits());
        }
        if values.to_slice().is_none() {
            for (k, value) in values.iter().enumerate() {
                lanes[k % LANES].add(value.bits());
            }
        }
        self.add(values.len() as u64);
        lanes.into_iter().for_each(|lane| self.add(lane.0));
    }

    pub fn bits(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis};

    use super::*;

    fn of(values: &[f32]) -> u64 {
        let mut all = Fingerprint::default();
        all.add_values(values.into());
        all.bits()
    }

    #[test]
    fn every_value_and_its_place_count() {
        let values: Vec<f32> = (0..37).map(|k| (k as f32).sin()).collect();
        let want = of(&values);
        for k in 0..values.len() {
            let mut other = values.clone();
            other[k] = -1.5;
            assert_ne!(of(&other), want, "value {k} changed");
            other.clone_from(&values);
            other.swap(k, (k + 8) % values.len());
            assert_ne!(of(&other), want, "value {k} swapped with another");
        }
        assert_ne!(of(&values[..36]), want);
        assert_ne!(of(&[0.0]), of(&[]));
    }

    #[test]
    fn it_does_not_matter_where_values_lie() {
        let values = Array2::from_shape_fn((21, 3), |(k, b)| (k + 5 * b) as f32);
        let mut all = Fingerprint::default();
        all.add_values(values.index_axis(Axis(1), 1));
        assert_eq!(all.bits(), of(&values.column(1).to_vec()));
    }
}
