//! Start and end of a program that runs on several ranks.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use mpi::Threading;

use crate::options::Options;
use crate::ranks::Ranks;

/// Runs `act` on every rank that `mpirun` started, or on a single rank without `mpirun`.
///
/// Nothing hangs. If `act` returns an error or panics on one rank, that rank says so with its number, and all ranks end with a nonzero
/// status. If a rank sends nothing, those that wait for it report the rank and the call once their [patience](Options::patience) is
/// over. If it has returned, they report that at once. If a rank is killed, `mpirun` reports it and ends the others.
///
/// ```
/// use std::process::ExitCode;
/// use gradflow_mpi::{Options, RankError, run};
///
/// fn main() -> ExitCode {
///     run(Options::new(), |ranks| {
///         let mut sum = [1.0];
///         ranks.sum_numbers(&mut sum);
///         assert_eq!(sum, [ranks.count() as f64]);
///         Ok::<_, RankError>(())
///     })
/// }
/// ```
///
/// # Panics
/// Panics if it was called before: MPI can be started only once per process.
#[track_caller]
pub fn run<E: Display>(options: Options, act: impl FnOnce(&Ranks) -> Result<(), E>) -> ExitCode {
    let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
        panic!("run: expected a process in which MPI has not started, got one in which it has")
    };
    let ranks = Ranks::new(universe.world(), options);
    if let Some(misfit) = options.misfit(ranks.count()) {
        ranks.end_all(&misfit);
    }
    if let Err(error) = ranks.check_options() {
        ranks.end_all(&error);
    }
    match catch_unwind(AssertUnwindSafe(|| act(&ranks))) {
        Ok(Ok(())) => ranks.leave(),
        Ok(Err(error)) => ranks.end_all(&error),
        // The panic itself has printed where it happened.
        Err(panic) => ranks.end_all(&format_args!("panicked: {}", message(&*panic))),
    }
    drop(ranks);
    drop(universe);
    ExitCode::SUCCESS
}

/// The message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}
