//! An actor-critic agent (advantages by Schulman et al. 2016) whose batch holds many short episodes in each row.

use gradflow::clip::ClipNorm;
use gradflow::ndarray::{Array2, Array3, ArrayView1, Axis, s};
use gradflow::optim::{Adam, Optimizer};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::recurrent::Lstm;
use gradflow::{Layer, Sequence, ZerosLike, layers::Linear};

use super::maze::{ACTIONS, Maze, SEEN};

/// Mazes in a batch, B.
const MAZES: usize = 64;

const HIDDEN: usize = 16;
const RATE: f64 = 0.01;
const CLIP: f64 = 0.5;

/// The discount of later rewards, how far advantages look ahead, and the weights of the value's error and of the entropy.
const DISCOUNT: f32 = 0.98;
const TRACE: f32 = 0.95;
const VALUE: f32 = 0.1;
const ENTROPY: f32 = 0.01;

/// The part of its past that the agent remembers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Memory {
    /// The episode: the state starts anew with each.
    Episode,
    /// Nothing: the state of the same policy starts anew at each step.
    None,
}

/// Logits of the actions and the value: `[T, B, ACTIONS + 1]`.
type Policy = (Lstm<f32>, Linear<f32>);

/// A policy, and the mazes in which it learns.
pub struct Agent {
    policy: Policy,
    /// The cache of single steps.
    steps: <Policy as Layer>::Cache,
    memory: Memory,
    corridor: usize,
    rng: StdRng,
}

/// The experience of a policy in T steps of B mazes.
struct Window {
    x: Array3<f32>,         // [T, B, SEEN]
    resets: Array2<bool>,   // [T, B]
    actions: Array2<usize>, // [T, B]
    rewards: Array2<f32>,   // [T, B]
    ends: Array2<bool>,     // [T, B]: the episode ended with the step
    values: Array2<f32>,    // [T + 1, B]
}

impl Window {
    fn new(steps: usize) -> Self {
        let shape = (steps, MAZES);
        Window {
            x: Array3::zeros((steps, MAZES, SEEN)),
            resets: Array2::default(shape),
            actions: Array2::default(shape),
            rewards: Array2::zeros(shape),
            ends: Array2::default(shape),
            values: Array2::zeros((steps + 1, MAZES)),
        }
    }

    /// How much better each action was than the value of the state in which it was taken: `A_t = δ_t + γ λ A_{t+1}` within an
    /// episode, with `δ_t = r_t + γ v_{t+1} - v_t`.
    fn advantages(&self) -> Array2<f32> {
        let mut advantages = Array2::zeros(self.rewards.raw_dim());
        for b in 0..MAZES {
            let mut next = 0.0;
            for t in (0..advantages.nrows()).rev() {
                let goes_on = if self.ends[[t, b]] { 0.0 } else { 1.0 };
                let later = goes_on * DISCOUNT * self.values[[t + 1, b]];
                next = self.rewards[[t, b]] + later - self.values[[t, b]] + goes_on * DISCOUNT * TRACE * next;
                advantages[[t, b]] = next;
            }
        }
        advantages
    }

    /// The gradient of the mean of `-A log p(action) + VALUE (v - target)² / 2 - ENTROPY H(p)` with respect to logits and value.
    fn gradient(&self, y: &Array3<f32>) -> Array3<f32> {
        let (advantages, mut dy) = (self.advantages(), Array3::zeros(y.raw_dim()));
        let share = 1.0 / advantages.len() as f32;
        for ((t, b), &advantage) in advantages.indexed_iter() {
            let p = probabilities(y.slice(s![t, b, ..]));
            let entropy: f32 = -p.iter().map(|p| p * p.max(1e-20).ln()).sum::<f32>();
            for (k, p) in p.into_iter().enumerate() {
                let chosen = if k == self.actions[[t, b]] { 1.0 } else { 0.0 };
                let of_policy = advantage * (p - chosen);
                dy[[t, b, k]] = share * (of_policy + ENTROPY * p * (p.max(1e-20).ln() + entropy));
            }
            // The target is the value at that time plus the advantage.
            let error = y[[t, b, ACTIONS]] - self.values[[t, b]] - advantage;
            dy[[t, b, ACTIONS]] = share * VALUE * error;
        }
        dy
    }
}

/// The softmax of the logits.
fn probabilities(y: ArrayView1<'_, f32>) -> [f32; ACTIONS] {
    let largest = y.iter().take(ACTIONS).fold(f32::NEG_INFINITY, |largest, &z| largest.max(z));
    let powers: [f32; ACTIONS] = std::array::from_fn(|k| (y[k] - largest).exp());
    powers.map(|power| power / powers.iter().sum::<f32>())
}

/// An action drawn from the policy.
fn draw(y: ArrayView1<'_, f32>, rng: &mut StdRng) -> usize {
    let (p, mut left) = (probabilities(y), rng.random_range(0.0..1.0_f32));
    let drawn = p.iter().position(|p| {
        left -= p;
        left < 0.0
    });
    drawn.unwrap_or(ACTIONS - 1)
}

/// The likeliest action.
fn likeliest(y: ArrayView1<'_, f32>) -> usize {
    (1..ACTIONS).fold(0, |best, k| if y[k] > y[best] { k } else { best })
}

impl Agent {
    pub fn new(memory: Memory, corridor: usize, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // The input of a step can be kept for as long as an episode takes.
        let lstm = Lstm::builder(SEEN, HIDDEN).chrono((corridor + 10) as f64).build(&mut rng);
        let policy = (lstm, Linear::new(HIDDEN, ACTIONS + 1, &mut rng));
        Agent { steps: policy.cache(), policy, memory, corridor, rng }
    }

    fn mazes(&mut self) -> Vec<Maze> {
        (0..MAZES).map(|_| Maze::new(self.corridor, &mut self.rng)).collect()
    }

    /// Trains with this number of updates. For each update, gives the share of right turns among the episodes that ended in it.
    pub fn train(&mut self, updates: usize) -> Vec<f64> {
        let mut window = Window::new(3 * self.corridor + 15);
        let (mut mazes, mut state) = (self.mazes(), self.policy.zero_state(MAZES));
        let (mut cache, mut grad, mut optimizer) = (self.policy.cache(), self.policy.zeros_like(), Adam::new(RATE));
        let (clip, mut shares) = (ClipNorm::new(CLIP), Vec::new());
        // The first step of a row starts an episode.
        let mut starts = [true; MAZES];
        for _ in 0..updates {
            let first = state.clone();
            let (mut right, mut turned) = (0, 0);
            for t in 0..window.x.dim().0 {
                let y = self.look(&mut window, t, &mazes, &starts, &mut state);
                for (b, maze) in mazes.iter_mut().enumerate() {
                    let action = draw(y.slice(s![0, b, ..]), &mut self.rng);
                    let step = maze.act(action, &mut self.rng);
                    (window.actions[[t, b]], window.rewards[[t, b]]) = (action, step.reward);
                    (window.ends[[t, b]], starts[b]) = (step.turned.is_some(), step.turned.is_some());
                    turned += usize::from(step.turned.is_some());
                    right += usize::from(step.turned == Some(true));
                }
            }
            shares.push(right as f64 / turned.max(1) as f64);
            // The value of the current observation stands for all later rewards.
            self.look_ahead(&mut window, &mazes, &starts, &state);
            // All steps again in one pass: each episode from its start, or from where the last window ended.
            let x = Sequence::from(&window.x).with_resets(&window.resets);
            let pass = self.policy.pass(x, &mut first.clone(), &mut cache);
            let dy = window.gradient(&pass.output().to_owned());
            pass.backward_into(&dy, &mut grad);
            clip.clip(&mut grad).expect("a finite gradient");
            optimizer.step(&mut self.policy, &grad);
        }
        shares
    }

    /// Writes the observations and resets to step `t` of a window, and runs the policy for that step.
    fn look(
        &mut self,
        window: &mut Window,
        t: usize,
        mazes: &[Maze],
        starts: &[bool],
        state: &mut <Policy as Layer>::State,
    ) -> Array3<f32> {
        for (b, (maze, &starts)) in mazes.iter().zip(starts).enumerate() {
            window.x.slice_mut(s![t, b, ..]).assign(&ArrayView1::from(&maze.seen()));
            window.resets[[t, b]] = starts || self.memory == Memory::None;
        }
        let x = Sequence::from(&window.x).with_resets(&window.resets).steps(t..t + 1).infer();
        let y = self.policy.forward(x, state, &mut self.steps).to_owned();
        window.values.row_mut(t).assign(&y.slice(s![0, .., ACTIONS]));
        y
    }

    /// The values after a window.
    fn look_ahead(&mut self, window: &mut Window, mazes: &[Maze], starts: &[bool], state: &<Policy as Layer>::State) {
        let mut next = Window::new(1);
        self.look(&mut next, 0, mazes, starts, &mut state.clone());
        let last = window.values.nrows() - 1;
        window.values.row_mut(last).assign(&next.values.index_axis(Axis(0), 0));
    }

    /// The share of new episodes that end with the right turn within twice the steps that they need, with the likeliest actions.
    pub fn succeeds(&mut self, seed: u64) -> f64 {
        self.rng = StdRng::seed_from_u64(seed);
        let (rounds, steps) = (8, 2 * (self.corridor + 2));
        let mut right = 0;
        for _ in 0..rounds {
            let mut mazes = self.mazes();
            let (mut state, mut window) = (self.policy.zero_state(MAZES), Window::new(1));
            let (mut starts, mut turned) = ([true; MAZES], [None; MAZES]);
            for _ in 0..steps {
                let y = self.look(&mut window, 0, &mazes, &starts, &mut state);
                for (b, maze) in mazes.iter_mut().enumerate() {
                    let step = maze.act(likeliest(y.slice(s![0, b, ..])), &mut self.rng);
                    starts[b] = step.turned.is_some();
                    turned[b] = turned[b].or(step.turned);
                }
            }
            right += turned.iter().filter(|&&turned| turned == Some(true)).count();
        }
        right as f64 / (rounds * MAZES) as f64
    }
}
