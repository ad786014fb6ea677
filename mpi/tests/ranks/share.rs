//! What all ranks have in common: weights, optimizers, checkpoints, states, sums and errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use gradflow::io::Checkpoint;
use gradflow::metrics::Accuracy;
use gradflow::ndarray::{Array3, arr1, arr2, arr3};
use gradflow::prelude::*;
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow_mpi::{Options, RankError, Ranks, run};

use crate::{Test, mpirun};

pub const TESTS: [Test; 2] = [
    ("share", || [1, 2, 4].into_iter().for_each(|count| _ = mpirun(count, "share").succeeded())),
    ("share_three", || {
        let ended = mpirun(3, "share");
        assert!(!ended.success && ended.all().contains("ranks: expected a power of two"), "{}", ended.all());
    }),
];

fn model(seed: u64) -> (Gru<f32>, Linear<f32>) {
    let rng = &mut StdRng::seed_from_u64(seed);
    (Gru::new(3, 4, rng), Linear::new(4, 2, rng))
}

pub fn rank(_: &[&str]) -> ExitCode {
    run(Options::new().shards(4), |ranks| {
        sums(ranks);
        weights_and_optimizers(ranks)?;
        checkpoints(ranks)?;
        errors(ranks);
        states(ranks);
        small_buckets(ranks);
        Ok::<_, RankError>(())
    })
}

fn sums(ranks: &Ranks) {
    let (rank, count) = (ranks.rank() as f64, ranks.count() as f64);
    let mut numbers = [rank, 1.0, 0.5];
    ranks.sum_numbers(&mut numbers);
    assert_eq!(numbers, [count * (count - 1.0) / 2.0, count, count / 2.0]);

    let mut accuracy = Accuracy::new();
    let class = usize::from(rank > 0.0);
    accuracy.add(&arr3(&[[[2.0_f32, 1.0]]]), &arr2(&[[class]])); // right on rank 0 alone
    ranks.sum(&mut accuracy);
    assert_eq!((accuracy.total(), accuracy.value()), (count, 1.0 / count));

    let mut grad = arr1(&[rank, 10.0 * rank, 1.0]);
    ranks.mean(&mut grad);
    assert_eq!(grad, arr1(&[(count - 1.0) / 2.0, 5.0 * (count - 1.0), 1.0]));
    let mut grad = arr1(&[rank as f32, 1.0]);
    let loss = ranks.weighted_mean(&mut grad, 7.0, 2.0);
    assert_eq!((loss, grad), (7.0, arr1(&[(count as f32 - 1.0) / 2.0, 1.0])));
    // Only the last rank's terms count.
    let weight = if ranks.rank() + 1 == ranks.count() { 3.0 } else { 0.0 };
    let mut grad = arr1(&[rank as f32]);
    assert_eq!(ranks.weighted_mean(&mut grad, rank, weight), count - 1.0);
    assert_eq!(grad, arr1(&[count as f32 - 1.0]));
    // No rank's terms count: a mean of nothing is 0.
    assert_eq!((ranks.weighted_mean(&mut grad, 1.0, 0.0), grad), (0.0, arr1(&[0.0])));

    // More elements than fit into a message, in a number that cannot be halved evenly.
    let mut long = gradflow::ndarray::Array1::from_shape_fn(200_003, |i| (i % 1000) as f32 + rank as f32);
    ranks.sum(&mut long);
    let of_ranks = count as f32 * (count as f32 - 1.0) / 2.0;
    assert!(long.iter().enumerate().all(|(i, &sum)| sum == count as f32 * (i % 1000) as f32 + of_ranks));
}

fn weights_and_optimizers(ranks: &Ranks) -> Result<(), RankError> {
    let seed = ranks.rank() as u64;
    let (mut model, mut optimizer) = (model(seed), AdamW::new(0.1 + seed as f64));
    if ranks.count() > 1 {
        let error = ranks.check_equal(&model).unwrap_err();
        assert_eq!((error.rank, error.reason.as_str()), (1, "0.weight_ih_l0: other values than on rank 0"));
    }
    // Rank 0 has taken a step; the others have not.
    if ranks.is_first() {
        let grad = model.clone();
        optimizer.step(&mut model, &grad);
    }
    ranks.broadcast_training(&mut model, &mut optimizer)?;
    ranks.check_equal(&model)?;
    let state = optimizer.state();
    assert_eq!((state.steps, state.setting("lr")), (1, Some(0.1)));
    ranks.check_equal(&state.tensors)?;
    let grad = model.clone();
    optimizer.step(&mut model, &grad);
    ranks.check_equal(&model)
}

fn checkpoints(ranks: &Ranks) -> Result<(), RankError> {
    let path = std::env::temp_dir().join(format!("gradflow_mpi_{}.safetensors", std::process::id()));
    let (mut saved, mut read) = (model(7), model(8));
    ranks.save(&path, || Checkpoint::new().with_tensors("model", &saved).with_number("step", 5))?;
    // Each rank has its own name for the file; rank 0's name counts.
    let checkpoint = ranks.open(&path)?;
    assert_eq!(checkpoint.number("step").unwrap(), 5);
    ranks.agree(checkpoint.load_tensors("model", &mut read))?;
    assert_eq!(read, saved);
    let own = std::fs::remove_file(&path);
    assert_eq!(own.is_ok(), ranks.is_first(), "rank 0 writes it, nobody else");

    let missing = ranks.open(&path).unwrap_err();
    assert!(missing.rank == 0 && missing.reason.contains("gradflow_mpi_"), "{missing}");
    let nowhere = ranks.save("/there/is/no/such/folder", Checkpoint::new).unwrap_err();
    assert!(nowhere.rank == 0 && nowhere.to_string().starts_with("rank 0: /there/is/no/such/folder: "), "{nowhere}");
    saved.set_zero();
    Ok(())
}

fn errors(ranks: &Ranks) {
    assert_eq!(ranks.agree(Ok::<_, String>(3)), Ok(3));
    if ranks.count() == 1 {
        return;
    }
    // If two ranks fail, the lower one's error counts.
    let this = if ranks.rank() == 0 { Ok(()) } else { Err(format!("no file on rank {}", ranks.rank())) };
    let error = ranks.agree(this).unwrap_err();
    assert_eq!(error, RankError { rank: 1, reason: "no file on rank 1".into() });
    assert_eq!(error.to_string(), "rank 1: no file on rank 1");
    // A reason that is too long for a message, with characters of several bytes.
    let error = ranks.agree(if ranks.rank() == 1 { Err("é".repeat(5000)) } else { Ok(()) }).unwrap_err();
    assert!(error.reason.starts_with("ééé") && error.reason.len() < 1100);

    // Other shapes, another number of tensors, another element type.
    let last = ranks.rank() + 1 == ranks.count();
    let rng = &mut StdRng::seed_from_u64(0);
    let mut other = Linear::<f32>::new(3, if last { 5 } else { 4 }, rng);
    let before = other.clone();
    let error = ranks.broadcast(&mut other).unwrap_err();
    assert_eq!(error.rank, ranks.count() - 1);
    assert_eq!(error.reason, "tensor 0: expected weight: [4, 3] of f32 as on rank 0, got weight: [5, 3] of f32");
    assert_eq!(other, before);
    let more = Linear::<f32>::builder(3, 4).bias(!last).build(rng);
    let error = ranks.check_alike(&more).unwrap_err();
    assert!(error.reason.contains("expected 2 tensors as on rank 0, got 1: bias: [4] of f32"), "{error}");
    let alike = if last { ranks.check_alike(&arr1(&[1.0_f64])) } else { ranks.check_alike(&arr1(&[1.0_f32])) };
    assert!(alike.unwrap_err().reason.contains("expected (without a name): [1] of f32 as on rank 0, got"), "f64");
}

/// The state of the whole batch, gathered and given back, also if shards are empty.
fn states(ranks: &Ranks) {
    let model = model(3);
    for batch in [9, 2] {
        let x = Array3::from_shape_fn((2, batch, 3), |(t, b, k)| ((t + 3 * b + 5 * k) as f32).sin());
        let mut states = ranks.zero_states(&model, batch);
        for shard in ranks.shards(batch) {
            model.forward(shard.of(&x), &mut states[shard.place()], &mut model.cache());
        }
        let got = ranks.gather_states(&model, batch, &states);
        let mut expected = model.zero_state(batch);
        for s in 0..4 {
            let own: Vec<_> = (s * batch / 4..(s + 1) * batch / 4).collect();
            if let (Some(&first), Some(&last)) = (own.first(), own.last()) {
                let mut state = model.zero_state(own.len());
                model.forward(Sequence::from(&x).sequences(first..last + 1), &mut state, &mut model.cache());
                model.put_state(&mut expected, &own, &state);
            }
        }
        assert_eq!(got, expected);
    }
}

/// Parts with fewer elements than ranks, or none; shards without sequences; and sums that were never taken or never made.
fn small_buckets(ranks: &Ranks) {
    let parts = [arr1(&[8.0_f64]), arr1(&[1.0, -2.0, 3.0]), arr1(&[])];
    let mut sum = ranks.bucket_sum::<f64>(&[&parts[0], &parts[1], &parts[2]]);
    for batch in [9, 2] {
        sum.during(|going| {
            for shard in ranks.shards(batch) {
                going.shard(&shard, 5.0, shard.count() as f64);
                (0..3).rev().for_each(|k| going.add(k, &parts[k]));
            }
        });
        let mut got = parts.clone().map(|part| part * f64::NAN);
        let [a, b, c] = &mut got;
        assert_eq!(sum.mean(&mut [a, b, c]), 5.0);
        assert!(
            got.iter().flatten().zip(parts.iter().flatten()).all(|(got, part)| (got - part).abs() < 1e-15),
            "{got:?}"
        );
    }
    let refused = catch_unwind(AssertUnwindSafe(|| sum.mean(&mut []))).unwrap_err();
    let message = refused.downcast_ref::<String>().expect("a message");
    assert!(message.contains("BucketSum: grads: expected 3 parts, got 0"), "{message}");
    let [mut a, mut b, mut c] = parts;
    let refused = catch_unwind(AssertUnwindSafe(|| sum.mean(&mut [&mut a, &mut b, &mut c]))).unwrap_err();
    assert_eq!(refused.downcast_ref(), Some(&"BucketSum: mean: expected sums of `during`, got none"));
}
