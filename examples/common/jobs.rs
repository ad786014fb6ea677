//! Work on two threads.

use std::sync::Mutex;

/// How many threads work at once.
const WORKERS: usize = 2;

/// The results of `work` for each of `jobs`, in the jobs' order, not in the order in which they finish.
///
/// A job's random numbers must come from its own seed alone; then nothing depends on the threads.
pub fn in_parallel<J: Send, R: Send>(jobs: Vec<J>, work: impl Fn(J) -> R + Sync) -> Vec<R> {
    let mut results: Vec<Option<R>> = jobs.iter().map(|_| None).collect();
    let queue = Mutex::new(jobs.into_iter().zip(&mut results));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                // The lock is released before the work begins.
                let next = || queue.lock().expect("nobody panics with the queue").next();
                while let Some((job, result)) = next() {
                    *result = Some(work(job));
                }
            });
        }
    });
    results.into_iter().map(|result| result.expect("every job was done")).collect()
}
