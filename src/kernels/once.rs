//! Generic functions that are compiled once for each element type, in this crate.

use super::float::Float;

/// A function of the element type, as its two instances.
///
/// Generic code is compiled in every crate that uses it, and again whenever that crate changes. The instances here are not
/// generic, so the compiler leaves them where they are: [`Float::once`] picks one.
pub trait Once {
    /// What the function takes.
    type Arguments<'a, F: Float>;
    /// What it returns.
    type Output<F: Float>;

    /// The function for `f32`.
    fn f32(arguments: Self::Arguments<'_, f32>) -> Self::Output<f32>;

    /// The function for `f64`.
    fn f64(arguments: Self::Arguments<'_, f64>) -> Self::Output<f64>;
}

/// Defines functions, generic over the element type, that are compiled once for each of the two, in this crate.
///
/// Their signature has one lifetime and one type parameter, and arguments are plain identifiers.
macro_rules! once {
    (@output) => { () };
    (@output $output:ty) => { $output };
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident<$lifetime:lifetime, $parameter:ident: $bound:path>(
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $output:ty)? $body:block
    )+) => {$(
        $(#[$attribute])*
        #[inline(always)]
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name<$lifetime, $parameter: $bound>($($argument: $type),*) $(-> $output)? {
            struct Function;

            impl $crate::kernels::Once for Function {
                type Arguments<$lifetime, $parameter: $bound> = ($($type,)*);
                type Output<$parameter: $bound> = $crate::kernels::once!(@output $($output)?);

                #[inline(never)]
                fn f32(($($argument,)*): Self::Arguments<'_, f32>) -> Self::Output<f32> {
                    body($($argument),*)
                }

                #[inline(never)]
                fn f64(($($argument,)*): Self::Arguments<'_, f64>) -> Self::Output<f64> {
                    body($($argument),*)
                }
            }

            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<$lifetime, $parameter: $bound>($($argument: $type),*) $(-> $output)? $body

            <$parameter as $crate::kernels::Float>::once::<Function>(($($argument,)*))
        }
    )+};
}
pub(crate) use once;
