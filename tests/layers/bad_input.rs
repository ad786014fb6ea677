//! Wrong sizes, empty batches, wrong lengths, ids out of range, NaN: each gives one clear message, or is passed on and never masked.

use gradflow::ndarray::{Array1, Array2, Array3, ArrayD, Ix3, arr2, s};
use gradflow::{
    Causal, Layer, Sequence, TensorsExt, ZerosLike,
    attention::Attention,
    author::{LengthsError, NamedTensors, Size},
    check::GradCheck,
    clip::{ClipAdaptive, ClipNorm, clip_grad_norm, clip_grad_value},
    compose::{
        BoxLayer, BranchScale, DenseConcat, Highway, PostNormBlock, PreNormBlock, Residual, Stacked, StochasticDepth,
        TiedEmbedding,
    },
    layers::{
        Activation, CausalConv1d, Dropout, Embedding, FeedForward, Identity, Init, LayerNorm, Linear, Nonlinearity,
    },
    loss::{BinaryCrossEntropy, Huber, MeanSquaredError, SoftmaxCrossEntropy},
    optim::{Adagrad, Adam, AdamW, NAdam, Optimizer, RmsProp, Sgd},
    recurrent::{
        Gru, GruCell, Lstm, LstmCell, LstmState, MguCell, MinGruCell, MinLstmCell, Recurrent, RnnCell, Slstm, SlstmCell,
    },
    sequential,
    wrap::{Bidirectional, LearnedState, Merge, TruncatedBptt, WeightNorm},
};

use crate::common::{assert_says, evaluate, panic_of, rng};

/// The panic message of `forward` over `x`, in a new cache.
fn forward_panic<L: Layer<Elem = f64>>(layer: &L, x: Sequence<'_, f64>) -> String {
    let batch = x.dims().1;
    panic_of(|| layer.forward(x, &mut layer.zero_state(batch), &mut layer.cache()).to_owned())
}

sequential! {
    #[derive(Clone)]
    struct Misfit: Layer<f64> {
        embedding: Embedding<f64>,
        lstm: LstmCell<f64>,
        head: Linear<f64>,
    }
}

#[test]
fn sizes_that_do_not_fit_name_the_layer_and_both_sizes() {
    let rng = &mut rng(0);
    let x = Array3::zeros((4, 2, 3));
    assert_says(&forward_panic(&Linear::new(5, 2, rng), (&x).into()), &["Linear", "[T, B, 5]", "[4, 2, 3]"]);
    assert_says(&forward_panic(&RnnCell::new(5, 2, rng), (&x).into()), &["RnnCell", "[T, B, 5]", "[4, 2, 3]"]);
    assert_says(&forward_panic(&LstmCell::new(5, 2, rng), (&x).into()), &["LstmCell", "[T, B, 5]", "[4, 2, 3]"]);
    assert_says(&forward_panic(&GruCell::new(5, 2, rng), (&x).into()), &["GruCell", "[T, B, 5]", "[4, 2, 3]"]);
    assert_says(&forward_panic(&LayerNorm::new(5), (&x).into()), &["LayerNorm", "[T, B, 5]", "[4, 2, 3]"]);
    assert_says(&forward_panic(&Embedding::new(5, 2, rng), (&x).into()), &["Embedding", "token ids", "[4, 2, 3]"]);
    assert_says(
        &forward_panic(&CausalConv1d::new(5, 2, 3, rng), (&x).into()),
        &["CausalConv1d", "[T, B, 5]", "[4, 2, 3]"],
    );
    let strided = CausalConv1d::new(5, 2, 3, rng).strided(2);
    assert_says(&forward_panic(&strided, (&x).into()), &["StridedConv1d", "[T, B, 5]", "[4, 2, 3]"]);
    let ids = arr2(&[[0, 1]]);
    assert_says(&forward_panic(&CausalConv1d::new(5, 2, 3, rng), (&ids).into()), &["CausalConv1d", "token ids"]);
    assert_says(&forward_panic(&Linear::new(5, 2, rng), (&ids).into()), &["Linear", "[T, B, 5]", "token ids"]);
    assert_says(&forward_panic(&Activation::tanh(), (&ids).into()), &["Activation", "token ids"]);
}

#[test]
fn a_misfit_deep_in_a_stack_is_named_by_its_place() {
    let rng = &mut rng(0);
    let (x, ids) = (Array3::zeros((4, 2, 3)), arr2(&[[0, 1]]));
    let takes_5 = ["Linear takes 5 features, got 4"];

    let tuple = (Linear::new(3, 4, rng), Activation::tanh(), (Linear::new(5, 2, rng),));
    assert_eq!(tuple.output_size(3.into()).unwrap_err().to_string(), "2: 0: Linear takes 5 features, got 4");
    assert_says(&forward_panic(&tuple, (&x).into()), &["2: 0: Linear takes 5 features, got 4"]);

    let model =
        Misfit { embedding: Embedding::new(7, 3, rng), lstm: LstmCell::new(3, 4, rng), head: Linear::new(5, 2, rng) };
    assert_eq!(model.output_size(Size::Tokens).unwrap_err().to_string(), "head: Linear takes 5 features, got 4");
    assert_says(&forward_panic(&model, (&ids).into()), &["head: Linear takes 5 features, got 4"]);
    assert_says(&model.output_size(3.into()).unwrap_err().to_string(), &["embedding: Embedding", "token ids", "3"]);

    let layers = [Linear::new(3, 4, rng), Linear::new(5, 4, rng)];
    assert_says(&forward_panic(&Stacked::new(layers.to_vec()), (&x).into()), &["1: ", takes_5[0]]);
    let boxed = layers.map(BoxLayer::new);
    assert_says(&forward_panic(&Stacked::new(boxed.to_vec()), (&x).into()), &["1: ", takes_5[0]]);
    let inner = Residual::new((Linear::new(3, 4, rng), Linear::new(5, 3, rng)));
    assert_says(&forward_panic(&inner, (&x).into()), &["Residual: 1: ", takes_5[0]]);
    let uneven = Residual::new(Linear::new(3, 4, rng));
    assert_says(&forward_panic(&uneven, (&x).into()), &["Residual", "3 features on the skip connection and 4"]);
    let message = panic_of(|| Residual::projected(Linear::<f64>::zeros(5, 4), 3, rng));
    assert_says(&message, &["Residual: Linear takes 5 features, got 3"]);
    let block = PreNormBlock::new(4, 6, Nonlinearity::Relu, rng);
    assert_says(&forward_panic(&block, (&x).into()), &["Residual: norm: LayerNorm takes 4 features, got 3"]);
}

#[test]
fn parameters_that_do_not_fit_each_other_are_named() {
    let x = Array3::zeros((4, 2, 3));
    let mut lstm = LstmCell::<f64>::zeros(3, 5);
    lstm.weight_ih = Array2::zeros((19, 3));
    assert_says(&forward_panic(&lstm, (&x).into()), &["LstmCell", "weight_ih", "[20, 3]", "[19, 3]"]);
    let mut gru = GruCell::<f64>::zeros(3, 5);
    gru.bias_hh = Some(gradflow::ndarray::Array1::zeros(5));
    assert_says(&forward_panic(&gru, (&x).into()), &["GruCell", "bias_hh", "[15]", "[5]"]);
    let mut conv = CausalConv1d::<f64>::zeros(3, 5, 2);
    conv.bias = Some(Array1::zeros(4));
    assert_says(&forward_panic(&conv, (&x).into()), &["CausalConv1d", "bias", "[5]", "[4]"]);
    let mut conv = CausalConv1d::<f64>::builder(3, 3, 2).groups(3).zeros();
    conv.weight = Array3::zeros((4, 1, 2));
    assert_says(&forward_panic(&conv, (&x).into()), &["CausalConv1d", "weight", "3 groups", "[4, 1, 2]"]);
    conv.weight = Array3::zeros((3, 1, 0));
    assert_says(&forward_panic(&conv, (&x).into()), &["CausalConv1d", "weight", "[3, 1, 0]"]);
    let mut norm = WeightNorm::new(Linear::<f64>::zeros(3, 5));
    norm.gain = ArrayD::zeros(vec![5]);
    assert_says(&forward_panic(&norm, (&x).into()), &["WeightNorm", "gain", "[5, 1]", "[5]"]);
    let scaled = Residual::new(Linear::<f64>::zeros(3, 3)).layer_scale(2, 0.1);
    assert_says(&forward_panic(&scaled, (&x).into()), &["Residual", "scale", "[3]", "[2]"]);
}

#[test]
fn empty_batches_and_models_are_refused() {
    let rng = &mut rng(0);
    for shape in [(0, 2, 3), (4, 0, 3), (4, 2, 0)] {
        let x = Array3::zeros(shape);
        assert_says(&forward_panic(&Activation::relu(), (&x).into()), &["Activation", "at least one step"]);
    }
    for shape in [(0, 2), (4, 0)] {
        let ids = Array2::<usize>::zeros(shape);
        assert_says(&forward_panic(&Embedding::new(5, 2, rng), (&ids).into()), &["Embedding", "at least one step"]);
    }
    assert_says(&panic_of(|| Stacked::<Linear<f64>>::new(vec![])), &["Stacked", "at least one layer"]);
    assert_says(&panic_of(|| Linear::<f64>::zeros(0, 3)), &["Linear", "sizes must not be 0"]);
    assert_says(&panic_of(|| LstmCell::<f64>::builder(3, 0)), &["sizes must not be 0", "hidden 0"]);
    assert_says(&panic_of(|| LayerNorm::<f64>::new(0)), &["LayerNorm", "sizes must not be 0"]);
    assert_says(&panic_of(|| Embedding::<f64>::zeros(0, 3)), &["Embedding", "sizes must not be 0"]);
    assert_says(&panic_of(|| CausalConv1d::<f64>::zeros(2, 3, 0)), &["CausalConv1d", "must not be 0", "kernel 0"]);
}

#[test]
fn convolutions_say_what_does_not_fit() {
    let builder = || CausalConv1d::<f64>::builder(4, 6, 3);
    assert_says(&panic_of(|| builder().dilation(0)), &["CausalConv1d", "must not be 0", "dilation 0"]);
    assert_says(&panic_of(|| builder().dilation(usize::MAX / 2)), &["CausalConv1d", "too large for any memory"]);
    for groups in [0, 3, 4] {
        let got = format!("got {groups}");
        assert_says(&panic_of(|| builder().groups(groups)), &["CausalConv1d: groups", "input 4 and output 6", &got]);
    }
    assert_says(&panic_of(|| builder().zeros().strided(0)), &["StridedConv1d: stride: expected at least 1, got 0"]);
    let (conv, x) = (builder().dilation(2).zeros(), Array3::zeros((7, 2, 4)));
    for bad in [(4, 3, 4), (3, 2, 4), (4, 2, 3)] {
        let message = panic_of(|| conv.forward(&x, &mut Array3::zeros(bad), &mut conv.cache()).to_owned());
        assert_says(&message, &["CausalConv1d: state: expected [4, 2, 4]", &format!("{:?}", [bad.0, bad.1, bad.2])]);
    }
    let strided = conv.clone().strided(2);
    let chunk = |first| {
        let (chunk, mut state) = (Sequence::from(&x).steps(first..7), strided.zero_state(2));
        strided.forward(chunk, &mut state, &mut strided.cache()).dim()
    };
    assert_eq!(chunk(4), (2, 2, 6));
    let says =
        "StridedConv1d: x: expected chunks that begin at a multiple of the stride 2, got one that begins at step 3";
    assert_says(&panic_of(|| chunk(3)), &[says]);
    let marks = Array2::from_elem((7, 2), true);
    for x in [Sequence::from(&x).with_mask(&marks), Sequence::from(&x).with_resets(&marks)] {
        let message = panic_of(|| strided.forward(x, &mut strided.zero_state(2), &mut strided.cache()).dim());
        assert_says(&message, &["StridedConv1d: x: expected a batch without a mask and resets"]);
    }
    let message = panic_of(|| {
        Residual::new(strided.clone()).forward(&x, &mut strided.zero_state(2), &mut Default::default()).dim()
    });
    assert_says(
        &message,
        &["Residual takes a branch that keeps the number of steps, got one that gives one of every 2"],
    );
    let message = panic_of(|| WeightNorm::of(builder().zeros(), "weights"));
    assert_says(&message, &["WeightNorm: name: expected one of weight, bias, got weights"]);
}

#[test]
fn a_model_without_parameters_can_be_clipped_and_stepped() {
    let mut model = (Activation::<f64>::tanh(), Activation::relu());
    let mut grad = model.zeros_like();
    assert_eq!(clip_grad_norm(&mut grad, 1.0), Ok(0.0));
    AdamW::new(0.1).step(&mut model, &grad);
    Sgd::new(0.1).momentum(0.9).step(&mut model, &grad);
}

#[test]
fn dropping_needs_a_mode_and_a_probability() {
    let (rng, x) = (&mut rng(0), Array3::<f64>::zeros((4, 2, 3)));
    let says = ["a mode: say x.train(seed), x.eval() or x.infer()"];
    let (dropout, branch) = (Dropout::new(0.5, rng), Linear::new(3, 3, rng));
    let depth = Residual::new(StochasticDepth::new(branch.clone(), 0.5, rng));
    assert_says(&forward_panic(&dropout, (&x).into()), &["Dropout: x", says[0]]);
    assert_says(&forward_panic(&Dropout::new(0.0, rng), (&x).into()), &["Dropout: x", says[0]]);
    assert_says(&forward_panic(&depth, (&x).into()), &["StochasticDepth: x", says[0]]);
    for p in [-0.1, 1.0, f64::NAN] {
        let p_expected = ["a probability in 0..1"];
        assert_says(&panic_of(|| Dropout::<f64>::new(p, &mut *rng)), &["Dropout: p", p_expected[0], &p.to_string()]);
        let depth = panic_of(|| StochasticDepth::new(branch.clone(), p, &mut *rng));
        assert_says(&depth, &["StochasticDepth: p", p_expected[0]]);
        let depth = panic_of(|| StochasticDepth::linear(branch.clone(), p, 0, 3, &mut *rng));
        assert_says(&depth, &["StochasticDepth: last", p_expected[0]]);
    }
    let message = panic_of(|| StochasticDepth::linear(branch.clone(), 0.5, 3, 3, rng));
    assert_says(&message, &["StochasticDepth: k", "below 3", "got 3"]);
}

#[test]
fn connections_refuse_branches_that_do_not_fit() {
    let (rng, x) = (&mut rng(0), Array3::<f64>::zeros((4, 2, 3)));
    let message = panic_of(|| Highway::new(Linear::<f64>::zeros(3, 4), 3, rng));
    assert_says(&message, &["Highway", "3 features, 3 from the gate and 4 from the branch"]);
    let highway = Highway::new(Linear::new(5, 5, rng), 5, rng);
    assert_says(&forward_panic(&highway, (&x).into()), &["Highway: Linear takes 5 features, got 3"]);
    let dense = DenseConcat::new(Linear::new(5, 2, rng));
    assert_says(&forward_panic(&dense, (&x).into()), &["DenseConcat: Linear takes 5 features, got 3"]);
    let ids = arr2(&[[0, 1]]);
    let dense = DenseConcat::new(Embedding::new(5, 2, rng));
    assert_says(&forward_panic(&dense, (&ids).into()), &["DenseConcat takes features, got token ids"]);
    let depth = StochasticDepth::new(Linear::new(5, 2, rng), 0.5, rng);
    assert_says(&forward_panic(&depth, (&x).into()), &["StochasticDepth: Linear takes 5 features, got 3"]);
}

#[test]
fn tied_weights_need_a_layer_that_gives_as_much_as_it_takes() {
    let rng = &mut rng(0);
    let embedding = Embedding::<f64>::new(7, 4, rng);
    let message = panic_of(|| TiedEmbedding::new(embedding.clone(), GruCell::new(4, 6, &mut *rng)));
    let expected =
        "TiedEmbedding takes a layer that gives as many features as the embedding has, 4, got one that gives 6";
    assert_says(&message, &[expected, "a Linear(6, 4) at its end would do"]);
    let message = panic_of(|| TiedEmbedding::new(embedding.clone(), GruCell::new(5, 4, &mut *rng)));
    assert_says(&message, &["layer: GruCell takes 5 features, got 4"]);
    let mut tied = TiedEmbedding::new(embedding, Identity::new()).bias();
    let x = Array3::zeros((4, 2, 3));
    assert_says(&forward_panic(&tied, (&x).into()), &["embedding: Embedding takes token ids, got 3 features"]);
    let ids = arr2(&[[0, 7]]);
    assert_says(&forward_panic(&tied, (&ids).into()), &["Embedding: x: expected ids below 7, got 7"]);
    tied.bias = Some(Array1::zeros(4));
    let ids = arr2(&[[0, 1]]);
    assert_says(&forward_panic(&tied, (&ids).into()), &["TiedEmbedding: bias: expected [7], got [4]"]);
    // A gradient without a bias.
    let tied = tied.bias();
    let message = panic_of(|| {
        let (mut cache, mut grad) = (tied.cache(), TiedEmbedding { bias: None, ..tied.clone() });
        tied.pass(&ids, &mut (), &mut cache).backward(&Array3::zeros((1, 2, 7)), &mut grad).dim()
    });
    assert_says(&message, &["TiedEmbedding: grad: expected 1 tensors, got 0"]);
}

#[test]
fn only_outputs_of_one_size_are_added_and_multiplied() {
    let (rng, x) = (&mut rng(0), Array3::zeros((4, 2, 3)));
    let both = Bidirectional::new(GruCell::<f64>::new(3, 4, rng), GruCell::new(3, 5, rng));
    assert_eq!(both.output_size(3.into()), Ok(9));
    for merge in [Merge::Sum, Merge::Average, Merge::Multiply] {
        let expected = format!(
            "x: Bidirectional takes directions of as many features for {merge:?}, got 4 from forward and 5 from reverse"
        );
        assert_says(&forward_panic(&both.clone().merge(merge), (&x).into()), &[&expected]);
    }
}

#[test]
fn a_padding_id_is_an_id() {
    let builder = || Embedding::<f64>::builder(7, 4);
    let expected = "Embedding: padding_idx: expected an id from 0 and below 7, got";
    assert_says(&panic_of(|| builder().padding_idx(7)), &[expected, "got 7"]);
    assert_says(&panic_of(|| builder().padding_idx(-1)), &[expected, "got -1"]);
    assert_says(&panic_of(|| builder().padding_idx(u64::MAX)), &[expected, "got 18446744073709551615"]);
    let table = builder().padding_idx(6_i64).zeros().summary().to_string();
    assert_says(&table, &["Embedding<f64>(padding_idx 6)", "weight [7, 4]"]);
    assert_says(&format!("{:?}", builder().padding_idx(6).zeros()), &["padding_idx: Some(6)"]);
    assert!(!builder().zeros().summary().to_string().contains("padding"));
}

#[test]
fn what_is_dropped_may_not_hide_nan() {
    let rng = &mut rng(0);
    let x = Array3::from_elem((1, 4, 50), f64::NAN);
    let x = Sequence::from(&x).train(3);
    let dropout = Dropout::new(0.9, rng);
    assert!(dropout.forward(x, &mut (), &mut dropout.cache()).iter().all(|y| y.is_nan()));
    let depth = StochasticDepth::new(Identity::new(), 0.9, rng);
    assert!(depth.forward(x, &mut (), &mut depth.cache()).iter().all(|y| y.is_nan()));
}

#[test]
fn lengths_that_do_not_fit_are_errors() {
    let x = Array3::<f64>::zeros((4, 3, 2));
    let with = |lengths: &[usize]| Sequence::from(&x).with_lengths(lengths).map(|_| ());
    assert_eq!(with(&[4, 1]), Err(LengthsError::Count { lengths: 2, batch: 3 }));
    let error = with(&[4, 1, 5]).unwrap_err();
    assert_eq!(error.to_string(), "length 5 of sequence 2 is not in 0..=4");
    assert_eq!(with(&[4, 0, 4]), Ok(()));
}

#[test]
fn marks_of_another_shape_are_refused() {
    let (x, marks) = (Array3::<f64>::zeros((4, 3, 2)), Array2::from_elem((3, 4), true));
    let message = panic_of(|| _ = Sequence::from(&x).with_mask(&marks));
    assert_says(&message, &["Sequence::with_mask", "mask", "[4, 3]", "[3, 4]"]);
    let message = panic_of(|| _ = Sequence::from(&x).with_resets(&marks));
    assert_says(&message, &["Sequence::with_resets", "resets", "[4, 3]", "[3, 4]"]);
    let marks = Array2::from_elem((4, 3), true);
    for (x, what) in
        [(Sequence::from(&x).with_mask(&marks), "a mask"), (Sequence::from(&x).with_resets(&marks), "resets")]
    {
        let message = panic_of(|| _ = Sequence::batch_first(x));
        assert_says(&message, &["Sequence::batch_first", what, "afterwards"]);
    }
}

#[test]
fn wrong_states_are_named() {
    let rng = &mut rng(0);
    let x = Array3::<f64>::zeros((4, 3, 2));
    let lstm = LstmCell::new(2, 5, rng);
    let forward = |batch| panic_of(|| lstm.forward(&x, &mut lstm.zero_state(batch), &mut lstm.cache()).sum());
    let hint = ["x has T = 4 steps of B = 3 sequences", "Sequence::batch_first(x)"];
    assert_says(&forward(2), &["LstmCell", "state.h", "[3, 5]", "[2, 5]", hint[0], hint[1]]);
    let learned = LearnedState::new(lstm.clone());
    let message = panic_of(|| learned.forward(&x, &mut learned.zero_state(4), &mut learned.cache()).sum());
    assert_says(&message, &["LearnedState", "state.started", "[3, 1]", "[4, 1]", hint[0], hint[1]]);
    let message = panic_of(|| lstm.select_state(&lstm.zero_state(3), &[0, 3]));
    assert_says(&message, &["select_state", "sequences below 3, got 3"]);
    let message = panic_of(|| lstm.put_state(&mut lstm.zero_state(3), &[0, 2], &lstm.zero_state(1)));
    assert_says(&message, &["put_state", "[2, 5]", "[1, 5]"]);
    let stack = Stacked::new(vec![lstm.clone()]);
    let message = panic_of(|| stack.forward(&x, &mut vec![], &mut stack.cache()).sum());
    assert_says(&message, &["Stacked", "state", "each of 1 layers", "got 0"]);
    let boxed = BoxLayer::new(lstm.clone());
    let mut other = BoxLayer::new(GruCell::<f64>::new(2, 5, rng)).zero_state(3);
    let message = panic_of(|| boxed.forward(&x, &mut other, &mut boxed.cache()).sum());
    assert_says(&message, &["BoxLayer", "state", "LstmState", "another layer"]);
    let message = panic_of(|| lstm.step(&x, &mut lstm.zero_state(3), &mut lstm.cache()).sum());
    assert_says(&message, &["step", "one step", "[4, 3, ..]"]);
}

#[test]
fn recurrent_models_name_what_does_not_fit() {
    let rng = &mut rng(0);
    let x = Array3::<f64>::zeros((4, 3, 2));
    let bi = Lstm::builder(2, 5).num_layers(2).bidirectional().build(rng);
    // States of another batch size, of one layer, of one direction.
    let forward = |mut state: LstmState<f64, Ix3>| panic_of(|| bi.forward(&x, &mut state, &mut bi.cache()).sum());
    assert_says(&forward(bi.zero_state(2)), &["Recurrent", "state", "[4, 3, 5]", "[4, 2, 5]", "batch_first"]);
    let layer = Lstm::builder(2, 5).num_layers(2).build(rng);
    assert_says(&forward(layer.zero_state(3)), &["Recurrent", "state", "[4, 3, 5]", "[2, 3, 5]"]);
    let narrow = Lstm::builder(2, 4).num_layers(2).bidirectional().build(rng);
    assert_says(&forward(narrow.zero_state(3)), &["Recurrent", "state", "[4, 3, 5]", "[4, 3, 4]"]);
    assert!(!forward(narrow.zero_state(3)).contains("batch_first"));
    let mut crooked = bi.zero_state(3);
    crooked.c = narrow.zero_state(3).c;
    assert_says(&forward(crooked), &["Recurrent", "state.c", "[4, 3, 5]", "[4, 3, 4]"]);

    // Gradients of states and of outputs with other shapes.
    let backward = |dstate: &mut LstmState<f64, Ix3>, dy: Array3<f64>| {
        let (mut cache, mut grad) = (bi.cache(), bi.zeros_like());
        bi.forward(&x, &mut bi.zero_state(3), &mut cache);
        panic_of(|| bi.backward(&x, &dy, Some(dstate), &mut cache, &mut grad).sum())
    };
    let message = backward(&mut layer.zero_state(3), Array3::zeros((4, 3, 10)));
    assert_says(&message, &["Recurrent", "dstate.h", "[4, 3, 5]", "[2, 3, 5]"]);
    let message = backward(&mut bi.zero_state(3), Array3::zeros((4, 3, 5)));
    assert_says(&message, &["Recurrent", "dy", "[4, 3, 10]", "[4, 3, 5]"]);
    let message = panic_of(|| {
        let mut cache = bi.cache();
        bi.forward(&x, &mut bi.zero_state(3), &mut cache);
        bi.backward(&x, &Array3::zeros((4, 3, 10)), None, &mut cache, &mut narrow.zeros_like()).sum()
    });
    assert_says(&message, &["Recurrent", "grad", "weight_ih_l0", "[20, 2]", "[16, 2]"]);

    // Inputs of another size, also deep inside.
    let error = bi.output_size(3.into()).unwrap_err();
    assert_says(&error.to_string(), &["l0", "LstmCell", "takes 2 features, got 3"]);
    let cells = vec![[GruCell::<f64>::new(2, 5, rng)], [GruCell::new(4, 5, rng)]];
    assert_says(&panic_of(|| Recurrent::from_cells(cells)), &["Recurrent", "l1", "takes 4 features, got 5"]);
    assert_says(&panic_of(|| Recurrent::<GruCell<f64>>::from_cells(vec![])), &["Recurrent", "at least one layer"]);

    // Options that make no sense.
    assert_says(&panic_of(|| Lstm::<f64>::builder(2, 5).num_layers(0)), &["num_layers"]);
    assert_says(&panic_of(|| Lstm::<f64>::builder(2, 5).projection(0)), &["projection 0"]);
    assert_says(&panic_of(|| Gru::<f64>::builder(0, 5)), &["input 0"]);
    for p in [-0.1, 1.0, f64::NAN] {
        assert_says(&panic_of(|| Gru::<f64>::builder(2, 5).num_layers(2).dropout(p).zeros()), &["p", "0..1"]);
        assert_says(&panic_of(|| LstmCell::<f64>::builder(2, 5).zoneout(0.0, p).zeros()), &["zoneout", "0..1"]);
        assert_says(&panic_of(|| RnnCell::<f64>::builder(2, 5).recurrent_dropout(p).zeros()), &["p", "0..1"]);
    }
    // Dropout between layers needs several layers.
    for builder in [Lstm::<f64>::builder(2, 5).dropout(0.1), Lstm::builder(2, 5).num_layers(1).dropout(0.1)] {
        let says = ["LstmCell", "dropout", "several layers", "`Dropout`", "got 1 layer"];
        assert_says(&panic_of(|| builder.clone().build(rng)), &says);
        assert_says(&panic_of(|| builder.bidirectional().zeros()), &says);
    }
    Lstm::<f64>::builder(2, 5).dropout(0.0).build(rng);
    // Randomness needs a mode.
    for cell in [LstmCell::<f64>::builder(2, 5).zoneout(0.2, 0.2), LstmCell::builder(2, 5).recurrent_dropout(0.2)] {
        assert_says(&forward_panic(&cell.build(rng), (&x).into()), &["LstmCell", "a mode"]);
    }

    // Parameters that were replaced by ones of another shape.
    let mut cell = LstmCell::<f64>::builder(2, 5).peepholes().projection(3).build(rng);
    cell.peephole = Some(Array2::zeros((2, 5)));
    assert_says(&forward_panic(&cell, (&x).into()), &["LstmCell", "peephole", "[3, 5]", "[2, 5]"]);
    cell.peephole = None;
    cell.weight_hr = Some(Array2::zeros((3, 4)));
    assert_says(&forward_panic(&cell, (&x).into()), &["LstmCell", "weight_hr", "[3, 5]", "[3, 4]"]);
}

#[test]
fn chunks_learned_states_and_directions_refuse_what_does_not_fit() {
    let rng = &mut rng(0);
    let x = Array3::<f64>::zeros((4, 3, 2));
    let cell = || GruCell::<f64>::zeros(2, 5);
    assert_says(&panic_of(|| TruncatedBptt::new(cell(), 0)), &["TruncatedBptt", "steps", "at least 1", "got 0"]);
    assert_says(&panic_of(|| Sequence::from(&x).chunks(0).count()), &["Sequence::chunks", "at least 1", "got 0"]);
    assert_says(&panic_of(|| Sequence::from(&x).steps(2..5)), &["Sequence::steps", "0..4", "2..5"]);
    let chunked = TruncatedBptt::new(cell(), 3);
    let message = panic_of(|| chunked.forward(&x, &mut chunked.zero_state(2), &mut chunked.cache()).sum());
    assert_says(&message, &["GruCell", "state", "[3, 5]", "[2, 5]"]);
    let empty = Array3::<f64>::zeros((0, 3, 2));
    assert_says(&forward_panic(&chunked, (&empty).into()), &["TruncatedBptt", "at least one step"]);
    let message = panic_of(|| {
        let mut cache = chunked.cache();
        chunked.forward(&x, &mut chunked.zero_state(3), &mut cache);
        chunked.backward(&x, &Array3::zeros((3, 3, 5)), None, &mut cache, &mut chunked.zeros_like()).sum()
    });
    assert_says(&message, &["TruncatedBptt", "dy", "[4, 3, 5]", "[3, 3, 5]"]);

    let learned = LearnedState::new(cell());
    let message = panic_of(|| learned.forward(&x, &mut learned.zero_state(2), &mut learned.cache()).sum());
    assert_says(&message, &["LearnedState", "state.started", "[3, 1]", "[2, 1]"]);
    let both = Bidirectional::new(cell(), GruCell::new(3, 5, rng));
    assert_says(&forward_panic(&both, (&x).into()), &["reverse", "GruCell", "takes 3 features, got 2"]);
}

#[test]
fn stale_caches_and_other_inputs_are_refused() {
    let rng = &mut rng(0);
    let (x, other, dy) = (Array3::<f64>::ones((4, 3, 2)), Array3::zeros((4, 3, 2)), Array3::ones((4, 3, 5)));
    let net = (LstmCell::new(2, 5, rng), Activation::tanh());
    let (mut cache, mut grad) = (net.cache(), net.zeros_like());
    let backward = |x: &Array3<f64>, dy: &Array3<f64>, cache: &mut _, grad: &mut _| {
        panic_of(|| net.backward(x, dy, None, cache, grad).sum())
    };
    assert_says(&backward(&x, &dy, &mut cache, &mut grad), &["stale cache"]);
    net.forward(&x, &mut net.zero_state(3), &mut cache);
    assert_says(&backward(&other, &dy, &mut cache, &mut grad), &["LstmCell", "x of the forward pass", "another"]);
    net.forward(&x, &mut net.zero_state(3), &mut cache);
    let short = Array3::ones((3, 3, 5));
    assert_says(&backward(&x, &short, &mut cache, &mut grad), &["dy", "[4, 3, 5]", "[3, 3, 5]"]);
}

#[test]
fn token_ids_out_of_range_are_named_with_their_place() {
    let rng = &mut rng(0);
    let ids = arr2(&[[0, 1], [6, 7]]);
    assert_says(
        &forward_panic(&Embedding::new(7, 2, rng), (&ids).into()),
        &["ids below 7", "7 at step 1 of sequence 1"],
    );
    let (logits, mut gradient) = (Array3::<f64>::zeros((2, 2, 7)), Array3::default((0, 0, 0)));
    let message = panic_of(|| evaluate(&SoftmaxCrossEntropy::new(), &logits, &ids, None, &mut gradient));
    assert_says(&message, &["SoftmaxCrossEntropy", "ids below 7", "7 at step 1 of sequence 1"]);
    // In padding, and where it is ignored, an id may be anything.
    let x = Sequence::from(&ids).with_lengths(&[2, 1]).unwrap();
    let embedding = Embedding::<f64>::new(7, 2, rng);
    embedding.forward(x, &mut (), &mut embedding.cache());
    evaluate(&SoftmaxCrossEntropy::new(), &logits, &ids, Some(&[2, 1]), &mut gradient);
    evaluate(&SoftmaxCrossEntropy::new().ignore(7), &logits, &ids, None, &mut gradient);
}

#[test]
fn losses_refuse_what_does_not_fit() {
    let (y, mut dy) = (Array3::<f64>::zeros((2, 3, 4)), Array3::default((0, 0, 0)));
    let message = panic_of(|| evaluate(&MeanSquaredError::new(), &y, &Array3::zeros((2, 3, 5)), None, &mut dy));
    assert_says(&message, &["MeanSquaredError", "target", "[2, 3, 4]", "[2, 3, 5]"]);
    let message = panic_of(|| evaluate(&MeanSquaredError::new(), &y, &y, Some(&[2, 3, 1]), &mut dy));
    assert_says(&message, &["length 3 of sequence 1 is not in 0..=2"]);
    let message =
        panic_of(|| evaluate(&SoftmaxCrossEntropy::new(), &y, &Array2::<usize>::zeros((2, 2)), None, &mut dy));
    assert_says(&message, &["SoftmaxCrossEntropy", "ids", "[2, 3]", "[2, 2]"]);
    let empty = Array3::<f64>::zeros((0, 3, 4));
    let message =
        panic_of(|| evaluate(&SoftmaxCrossEntropy::new(), &empty, &Array2::<usize>::zeros((0, 3)), None, &mut dy));
    assert_says(&message, &["SoftmaxCrossEntropy", "at least one"]);
}

#[test]
fn logits_of_ten_thousand_are_safe_and_nan_is_not_hidden() {
    let mut dy = Array3::default((0, 0, 0));
    for sign in [1.0, -1.0] {
        let logits = Array3::from_shape_vec((1, 1, 3), vec![1e4 * sign, -1e4 * sign, 0.0_f64]).unwrap();
        let loss = evaluate(&SoftmaxCrossEntropy::new(), &logits, &arr2(&[[0]]), None, &mut dy);
        assert_eq!(loss, if sign > 0.0 { 0.0 } else { 2e4 });
        assert!(dy.iter().all(|gradient: &f64| gradient.is_finite()));
        let single = logits.mapv(|value| value as f32);
        assert_eq!(
            evaluate(&SoftmaxCrossEntropy::new(), &single, &arr2(&[[0]]), None, &mut Array3::default((0, 0, 0))),
            loss
        );
    }
    // In f32 too, the loss depends only on the differences of logits.
    for offset in [0.0, 100.0, -1e3, 1e4] {
        let equal = Array3::from_elem((1, 1, 2), offset as f32);
        let loss = evaluate(&SoftmaxCrossEntropy::new(), &equal, &arr2(&[[0]]), None, &mut Array3::default((0, 0, 0)));
        assert!((loss - 2f64.ln()).abs() < 1e-7, "{offset}: {loss}");
    }
    let sure = Array3::from_shape_vec((1, 1, 2), vec![17.0f32, 0.0]).unwrap();
    let loss = evaluate(&SoftmaxCrossEntropy::new(), &sure, &arr2(&[[0]]), None, &mut Array3::default((0, 0, 0)));
    assert!((loss / (-17f64).exp().ln_1p() - 1.0).abs() < 1e-5, "{loss:e}");
    let logits = Array3::from_shape_vec((1, 1, 3), vec![0.0, f64::NAN, 0.0]).unwrap();
    assert!(evaluate(&SoftmaxCrossEntropy::new(), &logits, &arr2(&[[0]]), None, &mut dy).is_nan());
    assert!(evaluate(&MeanSquaredError::new(), &logits, &logits, None, &mut dy).is_nan());
}

#[test]
fn nan_in_the_input_reaches_the_output_and_only_its_own_sequence() {
    fn check(layer: &impl Layer<Elem = f64>) {
        let mut x = Array3::ones((4, 3, 5));
        x[[1, 1, 2]] = f64::NAN;
        let y = layer.forward(&x, &mut layer.zero_state(3), &mut layer.cache()).to_owned();
        let any_nan = |t: usize, b: usize| y.slice(gradflow::ndarray::s![t, b, ..]).iter().any(|value| value.is_nan());
        assert!(any_nan(1, 1), "NaN was masked");
        for (t, b) in [(0, 1), (1, 0), (3, 2)] {
            assert!(!any_nan(t, b), "NaN came to step {t} of sequence {b}");
        }
    }
    let rng = &mut rng(0);
    check(&Linear::new(5, 4, rng));
    for f in [Nonlinearity::Tanh, Nonlinearity::Sigmoid, Nonlinearity::Relu, Nonlinearity::Gelu, Nonlinearity::Silu] {
        check(&Activation::new(f));
    }
    check(&Activation::leaky_relu(0.1));
    let hard = Nonlinearity::HARD_SIGMOID;
    for f in EVERY_OTHER {
        check(&Activation::new(f));
        check(&RnnCell::builder(5, 4).nonlinearity(f).clip(3.0).build(rng));
        let builder = LstmCell::builder(5, 4).gate_activation(hard).candidate_activation(f).output_activation(f);
        check(&builder.clip(3.0).build(rng));
        check(&GruCell::builder(5, 4).gate_activation(hard).candidate_activation(f).build(rng));
    }
    check(&Identity::new());
    check(&Highway::new(Linear::new(5, 5, rng), 5, rng));
    check(&DenseConcat::new(Linear::new(5, 2, rng)));
    check(&LayerNorm::new(5));
    check(&RnnCell::new(5, 4, rng));
    check(&RnnCell::builder(5, 4).nonlinearity(gradflow::recurrent::Nonlinearity::Relu).build(rng));
    check(&LstmCell::new(5, 4, rng));
    check(&GruCell::new(5, 4, rng));
    check(&Residual::new(GruCell::new(5, 5, rng)));
    check(&PreNormBlock::new(5, 4, Nonlinearity::Relu, rng));
}

#[test]
fn a_non_finite_gradient_changes_neither_gradient_nor_weights() {
    let rng = &mut rng(0);
    let mut model = (LstmCell::<f64>::new(3, 4, rng), Linear::new(4, 2, rng));
    let before = model.clone();
    let mut optimizer = AdamW::new(0.1);
    let (x, mut state, mut cache, mut grad) =
        (Array3::ones((2, 1, 3)), model.zero_state(1), model.cache(), model.zeros_like());
    let dy = Array3::from_elem((2, 1, 2), f64::INFINITY);
    model.pass(&x, &mut state, &mut cache).backward(&dy, &mut grad);
    match clip_grad_norm(&mut grad, 1.0) {
        Ok(norm) => panic!("clipped a gradient of norm {norm}"),
        Err(error) => {
            assert!(!error.norm.is_finite());
            assert_says(&error.to_string(), &["not finite", "0.weight_ih"]);
        }
    }
    for i in 0..gradflow::Tensors::count(&model) {
        assert_eq!(model.values(i), before.values(i));
    }
    // The next step is not affected.
    grad.set_zero();
    optimizer.step(&mut model, &grad);
    assert!((0..gradflow::Tensors::count(&model)).all(|i| model.values(i).iter().all(|value| value.is_finite())));
}

#[test]
fn optimizers_refuse_settings_and_gradients_that_make_no_sense() {
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        assert_says(&panic_of(|| Sgd::<f64>::new(bad)), &["Sgd", "learning rate"]);
        assert_says(&panic_of(|| Sgd::<f64>::new(0.1).momentum(bad)), &["Sgd", "momentum"]);
        assert_says(&panic_of(|| AdamW::<f64>::new(0.1).weight_decay(bad)), &["AdamW", "weight decay"]);
        assert_says(&panic_of(|| AdamW::<f64>::new(0.1).betas(bad, 0.9)), &["AdamW", "beta1"]);
        assert_says(&panic_of(|| AdamW::<f64>::new(0.1).set_learning_rate(bad)), &["AdamW", "learning rate"]);
    }
    assert_says(&panic_of(|| Sgd::<f64>::new(0.1).nesterov()), &["Nesterov", "needs a momentum"]);
    assert_says(&panic_of(|| AdamW::<f64>::new(0.1).betas(0.9, 1.0)), &["beta2", "0..1"]);
    let (mut model, other) = (Linear::<f64>::zeros(3, 2), Linear::zeros(3, 4));
    assert_says(&panic_of(|| Sgd::new(0.1).step(&mut model, &other)), &["Sgd", "weight", "[2, 3]", "[4, 3]"]);
    let mut adam = AdamW::new(0.1);
    let grad = model.zeros_like();
    adam.step(&mut model, &grad);
    let mut another = other.clone();
    assert_says(&panic_of(|| adam.step(&mut another, &other)), &["AdamW", "weight", "[2, 3]", "[4, 3]"]);
}

/// Each of these panics, with a message that first names the part that refuses and the argument that is refused.
macro_rules! refused {
    ($($act:expr, $says:literal;)+) => {$(
        let message = panic_of(|| $act);
        assert!(message.starts_with($says), "expected {:?}, got {message:?}", $says);
    )+};
}

#[test]
fn numbers_are_checked_where_they_are_set_in_their_element_type() {
    let rng = &mut rng(0);
    for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY, -1.0, 0.0] {
        refused! {
            LayerNorm::<f64>::new(3).eps(bad), "LayerNorm: eps: expected a finite number above 0";
            PreNormBlock::<f64>::zeros(3, 4, Nonlinearity::Relu).eps(bad), "LayerNorm: eps";
            PostNormBlock::<f64>::zeros(3, 4, Nonlinearity::Relu).eps(bad), "LayerNorm: eps";
            GruCell::<f64>::builder(3, 4).layer_norm_eps(bad), "cell: layer_norm_eps: expected a finite number above 0";
            GruCell::<f64>::builder(3, 4).clip(bad).zeros(), "cell: clip: expected a finite number above 0";
            Huber::<f64>::new(bad), "Huber: delta: expected a finite number above 0";
            GradCheck::new().step(bad), "GradCheck: step";
            GradCheck::new().floor(bad), "GradCheck: floor";
        }
    }
    for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY] {
        refused! {
            LstmCell::<f64>::builder(3, 4).forget_bias(bad), "cell: forget_bias: Constant: expected a finite number";
            LstmCell::<f64>::builder(3, 4).input_bias(bad), "cell: input_bias";
            LstmCell::<f64>::builder(3, 4).cell_bias(bad), "cell: cell_bias";
            LstmCell::<f64>::builder(3, 4).output_bias(bad), "cell: output_bias";
            LstmCell::<f64>::builder(3, 4).weight_ih(bad), "cell: weight_ih";
            LstmCell::<f64>::builder(3, 4).weight_hh(Init::Orthogonal { gain: bad }), "cell: weight_hh: Orthogonal: gain";
            LstmCell::<f64>::builder(3, 4).weight_hr(Init::Normal { std: bad }), "cell: weight_hr: Normal: std";
            GruCell::<f64>::builder(3, 4).reset_bias(bad), "cell: reset_bias";
            GruCell::<f64>::builder(3, 4).update_bias(bad), "cell: update_bias";
            GruCell::<f64>::builder(3, 4).candidate_bias(bad), "cell: candidate_bias";
            GruCell::<f64>::builder(3, 4).candidate_hidden_bias(bad), "cell: candidate_hidden_bias";
            MguCell::<f64>::builder(3, 4).forget_bias(bad), "cell: forget_bias";
            MinGruCell::<f64>::builder(3, 4).update_bias(bad), "cell: update_bias";
            MinLstmCell::<f64>::builder(3, 4).forget_bias(bad), "cell: forget_bias";
            MinLstmCell::<f64>::builder(3, 4).input_bias(bad), "cell: input_bias";
            SlstmCell::<f64>::builder(3, 4).forget_bias(bad), "cell: forget_bias";
            SlstmCell::<f64>::builder(3, 4).input_bias(bad), "cell: input_bias";
            SlstmCell::<f64>::builder(3, 4).cell_bias(bad), "cell: cell_bias";
            SlstmCell::<f64>::builder(3, 4).output_bias(bad), "cell: output_bias";
            RnnCell::<f64>::builder(3, 4).bias_ih(bad), "cell: bias_ih";
            Linear::<f64>::builder(3, 4).weight(Init::XavierUniform { gain: bad }), "Linear: weight: XavierUniform: gain";
            Linear::<f64>::builder(3, 4).bias_init(bad), "Linear: bias: Constant";
            Embedding::<f64>::builder(3, 4).weight(Init::Uniform { bound: bad }), "Embedding: weight: Uniform: bound";
            Highway::builder(Linear::<f64>::zeros(3, 3), 3).gate_bias(bad), "Linear: bias";
            Init::Chrono { t_max: bad }.fill(&mut Array2::<f64>::zeros((2, 2)), rng), "Init: fill: Chrono: t_max";
            Activation::<f64>::leaky_relu(bad), "Activation: slope: expected a finite number";
            Activation::<f64>::new(Nonlinearity::LeakyRelu { slope: bad }), "Activation: slope";
            Activation::<f64>::new(Nonlinearity::HardSigmoid { slope: 1.0, offset: bad }), "Activation: offset";
            Activation::<f64>::new(Nonlinearity::Elu { alpha: bad }), "Activation: alpha";
            RnnCell::<f64>::builder(3, 4).nonlinearity(Nonlinearity::ThresholdedRelu { threshold: bad }).zeros(),
                "cell: nonlinearity: threshold: expected a finite number";
            Gru::<f64>::builder(3, 4).gate_activation(Nonlinearity::Affine { slope: bad, offset: 0.0 }).zeros(),
                "cell: gate_activation: slope: expected a finite number";
            LstmCell::<f64>::builder(3, 4).output_activation(Nonlinearity::ScaledTanh { scale: bad, slope: 0.0 }).zeros(),
                "cell: output_activation: scale: expected a finite number";
            Residual::new(Linear::<f64>::zeros(3, 3)).scaled(bad), "Residual: scale: expected a finite number";
            Residual::new(Linear::<f64>::zeros(3, 3)).layer_scale(3, bad), "Residual: layer_scale";
            GradCheck::new().tolerance(bad), "GradCheck: tolerance";
            ClipNorm::new(1.0).eps(bad), "ClipNorm: eps: expected a finite number, at least 0";
            ClipAdaptive::new(bad), "ClipAdaptive: lambda: expected a finite number above 0";
            ClipAdaptive::new(0.1).eps(bad), "ClipAdaptive: eps";
            SoftmaxCrossEntropy::<f64>::new().class_weights(&[1.0, bad]), "SoftmaxCrossEntropy: class weights: expected";
            BinaryCrossEntropy::<f64>::new().pos_weight(&[1.0, bad]), "BinaryCrossEntropy: pos_weight: expected";
        }
    }
    // A number in f64 may not be one in f32.
    refused! {
        LayerNorm::<f32>::new(3).eps(1e-60), "LayerNorm: eps: expected a finite number above 0, got 1e-60, which is 0 in f32";
        LstmCell::<f32>::builder(3, 4).layer_norm_eps(1e39), "cell: layer_norm_eps: expected a finite number above 0, got 1e39, \
            which is inf in f32";
        LstmCell::<f32>::builder(3, 4).forget_bias(1e39), "cell: forget_bias: Constant: expected a finite number, got 1e39";
        Linear::<f32>::builder(3, 4).weight(Init::Normal { std: 1e38 }), "Linear: weight: Normal: a draw of 64 std";
        Adam::<f32>::new(0.1).eps(1e-46), "Adam: eps: expected a finite number above 0, got 1e-46, which is 0 in f32";
        AdamW::<f32>::new(0.1).betas(0.9, 0.999_999_999), "AdamW: beta2: expected a number in 0..1";
        NAdam::<f32>::new(0.1).eps(1e-46), "NAdam: eps";
        NAdam::<f32>::new(0.1).betas(0.999_999_999, 0.9), "NAdam: beta1";
        RmsProp::<f32>::new(0.1).eps(1e-46), "RmsProp: eps";
        Adagrad::<f32>::new(0.1).eps(1e-46), "Adagrad: eps";
        Sgd::<f32>::new(1e39), "Sgd: learning rate";
        Sgd::<f32>::new(0.1).momentum(1e39), "Sgd: momentum";
        Dropout::<f32>::new(1.0 - 1e-12, rng), "Dropout: p: expected a probability in 0..1";
        Huber::<f32>::new(1e-60), "Huber: delta";
        Activation::<f32>::leaky_relu(1e39), "Activation: slope";
        LstmCell::<f32>::builder(3, 4).clip(1e39).zeros(), "cell: clip: expected a finite number above 0, got 1e39, which is inf";
        Residual::new(Linear::<f32>::zeros(3, 3)).scaled(1e39), "Residual: scale";
        clip_grad_value(&mut Array2::<f32>::ones((2, 2)), 1e-60), "clip_grad_value: max: expected a finite number above 0";
        GradCheck::new().step(1e-60).check(&Linear::<f32>::zeros(3, 3), (&Array3::ones((1, 1, 3))).into(), &()),
            "GradCheck: step";
    }
    // An infinite limit is no limit, in either type.
    assert!(clip_grad_value(&mut Array2::<f32>::ones((2, 2)), f64::INFINITY).is_ok());
    assert!(clip_grad_value(&mut Array2::<f32>::ones((2, 2)), 1e300).is_ok());
    assert!(ClipNorm::new(f64::INFINITY).clip(&mut Array2::<f32>::ones((2, 2))).is_ok());
}

/// Options are checked even if they have no effect, such as dropout between layers of a single layer, or are set directly as fields.
#[test]
fn options_of_cells_are_checked_when_a_cell_is_made() {
    for p in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
        refused! {
            Lstm::<f32>::builder(2, 5).dropout(p).zeros(), "cell: dropout: expected a probability in 0..1, got";
            Gru::<f32>::builder(2, 5).num_layers(3).dropout(p).build(&mut rng(0)), "cell: dropout";
            Gru::<f32>::builder(2, 5).bidirectional().dropout(p).zeros(), "cell: dropout";
            LstmCell::<f32>::builder(2, 5).zoneout(p, 0.1).zeros(), "cell: zoneout of h";
            LstmCell::<f32>::builder(2, 5).zoneout(0.1, p).zeros(), "cell: zoneout of c";
            GruCell::<f32>::builder(2, 5).zoneout(p).zeros(), "cell: zoneout";
            MinGruCell::<f32>::builder(2, 5).zoneout(p).zeros(), "cell: zoneout";
            MinLstmCell::<f32>::builder(2, 5).zoneout(p).zeros(), "cell: zoneout";
            SlstmCell::<f32>::builder(2, 5).zoneout(p).zeros(), "cell: zoneout";
            SlstmCell::<f32>::builder(2, 5).recurrent_dropout(p).zeros(), "cell: recurrent_dropout";
            MguCell::<f32>::builder(2, 5).recurrent_dropout(p).zeros(), "cell: recurrent_dropout";
        }
        let mut options = RnnCell::<f32>::builder(2, 5).zeros().options();
        options.common.zoneout = p;
        refused! { RnnCell::<f32>::builder(2, 5).options(options).zeros(), "cell: zoneout"; }
    }
    for eps in [-1.0, 0.0, 1e-60, f64::NAN, f64::INFINITY] {
        let mut options = RnnCell::<f32>::builder(2, 5).zeros().options();
        options.common.layer_norm = Some(eps);
        refused! { RnnCell::<f32>::builder(2, 5).options(options).zeros(), "cell: layer_norm: expected"; }
    }
    for size in [4, 5, 9, usize::MAX] {
        refused! {
            LstmCell::<f32>::builder(2, 4).projection(size).zeros(),
                "LstmCell: projection: expected at least 1 and fewer than the 4 hidden units, got";
        }
    }
    for n in [0, 3, 5, 12, usize::MAX] {
        refused! {
            RnnCell::<f32>::builder(2, 4).heads(n).zeros(), "cell: heads: expected a divisor of the 4 hidden features, got";
            Slstm::<f32>::builder(2, 4).num_layers(2).heads(n).build(&mut rng(0)), "cell: heads: expected a divisor";
        }
    }
    refused! {
        LstmCell::<f32>::builder(2, 6).projection(4).heads(3).zeros(),
            "cell: heads: expected a divisor of the 4 projected features, got 3";
    }
    let mut cell = GruCell::<f32>::builder(2, 4).heads(2).zeros();
    cell.weight_hh = Array2::zeros((12, 4));
    refused! { cell.output_size(2.into()), "GruCell: weight_hh: expected [12, 2], got [12, 4]"; }
    (cell.weight_ih, cell.weight_hh) = (Array2::zeros((15, 2)), Array2::zeros((15, 2)));
    refused! { cell.output_size(2.into()), "GruCell: hidden_size: expected a multiple of the 2 heads, got 5"; }
    assert_eq!(LstmCell::<f32>::builder(2, 4).projection(3).zeros().output_size(2.into()), Ok(3));
}

#[test]
fn sizes_that_overflow_are_named() {
    let (rng, huge) = (&mut rng(0), 1 << (usize::BITS - 2));
    refused! {
        LstmCell::<f32>::builder(3, huge), "cell: sizes are too large for any memory, got input 3, hidden";
        RnnCell::<f64>::builder(huge, 3), "cell: sizes are too large for any memory, got input";
        Lstm::<f32>::new(3, huge, rng), "cell: sizes are too large";
        Gru::<f32>::builder(3, usize::MAX), "cell: sizes are too large";
        MinGruCell::<f32>::builder(usize::MAX, usize::MAX), "cell: sizes are too large";
        Linear::<f32>::zeros(3, huge), "Linear: sizes are too large for any memory, got input 3, output";
        Linear::<f32>::new(huge, 3, rng), "Linear: sizes are too large";
        Embedding::<f32>::zeros(huge, 3), "Embedding: sizes are too large for any memory, got vocabulary";
        LayerNorm::<f32>::new(huge), "LayerNorm: sizes are too large for any memory, got features";
        Attention::<f32>::bilinear(huge, 3, rng), "Attention: sizes are too large";
        Attention::<f32>::additive(2, 3, huge, rng), "Attention: sizes are too large for any memory, got query 2, memory 3, hidden";
        PreNormBlock::<f32>::zeros(3, huge, Nonlinearity::Relu), "Linear: sizes are too large";
        Residual::new(Linear::<f32>::zeros(3, 3)).layer_scale(usize::MAX, 0.1), "Residual: sizes are too large";
        Residual::new(Linear::<f32>::zeros(3, 3)).layer_scale(0, 0.1), "Residual: sizes must not be 0";
        NamedTensors::<f32>::new([("w".to_owned(), vec![huge, 4], vec![])]), "NamedTensors: w: expected more values than there can be for";
        NamedTensors::<f32>::new([("w".to_owned(), vec![0, usize::MAX], vec![])]), "NamedTensors: w: expected more values than there can be for";
    }
}

#[test]
fn a_gradient_of_another_make_is_refused() {
    let rng = &mut rng(0);
    let x = Array3::ones((4, 2, 3));
    fn refused<L: Layer<Elem = f64>>(layer: &L, mut grad: L, x: &Array3<f64>) -> String {
        let mut cache = layer.cache();
        let dy = layer.forward(x, &mut layer.zero_state(2), &mut cache).mapv(|_| 1.0);
        panic_of(|| layer.backward(x, &dy, None, &mut cache, &mut grad).sum())
    }
    let linear = Linear::new(3, 4, rng);
    let without_bias = Linear { bias: None, ..linear.zeros_like() };
    let message = refused(&linear, without_bias, &x);
    assert_says(&message, &["Linear", "grad", "expected 2 tensors, got 1"]);
    assert_says(&refused(&linear, Linear::zeros(3, 5), &x), &["Linear", "grad", "weight", "[4, 3]", "[5, 3]"]);
    let message = refused(&LstmCell::new(3, 4, rng), LstmCell::builder(3, 4).bias(false).zeros(), &x);
    assert_says(&message, &["LstmCell", "grad", "expected 4 tensors, got 2"]);
    assert_says(&refused(&GruCell::new(3, 4, rng), GruCell::zeros(3, 5), &x), &["GruCell", "grad", "weight_ih"]);
    assert_says(&refused(&RnnCell::new(3, 4, rng), RnnCell::zeros(3, 5), &x), &["RnnCell", "grad", "weight_ih"]);
    assert_says(&refused(&LayerNorm::new(3), LayerNorm::new(5), &x), &["LayerNorm", "grad", "weight"]);
    let block = Residual::new(Linear::new(3, 3, rng));
    assert_says(&refused(&block.clone().rezero(), block, &x), &["Residual", "grad", "expected 3 tensors, got 2"]);
}

#[test]
fn an_inference_pass_and_another_seed_have_no_backward() {
    let rng = &mut rng(0);
    let (x, dy) = (Array3::<f64>::ones((4, 3, 2)), Array3::ones((4, 3, 5)));
    let layer = Linear::new(2, 5, rng);
    let (mut cache, mut grad) = (layer.cache(), layer.zeros_like());
    let x = Sequence::from(&x);
    layer.forward(x.infer(), &mut (), &mut cache);
    let message = panic_of(|| layer.backward(x, &dy, None, &mut cache, &mut grad).sum());
    assert_says(&message, &["Linear", "an inference pass, which keeps nothing"]);
    layer.forward(x.train(3), &mut (), &mut cache);
    let message = panic_of(|| layer.backward(x.train(4), &dy, None, &mut cache, &mut grad).sum());
    assert_says(&message, &["Linear", "in its mode"]);
}

/// Makes `steps` training steps of a layer of 3 features, each with other data; `seed` gives the seed of each step.
fn train_on<L: Layer<Elem = f64>>(layer: &L, steps: usize, seed: impl Fn(usize) -> u64) {
    let (mut cache, mut grad) = (layer.cache(), layer.zeros_like());
    for step in 0..steps {
        let x = Array3::from_elem((2, 2, 3), step as f64);
        let pass = layer.pass(Sequence::from(&x).train(seed(step)), &mut layer.zero_state(2), &mut cache);
        let dy = pass.output().to_owned();
        pass.backward_into(&dy, &mut grad);
    }
}

/// With the same seed in every step, always the same units would be dropped.
#[test]
fn a_seed_that_never_changes_is_refused_by_all_that_drop() {
    fn check<L: Layer<Elem = f64>>(layer: L, name: &str) {
        let says = [name, "another seed in each training step", "seed 7 in 100 steps in a row"];
        train_on(&layer, 99, |_| 7);
        assert_says(&panic_of(|| train_on(&layer, 100, |_| 7)), &says);
        train_on(&layer, 300, |step| step as u64);
        train_on(&layer, 300, |step| step as u64 / 50); // a batch in 50 parts
    }
    let rng = &mut rng(0);
    check(Dropout::new(0.1, rng), "Dropout");
    check(StochasticDepth::new(Linear::new(3, 3, rng), 0.1, rng), "StochasticDepth");
    check(Lstm::builder(3, 4).num_layers(2).dropout(0.1).build(rng), "Dropout");
    check(LstmCell::builder(3, 4).recurrent_dropout(0.1).build(rng), "LstmCell");
    check(GruCell::builder(3, 4).recurrent_dropout(0.1).build(rng), "GruCell");
    check(RnnCell::builder(3, 4).recurrent_dropout(0.1).build(rng), "RnnCell");
    check(MguCell::builder(3, 4).recurrent_dropout(0.1).build(rng), "MguCell");
    check(MinGruCell::builder(3, 4).zoneout(0.1).build(rng), "MinGruCell");
    check(MinLstmCell::builder(3, 4).zoneout(0.1).build(rng), "MinLstmCell");
    check(SlstmCell::builder(3, 4).recurrent_dropout(0.1).build(rng), "SlstmCell");
    check(SlstmCell::builder(3, 4).zoneout(0.1).build(rng), "SlstmCell");
    check(Lstm::builder(3, 4).zoneout(0.1, 0.0).build(rng), "LstmCell");

    // Nothing is dropped, the input is the same, or the steps are parts of one sequence.
    train_on(&(Linear::new(3, 3, rng), Dropout::new(0.0, rng), LstmCell::new(3, 2, rng)), 300, |_| 7);
    let (dropout, x) =
        (Dropout::<f64>::new(0.5, rng), Array3::from_shape_fn((300, 2, 3), |(t, b, k)| (t + b + k) as f64));
    let (mut cache, mut grad) = (dropout.cache(), dropout.clone());
    let whole = Sequence::from(&x).train(7);
    let same = std::iter::repeat_n(whole, 300);
    let other_sequences = (0..2).cycle().take(300).map(|b| whole.sequences(b..b + 1));
    for x in whole.chunks(1).chain(same).chain(other_sequences) {
        let pass = dropout.pass(x, &mut (), &mut cache);
        let dy = pass.output().to_owned();
        pass.backward_into(&dy, &mut grad);
    }
}

/// A model may contain a layer that cannot run on a stream; then it implements `Layer` but not `Causal`.
mod not_causal {
    use gradflow::ndarray::{ArrayRef3, ArrayView3};
    use gradflow::{
        Layer, Sequence,
        author::{Gradient, Size, SizeError},
        layers::Linear,
        parameters, sequential,
    };

    #[derive(Clone)]
    pub struct Offline {
        pub inner: Linear<f64>,
    }
    parameters! { impl Tensors<f64> for Offline { inner as "" } }
    type Inner = Linear<f64>;

    impl Layer for Offline {
        type Elem = f64;
        type State = ();
        type Cache = <Inner as Layer>::Cache;
        fn output_size(&self, input: Size) -> Result<usize, SizeError> {
            self.inner.output_size(input)
        }
        fn zero_state(&self, _: usize) {}
        fn forward_pass<'c>(
            &self,
            x: &Sequence<'_, f64>,
            _: &mut (),
            cache: &'c mut Self::Cache,
        ) -> ArrayView3<'c, f64> {
            self.inner.forward(x, &mut (), cache)
        }
        fn output<'c>(&self, cache: &'c Self::Cache) -> ArrayView3<'c, f64> {
            self.inner.output(cache)
        }
        fn backward_pass<'c>(
            &self,
            x: &Sequence<'_, f64>,
            dy: &ArrayRef3<f64>,
            _: Option<&mut ()>,
            cache: &'c mut Self::Cache,
            grad: Gradient<'_, Self>,
        ) -> ArrayView3<'c, f64> {
            let grad = grad.to_add();
            self.inner.backward(x, dy, None, cache, &mut grad.inner)
        }
    }

    sequential! {
        #[derive(Clone)]
        pub struct Reader: Layer<f64> {
            pub offline: Offline,
        }
    }
}

#[test]
fn a_model_with_a_layer_that_is_not_causal_is_a_layer() {
    let model = not_causal::Reader { offline: not_causal::Offline { inner: Linear::zeros(2, 3) } };
    gradflow::check::Contract::new("Reader", &model, 2).check();
}

/// A field can hold an array in any layout. Layouts that are not row-major are refused in inference as in training, before any work.
#[test]
fn parameters_in_another_layout_are_refused() {
    fn check<L: Layer<Elem = f64>>(layer: L, change: impl FnOnce(&mut L), features: usize) {
        let mut changed = layer.clone();
        change(&mut changed);
        let x = Array3::from_elem((4, 2, features), 0.5);
        let x = Sequence::from(&x);
        for x in [x.train(0), x.eval(), x.infer(), x.steps(0..1).infer()] {
            let mut cache = layer.cache();
            layer.forward(x, &mut layer.zero_state(2), &mut cache); // as it is
            let forward = || changed.forward(x, &mut layer.zero_state(2), &mut cache).to_owned();
            assert_says(&panic_of(forward), &["standard (row-major) layout"]);
            let residual = Residual::new(changed.clone());
            if layer.output_size(features.into()) == Ok(features) {
                assert_says(&forward_panic(&residual, x), &["standard (row-major) layout"]);
            }
        }
    }
    fn turned(weight: &mut Array2<f64>) {
        *weight = weight.t().as_standard_layout().into_owned().reversed_axes();
    }
    fn stepped(values: &mut Array1<f64>) {
        let twice = Array1::from_shape_fn(2 * values.len(), |k| values[k / 2]);
        *values = twice.slice_move(s![..;2]);
    }
    let rng = &mut rng(0);
    check(Linear::new(3, 3, rng), |layer| turned(&mut layer.weight), 3);
    check(Linear::new(3, 2, rng), |layer| stepped(layer.bias.as_mut().unwrap()), 3);
    check(FeedForward::new(3, 5, Nonlinearity::Gelu, rng), |layer| turned(&mut layer.fc1.weight), 3);
    check(FeedForward::new(3, 5, Nonlinearity::Gelu, rng), |layer| turned(&mut layer.fc2.weight), 3);
    check(LayerNorm::new(3), |layer| stepped(&mut layer.weight), 3);
    check(LayerNorm::new(3), |layer| stepped(&mut layer.bias), 3);
    check(
        CausalConv1d::new(3, 3, 2, rng),
        |layer| {
            layer.weight =
                layer.weight.clone().permuted_axes([1, 0, 2]).as_standard_layout().into_owned().permuted_axes([1, 0, 2])
        },
        3,
    );
    check(CausalConv1d::new(3, 2, 2, rng), |layer| stepped(layer.bias.as_mut().unwrap()), 3);
    check(RnnCell::new(3, 3, rng), |layer| turned(&mut layer.weight_hh), 3);
    check(GruCell::new(3, 4, rng), |layer| turned(&mut layer.weight_ih), 3);
    check(LstmCell::new(3, 3, rng), |layer| turned(&mut layer.weight_ih), 3);
    check(LstmCell::new(3, 3, rng), |layer| stepped(layer.bias_hh.as_mut().unwrap()), 3);
    check(Lstm::new(3, 4, rng), |layer| turned(&mut layer.cell_mut(0, 0).weight_hh), 3);
    check(
        Residual::new(Linear::new(3, 3, rng)).layer_scale(3, 0.1),
        |layer| {
            let BranchScale::PerFeature(scale) = &mut layer.scale else { panic!("another scale") };
            stepped(scale);
        },
        3,
    );
    check(Highway::new(Linear::new(3, 3, rng), 3, rng), |layer| turned(&mut layer.gate.weight), 3);
    check(Stacked::new(vec![Linear::new(3, 3, rng)]), |layer| turned(&mut layer.layers_mut()[0].weight), 3);
    check(
        Bidirectional::new(GruCell::new(3, 4, rng), GruCell::new(3, 4, rng)),
        |layer| {
            turned(&mut layer.reverse.weight_hh);
        },
        3,
    );

    let mut embedding = Embedding::<f64>::new(5, 3, rng);
    turned(&mut embedding.weight);
    let ids = arr2(&[[1, 4]]);
    assert_says(&forward_panic(&embedding, Sequence::from(&ids).infer()), &["standard (row-major) layout"]);
}

/// The activations that have no constructor of their own in `Activation`.
const EVERY_OTHER: [Nonlinearity; 8] = [
    Nonlinearity::Identity,
    Nonlinearity::Affine { slope: 0.5, offset: 0.1 },
    Nonlinearity::HARD_SIGMOID,
    Nonlinearity::ScaledTanh { scale: 1.7, slope: 0.6 },
    Nonlinearity::ThresholdedRelu { threshold: 0.1 },
    Nonlinearity::Elu { alpha: 0.7 },
    Nonlinearity::Softsign,
    Nonlinearity::Softplus,
];
