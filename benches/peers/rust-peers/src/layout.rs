//! Other orders of the same numbers.

use protocol::Tensor;

/// `[A, B, C]` to `[B, A, C]`: time first to batch first, and back.
pub fn swapped(tensor: &Tensor) -> Tensor {
    let &[a, b, c] = tensor.shape.as_slice() else { panic!("three axes, not {:?}", tensor.shape) };
    let places = (0..b).flat_map(move |j| (0..a).map(move |i| (i * b + j) * c));
    Tensor::new([b, a, c], places.flat_map(|start| &tensor.values[start..start + c]).copied())
}

/// `[A, B]` to `[B, A]`.
pub fn transposed(tensor: &Tensor) -> Tensor {
    let &[a, b] = tensor.shape.as_slice() else { panic!("two axes, not {:?}", tensor.shape) };
    Tensor::new([b, a], (0..b).flat_map(|j| (0..a).map(move |i| i * b + j)).map(|place| tensor.values[place]))
}

/// Block `k` of `count` along the first axis: one gate's rows.
pub fn block(tensor: &Tensor, k: usize, count: usize) -> Tensor {
    let mut shape = tensor.shape.clone();
    shape[0] /= count;
    let size = tensor.values.len() / count;
    Tensor::new(shape, tensor.values[k * size..(k + 1) * size].iter().copied())
}

/// The blocks along the first axis, together again.
pub fn joined(blocks: &[Tensor]) -> Tensor {
    let mut shape = blocks[0].shape.clone();
    shape[0] *= blocks.len();
    Tensor::new(shape, blocks.iter().flat_map(|block| &block.values).copied())
}
