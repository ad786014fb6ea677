//! The computation of a graph as terms: each operator with its arguments, in one form for all the ways in which programs write
//! it.
//!
//! Nodes that only move data (`Transpose`, `Reshape`, `Squeeze`, …) leave no terms. A value has [`Atom`]s in place of sizes, so
//! that the positions of time, batch and features are known after any such nodes; constants are moved themselves. A layer in two
//! directions is two terms. An operator that no rule knows is kept as it is written, and equals only the same.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use super::array::{Array, Budget, FEW, Kind, TooMuch};
use crate::onnx::messages::{Attribute, AttributeType, Graph, Length, Node, Tensor, ValueInfo};

/// A part of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atom {
    /// With its size, if that is fixed.
    Time(Option<usize>),
    Batch(Option<usize>),
    /// Directions, or layers and directions.
    Parts(usize),
    Features(usize),
}

impl Atom {
    pub fn size(self) -> Option<usize> {
        match self {
            Atom::Time(size) | Atom::Batch(size) => size,
            Atom::Parts(size) | Atom::Features(size) => Some(size),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Atom::Time(_) => "time",
            Atom::Batch(_) => "batch",
            Atom::Parts(_) => "directions",
            Atom::Features(_) => "features",
        }
    }
}

/// Atoms, the outermost first; an axis of size 1 has none.
pub type Axis = Vec<Atom>;

/// An element of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    Known(i64),
    /// The product of their sizes.
    Of(Vec<Atom>),
    Unknown,
}

/// An argument of an operator.
#[derive(Clone, Debug)]
pub enum Arg {
    Term(usize),
    Constant(Rc<Array>),
    Shape(Vec<Dim>),
    None,
}

/// An operator with its arguments.
#[derive(Debug)]
pub struct Term {
    pub operator: String,
    /// By name, sorted.
    pub attributes: Vec<(String, String)>,
    pub args: Vec<Arg>,
    /// For a joined term, the size of each argument.
    pub parts: Vec<usize>,
    /// The node that it comes from; `None` for an input.
    pub node: Option<usize>,
    /// A hash of all but the values of constants.
    pub print: u64,
    /// The argument with the longest path to an input, or the one that is moved; `depth` is the length of the longest path.
    pub input: Option<usize>,
    pub depth: usize,
    /// Whether it depends on the input `x`.
    pub of_x: bool,
    /// Whether it depends on other inputs.
    pub of_others: bool,
    /// Whether it is zero, in whatever shape.
    pub is_zero: bool,
}

impl Term {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// A tensor that depends on an input.
#[derive(Clone, Debug)]
pub struct Signal {
    pub term: usize,
    /// `None` if they are not known.
    pub axes: Option<Vec<Axis>>,
}

/// A value of the graph.
#[derive(Clone, Debug)]
pub enum Value {
    Constant(Rc<Array>),
    Shape { dims: Vec<Dim>, is_scalar: bool },
    Signal(Signal),
    Absent,
}

impl Value {
    /// Its approximate memory in bytes, without that of the file.
    fn size(&self) -> usize {
        let parts = match self {
            Value::Constant(array) => array.shape.len(),
            Value::Shape { dims, .. } => 4 * dims.len(),
            Value::Signal(Signal { axes, .. }) => axes.iter().flatten().map(|axis| 2 + axis.len()).sum::<usize>(),
            Value::Absent => 0,
        };
        64 + 16 * parts
    }
}

/// Why a graph could not be read.
#[derive(Debug)]
pub enum Fault {
    /// Its recurrences have time at the axis that was assumed to be the batch.
    Order,
    /// The results of its nodes take too much memory.
    TooMuch,
    /// Something is wrong with it.
    Malformed { place: String, reason: String },
}

impl From<TooMuch> for Fault {
    fn from(_: TooMuch) -> Self {
        Fault::TooMuch
    }
}

/// Reads the values of a tensor, with this many bytes, from another file.
pub type External<'a> = dyn FnMut(&Tensor, usize) -> Result<prost::bytes::Bytes, String> + 'a;

/// The attributes of a node.
#[derive(Clone, Copy)]
pub struct Attributes<'a>(pub &'a Node);

impl<'a> Attributes<'a> {
    pub fn get(self, name: &str) -> Option<&'a Attribute> {
        self.0.attribute.iter().find(|attribute| attribute.name == name)
    }

    pub fn int(self, name: &str, default: i64) -> i64 {
        self.get(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    pub fn float(self, name: &str, default: f32) -> f32 {
        self.get(name).and_then(|attribute| attribute.f).unwrap_or(default)
    }

    pub fn text(self, name: &str, default: &str) -> String {
        let text = self.get(name).and_then(|attribute| attribute.s.as_deref());
        text.map_or_else(|| default.into(), |text| String::from_utf8_lossy(text).into_owned())
    }

    pub fn ints(self, name: &str) -> Option<&'a [i64]> {
        self.get(name).map(|attribute| &attribute.ints[..])
    }
}

/// The value of an attribute as text.
pub fn shown(attribute: &Attribute) -> String {
    match AttributeType::try_from(attribute.r#type) {
        Ok(AttributeType::Float) => format!("{:?}", attribute.f.unwrap_or_default()),
        Ok(AttributeType::Int) => format!("{}", attribute.i.unwrap_or_default()),
        Ok(AttributeType::String) => word(attribute.s.as_deref().unwrap_or_default()),
        Ok(AttributeType::Floats) => listed(&attribute.floats, |value| format!("{value:?}")),
        Ok(AttributeType::Ints) => listed(&attribute.ints, i64::to_string),
        Ok(AttributeType::Strings) => listed(&attribute.strings, |text| word(text)),
        _ => "something else".into(),
    }
}

fn word(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(100).collect()
}

fn listed<T>(values: &[T], shown: impl Fn(&T) -> String) -> String {
    let mut words: Vec<_> = values.iter().take(FEW).map(shown).collect();
    if values.len() > FEW {
        words.push(format!("… of {}", values.len()));
    }
    words.join(", ")
}

/// The name by which a reader of the file finds a node.
pub fn name_of(node: &Node) -> &str {
    if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name }
}

/// Which of the first two axes of `x` is time, unless the file's names for them say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    TimeFirst,
    BatchFirst,
}

/// The name of each axis, or its size.
pub fn dimensions(info: &ValueInfo) -> Option<Vec<Option<&Length>>> {
    let tensor = info.r#type.as_ref()?.tensor_type.as_ref()?;
    Some(tensor.shape.as_ref()?.dim.iter().map(|dim| dim.value.as_ref()).collect())
}

/// Whether the axes of an input have the names that this crate gives them, batch first.
pub fn is_batch_first(info: &ValueInfo) -> Option<bool> {
    let dimensions = dimensions(info)?;
    let name = |k: usize| match dimensions.get(k) {
        Some(Some(Length::DimParam(name))) => Some(&name[..]),
        _ => None,
    };
    match (name(0)?, name(1)?) {
        ("time", "batch") => Some(false),
        ("batch", "time") => Some(true),
        _ => None,
    }
}

/// The inputs of a graph that are not constants.
pub fn inputs(graph: &Graph) -> impl Iterator<Item = &ValueInfo> {
    let constants: std::collections::HashSet<_> = graph.initializer.iter().map(|tensor| &tensor.name).collect();
    graph.input.iter().filter(move |info| !constants.contains(&info.name))
}

/// A graph's terms and its values.
#[derive(Debug)]
pub struct Terms<'a> {
    pub graph: &'a Graph,
    pub terms: Vec<Term>,
    pub values: HashMap<&'a str, Value>,
    pub(super) budget: &'a mut Budget,
}

/// Operators that only move the data of their first input.
pub const MOVES: [&str; 11] =
    ["Slice", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Gather", "Expand", "Split", "Tile", "Identity", "Cast"];

/// The maximum number of arguments of a joined term.
const MOST_PARTS: usize = 1024;

/// The maximum number of axes.
pub const MOST_AXES: usize = 16;

impl<'a> Terms<'a> {
    /// Reads a graph, node by node.
    ///
    /// # Errors
    /// Returns an error if the graph cannot be read.
    pub fn of(
        graph: &'a Graph,
        order: Order,
        external: &mut External<'_>,
        budget: &'a mut Budget,
    ) -> Result<Terms<'a>, Fault> {
        let mut terms = Terms { graph, terms: Vec::new(), values: HashMap::new(), budget };
        for (k, tensor) in graph.initializer.iter().enumerate() {
            let array = Array::of_tensor(tensor, external).map_err(|reason| {
                let place = format!("graph.initializer[{k}] `{}`", tensor.name.escape_debug());
                Fault::Malformed { place, reason }
            })?;
            let value = terms.constant_of(None, array);
            terms.values.insert(&tensor.name, value);
        }
        for (k, info) in inputs(graph).enumerate() {
            let operator = if k == 0 { "x".into() } else { "Input".into() };
            let name = if k == 0 { Vec::new() } else { vec![("name".to_owned(), info.name.clone())] };
            let term = terms.add(None, operator, name, Vec::new());
            let axes = if k == 0 { axes_of_x(info, order) } else { None };
            terms.values.insert(&info.name, Value::Signal(Signal { term, axes }));
        }
        for (at, node) in graph.node.iter().enumerate() {
            terms.read(at, node, external)?;
        }
        Ok(terms)
    }

    pub(super) fn malformed(&self, at: usize, reason: impl Into<String>) -> Fault {
        let node = &self.graph.node[at];
        let place = format!("graph.node[{at}] `{}` ({})", name_of(node).escape_debug(), node.op_type.escape_debug());
        Fault::Malformed { place, reason: reason.into() }
    }

    fn read(&mut self, at: usize, node: &'a Node, external: &mut External<'_>) -> Result<(), Fault> {
        let mut inputs = Vec::new();
        for name in &node.input {
            inputs.push(match self.values.get(&name[..]) {
                Some(value) => value.clone(),
                None if name.is_empty() => Value::Absent,
                None => {
                    let reason = format!("nothing before it computes its input `{}`", name.escape_debug());
                    return Err(self.malformed(at, reason));
                }
            });
        }
        let outputs = if node.op_type == "Constant" && is_standard(node) {
            vec![self.constant(at, node, external)?]
        } else {
            self.apply(at, node, &inputs)?
        };
        for (name, value) in node.output.iter().zip(outputs) {
            self.budget.take(value.size())?;
            if !name.is_empty() {
                self.values.insert(name, value);
            }
        }
        Ok(())
    }

    fn constant(&mut self, at: usize, node: &'a Node, external: &mut External<'_>) -> Result<Value, Fault> {
        let attribute = node.attribute.first().ok_or_else(|| self.malformed(at, "it has no value"))?;
        let name: &str = node.output.first().map_or("", String::as_str);
        let made = |shape: Vec<usize>, data_type: i32, raw_data: Vec<u8>| {
            let dims = shape.iter().map(|&size| size as i64).collect();
            Tensor { dims, data_type, raw_data: raw_data.into(), ..Tensor::default() }
        };
        let bytes = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let tensor = match &attribute.name[..] {
            "value" => attribute.t.clone(),
            "value_float" => attribute.f.map(|value| made(vec![], 1, value.to_le_bytes().into())),
            "value_floats" => {
                let values = &attribute.floats;
                Some(made(vec![values.len()], 1, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            }
            "value_int" => attribute.i.map(|value| made(vec![], 7, bytes(&[value]))),
            "value_ints" => Some(made(vec![attribute.ints.len()], 7, bytes(&attribute.ints))),
            _ => None,
        };
        let Some(mut tensor) = tensor else {
            return Ok(self.signal(at, "Constant", Vec::new(), Vec::new(), None));
        };
        tensor.name = name.into();
        let array = Array::of_tensor(&tensor, external).map_err(|reason| self.malformed(at, reason))?;
        Ok(self.constant_of(Some(at), array))
    }

    /// A constant. If its elements are not read, it becomes an operator that no model has.
    fn constant_of(&mut self, node: Option<usize>, array: Array) -> Value {
        match array.kind {
            Kind::Other(_) => {
                let name = vec![("name".to_owned(), array.name.chars().take(100).collect())];
                let operator = format!("constant of {}", array.kind.name());
                Value::Signal(Signal { term: self.add(node, operator, name, Vec::new()), axes: None })
            }
            _ => Value::Constant(Rc::new(array)),
        }
    }

    /// A new term.
    pub(super) fn add(
        &mut self,
        node: Option<usize>,
        operator: String,
        mut attributes: Vec<(String, String)>,
        args: Vec<Arg>,
    ) -> usize {
        attributes.sort();
        let mut hasher = DefaultHasher::new();
        (&operator, &attributes).hash(&mut hasher);
        let (mut of_x, mut of_others) = (operator == "x", operator == "Input");
        let (mut input, mut depth) = (None, 0);
        let is_moved = MOVES.contains(&&operator[..]);
        for arg in &args {
            match arg {
                Arg::Term(at) => {
                    let term = &self.terms[*at];
                    if term.depth >= depth && !(is_moved && input.is_some()) {
                        input = Some(*at);
                    }
                    depth = depth.max(term.depth + 1);
                    (1, term.print).hash(&mut hasher);
                    of_x |= term.of_x;
                    of_others |= term.of_others;
                }
                Arg::Constant(array) => (2, &array.shape).hash(&mut hasher),
                Arg::Shape(_) => 3.hash(&mut hasher),
                Arg::None => 4.hash(&mut hasher),
            }
        }
        let print = hasher.finish();
        let is_zero = false;
        let parts = Vec::new();
        let term = Term { operator, attributes, args, parts, node, print, input, depth, of_x, of_others, is_zero };
        self.terms.push(term);
        self.terms.len() - 1
    }

    /// A new term as a value.
    pub(super) fn signal(
        &mut self,
        at: usize,
        operator: &str,
        attributes: Vec<(String, String)>,
        args: Vec<Arg>,
        axes: Option<Vec<Axis>>,
    ) -> Value {
        let term = self.add(Some(at), operator.into(), attributes, args);
        Value::Signal(Signal { term, axes })
    }

    /// Terms next to each other, along features or along directions; `None` if there are too many.
    pub(super) fn together(&mut self, at: usize, operator: &str, terms: &[usize], sizes: &[usize]) -> Option<usize> {
        let (mut args, mut parts) = (Vec::new(), Vec::new());
        for (&term, &size) in terms.iter().zip(sizes) {
            let inner = &self.terms[term];
            if inner.operator == operator {
                args.extend(inner.args.iter().cloned());
                parts.extend(&inner.parts);
            } else {
                args.push(Arg::Term(term));
                parts.push(size);
            }
        }
        if let ([only], 1) = (terms, args.len()) {
            return Some(*only);
        }
        if args.len() > MOST_PARTS || self.budget.take(size_of::<Arg>() * args.len()).is_err() {
            return None;
        }
        let is_zero = terms.iter().all(|&term| self.terms[term].is_zero);
        let term = self.add(Some(at), operator.into(), Vec::new(), args);
        (self.terms[term].parts, self.terms[term].is_zero) = (parts, is_zero);
        Some(term)
    }

    /// The node as it is written.
    ///
    /// # Errors
    /// Returns an error if it has too many inputs and outputs.
    pub(super) fn as_written(
        &mut self,
        at: usize,
        node: &Node,
        inputs: &[Value],
        axes: Option<Vec<Axis>>,
    ) -> Result<Vec<Value>, TooMuch> {
        let size = (inputs.len() + node.attribute.len()).saturating_mul(64);
        self.budget.take(size.saturating_mul(node.output.len().saturating_sub(1)))?;
        let is_zero = (MOVES.contains(&&node.op_type[..]) || node.op_type == "Concat") && {
            let is_zero = |value: &Value| match value {
                Value::Signal(signal) => self.terms[signal.term].is_zero,
                Value::Constant(array) => {
                    array.kind.is_float()
                        && array.count() <= 1 << 16
                        && self.budget.take(array.count()).is_ok()
                        && array.is_zero()
                }
                Value::Shape { .. } | Value::Absent => false,
            };
            let of = if node.op_type == "Concat" { inputs } else { &inputs[..inputs.len().min(1)] };
            !of.is_empty() && of.iter().all(is_zero)
        };
        let args: Vec<_> = inputs.iter().map(arg_of).collect();
        let attributes: Vec<_> =
            node.attribute.iter().map(|attribute| (attribute.name.clone(), shown(attribute))).collect();
        let operator = match is_standard(node) {
            true => node.op_type.clone(),
            false => format!("{}.{}", node.domain, node.op_type),
        };
        let mut outputs = Vec::new();
        for k in 0..node.output.len() {
            let mut attributes = attributes.clone();
            if k > 0 {
                attributes.push(("output".into(), k.to_string()));
            }
            let term = self.add(Some(at), operator.clone(), attributes, args.clone());
            self.terms[term].is_zero = is_zero;
            outputs.push(Value::Signal(Signal { term, axes: axes.clone().filter(|_| k == 0) }));
        }
        Ok(outputs)
    }
}

/// A value as an argument.
pub(super) fn arg_of(value: &Value) -> Arg {
    match value {
        Value::Constant(array) => Arg::Constant(array.clone()),
        Value::Shape { dims, .. } => Arg::Shape(dims.clone()),
        Value::Signal(signal) => Arg::Term(signal.term),
        Value::Absent => Arg::None,
    }
}

/// Whether the operator is one of ONNX's own.
pub(super) fn is_standard(node: &Node) -> bool {
    matches!(&node.domain[..], "" | "ai.onnx")
}

/// The axes of `x`: the positions of time, batch and features.
fn axes_of_x(info: &ValueInfo, order: Order) -> Option<Vec<Axis>> {
    let dimensions = dimensions(info)?;
    let size = |k: usize| match dimensions[k] {
        Some(Length::DimValue(size)) => usize::try_from(*size).ok(),
        _ => None,
    };
    let elements = info.r#type.as_ref()?.tensor_type.as_ref()?.elem_type;
    let is_ids = matches!(elements, 6 | 7);
    let is_batch_first = is_batch_first(info).unwrap_or(order == Order::BatchFirst);
    let outer = |k: usize| match (k == 0) == is_batch_first {
        true => vec![Atom::Batch(size(k))],
        false => vec![Atom::Time(size(k))],
    };
    match (dimensions.len(), is_ids) {
        (2, true) => Some(vec![outer(0), outer(1)]),
        (1, true) => Some(vec![vec![Atom::Batch(size(0))]]),
        (3, false) => Some(vec![outer(0), outer(1), vec![Atom::Features(size(2)?)]]),
        (2, false) => Some(vec![vec![Atom::Batch(size(0))], vec![Atom::Features(size(1)?)]]),
        _ => None,
    }
}

/// The axes after a `Reshape`; `None` if they would be in another order, or are not known.
pub(super) fn reshaped(axes: &[Axis], dims: &[Dim], keeps_zero: bool) -> Option<Vec<Axis>> {
    if dims.len() > MOST_AXES || axes.len() > MOST_AXES {
        return None;
    }
    let mut atoms: Vec<Atom> = axes.concat();
    let mut outcome = vec![Vec::new(); dims.len()];
    let open = dims.iter().position(|dim| matches!(dim, Dim::Known(-1) | Dim::Unknown));
    // From the left up to the axis that takes the rest, then from the right.
    for (k, dim) in dims.iter().enumerate().take(open.unwrap_or(dims.len())) {
        let count = match dim {
            Dim::Known(0) if !keeps_zero => starts(&atoms, axes.get(k)?)?,
            Dim::Of(of) => starts(&atoms, of)?,
            dim => counted(dim, atoms.iter())?,
        };
        outcome[k] = atoms.drain(..count).collect();
    }
    if let Some(open) = open {
        for (k, dim) in dims.iter().enumerate().skip(open + 1).rev() {
            let count = match dim {
                Dim::Known(0) if !keeps_zero => ends(&atoms, axes.get(k)?)?,
                Dim::Of(of) => ends(&atoms, of)?,
                dim => counted(dim, atoms.iter().rev())?,
            };
            outcome[k] = atoms.split_off(atoms.len() - count);
        }
        outcome[open] = std::mem::take(&mut atoms);
    }
    if atoms.iter().any(|atom| atom.size() != Some(1)) {
        return None;
    }
    for axis in &mut outcome {
        if axis.iter().any(|atom| atom.size() != Some(1)) {
            axis.retain(|atom| atom.size() != Some(1));
        }
    }
    Some(outcome)
}

fn starts(atoms: &[Atom], with: &[Atom]) -> Option<usize> {
    atoms.starts_with(with).then_some(with.len())
}

fn ends(atoms: &[Atom], with: &[Atom]) -> Option<usize> {
    atoms.ends_with(with).then_some(with.len())
}

/// The number of atoms that make up an axis of this size.
fn counted<'a>(dim: &Dim, atoms: impl Iterator<Item = &'a Atom>) -> Option<usize> {
    let Dim::Known(size) = dim else { return None };
    let size = usize::try_from(*size).ok()?;
    let (mut product, mut count) = (1_usize, 0);
    let mut atoms = atoms.peekable();
    if size == 1 {
        return Some(usize::from(atoms.peek().is_some_and(|atom| atom.size() == Some(1))));
    }
    while product != size {
        product = product.checked_mul(atoms.next()?.size()?)?;
        count += 1;
        if product == 0 || product > size {
            return None;
        }
    }
    Some(count)
}

/// The axes of two values after ONNX's broadcasting.
pub(super) fn broadcast(a: &[Axis], b: &[Axis]) -> Option<Vec<Axis>> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let mut axes = long.to_vec();
    let start = long.len() - short.len();
    for (axis, other) in axes[start..].iter_mut().zip(short) {
        if axis.is_empty() {
            axis.clone_from(other);
        } else if !other.is_empty() && axis != other {
            return None;
        }
    }
    Some(axes)
}

/// A short word for an axis.
pub(super) fn label(axis: &Axis) -> String {
    axis.iter().map(|atom| atom.label()).collect::<Vec<_>>().join(" ")
}
