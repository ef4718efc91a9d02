/*
 * json.h - JSON from outside, behind limits. cJSON builds the tree; before it sees
 * a byte, the text has been checked to be exactly JSON (RFC 8259: valid UTF-8, no
 * control characters in strings, no trailing anything, no lone surrogates, no
 * \u0000), within limits of size, depth and number of values; after it, no object
 * may hold the same key twice. Integers are exact over all of uint64 and int64,
 * and every number keeps its spelling.
 *
 * Values are borrowed from the document and live as long as it does.
 */
#ifndef MIXCKPT_CKPT_BASE_JSON_H
#define MIXCKPT_CKPT_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ckpt/base/err.h"
#include "ckpt/base/mem.h"

struct mix_json_doc;
struct mix_json; /* one value */

enum mix_json_kind {
    MIX_JSON_NULL, MIX_JSON_BOOL, MIX_JSON_NUMBER, MIX_JSON_STRING, MIX_JSON_ARRAY,
    MIX_JSON_OBJECT
};

/*
 * Parse text[0, len). White space may stand before and behind. The text is not
 * needed afterwards. MIX_BAD_FORMAT says the byte and the rule: "not JSON at byte
 * 17: ...", "the key 'a' stands twice", "nested deeper than 64", "more than N values".
 */
enum mix_rc mix_json_parse(const char *text, size_t len, struct mix_json_doc **out,
                           struct mix_err *err);
void mix_json_free(struct mix_json_doc *doc); /* accepts NULL */
const struct mix_json *mix_json_root(const struct mix_json_doc *doc);

enum mix_json_kind mix_json_kind(const struct mix_json *value);

/* Children in the order of the text: first, then next; NULL at the end. */
const struct mix_json *mix_json_first(const struct mix_json *parent);
const struct mix_json *mix_json_next(const struct mix_json *value);
size_t mix_json_count(const struct mix_json *parent); /* walks the children */
const char *mix_json_key(const struct mix_json *value); /* of a child of an object */

/* The member of that name, or NULL; case matters. `object` may be NULL or no object. */
const struct mix_json *mix_json_get(const struct mix_json *object, const char *key);

const char *mix_json_string(const struct mix_json *value); /* NULL if it is no string */
bool mix_json_bool(const struct mix_json *value, bool *out);
/* Integers only: "1.0", "1e3" and "-0" are refused; false then, or out of range. */
bool mix_json_u64(const struct mix_json *value, uint64_t *out);
bool mix_json_i64(const struct mix_json *value, int64_t *out);
bool mix_json_double(const struct mix_json *value, double *out); /* any number */
const char *mix_json_number_text(const struct mix_json *value); /* as spelled, or NULL */

/*
 * Append `value` to `out` in the one canonical spelling: no white space, members in
 * their order, numbers as they were spelled, strings as mix_json_put_string() does.
 */
enum mix_rc mix_json_emit(const struct mix_json *value, struct mix_buf *out,
                          struct mix_err *err);

/*
 * Append a quoted string: \" \\ \b \f \n \r \t, other bytes below 0x20 as \u00xx in
 * lower case, everything else as it is (what serde_json and so safetensors write).
 */
enum mix_rc mix_json_put_string(struct mix_buf *out, const char *text, struct mix_err *err);

/*
 * Length of the UTF-8 sequence that text[0, left) begins with (left > 0), or 0 if it
 * begins with none: overlong spellings and surrogates are none.
 */
size_t mix_utf8_sequence(const char *text, size_t left);

#endif
