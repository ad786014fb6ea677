//! Whole models as ONNX files: their content, and refused models.
//!
//! With `GRADFLOW_ONNX=folder` the models are written to a folder, with inputs and gradflow's outputs, for `check.py`.

#[path = "../common/mod.rs"]
mod common;
mod load;
mod load_refused;
mod models;
mod refused;
mod structure;

use std::collections::HashMap;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use gradflow::ndarray::{Array2, Array3};
use gradflow::onnx::{ExportOptions, export, export_to_file};
use gradflow::{Float, Layer, Sequence, Tensors, author::Size};
use safetensors::{Dtype, tensor::TensorView};

use common::{temporary, wave};
use models::Visit;

const STEPS: usize = 6;
const BATCH: usize = 3;
const LENGTHS: [usize; BATCH] = [6, 2, 5];

/// Bytes of tensors by name, in the form of a safetensors file.
#[derive(Default)]
struct File(Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);

impl File {
    fn floats<'a, F: Float>(&mut self, name: &str, shape: &[usize], values: impl IntoIterator<Item = &'a F>) {
        let size = size_of::<F>();
        let bytes = values.into_iter().flat_map(|value| value.bits().to_le_bytes().into_iter().take(size)).collect();
        let dtype = if size == 4 { Dtype::F32 } else { Dtype::F64 };
        self.0.push((name.into(), dtype, shape.to_vec(), bytes));
    }

    fn state<F: Float>(&mut self, prefix: &str, state: &impl Tensors<F>) {
        for i in 0..state.count() {
            let (name, (shape, values)) = (state.name(i), state.tensor(i));
            let name = if name.is_empty() { prefix.into() } else { format!("{prefix}.{name}") };
            self.floats(&name, shape, values);
        }
    }

    fn save(&self, path: &Path) {
        let views = self.0.iter().map(|(name, dtype, shape, bytes)| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("as many bytes"))
        });
        let views: HashMap<_, _> = views.collect();
        std::fs::write(path, safetensors::serialize(views, None).expect("tensors")).expect("a file");
    }
}

/// Writes a model in several interfaces, each with its inputs and gradflow's outputs.
struct Write<F> {
    folder: PathBuf,
    count: usize,
    elem: PhantomData<F>,
}

impl<F: Float> Write<F> {
    fn all(folder: &Path) -> usize {
        let mut write = Write::<F> { folder: folder.into(), count: 0, elem: PhantomData };
        models::for_each(&mut write);
        models::for_each_written_only(&mut write);
        write.count
    }

    fn one<M: Layer<Elem = F>>(
        &mut self,
        name: &str,
        model: &M,
        input: Size,
        [lengths, states, batch_first]: [bool; 3],
    ) {
        self.count += 1;
        let options = ExportOptions::new().lengths(lengths).states(states).batch_first(batch_first);
        export_to_file(self.folder.join(format!("{name}.onnx")), model, input, &options)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut file = File::default();
        let ids = Array2::from_shape_fn((STEPS, BATCH), |(t, b)| (3 * t + 5 * b) % 11);
        let features = match input {
            Size::Features(features) => wave::<F>((STEPS, BATCH, features), 0.4),
            Size::Tokens => Array3::zeros((STEPS, BATCH, 0)),
        };
        let mut x = match input {
            Size::Features(_) => Sequence::from(&features),
            Size::Tokens => Sequence::from(&ids),
        };
        let order = |array: &Array3<F>| {
            let view = array.view();
            if batch_first { view.permuted_axes([1, 0, 2]).as_standard_layout().into_owned() } else { array.clone() }
        };
        match input {
            Size::Features(_) => {
                let x = order(&features);
                file.floats("x", x.shape(), &x);
            }
            Size::Tokens => {
                let ids = if batch_first { ids.t().as_standard_layout().into_owned() } else { ids.clone() };
                let bytes = ids.iter().flat_map(|&id| (id as i64).to_le_bytes()).collect();
                file.0.push(("x".into(), Dtype::I64, ids.shape().to_vec(), bytes));
            }
        }
        if lengths {
            x = x.with_lengths(&LENGTHS).expect("lengths that fit");
            let bytes = LENGTHS.iter().flat_map(|&length| (length as i32).to_le_bytes()).collect();
            file.0.push(("lengths".into(), Dtype::I32, vec![BATCH], bytes));
        }
        let mut state = model.zero_state(BATCH);
        if states {
            for i in 0..state.count() {
                let is_started = state.name(i).ends_with("started");
                for (k, value) in state.tensor_mut(i).iter_mut().enumerate() {
                    *value = F::of(if is_started { (k % 2) as f64 } else { (1.7 * k as f64 + i as f64).sin() });
                }
            }
            file.state("state", &state);
        }
        let y = model.forward(x.infer(), &mut state, &mut model.cache()).to_owned();
        let y = order(&y);
        file.floats("y", y.shape(), &y);
        if states {
            file.state("next", &state);
        }
        file.save(&self.folder.join(format!("{name}.safetensors")));
    }
}

impl<F: Float> Visit for Write<F> {
    type Elem = F;

    fn visit<M: Layer<Elem = F>>(&mut self, name: &str, model: M, input: Size) {
        let name = &format!("f{}-{name}", 8 * size_of::<F>());
        self.one(name, &model, input, [false; 3]);
        self.one(&format!("{name}-lengths"), &model, input, [true, false, false]);
        self.one(&format!("{name}-lengths-states"), &model, input, [true, true, false]);
        self.one(&format!("{name}-states-batch_first"), &model, input, [false, true, true]);
        self.one(&format!("{name}-all"), &model, input, [true; 3]);
    }
}

#[test]
fn models_with_inputs_and_outputs_are_written_for_other_programs() {
    let asked = std::env::var_os("GRADFLOW_ONNX").map(PathBuf::from);
    let folder = asked.clone().unwrap_or_else(|| temporary("onnx"));
    std::fs::create_dir_all(&folder).unwrap();
    let count = Write::<f32>::all(&folder) + Write::<f64>::all(&folder);
    assert!(count >= 600, "{count}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2 * count);
    if asked.is_none() {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

/// The decoded file.
fn decoded<M: Layer>(model: &M, input: impl Into<Size>, options: &ExportOptions) -> gradflow::onnx::messages::Model {
    let bytes = export(model, input, options).unwrap_or_else(|error| panic!("{error}"));
    prost::Message::decode(&bytes[..]).expect("a message")
}
