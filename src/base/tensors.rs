//! Ordered, named tensors: parameters, a gradient, an optimizer's moments, a state.

use ndarray::{Array, Dimension};

use crate::kernels::{Float, once};

/// A fixed, ordered list of named tensors: a layer's parameters, a gradient, a state.
///
/// A gradient is a value of its layer's own type, so names, order and shapes agree by construction, and clipping,
/// optimizers and checks are loops over indices. The trait is object safe, and they take a `&mut dyn Tensors<F>`.
///
/// [`parameters!`](crate::parameters) writes the implementation for a struct.
///
/// # Panics
/// Every method panics if the index is not below [`count`](Tensors::count).
pub trait Tensors<F> {
    /// The number of tensors.
    fn count(&self) -> usize;
    /// The name of tensor `i`, in PyTorch's spelling: `lstm.weight_ih`.
    fn name(&self, i: usize) -> String;
    /// Shape and values of tensor `i`, row-major.
    fn tensor(&self, i: usize) -> (&[usize], &[F]);
    /// The values of tensor `i`, row-major.
    fn tensor_mut(&mut self, i: usize) -> &mut [F];
}

/// Methods that every list of [`Tensors`] has.
pub trait TensorsExt<F: Float>: Tensors<F> {
    /// The values of tensor `i`.
    fn values(&self, i: usize) -> &[F] {
        self.tensor(i).1
    }

    /// The shape of tensor `i`.
    fn shape(&self, i: usize) -> &[usize] {
        self.tensor(i).0
    }

    /// All names, in order.
    fn names(&self) -> Vec<String> {
        (0..self.count()).map(|i| self.name(i)).collect()
    }

    /// The number of elements of all tensors together.
    fn element_count(&self) -> usize {
        (0..self.count()).map(|i| self.values(i).len()).sum()
    }

    /// Sets every element to zero.
    fn set_zero(&mut self) {
        let mut this = self;
        set_zero(&mut this);
    }

    /// Multiplies every element by `factor`.
    fn scale(&mut self, factor: F) {
        let mut this = self;
        scale(&mut this, factor);
    }

    /// Adds `other`, element by element: this sums the gradients of several threads or batches.
    ///
    /// # Panics
    /// Panics if the tensors differ in number or shape.
    #[track_caller]
    fn add_assign(&mut self, other: &(impl Tensors<F> + ?Sized)) {
        let mut this = self;
        check_alike(&"add_assign", &this, &other);
        add(&mut this, &other);
    }

    /// Copies every element from `other`.
    ///
    /// # Panics
    /// Panics if the tensors differ in number or shape.
    #[track_caller]
    fn copy_from(&mut self, other: &(impl Tensors<F> + ?Sized)) {
        let mut this = self;
        check_alike(&"copy_from", &this, &other);
        copy(&mut this, &other);
    }
}

impl<F: Float, T: Tensors<F> + ?Sized> TensorsExt<F> for T {}

once! {
    fn set_zero<'a, F: Float>(tensors: &'a mut dyn Tensors<F>) {
        for i in 0..tensors.count() {
            tensors.tensor_mut(i).fill(F::zero());
        }
    }

    fn scale<'a, F: Float>(tensors: &'a mut dyn Tensors<F>, factor: F) {
        for i in 0..tensors.count() {
            tensors.tensor_mut(i).iter_mut().for_each(|value| *value *= factor);
        }
    }

    fn add<'a, F: Float>(sum: &'a mut dyn Tensors<F>, other: &'a dyn Tensors<F>) {
        for i in 0..sum.count() {
            for (sum, &value) in sum.tensor_mut(i).iter_mut().zip(other.tensor(i).1) {
                *sum += value;
            }
        }
    }

    fn copy<'a, F: Float>(to: &'a mut dyn Tensors<F>, from: &'a dyn Tensors<F>) {
        for i in 0..to.count() {
            to.tensor_mut(i).copy_from_slice(from.tensor(i).1);
        }
    }

    /// The first difference in the number of tensors or in their shapes.
    pub(crate) fn misfit<'a, F: Float>(expected: &'a dyn Tensors<F>, got: &'a dyn Tensors<F>) -> Option<String> {
        if expected.count() != got.count() {
            return Some(format!("expected {} tensors, got {}", expected.count(), got.count()));
        }
        let i = (0..expected.count()).find(|&i| expected.shape(i) != got.shape(i))?;
        let name = expected.name(i);
        Some(format!("{}: expected {:?}, got {:?}", shown(&name), expected.shape(i), got.shape(i)))
    }
}

/// A fresh gradient for anything that has tensors and can be cloned: a layer, a model, a state, a struct of yours.
///
/// ```
/// use gradflow::{ZerosLike, layers::Linear, rand::{SeedableRng, rngs::StdRng}};
///
/// let layer = Linear::<f32>::new(3, 2, &mut StdRng::seed_from_u64(0));
/// assert_eq!(layer.zeros_like(), Linear::zeros(3, 2));
/// ```
// Not a method of `TensorsExt`: the bound on the trait lets the compiler find the method of `T` behind a `&mut T`.
pub trait ZerosLike<F: Float>: Tensors<F> + Clone {
    /// The same tensors, every element zero.
    #[must_use]
    fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.set_zero();
        zeros
    }
}

impl<F: Float, T: Tensors<F> + Clone> ZerosLike<F> for T {}

/// Panics unless both hold the same number of tensors, of the same shapes.
#[track_caller]
pub(crate) fn check_alike<F: Float>(
    who: &dyn std::fmt::Display,
    expected: &(impl Tensors<F> + ?Sized),
    got: &(impl Tensors<F> + ?Sized),
) {
    if let Some(misfit) = misfit(&expected, &got) {
        panic!("{who}: {misfit}");
    }
}

/// The number of elements of an array of this shape; `None` if there can be no such array. That is so, even for an array without
/// elements, if the product of the nonzero sizes is too large.
pub(crate) fn elements_of(shape: &[usize]) -> Option<usize> {
    let product =
        shape.iter().filter(|&&size| size > 0).try_fold(1_usize, |product, &size| product.checked_mul(size))?;
    isize::try_from(product).is_ok().then(|| if shape.contains(&0) { 0 } else { product })
}

/// Panics unless a shape has as many elements as there are values, which a hand-written [`Tensors`] may get wrong.
#[track_caller]
pub(crate) fn check_values(who: &str, name: &str, shape: &[usize], got: usize) {
    let expected = elements_of(shape);
    if expected != Some(got) {
        let expected =
            expected.map_or_else(|| "more values than there can be".into(), |count| format!("{count} values"));
        panic!("{who}: {}: expected {expected} for {shape:?}, got {got}", shown(name));
    }
}

/// Tensors that own their names and shapes and belong to no layer, such as an optimizer's moments.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensors<F> {
    tensors: Vec<NamedTensor<F>>,
}

#[derive(Clone, Debug, PartialEq)]
struct NamedTensor<F> {
    name: String,
    shape: Vec<usize>,
    values: Vec<F>,
}

impl<F: Float> NamedTensors<F> {
    /// Tensors with the given names, shapes and row-major values, in this order.
    ///
    /// ```
    /// use gradflow::{Tensors, author::NamedTensors};
    ///
    /// let tensors = NamedTensors::new([("exp_avg.weight".to_owned(), vec![1, 2], vec![0.5, -0.5])]);
    /// assert_eq!(tensors.get("exp_avg.weight"), Some((&[1, 2][..], &[0.5, -0.5][..])));
    /// assert_eq!(tensors.get("weight"), None);
    /// ```
    ///
    /// # Panics
    /// Panics if the number of a tensor's values is not the number of elements of its shape.
    #[track_caller]
    pub fn new(tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<F>)>) -> Self {
        let mut list = Vec::new();
        for (name, shape, values) in tensors {
            check_values("NamedTensors", &name, &shape, values.len());
            list.push(NamedTensor { name, shape, values });
        }
        NamedTensors { tensors: list }
    }

    /// Shape and values of the tensor called `name`.
    pub fn get(&self, name: &str) -> Option<(&[usize], &[F])> {
        let tensor = self.tensors.iter().find(|tensor| tensor.name == name)?;
        Some((&tensor.shape, &tensor.values))
    }

    /// Zeros with the names and shapes of `model`'s tensors.
    pub fn zeros_like(model: &(impl Tensors<F> + ?Sized)) -> Self {
        let zeros = |i| NamedTensor {
            name: model.name(i),
            shape: model.shape(i).to_vec(),
            values: vec![F::zero(); model.values(i).len()],
        };
        NamedTensors { tensors: (0..model.count()).map(zeros).collect() }
    }
}

impl<F> Tensors<F> for NamedTensors<F> {
    fn count(&self) -> usize {
        self.tensors.len()
    }
    fn name(&self, i: usize) -> String {
        self.tensors[i].name.clone()
    }
    fn tensor(&self, i: usize) -> (&[usize], &[F]) {
        (&self.tensors[i].shape, &self.tensors[i].values)
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [F] {
        &mut self.tensors[i].values
    }
}

/// One tensor, without a name.
impl<F: Float, D: Dimension> Tensors<F> for Array<F, D> {
    fn count(&self) -> usize {
        1
    }
    fn name(&self, _: usize) -> String {
        String::new()
    }
    fn tensor(&self, _: usize) -> (&[usize], &[F]) {
        (self.shape(), self.as_slice().expect("a tensor in standard (row-major) layout: see `as_standard_layout`"))
    }
    fn tensor_mut(&mut self, _: usize) -> &mut [F] {
        self.as_slice_mut().expect("a tensor in standard (row-major) layout: see `as_standard_layout`")
    }
}

/// No tensors: the state of a feed-forward layer.
impl<F> Tensors<F> for () {
    fn count(&self) -> usize {
        0
    }
    fn name(&self, i: usize) -> String {
        out_of_range(i)
    }
    fn tensor(&self, i: usize) -> (&[usize], &[F]) {
        out_of_range(i)
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [F] {
        out_of_range(i)
    }
}

/// `None` has no tensors: a bias that is switched off.
impl<F, T: Tensors<F>> Tensors<F> for Option<T> {
    fn count(&self) -> usize {
        self.as_ref().map_or(0, T::count)
    }
    fn name(&self, i: usize) -> String {
        self.as_ref().map_or_else(|| out_of_range(i), |tensors| tensors.name(i))
    }
    fn tensor(&self, i: usize) -> (&[usize], &[F]) {
        self.as_ref().map_or_else(|| out_of_range(i), |tensors| tensors.tensor(i))
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [F] {
        self.as_mut().map_or_else(|| out_of_range(i), |tensors| tensors.tensor_mut(i))
    }
}

/// A borrowed list: `&mut (&mut a, &mut b)` clips or steps two parts together.
impl<F, T: Tensors<F> + ?Sized> Tensors<F> for &mut T {
    fn count(&self) -> usize {
        (**self).count()
    }
    fn name(&self, i: usize) -> String {
        (**self).name(i)
    }
    fn tensor(&self, i: usize) -> (&[usize], &[F]) {
        (**self).tensor(i)
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [F] {
        (**self).tensor_mut(i)
    }
}

/// A borrowed list, to be read: `&(&a, &b)` is the gradient of `&mut (&mut x, &mut y)`.
///
/// ```
/// use gradflow::{ndarray::arr1, optim::{Optimizer, Sgd}};
///
/// let (mut encoder, mut decoder) = (arr1(&[1.0]), arr1(&[2.0, 3.0]));
/// let (dencoder, ddecoder) = (arr1(&[4.0]), arr1(&[5.0, 6.0]));
/// Sgd::new(0.5).step(&mut (&mut encoder, &mut decoder), &(&dencoder, &ddecoder));
/// assert_eq!((encoder, decoder), (arr1(&[-1.0]), arr1(&[-0.5, 0.0])));
/// ```
///
/// # Panics
/// [`tensor_mut`](Tensors::tensor_mut) panics: shared tensors cannot be changed.
impl<F, T: Tensors<F> + ?Sized> Tensors<F> for &T {
    fn count(&self) -> usize {
        (**self).count()
    }
    fn name(&self, i: usize) -> String {
        (**self).name(i)
    }
    fn tensor(&self, i: usize) -> (&[usize], &[F]) {
        (**self).tensor(i)
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [F] {
        let name = self.name(i);
        panic!("tensor_mut: {name:?}: expected tensors that can be changed, got a shared reference to them")
    }
}

/// The tensors of one element after the other, named by position: `0.weight`, `1.weight`.
impl<F, T: Tensors<F>> Tensors<F> for Vec<T> {
    fn count(&self) -> usize {
        self.iter().map(T::count).sum()
    }
    fn name(&self, i: usize) -> String {
        let (k, i) = locate(self, i);
        join(&k.to_string(), self[k].name(i))
    }
    fn tensor(&self, i: usize) -> (&[usize], &[F]) {
        let (k, i) = locate(self, i);
        self[k].tensor(i)
    }
    fn tensor_mut(&mut self, i: usize) -> &mut [F] {
        let (k, i) = locate(self, i);
        self[k].tensor_mut(i)
    }
}

/// The index of the part that holds tensor `i`, and the tensor's index in that part.
fn locate<F, T: Tensors<F>>(parts: &[T], i: usize) -> (usize, usize) {
    let mut rest = i;
    for (k, part) in parts.iter().enumerate() {
        match rest.checked_sub(part.count()) {
            None => return (k, rest),
            Some(less) => rest = less,
        }
    }
    out_of_range(i)
}

/// `prefix.name`; if one of the two is empty, the other one.
#[doc(hidden)]
pub fn join(prefix: &str, name: String) -> String {
    match (prefix, name.as_str()) {
        ("", _) => name,
        (_, "") => prefix.into(),
        _ => format!("{prefix}.{name}"),
    }
}

/// A tensor's name in a message; a single array has none.
pub(crate) fn shown(name: &str) -> &str {
    if name.is_empty() { "(unnamed)" } else { name }
}

#[doc(hidden)]
#[cold]
pub fn out_of_range(i: usize) -> ! {
    panic!("tensor index {i} is past the last tensor")
}

/// Implements [`Tensors`] for a struct whose listed fields hold tensors, in the order of the list.
///
/// Each field is itself [`Tensors`]: an array, an `Option` of one, a layer, a `Vec` of layers. `field as "label"`
/// gives it another name (`""` for none: its tensors are named as if they were the struct's own); `skip` lists the
/// fields that hold no tensors. Every field must be in one of the lists: a forgotten field, which would be a
/// parameter that never trains, is a compile error.
///
/// ```
/// use gradflow::{Float, Tensors, TensorsExt, parameters, ndarray::{Array1, Array2}};
///
/// #[derive(Clone)]
/// struct Scale<F> { gain: Array1<F>, bias: Option<Array1<F>>, mixing: Array2<F>, note: &'static str }
/// parameters! { impl<F: Float> Tensors<F> for Scale<F> { gain as "weight", bias, mixing; skip note } }
///
/// let scale = Scale::<f32> { gain: Array1::ones(3), bias: None, mixing: Array2::eye(3), note: "" };
/// assert_eq!(scale.names(), ["weight", "mixing"]);
/// assert_eq!(scale.element_count(), 12);
/// ```
#[macro_export]
macro_rules! parameters {
    (impl $(<$($g:ident $(: $b:path)?),* $(,)?>)? Tensors<$f:ty> for $t:ident $(<$($a:ty),* $(,)?>)? {
        $($field:ident $(as $label:literal)?),* $(,)? $(; skip $($skip:tt),* $(,)?)?
    }) => {
        impl $(<$($g $(: $b)?),*>)? $crate::base::Tensors<$f> for $t $(<$($a),*>)? {
            fn count(&self) -> usize {
                let $t { $($field,)* $($($skip: _,)*)? } = self;
                0 $(+ $crate::base::Tensors::<$f>::count($field))*
            }
            $crate::__tensors_by_index! { $f; $($field [$($label)?]),* }
        }
    };
}

/// The methods of `Tensors` that look up an index among fields (or tuple positions).
#[doc(hidden)]
#[macro_export]
macro_rules! __tensors_by_index {
    ($f:ty; $($field:tt [$($label:literal)?]),*) => {
        fn name(&self, i: usize) -> String {
            let rest = i;
            $(
                let count = $crate::base::Tensors::<$f>::count(&self.$field);
                if rest < count {
                    let name = $crate::base::Tensors::<$f>::name(&self.$field, rest);
                    return $crate::base::tensors::join($crate::__label!($field $($label)?), name);
                }
                let rest = rest - count;
            )*
            let _ = rest;
            $crate::base::tensors::out_of_range(i)
        }
        fn tensor(&self, i: usize) -> (&[usize], &[$f]) {
            let rest = i;
            $(
                let count = $crate::base::Tensors::<$f>::count(&self.$field);
                if rest < count {
                    return $crate::base::Tensors::<$f>::tensor(&self.$field, rest);
                }
                let rest = rest - count;
            )*
            let _ = rest;
            $crate::base::tensors::out_of_range(i)
        }
        fn tensor_mut(&mut self, i: usize) -> &mut [$f] {
            let rest = i;
            $(
                let count = $crate::base::Tensors::<$f>::count(&self.$field);
                if rest < count {
                    return $crate::base::Tensors::<$f>::tensor_mut(&mut self.$field, rest);
                }
                let rest = rest - count;
            )*
            let _ = rest;
            $crate::base::tensors::out_of_range(i)
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __label {
    ($field:tt) => {
        stringify!($field)
    };
    ($field:tt $label:literal) => {
        $label
    };
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use ndarray::{arr1, arr2};

    use super::*;

    #[test]
    fn a_shared_reference_lists_what_it_borrows_and_refuses_changes() {
        let (a, b) = (arr1(&[1.0, 2.0]), arr2(&[[3.0], [4.0]]));
        let both = (&a, &b);
        assert_eq!((both.count(), both.names(), both.element_count()), (2, vec!["0".into(), "1".into()], 4));
        assert_eq!((both.tensor(0), both.tensor(1)), (a.tensor(0), b.tensor(0)));
        let refused = catch_unwind(move || (&arr1(&[1.0f64])).tensor_mut(0)[0] = 2.0).unwrap_err();
        let message = refused.downcast_ref::<String>().unwrap();
        assert!(message.contains("tensor_mut") && message.contains("shared reference"), "{message}");
    }

    #[test]
    fn tensors_are_scaled_added_copied_and_zeroed_through_references() {
        let (mut a, mut b) = (arr1(&[1.0f32, -2.0]), arr1(&[3.0f32]));
        let mut both = (&mut a, &mut b);
        both.scale(2.0);
        both.add_assign(&(&arr1(&[0.5, 0.5]), &arr1(&[1.0])));
        assert_eq!((both.values(0), both.values(1)), (&[2.5, -3.5][..], &[7.0][..]));
        both.copy_from(&(&arr1(&[1.0, 2.0]), &arr1(&[3.0])));
        assert_eq!((both.values(0), both.values(1)), (&[1.0, 2.0][..], &[3.0][..]));
        both.set_zero();
        assert_eq!((a, b), (arr1(&[0.0, 0.0]), arr1(&[0.0])));
    }

    #[test]
    fn tensors_of_other_shapes_are_refused() {
        let mut sum = (arr1(&[1.0f64]), arr1(&[2.0]));
        let refused = catch_unwind(move || sum.add_assign(&(arr1(&[1.0]), arr1(&[2.0, 3.0])))).unwrap_err();
        assert_eq!(refused.downcast_ref::<String>().unwrap(), "add_assign: 1: expected [1], got [2]");
        let mut copy = arr1(&[1.0f64]);
        let refused = catch_unwind(move || copy.copy_from(&())).unwrap_err();
        assert_eq!(refused.downcast_ref::<String>().unwrap(), "copy_from: expected 1 tensors, got 0");
    }
}
