//! Weights of ONNX files, read into models.

mod array;
mod constants;
mod fit;
mod known;
mod moves;
mod places;
mod recurrent;
mod rules;
mod terms;
mod wire;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::{fmt, mem};

use prost::Message;
use prost::bytes::Bytes;

use crate::base::error::named;
use crate::base::tensors::shown;
use crate::base::{Size, SizeError, Tensors, TensorsExt};
use crate::kernels::Float;
use crate::layer::graph::Interface;
use crate::layer::{Layer, Unsupported};
use crate::onnx::export::{ExportError, graph_of};
use crate::onnx::messages::{Graph, Length, Model, Tensor, ValueInfo};
use array::{Budget, Kind};
pub use fit::Misfit;
use fit::{Fit, is_number, output_of};
use terms::{Fault, Order, Terms, dimensions, inputs, is_batch_first};
use wire::WireFault;

/// The oldest operator set whose operators have their current meaning.
const OLDEST_SET: i64 = 7;

/// The default of [`LoadOptions::max_fields`].
const MAX_FIELDS: usize = 1 << 20;

/// How a file is read into a model.
///
/// ```
/// use gradflow::onnx::{ExportOptions, LoadOptions, export, load_from};
/// use gradflow::{layers::Linear, rand::{SeedableRng, rngs::StdRng}};
///
/// let trained = (Linear::<f32>::new(3, 2, &mut StdRng::seed_from_u64(0)),);
/// let file = export(&trained, 3, &ExportOptions::new())?;
/// let mut model = (Linear::<f64>::zeros(3, 2),);
/// load_from(&mut model, &file[..], &LoadOptions::new().convert())?;
/// assert_eq!(model.0.weight[[0, 0]], f64::from(trained.0.weight[[0, 0]]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "options do nothing before they are given to `load_with` or `load_from`"]
pub struct LoadOptions<'a> {
    convert: bool,
    output: Option<String>,
    input: Option<Size>,
    rename: Option<Box<Rename<'a>>>,
    max_fields: usize,
}

type Rename<'a> = dyn Fn(&str) -> String + 'a;

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        LoadOptions { convert: false, output: None, input: None, rename: None, max_fields: MAX_FIELDS }
    }
}

impl fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LoadOptions { convert, output, input, rename, max_fields } = self;
        let mut debug = f.debug_struct("LoadOptions");
        debug.field("convert", convert).field("output", output).field("input", input);
        debug.field("rename", &rename.is_some()).field("max_fields", max_fields).finish()
    }
}

impl<'a> LoadOptions<'a> {
    /// Reads by the graph, from its first output, and only the model's own element type.
    pub fn new() -> Self {
        Self::default()
    }

    /// Converts floats of another type: doubles and floats to each other, and 16-bit floats of either kind to both.
    pub fn convert(self) -> Self {
        LoadOptions { convert: true, ..self }
    }

    /// Reads the model of the output called `name`; anything that only other outputs need is ignored. Any value of the graph will
    /// do, such as the logits before a `Softmax`.
    pub fn output(self, name: impl Into<String>) -> Self {
        LoadOptions { output: Some(name.into()), ..self }
    }

    /// Sets the model's input, for a file that does not say how many features its first input has.
    pub fn input(self, size: impl Into<Size>) -> Self {
        LoadOptions { input: Some(size.into()), ..self }
    }

    /// Reads by the names of constants instead of the graph: `rename` maps the name that [`export`](super::export()) would use,
    /// such as `0.l0.W` or `1.weight`, to the one in the file. Operators, attributes and shapes are compared where the constants
    /// are used, but not how operators are connected, and the file may hold more.
    ///
    /// ```
    /// use gradflow::onnx::{ExportOptions, LoadOptions, export, load_from};
    /// use gradflow::{layers::{Activation, Linear}, rand::{SeedableRng, rngs::StdRng}};
    ///
    /// let rng = &mut StdRng::seed_from_u64(0);
    /// let trained = (Linear::<f32>::new(3, 4, rng), Activation::tanh(), Linear::new(4, 2, rng));
    /// let file = export(&trained, 3, &ExportOptions::new())?;
    /// // The last layer alone, which has no number here.
    /// let mut head = Linear::<f32>::zeros(4, 2);
    /// load_from(&mut head, &file[..], &LoadOptions::new().by_name(|name| format!("2.{name}")).input(4))?;
    /// assert_eq!(head, trained.2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn by_name(self, rename: impl Fn(&str) -> String + 'a) -> Self {
        LoadOptions { rename: Some(Box::new(rename)), ..self }
    }

    /// Limits the number of fields (nodes, names, attributes, numbers outside tensors) in the file; a million by default. Each
    /// takes up to about 150 bytes of memory.
    pub fn max_fields(self, max_fields: usize) -> Self {
        LoadOptions { max_fields, ..self }
    }
}

/// Why a file was not loaded: the model is unchanged.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// It could not be read.
    Io(io::Error),
    /// It holds more than the limit, or needs more memory.
    Limit {
        /// Its path, if it was opened by path.
        path: Option<PathBuf>,
        /// What exceeds the limit.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// It is not an ONNX file, or a damaged one.
    Malformed {
        /// Its path, if it was opened by path.
        path: Option<PathBuf>,
        /// Where in the file; empty for the whole file.
        place: String,
        /// What is wrong there.
        reason: String,
    },
    /// Its input does not fit the model.
    Input {
        /// Its path, if it was opened by path.
        path: Option<PathBuf>,
        /// The name of the input.
        input: String,
        /// The model's error.
        error: SizeError,
    },
    /// ONNX's operators cannot express the model, so no file can hold it.
    Unsupported(Unsupported),
    /// It holds another model.
    Mismatch {
        /// Its path, if it was opened by path.
        path: Option<PathBuf>,
        /// All differences, up to a hundred, from the output back to the input.
        misfits: Vec<Misfit>,
    },
}

impl LoadError {
    /// Adds the file's path, which only the caller of a reader knows.
    fn at(mut self, place: &Path) -> Self {
        match &mut self {
            LoadError::Io(error) => *error = named(place, mem::replace(error, io::ErrorKind::Other.into())),
            LoadError::Limit { path, .. }
            | LoadError::Malformed { path, .. }
            | LoadError::Input { path, .. }
            | LoadError::Mismatch { path, .. } => *path = Some(place.to_owned()),
            LoadError::Unsupported(_) => {}
        }
        self
    }

    fn malformed(place: impl Into<String>, reason: impl Into<String>) -> Self {
        LoadError::Malformed { path: None, place: place.into(), reason: reason.into() }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let LoadError::Limit { path: Some(path), .. }
        | LoadError::Malformed { path: Some(path), .. }
        | LoadError::Input { path: Some(path), .. }
        | LoadError::Mismatch { path: Some(path), .. } = self
        {
            write!(f, "{}: ", path.display())?;
        }
        match self {
            LoadError::Io(error) => error.fmt(f),
            LoadError::Limit { what, limit, .. } => write!(f, "more than {limit} {what}"),
            LoadError::Malformed { place, reason, .. } if place.is_empty() => {
                write!(f, "not an ONNX file, or a damaged one: {reason}")
            }
            LoadError::Malformed { place, reason, .. } => write!(f, "{place}: {reason}"),
            LoadError::Input { input, error, .. } => write!(f, "the input `{input}` is not the model's: {error}"),
            LoadError::Unsupported(error) => error.fmt(f),
            LoadError::Mismatch { misfits, .. } => {
                write!(f, "the file does not fit the model")?;
                misfits.iter().try_for_each(|misfit| write!(f, "\n  {misfit}"))
            }
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoadError::Io(error) => Some(error),
            LoadError::Input { error, .. } => Some(error),
            LoadError::Unsupported(error) => Some(error),
            LoadError::Limit { .. } | LoadError::Malformed { .. } | LoadError::Mismatch { .. } => None,
        }
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        LoadError::Io(error)
    }
}

/// Reads the weights of an ONNX file into a model that computes what the file's graph computes: see [`onnx`](super).
///
/// ```
/// use gradflow::onnx::{ExportOptions, export_to_file, load_into};
/// use gradflow::{layers::{LastStep, Linear}, rand::{SeedableRng, rngs::StdRng}, recurrent::Lstm};
///
/// # let path = std::env::temp_dir().join(format!("gradflow-doc-load-{}.onnx", std::process::id()));
/// let rng = &mut StdRng::seed_from_u64(0);
/// let trained = (Lstm::<f32>::new(3, 16, rng), LastStep::new(), Linear::new(16, 2, rng));
/// export_to_file(&path, &trained, 3, &ExportOptions::new())?;
///
/// let mut model = (Lstm::<f32>::new(3, 16, rng), LastStep::new(), Linear::new(16, 2, rng));
/// load_into(&mut model, &path)?;
/// assert_eq!(model, trained);
///
/// let mut other = (Lstm::<f32>::new(3, 16, rng), LastStep::new(), Linear::new(16, 5, rng));
/// let error = load_into(&mut other, &path).unwrap_err().to_string();
/// assert!(error.ends_with("expected shape [5] for `2.bias` of Add `2.Add`, got [2]\n  \
///     MatMul `2.MatMul` by [16, 2]: `2.weight`: expected shape [16, 5] for `2.weight` of MatMul `2.MatMul` by [16, 5], got [16, 2]"));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns an error if the file cannot be read, is damaged, or holds another model; the model is unchanged then.
pub fn load_into<M: Layer>(model: &mut M, path: impl AsRef<Path>) -> Result<(), LoadError> {
    load_with(model, path, &LoadOptions::new())
}

/// [`load_into`] with options.
///
/// # Errors
/// Returns an error as [`load_into`] does.
pub fn load_with<M: Layer>(model: &mut M, path: impl AsRef<Path>, options: &LoadOptions<'_>) -> Result<(), LoadError> {
    let path = path.as_ref();
    let mut read = || {
        let mut bytes = Vec::new();
        File::open(path)?.read_to_end(&mut bytes)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        load(model, bytes, Some(folder), options)
    };
    read().map_err(|error: LoadError| error.at(path))
}

/// [`load_into`] from a reader, such as `&bytes[..]`, with options. Values in a second file are refused.
///
/// # Errors
/// Returns an error as [`load_into`] does.
pub fn load_from<M: Layer>(model: &mut M, mut reader: impl Read, options: &LoadOptions<'_>) -> Result<(), LoadError> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    load(model, bytes, None, options)
}

fn load<M: Layer>(
    model: &mut M,
    bytes: Vec<u8>,
    folder: Option<&Path>,
    options: &LoadOptions<'_>,
) -> Result<(), LoadError> {
    let file_size = bytes.len();
    let graph = decoded(bytes, options.max_fields)?;
    let input = input_of(&graph)?;
    let size = size_of_input(input, options.input)?;
    if let Err(error) = model.output_size(size) {
        return Err(LoadError::Input { path: None, input: shown(&input.name).into(), error });
    }
    let mut numbered = model.clone();
    let (own_graph, starts) = numbered_graph(&mut numbered, size, interface_of(&graph, input))?;
    let model_size = starts[starts.len() - 1].saturating_mul(size_of::<M::Elem>());
    let context = Context { graph: &graph, own_graph: &own_graph, folder, options, model_size, file_size };
    // Only the code that depends on the model's type is generic.
    context.read(&mut numbered, &starts)?;
    model.copy_from(&numbered);
    Ok(())
}

/// A decoded file, and the graph of the model that it is for.
struct Context<'a> {
    graph: &'a Graph,
    own_graph: &'a Graph,
    folder: Option<&'a Path>,
    options: &'a LoadOptions<'a>,
    model_size: usize,
    file_size: usize,
}

impl Context<'_> {
    fn read<F: Float>(&self, tensors: &mut dyn Tensors<F>, starts: &[usize]) -> Result<(), LoadError> {
        let Context { graph, own_graph, folder, options, model_size, file_size } = *self;
        let failed = |fault, limit| match fault {
            Fault::TooMuch => LoadError::Limit { path: None, what: "bytes for what its nodes make", limit },
            Fault::Malformed { place, reason } => LoadError::malformed(place, reason),
            Fault::Order => LoadError::malformed("graph", "its recurrences go along two different axes"),
        };
        let mut own_budget = Budget { left: usize::MAX };
        let own = Terms::of(own_graph, Order::TimeFirst, &mut |_, _| Err(String::new()), &mut own_budget);
        let own = own.map_err(|fault| failed(fault, usize::MAX))?;
        // Gates are reordered a few times, and a node takes no more than some hundred bytes.
        let limit = model_size.saturating_add(file_size.saturating_mul(4)).saturating_mul(16).saturating_add(1 << 20);
        let mut attempt = |order| -> Result<Vec<Misfit>, Fault> {
            let mut beside = Beside { folder, left: model_size.saturating_mul(4).saturating_add(1 << 20) };
            let mut external = |tensor: &Tensor, size| beside.read(tensor, size);
            let mut budget = Budget { left: limit };
            let theirs = Terms::of(graph, order, &mut external, &mut budget)?;
            let mut fit = Fit::new(&own, &theirs, options.convert);
            self.compare(&own, &theirs, &mut fit, starts[starts.len() - 1])?;
            if fit.misfits.is_empty() {
                fit.assign(tensors, starts);
            }
            Ok(fit.misfits)
        };
        // Recurrences determine which axis is time; without any, it is the one that fits.
        let misfits = match attempt(Order::TimeFirst) {
            Err(Fault::Order) => attempt(Order::BatchFirst),
            Ok(misfits) if !misfits.is_empty() => match attempt(Order::BatchFirst) {
                Ok(others) if others.is_empty() => Ok(others),
                _ => Ok(misfits),
            },
            read => read,
        };
        match misfits.map_err(|fault| failed(fault, limit))? {
            misfits if misfits.is_empty() => Ok(()),
            misfits => Err(LoadError::Mismatch { path: None, misfits }),
        }
    }

    /// Compares the outputs that were requested, or the names.
    fn compare(&self, own: &Terms<'_>, theirs: &Terms<'_>, fit: &mut Fit<'_>, count: usize) -> Result<(), Fault> {
        let Context { graph, own_graph, options, .. } = self;
        if let Some(rename) = &options.rename {
            fit.by_name(count, rename);
            return Ok(());
        }
        let malformed = |reason: String| Fault::Malformed { place: "graph".into(), reason };
        let outputs = || graph.output.iter().map(|info| &info.name[..]);
        let name = match &options.output {
            Some(name) => name,
            None => outputs().next().ok_or_else(|| malformed("it has no output".into()))?,
        };
        let y = output_of(theirs, name);
        let y = y.ok_or_else(|| malformed(format!("no node computes `{}`", name.escape_debug())))?;
        fit.outputs(output_of(own, "y").expect("the model's output"), y);
        // Outputs that are states under this crate's names are compared too.
        for info in own_graph.output.iter().skip(1) {
            if let (Some(own), Some(other)) = (output_of(own, &info.name), output_of(theirs, &info.name)) {
                fit.outputs(own, other);
            }
        }
        if options.output.is_none() {
            fit.surplus(outputs().filter_map(|name| output_of(theirs, name)));
        }
        Ok(())
    }
}

fn decoded(bytes: Vec<u8>, limit: usize) -> Result<Graph, LoadError> {
    match wire::check(&bytes, limit) {
        Ok(()) => {}
        Err(WireFault::TooMany) => return Err(LoadError::Limit { path: None, what: "fields", limit }),
        Err(WireFault::Damaged(at)) => return Err(LoadError::malformed("", format!("no field at byte {at}"))),
    }
    let model = Model::decode(Bytes::from(bytes)).map_err(|error| LoadError::malformed("", error.to_string()))?;
    let graph = model.graph.ok_or_else(|| LoadError::malformed("", "it has no graph"))?;
    let standard = model.opset_import.iter().find(|set| matches!(&set.domain[..], "" | "ai.onnx"));
    let version = standard.map_or(1, |set| set.version);
    if version < OLDEST_SET {
        let reason = format!("expected operator set {OLDEST_SET} or later, got {version}");
        return Err(LoadError::malformed("opset_import", reason));
    }
    Ok(graph)
}

fn input_of(graph: &Graph) -> Result<&ValueInfo, LoadError> {
    inputs(graph).next().ok_or_else(|| LoadError::malformed("graph", "it has no input"))
}

fn size_of_input(input: &ValueInfo, asked: Option<Size>) -> Result<Size, LoadError> {
    if let Some(size) = asked {
        return Ok(size);
    }
    let elements =
        input.r#type.as_ref().and_then(|info| info.tensor_type.as_ref()).map_or(0, |tensor| tensor.elem_type);
    if let Kind::Integer { .. } = Kind::of(elements) {
        return Ok(Size::Tokens);
    }
    let last = dimensions(input).and_then(|dimensions| match dimensions.last() {
        Some(Some(Length::DimValue(size))) => usize::try_from(*size).ok(),
        _ => None,
    });
    last.map(Size::Features).ok_or_else(|| {
        let place = format!("graph.input `{}`", input.name.escape_debug());
        LoadError::malformed(place, "it does not say how many features it has; `LoadOptions::input` does")
    })
}

/// The interface of a file, if it has this crate's names.
fn interface_of(graph: &Graph, x: &ValueInfo) -> Interface {
    let is_state = |name: &str| name == "state" || name.starts_with("state.");
    Interface {
        lengths: inputs(graph).any(|info| info.name == "lengths"),
        states: inputs(graph).any(|info| is_state(&info.name)),
        batch_first: is_batch_first(x) == Some(true),
    }
}

/// The model's graph, in whose constants each element of a parameter is replaced by the element's number, counted from 1, as its
/// bits; and the number of elements before each tensor.
fn numbered_graph<M: Layer>(model: &mut M, size: Size, interface: Interface) -> Result<(Graph, Vec<usize>), LoadError> {
    let mut starts = vec![0_usize];
    for i in 0..model.count() {
        starts.push(starts[i].saturating_add(model.values(i).len()));
    }
    let count = starts[starts.len() - 1];
    // All numbers are bits of finite, positive floats, including the second ones.
    if count >= 1 << 29 && size_of::<M::Elem>() == 4 {
        return Err(LoadError::Limit { path: None, what: "parameters of 32 bits", limit: 1 << 29 });
    }
    let mut graph = |mut next: u64| {
        for i in 0..model.count() {
            for value in model.tensor_mut(i) {
                *value = M::Elem::from_bits(next);
                next += 1;
            }
        }
        graph_of(model, size, interface).map_err(|error| match error {
            ExportError::Unsupported(error) => LoadError::Unsupported(error),
            error => unreachable!("the size was checked, and nothing is written: {error}"),
        })
    };
    // A second numbering shows which constants are not copies of parameters.
    let shift = if size_of::<M::Elem>() == 4 { 0x4123_4567 } else { 0x4012_3456_789a_bcde };
    let (second, numbered) = (graph(1 + shift)?, graph(1)?);
    for (a, b) in numbered.initializer.iter().zip(&second.initializer) {
        check_copies::<M::Elem>(a, b, count, shift)?;
    }
    Ok((numbered, starts))
}

/// Returns an error unless each element of a constant is a number in `a` and `shift` more in `b`, or the same in both.
fn check_copies<F: Float>(a: &Tensor, b: &Tensor, count: usize, shift: u64) -> Result<(), LoadError> {
    if a.data_type != array::own_elements(size_of::<F>()) as i32 {
        return Ok(());
    }
    let bits = |element: &[u8]| {
        let mut bits = [0; 8];
        bits[..element.len()].copy_from_slice(element);
        u64::from_le_bytes(bits)
    };
    let (a_bytes, b_bytes) = (&a.raw_data, &b.raw_data);
    let is_copy = |(a, b): (&[u8], &[u8])| match (bits(a), bits(b)) {
        (a, b) if is_number(a, count) => b == a + shift,
        (a, b) => a == b,
    };
    let size = size_of::<F>();
    if a_bytes.len() == b_bytes.len() && a_bytes.chunks_exact(size).zip(b_bytes.chunks_exact(size)).all(is_copy) {
        return Ok(());
    }
    let reason = "this constant of the model's graph is computed from parameters, which cannot be undone";
    Err(LoadError::malformed(format!("`{}`", a.name), reason))
}

/// Files beside the model, with values of its tensors.
struct Beside<'a> {
    folder: Option<&'a Path>,
    /// The number of bytes of them that may still be read.
    left: usize,
}

impl Beside<'_> {
    fn read(&mut self, tensor: &Tensor, size: usize) -> Result<Bytes, String> {
        let value =
            |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &entry.value[..]);
        let number = |key: &str| match value(key) {
            None => Ok(None),
            Some(text) => {
                text.parse::<u64>().map(Some).map_err(|_| format!("its {key} `{}` is no number", text.escape_debug()))
            }
        };
        let location = value("location").ok_or("it is in another file, without a location")?;
        let shown = location.escape_debug();
        let folder =
            self.folder.ok_or_else(|| format!("it is in another file, `{shown}`, which is found beside a path"))?;
        let is_plain = |component| matches!(component, Component::Normal(_));
        if location.is_empty() || location.contains('\\') || !Path::new(location).components().all(is_plain) {
            return Err(format!("it is in another file, `{shown}`, which is not beside this one"));
        }
        let (start, length) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(size as u64));
        if length != size as u64 {
            return Err(format!("expected {size} bytes, got {length}"));
        }
        self.left = self.left.checked_sub(size).ok_or_else(|| format!("`{shown}` has more than the model can take"))?;
        let read = || -> io::Result<Option<Vec<u8>>> {
            let path = folder.join(location);
            let metadata = std::fs::metadata(&path)?;
            let fits = start.checked_add(length).is_some_and(|end| end <= metadata.len());
            if !metadata.is_file() || !fits {
                return Ok(None);
            }
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(length).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        };
        match read() {
            Ok(Some(bytes)) if bytes.len() == size => Ok(bytes.into()),
            Ok(_) => Err(format!("`{shown}` has no {length} bytes at {start}")),
            Err(error) => Err(format!("`{shown}`: {error}")),
        }
    }
}
