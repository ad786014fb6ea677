//! Constant tensors of a file, and those that its nodes compute from them.

use std::rc::Rc;

use prost::bytes::Bytes;

use crate::base::half;
use crate::base::tensors::elements_of;
use crate::onnx::messages::{Elements, Tensor};

/// The elements of an [`Array`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    F16,
    Bf16,
    F32,
    F64,
    /// An integer of `size` bytes, with or without a sign.
    Integer {
        size: usize,
        signed: bool,
    },
    /// Another type, by its number in `onnx.proto`; it is not read.
    Other(i32),
}

impl Kind {
    pub fn of(number: i32) -> Kind {
        let integer = |size, signed| Kind::Integer { size, signed };
        match number {
            1 => Kind::F32,
            2 => integer(1, false),
            3 => integer(1, true),
            4 => integer(2, false),
            5 => integer(2, true),
            6 => integer(4, true),
            7 => integer(8, true),
            10 => Kind::F16,
            11 => Kind::F64,
            12 => integer(4, false),
            13 => integer(8, false),
            16 => Kind::Bf16,
            other => Kind::Other(other),
        }
    }

    /// The size in bytes; that of [`Other`](Kind::Other) is not known.
    pub fn size(self) -> usize {
        match self {
            Kind::F16 | Kind::Bf16 => 2,
            Kind::F32 => 4,
            Kind::F64 => 8,
            Kind::Integer { size, .. } => size,
            Kind::Other(_) => 1,
        }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Kind::F16 | Kind::Bf16 | Kind::F32 | Kind::F64)
    }

    /// The name, as safetensors spells it.
    pub fn name(self) -> String {
        match self {
            Kind::F16 => "F16".into(),
            Kind::Bf16 => "BF16".into(),
            Kind::F32 => "F32".into(),
            Kind::F64 => "F64".into(),
            Kind::Integer { size, signed } => format!("{}{}", if signed { "I" } else { "U" }, 8 * size),
            Kind::Other(number) => format!("ONNX's element type {number}"),
        }
    }
}

/// A constant: elements, little-endian and row-major.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub kind: Kind,
    pub bytes: Bytes,
    /// The value in the file that it is or was computed from.
    pub name: Rc<str>,
}

/// The memory that constant folding may still take, so that a small file cannot ask for a lot.
#[derive(Debug)]
pub struct Budget {
    pub left: usize,
}

/// More than the [`Budget`] allows.
#[derive(Debug)]
pub struct TooMuch;

impl Budget {
    pub fn take(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.left = self.left.checked_sub(bytes).ok_or(TooMuch)?;
        Ok(())
    }
}

impl Array {
    /// A tensor of the file; `external` reads its values if they are elsewhere.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn of_tensor(
        tensor: &Tensor,
        external: &mut dyn FnMut(&Tensor, usize) -> Result<Bytes, String>,
    ) -> Result<Array, String> {
        let kind = Kind::of(tensor.data_type);
        if tensor.dims.len() > FEW {
            return Err(format!("expected at most {FEW} axes, got {}", tensor.dims.len()));
        }
        let shape: Option<Vec<_>> = tensor.dims.iter().map(|&size| usize::try_from(size).ok()).collect();
        let count = shape.as_deref().and_then(|shape| Some((shape.to_vec(), elements_of(shape)?)));
        let Some((shape, count)) = count else { return Err(format!("there is no array of shape {:?}", tensor.dims)) };
        let name = Rc::from(&tensor.name[..]);
        if let Kind::Other(_) = kind {
            return Ok(Array { shape, kind, bytes: Bytes::new(), name });
        }
        let size = count.checked_mul(kind.size()).ok_or("it is too large for this machine")?;
        let given = |fits: bool, got: usize| match fits {
            true => Ok(()),
            false => Err(format!("expected {count} values for {shape:?}, got {got}")),
        };
        let bytes = if tensor.data_location == 1 {
            external(tensor, size)?
        } else if !tensor.raw_data.is_empty() || size == 0 {
            tensor.raw_data.clone()
        } else {
            match kind {
                Kind::F32 => tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
                Kind::F64 => tensor.double_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
                Kind::Integer { size: 8, signed: true } => {
                    tensor.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect()
                }
                Kind::Integer { size: 4 | 8, signed: false } => {
                    return Err(format!("elements of type {} in uint64_data are not supported", kind.name()));
                }
                // Narrow integers, and the bits of 16-bit floats.
                _ => {
                    let element = |value: &i32| value.to_le_bytes().into_iter().take(kind.size());
                    tensor.int32_data.iter().flat_map(element).collect()
                }
            }
        };
        given(bytes.len() == size, bytes.len() / kind.size())?;
        Ok(Array { shape, kind, bytes, name })
    }

    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Element `i` of integers.
    pub fn integer(&self, i: usize) -> Option<i64> {
        let Kind::Integer { size, signed } = self.kind else { return None };
        let element = self.bytes.get(i * size..(i + 1) * size)?;
        let negative = signed && element[size - 1] >= 0x80;
        let mut bits = [if negative { 0xff } else { 0 }; 8];
        bits[..size].copy_from_slice(element);
        Some(i64::from_le_bytes(bits))
    }

    /// All elements, if they are a few integers, as in shapes and axes.
    pub fn integers(&self) -> Option<Vec<i64>> {
        (self.count() <= FEW).then(|| (0..self.count()).map(|i| self.integer(i)).collect())?
    }

    /// The bits of element `i`, of numbers.
    pub fn bits(&self, i: usize) -> u64 {
        let size = self.kind.size();
        let mut bits = [0; 8];
        bits[..size].copy_from_slice(&self.bytes[i * size..(i + 1) * size]);
        u64::from_le_bytes(bits)
    }

    /// Element `i` of floats, exactly, or of integers.
    pub fn number(&self, i: usize) -> f64 {
        match self.kind {
            Kind::Integer { .. } => self.integer(i).map_or(f64::NAN, |value| value as f64),
            kind => widened(kind, self.bits(i)),
        }
    }

    pub fn is_zero(&self) -> bool {
        (0..self.count()).all(|i| self.number(i) == 0.0)
    }

    /// The same elements in another shape.
    pub fn reshaped(&self, shape: Vec<usize>) -> Option<Array> {
        (shape.len() <= FEW && elements_of(&shape) == Some(self.count())).then(|| Array { shape, ..self.clone() })
    }

    /// A new array of picked elements: along its axis `k`, `offsets[k]` is what each index adds to an element's place.
    fn picked(&self, offsets: &[Vec<usize>], budget: &mut Budget) -> Result<Array, TooMuch> {
        let shape: Vec<_> = offsets.iter().map(Vec::len).collect();
        let size = self.kind.size();
        let count = elements_of(&shape).and_then(|count| count.checked_mul(size)).ok_or(TooMuch)?;
        budget.take(count)?;
        let mut bytes = Vec::with_capacity(count);
        let (last, outer) = match offsets.split_last() {
            Some((last, outer)) => (&last[..], outer),
            None => (&[0][..], &[][..]),
        };
        let rows = if count == 0 { 0 } else { outer.iter().map(Vec::len).product() };
        let mut index = vec![0; outer.len()];
        for _ in 0..rows {
            let start: usize = index.iter().zip(outer).map(|(&i, offsets)| offsets[i]).sum();
            for offset in last {
                let at = (start + offset) * size;
                bytes.extend_from_slice(&self.bytes[at..at + size]);
            }
            for (i, offsets) in index.iter_mut().zip(outer).rev() {
                *i += 1;
                if *i < offsets.len() {
                    break;
                }
                *i = 0;
            }
        }
        Ok(Array { shape, bytes: bytes.into(), ..self.clone() })
    }

    /// The offset that each index along each axis adds to an element's place.
    fn offsets(&self) -> Vec<Vec<usize>> {
        let mut stride = 1;
        let mut offsets: Vec<Vec<_>> = Vec::new();
        for &size in self.shape.iter().rev() {
            offsets.push((0..size).map(|i| i * stride).collect());
            stride *= size.max(1);
        }
        offsets.reverse();
        offsets
    }

    pub fn transposed(&self, order: &[usize], budget: &mut Budget) -> Result<Array, TooMuch> {
        budget.take(self.shape.iter().sum::<usize>().saturating_mul(8))?;
        let offsets = self.offsets();
        let offsets: Vec<_> = order.iter().map(|&axis| offsets[axis].clone()).collect();
        self.picked(&offsets, budget)
    }

    /// The elements at the given indices along one axis.
    pub fn taken(&self, axis: usize, places: &[usize], budget: &mut Budget) -> Result<Array, TooMuch> {
        // A contiguous part of the outermost axis is a contiguous part of the bytes.
        if axis == 0 && places.windows(2).all(|pair| pair[1] == pair[0] + 1) && !places.is_empty() {
            let row = self.bytes.len() / self.shape[0];
            let mut shape = self.shape.clone();
            shape[0] = places.len();
            let bytes = self.bytes.slice(places[0] * row..(places[0] + places.len()) * row);
            return Ok(Array { shape, bytes, ..self.clone() });
        }
        budget.take(self.shape.iter().sum::<usize>().saturating_mul(8))?;
        let mut offsets = self.offsets();
        offsets[axis] = places.iter().map(|&place| offsets[axis][place]).collect();
        self.picked(&offsets, budget)
    }

    /// Several arrays of one kind, one after another along an axis; `None` if they do not fit.
    pub fn joined(parts: &[Rc<Array>], axis: usize, budget: &mut Budget) -> Result<Option<Array>, TooMuch> {
        let Some(first) = parts.first() else { return Ok(None) };
        let fits = |part: &Rc<Array>| {
            let same = |k: usize| k == axis || part.shape[k] == first.shape[k];
            part.kind == first.kind && part.shape.len() == first.shape.len() && (0..first.shape.len()).all(same)
        };
        if axis >= first.shape.len() || !parts.iter().all(fits) {
            return Ok(None);
        }
        // Parts without elements may have any sizes.
        let sum = parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(part.shape[axis]));
        let mut shape = first.shape.clone();
        match sum {
            Some(sum) => shape[axis] = sum,
            None => return Ok(None),
        }
        if elements_of(&shape).is_none() {
            return Ok(None);
        }
        budget.take(parts.iter().map(|part| part.bytes.len()).sum())?;
        let outer: usize = shape[..axis].iter().product();
        let mut bytes = Vec::new();
        for row in 0..outer {
            for part in parts {
                let length = part.bytes.len() / outer;
                bytes.extend_from_slice(&part.bytes[row * length..(row + 1) * length]);
            }
        }
        Ok(Some(Array { shape, bytes: bytes.into(), ..(**first).clone() }))
    }

    /// Floats of another kind, rounded to the nearest.
    pub fn cast(self: &Rc<Array>, kind: Kind, budget: &mut Budget) -> Result<Option<Rc<Array>>, TooMuch> {
        if kind == self.kind {
            return Ok(Some(self.clone()));
        }
        if !matches!(kind, Kind::F32 | Kind::F64) || !self.kind.is_float() {
            return Ok(None);
        }
        budget.take(self.count().saturating_mul(kind.size()))?;
        let mut bytes = Vec::with_capacity(self.count() * kind.size());
        for i in 0..self.count() {
            match kind {
                Kind::F32 => bytes.extend((self.number(i) as f32).to_le_bytes()),
                _ => bytes.extend(self.number(i).to_le_bytes()),
            }
        }
        Ok(Some(Rc::new(Array { kind, bytes: bytes.into(), ..(**self).clone() })))
    }
}

/// The maximum number of elements of a shape or a list of axes.
pub const FEW: usize = 64;

/// The value of a float from its bits.
fn widened(kind: Kind, bits: u64) -> f64 {
    match kind {
        Kind::F32 => f64::from(f32::from_bits(bits as u32)),
        Kind::F64 => f64::from_bits(bits),
        Kind::Bf16 => half::from_bf16(bits as u16).into(),
        Kind::F16 => half::from_f16(bits as u16).into(),
        Kind::Integer { .. } | Kind::Other(_) => f64::NAN,
    }
}

/// The kind of a model's own elements.
pub fn own_kind(size: usize) -> Kind {
    if size == 4 { Kind::F32 } else { Kind::F64 }
}

/// The number of a model's own elements.
pub fn own_elements(size: usize) -> Elements {
    if size == 4 { Elements::Float } else { Elements::Double }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(shape: &[usize]) -> Array {
        let count = shape.iter().product::<usize>();
        let bytes: Vec<_> = (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect();
        Array { shape: shape.to_vec(), kind: Kind::F32, bytes: bytes.into(), name: "a".into() }
    }

    fn numbers(array: &Array) -> Vec<f64> {
        (0..array.count()).map(|i| array.number(i)).collect()
    }

    #[test]
    fn parts_of_arrays_are_where_they_belong() {
        let mut budget = Budget { left: 10_000 };
        let a = array(&[2, 3]);
        assert_eq!(numbers(&a.transposed(&[1, 0], &mut budget).unwrap()), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(numbers(&a.taken(1, &[2, 0], &mut budget).unwrap()), [2.0, 0.0, 5.0, 3.0]);
        assert_eq!(numbers(&a.taken(0, &[1], &mut budget).unwrap()), [3.0, 4.0, 5.0]);
        let b = Rc::new(array(&[2, 1]));
        let joined = Array::joined(&[Rc::new(a), b.clone()], 1, &mut budget).unwrap().unwrap();
        assert_eq!(
            (&joined.shape[..], &numbers(&joined)[..]),
            (&[2, 4][..], &[0.0, 1.0, 2.0, 0.0, 3.0, 4.0, 5.0, 1.0][..])
        );
        assert!(Array::joined(&[Rc::new(joined), b], 0, &mut budget).unwrap().is_none());
        assert!(array(&[100]).taken(0, &[3, 1], &mut Budget { left: 10 }).is_err());
    }

    #[test]
    fn halves_are_widened_exactly() {
        let cases = [
            (Kind::F16, 0x3c00, 1.0),
            (Kind::F16, 0xc248, -3.140625),
            (Kind::F16, 0x0001, 5.960464477539063e-8),
            (Kind::F16, 0x03ff, 6.097555160522461e-5),
            (Kind::F16, 0x7bff, 65504.0),
            (Kind::F16, 0xfc00, f64::NEG_INFINITY),
            (Kind::F16, 0x8000, -0.0),
            (Kind::Bf16, 0x3f80, 1.0),
            (Kind::Bf16, 0xc049, -3.140625),
        ];
        for (kind, bits, value) in cases {
            assert_eq!(widened(kind, bits).to_bits(), f64::to_bits(value), "{bits:#x}");
        }
        assert!(widened(Kind::F16, 0x7c01).is_nan());
    }
}
