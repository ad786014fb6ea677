//! Tuples of layers, and the macro that makes a struct of layers a model: both run their layers one after another.

use crate::base::Tensors;
use crate::layer::{Causal, Layer, Stages};

/// Defines a struct whose layers run one after another, and makes it a [`Layer`].
///
/// The header names the element type. A layer listed `as "label"` has that name among the parameters; with `""`, its parameters are
/// named as if they were the model's own. A struct has at most eight layers: for more, nest structs or
/// [`Stacked`](crate::compose::Stacked). The state and the cache are tuples with one entry per layer.
///
/// ```
/// use gradflow::{
///     Float, Layer, TensorsExt, sequential, author::Size, layers::{Embedding, Linear}, recurrent::LstmCell,
/// };
/// use gradflow::rand::{Rng, SeedableRng, rngs::StdRng};
///
/// sequential! {
///     /// A character language model.
///     #[derive(Clone, Debug)]
///     pub struct CharLm<F: Float>: Layer<F> {
///         pub embedding: Embedding<F>,
///         pub lstm: LstmCell<F>,
///         pub head: Linear<F>,
///     }
/// }
///
/// impl<F: Float> CharLm<F> {
///     fn new(vocabulary: usize, rng: &mut impl Rng) -> Self {
///         CharLm {
///             embedding: Embedding::new(vocabulary, 16, rng),
///             lstm: LstmCell::new(16, 32, rng),
///             head: Linear::new(32, vocabulary, rng),
///         }
///     }
/// }
///
/// let model = CharLm::<f32>::new(50, &mut StdRng::seed_from_u64(0));
/// assert_eq!(model.names()[1], "lstm.weight_ih");
/// assert_eq!(model.output_size(Size::Tokens), Ok(50));
/// ```
#[macro_export]
macro_rules! sequential {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident $(<$($g:ident : $b:path),* $(,)?>)? : Layer<$f:ty> {
            $($(#[$field_attribute:meta])* $field_visibility:vis $field:ident $(as $label:literal)? : $layer:ty),+ $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visibility struct $name $(<$($g: $b),*>)? {
            $($(#[$field_attribute])* $field_visibility $field: $layer),+
        }
        $crate::parameters! {
            impl $(<$($g: $b),*>)? Tensors<$f> for $name $(<$($g),*>)? { $($field $(as $label)?),+ }
        }
        $crate::__chain! { [$($($g: $b),*)?] [$name $(<$($g),*>)?] [$f] $($field [$($label)?]: $layer),+ }
        // `for<'trivial>`: without a binder, a bound that is false for a concrete type is an error instead of a condition.
        impl $(<$($g: $b),*>)? $crate::layer::Causal for $name $(<$($g),*>)? where $(for<'trivial> $layer: $crate::layer::Causal),+ {
            fn stages(&self, stages: &mut $crate::layer::Stages<$f>) {
                $($crate::layer::causal::add_stages(&self.$field, stages);)+
            }
        }
    };
}

/// `Layer` for a type whose parts (fields, or tuple positions) are layers that run one after another.
#[doc(hidden)]
#[macro_export]
macro_rules! __chain {
    ([$($g:ident : $b:path),*] [$name:ty] [$f:ty] $($part:tt [$($label:literal)?] : $layer:ty),+) => {
        impl<$($g: $b),*> $crate::layer::Layer for $name {
            type Elem = $f;
            type State = ($(<$layer as $crate::layer::Layer>::State,)+);
            type Cache = ($(<$layer as $crate::layer::Layer>::Cache,)+);

            fn output_size(&self, size: $crate::base::Size) -> Result<usize, $crate::base::SizeError> {
                $(
                    let features = $crate::layer::Layer::output_size(&self.$part, size)
                        .map_err(|error| error.inside(stringify!($part)))?;
                    let size = $crate::base::Size::Features(features);
                )+
                match size {
                    $crate::base::Size::Features(features) => Ok(features),
                    $crate::base::Size::Tokens => unreachable!("a layer's output has features"),
                }
            }

            fn output_steps(&self) -> $crate::layer::Steps {
                let steps = $crate::layer::Steps::Same;
                $(let steps = steps.then($crate::layer::Layer::output_steps(&self.$part));)+
                steps
            }

            fn describe(&self, name: &str, summary: &mut $crate::layer::Summary) {
                $(
                    let part = $crate::base::tensors::join(name, $crate::__label!($part $($label)?).to_string());
                    $crate::layer::Layer::describe(&self.$part, &part, summary);
                )+
            }

            fn zero_state(&self, batch: usize) -> Self::State {
                ($($crate::layer::Layer::zero_state(&self.$part, batch),)+)
            }

            fn add_to_graph(
                &self,
                graph: &mut $crate::layer::Graph<$f>,
                x: $crate::layer::Signal,
            ) -> Result<$crate::layer::Signal, $crate::layer::Unsupported> {
                $(
                    let x = graph.inside($crate::__label!($part $($label)?), |graph| {
                        $crate::layer::Layer::add_to_graph(&self.$part, graph, x)
                    })?;
                )+
                Ok(x)
            }

            fn forward_pass<'c>(&self,
                x: &$crate::layer::Sequence<'_, $f>,
                state: &mut Self::State,
                cache: &'c mut Self::Cache,
            ) -> $crate::ndarray::ArrayView3<'c, $f> {
                self.expect_size(x);
                $crate::__chain! { @forward (self x state cache) [0 1 2 3 4 5 6 7] $($part)+ }
            }

            fn forward_onto(&self,
                x: &$crate::layer::Sequence<'_, $f>,
                skip: $crate::ndarray::ArrayView3<'_, $f>,
                state: &mut Self::State,
                cache: &mut Self::Cache,
                y: &mut $crate::ndarray::ArrayRef3<$f>,
                _: $crate::layer::Internal,
            ) {
                self.expect_size(x);
                $crate::__chain! { @forward_onto (self x state cache skip y) [0 1 2 3 4 5 6 7] $($part)+ }
            }

            fn output<'c>(&self, cache: &'c Self::Cache) -> $crate::ndarray::ArrayView3<'c, $f> {
                $crate::__chain! { @output (self cache) [0 1 2 3 4 5 6 7] $($part)+ }
            }

            fn backward_pass<'c>(
                &self,
                x: &$crate::layer::Sequence<'_, $f>,
                dy: &$crate::ndarray::ArrayRef3<$f>,
                mut dstate: Option<&mut Self::State>,
                cache: &'c mut Self::Cache,
                grad: $crate::layer::Gradient<'_, Self>) -> $crate::ndarray::ArrayView3<'c, $f> {
                let (grad, how) = grad.parts();
                $crate::__chain! { @backward (self x dy dstate cache grad how) [] [0 1 2 3 4 5 6 7] $($part)+ }
            }
        }
    };

    // Forward, first part to last: each takes the output of the one before.
    (@forward ($self:ident $in:ident $state:ident $cache:ident) [$i:tt $($is:tt)*] $part:tt) => {
        $crate::layer::Layer::forward_pass(&$self.$part, $in, &mut $state.$i, &mut $cache.$i)
    };
    (@forward ($self:ident $in:ident $state:ident $cache:ident) [$i:tt $($is:tt)*] $part:tt $($rest:tt)+) => {{
        let y = $crate::layer::Layer::forward_pass(&$self.$part, $in, &mut $state.$i, &mut $cache.$i);
        let y = &$crate::layer::Layer::output_sequence(&$self.$part, $in, y);
        $crate::__chain! { @forward ($self y $state $cache) [$($is)*] $($rest)+ }
    }};

    // The same, with the last part's output added to `skip`.
    (@forward_onto ($self:ident $in:ident $state:ident $cache:ident $skip:ident $y:ident)
        [$i:tt $($is:tt)*] $part:tt
    ) => {
        $crate::layer::Layer::forward_onto(&$self.$part, $in, $skip, &mut $state.$i, &mut $cache.$i, $y, $crate::layer::Internal)
    };
    (@forward_onto ($self:ident $in:ident $state:ident $cache:ident $skip:ident $y:ident)
        [$i:tt $($is:tt)*] $part:tt $($rest:tt)+
    ) => {{
        let output = $crate::layer::Layer::forward_pass(&$self.$part, $in, &mut $state.$i, &mut $cache.$i);
        let output = &$crate::layer::Layer::output_sequence(&$self.$part, $in, output);
        $crate::__chain! { @forward_onto ($self output $state $cache $skip $y) [$($is)*] $($rest)+ }
    }};

    (@output ($self:ident $cache:ident) [$i:tt $($is:tt)*] $part:tt) => {
        $crate::layer::Layer::output(&$self.$part, &$cache.$i)
    };
    (@output ($self:ident $cache:ident) [$i:tt $($is:tt)*] $part:tt $($rest:tt)+) => {
        $crate::__chain! { @output ($self $cache) [$($is)*] $($rest)+ }
    };

    // Backward, last part to first: the recursion first reverses the list.
    (@backward $names:tt [$($done:tt)*] [$i:tt $($is:tt)*] $part:tt $($rest:tt)*) => {
        $crate::__chain! { @backward $names [($part $i) $($done)*] [$($is)*] $($rest)* }
    };
    (@backward ($self:ident $x:ident $dy:ident $dstate:ident $cache:ident $grad:ident $how:ident) [($part:tt $i:tt)] $is:tt) => {
        $crate::layer::Layer::backward_pass(
            &$self.$part, $x, $dy, $dstate.as_mut().map(|state| &mut state.$i), &mut $cache.$i,
            $crate::layer::Gradient::new(&mut $grad.$part, $how),
        )
    };
    (@backward ($self:ident $x:ident $dy:ident $dstate:ident $cache:ident $grad:ident $how:ident)
        [($part:tt $i:tt) ($before:tt $j:tt) $(($earlier:tt $k:tt))*] $is:tt
    ) => {{
        let steps = $crate::layer::Layer::output_steps(&$self.$before);
        $(let steps = $crate::layer::Layer::output_steps(&$self.$earlier).then(steps);)*
        let input = $x.with_output(steps, $crate::layer::Layer::output(&$self.$before, &$cache.$j));
        let dstate = $dstate.as_mut().map(|state| &mut state.$i);
        let grad = $crate::layer::Gradient::new(&mut $grad.$part, $how);
        let d = $crate::layer::Layer::backward_pass(&$self.$part, &input, $dy, dstate, &mut $cache.$i, grad);
        let d: &$crate::ndarray::ArrayRef3<_> = &d;
        $crate::__chain! { @backward ($self $x d $dstate $cache $grad $how) [($before $j) $(($earlier $k))*] $is }
    }};
}

/// Makes a tuple of layers a model, such as `(Embedding, LstmCell, Linear)`, and a tuple of tensors, such as one of states,
/// tensors.
macro_rules! tuple {
    (0 $first:ident $(, $i:tt $t:ident)*) => {
        impl<E, $first: Tensors<E> $(, $t: Tensors<E>)*> Tensors<E> for ($first, $($t,)*) {
            fn count(&self) -> usize {
                self.0.count() $(+ self.$i.count())*
            }
            $crate::__tensors_by_index! { E; 0 [] $(, $i [])* }
        }
        __chain! {
            [$first: Layer $(, $t: Layer<Elem = $first::Elem>)*] [($first, $($t,)*)] [$first::Elem]
            0 []: $first $(, $i []: $t)*
        }
        impl<$first: Causal $(, $t: Causal<Elem = $first::Elem>)*> Causal for ($first, $($t,)*) {
            fn stages(&self, stages: &mut Stages<$first::Elem>) {
                self.0.stages(stages);
                $(self.$i.stages(stages);)*
            }
        }
    };
}
tuple!(0 A);
tuple!(0 A, 1 B);
tuple!(0 A, 1 B, 2 C);
tuple!(0 A, 1 B, 2 C, 3 D);
tuple!(0 A, 1 B, 2 C, 3 D, 4 G);
tuple!(0 A, 1 B, 2 C, 3 D, 4 G, 5 H);
tuple!(0 A, 1 B, 2 C, 3 D, 4 G, 5 H, 6 I);
tuple!(0 A, 1 B, 2 C, 3 D, 4 G, 5 H, 6 I, 7 J);
