/* schemes.c - the URL schemes that are built in. */
#include "ckpt/store/schemes.h"

#include <stddef.h>

const char *const *mix_store_schemes(void)
{
    static const char *const schemes[] = { "file", NULL };

    return schemes;
}
