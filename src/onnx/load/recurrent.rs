//! RNN, LSTM and GRU.

use std::rc::Rc;

use super::array::Array;
use super::places::is_given;
use super::terms::{Arg, Atom, Attributes, Fault, Signal, Terms, Value, arg_of, label, shown};
use crate::onnx::messages::Node;

impl Terms<'_> {
    /// RNN, LSTM and GRU: a term for each direction.
    pub(super) fn recurrent(
        &mut self,
        at: usize,
        node: &Node,
        inputs: &[Value],
        x: &Signal,
    ) -> Result<Vec<Value>, Fault> {
        let attributes = Attributes(node);
        let operator = &node.op_type[..];
        let (gates, defaults): (usize, &[&str]) = match operator {
            "LSTM" => (4, &["Sigmoid", "Tanh", "Tanh"]),
            "GRU" => (3, &["Sigmoid", "Tanh"]),
            _ => (1, &["Tanh"]),
        };
        let directions: &[&str] = match &attributes.text("direction", "forward")[..] {
            "forward" => &["forward"],
            "reverse" => &["reverse"],
            "bidirectional" => &["forward", "reverse"],
            other => return Err(self.malformed(at, format!("a direction `{}`", other.escape_debug()))),
        };
        let labels = x.axes.as_ref().map(|axes| axes.iter().map(label).collect::<Vec<_>>());
        let is_any =
            |k: usize, label: &str| labels.as_ref().is_none_or(|labels| labels[k].is_empty() || labels[k] == label);
        if labels.as_ref().is_some_and(|labels| labels.len() != 3) {
            return Err(self.malformed(at, "its X has not three axes"));
        }
        if labels.as_ref().is_some_and(|labels| labels[..2] == ["batch", "time"]) {
            return Err(Fault::Order);
        }
        // Anything but [T, B, D] is a difference.
        let is_usual = is_any(0, "time") && is_any(1, "batch") && is_any(2, "features");
        let odd = labels.filter(|_| !is_usual).map(|labels| ("axes".to_owned(), labels.join(", ")));
        let constant = |k: usize, name: &str| match inputs.get(k) {
            Some(Value::Constant(array)) => Ok(Some(array.clone())),
            None | Some(Value::Absent) => Ok(None),
            Some(_) => Err(self.malformed(at, format!("its {name} is no constant"))),
        };
        let (w, r, b) = (constant(1, "W")?, constant(2, "R")?, constant(3, "B")?);
        let p = if operator == "LSTM" { constant(7, "P")? } else { None };
        let (Some(w), Some(r)) = (w, r) else { return Err(self.malformed(at, "it has no W or no R")) };
        let expect = |name: &str, array: &Array, expected: &[usize]| match array.shape == expected {
            true => Ok(()),
            false => Err(self.malformed(at, format!("{name}: expected {expected:?}, got {:?}", array.shape))),
        };
        let hidden = match attributes.get("hidden_size").and_then(|size| size.i) {
            Some(size) => usize::try_from(size).ok(),
            None => r.shape.last().copied(),
        };
        let rows = hidden.and_then(|hidden| hidden.checked_mul(2 * gates));
        let (Some(hidden), Some(both)) = (hidden, rows) else {
            return Err(self.malformed(at, "a hidden size that is none"));
        };
        expect("R", &r, &[directions.len(), both / 2, hidden])?;
        expect("W", &w, &[directions.len(), both / 2, w.shape.last().copied().unwrap_or(0)])?;
        if let Some(b) = &b {
            expect("B", b, &[directions.len(), both])?;
        }
        if let Some(p) = &p {
            expect("P", p, &[directions.len(), 3 * hidden])?;
        }
        let shared: Vec<_> = ["clip", "layout", "input_forget", "linear_before_reset"]
            .into_iter()
            .map(|name| (name, attributes.get(name).map_or_else(|| "0".into(), shown)))
            .collect();
        let given = |name: &str| attributes.get(name).map_or(&[][..], |attribute| &attribute.strings[..]);
        let activations = given("activations");
        if !activations.is_empty() && activations.len() != directions.len() * defaults.len() {
            return Err(self.malformed(
                at,
                format!("activations: expected {}, got {}", directions.len() * defaults.len(), activations.len()),
            ));
        }
        let activations = self.activations(at, attributes, activations)?;
        let mut terms = Vec::new();
        for (k, direction) in directions.iter().enumerate() {
            let own = |array: &Rc<Array>, terms: &mut Self| -> Result<Arg, Fault> {
                let mut part = array.taken(0, &[k], terms.budget)?;
                part.shape.remove(0);
                Ok(Arg::Constant(Rc::new(part)))
            };
            let mut args = vec![Arg::Term(x.term), own(&w, self)?, own(&r, self)?];
            for array in [&b, &p] {
                args.push(match array {
                    Some(array) => own(array, self)?,
                    None => Arg::None,
                });
            }
            args.extend([4, 5, 6].map(|k| inputs.get(k).map_or(Arg::None, arg_of)));
            let activations = match activations.chunks(defaults.len()).nth(k) {
                Some(own) => own.to_vec(),
                None => defaults.iter().map(|name| (*name).to_owned()).collect(),
            };
            let mut attributes = vec![
                ("direction".to_owned(), (*direction).to_owned()),
                ("activations".to_owned(), activations.join(", ")),
            ];
            attributes.extend(odd.clone());
            attributes.extend(shared.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
            terms.push(self.add(Some(at), operator.into(), attributes, args));
        }
        let lengths = is_given(inputs.get(4));
        let outer = |k: usize| x.axes.as_ref().and_then(|axes| axes.get(k).cloned());
        let axes = outer(0).zip(outer(1)).map(|(time, batch)| {
            let parts = if directions.len() == 1 { Vec::new() } else { vec![Atom::Parts(directions.len())] };
            vec![time, parts, batch, vec![Atom::Features(hidden)]]
        });
        let mut outputs = Vec::new();
        for k in 0..node.output.len().min(3) {
            let mut part = Vec::new();
            for (&term, &direction) in terms.iter().zip(directions) {
                part.push(match k {
                    0 => term,
                    1 if !lengths => self.step(at, term, if direction == "forward" { "last" } else { "first" }),
                    _ => {
                        self.add(Some(at), if k == 1 { "Y_h" } else { "Y_c" }.into(), Vec::new(), vec![Arg::Term(term)])
                    }
                });
            }
            let term = self.together(at, "Stack", &part, &vec![1; part.len()]).unwrap_or(part[0]);
            let axes = axes.clone().map(|mut axes| {
                if k > 0 {
                    axes.remove(0);
                }
                axes
            });
            outputs.push(Value::Signal(Signal { term, axes }));
        }
        Ok(outputs)
    }

    /// Activations with their alpha and beta. Those that have one take it from the node's lists, in order.
    fn activations(&self, at: usize, node: Attributes<'_>, names: &[Vec<u8>]) -> Result<Vec<String>, Fault> {
        let given = |name: &str| node.get(name).map_or(&[][..], |attribute| &attribute.floats[..]);
        let (mut alphas, mut betas) = (given("activation_alpha").iter(), given("activation_beta").iter());
        let mut all = Vec::new();
        for name in names {
            let name: String = String::from_utf8_lossy(name).chars().take(100).collect();
            // Names are case-insensitive.
            let Some(&(name, alpha, beta)) = ACTIVATIONS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(&name))
            else {
                all.push(name);
                continue;
            };
            let mut numbers = Vec::new();
            for (list, of, number) in [("activation_alpha", alpha, &mut alphas), ("activation_beta", beta, &mut betas)]
            {
                let number = match of {
                    Of::None => continue,
                    Of::Default(default) => number.next().copied().unwrap_or(default),
                    Of::Given => match number.next() {
                        Some(&number) => number,
                        None => return Err(self.malformed(at, format!("{list}: none for {name}"))),
                    },
                };
                numbers.push(format!("{number:?}"));
            }
            all.push(if numbers.is_empty() { name.to_owned() } else { format!("{name}({})", numbers.join(", ")) });
        }
        Ok(all)
    }
}

/// A number of an activation.
#[derive(Clone, Copy)]
enum Of {
    None,
    Default(f32),
    Given,
}

/// The operators' activations, with alpha and beta. The defaults are those of the operators of the same names; `Affine` and
/// `ScaledTanh` are no longer operators.
const ACTIVATIONS: [(&str, Of, Of); 11] = [
    ("Sigmoid", Of::None, Of::None),
    ("Tanh", Of::None, Of::None),
    ("Relu", Of::None, Of::None),
    ("Softsign", Of::None, Of::None),
    ("Softplus", Of::None, Of::None),
    ("LeakyRelu", Of::Default(0.01), Of::None),
    ("ThresholdedRelu", Of::Default(1.0), Of::None),
    ("Elu", Of::Default(1.0), Of::None),
    ("HardSigmoid", Of::Default(0.2), Of::Default(0.5)),
    ("Affine", Of::Given, Of::Given),
    ("ScaledTanh", Of::Given, Of::Given),
];
