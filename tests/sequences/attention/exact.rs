//! Cases whose result is known exactly, and the parameters of a new attention.

use gradflow::ndarray::{Array3, Axis, s};
use gradflow::{
    Float, Sequence, Tensors, TensorsExt,
    attention::{AdditiveScore, Attention, AttentionScore},
};

use super::{BATCH, MEMORY_LENGTHS, MEMORY_STEPS, STEPS, every_score, whole};
use crate::common::{rng, wave};

/// Without parameters no position is preferred, so the context is the mean.
#[test]
fn without_parameters_the_context_is_the_mean() {
    let (query, memory) = (wave((STEPS, BATCH, 3), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    for (name, attention) in every_score::<f64>(3, 5) {
        let (attention, mut cache) = (attention.zeros_like(), attention.cache());
        let memory = Sequence::from(&memory).with_lengths(&MEMORY_LENGTHS).unwrap();
        let context = attention.forward(&query, memory, &mut cache);
        let memory = memory.features("test", None);
        for (b, &length) in MEMORY_LENGTHS.iter().enumerate() {
            let mean = memory.slice(s![..length, b, ..]).mean_axis(Axis(0)).unwrap();
            for context in context.slice(s![.., b, ..]).outer_iter() {
                assert!((&context - &mean).iter().all(|error| error.abs() < 1e-15), "{name}");
            }
        }
    }
}

/// Scores for which `exp` overflows: all weight is on the largest.
#[test]
fn large_scores_do_not_overflow() {
    for (sign, at) in [(1.0, 2), (-1.0, 0)] {
        let query = Array3::from_elem((1, 1, 1), sign * 1e6);
        let memory = Array3::from_shape_vec((3, 1, 1), vec![-1.0, 0.5, 2.0]).unwrap();
        let attention = Attention::<f32>::dot();
        let mut cache = attention.cache();
        let context = attention.forward(&query, &memory, &mut cache)[[0, 0, 0]];
        assert_eq!(context, memory[[at, 0, 0]]);
        let weights: Vec<f32> = cache.weights().iter().copied().collect();
        assert_eq!(weights, [f32::from(at == 0), 0.0, f32::from(at == 2)]);
        let dcontext = Array3::ones((1, 1, 1));
        let (dquery, dmemory) = attention.backward(&query, &memory, &dcontext, &mut cache, &mut attention.zeros_like());
        // The scores get no gradient; the memory's gradient is that of its weighted mean.
        assert_eq!(dquery[[0, 0, 0]], 0.0);
        assert_eq!(dmemory.iter().copied().collect::<Vec<_>>(), weights);
    }
}

/// Scores that overflow, in f32 and f64: the weights are those of the exact scores.
#[test]
fn scores_beyond_the_largest_number_have_a_softmax() {
    fn check<F: Float>(attention: Attention<F>, query: &[f64], memory: &[&[f64]], want: &[f64]) {
        let query = Array3::from_shape_fn((1, 1, query.len()), |(.., k)| F::of(query[k]));
        let memory = Array3::from_shape_fn((memory.len(), 1, memory[0].len()), |(t, _, k)| F::of(memory[t][k]));
        let mut cache = attention.cache();
        let context = attention.forward(&query, &memory, &mut cache).to_owned();
        assert!(context.iter().all(|value| value.is_finite()), "{context}");
        for (&got, want) in cache.weights().iter().zip(want) {
            assert!((got.widen() - want).abs() < 1e-6, "{} for {want:?}", cache.weights());
        }
        let (dcontext, mut grad) = (context.mapv(|_| F::of(1e-3)), attention.zeros_like());
        let (dquery, dmemory) = attention.backward(&query, &memory, &dcontext, &mut cache, &mut grad);
        assert!(dquery.iter().chain(&dmemory).all(|slope| slope.is_finite()), "{dquery}, {dmemory}");
    }
    for attention in [Attention::<f32>::dot(), Attention::scaled_dot()] {
        // Products of 1e20: inf, inf and -inf in f32.
        check(attention.clone(), &[1e20, 1e20], &[&[1e20, 1e20], &[2e20, 1e20], &[-1e20, -1e20]], &[0.0, 1.0, 0.0]);
        // Two equal scores share the weight; inf - inf within a product.
        check(attention.clone(), &[1e20, 1e20], &[&[3e20, -1e20], &[1e20, 1e20]], &[0.5, 0.5]);
        // A partial sum of -inf in front of the largest score.
        check(attention, &[3e19, 3e19, 3e19], &[&[-1e19, -1e19, 1.9e19], &[-1.9e19, 0.0, 0.0]], &[1.0, 0.0]);
    }
    for attention in [Attention::<f64>::dot(), Attention::scaled_dot()] {
        check(
            attention.clone(),
            &[1e160, 1e160],
            &[&[1e160, 1e160], &[2e160, 1e160], &[-1e160, 0.0]],
            &[0.0, 1.0, 0.0],
        );
        check(attention, &[1e300, 1e-300], &[&[1e10, 1.0], &[1e10, 1.0]], &[0.5, 0.5]);
    }
    // One score is by far the largest, scaled or not.
    check(Attention::<f32>::scaled_dot(), &[2e19; 4], &[&[2e19; 4], &[1.9e19; 4]], &[1.0, 0.0]);
    let mut additive = Attention::<f32>::additive(2, 2, 3, &mut rng(2));
    if let AttentionScore::Additive(score) = &mut additive.score {
        score.v.fill(3e38);
        score.weight_query.fill(0.0);
        score.weight_memory.fill(1.0);
    }
    check(additive, &[0.0, 0.0], &[&[0.2, 0.1], &[4.0, 4.0], &[-1.0, -9.0]], &[0.0, 1.0, 0.0]);
}

#[test]
fn a_scaled_dot_is_the_dot_of_a_scaled_query() {
    let (query, memory) = (wave::<f64>((STEPS, BATCH, 9), 0.2), wave((MEMORY_STEPS, BATCH, 9), 1.3));
    let (dot, scaled) = (Attention::dot(), Attention::scaled_dot());
    let third = &query / 3.0;
    let want = whole(&dot, (&third).into(), (&memory).into(), &query, &mut dot.cache());
    let mut got = whole(&scaled, (&query).into(), (&memory).into(), &query, &mut scaled.cache());
    got.dquery *= 3.0;
    got.assert_near(&want, "scaled");
}

#[test]
fn nan_is_never_masked() {
    let (mut query, mut memory) = (wave((STEPS, BATCH, 5), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    query[[2, 1, 4]] = f64::NAN;
    memory[[3, 2, 0]] = f64::NAN;
    for (name, attention) in every_score::<f64>(5, 5) {
        let mut cache = attention.cache();
        let context = attention.forward(&query, &memory, &mut cache);
        for ((t, b, _), context) in context.indexed_iter() {
            assert_eq!(context.is_nan(), (t, b) == (2, 1) || b == 2, "{name}: {t}, {b}");
        }
        assert!(cache.weights().slice(s![.., 2, ..]).iter().all(|weight| weight.is_nan()), "{name}");
    }
}

#[test]
fn parameters_have_names_and_start_as_linear_layers() {
    let rng = &mut rng(11);
    let attention = Attention::<f64>::additive(4, 9, 16, rng);
    assert_eq!(attention.names(), ["weight_query", "weight_memory", "bias", "v"]);
    assert_eq!((0..4).map(|i| attention.shape(i)).collect::<Vec<_>>(), [&[16, 4][..], &[16, 9], &[16], &[16]]);
    for (i, bound) in [(0, 1.0 / 2.0), (1, 1.0 / 3.0), (2, 1.0 / 2.0), (3, 1.0 / 4.0)] {
        let largest = attention.values(i).iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        assert!(largest <= bound && largest > 0.8 * bound, "{}: {largest} for {bound}", attention.name(i));
    }
    let without = Attention::from(AdditiveScore::<f64>::new(4, 9, 16, rng).without_bias());
    assert_eq!(without.names(), ["weight_query", "weight_memory", "v"]);
    let attention = Attention::<f64>::bilinear(4, 9, rng);
    assert_eq!((attention.names(), attention.shape(0)), (vec!["weight".to_owned()], &[4, 9][..]));
    assert!(attention.values(0).iter().all(|value| value.abs() <= 1.0 / 3.0));
    assert_eq!(Attention::<f32>::dot().count(), 0);
    assert_eq!(attention.zeros_like().values(0), [0.0; 36]);
}
