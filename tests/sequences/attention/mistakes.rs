//! Sizes that do not fit, and calls out of order.

use gradflow::ndarray::{Array1, Array2, Array3};
use gradflow::{
    Sequence, Tensors,
    attention::{AdditiveScore, Attention, AttentionScore, BilinearScore},
    author::AttentionCache,
};

use super::{BATCH, MEMORY_STEPS, STEPS, every_score};
use crate::common::{assert_says, panic_of, rng, wave};

#[test]
fn sizes_that_do_not_fit_are_named() {
    let rng = &mut rng(11);
    let forward = |attention: &Attention<f64>, query, memory| {
        let (query, memory) = (Array3::<f64>::zeros(query), Array3::zeros(memory));
        panic_of(|| attention.forward(&query, &memory, &mut attention.cache()).to_owned())
    };
    let (bilinear, additive) = (Attention::bilinear(3, 5, rng), Attention::additive(3, 5, 7, rng));
    for attention in [&bilinear, &additive] {
        assert_says(&forward(attention, (4, 2, 6), (6, 2, 5)), &["Attention: query", "[T, B, 3]", "[4, 2, 6]"]);
        assert_says(&forward(attention, (4, 2, 3), (6, 2, 4)), &["Attention: memory", "[T, B, 5]", "[6, 2, 4]"]);
        assert_says(&forward(attention, (4, 1, 3), (6, 2, 5)), &["Attention: query", "[4, 2, 3]", "[4, 1, 3]"]);
        for query in [(0, 2, 3), (4, 0, 3)] {
            assert_says(&forward(attention, query, (6, 2, 5)), &["Attention: query", "at least one step"]);
        }
        for memory in [(0, 2, 5), (6, 0, 5)] {
            assert_says(&forward(attention, (4, 2, 3), memory), &["Attention: memory", "at least one step"]);
        }
    }
    let dot = Attention::dot();
    assert_says(&forward(&dot, (4, 2, 3), (6, 2, 5)), &["Attention: query", "[T, B, 5]", "[4, 2, 3]"]);
    assert_says(&forward(&dot, (4, 2, 0), (6, 2, 0)), &["Attention: memory", "at least one step"]);
    let ids = Array2::<usize>::zeros((4, 2));
    let memory = Array3::zeros((6, 2, 5));
    let message = panic_of(|| dot.forward(&ids, &memory, &mut dot.cache()).to_owned());
    assert_says(&message, &["Attention: query", "[T, B, 5]", "token ids"]);

    assert_says(&panic_of(|| BilinearScore::<f64>::new(0, 5, rng)), &["Attention", "sizes must not be 0", "query 0"]);
    assert_says(&panic_of(|| AdditiveScore::<f64>::new(3, 5, 0, rng)), &["sizes must not be 0", "hidden 0"]);
    let AttentionScore::Additive(score) = additive.score else { panic!("not additive") };
    let misfit = AdditiveScore { v: Array1::zeros(6), ..score.clone() };
    assert_says(&forward(&misfit.into(), (4, 2, 3), (6, 2, 5)), &["Attention: v", "[7]", "[6]"]);
    let misfit = AdditiveScore { bias: Some(Array1::zeros(6)), ..score.clone() };
    assert_says(&forward(&misfit.into(), (4, 2, 3), (6, 2, 5)), &["Attention: bias", "[7]", "[6]"]);
    let misfit = AdditiveScore { weight_memory: Array2::zeros((6, 5)), ..score };
    assert_says(&forward(&misfit.into(), (4, 2, 3), (6, 2, 5)), &["Attention: weight_memory", "[7, 5]", "[6, 5]"]);
}

#[test]
fn calls_out_of_order_are_refused() {
    let (query, memory) = (wave((STEPS, BATCH, 5), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let (other_query, other_memory) = (&query + 1.0, &memory + 1.0);
    let (query, memory) = (Sequence::from(&query), Sequence::from(&memory));
    let (other_query, other_memory) = (Sequence::from(&other_query), Sequence::from(&other_memory));
    let dcontext = wave((STEPS, BATCH, 5), 2.1);
    for (_, attention) in every_score::<f64>(5, 5) {
        let new = || (attention.cache(), attention.zeros_like());

        let (mut cache, mut grad) = new();
        assert_says(&panic_of(|| cache.weights().to_owned()), &["weights", "an `attend` before", "a new cache"]);
        assert_says(
            &panic_of(|| attention.attend(query, memory, &mut cache).to_owned()),
            &["call `memorize`", "stale"],
        );
        let message = panic_of(|| attention.memorize_backward(memory, &mut cache, &mut grad).to_owned());
        assert_says(&message, &["call `memorize`", "stale"]);

        attention.memorize(memory, &mut cache);
        let message = panic_of(|| attention.attend(query, other_memory, &mut cache).to_owned());
        assert_says(&message, &["Attention: memory", "the memory of `memorize`", "another (stale cache)"]);
        let message = panic_of(|| attention.attend(query, memory.train(1), &mut cache).to_owned());
        assert_says(&message, &["Attention: memory", "in its mode"]);
        let backward = |query, dcontext: &Array3<f64>, cache: &mut AttentionCache<f64>, grad: &mut Attention<f64>| {
            attention.attend_backward(query, memory, dcontext, cache, grad).to_owned()
        };
        let message = panic_of(|| backward(query, &dcontext, &mut cache, &mut grad));
        assert_says(&message, &["Attention: cache", "an `attend` that awaits its backward", "none"]);

        // Backward in the order of the forward passes instead of the reverse order.
        attention.attend(query, memory, &mut cache);
        attention.attend(other_query, memory, &mut cache);
        let message = panic_of(|| backward(query, &dcontext, &mut cache.clone(), &mut grad));
        assert_says(&message, &["Attention: query", "the last `attend`", "reverse order"]);
        let message = panic_of(|| attention.memorize_backward(memory, &mut cache, &mut grad).to_owned());
        assert_says(&message, &["every `attend` first", "2 that await it"]);
        backward(other_query, &dcontext, &mut cache, &mut grad);
        let wrong = Array3::zeros((STEPS, BATCH, 6));
        let message = panic_of(|| backward(query, &wrong, &mut cache.clone(), &mut grad));
        assert_says(&message, &["Attention: dcontext", "[4, 3, 5]", "[4, 3, 6]"]);
        let mut other_grad = Attention::bilinear(4, 5, &mut rng(11));
        let message = panic_of(|| backward(query, &dcontext, &mut cache.clone(), &mut other_grad));
        assert_says(&message, &["Attention: grad"]);
        backward(query, &dcontext, &mut cache, &mut grad);
        attention.memorize_backward(memory, &mut cache, &mut grad);
        assert_says(&panic_of(|| backward(query, &dcontext, &mut cache, &mut grad)), &["call `memorize`", "stale"]);

        // A refused call changes nothing.
        attention.memorize(memory, &mut cache);
        attention.attend(query, memory, &mut cache);
        panic_of(|| backward(other_query, &dcontext, &mut cache, &mut grad));
        backward(query, &dcontext, &mut cache, &mut grad);
        attention.memorize_backward(memory, &mut cache, &mut grad);

        // Inference keeps nothing for a backward pass.
        attention.memorize(memory.infer(), &mut cache);
        attention.attend(query, memory.infer(), &mut cache);
        let infer = memory.infer();
        let message = panic_of(|| attention.memorize_backward(infer, &mut cache, &mut grad).to_owned());
        assert_says(&message, &["an inference pass"]);
        let message = panic_of(|| attention.attend_backward(query, infer, &dcontext, &mut cache, &mut grad).to_owned());
        assert_says(&message, &["an `attend` that awaits its backward", "inference"]);
        attention.memorize(memory, &mut cache);
        attention.attend(query.infer(), memory, &mut cache);
        let message = panic_of(|| backward(query.infer(), &dcontext, &mut cache, &mut grad));
        assert_says(&message, &["an `attend` that awaits its backward", "inference"]);
    }
}

/// In debug builds, every value of memory, queries and parameters is compared.
#[test]
#[cfg(debug_assertions)]
fn what_changed_after_forward_is_refused() {
    let (query, memory) = (wave((STEPS, BATCH, 5), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let dcontext = wave((STEPS, BATCH, 5), 2.1);
    for (score, attention) in every_score::<f64>(5, 5) {
        let refused = |what: &str| {
            let (mut attention, mut query, mut memory) = (attention.clone(), query.clone(), memory.clone());
            let mut cache = attention.cache();
            attention.forward(&query, &memory, &mut cache);
            match what {
                "query" => query[[2, 1, 3]] += 1.0,
                "memory" => memory[[3, 1, 2]] += 1.0,
                _ => attention.tensor_mut(0)[2] += 1.0,
            }
            let says = [&format!("Attention: {what}"), "stale cache"];
            if what != "query" {
                let attend = || attention.attend(&query, &memory, &mut cache.clone()).to_owned();
                assert_says(&panic_of(attend), &says);
            }
            let mut grad = attention.zeros_like();
            let backward = || attention.backward(&query, &memory, &dcontext, &mut cache, &mut grad).0.to_owned();
            assert_says(&panic_of(backward), &says);
        };
        println!("{score}");
        refused("query");
        refused("memory");
        if attention.count() > 0 {
            refused("parameters");
        }
    }
}

/// After a forward pass that panics, here because its weights are column-major, no older pass is accepted by a backward pass.
#[test]
fn a_panic_leaves_nothing_that_is_accepted() {
    let mut turned = Attention::<f64>::bilinear(5, 5, &mut rng(1));
    let (query, memory) = (wave((STEPS, BATCH, 5), 0.2), wave((MEMORY_STEPS, BATCH, 5), 1.3));
    let (dcontext, mut cache) = (wave((STEPS, BATCH, 5), 2.1), turned.cache());
    let right = turned.clone();
    let AttentionScore::Bilinear(score) = &mut turned.score else { panic!("not bilinear") };
    score.weight = score.weight.clone().reversed_axes();
    right.forward(&query, &memory, &mut cache);
    let infer = |query: &Array3<f64>, memory: &Array3<f64>, cache: &mut AttentionCache<f64>| {
        turned.forward(Sequence::from(query).infer(), Sequence::from(memory).infer(), cache).to_owned()
    };
    assert_says(&panic_of(|| infer(&query, &memory, &mut cache)), &["standard (row-major) layout"]);
    let mut grad = right.zeros_like();
    let message = panic_of(|| right.backward(&query, &memory, &dcontext, &mut cache, &mut grad).0.to_owned());
    assert_says(&message, &["call `memorize`", "stale"]);
}
