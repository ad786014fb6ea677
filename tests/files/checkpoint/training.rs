//! Checkpoints: a training continues to the bit.

use std::ops::Range;

use gradflow::io::{Checkpoint, LoadError, Mismatch};
use gradflow::ndarray::{Array2, s};
use gradflow::rand::RngExt;
use gradflow::{
    Layer, Tensors, ZerosLike,
    clip::clip_grad_norm,
    layers::Linear,
    loss::{Loss, SoftmaxCrossEntropy},
    optim::{Adagrad, Adam, AdamW, NAdam, Optimizer, OptimizerStateError, RmsProp, Schedule, Sgd, WeightAverage},
};

use super::{Folder, Model, model};
use crate::common::{assert_says, bits, panic_of, rng};

/// Trains with a carried state on batches that depend only on `seed` and the step; returns the bits of the losses.
fn train(
    model: &mut Model<f32>,
    optimizer: &mut dyn Optimizer<f32>,
    schedule: &Schedule,
    state: &mut <Model<f32> as Layer>::State,
    seed: u64,
    steps: Range<u64>,
) -> Vec<u64> {
    let (mut cache, mut grad, mut cross_entropy) = (model.cache(), model.zeros_like(), SoftmaxCrossEntropy::new());
    let step = |step| {
        let rng = &mut rng(seed.wrapping_add(step));
        let ids = Array2::from_shape_simple_fn((7, 2), || rng.random_range(0..5));
        let pass = model.pass(ids.slice(s![..6, ..]), state, &mut cache);
        let loss = cross_entropy.of(&pass, &ids.slice(s![1.., ..]));
        pass.backward_into(loss.gradient(), &mut grad);
        clip_grad_norm(&mut grad, 1.0).unwrap();
        optimizer.set_learning_rate(schedule.learning_rate(step));
        optimizer.step(model, &grad);
        loss.value().to_bits()
    };
    steps.map(step).collect()
}

#[test]
fn a_training_goes_on_to_the_bit() {
    let folder = Folder::new("training");
    type New = fn() -> Box<dyn Optimizer<f32>>;
    let optimizers: [New; 8] = [
        || Box::new(Sgd::new(0.1).momentum(0.9).nesterov()),
        || Box::new(Sgd::new(0.1)),
        || Box::new(Adam::new(0.01)),
        || Box::new(AdamW::new(0.01).betas(0.9, 0.99)),
        || Box::new(Adagrad::new(0.1)),
        || Box::new(RmsProp::new(0.01).momentum(0.5)),
        || Box::new(AdamW::new(0.01).betas(0.9, 0.5).amsgrad()),
        || Box::new(NAdam::new(0.01).decoupled_weight_decay().weight_decay(0.1)),
    ];
    for (k, optimizer) in optimizers.iter().enumerate() {
        let path = folder.path(&format!("{k}.safetensors"));
        let (schedule, seed) = (Schedule::cosine(0.03, 40, 1e-3).warm_up(5, 0.1), u64::MAX - 1);
        let (mut reference, mut stepping) = (model::<f32>(0), optimizer());
        let mut state = reference.zero_state(2);
        train(&mut reference, &mut *stepping, &schedule, &mut state, seed, 0..10);
        Checkpoint::new()
            .with_tensors("model", &reference)
            .with_tensors("state", &state)
            .with_optimizer(&*stepping)
            .with_schedule(&schedule)
            .with_number("seed", seed)
            .with_number("step", 10)
            .with_metadata("note", "a line\nand another")
            .save(&path)
            .unwrap();
        let losses = train(&mut reference, &mut *stepping, &schedule, &mut state, seed, 10..20);

        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.metadata("note"), Some("a line\nand another"));
        assert_eq!(checkpoint.schedule().unwrap(), schedule);
        let (seed, step) = (checkpoint.number("seed").unwrap(), checkpoint.number("step").unwrap());
        let (mut resumed, mut resumed_stepping) = (model::<f32>(99), optimizer());
        let mut resumed_state = resumed.zero_state(2);
        checkpoint.load_training("model", &mut resumed, &mut *resumed_stepping).unwrap();
        checkpoint.load_tensors("state", &mut resumed_state).unwrap();
        let schedule = checkpoint.schedule().unwrap();
        assert_eq!(
            train(&mut resumed, &mut *resumed_stepping, &schedule, &mut resumed_state, seed, step..20),
            losses,
            "optimizer {k}"
        );
        assert_eq!(bits(&resumed), bits(&reference));
        assert_eq!(bits(&resumed_state), bits(&state));
        let (state, resumed_state) = (stepping.state(), resumed_stepping.state());
        assert_eq!((resumed_state.steps, &resumed_state.settings), (20, &state.settings));
        assert_eq!(bits(&resumed_state.tensors), bits(&state.tensors));

        // Each part matters: without the optimizer's state, or without the carried one, the numbers differ.
        for (with_optimizer, with_state) in [(false, true), (true, false)] {
            let (mut model, mut stepping) = (model::<f32>(99), optimizer());
            let mut state = model.zero_state(2);
            checkpoint.load_tensors("model", &mut model).unwrap();
            if with_optimizer {
                checkpoint.load_optimizer(&model, &mut *stepping).unwrap();
            }
            if with_state {
                checkpoint.load_tensors("state", &mut state).unwrap();
            }
            let others = train(&mut model, &mut *stepping, &schedule, &mut state, seed, step..20);
            let remembers_nothing = k == 1 && !with_optimizer;
            assert_eq!(others == losses, remembers_nothing, "optimizer {k}, {with_optimizer}, {with_state}");
        }
    }
}

#[test]
fn what_a_checkpoint_lacks_is_named_and_nothing_changes() {
    let (saved, schedule) = (model::<f32>(0), Schedule::constant(0.1));
    let mut stepping = AdamW::new(0.1);
    let (mut stepped, grad) = (saved.clone(), saved.clone());
    stepping.step(&mut stepped, &grad);
    let whole = Checkpoint::new().with_tensors("model", &saved).with_optimizer(&stepping);
    let before = model::<f32>(1);
    let (mut model, mut optimizer) = (before.clone(), AdamW::new(0.3));

    assert_says(&whole.schedule().unwrap_err().to_string(), &["has no gradflow.schedule"]);
    assert_says(&whole.number("seed").unwrap_err().to_string(), &["has no gradflow.number.seed"]);
    assert_eq!(whole.metadata("note"), None);
    assert_eq!(whole.load_tensors::<f32>("state", &mut ()), Ok(()));
    let error = whole.load_tensors("average", &mut model).unwrap_err();
    assert_eq!((error.missing.len(), error.missing[0].as_str()), (model.count(), "average.0.weight"));
    let without = Checkpoint::new().with_tensors("model", &saved).with_schedule(&schedule);
    let error = without.load_training("model", &mut model, &mut optimizer).unwrap_err();
    assert!(matches!(&error, LoadError::Absent { key } if key == "gradflow.optimizer.kind"), "{error}");
    let error = whole.load_training("average", &mut model, &mut optimizer).unwrap_err();
    assert!(matches!(error, LoadError::Mismatch(Mismatch { .. })), "{error}");
    let error = whole.load_training("model", &mut model, &mut Sgd::new(0.1)).unwrap_err();
    assert!(matches!(error, LoadError::Optimizer(OptimizerStateError::Kind { .. })), "{error}");
    let error = whole.load_training("model", &mut model, &mut AdamW::new(0.1).eps(1e-3)).unwrap_err();
    assert!(matches!(error, LoadError::Optimizer(OptimizerStateError::Setting { .. })), "{error}");
    // The state of an optimizer whose model has the same names in other shapes, and one of another type.
    let wider = Linear::<f32>::new(3, 2, &mut rng(0));
    let error = whole.load_optimizer(&wider, &mut optimizer).unwrap_err();
    assert!(matches!(error, LoadError::Optimizer(OptimizerStateError::MissingTensor { .. })), "{error}");
    let error = whole.load_optimizer(&self::model::<f64>(0), &mut AdamW::new(0.1)).unwrap_err();
    assert_says(&error.to_string(), &["optimizer.exp_avg.1.weight_hh: expected type F64, found F32"]);

    assert_eq!(bits(&model), bits(&before));
    assert_eq!((optimizer.state().steps, optimizer.learning_rate()), (0, 0.3));
    whole.load_training("model", &mut model, &mut optimizer).unwrap();
    assert_eq!(bits(&model), bits(&saved));
    assert_eq!((optimizer.state().steps, optimizer.learning_rate()), (1, 0.1));
}

/// Several averages besides the model and the optimizer, each with its own settings.
#[test]
fn averages_go_on_to_the_bit() {
    let folder = Folder::new("averages");
    let path = folder.path("file.safetensors");
    let (mut trained, mut optimizer, schedule) = (model::<f32>(0), AdamW::new(0.1), Schedule::constant(0.03));
    let mut state = trained.zero_state(2);
    let new = || {
        [
            ("fast", WeightAverage::ema(0.5)),
            ("slow", WeightAverage::ema(0.99).warm_up()),
            ("mean", WeightAverage::swa().start(2)),
        ]
    };
    let mut averages = new();
    for step in 0..6 {
        train(&mut trained, &mut optimizer, &schedule, &mut state, 3, step..step + 1);
        averages.iter_mut().for_each(|(_, average)| average.update(&trained).unwrap());
    }
    let checkpoint = Checkpoint::new().with_tensors("model", &trained).with_optimizer(&optimizer);
    let all = averages.iter().fold(checkpoint, |checkpoint, (name, average)| checkpoint.with_average(name, average));
    all.save(&path).unwrap();
    let loaded = Checkpoint::open(&path).unwrap();
    let mut resumed = new();
    for ((name, average), (_, resumed)) in averages.iter_mut().zip(&mut resumed) {
        loaded.load_average(name, &trained, resumed).unwrap();
        assert_eq!(resumed.state(), average.state(), "{name}");
        let mut averaged = model::<f32>(1);
        loaded.load_tensors(name, &mut averaged).unwrap();
        assert_eq!(bits(&averaged), bits(average.tensors().unwrap()), "{name}");
    }
    train(&mut trained, &mut optimizer, &schedule, &mut state, 3, 6..7);
    for ((name, average), (_, resumed)) in averages.iter_mut().zip(&mut resumed) {
        average.update(&trained).unwrap();
        resumed.update(&trained).unwrap();
        assert_eq!(resumed.state(), average.state(), "{name}");
    }

    // An average that is missing, has other settings, or does not fit is named in the error, and nothing changes.
    let [(_, mut fast), (_, mut slow), _] = new();
    let error = loaded.load_average("none", &trained, &mut fast).unwrap_err();
    assert!(matches!(&error, LoadError::Absent { key } if key == "gradflow.average.none.kind"), "{error}");
    let error = loaded.load_average("fast", &trained, &mut slow).unwrap_err();
    assert!(matches!(error, LoadError::Optimizer(OptimizerStateError::Setting { .. })), "{error}");
    let error = loaded.load_average("mean", &trained, &mut fast).unwrap_err();
    assert!(matches!(error, LoadError::Optimizer(OptimizerStateError::Kind { .. })), "{error}");
    let error = loaded.load_average("fast", &Linear::<f32>::zeros(2, 2), &mut fast).unwrap_err();
    assert!(matches!(error, LoadError::Optimizer(OptimizerStateError::MissingTensor { .. })), "{error}");
    let error = loaded.load_average("fast", &model::<f64>(0), &mut WeightAverage::<f64>::ema(0.5)).unwrap_err();
    assert_says(&error.to_string(), &["fast.0.weight: expected type F64, found F32"]);
    assert_eq!((fast.updates(), slow.updates()), (0, 0));
    for section in ["", "optimizer", "a.b"] {
        let message = panic_of(|| Checkpoint::new().with_average(section, &fast));
        assert_says(&message, &["Checkpoint: section: expected a name without dots", section]);
    }
}

/// A file written by a version without AMSGrad.
#[test]
fn checkpoints_without_amsgrad_load() {
    let file = include_bytes!("../data/adamw_before_amsgrad.safetensors");
    let checkpoint = Checkpoint::read_from(&file[..]).unwrap();
    let state = checkpoint.optimizer_state::<f32>().unwrap();
    assert_eq!((state.steps, state.setting("beta2"), state.setting("amsgrad")), (1, Some(0.999), None));
    let (mut model, mut optimizer) = (Linear::<f32>::zeros(2, 1), AdamW::new(0.01));
    checkpoint.load_training("model", &mut model, &mut optimizer).unwrap();
    assert_eq!((optimizer.state().steps, optimizer.state().setting("amsgrad")), (1, Some(0.0)));
    let error = checkpoint.load_optimizer(&model, &mut AdamW::new(0.01).amsgrad()).unwrap_err();
    assert_says(&error.to_string(), &["the state has no amsgrad, which is 1 here"]);
}
