//! The tensors that every side is given: parameters, input and the output's gradient.

use std::io;
use std::path::{Path, PathBuf};

use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::{Float, Layer, TensorsExt};
use protocol::{Mode, Point, Tensor, Tensors};

/// Writes a point's tensors to a file in `folder`: the same ones at every call.
pub fn write(point: &Point, folder: &Path) -> io::Result<PathBuf> {
    save(&tensors(point), point, folder)
}

/// Writes a point's tensors, or those of a custom model, to a file in `folder`.
pub fn save(tensors: &Tensors, point: &Point, folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("given.safetensors");
    tensors.save(&path, point.dtype)?;
    Ok(path)
}

/// Sets a layer's parameters; `name` makes the name of a given tensor from a parameter's.
///
/// # Panics
/// Panics if a tensor is missing, or has another shape.
pub fn load<L: Layer>(layer: &mut L, given: &Tensors, name: impl Fn(&str) -> String) {
    for i in 0..layer.count() {
        let tensor = given.get(&format!("param.{}", name(&layer.name(i))));
        assert_eq!(layer.shape(i), tensor.shape, "{}", layer.name(i));
        for (parameter, &value) in layer.tensor_mut(i).iter_mut().zip(&tensor.values) {
            *parameter = L::Elem::of(value);
        }
    }
}

/// Numbers within `bound` of `center`.
pub fn uniform(rng: &mut StdRng, shape: impl Into<Vec<usize>>, center: f64, bound: f64) -> Tensor {
    let shape = shape.into();
    let count = shape.iter().product::<usize>();
    Tensor::new(shape, (0..count).map(|_| center + bound * rng.random_range(-1.0..1.0)))
}

/// Parameters, input and, for training, the output's gradient; for whole steps, `x` and `targets` of
/// [`Point::BATCHES`] batches. The same ones at every call.
pub fn tensors(point: &Point) -> Tensors {
    let rng = &mut StdRng::seed_from_u64(0);
    let &Point { steps, batch, input, hidden, vocabulary, .. } = point;
    let mut given = Tensors::default();
    for (name, shape) in point.parameters() {
        // PyTorch's initial range; the norms near their initial values.
        let width = if name.contains("fc2") { Point::EXPANSION * hidden } else { hidden };
        let (center, bound) = match name.as_str() {
            name if name.contains("norm.weight") => (1.0, 0.1),
            name if name.contains("norm.bias") => (0.0, 0.1),
            "0.weight" => (0.0, 1.0), // an embedding
            _ => (0.0, 1.0 / (width as f64).sqrt()),
        };
        given.insert(format!("param.{name}"), uniform(rng, shape, center, bound));
    }
    match point.mode {
        Mode::Step if vocabulary > 0 => {
            for name in ["x", "targets"] {
                let shape = [Point::BATCHES, steps, batch];
                let ids = (0..shape.iter().product()).map(|_| rng.random_range(0..vocabulary) as f64);
                given.insert(name, Tensor::new(shape, ids));
            }
        }
        Mode::Step => {
            for (name, features) in [("x", input), ("targets", hidden)] {
                given.insert(name, uniform(rng, [Point::BATCHES, steps, batch, features], 0.0, 1.0));
            }
        }
        Mode::Train | Mode::Infer => {
            given.insert("x", uniform(rng, [steps, batch, input], 0.0, 1.0));
        }
    }
    if point.mode == Mode::Train {
        given.insert("dy", uniform(rng, [steps, batch, hidden], 0.0, 1.0));
    }
    given
}
