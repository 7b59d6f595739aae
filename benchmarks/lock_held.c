/* How often threads hold the interpreter's lock: the CPU clock of each thread interrupts it, and it is asked whether it
   holds the lock at that moment. Linux only. */

#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
/* What the kernel calls the clock of a thread's CPU time (include/linux/posix-timers.h). */
#define CLOCK_OF(thread) ((clockid_t)((~(clockid_t)(thread) << 3) | 6))
enum { MAX_THREADS = 64 };

static int (*holds_lock)(void);
static atomic_long held, seen;
static timer_t timers[MAX_THREADS];
static int num_timers;

static void look(int number) {
    (void)number;
    atomic_fetch_add(&seen, 1);
    if (holds_lock())
        atomic_fetch_add(&held, 1);
}

/* Begin to look at these threads. check: PyGILState_Check. 0, or -1 where that cannot be. */
int watch(int (*check)(void), const int *threads, int count, long interval_ns) {
    struct sigaction action;
    struct itimerspec every = {{0, interval_ns}, {0, interval_ns}};
    memset(&action, 0, sizeof action);
    action.sa_handler = look;
    action.sa_flags = SA_RESTART;
    holds_lock = check;
    atomic_store(&held, 0);
    atomic_store(&seen, 0);
    if (count > MAX_THREADS || sigaction(SIGPROF, &action, NULL) != 0)
        return -1;
    for (num_timers = 0; num_timers < count; num_timers++) {
        struct sigevent event;
        memset(&event, 0, sizeof event);
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGPROF;
        event.sigev_notify_thread_id = threads[num_timers];
        if (timer_create(CLOCK_OF(threads[num_timers]), &event, &timers[num_timers]) != 0)
            return -1;
        if (timer_settime(timers[num_timers], 0, &every, NULL) != 0)
            return -1;
    }
    return 0;
}

/* Stop; how often threads were looked at, and had the lock. */
void unwatch(long found[2]) {
    while (num_timers > 0)
        timer_delete(timers[--num_timers]);
    found[0] = atomic_load(&seen);
    found[1] = atomic_load(&held);
}
