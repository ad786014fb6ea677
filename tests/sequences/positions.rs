//! Masks, resets and sequences without steps. The contract checks that all layers keep pieces apart; these tests check the rest.

use gradflow::check::Contract;
use gradflow::data::Samples;
use gradflow::layers::{LastStep, Pool};
use gradflow::loss::{Ctc, Loss, MeanSquaredError, SoftmaxCrossEntropy};
use gradflow::metrics::Accuracy;
use gradflow::ndarray::{Array2, Array3, Axis, arr2, concatenate, s};
use gradflow::rand::RngExt;
use gradflow::{
    Float, Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    recurrent::{Gru, GruCell, Lstm, LstmCell, RnnCell},
    wrap::{Bidirectional, GradientProbe, LearnedState, Probed, TruncatedBptt},
};

use crate::common::{rng, wave};

fn marks(steps: usize, batch: usize, share: f64, seed: u64) -> Array2<bool> {
    let rng = &mut rng(seed);
    Array2::from_shape_simple_fn((steps, batch), || rng.random_bool(share))
}

/// Outputs and states of a piece have the same bits as those of a chunk with the same steps. (A single step of one sequence adds in
/// another order.)
#[test]
fn pieces_have_the_bits_of_chunks() {
    fn check<L: Layer>(name: &str, layer: &L) {
        let (steps, batch) = (12, 6);
        let x = wave::<L::Elem>((steps, batch, 5), 0.3);
        for share in [0.05, 0.2, 0.5] {
            let resets = marks(steps, batch, share, 3);
            let x = Sequence::from(&x).train(7);
            let (mut state, mut cache) = (layer.zero_state(batch), layer.cache());
            fill(&mut state);
            let first = state.clone();
            let marked = x.with_resets(&resets);
            let y = layer.forward(marked, &mut state, &mut cache).to_owned();
            for piece in marked.pieces().filter(|piece| piece.steps.len() > 1) {
                let b = piece.sequence;
                let mut own = piece.initial.map_or_else(|| layer.zero_state(1), |b| layer.select_state(&first, &[b]));
                let part = x.steps(piece.steps.clone()).sequences(b..b + 1);
                let alone = layer.forward(part, &mut own, &mut layer.cache()).to_owned();
                assert_eq!(alone, y.slice(s![piece.steps.clone(), b..b + 1, ..]), "{name}, {piece:?}");
                if let Some(b) = piece.last {
                    let last = layer.select_state(&state, &[b]);
                    (0..own.count()).for_each(|i| assert_eq!(own.values(i), last.values(i), "{name}"));
                }
            }
        }
    }
    fn fill<F: Float>(state: &mut impl Tensors<F>) {
        for i in 0..state.count() {
            state.tensor_mut(i).iter_mut().enumerate().for_each(|(k, s)| *s = F::of((k as f64 + 0.4).sin() / 2.0));
        }
    }
    let rng = &mut rng(0);
    check("LSTM", &Lstm::<f32>::builder(5, 19).num_layers(2).recurrent_dropout(0.3).zoneout(0.1, 0.2).build(rng));
    check("LSTM, f64", &LstmCell::<f64>::builder(5, 19).peepholes().layer_norm().build(rng));
    check("GRU", &Gru::<f32>::builder(5, 33).num_layers(2).dropout(0.2).build(rng));
    check("RNN", &RnnCell::<f64>::builder(5, 8).build(rng));
}

/// If cut between chunks, gradients with resets are those of a loop over chunks.
#[test]
fn truncated_gradients_are_those_of_chunks() {
    let lstm = Lstm::<f64>::builder(3, 4).num_layers(2).build(&mut rng(1));
    let (x, dy) = (wave((10, 4, 3), 0.3), wave((10, 4, 4), 0.9));
    let (resets, lengths) = (marks(10, 4, 0.3, 5), [10, 0, 7, 3]);
    let x = Sequence::from(&x).with_resets(&resets).with_lengths(&lengths).unwrap();
    let chunked = TruncatedBptt::new(lstm.clone(), 3);
    let (mut state, mut cache, mut grad) = (chunked.zero_state(4), chunked.cache(), chunked.zeros_like());
    let y = chunked.forward(x, &mut state, &mut cache).to_owned();
    let dx = chunked.backward(x, &dy, None, &mut cache, &mut grad).to_owned();

    let (mut carried, mut sum, mut dxs) = (lstm.zero_state(4), lstm.zeros_like(), Vec::new());
    for (k, chunk) in x.chunks(3).enumerate() {
        let steps = 3 * k..(3 * k + 3).min(10);
        let mut cache = lstm.cache();
        let part = lstm.forward(chunk, &mut carried, &mut cache).to_owned();
        assert_eq!(part, y.slice(s![steps.clone(), .., ..]));
        let dy = dy.slice(s![steps, .., ..]);
        dxs.push(lstm.backward(chunk, &dy, None, &mut cache, &mut sum).to_owned());
    }
    assert_eq!(state, carried);
    let views: Vec<_> = dxs.iter().map(|dx| dx.view()).collect();
    assert!((&dx - &concatenate(Axis(0), &views).unwrap()).iter().all(|error| error.abs() < 1e-14));
    for i in 0..grad.count() {
        let pairs = grad.values(i).iter().zip(sum.values(i));
        pairs.for_each(|(got, want)| assert!((got - want).abs() < 1e-13, "{got} for {want}"));
    }
}

/// A learned state is learned from every start, whether the chunks are inside or outside it.
#[test]
fn a_learned_state_starts_every_piece() {
    let rng = &mut rng(2);
    let mut plain = LearnedState::new(Lstm::<f64>::builder(3, 4).num_layers(2).build(rng));
    plain.initial.h.fill(0.3);
    plain.initial.c.fill(-0.2);
    let (x, dy) = (wave((7, 3, 3), 0.3), wave((7, 3, 4), 0.9));
    let resets = marks(7, 3, 0.4, 8);
    let x = Sequence::from(&x).with_resets(&resets);
    let inside = LearnedState {
        layer: TruncatedBptt::new(plain.layer.clone(), 2).pass_gradients(),
        initial: plain.initial.clone(),
    };
    let outside = TruncatedBptt::new(plain.clone(), 2).pass_gradients();
    fn run<L: Layer<Elem = f64>>(layer: &L, x: Sequence<'_, f64>, dy: &Array3<f64>) -> Vec<f64> {
        let (mut state, mut cache, mut grad) = (layer.zero_state(3), layer.cache(), layer.zeros_like());
        let y = layer.forward(x, &mut state, &mut cache).to_owned();
        let dx = layer.backward(x, dy, None, &mut cache, &mut grad).to_owned();
        let mut all: Vec<f64> = y.iter().chain(&dx).copied().collect();
        (0..grad.count()).for_each(|i| all.extend(grad.values(i)));
        (0..state.count()).for_each(|i| all.extend(state.values(i)));
        all
    }
    let want = run(&plain, x, &dy);
    for got in [run(&inside, x, &dy), run(&outside, x, &dy)] {
        assert_eq!(got.len(), want.len());
        got.iter().zip(&want).for_each(|(got, want)| assert!((got - want).abs() < 1e-13, "{got} for {want}"));
    }
    // The sum over all starts differs from the gradient of a single one.
    let mut grad = plain.zeros_like();
    plain.pass(x, &mut plain.zero_state(3), &mut plain.cache()).backward(&dy, &mut grad);
    let mut of_first = plain.zeros_like();
    let first = Sequence::from(x.features("test", None));
    plain.pass(first, &mut plain.zero_state(3), &mut plain.cache()).backward(&dy, &mut of_first);
    assert!((&grad.initial.h - &of_first.initial.h).iter().any(|d| d.abs() > 0.1));

    let cells = [GruCell::<f64>::new(3, 4, rng), GruCell::new(3, 4, rng)];
    let [forward, reverse] = cells;
    let mut both = LearnedState::new(Bidirectional::new(forward, reverse));
    both.initial.forward.fill(0.4);
    both.initial.reverse.fill(-0.3);
    Contract::new("both directions from learned states", &both, 3).check();
}

/// After a change of steps there are no pieces, but states still have their rows.
#[test]
fn a_learned_state_reaches_past_a_change_of_steps() {
    let rng = &mut rng(6);
    let (first, second) = (GruCell::<f64>::new(3, 4, rng), GruCell::new(4, 4, rng));
    let mut both = LearnedState::new((first.clone(), LastStep::new(), second.clone()));
    both.initial.0.fill(0.4);
    both.initial.2.fill(-0.3);
    let first = LearnedState { layer: first, initial: both.initial.0.clone() };
    let second = LearnedState { layer: second, initial: both.initial.2.clone() };
    let apart = (first, LastStep::new(), second);
    let (x, dy, resets) = (wave((5, 3, 3), 0.3), wave((1, 3, 4), 0.8), marks(5, 3, 0.5, 3));
    for x in [Sequence::from(&x).with_resets(&resets), Sequence::from(&x).with_resets(&resets).reversed()] {
        let (mut state, mut cache, mut grad) = (both.zero_state(3), both.cache(), both.zeros_like());
        let (mut want_state, mut want_cache, mut want) = (apart.zero_state(3), apart.cache(), apart.zeros_like());
        for _ in 0..2 {
            let (mut dstate, mut want_dstate) = (both.zero_state(3), apart.zero_state(3));
            dstate.state.2.fill(0.5);
            want_dstate.2.state.fill(0.5);
            let y = both.forward(x, &mut state, &mut cache).to_owned();
            assert_eq!(y, apart.forward(x, &mut want_state, &mut want_cache));
            let dx = both.backward(x, &dy, Some(&mut dstate), &mut cache, &mut grad).to_owned();
            assert_eq!(dx, apart.backward(x, &dy, Some(&mut want_dstate), &mut want_cache, &mut want));
            // After a reset at the end, the first layer's state is the learned one here, and one that has not started there.
            assert_eq!(state.state.2, want_state.2.state);
            assert_eq!(dstate.state.2, want_dstate.2.state);
        }
        assert_eq!((&grad.initial.0, &grad.initial.2), (&want.0.initial, &want.2.initial));
    }
}

/// The state of a single sequence, whose batch axis cannot be identified, has as many pieces as any other.
#[test]
fn a_learned_state_of_one_sequence_starts_every_piece() {
    let mut layer = LearnedState::new(Lstm::<f64>::builder(3, 4).num_layers(3).build(&mut rng(7)));
    layer.initial.h.fill(0.3);
    let (x, resets) = (wave((5, 1, 3), 0.3), Array2::from_shape_fn((5, 1), |(t, _)| t == 2));
    let (mut state, mut cache) = (layer.zero_state(1), layer.cache());
    let y = layer.forward(Sequence::from(&x).with_resets(&resets), &mut state, &mut cache).to_owned();
    let mut last = layer.zero_state(1);
    let alone = layer.forward(Sequence::from(&x).steps(2..5), &mut last, &mut layer.cache()).to_owned();
    assert_eq!((alone.view(), last), (y.slice(s![2.., .., ..]), state));
}

/// Marks given to a whole sequence apply to its chunks, and marks given to a chunk apply to that chunk.
#[test]
fn marks_belong_to_what_they_were_given_to() {
    let x = wave::<f64>((6, 2, 1), 0.0);
    let marks = arr2(&[[true, false], [false, true], [false, false]]);
    let lengths = [6, 5];
    let chunk = Sequence::from(&x).with_lengths(&lengths).unwrap().steps(3..6).with_resets(&marks).with_mask(&marks);
    let pieces: Vec<_> = chunk.pieces().map(|piece| (piece.sequence, piece.steps)).collect();
    assert_eq!(pieces, [(0, 0..0), (0, 0..3), (1, 0..1), (1, 1..2)]);
    assert_eq!((chunk.valid_count(), chunk.valid(0, 0), chunk.valid(1, 1)), (2, true, true));
    // In the reverse direction they are read from the end.
    let pieces: Vec<_> = chunk.reversed().pieces().map(|piece| (piece.steps, piece.initial, piece.last)).collect();
    assert_eq!(pieces[..2], [(0..3, Some(0), None), (0..0, None, Some(0))]);
    assert_eq!(pieces[2..], [(1..2, Some(1), None), (0..1, None, Some(1))]);
    let backward: Vec<_> = chunk.pieces_backward().map(|piece| (piece.sequence, piece.steps, piece.last)).collect();
    assert_eq!(backward, [(0, 0..3, Some(0)), (0, 0..0, None), (1, 1..2, Some(1)), (1, 0..1, None)]);
    let part = chunk.steps(1..3).sequences(1..2);
    assert_eq!(part.pieces().map(|piece| piece.steps).collect::<Vec<_>>(), [0..0, 0..1]);
}

/// No gradient passes a reset, and a probe shows that.
#[test]
fn no_gradient_passes_a_reset() {
    let rng = &mut rng(4);
    let probe = GradientProbe::new();
    let lstm = Probed::recurrent("lstm", LstmCell::<f64>::new(2, 4, rng), &probe);
    let x = wave((6, 1, 2), 0.3);
    let resets = Array2::from_shape_fn((6, 1), |(t, _)| t == 3);
    let mut dy = Array3::zeros((6, 1, 4));
    dy.index_axis_mut(Axis(0), 5).fill(1.0);
    probe.record(true);
    let (mut cache, mut grad) = (lstm.cache(), lstm.zeros_like());
    let x = Sequence::from(&x).with_resets(&resets);
    let dx = lstm.pass(x, &mut lstm.zero_state(1), &mut cache).backward(&dy, &mut grad).to_owned();
    let flow = probe.flow();
    let flow = flow.get("lstm").unwrap();
    for t in 0..6 {
        let is_reached = t >= 3;
        assert_eq!(flow.hidden[t] > 0.0, is_reached, "{t}: {:?}", flow.hidden);
        assert_eq!(dx.index_axis(Axis(0), t).iter().any(|&d| d != 0.0), is_reached);
    }
}

/// Losses and metrics count only positions that the mask keeps, CTC too.
#[test]
fn losses_take_the_mask_of_their_input() {
    let (mut y, mut mask) = (wave::<f64>((5, 3, 4), 0.2), marks(5, 3, 0.6, 9));
    mask.slice_mut(s![2..4, ..]).fill(true);
    for ((t, b), _) in mask.indexed_iter().filter(|&(_, &valid)| !valid) {
        y.slice_mut(s![t, b, ..]).fill(f64::NAN);
    }
    let masked = Sequence::from(&y).with_mask(&mask);
    let positions: Vec<_> = mask.indexed_iter().filter(|&(_, &valid)| valid).map(|(at, _)| at).collect();
    let rows = Array3::from_shape_fn((1, positions.len(), 4), |(_, k, d)| y[[positions[k].0, positions[k].1, d]]);
    let same = |got: f64, want: f64| assert!((got - want).abs() < 1e-14, "{got} for {want}");

    let targets = wave::<f64>((5, 3, 4), 0.8);
    let target_rows = Array3::from_shape_fn(rows.dim(), |(_, k, d)| targets[[positions[k].0, positions[k].1, d]]);
    let squared = MeanSquaredError::new();
    same(squared.value(masked, &targets), squared.value(&rows, &target_rows));
    let ids = Array2::from_shape_fn((5, 3), |(t, b)| if mask[[t, b]] { (t + b) % 4 } else { 99 });
    let id_rows = Array2::from_shape_fn((1, positions.len()), |(_, k)| ids[positions[k]]);
    let entropy = SoftmaxCrossEntropy::new();
    same(entropy.value(masked, &ids), entropy.value(&rows, &id_rows));
    let mut dy = Array3::from_elem(y.raw_dim(), 7.0);
    entropy.evaluate(masked, &ids, Some(&mut dy));
    let padding = mask.indexed_iter().filter(|&(_, &valid)| !valid);
    padding.for_each(|((t, b), _)| assert!(dy.slice(s![t, b, ..]).iter().all(|&d| d == 0.0)));
    let (mut of_masked, mut of_rows) = (Accuracy::new(), Accuracy::new());
    of_masked.add(masked, &ids);
    of_rows.add(&rows, &id_rows);
    assert_eq!(of_masked.value(), of_rows.value());

    let labels = vec![vec![1_usize], vec![], vec![2, 3]];
    let ctc = Ctc::new().sum();
    let mut dctc = Array3::from_elem(y.raw_dim(), 7.0);
    let got = ctc.evaluate(masked, &labels, Some(&mut dctc));
    let mut want = 0.0;
    for b in 0..3 {
        let steps: Vec<_> = (0..5).filter(|&t| mask[[t, b]]).collect();
        let alone = y.slice(s![.., b..b + 1, ..]).select(Axis(0), &steps);
        let mut dalone = Array3::zeros(alone.raw_dim());
        want += ctc.evaluate((&alone).into(), &labels[b..b + 1], Some(&mut dalone));
        for t in 0..5 {
            let d = dctc.slice(s![t, b, ..]);
            match steps.iter().position(|&step| step == t) {
                Some(k) => d.iter().zip(dalone.slice(s![k, 0, ..])).for_each(|(&got, &want)| same(got, want)),
                None => assert!(d.iter().all(|&d| d == 0.0)),
            }
        }
    }
    same(got, want);
}

/// For a sequence without steps, layers that change the number of steps give zeros.
#[test]
fn nothing_is_made_of_no_steps() {
    let x = wave::<f64>((4, 3, 2), 0.2);
    let mask = arr2(&[[false, true, false], [true, false, false], [false, true, false], [false, false, false]]);
    let lengths = [2, 4, 0];
    for x in [Sequence::from(&x).with_mask(&mask), Sequence::from(&x).with_lengths(&lengths).unwrap()] {
        let (last, mean, max) = (LastStep::new(), Pool::mean(), Pool::max());
        let mut dy = Array3::ones((1, 3, 2));
        dy.index_axis_mut(Axis(1), 2).fill(f64::NAN);
        let (mut last_cache, mut mean_cache, mut max_cache) = (last.cache(), mean.cache(), max.cache());
        let values = x.features("test", None);
        let y = [
            last.forward(x, &mut (), &mut last_cache).to_owned(),
            mean.forward(x, &mut (), &mut mean_cache).to_owned(),
            max.forward(x, &mut (), &mut max_cache).to_owned(),
        ];
        for b in 0..3 {
            let steps: Vec<_> = x.valid_steps(b).collect();
            for d in 0..2 {
                let of = |k: &usize| values[[*k, b, d]];
                let (count, sum) = (steps.len().max(1) as f64, steps.iter().map(of).sum::<f64>());
                assert_eq!(y[0][[0, b, d]], steps.last().map_or(0.0, of));
                assert!((y[1][[0, b, d]] - sum / count).abs() < 1e-15);
                let largest = steps.iter().map(of).reduce(f64::max);
                assert_eq!(y[2][[0, b, d]], largest.unwrap_or(0.0));
            }
        }
        let dx = last.backward(x, &dy, None, &mut last_cache, &mut last.zeros_like()).to_owned()
            + mean.backward(x, &dy, None, &mut mean_cache, &mut mean.zeros_like())
            + max.backward(x, &dy, None, &mut max_cache, &mut max.zeros_like());
        assert!(dx.index_axis(Axis(1), 2).iter().all(|&d| d == 0.0));
        assert_eq!(dx.index_axis(Axis(1), 0).sum(), 6.0);
    }
}

/// A batch in which no sequence has a step is legal: nothing happens, and nothing counts.
#[test]
fn a_batch_may_be_all_padding() {
    let lstm = Lstm::<f64>::builder(2, 3).bidirectional().build(&mut rng(5));
    let x = Array3::from_elem((3, 2, 2), f64::NAN);
    let x = Sequence::from(&x).with_lengths(&[0, 0]).unwrap().train(1);
    let mut state = lstm.zero_state(2);
    state.h.fill(0.5);
    let before = state.clone();
    let (mut cache, mut grad) = (lstm.cache(), lstm.zeros_like());
    let mut loss = SoftmaxCrossEntropy::new();
    let ids = Array2::<usize>::from_elem((3, 2), 99);
    let pass = lstm.pass(x, &mut state, &mut cache);
    let loss = loss.of(&pass, &ids);
    assert_eq!(loss.value(), 0.0);
    let dx = pass.backward(loss.gradient(), &mut grad);
    assert!(dx.iter().all(|&d| d == 0.0) && (0..grad.count()).all(|i| grad.values(i).iter().all(|&d| d == 0.0)));
    assert_eq!(state, before);
}

/// Samples may be empty; a batch of only empty samples has one step of padding.
#[test]
fn samples_may_be_empty() {
    let samples = Samples::<f32>::ids([vec![3_u8, 4], vec![], vec![5]]).with_tags([vec![1_u8, 0], vec![], vec![1]]);
    let batch = samples.all();
    let x = batch.sequence();
    assert_eq!((x.dims(), x.length(1), x.valid_count()), ((2, 3), 0, 3));
    let empty = samples.batch(&[1, 1]);
    assert_eq!((empty.sequence().dims(), empty.sequence().valid_count()), ((1, 2), 0));
    let values = Samples::<f32>::values([Array2::zeros((0, 3)), Array2::ones((2, 3))]);
    assert_eq!(values.all().sequence().dims(), (2, 2));
}
