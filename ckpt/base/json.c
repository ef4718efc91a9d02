/*
 * json.c - JSON from outside, in two steps.
 *
 *   text --scan--> the same text with its numbers quoted --cJSON--> tree --> keys checked
 *
 * cJSON alone accepts more than JSON (control characters, broken UTF-8, a byte order
 * mark, text behind the value) and keeps numbers as doubles, which lose 2^53 + 1. So
 * the scan enforces the whole grammar and every limit first, and hands cJSON a copy
 * in which each number is a string whose first byte is one that no checked string can
 * hold. From then on a number is its spelling, and nothing is rounded.
 */
#include "ckpt/base/json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"

enum {
    MAX_TEXT = 100 << 20,  /* a safetensors header may have 100,000,000 bytes */
    MAX_DEPTH = 64,        /* bounds every recursion below; real files need 4 */
    MAX_VALUES = 1500000,  /* at most 120 MB of nodes; 8x22B with its state has 60,000 */
    SMALL_OBJECT = 8,      /* members that are compared each with each */
    NUMBER_MARK = 0xff,    /* in UTF-8 this byte never occurs, escaped or not */
};

struct mix_json_doc {
    struct mix_buf tree; /* every node and string, so that freeing is one call */
    const cJSON *root;
};

/* ---- the scan ---- */

struct scan {
    const char *text, *at, *end;
    const char *copied; /* everything before it stands in `out` already */
    char *out;          /* where the copy for cJSON goes on; see room_for_copy() */
    size_t values;
    int depth;
    struct mix_err *err;
};

static enum mix_rc refuse(const struct scan *s, const char *rule)
{
    return mix_fail(s->err, MIX_BAD_FORMAT, "not JSON at byte %zu: %s",
                    (size_t)(s->at - s->text), rule);
}

/* The next byte, or -1 at the end. */
static int peek(const struct scan *s)
{
    return s->at < s->end ? (unsigned char)*s->at : -1;
}

static bool take(struct scan *s, char c)
{
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static void skip_space(struct scan *s)
{
    while (s->at < s->end &&
           (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool skip_digits(struct scan *s)
{
    const char *begin = s->at;

    while (is_digit(peek(s)))
        s->at++;
    return s->at > begin;
}

size_t mix_utf8_sequence(const char *text, size_t left)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3
        : p[0] < 0xf5 ? 4 : 0;

    if (!len || len > left)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    /* Overlong spellings, UTF-16 surrogates, and what lies above U+10FFFF. */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

/* The value of the four hex digits at s->at, or -1. */
static int hex4(const struct scan *s)
{
    int value = 0;

    if (s->end - s->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int c = (unsigned char)s->at[i], lower = c | 0x20;

        if (is_digit(c))
            value = value << 4 | (c - '0');
        else if (lower >= 'a' && lower <= 'f')
            value = value << 4 | (lower - 'a' + 10);
        else
            return -1;
    }
    return value;
}

/* Behind "\u". A character above U+FFFF is two escapes, which must be a pair. */
static enum mix_rc scan_unicode_escape(struct scan *s)
{
    int code = hex4(s);

    if (code < 0)
        return refuse(s, "\\u needs four hex digits");
    if (code == 0)
        return refuse(s, "\\u0000 is not allowed here"); /* it would cut a C string short */
    if (code >= 0xdc00 && code <= 0xdfff)
        return refuse(s, "a low surrogate without its high one");
    s->at += 4;
    if (code < 0xd800 || code > 0xdbff)
        return MIX_OK;
    if (!take(s, '\\') || !take(s, 'u') || (code = hex4(s)) < 0xdc00 || code > 0xdfff)
        return refuse(s, "a high surrogate without its low one");
    s->at += 4;
    return MIX_OK;
}

static enum mix_rc scan_escape(struct scan *s)
{
    int c = peek(s);

    if (c <= 0 || !strchr("\"\\/bfnrtu", c)) /* strchr() finds NUL in every string */
        return refuse(s, "an unknown escape in a string");
    s->at++;
    return c == 'u' ? scan_unicode_escape(s) : MIX_OK;
}

/* What stands for itself in a string, one byte a character: nearly all there is. */
static const bool is_plain[256] = {
    [0x20 ... 0x21] = true, [0x23 ... 0x5b] = true, [0x5d ... 0x7f] = true,
};

/* From the opening quote to behind the closing one. */
static enum mix_rc scan_string(struct scan *s)
{
    const char *p = s->at + 1;
    size_t len;
    enum mix_rc rc;

    for (;;) {
        while (p < s->end && is_plain[(unsigned char)*p])
            p++;
        s->at = p;
        if (p == s->end)
            return refuse(s, "the text ends within a string");
        if (take(s, '"'))
            return MIX_OK;
        if (take(s, '\\')) {
            if ((rc = scan_escape(s)))
                return rc;
        } else if ((unsigned char)*p < 0x20) {
            return refuse(s, "a control character in a string");
        } else if (!(len = mix_utf8_sequence(p, (size_t)(s->end - p)))) {
            return refuse(s, "a string that is not UTF-8");
        } else {
            s->at += len;
        }
        p = s->at;
    }
}

/*
 * Bytes that the copy can take: a number becomes three bytes longer, and it needs a
 * byte of its own and one that parts it from the next.
 */
static size_t room_for_copy(size_t len)
{
    return len + 3 * (size_t)mix_min(len / 2 + 1, MAX_VALUES);
}

/* Put all text before s->at into the copy. */
static void copy_up_to_here(struct scan *s)
{
    size_t len = (size_t)(s->at - s->copied);

    memcpy(s->out, s->copied, len);
    s->out += len;
    s->copied = s->at;
}

/* The text of a number, which ends at s->at. */
static enum mix_rc check_number(struct scan *s, bool *has_exponent)
{
    take(s, '-');
    if (!take(s, '0') && !skip_digits(s))
        return refuse(s, "a number without digits");
    if (is_digit(peek(s)))
        return refuse(s, "a number with a leading zero");
    if (take(s, '.') && !skip_digits(s))
        return refuse(s, "no digit behind the decimal point");
    *has_exponent = take(s, 'e') || take(s, 'E');
    if (!*has_exponent)
        return MIX_OK;
    if (!take(s, '+'))
        take(s, '-');
    return skip_digits(s) ? MIX_OK : refuse(s, "an exponent without digits");
}

static enum mix_rc scan_number(struct scan *s)
{
    const char *begin = s->at, *copy;
    bool has_exponent;
    enum mix_rc rc;

    copy_up_to_here(s);
    if ((rc = check_number(s, &has_exponent)))
        return rc;
    *s->out++ = '"';
    *s->out++ = (char)NUMBER_MARK;
    copy = s->out;
    copy_up_to_here(s);
    *s->out++ = '"'; /* ends the number for strtod() too */

    /* Nobody can use what lies beyond every double; the largest has 309 digits. */
    if ((has_exponent || s->at - begin > 300) && !isfinite(strtod(copy, NULL))) {
        s->at = begin;
        return refuse(s, "a number that is out of range");
    }
    return MIX_OK;
}

static enum mix_rc scan_word(struct scan *s, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len))
        return refuse(s, "an unknown word");
    s->at += len;
    return MIX_OK;
}

static enum mix_rc scan_value(struct scan *s);

/* The key and the colon of a member. */
static enum mix_rc scan_key(struct scan *s)
{
    enum mix_rc rc;

    skip_space(s);
    if (peek(s) != '"')
        return refuse(s, "a key in quotes was expected");
    if ((rc = scan_string(s)))
        return rc;
    skip_space(s);
    return take(s, ':') ? MIX_OK : refuse(s, "':' was expected behind a key");
}

/* An object or an array, from its opening bracket to behind its closing one. */
static enum mix_rc scan_container(struct scan *s, char close)
{
    enum mix_rc rc;

    if (++s->depth > MAX_DEPTH)
        return mix_fail(s->err, MIX_BAD_FORMAT, "JSON nested deeper than %d at byte %zu",
                        MAX_DEPTH, (size_t)(s->at - s->text));
    s->at++;
    skip_space(s);
    if (!take(s, close)) {
        do {
            if ((close == '}' && (rc = scan_key(s))) || (rc = scan_value(s)))
                return rc;
            skip_space(s);
        } while (take(s, ','));
        if (!take(s, close))
            return refuse(s, close == '}' ? "',' or '}' was expected"
                                          : "',' or ']' was expected");
    }
    s->depth--;
    return MIX_OK;
}

static enum mix_rc scan_value(struct scan *s)
{
    if (++s->values > MAX_VALUES)
        return mix_fail(s->err, MIX_BAD_FORMAT, "JSON with more than %d values at byte %zu",
                        MAX_VALUES, (size_t)(s->at - s->text));
    skip_space(s);
    switch (peek(s)) {
    case '{': return scan_container(s, '}');
    case '[': return scan_container(s, ']');
    case '"': return scan_string(s);
    case 't': return scan_word(s, "true");
    case 'f': return scan_word(s, "false");
    case 'n': return scan_word(s, "null");
    case -1:  return refuse(s, "the text ends where a value was expected");
    default:
        if (peek(s) != '-' && !is_digit(peek(s)))
            return refuse(s, "a value was expected");
        return scan_number(s);
    }
}

/* Check the whole text: `copy` becomes the one for cJSON, *values what it has to build. */
static enum mix_rc scan_text(const char *text, size_t len, struct mix_buf *copy,
                             size_t *values, struct mix_err *err)
{
    struct scan s = { text, text, text + len, text, NULL, 0, 0, err };
    enum mix_rc rc;

    if (len > MAX_TEXT)
        return mix_fail(err, MIX_BAD_FORMAT, "JSON of %zu bytes; at most %d are read", len,
                        MAX_TEXT);
    if ((rc = mix_buf_reserve(copy, room_for_copy(len), err)))
        return rc;
    s.out = copy->data;
    if ((rc = scan_value(&s)))
        return rc;
    skip_space(&s);
    if (s.at != s.end)
        return refuse(&s, "more text behind the value");
    copy_up_to_here(&s);
    copy->len = (size_t)(s.out - copy->data);
    *values = s.values;
    return MIX_OK;
}

/* ---- the tree ---- */

/*
 * cJSON keeps its allocator, and where it failed last, in globals. So one text is
 * parsed at a time; the scan runs outside the lock.
 */
static pthread_mutex_t cjson_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mix_buf *cjson_memory; /* as large as it must be, and handed out in order */

enum { TREE_ALIGN = _Alignof(cJSON) };

static void *tree_malloc(size_t bytes)
{
    char *p = cjson_memory->data + cjson_memory->len;

    bytes = mix_round_up(bytes, TREE_ALIGN);
    if (bytes > cjson_memory->capacity - cjson_memory->len)
        return NULL;
    cjson_memory->len += bytes;
    return p;
}

static void tree_free(void *p)
{
    (void)p; /* the tree dies as a whole */
}

/*
 * Bytes that the tree can take: a node a value, and at most two strings (key and text),
 * each no longer than it stands in the copy with its quotes, and then rounded up.
 */
static size_t room_for_tree(size_t values, size_t copy_len)
{
    return values * (sizeof(cJSON) + 2 * TREE_ALIGN) + copy_len;
}

static enum mix_rc build(const struct mix_buf *copy, size_t values, struct mix_json_doc *doc,
                         struct mix_err *err)
{
    cJSON_Hooks hooks = { tree_malloc, tree_free };
    enum mix_rc rc;

    if ((rc = mix_buf_reserve(&doc->tree, room_for_tree(values, copy->len), err)))
        return rc;
    pthread_mutex_lock(&cjson_lock);
    cjson_memory = &doc->tree;
    cJSON_InitHooks(&hooks);
    doc->root = cJSON_ParseWithLengthOpts(copy->data, copy->len, NULL, false);
    cJSON_InitHooks(NULL);
    pthread_mutex_unlock(&cjson_lock);
    /* The scan is the stricter of the two; should cJSON differ, it is refused, not trusted. */
    return doc->root ? MIX_OK : mix_fail(err, MIX_BAD_FORMAT, "JSON that cJSON cannot read");
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp((*(cJSON *const *)a)->string, (*(cJSON *const *)b)->string);
}

static enum mix_rc stands_twice(const char *key, struct mix_err *err)
{
    return mix_fail(err, MIX_BAD_FORMAT, "the key '%s' stands twice", key);
}

static bool keys_ascend(const cJSON *object)
{
    for (const cJSON *m = object->child; m && m->next; m = m->next)
        if (strcmp(m->string, m->next->string) >= 0)
            return false;
    return true;
}

/* Sorted, equal keys are neighbours: n log n whatever the file holds. */
static enum mix_rc check_keys_sorted(const cJSON *object, size_t count, struct mix_err *err)
{
    const cJSON **member;
    enum mix_rc rc = mix_new_array(&member, count, sizeof *member, err);
    size_t n = 0;

    if (rc)
        return rc;
    for (const cJSON *m = object->child; m; m = m->next)
        member[n++] = m;
    qsort(member, count, sizeof *member, compare_keys);
    for (size_t i = 1; i < count && !rc; i++)
        if (!strcmp(member[i - 1]->string, member[i]->string))
            rc = stands_twice(member[i]->string, err);
    free(member);
    return rc;
}

/*
 * No key twice, where keys are compared as cJSON has unescaped them. Most objects are
 * tiny or already in order (indexes and safetensors headers are written sorted).
 */
static enum mix_rc check_keys(const cJSON *object, struct mix_err *err)
{
    size_t count = mix_json_count((const struct mix_json *)object);

    if (count > SMALL_OBJECT)
        return keys_ascend(object) ? MIX_OK : check_keys_sorted(object, count, err);
    for (const cJSON *a = object->child; a; a = a->next)
        for (const cJSON *b = a->next; b; b = b->next)
            if (!strcmp(a->string, b->string))
                return stands_twice(a->string, err);
    return MIX_OK;
}

/* Every object of the tree; the scan has bounded the depth. */
static enum mix_rc check_all_keys(const cJSON *value, struct mix_err *err)
{
    enum mix_rc rc = MIX_OK;

    if (cJSON_IsObject(value))
        rc = check_keys(value, err);
    for (const cJSON *child = value->child; child && !rc; child = child->next)
        if (child->child)
            rc = check_all_keys(child, err);
    return rc;
}

enum mix_rc mix_json_parse(const char *text, size_t len, struct mix_json_doc **out,
                           struct mix_err *err)
{
    struct mix_json_doc *doc = NULL;
    struct mix_buf copy = MIX_BUF_INIT;
    size_t values = 0;
    enum mix_rc rc;

    *out = NULL;
    if ((rc = scan_text(text, len, &copy, &values, err)) ||
        (rc = mix_new(&doc, sizeof *doc, err)) || (rc = build(&copy, values, doc, err)) ||
        (rc = check_all_keys(doc->root, err)))
        goto out;
    *out = doc;
    doc = NULL; /* the caller's from here on */
out:
    mix_buf_release(&copy);
    mix_json_free(doc);
    return rc;
}

void mix_json_free(struct mix_json_doc *doc)
{
    if (!doc)
        return;
    mix_buf_release(&doc->tree);
    free(doc);
}

/* ---- values ---- */

/* Outside this file a node is a struct mix_json, which nobody can look into. */
static const cJSON *node(const struct mix_json *value)
{
    return (const cJSON *)value;
}

static const struct mix_json *value_of(const cJSON *item)
{
    return (const struct mix_json *)item;
}

const struct mix_json *mix_json_root(const struct mix_json_doc *doc)
{
    return value_of(doc->root);
}

const char *mix_json_number_text(const struct mix_json *value)
{
    const char *text = value && cJSON_IsString(node(value)) ? node(value)->valuestring : NULL;

    return text && (unsigned char)*text == NUMBER_MARK ? text + 1 : NULL;
}

const char *mix_json_string(const struct mix_json *value)
{
    if (!value || !cJSON_IsString(node(value)) || mix_json_number_text(value))
        return NULL;
    return node(value)->valuestring;
}

enum mix_json_kind mix_json_kind(const struct mix_json *value)
{
    const cJSON *item = node(value);

    if (cJSON_IsObject(item))
        return MIX_JSON_OBJECT;
    if (cJSON_IsArray(item))
        return MIX_JSON_ARRAY;
    if (cJSON_IsBool(item))
        return MIX_JSON_BOOL;
    if (cJSON_IsNull(item))
        return MIX_JSON_NULL;
    return mix_json_number_text(value) ? MIX_JSON_NUMBER : MIX_JSON_STRING;
}

const struct mix_json *mix_json_first(const struct mix_json *parent)
{
    return parent ? value_of(node(parent)->child) : NULL;
}

const struct mix_json *mix_json_next(const struct mix_json *value)
{
    return value_of(node(value)->next);
}

size_t mix_json_count(const struct mix_json *parent)
{
    size_t count = 0;

    for (const struct mix_json *v = mix_json_first(parent); v; v = mix_json_next(v))
        count++;
    return count;
}

const char *mix_json_key(const struct mix_json *value)
{
    return node(value)->string;
}

const struct mix_json *mix_json_get(const struct mix_json *object, const char *key)
{
    if (!object || !cJSON_IsObject(node(object)))
        return NULL;
    for (const cJSON *m = node(object)->child; m; m = m->next)
        if (!strcmp(m->string, key))
            return value_of(m);
    return NULL;
}

bool mix_json_bool(const struct mix_json *value, bool *out)
{
    if (!value || !cJSON_IsBool(node(value)))
        return false;
    *out = cJSON_IsTrue(node(value));
    return true;
}

/* All of `text` as a decimal number. The grammar has been checked already. */
static bool parse_digits(const char *text, uint64_t *out)
{
    uint64_t value = 0;

    for (int i = 0; i < 19 && is_digit((unsigned char)*text); i++) /* 10^19 < 2^64 */
        value = value * 10 + (uint64_t)(*text++ - '0');
    for (; is_digit((unsigned char)*text); text++)
        if (!mix_mul(value, 10, &value) || !mix_add(value, (uint64_t)(*text - '0'), &value))
            return false;
    if (*text) /* a fraction or an exponent */
        return false;
    *out = value;
    return true;
}

bool mix_json_u64(const struct mix_json *value, uint64_t *out)
{
    const char *text = mix_json_number_text(value);

    return text && is_digit((unsigned char)*text) && parse_digits(text, out);
}

bool mix_json_i64(const struct mix_json *value, int64_t *out)
{
    const char *text = mix_json_number_text(value);
    bool negative = text && *text == '-';
    uint64_t size;

    if (!text || !parse_digits(text + negative, &size) || (negative && size == 0) ||
        size > (uint64_t)INT64_MAX + negative)
        return false;
    *out = negative ? -(int64_t)(size - 1) - 1 : (int64_t)size;
    return true;
}

bool mix_json_double(const struct mix_json *value, double *out)
{
    const char *text = mix_json_number_text(value);

    if (!text)
        return false;
    *out = strtod(text, NULL); /* finite: the scan has seen to that */
    return true;
}

/* ---- writing ---- */

enum mix_rc mix_json_put_string(struct mix_buf *out, const char *text, struct mix_err *err)
{
    static const char short_name[0x20] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't',
    };
    enum mix_rc rc = mix_buf_put(out, "\"", 1, err);

    while (!rc && *text) {
        size_t run = 0;

        while ((unsigned char)text[run] >= 0x20 && text[run] != '"' && text[run] != '\\')
            run++;
        if ((rc = mix_buf_put(out, text, run, err)))
            return rc;
        text += run;
        if (!*text)
            break;

        unsigned char c = (unsigned char)*text++;
        char name = c < 0x20 ? short_name[c] : (char)c;
        rc = name ? mix_buf_putf(out, err, "\\%c", name)
                  : mix_buf_putf(out, err, "\\u%04x", c);
    }
    return rc ? rc : mix_buf_put(out, "\"", 1, err);
}

static enum mix_rc put_text(struct mix_buf *out, const char *text, struct mix_err *err)
{
    return mix_buf_put(out, text, strlen(text), err);
}

static enum mix_rc emit_children(const struct mix_json *parent, bool keys,
                                 struct mix_buf *out, struct mix_err *err)
{
    enum mix_rc rc = put_text(out, keys ? "{" : "[", err);

    for (const struct mix_json *v = mix_json_first(parent); v && !rc; v = mix_json_next(v)) {
        if (v != mix_json_first(parent) && (rc = put_text(out, ",", err)))
            return rc;
        if (keys && ((rc = mix_json_put_string(out, mix_json_key(v), err)) ||
                     (rc = put_text(out, ":", err))))
            return rc;
        rc = mix_json_emit(v, out, err);
    }
    return rc ? rc : put_text(out, keys ? "}" : "]", err);
}

enum mix_rc mix_json_emit(const struct mix_json *value, struct mix_buf *out,
                          struct mix_err *err)
{
    bool yes = false;

    switch (mix_json_kind(value)) {
    case MIX_JSON_NULL:   return put_text(out, "null", err);
    case MIX_JSON_NUMBER: return put_text(out, mix_json_number_text(value), err);
    case MIX_JSON_STRING: return mix_json_put_string(out, mix_json_string(value), err);
    case MIX_JSON_ARRAY:  return emit_children(value, false, out, err);
    case MIX_JSON_OBJECT: return emit_children(value, true, out, err);
    case MIX_JSON_BOOL:   break;
    }
    mix_json_bool(value, &yes);
    return put_text(out, yes ? "true" : "false", err);
}
