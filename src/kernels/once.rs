//! Functions that are compiled in this crate: once for each element type, and those of [`vectorised!`] also once for each
//! instruction set.

/// Defines functions that are generic over the element type and compiled in this crate, once for each of the two types.
///
/// Attributes go to all instances, so that with `#[track_caller]` a panic names the caller's line. The signature has one
/// lifetime and one type parameter, and arguments are plain identifiers. The functions of one `once!` are all safe, or all
/// `unsafe fn`.
macro_rules! once {
    (@output) => { () };
    (@output $output:ty) => { $output };
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident<$lifetime:lifetime, $parameter:ident: $bound:path>(
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $output:ty)? $body:block
    )+) => {
        $crate::kernels::once! { @define [] $(
            [$(#[$attribute])*] [$visibility] $name<$lifetime, $parameter: $bound>(
                $($argument: $type),*
            ) [$(-> $output)?] $body
        )+ }
    };
    ($(
        $(#[$attribute:meta])*
        $visibility:vis unsafe fn $name:ident<$lifetime:lifetime, $parameter:ident: $bound:path>(
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $output:ty)? $body:block
    )+) => {
        $crate::kernels::once! { @define [unsafe] $(
            [$(#[$attribute])*] [$visibility] $name<$lifetime, $parameter: $bound>(
                $($argument: $type),*
            ) [$(-> $output)?] $body
        )+ }
    };
    (@define $unsafety:tt $(
        [$(#[$attribute:meta])*] [$visibility:vis] $name:ident<$lifetime:lifetime, $parameter:ident: $bound:path>(
            $($argument:ident: $type:ty),*
        ) [$(-> $output:ty)?] $body:block
    )+) => {$(
        $crate::kernels::once! {
            @function $unsafety [$(#[$attribute])*] [$visibility] $name<$lifetime, $parameter: $bound>(
                $($argument: $type),*
            ) [$(-> $output)?] $body
        }
    )+};
    (@function [$($unsafety:tt)?]
        [$(#[$attribute:meta])*] [$visibility:vis] $name:ident<$lifetime:lifetime, $parameter:ident: $bound:path>(
            $($argument:ident: $type:ty),*
        ) [$(-> $output:ty)?] $body:block
    ) => {
        $(#[$attribute])*
        #[inline(always)]
        #[allow(clippy::too_many_arguments, clippy::extra_unused_lifetimes)]
        $visibility $($unsafety)? fn $name<$lifetime, $parameter: $bound>($($argument: $type),*) $(-> $output)? {
            struct Instances;

            impl $crate::kernels::Once for Instances {
                type Arguments<$lifetime, $parameter: $bound> = ($($type,)*);
                type Output<$parameter: $bound> = $crate::kernels::once!(@output $($output)?);

                $(#[$attribute])*
                #[inline(never)]
                fn f32(($($argument,)*): Self::Arguments<'_, f32>) -> Self::Output<f32> {
                    body::<f32>($($argument),*)
                }

                $(#[$attribute])*
                #[inline(never)]
                fn f64(($($argument,)*): Self::Arguments<'_, f64>) -> Self::Output<f64> {
                    body::<f64>($($argument),*)
                }
            }

            $(#[$attribute])*
            #[inline(always)]
            #[allow(clippy::too_many_arguments, clippy::extra_unused_lifetimes)]
            fn body<$lifetime, $parameter: $bound>($($argument: $type),*) $(-> $output)? $body

            <$parameter as $crate::kernels::Float>::once::<Instances>(($($argument,)*))
        }
    };
}
pub(crate) use once;

/// Defines functions that are compiled once per instruction set and, as with [`once!`], once per element type, in this
/// crate. Each call picks the best instruction set.
///
/// The body is plain safe code: loops over slices that the compiler vectorises. The one lifetime is named, and arguments
/// are plain identifiers:
///
/// ```text
/// vectorised! {
///     /// y <- y + a x
///     pub(crate) fn axpy<'a, F: Float>(a: F, x: &'a [F], y: &'a mut [F]) {
///         for (y, &x) in y.iter_mut().zip(x) {
///             *y += a * x;
///         }
///     }
/// }
/// ```
///
/// Functions called in the body are compiled with it only if they are inlined.
macro_rules! vectorised {
    (@output) => { () };
    (@output $output:ty) => { $output };
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident<$lifetime:lifetime, $parameter:ident: $bound:path>(
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $output:ty)? $body:block
    )+) => {$(
        $crate::kernels::once::vectorised! {
            @function [] [$(#[$attribute])*] [$visibility] $name<$lifetime, $parameter: $bound>(
                $($argument: $type),*
            ) [$(-> $output)?] $body
        }
    )+};
    (
        $(#[$attribute:meta])*
        $visibility:vis unsafe fn $name:ident<$lifetime:lifetime, $parameter:ident: $bound:path>(
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $output:ty)? $body:block
    ) => {
        $crate::kernels::once::vectorised! {
            @function [unsafe] [$(#[$attribute])*] [$visibility] $name<$lifetime, $parameter: $bound>(
                $($argument: $type),*
            ) [$(-> $output)?] $body
        }
    };
    (@function [$($unsafety:tt)?]
        [$(#[$attribute:meta])*] [$visibility:vis] $name:ident<$lifetime:lifetime, $parameter:ident: $bound:path>(
            $($argument:ident: $type:ty),*
        ) [$(-> $output:ty)?] $body:block
    ) => {
        $crate::kernels::once! {
            $(#[$attribute])*
            $visibility $($unsafety)? fn $name<$lifetime, $parameter: $bound>($($argument: $type),*) $(-> $output)? {
                struct Call<$lifetime, $parameter: $bound>(
                    $($type,)* std::marker::PhantomData<&$lifetime $parameter>,
                );

                impl<$lifetime, $parameter: $bound> pulp::WithSimd for Call<$lifetime, $parameter> {
                    type Output = $crate::kernels::once::vectorised!(@output $($output)?);

                    #[inline(always)]
                    fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
                        // A separate function, because only arguments tell the compiler that slices do not overlap.
                        #[inline(always)]
                        #[allow(clippy::too_many_arguments)]
                        fn body<$lifetime, $parameter: $bound>($($argument: $type),*) $(-> $output)? $body

                        let Self($($argument,)* _) = self;
                        body($($argument),*)
                    }
                }

                $crate::kernels::simd::dispatch::dispatch(Call($($argument,)* std::marker::PhantomData))
            }
        }
    };
}
pub(crate) use vectorised;
