//! The core that a thread runs on. It is known only on Linux, where it is needed.

#![allow(unsafe_code)]

/// The core that this thread runs on, if it is known.
pub(super) fn current_core() -> Option<usize> {
    #[cfg(target_os = "linux")]
    // SAFETY: the call has no preconditions.
    return unsafe { libc::sched_getcpu() }.try_into().ok();
    #[cfg(not(target_os = "linux"))]
    None
}

/// Moves this thread away from `core`, if it runs there and may run on others.
///
/// If all cores were busy lately, Linux wakes a thread on the core of the thread that calls it, and moves one of the two only
/// after some milliseconds.
pub(super) fn leave(core: Option<usize>) {
    #[cfg(target_os = "linux")]
    if let Some(core) = core.filter(|_| core == current_core()) {
        const SIZE: usize = size_of::<libc::cpu_set_t>();
        // SAFETY: a set of cores is plain bits, `core` is one of them, and the calls are told the size of the sets.
        unsafe {
            let mut all = std::mem::zeroed();
            if core < 8 * SIZE && libc::sched_getaffinity(0, SIZE, &mut all) == 0 {
                let mut others = all;
                libc::CPU_CLR(core, &mut others);
                // This fails if there is no other core.
                if libc::sched_setaffinity(0, SIZE, &others) == 0 {
                    libc::sched_setaffinity(0, SIZE, &all);
                }
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = core;
}
