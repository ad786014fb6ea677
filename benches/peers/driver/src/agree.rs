//! Whether two sides computed the same.

use protocol::{Dtype, Tensors};

/// The largest relative difference in the Euclidean norm that is rounding.
fn tolerance(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 1e-4,
        Dtype::F64 => 1e-10,
    }
}

/// The difference in the Euclidean norm, relative to `ours`.
pub fn relative_difference(ours: &[f64], theirs: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = square(&mut ours.iter().zip(theirs).map(|(a, b)| a - b));
    // Zero if everything is zero, as in the gradient of recurrent weights after a single step from a zero state.
    if difference == 0.0 { 0.0 } else { difference / square(&mut ours.iter().copied()) }
}

/// # Errors
/// The first tensor of `ours` that is missing in `theirs`, or differs there.
pub fn check(ours: &Tensors, theirs: &Tensors, dtype: Dtype) -> Result<(), String> {
    for (name, ours) in &ours.0 {
        let Some(theirs) = theirs.0.get(name) else { return Err(format!("no {name}")) };
        if theirs.shape != ours.shape {
            return Err(format!("{name}: {:?}, here {:?}", theirs.shape, ours.shape));
        }
        let relative = relative_difference(&ours.values, &theirs.values);
        if relative.is_nan() || relative > tolerance(dtype) {
            return Err(format!("{name}: relative difference {relative:.1e}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::Tensor;

    use super::*;

    fn tensors(values: &[f64]) -> Tensors {
        let mut tensors = Tensors::default();
        tensors.insert("y", Tensor::new([values.len()], values.iter().copied()));
        tensors
    }

    #[test]
    fn rounding_agrees() {
        assert_eq!(check(&tensors(&[1.0, 2.0]), &tensors(&[1.0, 2.00001]), Dtype::F32), Ok(()));
        assert_eq!(check(&tensors(&[0.0, 0.0]), &tensors(&[0.0, 0.0]), Dtype::F64), Ok(()));
    }

    #[test]
    fn differences_do_not() {
        let ours = tensors(&[1.0, 2.0]);
        for theirs in [&[1.0, 2.001][..], &[1.0, f64::NAN], &[1.0], &[2.0, 1.0]] {
            assert!(check(&ours, &tensors(theirs), Dtype::F32).is_err(), "{theirs:?}");
        }
        assert!(check(&ours, &Tensors::default(), Dtype::F32).is_err());
        assert!(check(&ours, &tensors(&[1.0, 2.00001]), Dtype::F64).is_err());
    }
}
