//! A layer of a file before it is read.

/// A layer's name, the place of its arrays, and its description, if there is one.
pub struct Described {
    pub name: String,
    /// Its group in the HDF5 file.
    pub group: String,
    /// Without a configuration, a layer is of the kind that the caller asks for.
    pub about: Option<About>,
}

/// The configuration of a layer.
pub struct About {
    pub class: String,
    /// `config`, as JSON, and its place.
    pub config: String,
    pub place: String,
    /// Whether Keras 2 wrote it, whose `hard_sigmoid` is a different one.
    pub keras_2: bool,
}
