//! The images.

use gradflow::ndarray::{Array2, ArrayView2, s};

use crate::common::Failure;

/// The images, with their source and licence in the header.
const DATA: &str = include_str!("../data/digits.csv");

/// Pixels of an image.
pub const PIXELS: usize = 64;

/// The digits.
pub const CLASSES: usize = 10;

/// The number of images for training: the first ones, in the order of the file.
const TRAINING: usize = 1297;

/// Images and their digits.
pub struct Digits {
    images: Array2<f32>,   // [N, 64], standardised
    labels: Array2<usize>, // [1, N]
}

impl Digits {
    /// All 1797.
    ///
    /// # Errors
    /// If a line is not `digit,pixels`.
    pub fn read() -> Result<Self, Failure> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for line in DATA.lines().filter(|line| !line.starts_with('#')).skip(1) {
            let image = line.split_once(',').and_then(|(digit, image)| {
                let image: Option<Vec<u32>> = image.chars().map(|pixel| pixel.to_digit(17)).collect();
                Some((digit.parse().ok().filter(|&digit: &usize| digit < CLASSES)?, image?))
            });
            let (digit, image) = image
                .filter(|(_, image)| image.len() == PIXELS)
                .ok_or_else(|| Failure::Run(format!("digits.csv: {line:?}: not a digit and {PIXELS} pixels")))?;
            labels.push(digit);
            pixels.extend(image.into_iter().map(|pixel| pixel as f32));
        }
        let count = labels.len();
        let mut images = Array2::from_shape_vec((count, PIXELS), pixels).expect("as many pixels for every image");
        let known = images.slice(s![..TRAINING, ..]);
        let (mean, deviation) = (known.mean().expect("images"), known.std(0.0));
        images.map_inplace(|pixel| *pixel = (*pixel - mean) / deviation);
        Ok(Digits { images, labels: Array2::from_shape_vec((1, count), labels).expect("one row") })
    }

    /// Images, `[N, 64]`, and labels, `[1, N]`, for training.
    pub fn training(&self) -> (ArrayView2<'_, f32>, ArrayView2<'_, usize>) {
        (self.images.slice(s![..TRAINING, ..]), self.labels.slice(s![.., ..TRAINING]))
    }

    /// Images and labels that no training sees.
    pub fn test(&self) -> (ArrayView2<'_, f32>, ArrayView2<'_, usize>) {
        (self.images.slice(s![TRAINING.., ..]), self.labels.slice(s![.., TRAINING..]))
    }
}
