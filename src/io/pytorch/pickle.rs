//! Python's pickle format as data: values that are lists, dictionaries, numbers, text, and calls of a few functions, by name.
//!
//! A pickle is a program for a stack machine, which may call any function of Python. Here, a call becomes a
//! [`Value::Call`] and nothing runs; a name that is not on the list of [`Name::of`] is refused as soon as it is read.
//!
//! Protocols 1 to 5, as in Python's `pickletools`; operations that make objects of classes are refused.

use std::collections::HashMap;

use safetensors::Dtype;

use crate::io::error::LoadError;

/// The index of a value among all values.
pub type Id = u32;

/// A value; it contains others by id, because one value may be in several places.
#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(&'a str),
    Bytes,
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Name(Name),
    /// A function and the tuple of its arguments.
    Call(Name, Id),
    /// A value that is stored elsewhere: a tuple that says where.
    Persistent(Id),
}

/// The functions and types that may be named.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Name {
    OrderedDict,
    /// `set`, `frozenset`, `Counter`: of their one argument.
    Collection,
    /// `_codecs.encode`: bytes are written as a call of it.
    Encode,
    /// `_rebuild_tensor`: of storage, offset, size, stride.
    Tensor,
    /// `_rebuild_tensor_v2`: also of `requires_grad`, hooks and perhaps a dictionary.
    TensorV2,
    /// `_rebuild_tensor_v3`: with the element type before that dictionary.
    TensorV3,
    /// `_rebuild_parameter`, `_rebuild_parameter_with_state`: of a tensor.
    Parameter,
    /// `_rebuild_from_type_v2`: of a function, a type, the function's arguments, attributes.
    FromType,
    /// A kind of tensor, as the second argument of `FromType`.
    TensorType,
    /// A type of storage; `None` for untyped bytes.
    Storage(Option<Dtype>),
    Dtype(Dtype),
    Size,
    Device,
}

impl Name {
    fn of(module: &str, name: &str) -> Option<Name> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Name::OrderedDict,
            ("collections", "Counter") => Name::Collection,
            ("builtins" | "__builtin__", "set" | "frozenset") => Name::Collection,
            ("_codecs", "encode") => Name::Encode,
            ("torch._utils", "_rebuild_tensor") => Name::Tensor,
            ("torch._utils", "_rebuild_tensor_v2") => Name::TensorV2,
            ("torch._utils", "_rebuild_tensor_v3") => Name::TensorV3,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Name::Parameter,
            ("torch._tensor", "_rebuild_from_type_v2") => Name::FromType,
            ("torch", "Tensor") | ("torch.nn.parameter", "Parameter" | "Buffer") => Name::TensorType,
            ("torch", "Size") => Name::Size,
            ("torch", "device") => Name::Device,
            ("torch.storage", "UntypedStorage") | ("torch", "UntypedStorage") => Name::Storage(None),
            ("torch" | "torch.storage", _) => match name.strip_suffix("Storage") {
                Some(kind) => Name::Storage(Some(stored(kind)?)),
                None => Name::Dtype(dtype(name)?),
            },
            _ => return None,
        })
    }
}

/// The element type of `torch.FloatStorage` and so on.
fn stored(kind: &str) -> Option<Dtype> {
    Some(match kind {
        "Float" => Dtype::F32,
        "Double" => Dtype::F64,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::BF16,
        "Long" => Dtype::I64,
        "Int" => Dtype::I32,
        "Short" => Dtype::I16,
        "Char" => Dtype::I8,
        "Byte" => Dtype::U8,
        "Bool" => Dtype::BOOL,
        "ComplexFloat" => Dtype::C64,
        _ => return None,
    })
}

/// The element type of `torch.float32` and so on.
fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float32" => Dtype::F32,
        "float64" => Dtype::F64,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "int64" => Dtype::I64,
        "int32" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        "uint8" => Dtype::U8,
        "bool" => Dtype::BOOL,
        "complex64" => Dtype::C64,
        "float8_e5m2" => Dtype::F8_E5M2,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        _ => return None,
    })
}

/// A pickle that was read.
#[derive(Debug)]
pub struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
    /// Its length in bytes.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`. It is called `place` in errors and has at most `limit` values.
    pub fn read(bytes: &'a [u8], place: &'a str, limit: usize) -> Result<Self, LoadError> {
        let mut machine = Machine { bytes, at: 0, place, limit, ..Machine::default() };
        let root = machine.run()?;
        Ok(Pickle { values: machine.values, root, length: machine.at })
    }

    pub fn root(&self) -> Id {
        self.root
    }

    pub fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    pub fn values(&self) -> &[Value<'a>] {
        &self.values
    }

    /// The elements of a list or a tuple.
    pub fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::List(elements) | Value::Tuple(elements) => Some(elements),
            _ => None,
        }
    }

    pub fn text(&self, id: Id) -> Option<&'a str> {
        match self.value(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number, as a count.
    pub fn count(&self, id: Id) -> Option<usize> {
        match self.value(id) {
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    place: &'a str,
    limit: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// The height of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, LoadError> {
        loop {
            let at = self.at;
            let [operation] = self.take()?;
            match operation {
                b'.' => return self.pop(),
                // Protocol and frames are not needed.
                0x80 => drop(self.take::<1>()?),
                0x95 => drop(self.take::<8>()?),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.above_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }

                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'J' => {
                    let number = i32::from_le_bytes(self.take()?);
                    self.push(Value::Int(number.into()))?;
                }
                b'K' => {
                    let [number] = self.take()?;
                    self.push(Value::Int(number.into()))?;
                }
                b'M' => {
                    let number = u16::from_le_bytes(self.take()?);
                    self.push(Value::Int(number.into()))?;
                }
                0x8a | 0x8b => {
                    let length = self.length(if operation == 0x8a { 1 } else { 4 })?;
                    let bytes = self.slice(length)?;
                    if length > 16 {
                        return Err(self.refused(at, "an integer of at most 16 bytes", &format!("{length} bytes")));
                    }
                    let mut number = [if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 }; 16];
                    number[..length].copy_from_slice(bytes);
                    self.push(Value::Int(i128::from_le_bytes(number)))?;
                }
                b'I' | b'L' => {
                    let line = self.line()?;
                    let value = match line {
                        "01" => Some(Value::Bool(true)),
                        "00" => Some(Value::Bool(false)),
                        _ => line.trim_end_matches('L').parse().ok().map(Value::Int),
                    };
                    let value = value.ok_or_else(|| self.refused(at, "an integer", &format!("{line:?}")))?;
                    self.push(value)?;
                }
                b'G' => {
                    let number = f64::from_be_bytes(self.take()?);
                    self.push(Value::Float(number))?;
                }

                // Text; Python 2's (T, U) counts as bytes if it is not Unicode.
                b'X' | 0x8c | 0x8d | b'T' | b'U' => {
                    let length = self.length(match operation {
                        0x8c | b'U' => 1,
                        0x8d => 8,
                        _ => 4,
                    })?;
                    let value = match std::str::from_utf8(self.slice(length)?) {
                        Ok(text) => Value::Text(text),
                        Err(_) if matches!(operation, b'T' | b'U') => Value::Bytes,
                        Err(_) => return Err(self.refused(at, "text in UTF-8", "other bytes")),
                    };
                    self.push(value)?;
                }
                b'B' | b'C' | 0x8e | 0x96 => {
                    let length = self.length(match operation {
                        b'C' => 1,
                        b'B' => 4,
                        _ => 8,
                    })?;
                    self.slice(length)?;
                    self.push(Value::Bytes)?;
                }

                b']' | 0x8f => self.push(Value::List(Vec::new()))?,
                b')' => self.push(Value::Tuple(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b'l' | 0x91 => {
                    let elements = self.above_mark()?;
                    self.push(Value::List(elements))?;
                }
                b't' => {
                    let elements = self.above_mark()?;
                    self.push(Value::Tuple(elements))?;
                }
                0x85..=0x87 => {
                    let elements = self.last(usize::from(operation - 0x84))?;
                    self.push(Value::Tuple(elements))?;
                }
                b'd' => {
                    let pairs = self.above_mark()?;
                    let pairs = self.pairs(at, &pairs)?;
                    self.push(Value::Dict(pairs))?;
                }
                b'a' | b'e' | 0x90 => {
                    let elements = if operation == b'a' { self.last(1)? } else { self.above_mark()? };
                    match self.top_value()? {
                        Value::List(list) => list.extend(elements),
                        other => {
                            let got = kind(other);
                            return Err(self.refused(at, "a list to add to", got));
                        }
                    }
                }
                b's' | b'u' => {
                    let pairs = if operation == b's' { self.last(2)? } else { self.above_mark()? };
                    let pairs = self.pairs(at, &pairs)?;
                    match self.top_value()? {
                        Value::Dict(dict) => dict.extend(pairs),
                        other => {
                            let got = kind(other);
                            return Err(self.refused(at, "a dictionary to add to", got));
                        }
                    }
                }

                b'q' | b'r' => {
                    let key = self.length(if operation == b'q' { 1 } else { 4 })?;
                    self.memorize(key as u64)?;
                }
                0x94 => self.memorize(self.memo.len() as u64)?,
                b'h' | b'j' => {
                    let key = self.length(if operation == b'h' { 1 } else { 4 })?;
                    let id = self.memo.get(&(key as u64)).copied();
                    let id = id.ok_or_else(|| self.refused(at, "a value that was kept", &format!("none, {key}")))?;
                    self.stack.push(id);
                }

                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.name(at, module, name)?;
                }
                0x93 => {
                    let names = self.last(2)?;
                    let [Value::Text(module), Value::Text(name)] = [0, 1].map(|i| self.value(names[i])) else {
                        return Err(self.refused(at, "a module and a name", "other values"));
                    };
                    self.name(at, module, name)?;
                }
                b'R' | 0x81 => {
                    let operands = self.last(2)?;
                    self.call(at, operands[0], operands[1])?;
                }
                // The attributes of a dictionary or a tensor, such as the `_metadata` of a state dict.
                b'b' => {
                    self.last(1)?;
                    if !matches!(self.top_value()?, Value::Dict(_) | Value::Call(..)) {
                        return Err(self.refused(at, "a dictionary or a tensor with attributes", "another value"));
                    }
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.push(Value::Persistent(id))?;
                }
                other => {
                    let got = format!("operation {:?}", char::from(other));
                    return Err(self.refused(at, "an operation that makes data", &got));
                }
            }
        }
    }

    fn name(&mut self, at: usize, module: &str, name: &str) -> Result<(), LoadError> {
        let found = Name::of(module, name).ok_or_else(|| {
            let expected = "tensors, numbers, text, and lists and dictionaries of them, as in a state dict";
            self.refused(at, expected, &format!("the Python object {}", shortened(&format!("{module}.{name}"))))
        })?;
        self.push(Value::Name(found))
    }

    fn call(&mut self, at: usize, function: Id, arguments: Id) -> Result<(), LoadError> {
        let (&Value::Name(name), Value::Tuple(values)) = (self.value(function), self.value(arguments)) else {
            return Err(self.refused(at, "a function and its arguments", kind(self.value(function))));
        };
        match (name, &values[..]) {
            (Name::OrderedDict, []) => self.push(Value::Dict(Vec::new())),
            // Python 2 wrote a list of lists of two elements.
            (Name::OrderedDict, &[list]) => {
                let Value::List(list) = self.value(list) else {
                    return Err(self.refused(at, "a list of pairs", "another value"));
                };
                let mut pairs = Vec::new();
                for &pair in list {
                    match self.value(pair) {
                        Value::List(pair) | Value::Tuple(pair) if pair.len() == 2 => pairs.push((pair[0], pair[1])),
                        other => return Err(self.refused(at, "a pair", kind(other))),
                    }
                }
                // Each list could be used many times.
                self.limit = self.limit.saturating_sub(pairs.len());
                self.push(Value::Dict(pairs))
            }
            (Name::Collection, []) => self.push(Value::List(Vec::new())),
            (Name::Collection, &[elements]) => {
                self.stack.push(elements);
                Ok(())
            }
            _ => self.push(Value::Call(name, arguments)),
        }
    }

    fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), LoadError> {
        if self.values.len() + self.memo.len() >= self.limit {
            return Err(too_many_values(self.limit));
        }
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
        Ok(())
    }

    fn memorize(&mut self, key: u64) -> Result<(), LoadError> {
        if self.values.len() + self.memo.len() >= self.limit {
            return Err(too_many_values(self.limit));
        }
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    /// Takes the stack above the last mark, and the mark.
    fn above_mark(&mut self) -> Result<Vec<Id>, LoadError> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        let mark = mark.ok_or_else(|| self.refused(self.at, "a mark on the stack", "none"))?;
        Ok(self.stack.split_off(mark))
    }

    /// Takes the top `count` values of the stack, which must lie above the last mark.
    fn last(&mut self, count: usize) -> Result<Vec<Id>, LoadError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count).filter(|&start| start >= floor) {
            Some(start) => Ok(self.stack.split_off(start)),
            None => Err(self.refused(self.at, &format!("{count} values on the stack"), "fewer")),
        }
    }

    fn pop(&mut self) -> Result<Id, LoadError> {
        Ok(self.last(1)?[0])
    }

    fn top(&self) -> Result<Id, LoadError> {
        self.stack.last().copied().ok_or_else(|| self.refused(self.at, "a value on the stack", "none"))
    }

    fn top_value(&mut self) -> Result<&mut Value<'a>, LoadError> {
        let top = self.top()?;
        Ok(&mut self.values[top as usize])
    }

    fn pairs(&self, at: usize, elements: &[Id]) -> Result<Vec<(Id, Id)>, LoadError> {
        if !elements.len().is_multiple_of(2) {
            return Err(self.refused(at, "keys with a value each", &format!("{} of both", elements.len())));
        }
        Ok(elements.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], LoadError> {
        let rest = &self.bytes[self.at..];
        let slice = rest.get(..length).ok_or_else(|| {
            self.refused(self.at, &format!("{length} bytes"), &format!("the end after {}", rest.len()))
        })?;
        self.at += length;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        Ok(self.slice(N)?.try_into().expect("as many as asked for"))
    }

    /// A length of `size` bytes.
    fn length(&mut self, size: usize) -> Result<usize, LoadError> {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(self.slice(size)?);
        Ok(usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX))
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Result<&'a str, LoadError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let line = length.and_then(|length| std::str::from_utf8(&rest[..length]).ok());
        let line = line.ok_or_else(|| self.refused(self.at, "a line of text", "none"))?;
        self.at += line.len() + 1;
        Ok(line)
    }

    #[cold]
    fn refused(&self, at: usize, expected: &str, got: &str) -> LoadError {
        LoadError::pytorch(format_args!("{}, byte {at}", self.place), expected, got)
    }
}

pub fn too_many_values(limit: usize) -> LoadError {
    LoadError::Limit { path: None, what: "values", limit }
}

/// The kind of a value, for errors.
pub fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::None => "None",
        Value::Bool(_) => "a truth value",
        Value::Int(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Text(_) => "text",
        Value::Bytes => "bytes",
        Value::List(_) => "a list",
        Value::Tuple(_) => "a tuple",
        Value::Dict(_) => "a dictionary",
        Value::Name(_) => "a name",
        Value::Call(..) => "a tensor",
        Value::Persistent(_) => "a storage",
    }
}

/// Text of a file for an error, at most 80 characters of it.
pub fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(80).flat_map(char::escape_default).collect();
    if text.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}
