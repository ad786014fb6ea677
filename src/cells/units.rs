//! Loops over the units of a step, for all cells: one scalar function of a cell's `equations.rs` is applied to every unit of
//! every row.

use ndarray::{ArrayView2, ArrayViewMut2};

/// Applies equations to each unit of each row.
///
/// ```text
/// for_each_unit! {
///     rows: N, units: H, <F, V: Variant>, act: A;
///     write { gates: [a_i => i, a_f => f if !V::COUPLED, a_g => g, o]; c: [_c => c]; }
///     read { c_before: [c_before]; }
///     same { peephole: [p_i if V::PEEPHOLES, p_f if V::PEEPHOLES]; }
///     let [i, f, g, c] = memory::<F, V, A>(act, [a_i, a_f, a_g], [p_i, p_f], c_before);
/// }
/// ```
///
/// `gates` is a slice of N rows, `[N, 4 H]`; each of its four parts holds H units. In the equations, `a_i` is the value of a unit
/// in the first part, and the `i` that they bind replaces it. `read` slices are only read; `same` slices have one row, which is
/// used for all rows. A part whose `if` is false is absent: it reads as 0, and nothing is written to it. `act` is the cell's
/// [`Activations`](super::activations::Activations), for equations that use them.
///
/// The condition is a constant of the variant, so the parts that a variant does not have cost nothing.
macro_rules! for_each_unit {
    (
        rows: $rows:expr, units: $units:expr, <$elem:ident $(, $variant:ident: $switches:path)?> $(, $act:ident: $kind:ident)?;
        write { $($write:ident: [$($old:ident $(=> $new:ident)? $(if $written:expr)?),+];)+ }
        read { $($read:ident: [$($value:ident $(if $is_read:expr)?),+];)* }
        same { $($same:ident: [$($constant:ident $(if $is_same:expr)?),+];)* }
        $($equations:tt)+
    ) => {{
        // A separate function: the compiler knows that its slice arguments do not overlap.
        #[inline(always)]
        #[allow(clippy::too_many_arguments)]
        fn row<$elem: Float $(, $variant: $switches)? $(, $kind: $crate::cells::activations::Activations<$elem>)?>(
            units: usize,
            $($act: $kind,)?
            $($($old: &mut [$elem],)+)+
            $($($value: &[$elem],)+)*
            $($($constant: &[$elem],)+)*
        ) {
            // Cut to the number of units, so that the compiler can omit bounds checks.
            $($(let $old = &mut $old[..$crate::cells::units::width!(units $(, $written)?)];)+)+
            $($(let $value = &$value[..$crate::cells::units::width!(units $(, $is_read)?)];)+)*
            $($(let $constant = &$constant[..$crate::cells::units::width!(units $(, $is_same)?)];)+)*
            for k in 0..units {
                let [$($($($new,)?)+)+] = {
                    $($(#[allow(unused_variables)] let $old = $old.get(k).copied().unwrap_or($elem::zero());)+)+
                    $($(#[allow(unused_variables)] let $value = $value.get(k).copied().unwrap_or($elem::zero());)+)*
                    $($(#[allow(unused_variables)] let $constant = $constant.get(k).copied().unwrap_or($elem::zero());)+)*
                    $($equations)+
                    [$($($($new,)?)+)+]
                };
                $($($(if let Some(unit) = $old.get_mut(k) { *unit = $new; })?)+)+
            }
        }
        let units = $units;
        // Chunk iterators would each divide by the chunk length, several times.
        for r in 0..$rows {
            $(
                let _rest = &mut $write[r * (0 $(+ $crate::cells::units::width!(units $(, $written)?))+)..];
                $(let ($old, _rest) = _rest.split_at_mut($crate::cells::units::width!(units $(, $written)?));)+
            )+
            $(
                let _rest = &$read[r * (0 $(+ $crate::cells::units::width!(units $(, $is_read)?))+)..];
                $(let ($value, _rest) = _rest.split_at($crate::cells::units::width!(units $(, $is_read)?));)+
            )*
            $(
                let _rest = &$same[..];
                $(let ($constant, _rest) = _rest.split_at($crate::cells::units::width!(units $(, $is_same)?));)+
            )*
            row::<$elem $(, $variant)? $(, $kind)?>(units, $($act,)? $($($old,)+)+ $($($value,)+)* $($($constant,)+)*);
        }
    }};
}
pub(super) use for_each_unit;

/// The width of a part of a row, zero if the part is absent.
macro_rules! width {
    ($units:expr) => {
        $units
    };
    ($units:expr, $there:expr) => {
        if $there { $units } else { 0 }
    };
}
pub(super) use width;

/// Compiles an expression for each variant of a cell and picks one at run time:
/// `with_switches!([true, false]; [a, b] => V in f::<V>(x))` is `f::<Switches<true, false>>(x)`.
macro_rules! with_switches {
    ($switches:expr; [$($switch:ident),+] => $variant:ident in $body:expr) => {{
        let [$($switch),+] = $switches;
        $crate::cells::units::with_switches!(@ [$($switch)+] [] $variant $body)
    }};
    (@ [] [$($set:literal)*] $variant:ident $body:expr) => {{
        type $variant = Switches<$($set),*>;
        $body
    }};
    (@ [$first:ident $($rest:ident)*] [$($set:literal)*] $variant:ident $body:expr) => {
        if $first {
            $crate::cells::units::with_switches!(@ [$($rest)*] [$($set)* true] $variant $body)
        } else {
            $crate::cells::units::with_switches!(@ [$($rest)*] [$($set)* false] $variant $body)
        }
    };
}
pub(super) use with_switches;

/// A step's rows, one after the other.
pub(super) fn flat<'a, F>(rows: ArrayView2<'a, F>) -> &'a [F] {
    rows.to_slice().expect("rows side by side")
}

/// A step's rows, one after the other.
pub(super) fn flat_mut<'a, F>(rows: ArrayViewMut2<'a, F>) -> &'a mut [F] {
    rows.into_slice().expect("rows side by side")
}
