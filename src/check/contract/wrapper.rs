//! The contract of a wrapper: it computes the same as the layer inside.

use ndarray::Array3;

use super::values::{bits, output_gradient};
use super::{BATCH, Contract, LENGTHS, STEPS};
use crate::base::{Size, TensorsExt, ZerosLike};
use crate::kernels::Float;
use crate::layer::{Gradient, Internal, Layer, Sequence};

/// Bits of a pass: the output alone and as a residual branch, `dL/dx` of both, and the gradients by name.
type Bits = (Vec<u64>, Vec<u64>, Vec<u64>, Vec<u64>, Vec<(String, Vec<u64>)>);

impl<L: Layer> Contract<'_, L> {
    /// Checks that this layer, a wrapper, computes the same bits as `inner`, from a zero state: alone and as the branch of a
    /// residual connection, forward and backward, with and without lengths. Tensors that `inner` does not have are not compared.
    ///
    /// ```
    /// use gradflow::{
    ///     check::Contract, layers::Linear, rand::{SeedableRng, rngs::StdRng}, wrap::{GradientProbe, Probed},
    /// };
    ///
    /// let layer = Linear::<f32>::new(4, 4, &mut StdRng::seed_from_u64(0));
    /// let wrapper = Probed::new("linear", layer.clone(), &GradientProbe::new());
    /// Contract::new("Probed", &wrapper, 4).check_wraps(&layer);
    /// ```
    ///
    /// # Panics
    /// Panics at the first difference.
    #[track_caller]
    pub fn check_wraps<M: Layer<Elem = L::Elem>>(&self, inner: &M) {
        let batch = self.batch(STEPS, BATCH);
        let (whole, rows) = (batch.sequence(), self.batch(1, 40));
        let lengths = whole.with_lengths(&LENGTHS).expect("lengths that fit");
        for (what, x) in [("", whole), (", with lengths", lengths), (", over many rows", rows.sequence())] {
            for (mode, x) in [("training", x.train(3)), ("evaluation", x.eval())] {
                let (got, want) = (run(self.layer, x), run(inner, x));
                self.assert(got.0 == want.0, &format!("the output is not the layer's in {mode}{what}"));
                self.assert(
                    got.1 == want.1,
                    &format!("as a residual branch, the output is not the layer's in {mode}{what}"),
                );
                self.assert(got.2 == want.2, &format!("dL/dx is not the layer's in {mode}{what}"));
                self.assert(
                    got.3 == want.3,
                    &format!("as a residual branch, dL/dx is not the layer's in {mode}{what}"),
                );
                for (name, bits) in &want.4 {
                    let same = got.4.iter().any(|(other, got)| other == name && got == bits);
                    self.assert(same, &format!("the gradient of {name} is not the layer's in {mode}{what}"));
                }
            }
        }
    }
}

fn run<L: Layer>(layer: &L, x: Sequence<'_, L::Elem>) -> Bits {
    let ((steps, batch), output) = (x.dims(), layer.output_size(x.size()).expect("a size that fits"));
    let shape = (layer.output_steps().of(steps), batch, output);
    let (mut cache, mut grad, dy) = (layer.cache(), layer.zeros_like(), output_gradient(shape));
    let y = bits(&layer.forward(x, &mut layer.zero_state(batch), &mut cache).to_owned());
    let dx = bits(&layer.backward(x, &dy, None, &mut cache, Gradient::overwrite(&mut grad)).to_owned());
    let skip = Array3::from_shape_fn(shape, |(t, b, k)| L::Elem::of((t + 2 * b + 3 * k) as f64 / 7.0));
    let mut onto = Array3::zeros(shape);
    layer.forward_onto(&x, skip.view(), &mut layer.zero_state(batch), &mut cache, &mut onto, Internal);
    let dx_onto = bits(&layer.backward(x, &dy, None, &mut cache, Gradient::overwrite(&mut grad)).to_owned());
    let wanted = matches!(x.size(), Size::Features(_));
    let named = (0..grad.count()).map(|i| (grad.name(i), grad.values(i).iter().map(|v| v.bits()).collect())).collect();
    (y, bits(&onto), if wanted { dx } else { Vec::new() }, if wanted { dx_onto } else { Vec::new() }, named)
}
