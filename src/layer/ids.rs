//! Token ids of any integer type.

use std::fmt;
use std::ops::Range;

use ndarray::{ArrayView2, s};

/// An integer that can be a token id or a class: `u8` to `u64`, `i8` to `i64`, `usize` and `isize`.
///
/// A valid position must hold an id from 0 on; positions that are ignored, and padding, can hold anything, such as the -100
/// of PyTorch's losses.
pub trait Id: sealed::Sealed + Copy + fmt::Debug + fmt::Display + PartialEq + Send + Sync + 'static {
    /// The id as an index; `usize::MAX` if it is below 0 or too large.
    fn index(self) -> usize;

    /// The integer itself.
    fn wide(self) -> i128;

    /// Ids, `[T, B]`, of any integer type.
    fn view(ids: ArrayView2<'_, Self>) -> Ids<'_>;
}

mod sealed {
    pub trait Sealed {}
}

/// Borrowed token ids, `[T, B]`, of any [integer type](Id).
#[derive(Clone, Copy, Debug)]
pub struct Ids<'a>(Views<'a>);

macro_rules! integers {
    ($($variant:ident: $t:ty),+ $(,)?) => {
        #[derive(Clone, Copy, Debug)]
        enum Views<'a> {
            $($variant(ArrayView2<'a, $t>)),+
        }

        $(
            impl sealed::Sealed for $t {}

            impl Id for $t {
                #[inline]
                fn index(self) -> usize {
                    usize::try_from(self).unwrap_or(usize::MAX)
                }

                fn wide(self) -> i128 {
                    self as i128
                }

                fn view(ids: ArrayView2<'_, $t>) -> Ids<'_> {
                    Ids(Views::$variant(ids))
                }
            }
        )+

        impl<'a> Ids<'a> {
            /// `(T, B)`.
            pub fn dim(&self) -> (usize, usize) {
                match &self.0 {
                    $(Views::$variant(ids) => ids.dim(),)+
                }
            }

            /// The id at step `t` of sequence `b`, as an index; `usize::MAX` if it is below 0 or too large.
            ///
            /// # Panics
            /// Panics if there is no such step or sequence.
            #[inline]
            #[track_caller]
            pub fn get(&self, t: usize, b: usize) -> usize {
                match &self.0 {
                    $(Views::$variant(ids) => ids[[t, b]].index(),)+
                }
            }

            /// The id as it is, for messages.
            pub(crate) fn shown(&self, t: usize, b: usize) -> i128 {
                match &self.0 {
                    $(Views::$variant(ids) => ids[[t, b]] as i128,)+
                }
            }

            /// Some of the steps.
            pub(super) fn steps(self, steps: Range<usize>) -> Self {
                match self.0 {
                    $(Views::$variant(ids) => Ids(Views::$variant(ids.slice_move(s![steps, ..]))),)+
                }
            }

            /// One of every `stride` steps.
            pub(super) fn every(self, stride: usize) -> Self {
                match self.0 {
                    $(Views::$variant(ids) => Ids(Views::$variant(ids.slice_move(s![..; stride, ..]))),)+
                }
            }

            /// Some of the sequences.
            pub(super) fn sequences(self, sequences: Range<usize>) -> Self {
                match self.0 {
                    $(Views::$variant(ids) => Ids(Views::$variant(ids.slice_move(s![.., sequences]))),)+
                }
            }

            /// Both axes exchanged.
            pub(super) fn transposed(self) -> Self {
                match self.0 {
                    $(Views::$variant(ids) => Ids(Views::$variant(ids.reversed_axes())),)+
                }
            }

            /// The same ids, borrowed for a shorter time.
            pub(super) fn reborrow<'s>(self) -> Ids<'s>
            where
                'a: 's,
            {
                match self.0 {
                    $(Views::$variant(ids) => Ids(Views::$variant(ids.reborrow())),)+
                }
            }
        }
    };
}

integers! {
    U8: u8, U16: u16, U32: u32, U64: u64, Usize: usize, I8: i8, I16: i16, I32: i32, I64: i64, Isize: isize,
}
