//! Kind `train`: a language model's losses, norms and weights over a few optimizer steps.

use gradflow::ndarray::{Array1, Array3, ArrayView2, Axis, Ix2, Ix3, s};
use gradflow::{
    Float, Layer, ZerosLike,
    clip::{ClipNorm, NonFinite, clip_grad_value, grad_norm},
    layers::Linear,
    loss::{Loss, SoftmaxCrossEntropy},
    optim::{Adagrad, Adam, AdamW, NAdam, Optimizer, RmsProp, Sgd},
    recurrent::{Gru, Lstm, Rnn},
    sequential,
};

use crate::{Case, Results};

sequential! {
    #[derive(Clone)]
    struct Model<F: Float, R: Layer<Elem = F>>: Layer<F> {
        rnn: R,
        head: Linear<F>,
    }
}

pub fn run<F: Float>(case: &Case) -> Result<Results, String> {
    case.only("carry_state", true)?;
    let layers = case.size("num_layers")?;
    if layers == 0 {
        return Err("num_layers = 0".into());
    }
    let (vocabulary, hidden) = case.array::<F, Ix2>("state_dict.head.weight")?.dim();
    let head = Linear::<F>::zeros(hidden, vocabulary);
    match case.text("module")? {
        "RNN" => train(case, Model { rnn: Rnn::builder(vocabulary, hidden).num_layers(layers).zeros(), head }),
        "LSTM" => train(case, Model { rnn: Lstm::builder(vocabulary, hidden).num_layers(layers).zeros(), head }),
        "GRU" => train(case, Model { rnn: Gru::builder(vocabulary, hidden).num_layers(layers).zeros(), head }),
        module => Err(format!("unknown module {module}")),
    }
}

fn train<F: Float, R: Layer<Elem = F>>(case: &Case, mut model: Model<F, R>) -> Result<Results, String> {
    case.load(&mut model, |name| name)?;
    let (mut optimizer, clip) = (optimizer::<F>(case)?, Clip::of(case)?);
    let ids = case.integers::<Ix3>("input.ids")?;
    if ids.dim().0 != case.size("steps")? {
        return Err(format!("input.ids: expected {} steps, got {}", case.size("steps")?, ids.dim().0));
    }

    let vocabulary = model.head.weight.nrows();
    let (mut state, mut cache) = (model.zero_state(ids.dim().2), model.cache());
    let (mut grad, mut loss) = (model.zeros_like(), SoftmaxCrossEntropy::new());
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for ids in ids.outer_iter() {
        let x = one_hot(ids.slice(s![..-1, ..]), vocabulary);
        let targets = ids.slice(s![1.., ..]);
        let pass = model.pass(&x, &mut state, &mut cache);
        let loss = loss.of(&pass, &targets);
        losses.push(loss.value());
        pass.backward_into(loss.gradient(), &mut grad);
        norms.extend(clip.clip(&mut grad)?);
        optimizer.step(&mut model, &grad);
    }

    let mut results = Results::default();
    results.array("output.losses", &Array1::from(losses));
    if !norms.is_empty() {
        results.array("output.norms", &Array1::from(norms));
    }
    results.tensors("output.state_dict.", &model, |name| name);
    Ok(results)
}

fn one_hot<F: Float>(ids: ArrayView2<'_, usize>, vocabulary: usize) -> Array3<F> {
    let mut x = Array3::zeros((ids.nrows(), ids.ncols(), vocabulary));
    for (mut row, &id) in x.lanes_mut(Axis(2)).into_iter().zip(ids) {
        row[id] = F::one();
    }
    x
}

/// `optimizer` and `optimizer_args`, as in `torch.optim`.
fn optimizer<F: Float>(case: &Case) -> Result<Box<dyn Optimizer<F>>, String> {
    let mut arguments = case.nested("optimizer_args")?;
    let name = case.text("optimizer")?;
    let default = match name {
        "RMSprop" | "Adagrad" => 1e-2,
        "NAdam" => 2e-3,
        _ => 1e-3,
    };
    let learning_rate = arguments.number("lr")?.unwrap_or(default);
    let weight_decay = arguments.number("weight_decay")?;
    // Adam, AdamW and NAdam differ in type and in their last options.
    macro_rules! adam {
        ($adam:ident) => {{
            let mut adam = $adam::new(learning_rate);
            if let Some((beta1, beta2)) = arguments.pair("betas")? {
                adam = adam.betas(beta1, beta2);
            }
            if let Some(eps) = arguments.number("eps")? {
                adam = adam.eps(eps);
            }
            if let Some(weight_decay) = weight_decay {
                adam = adam.weight_decay(weight_decay);
            }
            adam
        }};
        ($adam:ident, amsgrad) => {{
            let adam = adam!($adam);
            Box::new(if arguments.flag("amsgrad")? { adam.amsgrad() } else { adam })
        }};
    }
    // Sets the given options, whose names are the same in both libraries; the defaults of the others are the same.
    macro_rules! set {
        ($optimizer:ident; $($option:ident),+) => {$(
            if let Some(value) = arguments.number(stringify!($option))? {
                $optimizer = $optimizer.$option(value);
            }
        )+};
    }
    let optimizer: Box<dyn Optimizer<F>> = match name {
        "SGD" => {
            let sgd = Sgd::new(learning_rate)
                .momentum(arguments.number("momentum")?.unwrap_or(0.0))
                .dampening(arguments.number("dampening")?.unwrap_or(0.0))
                .weight_decay(weight_decay.unwrap_or(0.0));
            Box::new(if arguments.flag("nesterov")? { sgd.nesterov() } else { sgd })
        }
        "Adam" => adam!(Adam, amsgrad),
        "AdamW" => adam!(AdamW, amsgrad),
        "NAdam" => {
            let mut nadam = adam!(NAdam);
            set!(nadam; momentum_decay);
            Box::new(if arguments.flag("decoupled_weight_decay")? { nadam.decoupled_weight_decay() } else { nadam })
        }
        "RMSprop" => {
            let mut rms_prop = RmsProp::new(learning_rate).weight_decay(weight_decay.unwrap_or(0.0));
            set!(rms_prop; alpha, eps, momentum);
            Box::new(if arguments.flag("centered")? { rms_prop.centered() } else { rms_prop })
        }
        "Adagrad" => {
            let mut adagrad = Adagrad::new(learning_rate).weight_decay(weight_decay.unwrap_or(0.0));
            set!(adagrad; lr_decay, initial_accumulator_value, eps);
            Box::new(adagrad)
        }
        optimizer => return Err(format!("unknown optimizer {optimizer}")),
    };
    arguments.finish().map_err(|error| format!("optimizer_args: {error}"))?;
    Ok(optimizer)
}

/// `clip`, with the semantics of PyTorch's `clip_grad_norm_` and `clip_grad_value_`.
enum Clip {
    None,
    Norm(ClipNorm),
    Value(f64),
}

impl Clip {
    fn of(case: &Case) -> Result<Clip, String> {
        let mut options = case.nested("clip")?;
        let kind = options.text("type")?;
        let max = options.number("max")?.ok_or("clip: max is missing".to_owned());
        let clip = match kind.as_str() {
            "none" => Clip::None,
            "norm" => {
                let p = options.number("p")?.unwrap_or(2.0);
                Clip::Norm(ClipNorm::new(max?).norm_type(p).non_finite(NonFinite::Pass))
            }
            "value" => Clip::Value(max?),
            kind => return Err(format!("clip: unknown type {kind}")),
        };
        options.finish().map_err(|error| format!("clip: {error}"))?;
        Ok(clip)
    }

    /// The norm before clipping, if there is one.
    fn clip<F: Float>(&self, grad: &mut impl gradflow::Tensors<F>) -> Result<Option<f64>, String> {
        match self {
            Clip::None => Ok(None),
            Clip::Norm(clip) => clip.clip(grad).map(Some).map_err(|error| error.to_string()),
            Clip::Value(max) => {
                let norm = grad_norm(grad, 2.0);
                clip_grad_value(grad, *max).map_err(|error| error.to_string())?;
                Ok(Some(norm))
            }
        }
    }
}
