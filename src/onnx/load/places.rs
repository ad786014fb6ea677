//! Axes, sizes and ranges, as nodes give them.

use std::rc::Rc;

use super::array::{Array, FEW};
use super::terms::{Arg, Attributes, Axis, Dim, Value};
use crate::onnx::messages::Node;

/// The farthest bound of a slice.
pub(super) const FAR: i64 = i32::MAX as i64;

/// An axis, counted from the end if it is negative.
pub(super) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

pub(super) fn dim_of(axis: &Axis) -> Dim {
    let product = axis.iter().try_fold(1_usize, |product, atom| product.checked_mul(atom.size()?));
    match product.and_then(|product| i64::try_from(product).ok()) {
        Some(product) => Dim::Known(product),
        None => Dim::Of(axis.clone()),
    }
}

/// The elements of a shape, or of a few integers.
pub(super) fn dims_of(value: &Value) -> Option<Vec<Dim>> {
    match value {
        Value::Shape { dims, .. } => Some(dims.clone()),
        Value::Constant(array) => Some(array.integers()?.into_iter().map(Dim::Known).collect()),
        Value::Signal(_) | Value::Absent => None,
    }
}

/// The integers of a value, if all are known.
pub(super) fn integers_of(value: Option<&Value>) -> Option<Vec<i64>> {
    dims_of(value?)?.into_iter().map(|dim| if let Dim::Known(value) = dim { Some(value) } else { None }).collect()
}

pub(super) fn is_given(value: Option<&Value>) -> bool {
    !matches!(value, None | Some(Value::Absent))
}

/// `start..end` along an axis, every `step`th index.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub axis: usize,
    pub start: i64,
    pub end: i64,
    pub step: i64,
}

impl Range {
    /// The bounds of the range along an axis of `size`; `None` for steps backwards.
    pub(super) fn places(self, size: usize) -> Option<(usize, usize)> {
        let bound = |at: i64| (if at < 0 { at.saturating_add(size as i64) } else { at }).clamp(0, size as i64) as usize;
        (self.step >= 1).then(|| (bound(self.start), bound(self.end)))
    }
}

pub(super) fn term_of(arg: &Arg) -> Option<usize> {
    if let Arg::Term(term) = arg { Some(*term) } else { None }
}

/// A constant without the leading axes of size 1; a single number without axes.
pub(super) fn squeezed(array: &Rc<Array>) -> Rc<Array> {
    let shape = if array.count() == 1 {
        Vec::new()
    } else {
        array.shape.iter().copied().skip_while(|&size| size == 1).collect()
    };
    if shape == array.shape { array.clone() } else { Rc::new(Array { shape, ..(**array).clone() }) }
}

/// A shape, or a range of its elements.
pub(super) fn shape_of(node: &Node, dims: Vec<Dim>) -> Option<Vec<Value>> {
    let attributes = Attributes(node);
    let end = attributes.get("end").and_then(|end| end.i).unwrap_or(i64::MAX);
    let range = Range { axis: 0, start: attributes.int("start", 0), end, step: 1 };
    let (start, end) = range.places(dims.len())?;
    Some(vec![Value::Shape { dims: dims.get(start..end).unwrap_or_default().to_vec(), is_scalar: false }])
}

/// Shapes one after another.
pub(super) fn joined_shapes(inputs: &[Value]) -> Option<Vec<Value>> {
    let mut dims = Vec::new();
    for input in inputs {
        dims.extend(dims_of(input)?);
        if dims.len() > FEW {
            return None;
        }
    }
    Some(vec![Value::Shape { dims, is_scalar: false }])
}

pub(super) fn times(a: Dim, b: Dim) -> Dim {
    match (a, b) {
        (Dim::Known(a), Dim::Known(b)) => a.checked_mul(b).map_or(Dim::Unknown, Dim::Known),
        (Dim::Of(of), Dim::Known(1)) | (Dim::Known(1), Dim::Of(of)) => Dim::Of(of),
        (Dim::Of(a), Dim::Of(b)) if a.len() + b.len() <= 8 => Dim::Of([a, b].concat()),
        _ => Dim::Unknown,
    }
}

/// Arithmetic of sizes.
pub(super) fn computed(node: &Node, inputs: &[Value]) -> Option<Vec<Value>> {
    let [a, b] = inputs else { return None };
    let is_scalar = |value: &Value| match value {
        Value::Shape { is_scalar, .. } => *is_scalar,
        Value::Constant(array) => array.shape.is_empty(),
        Value::Signal(_) | Value::Absent => false,
    };
    let both_scalar = is_scalar(a) && is_scalar(b);
    let (a, b) = (dims_of(a)?, dims_of(b)?);
    let length = a.len().max(b.len());
    if !(a.len() == length || a.len() == 1) || !(b.len() == length || b.len() == 1) {
        return None;
    }
    let at = |dims: &[Dim], k: usize| dims[if dims.len() == 1 { 0 } else { k }].clone();
    let dims = (0..length).map(|k| match (&node.op_type[..], at(&a, k), at(&b, k)) {
        ("Add", Dim::Known(a), Dim::Known(b)) => a.checked_add(b).map_or(Dim::Unknown, Dim::Known),
        ("Sub", Dim::Known(a), Dim::Known(b)) => a.checked_sub(b).map_or(Dim::Unknown, Dim::Known),
        ("Div", Dim::Known(a), Dim::Known(b)) => a.checked_div(b).map_or(Dim::Unknown, Dim::Known),
        ("Div", Dim::Of(a), Dim::Known(1)) => Dim::Of(a),
        ("Mul", a, b) => times(a, b),
        _ => Dim::Unknown,
    });
    Some(vec![Value::Shape { dims: dims.collect(), is_scalar: both_scalar }])
}

/// The ranges of a `Slice`; the sizes of the axes need not be known.
pub(super) fn ranges(node: &Node, inputs: &[Value], rank: usize) -> Option<Vec<Range>> {
    let attributes = Attributes(node);
    let list = |name: &str, k: usize| match attributes.ints(name) {
        Some(list) => Some(list.to_vec()),
        None => integers_of(inputs.get(k)),
    };
    let (starts, ends) = (list("starts", 1)?, list("ends", 2)?);
    let has_axes = is_given(inputs.get(3)) || attributes.get("axes").is_some();
    let axes = if has_axes { list("axes", 3)? } else { (0..starts.len() as i64).collect() };
    let steps = if is_given(inputs.get(4)) { list("steps", 4)? } else { vec![1; starts.len()] };
    if starts.len() > FEW || ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return None;
    }
    let mut ranges = Vec::new();
    for k in 0..starts.len() {
        ranges.push(Range { axis: axis_of(axes[k], rank)?, start: starts[k], end: ends[k], step: steps[k] });
    }
    ranges.iter().all(|range| range.step >= 1).then_some(ranges)
}

/// The sizes of the outputs of a `Split`.
pub(super) fn split_sizes(node: &Node, inputs: &[Value], size: usize) -> Option<Vec<usize>> {
    let given = Attributes(node).ints("split").map(<[i64]>::to_vec).or_else(|| integers_of(inputs.get(1)));
    let count = node.output.len();
    let sizes: Vec<_> = match given {
        Some(given) => given.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<_>>()?,
        None if count > 0 => {
            let each = size.div_ceil(count);
            (0..count).map(|k| each.min(size.saturating_sub(k * each))).collect()
        }
        None => return None,
    };
    let total = sizes.iter().try_fold(0, |total: usize, &size| total.checked_add(size));
    (sizes.len() == count && total == Some(size)).then_some(sizes)
}
