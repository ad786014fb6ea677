//! Arrays in memory layouts that a caller may use.

use gradflow::Float;
use gradflow::ndarray::{Array3, ArrayView3, s};

/// How an array is laid out in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    Standard,
    BatchFirst,
    ColumnMajor,
    EverySecond,
    Reversed,
    /// The same row for all sequences, with a stride of 0.
    BroadcastBatch,
    /// The same row for all steps.
    BroadcastSteps,
}

impl Layout {
    pub const ALL: [Layout; 7] = [
        Layout::Standard,
        Layout::BatchFirst,
        Layout::ColumnMajor,
        Layout::EverySecond,
        Layout::Reversed,
        Layout::BroadcastBatch,
        Layout::BroadcastSteps,
    ];
    /// The layouts that can hold any values.
    pub const OF_ANY_VALUES: [Layout; 5] =
        [Layout::Standard, Layout::BatchFirst, Layout::ColumnMajor, Layout::EverySecond, Layout::Reversed];
}

/// `values` in a layout, with junk between them in memory if the layout has gaps.
pub struct Laid<F> {
    memory: Array3<F>,
    layout: Layout,
    steps: usize,
    batch: usize,
}

impl<F: Float> Laid<F> {
    pub fn new(values: &Array3<F>, layout: Layout) -> Laid<F> {
        let (steps, batch, features) = values.dim();
        let memory = match layout {
            Layout::Standard => values.clone(),
            Layout::BatchFirst => values.view().permuted_axes([1, 0, 2]).as_standard_layout().into_owned(),
            Layout::ColumnMajor => values.view().reversed_axes().as_standard_layout().into_owned(),
            Layout::EverySecond => {
                let junk = F::of(f64::NAN);
                let mut memory = Array3::from_elem((2 * steps, batch, 2 * features + 1), junk);
                memory.slice_mut(s![..;2, .., 1..;2]).assign(values);
                memory
            }
            Layout::Reversed => values.slice(s![..;-1, ..;-1, ..;-1]).as_standard_layout().into_owned(),
            Layout::BroadcastBatch => values.slice(s![.., ..1, ..]).to_owned(),
            Layout::BroadcastSteps => values.slice(s![..1, .., ..]).to_owned(),
        };
        Laid { memory, layout, steps, batch }
    }

    pub fn view(&self) -> ArrayView3<'_, F> {
        let memory = self.memory.view();
        match self.layout {
            Layout::Standard => memory,
            Layout::BatchFirst => memory.permuted_axes([1, 0, 2]),
            Layout::ColumnMajor => memory.reversed_axes(),
            Layout::EverySecond => memory.slice_move(s![..;2, .., 1..;2]),
            Layout::Reversed => memory.slice_move(s![..;-1, ..;-1, ..;-1]),
            Layout::BroadcastBatch | Layout::BroadcastSteps => {
                let shape = (self.steps, self.batch, self.memory.dim().2);
                self.memory.broadcast(shape).expect("one step or one sequence")
            }
        }
    }
}
