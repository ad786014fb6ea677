//! States of optimizers, valid or not: refused with nothing changed, or restored so that the optimizer returns the same state.

use gradflow::author::NamedTensors;
use gradflow::layers::Linear;
use gradflow::optim::{Adagrad, Adam, AdamW, NAdam, Optimizer, OptimizerState, RmsProp, Sgd};
use gradflow::{Tensors, TensorsExt};

use super::choices::Choices;

pub fn run(data: &[u8]) {
    let choices = &mut Choices::new(data);
    let mut optimizers: [Box<dyn Optimizer<f64>>; 8] = [
        Box::new(Sgd::new(0.1)),
        Box::new(Sgd::new(0.1).momentum(0.9).nesterov()),
        Box::new(Adam::new(0.1)),
        Box::new(AdamW::new(0.1).weight_decay(0.5)),
        Box::new(Adagrad::new(0.1)),
        Box::new(RmsProp::new(0.1).momentum(0.9)),
        Box::new(Adam::new(0.1).amsgrad()),
        Box::new(NAdam::new(0.1).decoupled_weight_decay().weight_decay(0.5)),
    ];
    let optimizer = &mut optimizers[choices.below(8)];
    let mut model = Linear::<f64>::zeros(2, 3);
    let grad = Linear::<f64>::zeros(2, 3);
    for _ in 0..choices.below(3) {
        optimizer.step(&mut model.clone(), &grad);
    }
    let state = changed(optimizer.state(), choices);
    let before = optimizer.state();
    let only_moments = choices.yes();
    let loaded =
        if only_moments { optimizer.load_moments(&model, &state) } else { optimizer.load_state(&model, &state) };
    match loaded {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(optimizer.state() == before, "changed by an error");
        }
        Ok(()) => {
            let restored = optimizer.state();
            assert_eq!((restored.kind, restored.steps), (state.kind.clone(), state.steps));
            assert_eq!(restored.settings.len(), before.settings.len());
            let expected = if only_moments { &before } else { &state };
            let same = |name: &str, value: f64| expected.setting(name) == Some(value);
            // States of earlier versions lack this setting.
            let was_added = |name: &str, value: f64| (name, value, state.setting(name)) == ("amsgrad", 0.0, None);
            assert!(restored.settings.iter().all(|(name, value)| same(name, *value) || was_added(name, *value)));
            assert_eq!(sorted(&restored.tensors), sorted(&state.tensors));
            optimizer.step(&mut model, &grad); // goes on
            assert_eq!(optimizer.state().steps, state.steps + 1);
        }
    }
}

/// Names, shapes and bits, sorted.
fn sorted(tensors: &NamedTensors<f64>) -> Vec<(String, Vec<usize>, Vec<u64>)> {
    let one = |i| {
        let (shape, values) = tensors.tensor(i);
        (tensors.name(i), shape.to_vec(), values.iter().map(|value| value.to_bits()).collect())
    };
    let mut list: Vec<_> = (0..tensors.count()).map(one).collect();
    list.sort();
    list
}

/// A state with some changes, or none.
fn changed(state: OptimizerState<f64>, choices: &mut Choices<'_>) -> OptimizerState<f64> {
    let OptimizerState { mut kind, mut steps, mut settings, tensors } = state;
    let mut list: Vec<_> = (0..tensors.count())
        .map(|i| (tensors.name(i), tensors.shape(i).to_vec(), tensors.values(i).to_vec()))
        .collect();
    for _ in 0..choices.below(4) {
        match choices.below(8) {
            0 => steps = if choices.yes() { choices.number() } else { u64::MAX - choices.below(3) as u64 },
            1 => kind = choices.one_of(&["Sgd", "Adam", "AdamW", "Adagrad", "RmsProp", "NAdam", ""]).into(),
            2 if !settings.is_empty() => {
                let at = choices.below(settings.len());
                settings[at].1 = choices.float();
            }
            3 => {
                settings.push((choices.one_of(&["lr", "eps", "momentum", "amsgrad", "x", ""]).into(), choices.float()))
            }
            4 => settings.truncate(choices.below(settings.len() + 1)),
            5 if !list.is_empty() => {
                let at = choices.below(list.len());
                list[at].1.reverse();
                list[at].2.iter_mut().for_each(|value| *value = choices.float());
            }
            6 => {
                let name = choices.one_of(&[
                    "exp_avg.weight",
                    "sum.bias",
                    "square_avg.weight",
                    "momentum_buffer",
                    "max_exp_avg_sq.weight",
                    "mu_product.bias",
                    "",
                ]);
                if choices.yes() {
                    list.push((name.into(), vec![], vec![choices.float()]));
                    continue;
                }
                let (rows, columns) = (choices.below(4), choices.below(4));
                list.push((name.into(), vec![rows, columns], vec![0.5; rows * columns]));
            }
            _ => list.truncate(choices.below(list.len() + 1)),
        }
    }
    OptimizerState { kind, steps, settings, tensors: NamedTensors::new(list) }
}
