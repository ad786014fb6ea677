//! A model as a graph of ONNX operators, put together layer by layer.

use std::collections::HashSet;
use std::fmt;

use crate::base::tensors::join;
use crate::base::{Size, Tensors};
use crate::kernels::Float;

/// A value of a [`Graph`]: an input, a constant, or an output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(usize);

/// A value that goes from layer to layer of a [`Graph`], with its properties: the counterpart of a [`Sequence`](crate::Sequence).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// `[T, B, D]`, or token ids, `[T, B]`.
    pub value: Value,
    /// D, or `Tokens` for token ids.
    pub size: Size,
    /// T, if it is always the same, as after a layer that changes the number of steps.
    pub steps: Option<usize>,
    /// Whether it has the lengths of the model's input, if there are any. Values past them may be anything.
    pub has_lengths: bool,
    /// Whether recurrences go from the last valid step to the first: see [`Sequence::reversed`](crate::Sequence::reversed).
    pub is_reversed: bool,
}

impl Signal {
    /// The number of features, for a layer called `layer`.
    ///
    /// # Errors
    /// Returns an error if these are token ids.
    pub fn features(self, layer: &str) -> Result<usize, Unsupported> {
        self.size.features(layer).map_err(|error| Unsupported { place: String::new(), reason: error.to_string() })
    }

    /// `value`, `[T, B, D]` with the same number of steps and the same lengths.
    pub fn with(self, value: Value, features: usize) -> Signal {
        Signal { value, size: Size::Features(features), ..self }
    }

    /// `value`, `[T', B, D]` with `steps` steps and without lengths.
    pub fn with_steps(self, value: Value, steps: usize) -> Signal {
        Signal { value, steps: Some(steps), has_lengths: false, ..self }
    }
}

/// An attribute of a node.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Attribute {
    /// A number.
    Int(i64),
    /// A number; ONNX stores it in 32 bits.
    Float(f32),
    /// A string.
    Text(String),
    /// Several numbers.
    Ints(Vec<i64>),
    /// Several numbers; ONNX stores each in 32 bits.
    Floats(Vec<f32>),
    /// Several strings.
    Texts(Vec<String>),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Attribute::Text(text.into())
    }
}

impl From<i64> for Attribute {
    fn from(number: i64) -> Self {
        Attribute::Int(number)
    }
}

impl From<Vec<i64>> for Attribute {
    fn from(numbers: Vec<i64>) -> Self {
        Attribute::Ints(numbers)
    }
}

/// A layer that ONNX's operators cannot express.
///
/// Its text names the layer, with its place in the model: `1.lstm: ONNX's LSTM has no projection`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    place: String,
    reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Unsupported {}

/// One tensor of a model's state, as a layer takes it from a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateTensor(usize);

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub operator: String,
    pub inputs: Vec<Option<Value>>,
    pub outputs: Vec<Value>,
    pub attributes: Vec<(String, Attribute)>,
}

/// The values of a constant.
#[derive(Clone, Debug)]
pub enum Data<F> {
    Floats(Vec<F>),
    Integers(Vec<i64>),
}

/// A constant.
#[derive(Clone, Debug)]
pub struct Constant<F> {
    pub value: Value,
    pub shape: Vec<usize>,
    pub data: Data<F>,
}

/// An axis of an input or an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    Time,
    Batch,
    Fixed(usize),
}

/// The elements of an input or an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    Floats,
    Int64,
    Int32,
}

/// An input or an output.
#[derive(Clone, Debug)]
pub struct Port {
    pub value: Value,
    pub elements: Elements,
    pub shape: Vec<Axis>,
}

/// All parts of a graph, for the code that writes it.
#[derive(Clone, Debug)]
pub struct Parts<F> {
    pub values: Vec<String>,
    pub nodes: Vec<Node>,
    pub constants: Vec<Constant<F>>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

impl<F> Parts<F> {
    /// The name of the value.
    pub fn name(&self, value: Value) -> &str {
        &self.values[value.0]
    }
}

/// The inputs and outputs of a graph besides `x` and `y`, and the order of their axes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interface {
    pub lengths: bool,
    pub states: bool,
    pub batch_first: bool,
}

#[derive(Debug)]
struct StateSlot {
    name: String,
    shape: Vec<Axis>,
    first: Option<Value>,
    last: Option<Value>,
}

/// A model as ONNX operators, to which each of its layers adds its own: see
/// [`Layer::add_to_graph`](crate::Layer::add_to_graph).
///
/// Operators are those of ONNX's operator set 17. Names of nodes and constants begin with the layer's place in the model.
pub struct Graph<F> {
    place: String,
    names: HashSet<String>,
    parts: Parts<F>,
    interface: Interface,
    x: Value,
    lengths: Option<Value>,
    states: Vec<StateSlot>,
    next_state: usize,
    batch: Option<Value>,
    mask: Option<Value>,
}

impl<F> fmt::Debug for Graph<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("nodes", &self.parts.nodes.len()).finish_non_exhaustive()
    }
}

impl<F: Float> Graph<F> {
    /// A graph without nodes, and its input. `one` and `two` are states of batches of one and of two.
    #[doc(hidden)]
    pub fn new(size: Size, interface: Interface, [one, two]: [&dyn Tensors<F>; 2]) -> (Self, Signal) {
        let (values, nodes, constants) = (Vec::new(), Vec::new(), Vec::new());
        let parts = Parts { values, nodes, constants, inputs: Vec::new(), outputs: Vec::new() };
        let mut graph = Graph {
            place: String::new(),
            names: HashSet::new(),
            parts,
            interface,
            x: Value(0),
            lengths: None,
            states: Vec::new(),
            next_state: 0,
            batch: None,
            mask: None,
        };
        graph.names.insert("y".into());
        let elements = if size == Size::Tokens { Elements::Int64 } else { Elements::Floats };
        let features = match size {
            Size::Tokens => None,
            Size::Features(features) => Some(Axis::Fixed(features)),
        };
        let shape = graph.time_and_batch(Axis::Time).into_iter().chain(features).collect();
        graph.x = graph.input("x", elements, shape);
        if interface.lengths {
            graph.lengths = Some(graph.input("lengths", Elements::Int32, vec![Axis::Batch]));
        }
        for i in 0..one.count() {
            let axes = one.tensor(i).0.iter().zip(two.tensor(i).0);
            let shape: Vec<_> =
                axes.map(|(one, two)| if one == two { Axis::Fixed(*one) } else { Axis::Batch }).collect();
            let name = one.name(i);
            let first = interface.states.then(|| {
                graph.names.insert(join("next", name.clone()));
                graph.input(&join("state", name.clone()), Elements::Floats, shape.clone())
            });
            graph.states.push(StateSlot { name, shape, first, last: None });
        }
        let mut value = graph.x;
        if interface.batch_first {
            value = graph.time_and_batch_swapped(value, size);
            graph.x = value;
        }
        let signal = Signal { value, size, steps: None, has_lengths: interface.lengths, is_reversed: false };
        (graph, signal)
    }

    /// Ends the graph with the output `y`, and returns it.
    ///
    /// # Errors
    /// Returns an error if a layer has not taken its state, or not given it back.
    #[doc(hidden)]
    pub fn finish(mut self, y: Signal) -> Result<Parts<F>, Unsupported> {
        let features = y.features("the output")?;
        let mut value = self.without_padding(y, 0.0);
        if self.interface.batch_first {
            value = self.time_and_batch_swapped(value, y.size);
        }
        let mut shape = self.time_and_batch(y.steps.map_or(Axis::Time, Axis::Fixed));
        shape.push(Axis::Fixed(features));
        self.output("y".into(), value, shape);
        if self.next_state != self.states.len() {
            let (taken, all) = (self.next_state, self.states.len());
            return Err(self.refuse(format!("the layers took {taken} tensors of a state of {all}")));
        }
        if self.interface.states {
            for slot in std::mem::take(&mut self.states) {
                let name = join("next", slot.name);
                let Some(last) = slot.last else { return Err(self.refuse(format!("no layer gave {name}"))) };
                self.output(name, last, slot.shape);
            }
        }
        Ok(self.parts)
    }

    fn time_and_batch(&self, time: Axis) -> Vec<Axis> {
        if self.interface.batch_first { vec![Axis::Batch, time] } else { vec![time, Axis::Batch] }
    }

    fn time_and_batch_swapped(&mut self, value: Value, size: Size) -> Value {
        let order = if size == Size::Tokens { vec![1, 0] } else { vec![1, 0, 2] };
        self.node("Transpose", &[value], &[("perm", order.into())])
    }

    fn input(&mut self, name: &str, elements: Elements, shape: Vec<Axis>) -> Value {
        let value = self.value(name.into());
        self.parts.inputs.push(Port { value, elements, shape });
        value
    }

    /// `value` as an output called `name`: renamed if a node computes it and nothing else has named it.
    fn output(&mut self, name: String, value: Value, shape: Vec<Axis>) {
        let is_computed = self.parts.nodes.iter().any(|node| node.outputs.contains(&value));
        let is_output = self.parts.outputs.iter().any(|output| output.value == value);
        let value = if is_computed && !is_output { value } else { self.node("Identity", &[value], &[]) };
        self.parts.values[value.0] = name;
        self.parts.outputs.push(Port { value, elements: Elements::Floats, shape });
    }

    /// A name that nothing else has.
    fn unique(&mut self, name: String) -> String {
        let mut unique = name.clone();
        let mut number = 1;
        while !self.names.insert(unique.clone()) {
            unique = format!("{name}_{number}");
            number += 1;
        }
        unique
    }

    fn value(&mut self, name: String) -> Value {
        let name = self.unique(name);
        self.parts.values.push(name);
        Value(self.parts.values.len() - 1)
    }

    /// The error of the layer that is being added, for `reason`.
    pub fn refuse(&self, reason: impl Into<String>) -> Unsupported {
        Unsupported { place: self.place.clone(), reason: reason.into() }
    }

    /// Adds a part of a layer, which is called `part` in it; `""` if its parameters are named as if they were the layer's own.
    ///
    /// # Errors
    /// Returns an error if `add` does.
    pub fn inside<T>(
        &mut self,
        part: &str,
        add: impl FnOnce(&mut Self) -> Result<T, Unsupported>,
    ) -> Result<T, Unsupported> {
        let length = self.place.len();
        self.place = join(&self.place, part.into());
        let added = add(self);
        // An error from a signal does not know its place.
        let added = added.map_err(|error| match error.place.is_empty() {
            true => self.refuse(error.reason),
            false => error,
        });
        self.place.truncate(length);
        added
    }

    /// A node with one output.
    pub fn node(&mut self, operator: &str, inputs: &[Value], attributes: &[(&str, Attribute)]) -> Value {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.node_of(operator, &inputs, attributes, 1)[0]
    }

    /// A node with this number of outputs; some of its inputs may be left out.
    pub fn node_of(
        &mut self,
        operator: &str,
        inputs: &[Option<Value>],
        attributes: &[(&str, Attribute)],
        outputs: usize,
    ) -> Vec<Value> {
        let name = self.unique(join(&self.place, operator.into()));
        let outputs: Vec<_> = (0..outputs).map(|k| self.value(format!("{name}:{k}"))).collect();
        let given = inputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.parts.nodes.push(Node {
            name,
            operator: operator.into(),
            inputs: inputs[..given].to_vec(),
            outputs: outputs.clone(),
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        });
        outputs
    }

    /// The range `from..to` along `axis`.
    pub(crate) fn slice(&mut self, value: Value, [from, to]: [i64; 2], axis: i64) -> Value {
        let (from, to, axis) = (self.integers(&[from]), self.integers(&[to]), self.integers(&[axis]));
        self.node("Slice", &[value, from, to, axis], &[])
    }

    /// `Squeeze`, `Unsqueeze` and other operators that take an axis.
    pub(crate) fn with_axis(&mut self, operator: &str, value: Value, axis: i64) -> Value {
        let axis = self.integers(&[axis]);
        self.node(operator, &[value, axis], &[])
    }

    /// Reorders `value`, whose steps are those of `x`, from the order of steps to that in which `x` is read, or back. Steps past
    /// the lengths stay where they are.
    pub(crate) fn in_order_of_reading(&mut self, x: Signal, value: Value) -> Value {
        if !x.is_reversed {
            return value;
        }
        match self.lengths(x) {
            Some(lengths) => {
                let lengths = self.node("Cast", &[lengths], &[("to", 7.into())]);
                self.node("ReverseSequence", &[value, lengths], &[("batch_axis", 1.into()), ("time_axis", 0.into())])
            }
            None => {
                let [from, to, axis] = [-1, i64::MIN, 0].map(|number| self.integers(&[number]));
                let step = self.integers(&[-1]);
                self.node("Slice", &[value, from, to, axis, step], &[])
            }
        }
    }

    /// A parameter called `name` in its layer.
    ///
    /// # Panics
    /// Panics if there are not as many values as `shape` says.
    #[track_caller]
    pub fn parameter(&mut self, name: &str, shape: &[usize], values: Vec<F>) -> Value {
        assert_eq!(
            values.len(),
            shape.iter().product::<usize>(),
            "Graph: parameter: expected as many values as {shape:?} has"
        );
        let value = self.value(join(&self.place, name.into()));
        self.parts.constants.push(Constant { value, shape: shape.to_vec(), data: Data::Floats(values) });
        value
    }

    /// A number of the element type, as a scalar.
    pub fn scalar(&mut self, number: f64) -> Value {
        let number = F::of(number);
        let same = |data: &Data<F>| matches!(data, Data::Floats(values) if values[0].bits() == number.bits());
        let found = self.parts.constants.iter().find(|known| known.shape.is_empty() && same(&known.data));
        match found {
            Some(known) => known.value,
            None => {
                let value = self.value(format!("scalar:{number}"));
                self.parts.constants.push(Constant { value, shape: vec![], data: Data::Floats(vec![number]) });
                value
            }
        }
    }

    /// Integers, `[n]`, such as axes and shapes.
    pub fn integers(&mut self, numbers: &[i64]) -> Value {
        self.constant_integers(&[numbers.len()], numbers)
    }

    fn constant_integers(&mut self, shape: &[usize], numbers: &[i64]) -> Value {
        let same = |data: &Data<F>| matches!(data, Data::Integers(values) if values == numbers);
        match self.parts.constants.iter().find(|known| known.shape == shape && same(&known.data)) {
            Some(known) => known.value,
            None => {
                let words: Vec<_> = numbers.iter().map(i64::to_string).collect();
                let value = self.value(format!("integers:{}", words.join(",")));
                let data = Data::Integers(numbers.to_vec());
                self.parts.constants.push(Constant { value, shape: shape.to_vec(), data });
                value
            }
        }
    }

    /// The lengths of the sequences of `x`, `[B]` of 32 bits, if it has them.
    pub fn lengths(&self, x: Signal) -> Option<Value> {
        self.lengths.filter(|_| x.has_lengths)
    }

    /// The mask of the valid positions of `x`, `[T, B, 1]` of booleans, if it has lengths.
    pub fn mask(&mut self, x: Signal) -> Option<Value> {
        let lengths = self.lengths(x)?;
        if self.mask.is_none() {
            let place = std::mem::take(&mut self.place);
            let (zero, one) = (self.constant_integers(&[], &[0]), self.constant_integers(&[], &[1]));
            let steps = self.node("Shape", &[self.x], &[("start", 0.into()), ("end", 1.into())]);
            let axis = self.integers(&[0]);
            let steps = self.node("Squeeze", &[steps, axis], &[]);
            let steps = self.node("Range", &[zero, steps, one], &[]);
            let axes = self.integers(&[1, 2]);
            let steps = self.node("Unsqueeze", &[steps, axes], &[]); // [T, 1, 1]
            let lengths = self.node("Cast", &[lengths], &[("to", 7.into())]);
            let axes = self.integers(&[0, 2]);
            let lengths = self.node("Unsqueeze", &[lengths, axes], &[]); // [1, B, 1]
            self.mask = Some(self.node("Less", &[steps, lengths], &[]));
            self.place = place;
        }
        self.mask
    }

    /// The features of `x`, with `padding` past the lengths.
    pub fn without_padding(&mut self, x: Signal, padding: f64) -> Value {
        let Some(mask) = self.mask(x) else { return x.value };
        let padding = self.scalar(padding);
        self.node("Where", &[mask, x.value, padding], &[])
    }

    /// `value`, `[1, B, features]`, with zeros for the sequences of `x` that have no step.
    pub fn without_empty(&mut self, x: Signal, value: Value) -> Value {
        let Some(mask) = self.mask(x) else { return value };
        let reached = self.slice(mask, [0, 1], 0);
        let zero = self.scalar(0.0);
        self.node("Where", &[reached, value, zero], &[])
    }

    /// The number of sequences, `[1]`.
    pub fn batch(&mut self) -> Value {
        if let Some(batch) = self.batch {
            return batch;
        }
        let place = std::mem::take(&mut self.place);
        let batch = self.node("Shape", &[self.x], &[("start", 1.into()), ("end", 2.into())]);
        self.place = place;
        *self.batch.insert(batch)
    }

    /// The next tensor of the model's state. A layer takes as many as its [`zero_state`](crate::Layer::zero_state) has, in
    /// that order, which also says whether they come before or after those of the layers inside it.
    ///
    /// # Errors
    /// Returns an error if there are no more.
    pub fn take_state(&mut self) -> Result<StateTensor, Unsupported> {
        if self.next_state == self.states.len() {
            return Err(self.refuse("took more tensors than the model's state has"));
        }
        self.next_state += 1;
        Ok(StateTensor(self.next_state - 1))
    }

    /// Whether the state after the last step is an output of the graph; if not, it is not needed.
    pub fn has_states(&self) -> bool {
        self.interface.states
    }

    /// The value of the tensor before the first step; `None` if that is zero.
    pub fn initial_state(&self, tensor: StateTensor) -> Option<Value> {
        self.states[tensor.0].first
    }

    /// Sets the value of the tensor after the last step.
    pub fn set_final_state(&mut self, tensor: StateTensor, value: Value) {
        self.states[tensor.0].last = Some(value);
    }

    /// The `k`th tensor of those that will be taken next, without taking it.
    pub(crate) fn next_state(&self, k: usize) -> StateTensor {
        StateTensor((self.next_state + k).min(self.states.len().saturating_sub(1)))
    }

    /// Sets the value of the tensor before the first step.
    pub(crate) fn set_initial_state(&mut self, tensor: StateTensor, value: Value) {
        self.states[tensor.0].first = Some(value);
    }

    /// The axes of the tensor, which tell where that of the sequences is.
    pub(crate) fn state_shape(&self, tensor: StateTensor) -> &[Axis] {
        &self.states[tensor.0].shape
    }
}
