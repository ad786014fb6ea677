//! Which core a thread is on. Known on Linux alone, where it is needed.

#![allow(unsafe_code)]

/// The core this thread is on, if that is known.
pub(super) fn current_core() -> Option<usize> {
    #[cfg(target_os = "linux")]
    // SAFETY: it has no preconditions.
    return unsafe { libc::sched_getcpu() }.try_into().ok();
    #[cfg(not(target_os = "linux"))]
    None
}

/// Moves this thread to another core than this one, if it is there and may run on others.
///
/// Linux wakes a thread on the core of the one that calls it if all cores were busy lately, and moves one of the two only after
/// some milliseconds.
pub(super) fn leave(core: Option<usize>) {
    #[cfg(target_os = "linux")]
    if let Some(core) = core.filter(|_| core == current_core()) {
        const SIZE: usize = size_of::<libc::cpu_set_t>();
        // SAFETY: sets of cores are plain bits of which `core` is one, and the calls are told their size.
        unsafe {
            let mut all = std::mem::zeroed();
            if core < 8 * SIZE && libc::sched_getaffinity(0, SIZE, &mut all) == 0 {
                let mut others = all;
                libc::CPU_CLR(core, &mut others);
                // It fails if there is no other.
                if libc::sched_setaffinity(0, SIZE, &others) == 0 {
                    libc::sched_setaffinity(0, SIZE, &all);
                }
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = core;
}
