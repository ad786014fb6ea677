//! Longer texts: what the library is for, and how its parts go together.

#[doc = include_str!("../docs/gradients.md")]
pub mod gradients {}

#[doc = include_str!("../docs/recurrent.md")]
pub mod recurrent {}

// The picture at the end of the page is part of it, since rustdoc copies no files; the link to its file is for readers of
// the repository.
#[doc = include_str!("../docs/kernels.md")]
#[doc = "<style>img[src='packing.svg'] { display: none }</style>\n"]
#[doc = include_str!("../docs/packing.svg")]
pub mod kernels {}
