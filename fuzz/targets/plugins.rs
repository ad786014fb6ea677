//! Bytes as the file of a plug-in: no panic, whatever they are; what is read runs, and what is saved can be read again.

use gradflow::convert::FileError;
use gradflow::convert::keras_json::KerasJson;
use gradflow::convert::nam::NamModel;
use gradflow::ndarray::Array3;
use gradflow::stream::Stream;
use gradflow::{Causal, Layer, Sequence};

pub fn run(data: &[u8]) {
    match NamModel::<f32>::read_from(data) {
        Ok(file) => {
            passes(&file.model, file.initial_state.clone(), file.model.0.cell(0, 0).weight_ih.ncols());
            assert_eq!(NamModel::read_from(&saved(|to| file.save_to(to))[..]).expect("what was saved"), file);
        }
        Err(error) => says_something(&error),
    }
    match KerasJson::<f64>::read_from(data) {
        Ok(file) => {
            let (model, input) = (file.model(), file.input_size().expect("a layer with weights"));
            passes(&model, model.zero_state(1), input);
            // The first time, missing biases are saved as zeros.
            let once = saved(|to| file.save_to(to));
            let again = KerasJson::<f64>::read_from(&once[..]).expect("what was saved");
            assert_eq!(saved(|to| again.save_to(to)), once);
        }
        Err(error) => says_something(&error),
    }
    // A lower limit refuses more, and never accepts anything else.
    if NamModel::<f32>::read_with(data, data.len() / 2).is_ok() {
        assert!(data.len() < 2);
    }
}

fn says_something(error: &FileError) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() < 100_000, "{} bytes", text.len());
}

fn saved(save: impl FnOnce(&mut Vec<u8>) -> Result<(), FileError>) -> Vec<u8> {
    let mut file = Vec::new();
    save(&mut file).expect("what was read");
    file
}

fn passes<L: Causal>(model: &L, mut state: L::State, input: usize) {
    let x = Array3::from_elem((3, 1, input), L::Elem::default());
    let y = model.forward(Sequence::from(&x).infer(), &mut state, &mut model.cache()).to_owned();
    assert_eq!(y.dim().0, 3);
    let mut stream = Stream::new(model, input).expect("features of the file");
    assert_eq!(stream.push(&vec![L::Elem::default(); input]).len(), y.dim().2);
}
