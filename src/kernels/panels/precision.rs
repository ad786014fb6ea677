//! The precision of weights for inference.

/// The precision in which a [`Prepacked`](crate::wrap::Prepacked) model keeps the weights of its products.
///
/// | | bytes per weight | a product |
/// | --- | --- | --- |
/// | `Full` | 4 (f64: 8) | `Σ v w` |
/// | `Bf16` | 2 | `Σ v ŵ` in f32; `ŵ` is w rounded to 8 significant bits |
/// | `Int8` | 1 | `s t Σ p q`; `q = w / s` and `p = v / t` rounded, the sum exact in integers of 32 bits |
/// | `Int8Dynamic` | 1 | the same with values p in 8 bits |
///
/// # How near it is
/// - `Bf16`: the relative error of a weight is at most 2<sup>-8</sup>, half a unit in the last place.
/// - `Int8`: the error of a weight is at most 1/254 of the largest weight of its row, the row that computes one output. A row of more
///   than 512 weights is cut into equal parts of at most 512, each with its own scale `s`. The error of a value is at most
///   2<sup>-15</sup> of the largest value of its row, or part of a row, so the errors of the weights dominate.
/// - `Int8Dynamic`: the error of a value, too, is at most 1/254 of the largest of its row. This is the dynamic quantization of PyTorch
///   and ONNX Runtime. One large value leaves few bits for the others in its row.
///
/// `examples/fewer_bits.rs` measures the effect on the outputs of recurrent cells over a thousand steps.
///
/// # How fast it is
/// The time for a single row, as in a step of one sequence, is that of reading the weights from the caches or from memory. The time
/// for many rows is that of the multiplications:
///
/// | one LSTM of 512 units, times as fast as f32 | `Bf16` | `Int8` | `Int8Dynamic` |
/// | --- | --- | --- | --- |
/// | one row, AVX-512 with VNNI | 1.7 | 3.3 | 3.4 |
/// | one row, AVX2 | 1.8 | 2.5 | 2.5 |
/// | 16 sequences, AVX-512 with VNNI | 1.0 | 1.7 | 3.3 |
/// | 16 sequences, AVX2 | 0.95 | 1.3 | 1.4 |
///
/// `docs/performance.md` has other sizes, and compares other libraries. Without vector instructions, all three are slower than f32.
///
/// # Numbers that are not ordinary
/// | | `Bf16` | `Int8`, `Int8Dynamic` |
/// | --- | --- | --- |
/// | a weight that is NaN or infinite | stays NaN or infinite | makes its output NaN |
/// | a value that is NaN or infinite | as in f32 | makes all outputs of its row NaN |
/// | a finite weight above the largest of 16 bits | becomes the largest | |
/// | products below about 1e-31 | as in f32 | lose digits, or become 0 |
/// | rows of values below 2<sup>-112</sup> | as in f32 | lose digits, or become 0 |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightPrecision {
    /// Weights unchanged, in f32 or f64.
    #[default]
    Full,
    /// Weights in 16 bits: the sign, the exponent and 7 bits of the fraction of an f32.
    Bf16,
    /// Weights in 8 bits with a scale for each row; the values that they are multiplied with are in 16.
    Int8,
    /// Weights in 8 bits with a scale for each row; the values are in 8 bits, too.
    Int8Dynamic,
}
