//! If a rank fails, all ranks end, none hangs, and the message says which rank failed and why.

use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use gradflow::layers::Linear;
use gradflow::ndarray::{Array1, arr1};
use gradflow_mpi::{Options, RankError, Ranks, Reduction, run};

use crate::{Test, mpirun};

pub const TESTS: [Test; 16] = [
    ("fault_killed", || ends("killed", &["signal 9"], 30)),
    ("fault_panic", || ends("panic", &["error: rank 1 of", "panicked: the data ended"], 20)),
    ("fault_panic_in_a_sum", || ends("panic_in_sum", &["error: rank 1 of", "TreeSum: shard: expected one of"], 20)),
    ("fault_panic_in_buckets", || ends("panic_in_buckets", &["error: rank 1 of", "panicked: the second part"], 20)),
    ("fault_silent_in_buckets", || {
        ends("silent_in_buckets", &["error: rank 0 of", "s in a mean of gradients for rank 1, which sent nothing"], 30);
    }),
    ("fault_error", || ends("error", &["error: rank 1 of", "the disk is full"], 20)),
    ("fault_other_model", || {
        ends("other_model", &["rank 1: tensor 0: expected weight: [4, 3] of f32 as on rank 0, got weight: [5, 3]"], 20);
    }),
    ("fault_silent", || {
        ends("silent", &["error: rank 0 of", "s in a mean of gradients for rank 1, which sent nothing"], 30)
    }),
    ("fault_silent_all_reduce", || {
        ends("silent_mpi", &["in a mean of gradients for another rank, which sent nothing"], 30)
    }),
    ("fault_silent_broadcast", || ends("silent_broadcast", &["for rank 0, which sent nothing"], 30)),
    ("fault_returned", || ends("returned", &["error: rank 0 of", "for rank 1, which is in its end"], 20)),
    ("fault_other_call", || {
        ends("other_call", &["error: rank", "waits in", "a mean of gradients", "which is in", "a sum of numbers"], 20);
    }),
    ("fault_other_length", || {
        ends("other_length", &["error: rank", "a mean of gradients", "a check of the number of elements"], 20);
    }),
    ("fault_other_length_at_first", || {
        ends("length_at_first", &["panicked: rank 1: expected 5 elements in a sum of tensors as on rank 0, got 7"], 20);
    }),
    ("fault_other_options", || ends("other_options", &["rank 1: options: expected Options { shards: 8"], 20)),
    ("fault_exit", || ends("exit", &[], 20)),
];

/// Checks that on 2 and on 4 ranks the program ends with an error within `seconds`, and that its output contains all of `words`.
fn ends(fault: &str, words: &[&str], seconds: u64) {
    for count in [2, 4] {
        let ended = mpirun(count, &format!("fault {fault}"));
        let all = ended.all();
        assert!(!ended.success, "{fault} on {count} ranks ended well: {all}");
        assert!(words.iter().all(|word| all.contains(word)), "{fault} on {count} ranks says\n{all}");
        assert!(ended.time < Duration::from_secs(seconds), "{fault} on {count} ranks took {:?}", ended.time);
        assert!(!all.contains("unreachable end"), "{fault}: a rank went on: {all}");
    }
}

pub fn rank(words: &[&str]) -> ExitCode {
    let fault = words[0].to_owned();
    let options = Options::new().patience(Duration::from_secs(if fault.starts_with("silent") { 2 } else { 120 }));
    let options = if fault == "silent_mpi" { options.reduction(Reduction::AllReduce) } else { options };
    // Open MPI or MPICH tells each rank its number.
    let rank = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"].into_iter().find_map(|name| std::env::var(name).ok());
    let other = fault == "other_options" && rank.as_deref() == Some("1");
    let options = if other { options.shards(16) } else { options };
    run(options, |ranks| {
        let mut grad = Array1::from_elem(100_000, 1.0_f32);
        ranks.mean(&mut grad);
        ranks.sum_numbers(&mut [0.0]);
        act(ranks, &fault, &mut grad)?;
        if fault == "returned" && ranks.rank() == 1 {
            return Ok(()); // as in a loop with fewer batches than the others have
        }
        // All but rank 1 go on, and need rank 1.
        for _ in 0..10 {
            ranks.mean(&mut grad);
        }
        println!("unreachable end");
        Ok::<_, String>(())
    })
}

fn act(ranks: &Ranks, fault: &str, grad: &mut Array1<f32>) -> Result<(), String> {
    let text = |error: RankError| error.to_string();
    if fault == "other_model" {
        let mut model = Linear::<f32>::zeros(3, if ranks.rank() == 1 { 5 } else { 4 });
        return ranks.broadcast(&mut model).map_err(text);
    }
    if fault.ends_with("in_buckets") {
        let mut other = grad.clone();
        let mut sum = ranks.bucket_sum::<f32>(&[grad, &other]);
        sum.during(|going| {
            for shard in ranks.shards(16) {
                going.shard(&shard, 0.0, 1.0);
                going.add(1, grad); // on its way, after the last shard
                if ranks.rank() == 1 && shard.place() + 1 == ranks.own_shards() {
                    match fault {
                        "panic_in_buckets" => panic!("the second part"),
                        _ => forever(),
                    }
                }
                going.add(0, grad);
            }
        });
        sum.mean(&mut [grad, &mut other]);
        return Ok(());
    }
    if fault == "length_at_first" {
        ranks.sum(&mut Array1::from_elem(if ranks.rank() == 1 { 7 } else { 5 }, 1.0_f32));
        return Ok(());
    }
    if fault == "silent_broadcast" {
        if ranks.is_first() {
            forever();
        }
        return ranks.broadcast(grad).map_err(text);
    }
    if ranks.rank() != 1 {
        return Ok(());
    }
    match fault {
        "killed" => {
            let _ = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
            forever()
        }
        "panic" => panic!("the data ended"),
        "panic_in_sum" => {
            let shard = ranks.shards(16).next().expect("a shard");
            let mut sum = ranks.tree_sum(grad);
            sum.add(&shard, grad, 0.0, 1.0);
            sum.add(&shard, grad, 0.0, 1.0); // once more
            Ok(())
        }
        "error" => Err("the disk is full".into()),
        "silent" | "silent_mpi" => forever(),
        "returned" => Ok(()),
        "other_call" => {
            ranks.sum_numbers(&mut [1.0]);
            Ok(())
        }
        "other_length" => {
            ranks.mean(&mut arr1(&[1.0_f32; 7]));
            Ok(())
        }
        "exit" => std::process::exit(3),
        _ => panic!("no fault is called {fault}"),
    }
}

fn forever() -> ! {
    loop {
        sleep(Duration::from_secs(1));
    }
}
