//! Reusable memory for panels, aligned to cache lines.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::mem::MaybeUninit;
#[cfg(target_os = "linux")]
use std::ops::Range;
use std::thread::LocalKey;

use super::float::Float;

/// One cache line, or one register of the widest instruction set.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line {
    _bytes: [u8; Line::BYTES],
}

impl Line {
    const BYTES: usize = 64;
    const ZERO: Self = Self { _bytes: [0; Self::BYTES] };
}

/// Types that a [`Buffer`] can hold: every bit pattern is a value, and a line has a whole number of them.
pub(super) trait Bits: Copy {}

impl<F: Float> Bits for F {}
impl Bits for i8 {}
impl Bits for u8 {}
impl Bits for i16 {}
impl Bits for i32 {}
impl Bits for u32 {}

/// Memory that only grows, for elements of any type that is [`Bits`].
#[derive(Default, Clone)]
pub(super) struct Buffer(Vec<Line>);

impl Buffer {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// All elements that fit.
    pub(super) fn elements<F: Bits>(&self) -> &[F] {
        let count = self.0.len() * (Line::BYTES / size_of::<F>());
        // SAFETY: the lines are initialised bytes, `count` elements long and aligned for them, and `Bits` are f32, f64 (`Float`
        // is sealed), integers and `Bf16`, for which every bit pattern is a value.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), count) }
    }

    /// [`elements`](Self::elements), for writing.
    pub(super) fn elements_mut<F: Bits>(&mut self) -> &mut [F] {
        let count = self.0.len() * (Line::BYTES / size_of::<F>());
        // SAFETY: as in `elements`, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), count) }
    }

    /// At least `count` elements, with unspecified values.
    pub(super) fn at_least<F: Bits>(&mut self, count: usize) -> &mut [F] {
        let lines = count.div_ceil(Line::BYTES / size_of::<F>());
        if self.0.len() < lines {
            self.0.reserve_exact(lines - self.0.len());
            in_huge_pages(self.0.spare_capacity_mut());
            self.0.resize(lines, Line::ZERO);
        }
        self.elements_mut()
    }
}

/// Memory of a thread that is kept from one use to the next.
pub(super) type Scratch = LocalKey<RefCell<Buffer>>;

/// Calls `act` with `len` elements of `scratch`, with unspecified values.
pub(super) fn with_scratch<F: Bits>(scratch: &'static Scratch, len: usize, act: impl FnOnce(&mut [F])) {
    let mut elements = scratch.take();
    act(&mut elements.at_least(len)[..len]);
    scratch.set(elements);
}

/// Calls `act` with `len` elements in memory of this thread, with unspecified values.
pub(crate) fn with_elements<F: Float>(len: usize, act: impl FnOnce(&mut [F])) {
    thread_local! {
        static ELEMENTS: RefCell<Buffer> = const { RefCell::new(Buffer::new()) };
    }
    with_scratch(&ELEMENTS, len, act);
}

/// Asks for huge pages for `memory`, which has not been touched yet: panels are read in streams, which wait for an address
/// translation at each new page.
fn in_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        /// A multiple of the size of any page.
        const PAGE: usize = 1 << 16;
        /// The minimum size of memory that contains a huge page.
        const LEAST: usize = 1 << 21;

        let Range { start, end } = memory.as_mut_ptr_range();
        let start = start.cast::<u8>().wrapping_add(start.addr().next_multiple_of(PAGE) - start.addr());
        let len = (end.addr() / PAGE * PAGE).saturating_sub(start.addr());
        if len >= LEAST {
            // SAFETY: these are whole pages of borrowed memory, and the call is advice, which may be refused.
            unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}
