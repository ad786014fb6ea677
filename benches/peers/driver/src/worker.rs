//! A side's process.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use protocol::{Answer, Memory, Point, Request, Tensors};

use crate::given;

pub struct Worker {
    pub name: String,
    pub version: String,
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The number of runs after which memory is measured: a second run may still allocate, a third does not.
const MEMORY_ITERATIONS: u64 = 3;

impl Worker {
    /// # Errors
    /// If it does not start, or is no worker.
    pub fn start(name: &str, mut command: Command) -> Result<Self, Box<dyn Error>> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name}: {}: {error}", command.get_program().to_string_lossy()))?;
        let requests = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        let mut worker = Worker { name: name.into(), version: String::new(), process, requests, answers };
        worker.version = match worker.answer()? {
            Answer::Version(version) => version,
            other => return Err(worker.unexpected(&other)),
        };
        Ok(worker)
    }

    /// The inner result is an error if the peer has no such layer.
    pub fn prepare(&mut self, point: &Point, given: &Path) -> Result<Result<(), String>, Box<dyn Error>> {
        match self.ask(&Request::Prepare { point: *point, given: given.into() })? {
            Answer::Done => Ok(Ok(())),
            Answer::Cannot(reason) => Ok(Err(reason)),
            other => Err(self.unexpected(&other)),
        }
    }

    pub fn outputs(&mut self, scratch: &Path) -> Result<Tensors, Box<dyn Error>> {
        let to = scratch.join("outputs.safetensors");
        match self.ask(&Request::Outputs { to: to.clone() })? {
            Answer::Done => Ok(Tensors::open(&to)?),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The seconds that a number of runs take.
    pub fn run(&mut self, iterations: u64) -> Result<f64, Box<dyn Error>> {
        match self.ask(&Request::Run { iterations })? {
            Answer::Seconds(seconds) => Ok(seconds),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The nanoseconds of each of a number of runs.
    pub fn each(&mut self, runs: usize) -> Result<Vec<u64>, Box<dyn Error>> {
        match self.ask(&Request::Each { runs })? {
            Answer::Nanoseconds(each) => Ok(each),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The memory of a point, after another point has loaded what is loaded once; `None` if the peer has no such layer.
    pub fn memory(
        &mut self,
        first: &Point,
        point: &Point,
        given: &Path,
        scratch: &Path,
    ) -> Result<Option<Memory>, Box<dyn Error>> {
        let folder = scratch.join("first");
        std::fs::create_dir_all(&folder)?;
        let small = given::write(first, &folder)?;
        let mut memory = None;
        for (point, given) in [(first, small.as_path()), (point, given)] {
            let request = Request::Memory { point: *point, given: given.into(), iterations: MEMORY_ITERATIONS };
            memory = match self.ask(&request)? {
                Answer::Memory(memory) => Some(memory),
                Answer::Cannot(_) => None,
                other => return Err(self.unexpected(&other)),
            };
        }
        Ok(memory)
    }

    fn ask(&mut self, request: &Request) -> Result<Answer, Box<dyn Error>> {
        let line = serde_json::to_string(request)?;
        writeln!(self.requests, "{line}").map_err(|error| format!("{}: {error}", self.name))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer, Box<dyn Error>> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|error| format!("{}: {error}: {line:?}", self.name).into())
    }

    fn unexpected(&self, answer: &Answer) -> Box<dyn Error> {
        format!("{}: unexpected {answer:?}", self.name).into()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
