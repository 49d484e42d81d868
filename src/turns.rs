//! Whose turn it is on a processor: threads that work beside the requests let the workers go first.

/// How long such a thread may keep a processor that somebody else wants, where the kernel can be told so (Linux from 6.12
/// on; it does not go below 100 µs). Its own 1.4 to 3 ms are longer than most requests take.
const SLICE_NANOS: u64 = 100_000;

/// SCHED_FLAG_RESET_ON_FORK.
const RESET_ON_FORK: u64 = 1;

/// Lets others go first, from this thread on: with this niceness (0 to 19) and in short turns. Where that is forbidden or
/// unknown, the thread works as before; who was told to step back further stays there.
pub fn step_back(niceness: i32) {
    // SAFETY: the attributes are as long as they say and outlive the call; the other calls touch no memory. Linux keeps
    // both per thread, and 0 is the one that calls.
    unsafe {
        let niceness = libc::getpriority(libc::PRIO_PROCESS, 0).max(niceness);
        libc::setpriority(libc::PRIO_PROCESS, 0, niceness);
        let mut attributes: libc::sched_attr = std::mem::zeroed();
        attributes.size = size_of::<libc::sched_attr>() as u32;
        attributes.sched_policy = libc::SCHED_OTHER as u32;
        // Whoever it starts (a command that is the backend) takes turns as usual.
        attributes.sched_flags = RESET_ON_FORK;
        attributes.sched_nice = niceness;
        attributes.sched_runtime = SLICE_NANOS;
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0);
    }
}
