//! The positions that each query sees: masks of the inputs, masks for each query, and pieces.

use gradflow::attention::{Attention, AttentionMask};
use gradflow::check::GradCheck;
use gradflow::ndarray::{Array2, Array3, ArrayRef3, ArrayView3, Axis, arr2, s};
use gradflow::{
    Layer, Sequence, Tensors, TensorsExt,
    author::{AttentionCache, Gradient, Size, SizeError},
    parameters,
};

use super::{BATCH, MEMORY_STEPS, STEPS, every_score, whole};
use crate::common::{Within, assert_all_near, assert_says, panic_of, wave};

/// The positions that each query sees: some, all, one or none.
fn allowed() -> Array3<bool> {
    Array3::from_shape_fn((STEPS, BATCH, MEMORY_STEPS), |(t, b, s)| match (t + b) % 4 {
        0 => (s + t) % 2 == 0,
        1 => true,
        2 => s == t,
        _ => false,
    })
}

/// Contexts, weights and all gradients of each query with the mask equal those over the visible positions alone.
#[test]
fn a_mask_leaves_what_is_seen_alone() {
    let (query, memory) = (wave((STEPS, BATCH, 5), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let (allowed, dcontext) = (allowed(), wave((STEPS, BATCH, 5), 0.7));
    for (name, attention) in every_score::<f64>(5, 5) {
        let (mut cache, mut grad) = (attention.cache(), attention.zeros_like());
        attention.memorize(&memory, &mut cache);
        let context = attention.attend_masked(&query, &memory, &allowed, &mut cache).to_owned();
        let weights = cache.weights().to_owned();
        let (dquery, dmemory) = attention.backward(&query, &memory, &dcontext, &mut cache, &mut grad);
        let (dquery, dmemory) = (dquery.to_owned(), dmemory.to_owned());

        let (mut sum, mut dmemory_sum) = (attention.zeros_like(), Array3::<f64>::zeros(memory.raw_dim()));
        for (t, b) in (0..STEPS).flat_map(|t| (0..BATCH).map(move |b| (t, b))) {
            let seen: Vec<usize> = (0..MEMORY_STEPS).filter(|&s| allowed[[t, b, s]]).collect();
            let row = |x: &Array3<f64>| x.slice(s![t..=t, b..=b, ..]).to_owned();
            if seen.is_empty() {
                let rows = [row(&context), row(&weights), row(&dquery)];
                assert!(rows.iter().flatten().all(|&value| value == 0.0), "{name}: nothing to see is not zero");
                continue;
            }
            let part = memory.slice(s![.., b..=b, ..]).select(Axis(0), &seen);
            let one = whole(&attention, (&row(&query)).into(), (&part).into(), &row(&dcontext), &mut attention.cache());
            let near = |got: &Array3<f64>, want: &Array3<f64>, what: &str| {
                let (got, want): (Vec<_>, Vec<_>) = (got.iter().copied().collect(), want.iter().copied().collect());
                assert_all_near(&got, &want, Within::either(1e-13), &format!("{name}: {what} at {t}, {b}"));
            };
            near(&row(&context), &one.context, "context");
            near(&row(&dquery), &one.dquery, "dL/dquery");
            near(&row(&weights).select(Axis(2), &seen), &one.weights, "weights");
            for (k, &s) in seen.iter().enumerate() {
                let mut sum = dmemory_sum.slice_mut(s![s, b, ..]);
                sum += &one.dmemory.slice(s![k, 0, ..]);
            }
            for i in 0..sum.count() {
                sum.tensor_mut(i).iter_mut().zip(one.grad.values(i)).for_each(|(sum, d)| *sum += d);
            }
        }
        assert!((&dmemory - &dmemory_sum).iter().all(|error| error.abs() < 1e-13), "{name}: dL/dmemory");
        for i in 0..grad.count() {
            assert_all_near(grad.values(i), sum.values(i), Within::either(1e-13), name);
        }
    }
}

/// Numbers are added to scores after scaling; -∞ hides a position, and one mask serves all sequences.
#[test]
fn numbers_are_added_to_scaled_scores() {
    let (query, memory) = (wave((STEPS, BATCH, 4), 0.2), wave((MEMORY_STEPS, BATCH, 4), 1.3));
    let added = Array3::from_shape_fn((STEPS, 1, MEMORY_STEPS), |(t, _, s)| match (t + s) % 5 {
        0 => f64::NEG_INFINITY,
        other => 0.4 * other as f64 - 1.0,
    });
    let (attention, mut cache) = (Attention::scaled_dot(), Default::default());
    attention.memorize(&memory, &mut cache);
    attention.attend_masked(&query, &memory, &added, &mut cache);
    for (t, b) in (0..STEPS).flat_map(|t| (0..BATCH).map(move |b| (t, b))) {
        let score = |s: usize| query.slice(s![t, b, ..]).dot(&memory.slice(s![s, b, ..])) / 2.0 + added[[t, 0, s]];
        let total: f64 = (0..MEMORY_STEPS).map(|s| score(s).exp()).sum();
        for s in 0..MEMORY_STEPS {
            assert!((cache.weights()[[t, b, s]] - score(s).exp() / total).abs() < 1e-15);
        }
    }
    let allowed = added.mapv(|added| added > f64::NEG_INFINITY);
    let hidden = added.mapv(|added| if added > f64::NEG_INFINITY { 0.0 } else { added });
    let by_numbers = attention.attend_masked(&query, &memory, &hidden, &mut cache).to_owned();
    assert_eq!(by_numbers, attention.attend_masked(&query, &memory, &allowed, &mut cache));
}

/// Documents side by side in one row see only themselves: each has the same bits as alone, and NaN stays in its document.
#[test]
fn pieces_see_themselves() {
    let resets = arr2(&[[false, false], [true, false], [false, true], [false, true], [true, false]]);
    let mut x = wave((5, 2, 4), 0.3);
    x[[4, 0, 1]] = f64::NAN; // alone in the third piece of sequence 0
    let all = Sequence::from(&x).with_resets(&resets);
    let attention = Attention::<f64>::scaled_dot();
    let mut cache = attention.cache();
    let context = attention.forward(all, all, &mut cache).to_owned();
    for piece in all.pieces() {
        let part = x.slice(s![piece.steps.clone(), piece.sequence..=piece.sequence, ..]).to_owned();
        let alone = attention.forward(&part, &part, &mut attention.cache()).to_owned();
        let got = context.slice(s![piece.steps.clone(), piece.sequence..=piece.sequence, ..]).to_owned();
        let bits = |x: &Array3<f64>| x.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(&alone), "{piece:?}");
    }
    assert_eq!(cache.weights()[[1, 0, 0]], 0.0);
    // A chunk of the queries belongs to the same pieces.
    attention.memorize(all, &mut cache);
    let step = attention.attend(all.steps(3..4), all, &mut cache);
    assert_eq!(step.index_axis(Axis(0), 0).row(1), context.slice(s![3, 1, ..]));

    // If only one of the two has resets, all positions see each other.
    let memory = wave((3, 2, 4), 0.9);
    let want = attention.forward(&x, &memory, &mut attention.cache()).to_owned();
    let got = attention.forward(all, &memory, &mut cache).to_owned();
    assert!(got.iter().zip(&want).all(|(got, want)| got == want || got.is_nan() && want.is_nan()));
    attention.forward(&memory.slice(s![..1, .., ..]).to_owned(), all, &mut cache);
    assert!(cache.weights().slice(s![0, 1, ..]).iter().all(|&weight| weight > 0.0));
}

#[test]
fn masks_of_another_shape_are_refused() {
    let (query, memory) = (wave((STEPS, BATCH, 4), 0.2), wave((MEMORY_STEPS, BATCH, 4), 1.3));
    let attention = Attention::<f64>::dot();
    let mut cache = attention.cache();
    attention.memorize(&memory, &mut cache);
    for shape in [(STEPS, 2, MEMORY_STEPS), (STEPS + 1, BATCH, MEMORY_STEPS), (STEPS, BATCH, MEMORY_STEPS - 1)] {
        let mask = Array3::from_elem(shape, true);
        let message = panic_of(|| _ = attention.attend_masked(&query, &memory, &mask, &mut cache));
        assert_says(&message, &["Attention: mask", "[4, 3, 6]", &format!("{shape:?}")]);
    }
}

/// Attention with masks of all kinds over a memory that is one of the parameters.
#[derive(Clone)]
struct Masked {
    attention: Attention<f64>,
    memory: Array3<f64>,
    mask: Option<Array3<f64>>,
    valid: Array2<bool>,
}
parameters! { impl Tensors<f64> for Masked { attention as "", memory; skip mask, valid } }

#[derive(Default)]
struct MaskedCache {
    attention: AttentionCache<f64>,
    context: Array3<f64>,
}

impl Layer for Masked {
    type Elem = f64;
    type State = ();
    type Cache = MaskedCache;

    fn output_size(&self, _: Size) -> Result<usize, SizeError> {
        Ok(self.memory.dim().2)
    }

    fn zero_state(&self, _: usize) {}

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        _: &mut (),
        MaskedCache { attention: cache, context }: &'c mut MaskedCache,
    ) -> ArrayView3<'c, f64> {
        let memory = Sequence::from(&self.memory).with_mask(&self.valid);
        self.attention.memorize(memory, cache);
        let y = match &self.mask {
            Some(mask) => self.attention.attend_masked(x, memory, AttentionMask::from(mask), cache),
            None => self.attention.attend(x, memory, cache),
        };
        *context = y.to_owned();
        context.view()
    }

    fn output<'c>(&self, cache: &'c MaskedCache) -> ArrayView3<'c, f64> {
        cache.context.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        dy: &ArrayRef3<f64>,
        _: Option<&mut ()>,
        MaskedCache { attention: cache, .. }: &'c mut MaskedCache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, f64> {
        let memory = Sequence::from(&self.memory).with_mask(&self.valid);
        let grad = grad.to_add();
        let (dquery, dmemory) = self.attention.backward(x, memory, dy, cache, &mut grad.attention);
        grad.memory += &dmemory;
        dquery
    }
}

#[test]
fn gradients_with_masks_are_right() {
    let query = wave((STEPS, BATCH, 5), 0.2);
    let seen = Array2::from_shape_fn((STEPS, BATCH), |(t, b)| (t + 2 * b) % 3 != 0);
    let valid = Array2::from_shape_fn((MEMORY_STEPS, BATCH), |(s, b)| (s + b) % 3 != 1);
    let mask = allowed().mapv(|allowed| if allowed { 0.0 } else { f64::NEG_INFINITY });
    for (name, attention) in every_score::<f64>(5, 5) {
        for mask in [None, Some(mask.clone())] {
            // Positions that are not read may hold anything.
            let mut memory = wave((MEMORY_STEPS, BATCH, 5), 1.3);
            for ((s, b), _) in valid.indexed_iter().filter(|&(_, &valid)| !valid) {
                memory.slice_mut(s![s, b, ..]).fill(1e300);
            }
            let layer = Masked { attention: attention.clone(), memory, mask, valid: valid.clone() };
            let x = Sequence::from(&query).with_mask(&seen);
            let y = layer.forward(x, &mut (), &mut layer.cache()).to_owned();
            assert!(y.iter().all(|y| y.abs() < 10.0), "{name}");
            let layer = Masked { memory: wave((MEMORY_STEPS, BATCH, 5), 1.3), ..layer };
            let report = GradCheck::default().check(&layer, x, &());
            assert!(report.passed() && report.tolerance <= 1e-6, "{name}\n{report}");
        }
    }
}
