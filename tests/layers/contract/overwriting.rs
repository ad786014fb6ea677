//! Layers that claim to overwrite gradients: the contract recognizes those that do not.

use gradflow::check::Contract;
use gradflow::ndarray::{Array3, ArrayRef3, ArrayView3};
use gradflow::{
    Causal, Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    author::{Accumulate, Gradient, Size, SizeError},
    layers::Linear,
    parameters,
};

use crate::common::{assert_says, panic_of, rng};

/// The behavior of a layer whose gradient is to be overwritten.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Right,
    /// Only adds.
    OnlyAdds,
    AddsAll,
    AddsBias,
    /// Overwrites even if it should add.
    OverwritesAlways,
    /// Overwrites in both uses of its part.
    OverwritesTwice,
    NothingWithoutRows,
}

/// `y = l(l(x))`: one layer, used twice.
#[derive(Clone)]
struct Twice {
    linear: Linear<f64>,
    way: Way,
}
parameters! { impl Tensors<f64> for Twice { linear as ""; skip way } }

#[derive(Default)]
struct TwiceCache {
    first: <Linear<f64> as Layer>::Cache,
    second: <Linear<f64> as Layer>::Cache,
    between: Array3<f64>,
}

impl Layer for Twice {
    type Elem = f64;
    type State = ();
    type Cache = TwiceCache;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.linear.output_size(input)
    }

    fn zero_state(&self, _: usize) {}

    fn forward_pass<'c>(&self, x: &Sequence<'_, f64>, _: &mut (), cache: &'c mut TwiceCache) -> ArrayView3<'c, f64> {
        let between = self.linear.forward(x, &mut (), &mut cache.first);
        cache.between = between.to_owned();
        self.linear.forward(x.with(between), &mut (), &mut cache.second)
    }

    fn output<'c>(&self, cache: &'c TwiceCache) -> ArrayView3<'c, f64> {
        self.linear.output(&cache.second)
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        dy: &ArrayRef3<f64>,
        _: Option<&mut ()>,
        TwiceCache { first, second, between }: &'c mut TwiceCache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, f64> {
        let only_adds = match self.way {
            Way::OnlyAdds => return self.add(x, dy, first, second, between, grad.to_add()),
            Way::AddsAll => true,
            Way::NothingWithoutRows => x.valid_count() == 0,
            _ => false,
        };
        let (grad, mut how) = grad.parts();
        let (bias, overwrites) = (grad.linear.bias.clone(), how == Accumulate::Overwrite);
        if only_adds {
            how = Accumulate::Add;
        } else if self.way == Way::OverwritesAlways {
            how = Accumulate::Overwrite;
        }
        let linear = Gradient::new(&mut grad.linear, how);
        let d = self.linear.backward(x.with(between.view()), dy, None, second, linear);
        if let (Way::AddsBias, true, Some(bias)) = (self.way, overwrites, bias) {
            *grad.linear.bias.as_mut().unwrap() += &bias;
        }
        let again = if self.way == Way::OverwritesTwice { how } else { Accumulate::Add };
        self.linear.backward(x, &d, None, first, Gradient::new(&mut grad.linear, again))
    }
}

impl Twice {
    fn add<'c>(
        &self,
        x: &Sequence<'_, f64>,
        dy: &ArrayRef3<f64>,
        first: &'c mut <Linear<f64> as Layer>::Cache,
        second: &mut <Linear<f64> as Layer>::Cache,
        between: &Array3<f64>,
        grad: &mut Self,
    ) -> ArrayView3<'c, f64> {
        let d = self.linear.backward(x.with(between.view()), dy, None, second, &mut grad.linear);
        self.linear.backward(x, &d, None, first, &mut grad.linear)
    }
}

impl Causal for Twice {}

fn twice(way: Way) -> Twice {
    Twice { linear: Linear::new(3, 3, &mut rng(1)), way }
}

#[test]
fn a_layer_that_is_used_twice_overwrites_once() {
    for way in [Way::Right, Way::OnlyAdds] {
        Contract::new("Twice", &twice(way), 3).check_causal();
    }
}

#[test]
fn layers_that_do_not_overwrite_as_they_say_are_found() {
    for (way, parts) in [
        (Way::AddsAll, ["overwriting gives another gradient", "weight: NaN in place of"]),
        (Way::AddsBias, ["overwriting gives another gradient", "bias: NaN in place of"]),
        (Way::OverwritesTwice, ["overwriting gives another gradient", "weight"]),
        (Way::NothingWithoutRows, ["overwriting gives another gradient", "where all sequences are over"]),
        // Gradient checks find it first: they start from a nonzero gradient.
        (Way::OverwritesAlways, ["gradients", "FAIL"]),
    ] {
        let message = panic_of(|| Contract::new("Twice", &twice(way), 3).check());
        assert_says(&message, &["Twice"]);
        assert_says(&message, &parts);
    }
}

/// If a model has a part that only adds, that part's gradient is set to zero, and that of the others overwritten.
#[test]
fn a_part_may_only_add() {
    let model = (twice(Way::Right).linear, twice(Way::OnlyAdds));
    Contract::new("model", &model, 3).check_causal();

    let (x, mut cache, mut grad) = (Array3::ones((2, 1, 3)), model.cache(), model.zeros_like());
    for i in 0..grad.count() {
        grad.tensor_mut(i).fill(f64::NAN);
    }
    model.pass(&x, &mut model.zero_state(1), &mut cache).backward_into(&x, &mut grad);
    assert!((0..grad.count()).all(|i| grad.values(i).iter().all(|value| value.is_finite())));
}
