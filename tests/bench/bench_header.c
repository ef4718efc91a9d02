/*
 * bench_header - how long one .safetensors file takes to open: its header read, parsed
 * and checked. Prints the microseconds of each of N opens, one a line.
 *
 *   bench_header FILE N
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ckpt/format/safetensors.h"
#include "ckpt/store/store.h"

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

int main(int argc, char **argv)
{
    struct mix_store *store = NULL;
    struct mix_safetensors *st;
    struct mix_err err = { 0 };
    long count = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
    enum mix_rc rc;

    if (count < 1) {
        fprintf(stderr, "usage: bench_header FILE N\n");
        return 2;
    }
    rc = mix_store_open(argv[1], &store, &err);
    for (long i = 0; i < count && !rc; i++) {
        double began = now_us();

        rc = mix_safetensors_open(store, mix_store_file(store), &st, &err);
        printf("%.3f\n", now_us() - began);
        mix_safetensors_close(st);
    }
    mix_store_close(store);
    if (rc)
        fprintf(stderr, "bench_header: %s\n", err.text);
    return rc ? 3 : 0;
}
