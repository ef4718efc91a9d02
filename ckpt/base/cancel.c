/* cancel.c - one flag that signals set. */
#include "ckpt/base/cancel.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* Lock-free atomics are what a handler may touch while other threads look. */
static atomic_int received; /* the first signal, or 0 */
static atomic_int ask;      /* enum mix_cancel_mode */

/*
 * Runs between any two instructions of any thread, so it only sets the flag or leaves.
 * What a job has written so far stays as it is: files are whole or not yet published.
 */
static void handle(int number)
{
    int none = 0;

    if (atomic_load(&ask) == MIX_CANCEL_AT_ONCE)
        _exit(128 + number);
    if (!atomic_compare_exchange_strong(&received, &none, number) && number == SIGINT)
        _exit(128 + SIGINT); /* twice: now */
}

/*
 * Without SA_RESTART, so that a thread that waits in the kernel comes back to look at
 * the flag. Also if SIGINT was ignored before, as shells do for background jobs: a
 * signal that is sent to this very process is meant.
 */
static int install(int number, void (*handler)(int))
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGINT);
    sigaddset(&action.sa_mask, SIGTERM);
    return sigaction(number, &action, NULL);
}

enum mix_rc mix_cancel_install(enum mix_cancel_mode mode, struct mix_err *err)
{
    atomic_store(&ask, mode);
    if (install(SIGINT, handle) || install(SIGTERM, handle) || install(SIGPIPE, SIG_IGN) ||
        install(SIGXFSZ, SIG_IGN))
        return mix_fail_errno(err, "cannot set up signal handlers");
    return MIX_OK;
}

bool mix_cancel_requested(void)
{
    return atomic_load_explicit(&received, memory_order_relaxed) != 0;
}

int mix_cancel_signal(void)
{
    return atomic_load(&received);
}

enum mix_rc mix_cancel_check(struct mix_err *err)
{
    int number = mix_cancel_signal();

    if (!number)
        return MIX_OK;
    return mix_fail(err, MIX_INTERRUPTED, "stopped by %s",
                    number == SIGTERM ? "SIGTERM" : "SIGINT");
}

void mix_cancel_reset(void)
{
    atomic_store(&received, 0);
}
