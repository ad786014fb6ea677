//! The functions that JavaScript calls. Numbers are returned in memory that stays where it is until the next call.

use std::cell::RefCell;

use crate::flow::{self, Cell};
use crate::writer::Writer;

/// The number of seeds whose geometric mean is a line.
const SEEDS: u64 = 2;

thread_local! {
    static NORMS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static WRITER: RefCell<Option<Writer>> = const { RefCell::new(None) };
}

/// Computes gradient norms at `steps` distances, and gives their address. `kind` is 0 for an RNN, of which `a` is the gain and `b`
/// the input's standard deviation; 1 for an LSTM and 2 for a GRU, of which `a` is the bias.
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn gradient_norms(kind: u32, a: f64, b: f64, steps: usize) -> *const f32 {
    let norms = mean_norms(kind, a, b, steps).into_iter().map(|norm| norm as f32).collect();
    NORMS.with_borrow_mut(|kept| {
        *kept = norms;
        kept.as_ptr()
    })
}

/// The norms that [`gradient_norms`] computes.
pub fn mean_norms(kind: u32, a: f64, b: f64, steps: usize) -> Vec<f64> {
    let cell = match kind {
        0 => Cell::Rnn { gain: a, input: b },
        1 => Cell::Lstm { forget: a },
        _ => Cell::Gru { update: a },
    };
    let mut logs = vec![0.0; steps];
    for seed in 0..SEEDS {
        for (log, norm) in logs.iter_mut().zip(flow::norms(cell, steps, seed)) {
            *log += norm.ln() / SEEDS as f64;
        }
    }
    logs.into_iter().map(f64::exp).collect()
}

/// Puts the writer at the start of a text.
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn writer_restart(seed: u32) {
    WRITER.with_borrow_mut(|writer| match writer {
        Some(writer) => writer.restart(seed.into()),
        None => *writer = Some(Writer::new(seed.into())),
    });
}

/// The writer reads a character, by its code point.
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn writer_read(code: u32) {
    with_writer(|writer| writer.read(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)));
}

/// The writer draws the next character, and gives its code point; the character is not read yet.
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn writer_draw(temperature: f32) -> u32 {
    with_writer(|writer| writer.draw(temperature)).into()
}

/// The address of the writer's logits; [`writer_classes`] gives their number.
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn writer_logits() -> *const f32 {
    with_writer(|writer| writer.logits().as_ptr())
}

/// The code point of a class; for `<unknown>`, the last one, that of the replacement character.
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn writer_character(class: usize) -> u32 {
    with_writer(|writer| writer.character(class)).into()
}

/// The number of logits.
// SAFETY: no other function of this name is linked.
#[unsafe(no_mangle)]
pub extern "C" fn writer_classes() -> usize {
    with_writer(|writer| writer.logits().len())
}

fn with_writer<R>(act: impl FnOnce(&mut Writer) -> R) -> R {
    WRITER.with_borrow_mut(|writer| act(writer.get_or_insert_with(|| Writer::new(0))))
}
