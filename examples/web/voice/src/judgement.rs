//! How well a score of frames tells voice from noise, and the score that needs no model: the level.

use crate::bands::{HOP, WINDOW};

/// Scores of frames, and which of them are voice.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    frames: Vec<(f32, bool)>,
}

impl Scores {
    /// Adds the frames of a clip.
    pub fn add(&mut self, scores: impl IntoIterator<Item = f32>, voice: &[bool]) {
        self.frames.extend(scores.into_iter().zip(voice.iter().copied()));
    }

    /// The share of frames on the wrong side of `threshold`; voice should be above.
    pub fn errors(&self, threshold: f32) -> f64 {
        let wrong = self.frames.iter().filter(|&&(score, voice)| (score > threshold) != voice).count();
        wrong as f64 / self.frames.len() as f64
    }

    /// The threshold with the fewest errors.
    pub fn best_threshold(&self) -> f32 {
        let sorted = self.sorted();
        // All frames are above at first.
        let mut wrong = sorted.iter().filter(|(_, voice)| !voice).count() as isize;
        let (mut best, mut fewest) = (f32::NEG_INFINITY, wrong);
        for (i, &(score, voice)) in sorted.iter().enumerate() {
            wrong += if voice { 1 } else { -1 };
            let last_of_its_score = sorted.get(i + 1).is_none_or(|next| next.0 > score);
            if last_of_its_score && wrong < fewest {
                (best, fewest) = (score, wrong);
            }
        }
        best
    }

    /// The probability that a frame of voice has a higher score than one of noise: the area under the ROC curve.
    pub fn area(&self) -> f64 {
        let sorted = self.sorted();
        let (mut noise, mut pairs) = (0.0, 0.0);
        for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
            let voice = tied.iter().filter(|frame| frame.1).count() as f64;
            let others = tied.len() as f64 - voice;
            pairs += voice * (noise + others / 2.0);
            noise += others;
        }
        pairs / (noise * (sorted.len() as f64 - noise))
    }

    fn sorted(&self) -> Vec<(f32, bool)> {
        let mut sorted = self.frames.clone();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        sorted
    }
}

/// The level of each frame in dB.
pub fn levels(samples: &[f32]) -> Vec<f32> {
    let level = |frame: usize| {
        let end = (frame + 1) * HOP;
        let power: f32 = samples[end.saturating_sub(WINDOW)..end].iter().map(|sample| sample * sample).sum();
        10.0 * (power / WINDOW as f32 + 1e-10).log10()
    };
    (0..samples.len() / HOP).map(level).collect()
}

/// The level of each frame above the lowest one of the `frames` before it, in dB.
pub fn above_floor(levels: &[f32], frames: usize) -> Vec<f32> {
    let above = |frame: usize| {
        let floor = levels[(frame + 1).saturating_sub(frames)..=frame].iter().copied().fold(f32::INFINITY, f32::min);
        levels[frame] - floor
    };
    (0..levels.len()).map(above).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_judged_as_by_hand() {
        let mut scores = Scores::default();
        scores.add([1.0, 2.0, 3.0, 3.0, 5.0], &[false, true, false, true, true]);
        assert_eq!(scores.errors(2.5), 0.4);
        // Of six pairs one is in the wrong order and one is tied.
        assert_eq!(scores.area(), 4.5 / 6.0);
        assert_eq!(scores.best_threshold(), 1.0);
        assert_eq!(scores.errors(1.0), 0.2);
    }

    #[test]
    fn levels_are_above_the_lowest_of_the_past() {
        let samples: Vec<f32> = (0..10 * WINDOW).map(|n| if n < 5 * WINDOW { 0.01 } else { 0.1 }).collect();
        let levels = levels(&samples);
        let above = above_floor(&levels, 10);
        assert!((levels[5] + 40.0).abs() < 1e-3 && (levels[30] + 20.0).abs() < 1e-3);
        assert!((above[20] - 20.0).abs() < 1e-3, "{}", above[20]);
        assert_eq!(above[30], 0.0);
    }
}
