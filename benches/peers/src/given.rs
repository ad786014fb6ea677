//! What every side is given: parameters, input and the output's gradient.

use std::io;
use std::path::{Path, PathBuf};

use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use protocol::{Mode, Point, Tensor, Tensors};

/// Writes a point's tensors to a file in `folder`: the same ones at every call.
pub fn write(point: &Point, folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("given.safetensors");
    tensors(point).save(&path, point.dtype)?;
    Ok(path)
}

fn tensors(point: &Point) -> Tensors {
    let rng = &mut StdRng::seed_from_u64(0);
    let mut uniform = |shape: Vec<usize>, center: f64, bound: f64| {
        let count = shape.iter().product::<usize>();
        Tensor::new(shape, (0..count).map(|_| center + bound * rng.random_range(-1.0..1.0)))
    };
    let &Point { steps, batch, input, hidden, .. } = point;
    let mut given = Tensors::default();
    for (name, shape) in point.parameters() {
        // PyTorch's initial range; the norms somewhere near their start.
        let width = if name.contains("fc2") { Point::EXPANSION * hidden } else { hidden };
        let (center, bound) = match name.as_str() {
            name if name.contains("norm.weight") => (1.0, 0.1),
            name if name.contains("norm.bias") => (0.0, 0.1),
            _ => (0.0, 1.0 / (width as f64).sqrt()),
        };
        given.insert(format!("param.{name}"), uniform(shape, center, bound));
    }
    given.insert("x", uniform(vec![steps, batch, input], 0.0, 1.0));
    if point.mode == Mode::Train {
        given.insert("dy", uniform(vec![steps, batch, hidden], 0.0, 1.0));
    }
    given
}
