//! Bytes as a checkpoint, and any state dict as a checkpoint with the right checksum, which no random bytes would have: no panic, and
//! nothing changes if something does not fit.

use gradflow::io::{Checkpoint, LoadError, StateDict};
use gradflow::layers::Linear;
use gradflow::optim::{AdamW, Optimizer, Sgd, WeightAverage};
use gradflow::{TensorsExt, ndarray::Array1};

pub fn run(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::read_from(data) {
        check(&checkpoint);
    }
    let Ok(dict) = StateDict::read_from(data) else { return };
    let forged = dict.with_metadata("gradflow.format", "1").with_metadata("gradflow.checksum", "");
    let Err(LoadError::Checksum { actual, .. }) = read(&forged) else { panic!("a checksum that is none is accepted") };
    check(&read(&forged.with_metadata("gradflow.checksum", actual)).expect("the right checksum"));
}

fn read(dict: &StateDict) -> Result<Checkpoint, LoadError> {
    let mut file = Vec::new();
    dict.save_to(&mut file).expect("a vector takes all");
    Checkpoint::read_from(&file[..])
}

fn check(checkpoint: &Checkpoint) {
    super::state_dict::survives(checkpoint.state_dict());
    let mut file = Vec::new();
    checkpoint.save_to(&mut file).expect("a vector takes all");
    assert_eq!(&Checkpoint::read_from(&file[..]).expect("what was saved"), checkpoint);

    if let Ok(schedule) = checkpoint.schedule() {
        super::schedule::check(&schedule);
    }
    let _ = (checkpoint.number("step"), checkpoint.number("seed"), checkpoint.metadata("note"));
    let mut model = Linear::<f32>::zeros(2, 1);
    let mut optimizers: [Box<dyn Optimizer<f32>>; 2] =
        [Box::new(Sgd::new(0.1).momentum(0.5)), Box::new(AdamW::new(0.01))];
    for optimizer in &mut optimizers {
        let (before, remembered) = (model.clone(), optimizer.state());
        let loaded = checkpoint.load_training("model", &mut model, &mut **optimizer);
        if loaded.is_err() {
            let same = |a: f32, b: f32| a.to_bits() == b.to_bits();
            let unchanged = (0..2).all(|i| before.values(i).iter().zip(model.values(i)).all(|(&a, &b)| same(a, b)));
            assert!(unchanged && optimizer.state() == remembered, "changed by an error");
        } else {
            // The training goes on, whatever the values are.
            let grad = Linear::zeros(2, 1);
            optimizer.step(&mut model, &grad);
        }
    }
    let mut average = WeightAverage::<f32>::ema(0.5);
    if checkpoint.load_average("average", &model, &mut average).is_ok() {
        // The average goes on, and its weights are finite.
        average.update(&Linear::zeros(2, 1)).expect("finite weights");
        assert!(average.state().tensors.names() == ["weight", "bias"]);
    } else {
        assert_eq!((average.updates(), average.tensors()), (0, None), "changed by an error");
    }
    let _ = checkpoint.load_tensors("state", &mut Array1::<f64>::zeros(3));
}
