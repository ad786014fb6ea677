//! Compares a file's terms with a model's: which constant of the file is which parameter, and what does not fit.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::{fmt, mem};

use super::array::{Array, own_kind};
use super::terms::{Arg, MOVES, Term, Terms, Value, name_of};
use crate::base::Tensors;
use crate::base::tensors::shown;
use crate::kernels::Float;

/// One difference between a file and a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misfit {
    /// Something that the model computes and the file does not.
    Missing {
        /// The operator, with the place of its layer in the model.
        layer: String,
    },
    /// Something that the file computes and the model does not.
    Surplus {
        /// The node and its operator.
        node: String,
    },
    /// Another operator.
    Operator {
        /// The operator that the model has, with the place of its layer.
        layer: String,
        /// The node and its operator.
        node: String,
    },
    /// An operator in another form: an attribute differs, or an input is given in only one of the two.
    Attribute {
        /// The operator, with the place of its layer in the model.
        layer: String,
        /// The node and its operator.
        node: String,
        /// The attribute or the input, as ONNX calls it.
        attribute: String,
        /// The model's.
        expected: String,
        /// The file's.
        got: String,
    },
    /// A constant of another shape.
    Shape {
        /// The constant, with the place of its layer in the model.
        layer: String,
        /// The node and its operator.
        node: String,
        /// The constant in the file.
        tensor: String,
        /// The model's, as ONNX has it.
        expected: Vec<usize>,
        /// The file's.
        got: Vec<usize>,
    },
    /// A constant of another element type.
    Type {
        /// The constant in the file.
        tensor: String,
        /// The model's.
        expected: String,
        /// The file's.
        got: String,
    },
    /// A constant that is not a parameter and differs, or a parameter with two values.
    Value {
        /// The constant, with the place of its layer in the model.
        layer: String,
        /// The constant in the file.
        tensor: String,
        /// The model's.
        expected: String,
        /// The file's.
        got: String,
    },
    /// A parameter for which the file has no value.
    Parameter {
        /// Its name in the model.
        name: String,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Missing { layer } => write!(f, "missing in the file: {layer}"),
            Misfit::Surplus { node } => write!(f, "surplus in the file: {node}"),
            Misfit::Operator { layer, node } => write!(f, "expected {layer}, got {node}"),
            Misfit::Attribute { layer, node, attribute, expected, got } => {
                write!(f, "{node}: {attribute}: expected {expected}, as {layer} has it, got {got}")
            }
            Misfit::Shape { layer, node, tensor, expected, got } => {
                write!(f, "{node}: `{tensor}`: expected shape {expected:?} for {layer}, got {got:?}")
            }
            Misfit::Type { tensor, expected, got } => {
                write!(f, "`{tensor}`: expected type {expected}, got {got}; `LoadOptions::convert` converts floats")
            }
            Misfit::Value { layer, tensor, expected, got } => {
                write!(f, "`{tensor}`: expected {expected} for {layer}, got {got}")
            }
            Misfit::Parameter { name } => write!(f, "missing in the file: values for {}", shown(name)),
        }
    }
}

/// The maximum number of differences that are listed.
const MOST_MISFITS: usize = 100;

/// How far to search for a place from which a file and a model agree again.
const FAR: usize = 64;

/// A term, its input, the input of that, and so on.
fn chain(terms: &Terms<'_>, from: usize) -> Vec<usize> {
    std::iter::successors(Some(from), |&at| terms.terms[at].input).take(FAR).collect()
}

fn is_recurrent(term: &Term) -> bool {
    matches!(&term.operator[..], "RNN" | "LSTM" | "GRU")
}

/// Whether two terms are the same operator of the same kinds of arguments; inputs of recurrences may be left out.
fn same_form(a: &Term, b: &Term) -> bool {
    let may_differ = is_recurrent(a);
    let same = |(a, b): (&Arg, &Arg)| may_differ || mem::discriminant(a) == mem::discriminant(b);
    a.operator == b.operator && a.args.len() == b.args.len() && a.args.iter().zip(&b.args).all(same)
}

fn first_shape(term: &Term) -> Option<&[usize]> {
    constants(term).next().map(|array| &array.shape[..])
}

/// The comparison of two graphs.
pub struct Fit<'a> {
    model: &'a Terms<'a>,
    file: &'a Terms<'a>,
    convert: bool,
    open: Vec<(usize, usize)>,
    seen: HashSet<(usize, usize)>,
    matched: HashSet<usize>,
    /// A constant of the model's graph, whose elements are numbers of parameters, and that of the file, `None` for zeros. The
    /// flag says whether the operator reads all of it.
    pairs: Vec<(Rc<Array>, Option<Rc<Array>>, bool)>,
    pub misfits: Vec<Misfit>,
}

impl<'a> Fit<'a> {
    pub fn new(model: &'a Terms<'a>, file: &'a Terms<'a>, convert: bool) -> Self {
        let (open, seen, matched) = (Vec::new(), HashSet::new(), HashSet::new());
        Fit { model, file, convert, open, seen, matched, pairs: Vec::new(), misfits: Vec::new() }
    }

    fn report(&mut self, misfit: Misfit) {
        if self.misfits.len() < MOST_MISFITS && !self.misfits.contains(&misfit) {
            self.misfits.push(misfit);
        }
    }

    /// Compares from an output back to the inputs.
    pub fn outputs(&mut self, model: usize, file: usize) {
        self.open.push((model, file));
        while let Some((model, file)) = self.open.pop() {
            if self.seen.insert((model, file)) {
                self.pair(model, file);
            }
        }
    }

    /// Reports terms of the file with parameters that other outputs need and the model does not have.
    pub fn surplus(&mut self, outputs: impl Iterator<Item = usize>) {
        let (mut open, mut seen): (Vec<_>, HashSet<_>) = (outputs.collect(), HashSet::new());
        while let Some(at) = open.pop() {
            if !seen.insert(at) {
                continue;
            }
            let term = &self.file.terms[at];
            let is_parameter =
                |arg: &Arg| matches!(arg, Arg::Constant(array) if array.kind.is_float() && array.count() > 1);
            if !self.matched.contains(&at) && !term.is_zero && term.args.iter().any(is_parameter) {
                self.report(Misfit::Surplus { node: described(self.file, term) });
            }
            open.extend(term.args.iter().filter_map(|arg| if let Arg::Term(term) = arg { Some(*term) } else { None }));
        }
    }

    /// Compares the terms that have parameters of the same names, but not their inputs.
    pub fn by_name(&mut self, count: usize, rename: &dyn Fn(&str) -> String) {
        let mut holders: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, term) in self.file.terms.iter().enumerate() {
            let names: HashSet<_> = constants(term).map(|array| &*array.name).collect();
            names.into_iter().for_each(|name| holders.entry(name).or_default().push(at));
        }
        for (at, term) in self.model.terms.iter().enumerate() {
            let mut own = constants(term).filter(|array| (0..array.count()).any(|i| is_number(array.bits(i), count)));
            let Some(first) = own.next() else { continue };
            let name = rename(&first.name);
            let fits = |&&other: &&usize| {
                let other = &self.file.terms[other];
                other.operator == term.operator && other.attribute("direction") == term.attribute("direction")
            };
            let found = holders.get(&name[..]).and_then(|holders| holders.iter().find(fits)).copied();
            match found {
                Some(found) => self.pair(at, found),
                None => {
                    let layer = format!("`{}` of {}", name.escape_debug(), described(self.model, term));
                    self.report(Misfit::Missing { layer });
                }
            }
            self.open.clear();
        }
    }

    fn pair(&mut self, model: usize, file: usize) {
        let (expected, got) = (&self.model.terms[model], &self.file.terms[file]);
        self.matched.insert(file);
        if !same_form(expected, got) {
            return self.realign(model, file);
        }
        // Layers of one kind, but one of the two has more of them.
        if first_shape(expected) != first_shape(got) {
            let [own, other] = [chain(self.model, model), chain(self.file, file)];
            if own.len() != other.len() && self.realigned(&own, &other) {
                return;
            }
        }
        let differs = |name: &str| expected.attribute(name) != got.attribute(name);
        let names = expected.attributes.iter().chain(&got.attributes).map(|(name, _)| &name[..]);
        for name in names.filter(|name| differs(name)) {
            let [expected_words, got_words] = [expected, got].map(|term| match term.attribute(name) {
                "" => "none".into(),
                value => value.to_owned(),
            });
            self.attribute(expected, got, name, expected_words, got_words);
        }
        let is_recurrent = is_recurrent(expected);
        for (slot, (own, other)) in expected.args.iter().zip(&got.args).enumerate() {
            match (own, other) {
                (Arg::Term(own), Arg::Term(other)) => self.open.push((*own, *other)),
                (Arg::Constant(own), Arg::Constant(other)) => self.constants(expected, got, own, other, !is_recurrent),
                (Arg::None, Arg::None) => {}
                (Arg::Shape(own), Arg::Shape(other)) if own == other => {}
                // Biases that are not given are zero.
                (Arg::Constant(own), Arg::None) if is_recurrent && slot == 3 => {
                    self.pairs.push((own.clone(), None, false));
                }
                (Arg::None, other) if is_recurrent && self.is_nothing(slot, other) => {}
                (own, other) => {
                    let name = match slot {
                        _ if !is_recurrent => format!("input {slot}"),
                        3 => "B".into(),
                        4 => "P".into(),
                        5 => "sequence_lens".into(),
                        6 => "initial_h".into(),
                        7 => "initial_c".into(),
                        _ => format!("input {slot}"),
                    };
                    let (own, other) = (self.words(self.model, own), self.words(self.file, other));
                    self.attribute(expected, got, &name, own, other);
                }
            }
        }
    }

    /// Whether an input of a recurrence has its default value (no biases, full lengths, a state of zeros) or is given by the
    /// caller.
    fn is_nothing(&self, slot: usize, arg: &Arg) -> bool {
        match (slot, arg) {
            (3 | 6 | 7, Arg::Constant(array)) => array.is_zero(),
            (5, Arg::Shape(_)) => true,
            (5, Arg::Term(term)) => !self.file.terms[*term].of_x,
            (6 | 7, Arg::Term(term)) => {
                let term = &self.file.terms[*term];
                term.is_zero || term.of_others && !term.of_x && constants(term).next().is_none()
            }
            _ => false,
        }
    }

    fn words(&self, terms: &Terms<'_>, arg: &Arg) -> String {
        match arg {
            Arg::Term(term) => described(terms, &terms.terms[*term]),
            Arg::Constant(array) => format!("`{}`, {:?}", array.name.escape_debug(), array.shape),
            Arg::Shape(dims) => format!("a shape of {} sizes", dims.len()),
            Arg::None => "none".into(),
        }
    }

    fn attribute(&mut self, expected: &Term, got: &Term, attribute: &str, own: String, other: String) {
        let (layer, node) = (described(self.model, expected), described(self.file, got));
        self.report(Misfit::Attribute { layer, node, attribute: attribute.into(), expected: own, got: other });
    }

    fn constants(&mut self, expected: &Term, got: &Term, own: &Rc<Array>, other: &Rc<Array>, is_read: bool) {
        let fits = other.kind == own.kind || self.convert && own.kind.is_float() && other.kind.is_float();
        if own.shape != other.shape {
            let (layer, node) = (described(self.model, expected), described(self.file, got));
            let layer = format!("`{}` of {layer}", own.name);
            let (expected, got) = (own.shape.clone(), other.shape.clone());
            self.report(Misfit::Shape { layer, node, tensor: shown(&other.name).into(), expected, got });
        } else if !fits {
            let (expected, got) = (own.kind.name(), other.kind.name());
            self.report(Misfit::Type { tensor: shown(&other.name).into(), expected, got });
        } else {
            self.pairs.push((own.clone(), Some(other.clone()), is_read));
        }
    }

    /// Continues after two terms that are not the same operator.
    fn realign(&mut self, model: usize, file: usize) {
        let (own, other) = (chain(self.model, model), chain(self.file, file));
        if self.realigned(&own, &other) {
            return;
        }
        let node = described(self.file, &self.file.terms[file]);
        // A node that only moves data is skipped.
        if let (true, Some(&next)) = (MOVES.contains(&&self.file.terms[file].operator[..]), other.get(1)) {
            self.report(Misfit::Surplus { node });
            return self.open.push((model, next));
        }
        self.report(Misfit::Operator { layer: described(self.model, &self.model.terms[model]), node });
        if let ([_, own, ..], [_, other, ..]) = (&own[..], &other[..]) {
            self.open.push((*own, *other));
        }
    }

    /// Continues where both have the same operator again, if there is such a place.
    fn realigned(&mut self, own: &[usize], other: &[usize]) -> bool {
        let alike = |own: usize, other: usize| {
            let (own, other) = (&self.model.terms[own], &self.file.terms[other]);
            own.operator == other.operator
                && own.args.len() == other.args.len()
                && first_shape(own) == first_shape(other)
        };
        let later = (1..other.len()).find(|&at| alike(own[0], other[at]));
        let earlier = (1..own.len()).find(|&at| alike(own[at], other[0]));
        match (later, earlier) {
            (Some(later), earlier) if earlier.is_none_or(|earlier| later <= earlier) => {
                for &at in &other[..later] {
                    self.report(Misfit::Surplus { node: described(self.file, &self.file.terms[at]) });
                }
                self.open.push((own[0], other[later]));
            }
            (_, Some(earlier)) => {
                for &at in &own[..earlier] {
                    self.report(Misfit::Missing { layer: described(self.model, &self.model.terms[at]) });
                }
                self.open.push((own[earlier], other[0]));
            }
            _ => return false,
        }
        true
    }

    /// Writes the file's values into the tensors, which have `starts[i]` elements before the `i`th.
    pub fn assign<F: Float>(&mut self, tensors: &mut dyn Tensors<F>, starts: &[usize]) {
        let count = starts[starts.len() - 1];
        let mut is_set = vec![false; count];
        for (own, other, is_read) in mem::take(&mut self.pairs) {
            // The tensor of the last element: most are next to each other.
            let mut tensor = 0;
            for k in 0..own.count() {
                let bits = own.bits(k);
                if !own.kind.is_float() || !is_number(bits, count) {
                    if let Some(other) = other.as_ref().filter(|_| is_read)
                        && !same(&own, other, k)
                    {
                        let (expected, got) = (own.number(k).to_string(), other.number(k).to_string());
                        let (layer, tensor) = (shown(&own.name).into(), shown(&other.name).into());
                        self.report(Misfit::Value { layer, tensor, expected, got });
                        break;
                    }
                    continue;
                }
                let number = bits as usize - 1;
                if !(starts[tensor]..starts[tensor + 1]).contains(&number) {
                    tensor = starts.partition_point(|&start| start <= number) - 1;
                }
                let value = match &other {
                    None => F::zero(),
                    Some(other) if other.kind == own_kind(size_of::<F>()) => F::from_bits(other.bits(k)),
                    Some(other) => F::of(other.number(k)),
                };
                let place = &mut tensors.tensor_mut(tensor)[number - starts[tensor]];
                if is_set[number] && place.bits() != value.bits() {
                    let tensor = other.as_ref().map_or("zero".into(), |other| shown(&other.name).into());
                    let (expected, got) = (place.to_string(), value.to_string());
                    self.report(Misfit::Value { layer: shown(&own.name).into(), tensor, expected, got });
                    break;
                }
                (*place, is_set[number]) = (value, true);
            }
        }
        for i in 0..tensors.count() {
            if !is_set[starts[i]..starts[i + 1]].iter().all(|&is_set| is_set) {
                self.report(Misfit::Parameter { name: tensors.name(i) });
            }
        }
    }
}

/// Whether the bits of a constant are the number of a parameter's element, of `count` in all.
pub fn is_number(bits: u64, count: usize) -> bool {
    (1..=count as u64).contains(&bits)
}

/// Whether two constants have the same element, up to rounding.
fn same(own: &Array, other: &Array, k: usize) -> bool {
    let (own_number, other_number) = (own.number(k), other.number(k));
    own_number == other_number || (own_number - other_number).abs() <= 1e-6 * own_number.abs()
}

fn constants(term: &Term) -> impl Iterator<Item = &Rc<Array>> {
    term.args.iter().filter_map(|arg| match arg {
        Arg::Constant(array) if array.kind.is_float() => Some(array),
        _ => None,
    })
}

/// `0.l0.LSTM`, or ``LSTM `/lstm/LSTM` ``.
fn described(terms: &Terms<'_>, term: &Term) -> String {
    let Some(node) = term.node.map(|node| &terms.graph.node[node]) else {
        let name = if term.operator == "x" { "x" } else { term.attribute("name") };
        let kind = if matches!(&term.operator[..], "x" | "Input") { "input" } else { &term.operator };
        return format!("the {kind} `{}`", name.escape_debug());
    };
    let name: String = name_of(node).chars().take(100).collect();
    let operator = match &term.operator[..] {
        // Called as in the file.
        "Step" | "Stack" => &node.op_type,
        operator => operator,
    };
    let sizes = match (&term.operator[..], constants(term).next()) {
        ("MatMul" | "Gather", Some(array)) => format!(" by {:?}", array.shape),
        ("RNN" | "LSTM" | "GRU", Some(w)) => {
            let gates = match &term.operator[..] {
                "RNN" => 1,
                "GRU" => 3,
                _ => 4,
            };
            format!(" of {} features and {} units", w.shape[1], w.shape[0] / gates)
        }
        _ => String::new(),
    };
    format!("{} `{}`{sizes}", operator.escape_debug(), name.escape_debug())
}

/// The term of an output.
pub fn output_of(terms: &Terms<'_>, name: &str) -> Option<usize> {
    match terms.values.get(name)? {
        Value::Signal(signal) => Some(signal.term),
        _ => None,
    }
}
