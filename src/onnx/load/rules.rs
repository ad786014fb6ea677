//! The outputs of each operator: [`Terms::apply`].

use std::rc::Rc;

use super::array::{Array, FEW};
use super::places::{dim_of, dims_of, shape_of, squeezed};
use super::terms::{
    Arg, Atom, Attributes, Axis, Fault, MOST_AXES, Signal, Terms, Value, arg_of, broadcast, is_standard, label,
};
use crate::onnx::messages::Node;

/// Operators on each element on its own.
const ELEMENTWISE: [&str; 23] = [
    "Tanh",
    "Sigmoid",
    "Relu",
    "LeakyRelu",
    "Erf",
    "Gelu",
    "Elu",
    "Selu",
    "Softplus",
    "Softsign",
    "HardSigmoid",
    "HardSwish",
    "ThresholdedRelu",
    "Clip",
    "Sqrt",
    "Exp",
    "Log",
    "Neg",
    "Abs",
    "Reciprocal",
    "Not",
    "PRelu",
    "Cast",
];

/// Operators on the elements of two or three values, with broadcasting.
const BROADCAST: [&str; 14] =
    ["Add", "Mul", "Sub", "Div", "Pow", "Max", "Min", "Where", "Less", "Greater", "Equal", "And", "Or", "LessOrEqual"];

impl Terms<'_> {
    /// The outputs of a node.
    pub(super) fn apply(&mut self, at: usize, node: &Node, inputs: &[Value]) -> Result<Vec<Value>, Fault> {
        if is_standard(node) && node.output.len() <= FEW && inputs.len() <= 16 * FEW {
            let outputs = match inputs.first() {
                Some(Value::Constant(array)) if !inputs[1..].iter().any(|input| matches!(input, Value::Signal(_))) => {
                    self.of_constant(node, &array.clone(), inputs)?
                }
                Some(Value::Shape { dims, is_scalar }) => self.of_shape(node, &dims.clone(), *is_scalar, inputs)?,
                _ => None,
            };
            let outputs = match outputs {
                None => self.of_signals(at, node, inputs)?,
                outputs => outputs,
            };
            if let Some(outputs) = outputs {
                return Ok(outputs);
            }
        }
        let axes = self.axes_as_written(node, inputs);
        Ok(self.as_written(at, node, inputs, axes)?)
    }

    /// The axes of the first output of a node that is kept as it is written.
    pub(super) fn axes_as_written(&self, node: &Node, inputs: &[Value]) -> Option<Vec<Axis>> {
        let axes = |value: &Value| match value {
            Value::Signal(signal) => signal.axes.clone(),
            // A constant changes no axes, as long as the other values have as many.
            Value::Constant(_) | Value::Shape { .. } | Value::Absent => Some(Vec::new()),
        };
        let operator = &node.op_type[..];
        if ELEMENTWISE.contains(&operator) {
            return axes(inputs.first()?);
        }
        if BROADCAST.contains(&operator) {
            return inputs.iter().map(axes).try_fold(Vec::new(), |all, axes| broadcast(&all, &axes?));
        }
        None
    }

    /// The outputs of a node that depends on the inputs of the graph.
    pub(super) fn of_signals(&mut self, at: usize, node: &Node, inputs: &[Value]) -> Result<Option<Vec<Value>>, Fault> {
        let attributes = Attributes(node);
        let first = match inputs.first() {
            Some(Value::Signal(signal)) => Some(signal.clone()),
            _ => None,
        };
        if let Some(signal) = &first
            && let Some(axes) = &signal.axes
            && let Some(outputs) = self.moved(at, node, inputs, signal, axes)?
        {
            return Ok(Some(outputs));
        }
        let output = match (&node.op_type[..], first) {
            ("RNN" | "LSTM" | "GRU", Some(x)) => return self.recurrent(at, node, inputs, &x).map(Some),
            ("Identity" | "Dropout", Some(signal)) if !is_training(inputs) => Some(Value::Signal(signal)),
            ("Shape", Some(Signal { axes: Some(axes), .. })) => {
                return Ok(shape_of(node, axes.iter().map(dim_of).collect()));
            }
            ("ConstantOfShape", _) => {
                let value = attributes.get("value").and_then(|value| value.t.as_ref());
                let zero = value.is_none_or(|tensor| {
                    Array::of_tensor(tensor, &mut |_, _| Err(String::new()))
                        .is_ok_and(|array| array.kind.is_float() && array.count() == 1 && array.is_zero())
                });
                let value =
                    self.signal(at, "ConstantOfShape", vec![("zero".into(), zero.to_string())], Vec::new(), None);
                if let Value::Signal(signal) = &value {
                    self.terms[signal.term].is_zero = zero;
                }
                Some(value)
            }
            ("Expand", None) => match (inputs.first(), inputs.get(1).and_then(dims_of)) {
                (Some(Value::Constant(array)), Some(dims)) if dims.len() <= FEW && array.kind.is_float() => {
                    self.budget.take(array.count())?;
                    let is_zero = array.is_zero();
                    let value = self.signal(at, "Expand", Vec::new(), vec![Arg::Constant(squeezed(array))], None);
                    if let Value::Signal(signal) = &value {
                        self.terms[signal.term].is_zero = is_zero;
                    }
                    Some(value)
                }
                _ => None,
            },
            ("Gather", None) => match (inputs.first(), inputs.get(1)) {
                (Some(Value::Constant(table)), Some(Value::Signal(ids)))
                    if table.shape.len() == 2 && attributes.int("axis", 0) == 0 =>
                {
                    let mut axes = ids.axes.clone().filter(|axes| axes.len() < MOST_AXES);
                    if let Some(axes) = &mut axes {
                        axes.push(vec![Atom::Features(table.shape[1])]);
                    }
                    self.budget.take(table.shape[0].saturating_mul(16))?;
                    let ids = self.ids_of(ids.term, table.shape[0]).unwrap_or(ids.term);
                    let args = vec![Arg::Constant(table.clone()), Arg::Term(ids)];
                    Some(self.signal(at, "Gather", Vec::new(), args, axes))
                }
                _ => None,
            },
            ("MatMul", Some(x)) => match inputs.get(1) {
                Some(Value::Constant(weight)) if weight.shape.len() == 2 => Some(self.product(at, &x, weight)),
                _ => None,
            },
            ("Gemm", Some(x)) => self.gemm(at, node, inputs, &x)?,
            ("LayerNormalization", Some(x)) => self.layer_norm(at, node, inputs, &x),
            ("Add" | "Mul", _) => self.commuted(at, node, inputs),
            ("Sub" | "Div", _) => self.ordered(at, node, inputs),
            ("Gelu", Some(x)) => {
                let approximate = attributes.text("approximate", "none");
                let approximate = Some(("approximate".to_owned(), approximate)).filter(|(_, value)| value != "none");
                Some(self.signal(at, "Gelu", approximate.into_iter().collect(), vec![Arg::Term(x.term)], x.axes))
            }
            ("Swish", Some(x)) if attributes.float("alpha", 1.0) == 1.0 => {
                let sigmoid = self.add(Some(at), "Sigmoid".into(), Vec::new(), vec![Arg::Term(x.term)]);
                Some(self.sum(at, "Mul", [x.term, sigmoid], x.axes))
            }
            ("LeakyRelu" | "Elu" | "ThresholdedRelu" | "HardSigmoid", Some(x)) => {
                let defaults: &[_] = match &node.op_type[..] {
                    "LeakyRelu" => &[("alpha", 0.01)],
                    "HardSigmoid" => &[("alpha", 0.2), ("beta", 0.5)],
                    _ => &[("alpha", 1.0)],
                };
                let shown = |&(name, default): &(&str, f32)| {
                    (name.to_owned(), format!("{:?}", attributes.float(name, default)))
                };
                let numbers = defaults.iter().map(shown).collect();
                Some(self.signal(at, &node.op_type, numbers, vec![Arg::Term(x.term)], x.axes))
            }
            _ => None,
        };
        Ok(output.map(|output| vec![output]))
    }

    /// x W
    pub(super) fn product(&mut self, at: usize, x: &Signal, weight: &Rc<Array>) -> Value {
        let axes = x.axes.clone().map(|mut axes| {
            if let Some(last) = axes.last_mut() {
                *last = vec![Atom::Features(weight.shape[1])];
            }
            axes
        });
        let args = vec![Arg::Term(x.term), Arg::Constant(weight.clone())];
        self.signal(at, "MatMul", along(x).into_iter().collect(), args, axes)
    }

    pub(super) fn gemm(
        &mut self,
        at: usize,
        node: &Node,
        inputs: &[Value],
        x: &Signal,
    ) -> Result<Option<Value>, Fault> {
        let attributes = Attributes(node);
        let plain = attributes.float("alpha", 1.0) == 1.0
            && attributes.float("beta", 1.0) == 1.0
            && attributes.int("transA", 0) == 0;
        let Some(Value::Constant(weight)) = inputs.get(1).filter(|_| plain) else { return Ok(None) };
        if weight.shape.len() != 2 {
            return Ok(None);
        }
        let weight = match attributes.int("transB", 0) {
            0 => weight.clone(),
            _ => Rc::new(weight.transposed(&[1, 0], self.budget)?),
        };
        let product = self.product(at, x, &weight);
        Ok(match (inputs.get(2), &product) {
            (None | Some(Value::Absent), _) => Some(product),
            (Some(Value::Constant(bias)), Value::Signal(product)) => {
                Some(self.with_constant(at, "Add", product, bias, false))
            }
            _ => None,
        })
    }

    pub(super) fn layer_norm(&mut self, at: usize, node: &Node, inputs: &[Value], x: &Signal) -> Option<Value> {
        let attributes = Attributes(node);
        let axis = attributes.int("axis", -1);
        let is_last = axis == -1 || x.axes.as_ref().is_some_and(|axes| axis == axes.len() as i64 - 1);
        let args: Vec<_> = inputs.iter().map(arg_of).collect();
        let epsilon = format!("{:?}", attributes.float("epsilon", 1e-5));
        let attributes = [("epsilon".to_owned(), epsilon)].into_iter().chain(along(x)).collect();
        (is_last && node.output.len() == 1)
            .then(|| self.signal(at, "LayerNormalization", attributes, args, x.axes.clone()))
    }

    /// `Add` and `Mul`: two terms in a fixed order, or a term and a constant with the constant last.
    pub(super) fn commuted(&mut self, at: usize, node: &Node, inputs: &[Value]) -> Option<Value> {
        match inputs {
            [Value::Signal(a), Value::Signal(b)] => {
                let axes = a.axes.as_ref().zip(b.axes.as_ref()).and_then(|(a, b)| broadcast(a, b));
                Some(self.sum(at, &node.op_type, [a.term, b.term], axes))
            }
            [Value::Signal(x), Value::Constant(constant)] | [Value::Constant(constant), Value::Signal(x)] => {
                let value = self.with_constant(at, &node.op_type, x, constant, false);
                Some(self.recognised(at, value))
            }
            _ => None,
        }
    }

    /// `Add` or `Mul` of two terms.
    pub(super) fn sum(&mut self, at: usize, operator: &str, mut pair: [usize; 2], axes: Option<Vec<Axis>>) -> Value {
        pair.sort_by_key(|&term| self.terms[term].print);
        let value = self.signal(at, operator, Vec::new(), pair.map(Arg::Term).to_vec(), axes);
        self.recognised(at, value)
    }

    /// `Sub` and `Div`.
    pub(super) fn ordered(&mut self, at: usize, node: &Node, inputs: &[Value]) -> Option<Value> {
        match inputs {
            [Value::Signal(x), Value::Constant(constant)] => {
                Some(self.with_constant(at, &node.op_type, x, constant, false))
            }
            [Value::Constant(constant), Value::Signal(x)] => {
                Some(self.with_constant(at, &node.op_type, x, constant, true))
            }
            _ => None,
        }
    }

    pub(super) fn with_constant(
        &mut self,
        at: usize,
        operator: &str,
        x: &Signal,
        constant: &Rc<Array>,
        is_first: bool,
    ) -> Value {
        let axes = x.axes.clone().filter(|axes| axes.len() >= constant.shape.len());
        let constant = squeezed(constant);
        let along = along(x).filter(|_| !constant.shape.is_empty());
        let mut args = vec![Arg::Term(x.term), Arg::Constant(constant)];
        if is_first {
            args.reverse();
        }
        self.signal(at, operator, along.into_iter().collect(), args, axes)
    }
}

/// The last axis, if it is not that of the features.
fn along(x: &Signal) -> Option<(String, String)> {
    let last = x.axes.as_ref()?.last().map_or_else(String::new, label);
    (last != "features").then(|| ("along".into(), last))
}

/// Whether a `Dropout` is, or may be, in training mode.
fn is_training(inputs: &[Value]) -> bool {
    match inputs.get(2) {
        None | Some(Value::Absent) => false,
        Some(Value::Constant(array)) => array.bytes.first() != Some(&0) || array.count() != 1,
        Some(_) => true,
    }
}
