//! Planted mistakes are found and named, and the report says by how much.

use gradflow::ndarray::{Array3, ArrayRef3, ArrayView3};
use gradflow::{
    Layer, Sequence, TensorsExt, ZerosLike,
    author::{Gradient, Size, SizeError},
    check::GradCheck,
    parameters,
    recurrent::{LstmCell, LstmState},
};

use super::{input, varied_state};
use crate::common::rng;

/// A layer whose backward pass is wrong in a chosen way.
#[derive(Clone)]
struct Flawed {
    cell: LstmCell<f64>,
    flaw: Flaw,
}
parameters! { impl Tensors<f64> for Flawed { cell as ""; skip flaw } }

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    /// The gradient from the cell state does not reach the initial state.
    DroppedTerm,
    WrongSign,
    FactorTwo,
    /// `=` instead of `+=`.
    Overwritten,
    /// The input gate's rows in place of the forget gate's.
    GatesSwapped,
    /// One element of the input's gradient is NaN.
    NotANumber,
}

impl Layer for Flawed {
    type Elem = f64;
    type State = LstmState<f64>;
    type Cache = (<LstmCell<f64> as Layer>::Cache, Array3<f64>);

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.cell.output_size(input)
    }

    fn zero_state(&self, batch: usize) -> LstmState<f64> {
        self.cell.zero_state(batch)
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        state: &mut LstmState<f64>,
        cache: &'c mut Self::Cache,
    ) -> ArrayView3<'c, f64> {
        self.cell.forward(x, state, &mut cache.0)
    }

    fn output<'c>(&self, cache: &'c Self::Cache) -> ArrayView3<'c, f64> {
        self.cell.output(&cache.0)
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        dy: &ArrayRef3<f64>,
        mut dstate: Option<&mut LstmState<f64>>,
        (inner, dx): &'c mut Self::Cache,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, f64> {
        let grad = grad.to_add();
        let mut own = self.cell.zeros_like();
        *dx = self.cell.backward(x, dy, dstate.as_deref_mut(), inner, &mut own).to_owned();
        let hidden = self.cell.hidden_size();
        match self.flaw {
            Flaw::None => {}
            Flaw::DroppedTerm => dstate.unwrap().c.fill(0.0),
            Flaw::WrongSign => own.weight_hh.row_mut(2 * hidden).mapv_inplace(|g| -g),
            Flaw::FactorTwo => own.bias_hh.as_mut().unwrap().mapv_inplace(|g| 2.0 * g),
            Flaw::Overwritten => grad.cell.bias_ih.as_mut().unwrap().fill(0.0),
            Flaw::GatesSwapped => {
                for row in 0..hidden {
                    let (i, f) = (own.weight_ih.row(row).to_owned(), own.weight_ih.row(hidden + row).to_owned());
                    own.weight_ih.row_mut(row).assign(&f);
                    own.weight_ih.row_mut(hidden + row).assign(&i);
                }
            }
            Flaw::NotANumber => dx[[1, 1, 1]] = f64::NAN,
        }
        grad.cell.add_assign(&own);
        dx.view()
    }
}

#[test]
fn planted_mistakes_are_found_and_named() {
    let cell = LstmCell::builder(5, 4).pytorch().build(&mut rng(5));
    let x = input(5);
    for (flaw, tensor) in [
        (Flaw::None, None),
        (Flaw::DroppedTerm, Some("state.c")),
        (Flaw::WrongSign, Some("weight_hh")),
        (Flaw::FactorTwo, Some("bias_hh")),
        (Flaw::Overwritten, Some("bias_ih")),
        (Flaw::GatesSwapped, Some("weight_ih")),
        (Flaw::NotANumber, Some("x")),
    ] {
        let layer = Flawed { cell: cell.clone(), flaw };
        for (mode, check) in [("full", GradCheck::default()), ("fast", GradCheck::default().fast(8))] {
            let report = check.check(&layer, (&x).into(), &varied_state(&layer));
            let failed: Vec<_> = report.failures().map(|check| check.tensor.as_str()).collect();
            assert_eq!(failed, Vec::from_iter(tensor), "{flaw:?}, {mode}\n{report}");
            assert_eq!(report.passed(), tensor.is_none());
            let printed = report.to_string();
            assert!(tensor.is_none_or(|tensor| {
                printed.lines().any(|line| line.starts_with(tensor) && line.ends_with("FAIL"))
            }));
        }
    }
}

#[test]
fn the_report_gives_the_worst_element_with_both_values() {
    let cell = LstmCell::builder(5, 4).pytorch().build(&mut rng(5));
    let x = input(5);
    let report = |flaw| {
        let layer = Flawed { cell: cell.clone(), flaw };
        GradCheck::default().check(&layer, (&x).into(), &varied_state(&layer))
    };
    let (right, wrong) = (report(Flaw::None), report(Flaw::FactorTwo));
    let worst = wrong.tensors.iter().find(|check| check.tensor == "bias_hh").unwrap();
    assert_eq!(worst.tried, 16);
    assert!((worst.analytic / worst.numeric - 2.0).abs() < 1e-6, "{worst:?}");
    assert!((worst.error - 0.5).abs() < 1e-6, "half of the doubled largest gradient: {worst:?}");
    assert!(right.worst_error() < 1e-8);
}

#[test]
fn single_precision_has_a_tolerance_of_its_own() {
    let cell = LstmCell::<f32>::builder(5, 4).pytorch().build(&mut rng(5));
    let x = input(5).mapv(|value| value as f32);
    let check = |check: GradCheck| check.check(&cell, (&x).into(), &cell.zero_state(3));
    let report = check(GradCheck::default());
    assert!(report.passed() && report.tolerance == 1e-2, "{report}");
    assert!(!check(GradCheck::default().tolerance(1e-6)).passed(), "f32 cannot pass the tolerance of f64");
}
