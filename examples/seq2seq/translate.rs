//! Translates numbers from the command line.

use std::io::{self, BufRead};
use std::path::PathBuf;

use gradflow::io::StateDict;

use crate::common::{Failure, Settings};
use crate::data::source;
use crate::model::{Answer, Translator};
use crate::training::{Setting, learn};
use crate::words::{END, read, word, words};

/// Answers `phrase`, or, if it is `-`, every line of the standard input.
///
/// # Errors
/// If a phrase on the command line has a word that is not known, or a file cannot be read or written.
pub fn run(phrase: &str, setting: Setting, updates: usize, settings: &Settings) -> Result<(), Failure> {
    let asked = if phrase == "-" { None } else { Some(read(phrase).map_err(|error| named(&error))?) };
    let model = model(setting, updates, settings)?;
    if let Some(ids) = asked {
        print(&model, ids);
        return Ok(());
    }
    eprintln!("numbers in words, one a line:");
    for line in io::stdin().lock().lines() {
        match read(&line?) {
            Ok(ids) => print(&model, ids),
            Err(error) => eprintln!("{error}"),
        }
    }
    Ok(())
}

fn named(error: &str) -> Failure {
    Failure::Usage(format!("--translate: {error}"))
}

/// The model of `--load`, or one that is trained now; saved to the file of `--save`.
fn model(setting: Setting, updates: usize, settings: &Settings) -> Result<Translator, Failure> {
    let path = |name| settings.get(name, "a path", |_| true, PathBuf::new());
    let (load, save) = (path("load")?, path("save")?);
    let failed = |path: &PathBuf, error: &dyn std::fmt::Display| {
        let (path, why) = (path.display().to_string(), error.to_string().replace("\n  ", "; "));
        Failure::Run(if why.starts_with(&path) { why } else { format!("{path}: {why}") })
    };
    let model = if load.as_os_str().is_empty() {
        eprintln!("training on {updates} batches of numbers ...");
        let (model, trained) = learn(setting, updates, settings.seed, |_, _| ());
        trained?;
        model
    } else {
        let mut model = Translator::zeros(setting.shape);
        let dict = StateDict::open(&load).map_err(|error| failed(&load, &error))?;
        dict.load(&mut model).map_err(|error| failed(&load, &error))?;
        model
    };
    if !save.as_os_str().is_empty() {
        StateDict::of(&model).save(&save).map_err(|error| failed(&save, &error))?;
        eprintln!("saved: {}", save.display());
    }
    Ok(model)
}

/// Prints the answer, whether it is right, and which word each digit came from.
fn print(model: &Translator, ids: Vec<usize>) {
    let spell = |ids: &[usize]| ids.iter().map(|&id| word(id)).collect::<Vec<_>>().join(" ");
    let Some(answer) = model.translate(&source([ids.clone()])).pop() else { return };
    let Answer { digits, looked_at } = answer;
    let number = String::from_iter(digits.iter().map(usize::to_string));
    println!("{} -> {number}", spell(&ids));
    match number.parse().ok().filter(|&number: &u64| number < 1_000_000_000_000).map(words) {
        Some(right) if right == ids => {}
        Some(other) => println!("  not those words: {number} is {:?}", spell(&other)),
        None => println!("  no number below a thousand billion"),
    }
    for (digit, weights) in digits.iter().chain([&END]).zip(looked_at.rows()) {
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        let most = order.iter().take(2).map(|&s| format!("{} {:.2}", word(ids[s]), weights[s])).collect::<Vec<_>>();
        let digit = if *digit == END { "end".to_owned() } else { digit.to_string() };
        println!("  {digit:<3} looked at {}", most.join(", "));
    }
}
