/* schemes.h - which URLs this build can open: the table, and nothing else says so. */
#ifndef MIXCKPT_CKPT_STORE_SCHEMES_H
#define MIXCKPT_CKPT_STORE_SCHEMES_H

/* "file" (which a path without a scheme means), ...; NULL behind the last. */
const char *const *mix_store_schemes(void);

#endif
