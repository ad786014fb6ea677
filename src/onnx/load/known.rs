//! Recognises several operators as one layer.

use std::rc::Rc;

use super::array::Array;
use super::places::term_of;
use super::terms::{Arg, Term, Terms, Value};

impl Terms<'_> {
    /// A value that several operators compute, as the single operator that it amounts to.
    pub(super) fn recognised(&mut self, at: usize, value: Value) -> Value {
        let Value::Signal(signal) = &value else { return value };
        if let Some((x, epsilon, gain, bias)) = Norm(&self.terms).whole(signal.term) {
            let args = vec![Arg::Term(x), Arg::Constant(gain), Arg::Constant(bias)];
            let epsilon = vec![("epsilon".to_owned(), format!("{:?}", epsilon as f32))];
            return self.signal(at, "LayerNormalization", epsilon, args, signal.axes.clone());
        }
        self.as_gelu(at, value)
    }

    /// x (1 + erf(x / √2)) / 2, with the factors in any order, as `Gelu`.
    pub(super) fn as_gelu(&mut self, at: usize, value: Value) -> Value {
        let Value::Signal(signal) = &value else { return value };
        let about = |got: f64, want: f64| (got - want).abs() < 1e-6 * want;
        let (factor, terms) = self.factors(signal.term);
        let [a, b] = terms[..] else { return value };
        if !about(factor, 0.5) {
            return value;
        }
        let found = [(a, b), (b, a)].into_iter().find(|&(x, sum)| {
            let sum = &self.terms[sum];
            let [Arg::Term(erf), Arg::Constant(one)] = &sum.args[..] else { return false };
            let inner = self.terms[*erf].input.filter(|_| self.terms[*erf].operator == "Erf");
            let (Some(inner), true) = (inner, sum.operator == "Add" && one.count() == 1 && about(one.number(0), 1.0))
            else {
                return false;
            };
            let (factor, terms) = self.factors(inner);
            about(factor, std::f64::consts::FRAC_1_SQRT_2) && terms == [x]
        });
        match found {
            Some((x, _)) => self.signal(at, "Gelu", Vec::new(), vec![Arg::Term(x)], signal.axes.clone()),
            None => value,
        }
    }

    /// A product as a number and at most a few terms.
    pub(super) fn factors(&self, term: usize) -> (f64, Vec<usize>) {
        const MOST_STEPS: usize = 8;
        let (mut factor, mut terms, mut open) = (1.0, Vec::new(), vec![term]);
        let mut steps = 0;
        while let Some(term) = open.pop() {
            let (operator, args) = (&self.terms[term].operator[..], &self.terms[term].args[..]);
            steps += 1;
            match (operator, args) {
                _ if steps > MOST_STEPS => terms.push(term),
                ("Mul", [Arg::Term(x), Arg::Constant(scalar)]) if scalar.shape.is_empty() => {
                    factor *= scalar.number(0);
                    open.push(*x);
                }
                ("Div", [Arg::Term(x), Arg::Constant(scalar)]) if scalar.shape.is_empty() => {
                    factor /= scalar.number(0);
                    open.push(*x);
                }
                ("Mul", [Arg::Term(a), Arg::Term(b)]) => open.extend([*a, *b]),
                _ => terms.push(term),
            }
        }
        (factor, terms)
    }

    /// The input, if a term returns each id below `count` unchanged: tf2onnx adds nodes that count negative ids from the end.
    pub(super) fn ids_of(&self, term: usize, count: usize) -> Option<usize> {
        const MOST_STEPS: usize = 64;
        let mut x = None;
        for id in 0..count {
            let mut steps = MOST_STEPS;
            if self.number(term, id as f64, &mut x, &mut steps)? != id as f64 {
                return None;
            }
        }
        x
    }

    /// The value of a term if the input `x` is `id`.
    pub(super) fn number(&self, term: usize, id: f64, x: &mut Option<usize>, steps: &mut usize) -> Option<f64> {
        *steps = steps.checked_sub(1)?;
        let (operator, args) = (&self.terms[term].operator[..], &self.terms[term].args);
        if operator == "x" {
            *x = Some(term);
            return Some(id);
        }
        let mut numbers = [0.0; 3];
        if args.len() > numbers.len() || args.is_empty() {
            return None;
        }
        for (number, arg) in numbers.iter_mut().zip(args) {
            *number = match arg {
                Arg::Term(term) => self.number(*term, id, x, steps)?,
                Arg::Constant(array) if array.count() == 1 => array.number(0),
                _ => return None,
            };
        }
        let [a, b, c] = numbers;
        let truth = |is_true: bool| f64::from(u8::from(is_true));
        Some(match (operator, args.len()) {
            ("Cast", 1) => a,
            ("Not", 1) => truth(a == 0.0),
            ("Add", 2) => a + b,
            ("Sub", 2) => a - b,
            ("Mul", 2) => a * b,
            ("Less", 2) => truth(a < b),
            ("Greater", 2) => truth(a > b),
            ("Where", 3) => {
                if a == 0.0 {
                    c
                } else {
                    b
                }
            }
            _ => return None,
        })
    }
}

/// Layer normalisation in parts: it is one operator from operator set 17 on, and several before.
struct Norm<'a>(&'a [Term]);

impl Norm<'_> {
    fn args(&self, term: usize, operator: &str) -> Option<&[Arg]> {
        (self.0[term].operator == operator).then_some(&self.0[term].args)
    }

    /// Both arguments of a product of terms, each as the first one.
    fn factors(&self, term: usize) -> Option<[(usize, usize); 2]> {
        match self.args(term, "Mul")? {
            [Arg::Term(a), Arg::Term(b)] => Some([(*a, *b), (*b, *a)]),
            _ => None,
        }
    }

    /// x of its mean.
    fn mean(&self, term: usize) -> Option<usize> {
        let args = self.args(term, "ReduceMean")?;
        args.first().and_then(term_of).filter(|_| self.0[term].attribute("over") == "features")
    }

    /// x of x - mean
    fn deviation(&self, term: usize) -> Option<usize> {
        match self.args(term, "Sub")? {
            [Arg::Term(x), Arg::Term(mean)] => self.mean(*mean).filter(|of| of == x),
            _ => None,
        }
    }

    /// x and ε of √(variance + ε)
    fn root(&self, term: usize) -> Option<(usize, f64)> {
        let sum = self.args(term, "Sqrt")?.first().and_then(term_of)?;
        let [Arg::Term(variance), Arg::Constant(epsilon)] = self.args(sum, "Add")? else { return None };
        let square = self.mean(*variance)?;
        let deviation = match &self.0[square].args[..] {
            [Arg::Term(a), Arg::Term(b)] if a == b && self.0[square].operator == "Mul" => *a,
            [Arg::Term(a), Arg::Constant(two)]
                if self.0[square].operator == "Pow" && two.count() == 1 && two.number(0) == 2.0 =>
            {
                *a
            }
            _ => return None,
        };
        let is_scalar = epsilon.count() == 1 && epsilon.kind.is_float();
        Some((self.deviation(deviation)?, epsilon.number(0))).filter(|_| is_scalar)
    }

    /// x, ε and γ of γ / √(variance + ε)
    fn factor(&self, term: usize) -> Option<(usize, f64, Rc<Array>)> {
        let [Arg::Term(inverse), Arg::Constant(gain)] = self.args(term, "Mul")? else { return None };
        let (x, epsilon) = self.root(self.args(*inverse, "Reciprocal")?.first().and_then(term_of)?)?;
        Some((x, epsilon, gain.clone()))
    }

    /// x, ε, γ and β of γ (x - mean) / √(variance + ε) + β
    fn whole(&self, term: usize) -> Option<(usize, f64, Rc<Array>, Rc<Array>)> {
        let (first, second) = match self.args(term, "Add")? {
            [Arg::Term(scaled), Arg::Constant(bias)] => {
                let [Arg::Term(normal), Arg::Constant(gain)] = self.args(*scaled, "Mul")? else { return None };
                let [Arg::Term(deviation), Arg::Term(root)] = self.args(*normal, "Div")? else { return None };
                let (x, epsilon) = self.root(*root)?;
                let is_norm = self.deviation(*deviation) == Some(x);
                return is_norm.then(|| (x, epsilon, gain.clone(), bias.clone()));
            }
            [Arg::Term(a), Arg::Term(b)] => (*a, *b),
            _ => return None,
        };
        // As in TensorFlow: x f + (β - mean f), where f = γ / √(variance + ε).
        [(first, second), (second, first)].into_iter().find_map(|(scaled, shift)| {
            let [Arg::Term(moved), Arg::Constant(bias)] = self.args(shift, "Add")? else { return None };
            self.factors(scaled)?.into_iter().find_map(|(x, factor)| {
                let (of, epsilon, gain) = self.factor(factor)?;
                let is_moved = self.factors(*moved)?.into_iter().any(|(negative, other)| {
                    let mean = self.args(negative, "Neg").and_then(|args| args.first().and_then(term_of));
                    other == factor && mean.and_then(|mean| self.mean(mean)) == Some(x)
                });
                (of == x && is_moved).then(|| (x, epsilon, gain, bias.clone()))
            })
        })
    }
}
