/*
 * cancel.h - being told to stop: SIGINT (Ctrl-C) and SIGTERM. A long job looks at
 * mix_cancel_requested() between segments, keeps what it has, and returns
 * MIX_INTERRUPTED. One flag for the process; any thread may look.
 */
#ifndef MIXCKPT_CKPT_BASE_CANCEL_H
#define MIXCKPT_CKPT_BASE_CANCEL_H

#include <stdbool.h>

#include "ckpt/base/err.h"

enum mix_cancel_mode {
    MIX_CANCEL_AT_ONCE, /* the first signal ends the process: nothing is under way */
    MIX_CANCEL_ASK,     /* the first signal sets the flag, a SIGINT after it ends the process */
};

/*
 * Handle SIGINT and SIGTERM from now on; calls that block return EINTR. Ending the
 * process means _exit(130) or _exit(143). SIGPIPE and SIGXFSZ are ignored: the write
 * that causes them fails, and says so.
 */
enum mix_rc mix_cancel_install(enum mix_cancel_mode mode, struct mix_err *err);

bool mix_cancel_requested(void);
int mix_cancel_signal(void); /* the first one received: SIGINT, SIGTERM, or 0 */

/* MIX_INTERRUPTED with words, if it was requested. */
enum mix_rc mix_cancel_check(struct mix_err *err);

/* Forget a request. For tests, which are interrupted more than once. */
void mix_cancel_reset(void);

#endif
