//! Writes a test sound for the detector as a WAV file, and prints as JSON what the detector says of it, block by block.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};

use gradflow_voice::bands::{HOP, RATE};
use gradflow_voice::detector::{Detector, Model};
use gradflow_voice::exports::BLOCK;
use gradflow_voice::synth::Clip;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("the WAV file to write, please")?;
    let clip = Clip::trial();
    let rounded: Vec<i16> = clip.samples.iter().map(|sample| (sample * 32767.0).round() as i16).collect();
    write_wav(BufWriter::new(File::create(path)?), &rounded)?;

    let samples: Vec<f32> = rounded.iter().map(|&sample| f32::from(sample) / 32768.0).collect();
    let mut detector = Detector::new(&Model::trained());
    let probabilities: Vec<f32> = samples.chunks_exact(BLOCK).map(|block| detector.hear(block)).collect();
    // For a block, whether there is voice in the last frame that has ended in it or before.
    let voice = (1..=probabilities.len()).map(|block| clip.voice[(block * BLOCK / HOP).saturating_sub(1)]);
    println!("{{\"probabilities\": {probabilities:?}, \"voice\": {:?}}}", voice.collect::<Vec<_>>());
    Ok(())
}

/// One channel of 16 bits at [`RATE`].
fn write_wav(mut file: impl Write, samples: &[i16]) -> std::io::Result<()> {
    let (rate, bytes) = (RATE as u32, 2 * samples.len() as u32);
    file.write_all(b"RIFF")?;
    file.write_all(&(36 + bytes).to_le_bytes())?;
    file.write_all(b"WAVEfmt ")?;
    file.write_all(&16u32.to_le_bytes())?;
    let (pcm, channels) = (1u16, 1u16);
    file.write_all(&[pcm.to_le_bytes(), channels.to_le_bytes()].concat())?;
    file.write_all(&[rate.to_le_bytes(), (2 * rate).to_le_bytes()].concat())?;
    let (frame_bytes, bits) = (2u16, 16u16);
    file.write_all(&[frame_bytes.to_le_bytes(), bits.to_le_bytes()].concat())?;
    file.write_all(b"data")?;
    file.write_all(&bytes.to_le_bytes())?;
    samples.iter().try_for_each(|sample| file.write_all(&sample.to_le_bytes()))?;
    file.flush()
}
