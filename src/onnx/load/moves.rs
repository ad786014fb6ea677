//! Nodes that move the data of values whose axes are known.

use super::array::FEW;
use super::places::{FAR, Range, axis_of, dim_of, dims_of, integers_of, is_given, ranges, split_sizes, term_of};
use super::terms::{Arg, Atom, Attributes, Axis, Dim, Fault, MOST_AXES, Signal, Terms, Value, label, reshaped};
use crate::onnx::messages::Node;

impl Terms<'_> {
    /// Nodes that move the data of a value whose axes are known.
    pub(super) fn moved(
        &mut self,
        at: usize,
        node: &Node,
        inputs: &[Value],
        signal: &Signal,
        axes: &[Axis],
    ) -> Result<Option<Vec<Value>>, Fault> {
        let attributes = Attributes(node);
        let rank = axes.len();
        let chosen = || attributes.ints("axes").map(<[i64]>::to_vec).or_else(|| integers_of(inputs.get(1)));
        let places =
            |axes: &[i64], rank: usize| axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Option<Vec<_>>>();
        let moved: Option<Vec<Axis>> = match &node.op_type[..] {
            "Cast" => match attributes.int("to", 0) {
                1 | 10 | 11 | 16 => Some(axes.to_vec()),
                // Token ids.
                6 | 7 if self.terms[signal.term].operator == "x" => Some(axes.to_vec()),
                _ => None,
            },
            "Transpose" => match attributes.ints("perm") {
                Some(order) if order.len() == rank => {
                    places(order, rank).map(|order| order.iter().map(|&axis| axes[axis].clone()).collect())
                }
                None => Some(axes.iter().rev().cloned().collect()),
                Some(_) => None,
            },
            "Squeeze" => {
                let is_one = |axis: &Axis| axis.iter().all(|atom| atom.size() == Some(1));
                let gone = if is_given(inputs.get(1)) || attributes.get("axes").is_some() {
                    chosen().and_then(|chosen| places(&chosen, rank))
                } else {
                    Some((0..rank).filter(|&axis| is_one(&axes[axis])).collect())
                };
                gone.filter(|gone| gone.iter().all(|&axis| is_one(&axes[axis]))).map(|gone| {
                    axes.iter()
                        .enumerate()
                        .filter(|(axis, _)| !gone.contains(axis))
                        .map(|(_, axis)| axis.clone())
                        .collect()
                })
            }
            "Unsqueeze" => chosen().filter(|new| new.len() <= FEW).and_then(|new| {
                let rank = rank + new.len();
                let new = places(&new, rank)?;
                let mut old = axes.iter();
                (0..rank).map(|axis| if new.contains(&axis) { Some(Vec::new()) } else { old.next().cloned() }).collect()
            }),
            "Reshape" => {
                let keeps_zero = attributes.int("allowzero", 0) != 0;
                inputs.get(1).and_then(dims_of).and_then(|dims| reshaped(axes, &dims, keeps_zero))
            }
            "Flatten" => axis_of(attributes.int("axis", 1), rank + 1)
                .map(|axis| vec![axes[..axis].concat(), axes[axis..].concat()]),
            "Slice" => return self.sliced(at, node, inputs, signal, axes),
            "Gather" => return Ok(self.indexed(at, node, inputs, signal, axes)),
            "Split" => {
                let Some(axis) = axis_of(attributes.int("axis", 0), rank) else { return Ok(None) };
                let Dim::Known(size) = dim_of(&axes[axis]) else { return Ok(None) };
                let Some(sizes) = split_sizes(node, inputs, size as usize) else { return Ok(None) };
                let (mut start, mut outputs) = (0, Vec::new());
                for size in sizes {
                    let range = Range { axis, start: start as i64, end: (start + size) as i64, step: 1 };
                    let Some(part) = self.part(at, signal.term, axes, range) else { return Ok(None) };
                    outputs.push(Value::Signal(part));
                    start += size;
                }
                return Ok(Some(outputs));
            }
            "Concat" => return Ok(self.joined(at, node, inputs, axes)),
            "ReduceMean" | "ReduceMax" | "ReduceSum" | "ReduceMin" => {
                return Ok(self.reduced(at, node, inputs, signal, axes));
            }
            "Expand" => return Ok(self.expanded(at, inputs, signal, axes)),
            // Over the axis after the first two.
            "GlobalAveragePool" if rank == 3 => {
                let kept = vec![axes[0].clone(), axes[1].clone(), Vec::new()];
                let over = vec![("over".to_owned(), label(&axes[2]))];
                return Ok(Some(vec![self.signal(at, "ReduceMean", over, vec![Arg::Term(signal.term)], Some(kept))]));
            }
            _ => return Ok(None),
        };
        let Some(mut axes) = moved.filter(|axes| axes.len() <= MOST_AXES) else { return Ok(None) };
        let mut term = signal.term;
        // Directions next to features are features.
        for axis in &mut axes {
            if let [Atom::Parts(_), Atom::Features(size)] = axis[..]
                && self.terms[term].operator == "Stack"
            {
                let terms: Vec<_> = self.terms[term].args.iter().filter_map(term_of).collect();
                let Some(together) = self.together(at, "Concat", &terms, &vec![size; terms.len()]) else {
                    return Ok(None);
                };
                let total = size * terms.len();
                (term, *axis) = (together, vec![Atom::Features(total)]);
            }
        }
        Ok(Some(vec![Value::Signal(Signal { term, axes: Some(axes) })]))
    }

    pub(super) fn sliced(
        &mut self,
        at: usize,
        node: &Node,
        inputs: &[Value],
        signal: &Signal,
        axes: &[Axis],
    ) -> Result<Option<Vec<Value>>, Fault> {
        let Some(ranges) = ranges(node, inputs, axes.len()) else { return Ok(None) };
        let mut part = signal.clone();
        for range in ranges {
            let Some(axes) = part.axes.clone() else { return Ok(None) };
            let Some(next) = self.part(at, part.term, &axes, range) else { return Ok(None) };
            part = next;
        }
        Ok(Some(vec![Value::Signal(part)]))
    }

    /// Some of the indices along an axis.
    pub(super) fn part(&mut self, at: usize, term: usize, axes: &[Axis], range: Range) -> Option<Signal> {
        let mut axes = axes.to_vec();
        let axis = &mut axes[range.axis];
        let size = match dim_of(axis) {
            Dim::Known(size) => usize::try_from(size).ok(),
            Dim::Of(_) | Dim::Unknown => None,
        };
        let whole = match size {
            Some(size) => range.places(size) == Some((0, size)),
            None => range.start == 0 && range.end >= FAR,
        };
        if range.step != 1 {
            return None;
        }
        if whole {
            return Some(Signal { term, axes: Some(axes) });
        }
        let term = match (&axis[..], size) {
            ([Atom::Time(_)], size) => {
                let is_last = match size {
                    Some(size) => range.places(size) == Some((size - 1, size)),
                    None => range.start == -1 && range.end >= FAR,
                };
                let is_first = !is_last && range.start == 0 && range.end == 1;
                axis.clear();
                match (is_last, is_first) {
                    (true, _) => self.step(at, term, "last"),
                    (_, true) => self.step(at, term, "first"),
                    _ => return None,
                }
            }
            ([Atom::Parts(_)], Some(size)) => {
                let (start, end) = range.places(size).filter(|(start, end)| start < end)?;
                *axis = if end - start == 1 { Vec::new() } else { vec![Atom::Parts(end - start)] };
                self.some_of(at, term, "Stack", start, end)?
            }
            ([Atom::Features(_)], Some(size)) => {
                let (start, end) = range.places(size).filter(|(start, end)| start < end)?;
                *axis = vec![Atom::Features(end - start)];
                match self.some_of(at, term, "Concat", start, end) {
                    Some(part) => part,
                    None => {
                        let range = vec![("range".to_owned(), format!("{start}..{end}"))];
                        self.add(Some(at), "Slice".into(), range, vec![Arg::Term(term)])
                    }
                }
            }
            _ => return None,
        };
        Some(Signal { term, axes: Some(axes) })
    }

    /// The first or the last step of a sequence.
    pub(super) fn step(&mut self, at: usize, term: usize, which: &str) -> usize {
        self.add(Some(at), "Step".into(), vec![("at".into(), which.into())], vec![Arg::Term(term)])
    }

    /// The whole arguments of a joined term that cover `start..end`.
    pub(super) fn some_of(
        &mut self,
        at: usize,
        term: usize,
        operator: &str,
        start: usize,
        end: usize,
    ) -> Option<usize> {
        let whole = &self.terms[term];
        if whole.operator != operator {
            return None;
        }
        let (mut place, mut terms, mut sizes) = (0, Vec::new(), Vec::new());
        for (arg, &size) in whole.args.iter().zip(&whole.parts) {
            if place >= start && place + size <= end {
                terms.push(term_of(arg)?);
                sizes.push(size);
            }
            place += size;
        }
        (sizes.iter().sum::<usize>() == end - start).then(|| self.together(at, operator, &terms, &sizes))?
    }

    /// One index along an axis, which is removed.
    pub(super) fn indexed(
        &mut self,
        at: usize,
        node: &Node,
        inputs: &[Value],
        signal: &Signal,
        axes: &[Axis],
    ) -> Option<Vec<Value>> {
        let axis = axis_of(Attributes(node).int("axis", 0), axes.len())?;
        let Some(Value::Constant(indices)) = inputs.get(1) else { return None };
        let index = indices.integer(0).filter(|_| indices.count() == 1)?;
        let mut part = if axes[axis].is_empty() {
            matches!(index, 0 | -1).then(|| signal.clone())?
        } else {
            let end = if index == -1 { i64::MAX } else { index.checked_add(1)? };
            self.part(at, signal.term, axes, Range { axis, start: index, end, step: 1 })?
        };
        if indices.shape.is_empty() {
            part.axes.as_mut()?.remove(axis);
        }
        Some(vec![Value::Signal(part)])
    }

    /// `Concat`, along features or directions.
    pub(super) fn joined(&mut self, at: usize, node: &Node, inputs: &[Value], axes: &[Axis]) -> Option<Vec<Value>> {
        let axis = axis_of(Attributes(node).int("axis", 0), axes.len())?;
        let (mut terms, mut sizes) = (Vec::new(), Vec::new());
        let is_features = matches!(axes[axis][..], [Atom::Features(_)]);
        for input in inputs {
            let Value::Signal(Signal { term, axes: Some(other) }) = input else { return None };
            let same = |k: usize| k == axis || other[k] == axes[k];
            if other.len() != axes.len() || !(0..axes.len()).all(same) {
                return None;
            }
            sizes.push(match other[axis][..] {
                [Atom::Features(size)] if is_features => size,
                [Atom::Parts(size)] if !is_features && self.terms[*term].operator == "Stack" => size,
                [] if !is_features => 1,
                _ => return None,
            });
            terms.push(*term);
        }
        let term = self.together(at, if is_features { "Concat" } else { "Stack" }, &terms, &sizes)?;
        let total = sizes.iter().sum();
        let mut axes = axes.to_vec();
        axes[axis] = match (is_features, total) {
            (true, total) => vec![Atom::Features(total)],
            (false, 1) => Vec::new(),
            (false, total) => vec![Atom::Parts(total)],
        };
        Some(vec![Value::Signal(Signal { term, axes: Some(axes) })])
    }

    /// `ReduceMean` and similar operators.
    pub(super) fn reduced(
        &mut self,
        at: usize,
        node: &Node,
        inputs: &[Value],
        signal: &Signal,
        axes: &[Axis],
    ) -> Option<Vec<Value>> {
        let attributes = Attributes(node);
        let gone: Vec<_> = if is_given(inputs.get(1)) || attributes.get("axes").is_some() {
            let gone = attributes.ints("axes").map(<[i64]>::to_vec).or_else(|| integers_of(inputs.get(1)))?;
            gone.iter().map(|&axis| axis_of(axis, axes.len())).collect::<Option<_>>()?
        } else {
            (0..axes.len()).collect()
        };
        if gone.is_empty() {
            return None;
        }
        let over: Vec<_> = gone.iter().map(|&axis| label(&axes[axis])).collect();
        let keeps = attributes.int("keepdims", 1) != 0;
        let kept = axes.iter().enumerate().filter(|(axis, _)| keeps || !gone.contains(axis));
        let axes = kept.map(|(axis, atoms)| if gone.contains(&axis) { Vec::new() } else { atoms.clone() }).collect();
        let over = vec![("over".to_owned(), over.join(", "))];
        Some(vec![self.signal(at, &node.op_type, over, vec![Arg::Term(signal.term)], Some(axes))])
    }

    /// `Expand` along an axis of size 1, to steps.
    pub(super) fn expanded(
        &mut self,
        at: usize,
        inputs: &[Value],
        signal: &Signal,
        axes: &[Axis],
    ) -> Option<Vec<Value>> {
        let dims = inputs.get(1).and_then(dims_of)?;
        if dims.len() != axes.len() {
            return None;
        }
        let mut outcome = axes.to_vec();
        let mut sizes = Vec::new();
        for (axis, dim) in outcome.iter_mut().zip(&dims) {
            match dim {
                Dim::Known(1) => {}
                dim if *dim == dim_of(axis) => {}
                Dim::Known(size) if axis.is_empty() => {
                    sizes.push(("steps".to_owned(), size.to_string()));
                    *axis = vec![Atom::Time(usize::try_from(*size).ok())];
                }
                _ => return None,
            }
        }
        Some(vec![self.signal(at, "Expand", sizes, vec![Arg::Term(signal.term)], Some(outcome))])
    }
}
