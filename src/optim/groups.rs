//! Parameters that are treated differently from the rest.

use std::fmt;

use crate::base::{Expect, Tensors, TensorsExt, check_number};
use crate::kernels::Float;

/// The parameters to which a rule of [`ParameterGroups`] applies.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use]
pub enum Select {
    /// Those whose name starts with this: `encoder.`.
    Prefix(String),
    /// Those whose name ends with this: `norm.weight`.
    Suffix(String),
    /// Those whose name contains this: `bias`.
    Contains(String),
    /// Those with at most one axis: biases, gains of norms, scales of residual branches.
    Vectors,
    /// Those for which a function of name and shape is true.
    Where {
        /// What the message calls them if none is found.
        what: String,
        /// Whether a parameter with this name and shape is one of them.
        is_one: fn(&str, &[usize]) -> bool,
    },
}

impl Select {
    /// Those whose name starts with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Select::Prefix(prefix.into())
    }

    /// Those whose name ends with `suffix`.
    pub fn suffix(suffix: impl Into<String>) -> Self {
        Select::Suffix(suffix.into())
    }

    /// Those whose name contains `part`.
    pub fn contains(part: impl Into<String>) -> Self {
        Select::Contains(part.into())
    }

    /// Those for which `is_one`, a function of name and shape, is true; `what` names them in the message if there is none.
    pub fn matching(what: impl Into<String>, is_one: fn(&str, &[usize]) -> bool) -> Self {
        Select::Where { what: what.into(), is_one }
    }

    fn fits(&self, name: &str, shape: &[usize]) -> bool {
        match self {
            Select::Prefix(prefix) => name.starts_with(prefix.as_str()),
            Select::Suffix(suffix) => name.ends_with(suffix.as_str()),
            Select::Contains(part) => name.contains(part.as_str()),
            Select::Vectors => shape.len() <= 1,
            Select::Where { is_one, .. } => is_one(name, shape),
        }
    }
}

/// Functions are equal if they have the same address.
impl PartialEq for Select {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Select::Prefix(a), Select::Prefix(b)) => a == b,
            (Select::Suffix(a), Select::Suffix(b)) => a == b,
            (Select::Contains(a), Select::Contains(b)) => a == b,
            (Select::Vectors, Select::Vectors) => true,
            (Select::Where { what, is_one }, Select::Where { what: other_what, is_one: other_is_one }) => {
                what == other_what && std::ptr::fn_addr_eq(*is_one, *other_is_one)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Select::Prefix(prefix) => write!(f, "prefix {prefix:?}"),
            Select::Suffix(suffix) => write!(f, "suffix {suffix:?}"),
            Select::Contains(part) => write!(f, "part {part:?}"),
            Select::Vectors => f.write_str("at most one axis"),
            Select::Where { what, .. } => f.write_str(what),
        }
    }
}

/// How the parameters of a group are treated: by default, like all others.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Group {
    pub(super) learning_rate_factor: f64,
    pub(super) weight_decay: Option<f64>,
    pub(super) frozen: bool,
}

impl Group {
    /// A group that is treated like all others.
    pub fn new() -> Self {
        Group { learning_rate_factor: 1.0, weight_decay: None, frozen: false }
    }

    /// Multiplies the learning rate by `factor`.
    ///
    /// # Panics
    /// Panics if it is negative or not finite.
    #[track_caller]
    pub fn learning_rate_factor(self, factor: f64) -> Self {
        Group {
            learning_rate_factor: check_number::<f64>("Group", "learning rate factor", Expect::AtLeast0, factor),
            ..self
        }
    }

    /// Uses this weight decay instead of the optimizer's; 0 is none.
    ///
    /// # Panics
    /// Panics if it is negative or not finite.
    #[track_caller]
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        Group {
            weight_decay: Some(check_number::<f64>("Group", "weight decay", Expect::AtLeast0, weight_decay)),
            ..self
        }
    }

    /// Freezes the parameters: no step, no decay, no moments. As in PyTorch, frozen parameters have no gradient: values that
    /// `backward` wrote there are not read by a step, do not count in the norm of
    /// [`step_clipped`](crate::optim::Optimizer::step_clipped), and stop nothing if they are NaN.
    pub fn frozen(self) -> Self {
        Group { frozen: true, ..self }
    }
}

impl Default for Group {
    fn default() -> Self {
        Group::new()
    }
}

/// Rules for parameters that an optimizer treats differently from the rest: no decay on biases, a smaller learning rate, frozen
/// layers.
///
/// If several rules match a parameter, all of them apply: learning-rate factors multiply, the last weight decay counts,
/// and one rule that freezes suffices. Rules are resolved at the first step, which panics if one of them matches no
/// parameter.
///
/// ```
/// use gradflow::rand::{SeedableRng, rngs::StdRng};
/// use gradflow::{
///     Layer, TensorsExt, ZerosLike, layers::Linear, optim::{AdamW, Group, Optimizer, ParameterGroups, Select},
///     recurrent::LstmCell,
/// };
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let mut model = (LstmCell::<f32>::new(3, 4, rng), Linear::new(4, 2, rng));
/// assert_eq!(model.names()[3..], ["0.bias_hh", "1.weight", "1.bias"]);
/// let groups = ParameterGroups::new()
///     .add(Select::Vectors, Group::new().weight_decay(0.0))
///     .add(Select::prefix("0."), Group::new().learning_rate_factor(0.1))
///     .add(Select::suffix("weight_hh"), Group::new().frozen());
/// let (before, grad) = (model.clone(), model.zeros_like());
/// AdamW::new(1e-2).weight_decay(0.1).groups(groups).step(&mut model, &grad);
/// assert_eq!((&model.1.bias, &model.0.weight_hh), (&before.1.bias, &before.0.weight_hh));
/// assert_ne!(model.1.weight, before.1.weight);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct ParameterGroups {
    rules: Vec<(Select, Group)>,
}

impl ParameterGroups {
    /// No rules: all parameters are treated alike.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule.
    pub fn add(mut self, select: Select, group: Group) -> Self {
        self.rules.push((select, group));
        self
    }

    /// The treatment of each of `model`'s tensors, in order.
    #[track_caller]
    pub(super) fn resolve<F: Float>(&self, optimizer: &str, model: &dyn Tensors<F>) -> Vec<Group> {
        let mut groups = vec![Group::new(); model.count()];
        for (select, rule) in &self.rules {
            let mut found = false;
            for (i, group) in groups.iter_mut().enumerate() {
                if select.fits(&model.name(i), model.shape(i)) {
                    found = true;
                    group.learning_rate_factor *= rule.learning_rate_factor;
                    group.weight_decay = rule.weight_decay.or(group.weight_decay);
                    group.frozen |= rule.frozen;
                }
            }
            assert!(found, "{optimizer}: groups: {select}: fits no parameter of {:?}", model.names());
        }
        for group in &groups {
            check_number::<F>(optimizer, "learning rate factors", Expect::AtLeast0, group.learning_rate_factor);
            check_number::<F>(optimizer, "weight decay", Expect::AtLeast0, group.weight_decay.unwrap_or(0.0));
        }
        groups
    }
}
