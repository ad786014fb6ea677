//! In how many bits weights are kept for inference.

/// In how many bits a [`Prepacked`](crate::wrap::Prepacked) model keeps the weights of its products.
///
/// | | bytes a weight | a product |
/// | --- | --- | --- |
/// | `Full` | 4 (f64: 8) | `Σ v w` |
/// | `Bf16` | 2 | `Σ v ŵ` in f32; `ŵ` is w rounded to 8 significant bits |
/// | `Int8` | 1 | `s t Σ p q`; `q = w / s` and `p = v / t` rounded, the sum exact in integers of 32 bits |
/// | `Int8Dynamic` | 1 | the same with values p in 8 bits |
///
/// # How near it is
/// - `Bf16`: a weight is wrong by at most 2<sup>-9</sup> of itself.
/// - `Int8`: a weight is wrong by at most 1/254 of the largest weight of its row, which is the row that makes one output. A row of more
///   than 512 weights is cut into equal parts of at most 512, each with a scale `s` of its own. Values are wrong by at most
///   2<sup>-15</sup> of the largest value of their row, or part of a row, so what counts is the weights.
/// - `Int8Dynamic`: values are wrong by at most 1/254 of the largest of their row, too. That is the dynamic quantization of PyTorch and
///   ONNX Runtime. One large value leaves few bits to the others beside it.
///
/// `examples/fewer_bits.rs` measures what that does to the outputs of recurrent cells over a thousand steps.
///
/// # How fast it is
/// A single row, as in a step of one sequence, takes as long as its weights take to come from the caches or from memory. Many rows
/// take as long as the multiplications:
///
/// | one LSTM of 512 units, times as fast as f32 | `Bf16` | `Int8` | `Int8Dynamic` |
/// | --- | --- | --- | --- |
/// | one row, AVX-512 with VNNI | 1.7 | 3.3 | 3.4 |
/// | one row, AVX2 | 1.8 | 2.5 | 2.5 |
/// | 16 sequences, AVX-512 with VNNI | 1.0 | 1.7 | 3.3 |
/// | 16 sequences, AVX2 | 0.95 | 1.3 | 1.4 |
///
/// `docs/performance.md` has other sizes, and other libraries beside them. Without vector instructions all three are slower than f32.
///
/// # Numbers that are not ordinary
/// | | `Bf16` | `Int8`, `Int8Dynamic` |
/// | --- | --- | --- |
/// | a weight that is NaN or infinite | stays so | makes its output NaN |
/// | a value that is NaN or infinite | as in f32 | makes all outputs of its row NaN |
/// | a finite weight above the largest of 16 bits | is the largest | |
/// | products below about 1e-31 | as in f32 | lose digits, or become 0 |
/// | rows of values below 2<sup>-112</sup> | as in f32 | lose digits, or become 0 |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightPrecision {
    /// As they are, in f32 or f64.
    #[default]
    Full,
    /// In 16 bits: the sign, the exponent and 7 bits of the fraction of an f32.
    Bf16,
    /// In 8 bits with a scale for each row; the values that they are multiplied with in 16.
    Int8,
    /// In 8 bits with a scale for each row, and the values in 8 bits, too.
    Int8Dynamic,
}
