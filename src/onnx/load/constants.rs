//! Nodes that move or join constants and shapes.

use std::rc::Rc;

use super::array::{Array, FEW, Kind};
use super::places::{axis_of, computed, integers_of, is_given, joined_shapes, ranges, shape_of, split_sizes, times};
use super::terms::{Attributes, Dim, Fault, Terms, Value};
use crate::onnx::messages::Node;

impl Terms<'_> {
    /// The outputs of a node that moves a constant.
    pub(super) fn of_constant(
        &mut self,
        node: &Node,
        array: &Rc<Array>,
        inputs: &[Value],
    ) -> Result<Option<Vec<Value>>, Fault> {
        let attributes = Attributes(node);
        let rank = array.shape.len();
        let axes = || attributes.ints("axes").map(<[i64]>::to_vec).or_else(|| integers_of(inputs.get(1)));
        let places =
            |axes: Vec<i64>, rank: usize| axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Option<Vec<_>>>();
        let moved = match &node.op_type[..] {
            "Identity" => Some((**array).clone()),
            "Transpose" => {
                let order = match attributes.ints("perm") {
                    Some(order) => places(order.to_vec(), rank),
                    None => Some((0..rank).rev().collect()),
                };
                let is_order = |order: &Vec<usize>| {
                    order.len() == rank && (0..rank).all(|axis| order.contains(&axis)) && rank <= FEW
                };
                match order.filter(|order| rank <= FEW && is_order(order)) {
                    Some(order) => Some(array.transposed(&order, self.budget)?),
                    None => None,
                }
            }
            "Squeeze" => {
                let gone = if is_given(inputs.get(1)) || attributes.get("axes").is_some() {
                    axes().and_then(|axes| places(axes, rank))
                } else {
                    Some((0..rank).filter(|&axis| array.shape[axis] == 1).collect())
                };
                gone.and_then(|gone| {
                    let kept = array.shape.iter().enumerate().filter(|(axis, _)| !gone.contains(axis));
                    array.reshaped(kept.map(|(_, &size)| size).collect())
                })
            }
            "Unsqueeze" => axes().and_then(|axes| {
                let rank = rank + axes.len();
                let new = places(axes, rank)?;
                let mut sizes = array.shape.iter();
                let shape = (0..rank).map(|axis| if new.contains(&axis) { Some(1) } else { sizes.next().copied() });
                array.reshaped(shape.collect::<Option<Vec<_>>>()?)
            }),
            "Reshape" | "Flatten" => {
                let sizes = if node.op_type == "Flatten" {
                    axis_of(attributes.int("axis", 1), rank + 1).map(|axis| {
                        let product = |sizes: &[usize]| sizes.iter().product::<usize>() as i64;
                        vec![product(&array.shape[..axis]), product(&array.shape[axis..])]
                    })
                } else {
                    integers_of(inputs.get(1))
                };
                sizes.and_then(|sizes| {
                    let mut shape = Vec::new();
                    for (k, &size) in sizes.iter().enumerate() {
                        shape.push(match size {
                            0 if attributes.int("allowzero", 0) == 0 => *array.shape.get(k)?,
                            -1 => usize::MAX,
                            size => usize::try_from(size).ok()?,
                        });
                    }
                    if let Some(open) = shape.iter().position(|&size| size == usize::MAX) {
                        let others = shape.iter().enumerate().filter(|&(k, _)| k != open);
                        let product = others.map(|(_, &size)| size).try_fold(1, usize::checked_mul)?;
                        shape[open] = array.count().checked_div(product)?;
                    }
                    array.reshaped(shape)
                })
            }
            "Slice" => match ranges(node, inputs, rank) {
                Some(ranges) => {
                    let mut part = (**array).clone();
                    for range in ranges {
                        let Some((start, end)) = range.places(part.shape[range.axis]) else { return Ok(None) };
                        self.budget.take(end.saturating_sub(start))?;
                        let places: Vec<_> = (start..end).step_by(range.step as usize).collect();
                        part = part.taken(range.axis, &places, self.budget)?;
                    }
                    Some(part)
                }
                None => None,
            },
            "Gather" => {
                let axis = axis_of(attributes.int("axis", 0), rank);
                match (axis, inputs.get(1), integers_of(inputs.get(1))) {
                    (Some(axis), Some(Value::Constant(indices)), Some(chosen)) => {
                        let Some(chosen) = places(chosen, array.shape[axis]) else { return Ok(None) };
                        let mut part = array.taken(axis, &chosen, self.budget)?;
                        part.shape.splice(axis..=axis, indices.shape.iter().copied());
                        Some(part).filter(|part| part.shape.len() <= FEW)
                    }
                    _ => None,
                }
            }
            "Split" => {
                let Some(axis) = axis_of(attributes.int("axis", 0), rank) else { return Ok(None) };
                let Some(sizes) = split_sizes(node, inputs, array.shape[axis]) else { return Ok(None) };
                let (mut start, mut outputs) = (0, Vec::new());
                for size in sizes {
                    let places: Vec<_> = (start..start + size).collect();
                    outputs.push(Value::Constant(Rc::new(array.taken(axis, &places, self.budget)?)));
                    start += size;
                }
                return Ok(Some(outputs));
            }
            "Concat" => {
                let parts: Option<Vec<_>> = inputs
                    .iter()
                    .map(|input| match input {
                        Value::Constant(array) => Some(array.clone()),
                        _ => None,
                    })
                    .collect();
                match (parts, axis_of(attributes.int("axis", 0), rank)) {
                    (Some(parts), Some(axis)) => Array::joined(&parts, axis, self.budget)?,
                    (None, Some(0)) => return Ok(joined_shapes(inputs)),
                    _ => None,
                }
            }
            "Cast" => {
                let kind = Kind::of(i32::try_from(attributes.int("to", 0)).unwrap_or(0));
                let is_integer = |kind| matches!(kind, Kind::Integer { .. });
                if is_integer(kind) && is_integer(array.kind) {
                    Some((**array).clone())
                } else {
                    return Ok(array.cast(kind, self.budget)?.map(|array| vec![Value::Constant(array)]));
                }
            }
            "Shape" => {
                let dims = array.shape.iter().map(|&size| Dim::Known(size as i64)).collect();
                return Ok(shape_of(node, dims));
            }
            "Add" | "Sub" | "Mul" | "Div" if array.integers().is_some() => return Ok(computed(node, inputs)),
            _ => None,
        };
        Ok(moved.map(|array| vec![Value::Constant(Rc::new(array))]))
    }

    /// The outputs of a node on sizes, some of which are not known.
    pub(super) fn of_shape(
        &mut self,
        node: &Node,
        dims: &[Dim],
        is_scalar: bool,
        inputs: &[Value],
    ) -> Result<Option<Vec<Value>>, Fault> {
        let one = |dims: Vec<Dim>, is_scalar| Ok(Some(vec![Value::Shape { dims, is_scalar }]));
        match &node.op_type[..] {
            "Identity" | "Cast" => one(dims.to_vec(), is_scalar),
            "Unsqueeze" if is_scalar => one(dims.to_vec(), false),
            "Squeeze" if dims.len() == 1 => one(dims.to_vec(), true),
            "Reshape" if !is_scalar || dims.len() == 1 => match integers_of(inputs.get(1)).as_deref() {
                Some([-1]) => one(dims.to_vec(), false),
                Some([size]) if *size == dims.len() as i64 => one(dims.to_vec(), false),
                Some([]) if dims.len() == 1 => one(dims.to_vec(), true),
                _ => Ok(None),
            },
            "Gather" => {
                let places = integers_of(inputs.get(1)).unwrap_or_default();
                let places: Option<Vec<_>> = places.iter().map(|&place| axis_of(place, dims.len())).collect();
                match (places, inputs.get(1)) {
                    (Some(places), Some(Value::Constant(indices))) if !places.is_empty() => {
                        one(places.iter().map(|&place| dims[place].clone()).collect(), indices.shape.is_empty())
                    }
                    _ => Ok(None),
                }
            }
            "Slice" => {
                let mut dims = dims.to_vec();
                for range in ranges(node, inputs, 1).unwrap_or_default() {
                    let Some((start, end)) = range.places(dims.len()) else { return Ok(None) };
                    dims =
                        dims.get(start..end).unwrap_or_default().iter().step_by(range.step as usize).cloned().collect();
                }
                one(dims, false)
            }
            "Concat" => Ok(joined_shapes(inputs)),
            "Add" | "Sub" | "Mul" | "Div" => Ok(computed(node, inputs)),
            // Over all of them.
            "ReduceProd" => {
                let product = dims.iter().try_fold(Dim::Known(1), |product, dim| match times(product, dim.clone()) {
                    Dim::Unknown => None,
                    product => Some(product),
                });
                match product {
                    Some(product) => one(vec![product], Attributes(node).int("keepdims", 1) == 0),
                    None => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }
}
