//! A layer of a file before it is read.

/// A layer's name, where its arrays are, and what is known of it.
pub struct Described {
    pub name: String,
    /// Its group in the HDF5 file.
    pub group: String,
    /// Without a configuration, it is whatever it is asked for as.
    pub about: Option<About>,
}

/// What a configuration says of a layer.
pub struct About {
    pub class: String,
    /// `config`, as JSON, and its place.
    pub config: String,
    pub place: String,
    /// Whether Keras 2 wrote it, whose `hard_sigmoid` is another.
    pub keras_2: bool,
}
