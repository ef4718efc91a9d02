/*
 * capture.h - what a call writes to a descriptor. Check nothing between begin and end:
 * the words of a failed check would be captured, too.
 */
#ifndef MIXCKPT_TESTS_SUPPORT_CAPTURE_H
#define MIXCKPT_TESTS_SUPPORT_CAPTURE_H

/* `fd` is 1 or 2; both may be captured at the same time. */
void test_capture_begin(int fd);

/* What was written since, NUL-terminated; good until the next end for this `fd`. */
const char *test_capture_end(int fd);

#endif
