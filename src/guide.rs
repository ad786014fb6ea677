//! Guides: what the library is for, how its parts fit together, and how to do common tasks.
//!
//! | Start | |
//! | --- | --- |
//! | [`from_pytorch`], [`from_keras`] | PyTorch's and Keras' names, and their counterparts here |
//! | [`composition`] | when to use a tuple, `sequential!`, `Stacked`, a boxed layer or `Recurrent` |
//! | [`trouble`] | my loss is NaN, or does not fall |
//!
//! | How to | |
//! | --- | --- |
//! | [`classify`] | classify sequences of unequal length |
//! | [`forecast`] | forecast a series from a CSV file |
//! | [`tag`] | give each word of a sentence a label |
//! | [`stream`] | train on a stream with a carried state |
//! | [`serve`] | answer requests: batches, streams, several threads |
//! | [`real_time`] | run a model on a real-time thread: audio, control |
//! | [`own_cell`] | write your own cell, with buffers |
//! | [`targets`] | build for WebAssembly, ARM and 32 bits |
//! | [`gradflow-mpi`](https://docs.rs/gradflow-mpi) | train on several machines: a separate crate |
//! | `elsewhere` | take a model to PyTorch, ONNX, Keras, and back |
//! | `plugins` | put a model into an audio plug-in |
//!
//! | Understand | |
//! | --- | --- |
//! | [`gradients`] | why gradients vanish and explode, and what gates and skip connections change |
//! | [`recurrent`] | the recurrent family: its options, and what other libraries call them |
//! | [`kernels`] | how the kernels work |

/// A page with pictures, each drawn at its `<use href="#name"/>`. They are part of the page because rustdoc copies no files; the
/// links to the files are for readers of the repository.
macro_rules! illustrated {
    ($name:ident, $text:literal, [$($picture:literal),+]) => {
        #[doc = include_str!($text)]
        #[doc = "<style>.docblock img[src$='.svg'] { display: none } .docblock svg { max-width: 100%; background: white }</style>\n"]
        #[doc = "<svg width=\"0\" height=\"0\" style=\"position: absolute\">\n<defs>"]
        $(
            #[doc = concat!("<g id=\"", $picture, "\">")]
            #[doc = include_str!(concat!("../docs/", $picture, ".svg"))]
            #[doc = "</g>"]
        )+
        #[doc = "</defs>\n</svg>\n"]
        pub mod $name {}
    };
}

#[doc = include_str!("../docs/how-to/from-pytorch.md")]
pub mod from_pytorch {}

#[doc = include_str!("../docs/how-to/from-keras.md")]
pub mod from_keras {}

#[doc = include_str!("../docs/how-to/composition.md")]
pub mod composition {}

#[doc = include_str!("../docs/how-to/trouble.md")]
pub mod trouble {}

#[doc = include_str!("../docs/how-to/classify.md")]
pub mod classify {}

#[doc = include_str!("../docs/how-to/forecast.md")]
pub mod forecast {}

#[doc = include_str!("../docs/how-to/tag.md")]
pub mod tag {}

#[doc = include_str!("../docs/how-to/stream.md")]
pub mod stream {}

#[doc = include_str!("../docs/how-to/serve.md")]
pub mod serve {}

#[doc = include_str!("../docs/how-to/real-time.md")]
pub mod real_time {}

#[doc = include_str!("../docs/how-to/own-cell.md")]
pub mod own_cell {}

#[doc = include_str!("../docs/how-to/targets.md")]
pub mod targets {}

#[cfg(feature = "safetensors")]
#[doc = include_str!("../docs/how-to/elsewhere.md")]
pub mod elsewhere {}

#[cfg(feature = "plugin-formats")]
#[doc = include_str!("../docs/how-to/plugins.md")]
pub mod plugins {}

illustrated! {
    gradients, "../docs/gradients.md",
    [
        "gradient_flow_time", "clipping_cliff", "adding_problem", "temporal_order", "gradient_flow_depth", "depth_sweep",
        "seq2seq"
    ]
}

#[doc = include_str!("../docs/recurrent.md")]
#[doc = "<style>.docblock table td:not(:first-child) code { overflow-wrap: anywhere; white-space: normal }</style>"]
pub mod recurrent {}

// The picture at the end of the page is part of it because rustdoc copies no files; the link to its file is for readers of the
// repository.
#[doc = include_str!("../docs/kernels.md")]
#[doc = "<style>img[src='packing.svg'] { display: none }</style>\n"]
#[doc = include_str!("../docs/packing.svg")]
pub mod kernels {}

#[cfg(test)]
mod tests {
    /// A how-to page is short enough to be read at once.
    #[test]
    fn programs_of_how_to_pages_have_at_most_40_lines() {
        let mut count = 0;
        for page in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/how-to")).unwrap() {
            let path = page.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let program = text.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
            let lines: Vec<_> = program.lines().filter(|line| !line.trim_start().starts_with("# ")).collect();
            assert!(lines.len() <= 40, "{}: {} lines", path.display(), lines.len());
            assert!(lines.iter().all(|line| line.chars().count() <= 108), "{}: too wide", path.display());
            count += 1;
        }
        let modules = include_str!("guide.rs").matches("include_str!(\"../docs/how-to/").count();
        assert_eq!(count, modules, "each page is a module");
    }

    /// A picture is shown whole only if the page gives its size.
    #[test]
    fn pictures_have_the_size_that_their_page_says() {
        let (text, mut count) = (include_str!("../docs/gradients.md"), 0);
        for place in text.lines().filter_map(|line| line.strip_prefix("<svg viewBox=\"")) {
            let (size, rest) = place.split_once('"').unwrap();
            let name = rest.strip_prefix("><use href=\"#").and_then(|rest| rest.strip_suffix("\"/></svg>")).unwrap();
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/");
            let picture = std::fs::read_to_string(format!("{file}{name}.svg")).unwrap();
            assert!(picture.lines().next().unwrap().contains(&format!("viewBox=\"{size}\"")), "{name}: {size}");
            count += 1;
        }
        assert_eq!(count, 7);
    }
}
