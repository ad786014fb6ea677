//! A pass over the whole sequence against its parts: steps, pieces, single sequences, padding, gradients that are not needed, and
//! allocations.

use std::panic::{AssertUnwindSafe, catch_unwind};

use gradflow::ndarray::{Array3, ArrayView3, s};
use gradflow::{
    Float, Sequence, Tensors, TensorsExt,
    attention::Attention,
    author::{Accumulate, AttentionCache, Gradient},
};

use super::{BATCH, MEMORY_LENGTHS, MEMORY_STEPS, Outcome, QUERY_LENGTHS, STEPS, all_of, by_steps, every_score, whole};
use crate::common::{allocations, wave};

fn check_steps<F: Float>() {
    for (query_size, memory_size) in [(5, 5), (3, 5), (40, 33)] {
        // More queries than matrix products treat as few.
        let (query, memory) = (wave((20, BATCH, query_size), 0.2), wave((MEMORY_STEPS, BATCH, memory_size), 1.3));
        let dcontext = wave::<F>((20, BATCH, memory_size), 2.1);
        for (name, attention) in every_score::<F>(query_size, memory_size) {
            let memory = Sequence::from(&memory);
            for memory in [memory, memory.with_lengths(&MEMORY_LENGTHS).unwrap().train(7)] {
                let cache = &mut attention.cache();
                let want = whole(&attention, (&query).into(), memory, &dcontext, cache);
                for size in [1, 3, 20] {
                    let got = by_steps(&attention, &query, memory, &dcontext, size, cache);
                    got.assert_near(&want, &format!("{name}, {size} at a time"));
                }
            }
        }
    }
}

#[test]
fn step_by_step_equals_the_whole_sequence() {
    check_steps::<f64>();
    check_steps::<f32>();
}

/// The decoder may run over its queries piece by piece, forward and backward for each piece before the next, over one memory.
#[test]
fn pieces_there_and_back_equal_the_whole_sequence() {
    let (query, memory) = (wave((STEPS, BATCH, 3), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let (dcontext, memory) = (wave((STEPS, BATCH, 5), 2.1), Sequence::from(&memory));
    for (name, attention) in every_score::<f64>(3, 5) {
        let mut cache = attention.cache();
        let mut want = whole(&attention, (&query).into(), memory, &dcontext, &mut cache);
        let mut grad = attention.zeros_like();
        attention.memorize(memory, &mut cache);
        for t in 0..STEPS {
            let (query, dcontext) = (query.slice(s![t..=t, .., ..]), dcontext.slice(s![t..=t, .., ..]));
            attention.attend(query, memory, &mut cache);
            attention.attend_backward(query, memory, &dcontext, &mut cache, &mut grad);
        }
        let dmemory = attention.memorize_backward(memory, &mut cache, &mut grad).to_owned();
        let got = Outcome { dmemory, grad, ..whole(&attention, (&query).into(), memory, &dcontext, &mut cache) };
        got.assert_near(&want, name);
        // The comparison detects a difference.
        want.dmemory[[0, 0, 0]] += 1e-9;
        assert!(catch_unwind(AssertUnwindSafe(|| got.assert_near(&want, name))).is_err());
    }
}

/// The old content of `grad` is not read, either for the whole sequence or step by step, where the first backward step and the memory
/// overwrite.
#[test]
fn gradients_are_overwritten() {
    let (query, memory) = (wave((STEPS, BATCH, 3), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let dcontext = wave((STEPS, BATCH, 5), 2.1);
    let memory = Sequence::from(&memory).with_lengths(&MEMORY_LENGTHS).unwrap();
    for (name, attention) in every_score::<f64>(3, 5) {
        let (cache, mut grad) = (&mut attention.cache(), attention.zeros_like());
        let not_numbers = |grad: &mut Attention<f64>| (0..grad.count()).for_each(|i| grad.tensor_mut(i).fill(f64::NAN));
        let values = |grad: &Attention<f64>| (0..grad.count()).map(|i| grad.values(i).to_vec()).collect::<Vec<_>>();

        let want = whole(&attention, (&query).into(), memory, &dcontext, cache).grad;
        not_numbers(&mut grad);
        attention.forward(&query, memory, cache);
        attention.backward(&query, memory, &dcontext, cache, Gradient::overwrite(&mut grad));
        assert_eq!(values(&grad), values(&want), "{name}, whole");

        let want = by_steps(&attention, &query, memory, &dcontext, 1, cache).grad;
        not_numbers(&mut grad);
        let step = |x: &Array3<f64>, t: usize| x.slice(s![t..=t, .., ..]).to_owned();
        attention.memorize(memory, cache);
        for t in 0..STEPS {
            attention.attend(&step(&query, t), memory, cache);
        }
        for t in (0..STEPS).rev() {
            let query = step(&query, t);
            let how = if t == STEPS - 1 { Accumulate::Overwrite } else { Accumulate::Add };
            attention.attend_backward(&query, memory, &step(&dcontext, t), cache, Gradient::new(&mut grad, how));
        }
        attention.memorize_backward(memory, cache, Gradient::overwrite(&mut grad));
        assert_eq!(values(&grad), values(&want), "{name}, step by step");
    }
}

fn check_padding<F: Float>() {
    for (query_size, memory_size) in [(5, 5), (3, 5)] {
        let run = |attention: &Attention<F>, junk: f64, cache: &mut AttentionCache<F>| {
            let fill = |x: &mut Array3<F>, lengths: &[usize]| {
                for (b, &length) in lengths.iter().enumerate() {
                    x.slice_mut(s![length.., b, ..]).fill(F::of(junk));
                }
            };
            let mut query = wave((STEPS, BATCH, query_size), 0.2);
            let (mut memory, mut dcontext) =
                (wave((MEMORY_STEPS, BATCH, memory_size), 1.3), wave((STEPS, BATCH, memory_size), 2.1));
            fill(&mut query, &QUERY_LENGTHS);
            fill(&mut memory, &MEMORY_LENGTHS);
            fill(&mut dcontext, &QUERY_LENGTHS);
            let query = Sequence::from(&query).with_lengths(&QUERY_LENGTHS).unwrap();
            let memory = Sequence::from(&memory).with_lengths(&MEMORY_LENGTHS).unwrap();
            whole(attention, query, memory, &dcontext, cache)
        };
        for (name, attention) in every_score::<F>(query_size, memory_size) {
            // A cache full of other numbers, which must have no effect either.
            let mut used = attention.cache();
            let ones = |features| Array3::ones((MEMORY_STEPS + 2, BATCH + 1, features));
            let (query, memory) = (ones(query_size), ones(memory_size));
            whole(&attention, (&query).into(), (&memory).into(), &memory, &mut used);

            let want = run(&attention, 0.5, &mut attention.cache());
            let got = run(&attention, f64::NAN, &mut used);
            assert_eq!(got.bits(), want.bits(), "{name}: what the padding holds changes the result");
            for b in 0..BATCH {
                let (last, length) = (QUERY_LENGTHS[b], MEMORY_LENGTHS[b]);
                let zero = |x: ArrayView3<'_, F>| x.iter().all(|x| x.bits() == 0);
                for x in [&got.context, &got.weights, &got.dquery] {
                    assert!(zero(x.slice(s![last.., b..=b, ..])), "{name}: not zero past the query's length");
                }
                assert!(zero(got.weights.slice(s![.., b..=b, length..])), "{name}: padding has a weight");
                assert!(zero(got.dmemory.slice(s![length.., b..=b, ..])), "{name}: padding has a gradient");
                for weights in got.weights.slice(s![..last, b, ..length]).outer_iter() {
                    let sum: f64 = weights.iter().map(|weight| weight.widen()).sum();
                    assert!((sum - 1.0).abs() < 1e-6 && weights.iter().all(|weight| weight.widen() > 0.0), "{name}");
                }
            }
        }
    }
}

#[test]
fn padding_is_never_read_and_has_no_weight() {
    check_padding::<f64>();
    check_padding::<f32>();
}

#[test]
fn a_sequence_alone_gives_what_it_gives_in_the_batch() {
    let (query, memory) = (wave((STEPS, BATCH, 3), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let dcontext = wave((STEPS, BATCH, 5), 2.1);
    for (name, attention) in every_score::<f64>(3, 5) {
        let mut sum = attention.zeros_like();
        let all = whole(
            &attention,
            Sequence::from(&query).with_lengths(&QUERY_LENGTHS).unwrap(),
            Sequence::from(&memory).with_lengths(&MEMORY_LENGTHS).unwrap(),
            &dcontext,
            &mut attention.cache(),
        );
        for b in 0..BATCH {
            let (last, length) = (QUERY_LENGTHS[b], MEMORY_LENGTHS[b]);
            // Also as views with the strides of the batch.
            let (query, memory) = (query.slice(s![..last, b..=b, ..]), memory.slice(s![..length, b..=b, ..]));
            let dcontext = dcontext.slice(s![..last, b..=b, ..]);
            let got = whole(&attention, query.into(), memory.into(), &dcontext, &mut attention.cache());
            sum.add_assign(&got.grad);
            let want = Outcome {
                context: all.context.slice(s![..last, b..=b, ..]).to_owned(),
                weights: all.weights.slice(s![..last, b..=b, ..length]).to_owned(),
                dquery: all.dquery.slice(s![..last, b..=b, ..]).to_owned(),
                dmemory: all.dmemory.slice(s![..length, b..=b, ..]).to_owned(),
                grad: got.grad.clone(),
            };
            got.assert_near(&want, name);
        }
        Outcome { grad: sum, ..all_of(&all) }.assert_near(&all, name);
    }
}

#[test]
fn unwanted_gradients_are_spared_and_change_no_other() {
    let (query, memory) = (wave((STEPS, BATCH, 5), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let (query, memory) = (Sequence::from(&query), Sequence::from(&memory));
    let dcontext = wave((STEPS, BATCH, 5), 2.1);
    for (name, attention) in every_score::<f64>(5, 5) {
        let cache = &mut attention.cache();
        let want = whole(&attention, query, memory, &dcontext, cache);
        let none = Array3::zeros((0, 0, 0));
        let got = whole(&attention, query.constant(), memory, &dcontext, cache);
        assert!(got.dquery.is_empty(), "{name}");
        let same = Outcome { dquery: none.clone(), ..all_of(&want) };
        assert_eq!(Outcome { dquery: none.clone(), ..got }.bits(), same.bits(), "{name}");
        let got = whole(&attention, query, memory.constant(), &dcontext, cache);
        assert!(got.dmemory.is_empty(), "{name}");
        let same = Outcome { dmemory: none.clone(), ..all_of(&want) };
        assert_eq!(Outcome { dmemory: none, ..got }.bits(), same.bits(), "{name}");
    }
}

fn check_allocations<F: Float>() {
    // Sizes that reach the packed products.
    let (query, memory) = (wave::<F>((20, BATCH, 33), 0.2), wave((30, BATCH, 33), 1.3));
    let lengths = [30, 7, 19];
    let memory = Sequence::from(&memory).with_lengths(&lengths).unwrap();
    for (name, attention) in every_score::<F>(33, 33) {
        let (mut cache, mut grad) = (attention.cache(), attention.zeros_like());
        let mut at_once = || {
            attention.forward(&query, memory, &mut cache);
            attention.backward(&query, memory, &query, &mut cache, &mut grad);
        };
        assert!(allocations(&mut at_once) > 0, "{name}: the counter counts nothing");
        assert_eq!(allocations(&mut at_once), 0, "{name}: the second pass allocates");

        let step = |t: usize| query.slice(s![t..=t, .., ..]);
        let (mut cache, mut grad) = (attention.cache(), attention.zeros_like());
        let mut step_by_step = || {
            attention.memorize(memory, &mut cache);
            for t in 0..20 {
                attention.attend(step(t), memory, &mut cache);
            }
            for t in (0..20).rev() {
                attention.attend_backward(step(t), memory, &step(t), &mut cache, &mut grad);
            }
            attention.memorize_backward(memory, &mut cache, &mut grad);
        };
        step_by_step();
        assert_eq!(allocations(&mut step_by_step), 0, "{name}: the second pass, step by step, allocates");

        let mut cache = attention.cache();
        attention.memorize(memory.infer(), &mut cache);
        let mut decode = |t| {
            attention.attend(Sequence::from(step(t)), memory.infer(), &mut cache);
        };
        decode(0);
        assert_eq!(allocations(|| (1..20).for_each(&mut decode)), 0, "{name}: decoding allocates");
    }
}

#[test]
fn nothing_is_allocated_from_the_second_pass_on() {
    check_allocations::<f32>();
    check_allocations::<f64>();
}
