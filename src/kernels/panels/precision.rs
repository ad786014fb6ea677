//! In how many bits weights are kept for inference.

/// In how many bits a [`Prepacked`](crate::wrap::Prepacked) model keeps the weights of its products.
///
/// | | bytes a weight | what a product computes |
/// | --- | --- | --- |
/// | `Full` | 4 | `Σ v w` in f32 |
/// | `Bf16` | 2 | `Σ v ŵ` in f32; `ŵ` is w rounded to 8 significant bits, so within `2^-9` of it, relatively |
/// | `Int8` | 1 | `s t Σ p q`, the sum exact in 32 bits; `q` is w in steps of `s`, 1/127 of the largest weight of its row; `p` is v in steps of `t`, at most `2^-14` of the largest value of its row |
///
/// In `Int8`, rows of more than 512 weights are cut into equal parts of at most 512, each with steps of its own, and so are the rows
/// of values that they are multiplied with. The error of `q` is at most `s / 2`, so 1/254 of the largest weight of its part; that of `p` is
/// some hundred times smaller.
///
/// # Numbers that are not ordinary
/// | | `Bf16` | `Int8` |
/// | --- | --- | --- |
/// | a weight that is NaN or infinite | stays so | makes its output NaN |
/// | a value that is NaN or infinite | as in f32 | makes all outputs of its row NaN |
/// | a finite weight that rounds past the largest number of 16 bits | becomes that number | |
/// | subnormal weights | keep up to 8 bits | parts of a row below `1e-36` lose digits |
/// | values below `2^-112` in all of a row | as in f32 | lose digits |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightPrecision {
    /// As they are, in f32 or f64.
    #[default]
    Full,
    /// In 16 bits: the sign, the exponent and 7 bits of the fraction of an f32.
    Bf16,
    /// In 8 bits, with a scale for each row; the values that they are multiplied with in 16.
    Int8,
    /// In 8 bits, and so are the values, as in the dynamic quantization of PyTorch and ONNX Runtime.
    Int8Dynamic,
}
