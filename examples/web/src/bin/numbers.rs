//! Prints as JSON what the page computes for `?check`, computed by native code.

use gradflow_web::exports::mean_norms;
use gradflow_web::writer::Writer;

fn main() {
    let norms = [(0, 1.0, 0.1), (0, 1.5, 0.1), (0, 1.5, 3.0), (1, 0.0, 0.0), (1, 3.0, 0.0), (2, 3.0, 0.0)];
    let norms = norms.map(|(kind, a, b)| mean_norms(kind, a, b, 40));
    let mut writer = Writer::new(1);
    "the gradient ".chars().for_each(|character| writer.read(character));
    let logits = writer.logits().to_vec();
    let mut text = String::new();
    for _ in 0..40 {
        let character = writer.draw(0.2);
        writer.read(character);
        text.push(character);
    }
    println!("{{\"norms\": {norms:?}, \"logits\": {logits:?}, \"text\": {text:?}}}");
}
