//! Programs on several ranks: this file starts `mpirun` with itself and checks what the ranks print and how they end.
//!
//! `cargo test --test ranks NAME` runs the tests whose names contain NAME.

mod faults;
mod share;
mod train;

use std::env;
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// The environment variable that tells a rank what to do.
const SCENARIO: &str = "GRADFLOW_MPI_SCENARIO";

/// A test that takes longer is considered to hang.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    if let Ok(scenario) = env::var(SCENARIO) {
        let words: Vec<&str> = scenario.split(' ').collect();
        return match words[0] {
            "train" => train::rank(&words[1..]),
            "share" => share::rank(&words[1..]),
            "fault" => faults::rank(&words[1..]),
            _ => panic!("no scenario is called {scenario}"),
        };
    }
    let filter: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let tests = [&train::TESTS[..], &share::TESTS, &faults::TESTS].concat();
    let mut failed = Vec::new();
    for (name, test) in tests {
        if !filter.is_empty() && !filter.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let clock = Instant::now();
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {} ({:.1} s)", if passed { "ok" } else { "FAILED" }, clock.elapsed().as_secs_f64());
        if !passed {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}");
    ExitCode::FAILURE
}

/// A test's name, and the test.
type Test = (&'static str, fn());

/// The result of a run of `mpirun`.
struct Ended {
    success: bool,
    stdout: String,
    stderr: String,
    time: Duration,
}

impl Ended {
    /// The lines that begin with `result: `, without that prefix.
    fn results(&self) -> Vec<&str> {
        self.stdout.lines().filter_map(|line| line.strip_prefix("result: ")).collect()
    }

    /// Both streams: it depends on the version of `mpirun` which of them gets its messages.
    fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    fn succeeded(self) -> Self {
        assert!(self.success, "{}", self.all());
        self
    }
}

/// Runs a scenario on `count` ranks with `mpirun`, or with the command in `MPIRUN`. `-n` is the only flag, since Open MPI and MPICH
/// share it.
fn mpirun(count: usize, scenario: &str) -> Ended {
    let clock = Instant::now();
    let mut child = Command::new(env::var_os("MPIRUN").unwrap_or_else(|| "mpirun".into()))
        .args(["-n", &count.to_string()])
        .arg(env::current_exe().expect("this file"))
        .env(SCENARIO, scenario)
        // To run as root, on fewer cores than ranks, in a container.
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
        .env("OMPI_MCA_btl_vader_single_copy_mechanism", "none")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("mpirun does not start: {error}"));
    let read = |mut from: Box<dyn Read + Send>| {
        spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let readers =
        [read(Box::new(child.stdout.take().expect("a pipe"))), read(Box::new(child.stderr.take().expect("a pipe")))];
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if clock.elapsed() > LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        sleep(Duration::from_millis(10));
    };
    let [stdout, stderr] = readers.map(|reader| reader.join().expect("a reader"));
    let status = status.unwrap_or_else(|| panic!("{scenario} on {count} ranks hangs:\n{stdout}{stderr}"));
    Ended { success: status.success(), stdout, stderr, time: clock.elapsed() }
}
