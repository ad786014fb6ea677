//! Functions that are compiled once per instruction set, and the choice of the best one at run time.

use std::sync::OnceLock;

use pulp::WithSimd;

/// Runs `operation` compiled for the best instruction set of this machine.
#[inline(always)]
pub(crate) fn dispatch<Op: WithSimd>(operation: Op) -> Op::Output {
    Vectors::best().run(operation)
}

/// An instruction set that this machine has.
#[derive(Clone, Copy)]
pub(crate) enum Vectors {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    #[cfg(not(target_arch = "x86_64"))]
    Native(pulp::Arch),
}

impl Vectors {
    /// The best instruction set of this machine. The choice takes a few nanoseconds.
    #[inline(always)]
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if isa_allowed(Isa::Avx512)
                && let Some(simd) = pulp::x86::V4::try_new()
            {
                return Vectors::Avx512(simd);
            }
            if isa_allowed(Isa::Avx2)
                && let Some(simd) = pulp::x86::V3::try_new()
            {
                return Vectors::Avx2(simd);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        if isa_allowed(Isa::Native) {
            return Vectors::Native(pulp::Arch::new());
        }
        Vectors::Scalar
    }

    /// Runs `operation` compiled for this instruction set.
    #[inline(always)]
    pub(crate) fn run<Op: WithSimd>(self, operation: Op) -> Op::Output {
        match self {
            Vectors::Scalar => pulp::Simd::vectorize(pulp::Scalar, operation),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2(simd) => pulp::Simd::vectorize(simd, operation),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512(simd) => pulp::Simd::vectorize(simd, operation),
            #[cfg(not(target_arch = "x86_64"))]
            Vectors::Native(arch) => arch.dispatch(operation),
        }
    }
}

/// Runs `operation`, compiled for the instruction set `S`, as a separate function.
///
/// The compiler's passes over loops take time that grows with the square of a function's size: a function with dozens of
/// unrolled tiles in it takes several times as long to compile as one that calls them. A call takes about 2 ns.
#[inline(never)]
pub(crate) fn out_of_line<S: pulp::Simd, Op: WithSimd>(simd: S, operation: Op) -> Op::Output {
    simd.vectorize(operation)
}

/// The instruction sets, the narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(not(target_arch = "x86_64"))]
    Native,
}

#[cfg(target_arch = "x86_64")]
const WIDEST: Isa = Isa::Avx512;
#[cfg(not(target_arch = "x86_64"))]
const WIDEST: Isa = Isa::Native;

/// The environment variable that limits the kernels to an instruction set, for tests and comparisons: `scalar`, `avx2` or
/// `avx512`. It is read once.
const LIMIT: &str = "GRADFLOW_ISA";

/// The widest instruction set that may be used.
fn limit() -> Isa {
    static LIMIT_SET: OnceLock<Isa> = OnceLock::new();
    *LIMIT_SET.get_or_init(|| match std::env::var(LIMIT).as_deref() {
        Err(_) | Ok("") => WIDEST,
        Ok("scalar") => Isa::Scalar,
        #[cfg(target_arch = "x86_64")]
        Ok("avx2") => Isa::Avx2,
        #[cfg(target_arch = "x86_64")]
        Ok("avx512") => Isa::Avx512,
        Ok(other) => panic!("{LIMIT}: expected scalar, avx2 or avx512, got {other}"),
    })
}

#[cfg(not(any(test, fuzzing)))]
#[inline(always)]
fn isa_allowed(isa: Isa) -> bool {
    isa <= limit()
}

#[cfg(any(test, fuzzing))]
pub(crate) use forced::for_each_isa;
#[cfg(any(test, fuzzing))]
use forced::isa_allowed;

/// Tests and the fuzzer run every instruction set that the machine has, by lowering a limit.
#[cfg(any(test, fuzzing))]
mod forced {
    use std::cell::Cell;

    use super::Isa;

    #[cfg(target_arch = "x86_64")]
    const ALL: &[Isa] = &[Isa::Scalar, Isa::Avx2, Isa::Avx512];
    #[cfg(not(target_arch = "x86_64"))]
    const ALL: &[Isa] = &[Isa::Scalar, Isa::Native];

    thread_local! {
        static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
    }

    pub(super) fn isa_allowed(isa: Isa) -> bool {
        isa <= FORCED.get().unwrap_or_else(super::limit)
    }

    /// Runs `test` once per instruction set, entirely on the calling thread.
    pub(crate) fn for_each_isa(mut test: impl FnMut(Isa)) {
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                FORCED.set(None);
            }
        }
        let _restore = Restore;
        for &isa in ALL {
            FORCED.set(Some(isa));
            crate::parallel::on_one_thread(|| test(isa));
        }
    }
}
