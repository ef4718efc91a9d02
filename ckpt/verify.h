/*
 * verify.h - is this checkpoint whole? All defects, not only the first.
 *
 * A mixckpt checkpoint is read from its first byte to its last: every leaf against
 * mixckpt.digests, that against the digests in the manifest, every file against its
 * checksum, its header against the one that its pieces imply, every other file against
 * its SHA-256. A Hugging Face folder has no such claims: its structure is checked, and
 * in a hub's cache, where a weight file is a link to a blob named by its SHA-256, that.
 */
#ifndef MIXCKPT_CKPT_VERIFY_H
#define MIXCKPT_CKPT_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "ckpt/checkpoint.h"
#include "ckpt/defect.h"

struct mix_progress;

struct mix_verify_options {
    const struct mix_checkpoint *against; /* compare every tensor with it; may be NULL */
    bool deep;                            /* look at the values too */
    unsigned threads;                     /* at least 1 */
    unsigned worker, worker_count;        /* do this share of the files */
    struct mix_progress *progress;        /* may be NULL */
};

struct mix_verify_report {
    const char *proof;    /* "digests", "hub-sha256", "structure" */
    uint64_t bytes_read;
    double seconds;
    struct mix_defects defects;
    struct mix_texts warnings;
};

/*
 * Open `url` and verify it. What is wrong with the checkpoint is in the report; an error
 * is what kept us from looking (MIX_NOT_FOUND: there is nothing at that place).
 * Release the report in any case.
 */
enum mix_rc mix_verify(const char *url, const struct mix_verify_options *options,
                       struct mix_verify_report *report, struct mix_err *err);
void mix_verify_report_release(struct mix_verify_report *report);

#endif
