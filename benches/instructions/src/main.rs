//! The work whose instructions are counted: `instructions <case> <repetitions>`. `instructions --list` prints each case with the
//! multiply-adds of its products, one for each element.

use std::hint::black_box;
use std::process::exit;

use gradflow::ndarray::Array3;
use gradflow::prelude::*;
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::wrap::Prepacked;

/// Work that is repeated this number of times.
type Run = Box<dyn Fn(usize)>;

struct Case {
    name: String,
    multiply_adds: usize,
    run: Run,
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(0)
}

fn input<F: Float>(dims: [usize; 3]) -> Array3<F> {
    Array3::from_shape_fn(dims, |(t, b, i)| F::of(((t * 31 + b * 17 + i * 7) as f64).sin()))
}

fn inference<L: Layer>(dims: [usize; 3], layer: impl Fn() -> L + 'static) -> Run {
    Box::new(move |repetitions| {
        let (layer, x) = (Prepacked::new(layer()), input::<L::Elem>(dims));
        let (mut state, mut cache) = (layer.zero_state(dims[1]), layer.cache());
        for _ in 0..repetitions {
            black_box(layer.forward(Sequence::from(&x).infer(), &mut state, &mut cache));
        }
    })
}

fn training<L: Layer>(dims: [usize; 3], layer: impl Fn() -> L + 'static) -> Run {
    Box::new(move |repetitions| {
        let (layer, x) = (layer(), input::<L::Elem>(dims));
        let (mut state, mut cache, mut grad) = (layer.zero_state(dims[1]), layer.cache(), layer.zeros_like());
        let dy = layer.forward(&x, &mut state, &mut cache).to_owned();
        for _ in 0..repetitions {
            black_box(layer.pass(&x, &mut state, &mut cache).backward_into(&dy, &mut grad));
        }
    })
}

/// Three large products: `x Wᵀ`, `dyᵀ x` and `dy W`.
fn products<F: Float>(cases: &mut Vec<Case>, element: &str) {
    for [rows, inputs, outputs] in [[256, 256, 256], [448, 300, 200], [256, 30, 10]] {
        cases.push(Case {
            name: format!("products-{element}-{rows}x{inputs}x{outputs}"),
            multiply_adds: 3 * rows * inputs * outputs,
            run: training([1, rows, inputs], move || Linear::<F>::new(inputs, outputs, &mut rng())),
        });
    }
    for rows in [1, 2, 4, 16, 64] {
        cases.push(Case {
            name: format!("packed-{element}-{rows}"),
            multiply_adds: rows * 256 * 256,
            run: inference([1, rows, 256], || Linear::<F>::new(256, 256, &mut rng())),
        });
    }
}

fn recurrent<L: Layer + 'static>(cases: &mut Vec<Case>, name: &str, gates: usize, new: fn(usize) -> L) {
    for [steps, batch, size] in [[1, 1, 32], [1, 1, 128], [20, 1, 64], [1, 16, 64], [20, 16, 64], [20, 16, 128]] {
        let (dims, multiply_adds) = ([steps, batch, size], steps * batch * gates * size * 2 * size);
        let sizes = format!("T{steps}-B{batch}-H{size}");
        let layer = move || new(size);
        cases.push(Case { name: format!("{name}-inference-{sizes}"), multiply_adds, run: inference(dims, layer) });
        let multiply_adds = 3 * multiply_adds;
        cases.push(Case { name: format!("{name}-training-{sizes}"), multiply_adds, run: training(dims, layer) });
    }
}

fn main() {
    let mut cases = Vec::new();
    products::<f32>(&mut cases, "f32");
    products::<f64>(&mut cases, "f64");
    recurrent(&mut cases, "lstm", 4, |size| Lstm::<f32>::new(size, size, &mut rng()));
    recurrent(&mut cases, "gru", 3, |size| Gru::<f32>::new(size, size, &mut rng()));

    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => cases.iter().for_each(|case| println!("{} {}", case.name, case.multiply_adds)),
        [name, repetitions] => {
            let case = cases.iter().find(|case| case.name == *name).unwrap_or_else(|| exit(usage()));
            (case.run)(repetitions.parse().unwrap_or_else(|_| exit(usage())));
        }
        _ => exit(usage()),
    }
}

fn usage() -> i32 {
    eprintln!("usage: instructions --list | <case> <repetitions>");
    64
}
