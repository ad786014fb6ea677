//! The T-maze: a sign at the start says which way to turn at the far end of a corridor.

use gradflow::rand::{RngExt, rngs::StdRng};

/// The number of values that the agent sees.
pub const SEEN: usize = 3;

/// The number of actions: go on, turn north, turn south.
pub const ACTIONS: usize = 3;
const FORWARD: usize = 0;
const NORTH: usize = 1;

/// The reward of the right turn, and that of the wrong one and of each step into a wall.
const PRIZE: f32 = 4.0;
const BUMP: f32 = -0.1;

/// One maze. The corridor's places look alike; at the junction, the episode ends with any turn.
#[derive(Clone, Debug)]
pub struct Maze {
    corridor: usize,
    place: usize,
    is_north: bool,
}

/// The result of an action.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub reward: f32,
    /// If the episode has ended: whether the turn was the right one.
    pub turned: Option<bool>,
}

impl Maze {
    /// A maze with `corridor` places between the start and the junction.
    pub fn new(corridor: usize, rng: &mut StdRng) -> Self {
        Maze { corridor, place: 0, is_north: rng.random_bool(0.5) }
    }

    /// What the agent sees: the sign at the start, the corridor, or the junction, as in the paper.
    pub fn seen(&self) -> [f32; SEEN] {
        match self.place {
            0 if self.is_north => [0.0, 1.0, 1.0],
            0 => [1.0, 1.0, 0.0],
            place if place <= self.corridor => [1.0, 0.0, 1.0],
            _ => [0.0, 1.0, 0.0],
        }
    }

    /// Performs an action. After the end of an episode a new one begins.
    pub fn act(&mut self, action: usize, rng: &mut StdRng) -> Step {
        let at_junction = self.place > self.corridor;
        match (at_junction, action) {
            (false, FORWARD) => {
                self.place += 1;
                Step { reward: 0.0, turned: None }
            }
            (true, turn) if turn != FORWARD => {
                let is_right = (turn == NORTH) == self.is_north;
                *self = Maze::new(self.corridor, rng);
                Step { reward: if is_right { PRIZE } else { BUMP }, turned: Some(is_right) }
            }
            _ => Step { reward: BUMP, turned: None },
        }
    }
}
