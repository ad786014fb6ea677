//! An affine map in a stream.

use ndarray::{Array1, Array2};
use pulp::{Simd, WithSimd};

use crate::kernels::row_product::{Aligned, LANES, RowWeights};
use crate::kernels::simd::dispatch::Vectors;
use crate::kernels::{Float, once};
use crate::layer::{Stage, Stages};

/// `y = x Wᵀ + b`
#[derive(Clone)]
struct LinearStage<F> {
    vectors: Vectors,
    input: usize,
    output: usize,
    weights: Weights<F>,
}

/// W, in the order of its product.
#[derive(Clone)]
enum Weights<F> {
    /// Rows of W and b, for a few dot products.
    Rows(Vec<F>), // [O, I + 1]
    /// All outputs side by side, padded to whole vectors.
    Columns(RowWeights<F>, Aligned<F>),
}

/// The maximum number of outputs that are computed as dot products.
const FEW: usize = 4;

once! {
    /// Adds the map by `weight`, `[O, I]`, and `bias`, `[O]`: to the last stage if that stage can apply it, else as a new stage.
    pub(super) fn add_linear<'a, F: Float>(weight: &'a Array2<F>, bias: Option<&'a Array1<F>>, stages: &'a mut Stages<F>) {
        let (vectors, (output, input)) = (Vectors::best(), weight.dim());
        let bias = |o: usize| bias.and_then(|bias| bias.get(o)).copied().unwrap_or(F::zero());
        let weights = if output <= FEW {
            let rows = weight.outer_iter().enumerate();
            let rows: Vec<_> = rows.flat_map(|(o, row)| row.to_vec().into_iter().chain([bias(o)])).collect();
            if stages.add_linear(&rows, output) {
                return;
            }
            Weights::Rows(rows)
        } else {
            let columns = output.next_multiple_of(LANES);
            let weight = |i, o| weight.get((o, i)).copied().unwrap_or(F::zero());
            Weights::Columns(RowWeights::new(vectors, [input, columns], &bias, &weight), Aligned::zeros(columns))
        };
        stages.push(Box::new(LinearStage { vectors, input, output, weights }));
    }
}

impl<F: Float> Stage<F> for LinearStage<F> {
    fn output(&self) -> usize {
        self.output
    }

    fn run(&mut self, steps: usize, x: &[F], y: &mut [F]) {
        self.vectors.run(Rows { stage: self, steps, x, y });
    }

    fn boxed(&self) -> Box<dyn Stage<F>> {
        Box::new(self.clone())
    }
}

/// `x · w`, with four accumulators.
#[inline(always)]
fn dot<F: Float>(x: &[F], w: &[F]) -> F {
    let mut sums = [F::zero(); 4];
    let (x_chunks, x_rest) = x.as_chunks::<4>();
    let (w_chunks, w_rest) = w.as_chunks::<4>();
    for (x, w) in x_chunks.iter().zip(w_chunks) {
        for lane in 0..4 {
            sums[lane] = x[lane].mul_add(w[lane], sums[lane]);
        }
    }
    let rest = x_rest.iter().zip(w_rest).fold(F::zero(), |sum, (&x, &w)| sum + x * w);
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// Rows `x`, `[T, I]`, to `y`, `[T, O]`.
struct Rows<'a, F> {
    stage: &'a mut LinearStage<F>,
    steps: usize,
    x: &'a [F],
    y: &'a mut [F],
}

impl<F: Float> WithSimd for Rows<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Rows { stage, steps, x, y } = self;
        let (input, output) = (stage.input, stage.output);
        for t in 0..steps {
            let (x, y) = (&x[t * input..][..input], &mut y[t * output..][..output]);
            match &mut stage.weights {
                Weights::Rows(rows) => {
                    for (o, y) in y.iter_mut().enumerate() {
                        let row = &rows[o * (input + 1)..][..input + 1];
                        *y = dot(x, &row[..input]) + row[input];
                    }
                }
                Weights::Columns(product, padded) => {
                    let padded = padded.values_mut();
                    product.multiply(simd, x, padded, false);
                    y.copy_from_slice(&padded[..output]);
                }
            }
        }
    }
}
