/* report.c - errors and warnings, JSON as it is made, words and columns for people. */
#include "cli/report.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/cancel.h"
#include "ckpt/base/err.h"
#include "cli/bar.h"
#include "cli/cmd.h"

/* A document stands on stdout, whole or begun: there is no room for a second. */
static bool document_begun;

/* One line on stderr, in one write, so that lines of several workers do not mix. */
static void say(const char *kind, const char *fmt, va_list ap)
{
    char text[8192]; /* a path may have 4096 bytes */

    vsnprintf(text, sizeof text, fmt, ap);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?'; /* a file name may hold anything, the terminal shall not obey it */
    cli_bar_hide();
    fprintf(stderr, "mixckpt: %s%s\n", kind, text);
}

void cli_warn(const struct cli_common *common, const char *fmt, ...)
{
    va_list ap;

    if (common->quiet)
        return;
    va_start(ap, fmt);
    say("warning: ", fmt, ap);
    va_end(ap);
}

void cli_note(const struct cli_common *common, const char *fmt, ...)
{
    va_list ap;

    if (common->quiet)
        return;
    va_start(ap, fmt);
    say("", fmt, ap);
    va_end(ap);
}

static void say_error(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say("", fmt, ap);
    va_end(ap);
}

static void emit_error(const struct mix_err *err)
{
    struct cli_json json = CLI_JSON_INIT;

    cli_json_begin_object(&json, NULL);
    cli_json_begin_object(&json, "error");
    cli_json_string(&json, "kind", mix_rc_name(err->rc));
    cli_json_string(&json, "message", err->text);
    cli_json_string(&json, "file", err->file[0] ? err->file : NULL);
    cli_json_string(&json, "tensor", err->tensor[0] ? err->tensor : NULL);
    if (err->has_range) {
        cli_json_u64(&json, "begin", err->begin);
        cli_json_u64(&json, "end", err->end);
    } else {
        cli_json_null(&json, "begin");
        cli_json_null(&json, "end");
    }
    cli_json_end_object(&json);
    cli_json_end_object(&json);
}

int cli_failed(const struct cli_common *common, const struct mix_err *err)
{
    say_error("%s", err->text);
    if (common->json && !document_begun)
        emit_error(err);
    if (err->rc == MIX_USAGE)
        return CLI_USAGE;
    if (err->rc == MIX_INTERRUPTED)
        return mix_cancel_signal() == SIGTERM ? CLI_TERMINATED : CLI_INTERRUPTED;
    return CLI_FAILED;
}

bool cli_out_failed(void)
{
    return ferror(stdout) != 0;
}

int cli_close_stdout(int code)
{
    bool failed_before = ferror(stdout);

    errno = 0;
    if (fclose(stdout) == 0 && !failed_before)
        return code;
    if (errno)
        say_error("cannot write the result to standard output: %s", strerror(errno));
    else
        say_error("cannot write the result to standard output");
    return code == CLI_OK || code == CLI_FOUND ? CLI_FAILED : code;
}

/* JSON. */

/*
 * Bytes of the UTF-8 sequence at `text`, which ends with NUL; 0 if there is none. The
 * ranges of the second byte shut out overlong forms, surrogates, and what lies beyond
 * U+10FFFF (Unicode, table 3-7).
 */
static size_t utf8_length(const unsigned char *text)
{
    unsigned char first = text[0], low = 0x80, high = 0xbf;
    size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3
                    : first < 0xf5 ? 4 : 0;

    if (length < 2)
        return length;
    if (first == 0xe0)
        low = 0xa0;
    if (first == 0xed)
        high = 0x9f;
    if (first == 0xf0)
        low = 0x90;
    if (first == 0xf4)
        high = 0x8f;
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

/* The letter behind the backslash, or 0 for those that need \u00xx or nothing. */
static char short_escape(unsigned char c)
{
    switch (c) {
    case '"': return '"';
    case '\\': return '\\';
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return 0;
    }
}

/* Bytes from `text` on that stand in a JSON string as they are. */
static size_t plain_length(const unsigned char *text)
{
    size_t at = 0;

    while (text[at] >= 0x20 && !short_escape(text[at])) {
        size_t length = utf8_length(text + at);

        if (!length)
            break;
        at += length;
    }
    return at;
}

static void put_quoted(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;

    putchar('"');
    for (;;) {
        size_t plain = plain_length(p);

        fwrite(p, 1, plain, stdout);
        p += plain;
        if (!*p)
            break;
        if (short_escape(*p))
            printf("\\%c", short_escape(*p));
        else if (*p < 0x20)
            printf("\\u%04x", *p);
        else
            fputs("\xef\xbf\xbd", stdout); /* U+FFFD for a byte that is not UTF-8 */
        p++;
    }
    putchar('"');
}

/* What stands before a value: a comma behind a sibling, and the key in an object. */
static void before_value(struct cli_json *json, const char *key)
{
    assert(json->is_object[json->depth] == (key != NULL));
    document_begun = true;
    if (json->filled[json->depth])
        putchar(',');
    json->filled[json->depth] = true;
    if (key) {
        put_quoted(key);
        putchar(':');
    }
}

/* A document ends with its line. */
static void after_value(const struct cli_json *json)
{
    if (json->depth == 0)
        putchar('\n');
}

static void begin(struct cli_json *json, const char *key, bool is_object)
{
    before_value(json, key);
    putchar(is_object ? '{' : '[');
    json->depth++;
    assert(json->depth <= CLI_JSON_DEPTH);
    json->filled[json->depth] = false;
    json->is_object[json->depth] = is_object;
}

static void end(struct cli_json *json, bool is_object)
{
    assert(json->depth > 0 && json->is_object[json->depth] == is_object);
    putchar(is_object ? '}' : ']');
    json->depth--;
    after_value(json);
}

void cli_json_begin_object(struct cli_json *json, const char *key)
{
    begin(json, key, true);
}

void cli_json_end_object(struct cli_json *json)
{
    end(json, true);
}

void cli_json_begin_array(struct cli_json *json, const char *key)
{
    begin(json, key, false);
}

void cli_json_end_array(struct cli_json *json)
{
    end(json, false);
}

void cli_json_string(struct cli_json *json, const char *key, const char *text)
{
    before_value(json, key);
    if (text)
        put_quoted(text);
    else
        fputs("null", stdout);
    after_value(json);
}

void cli_json_hex(struct cli_json *json, const char *key, const unsigned char *bytes,
                  size_t len)
{
    before_value(json, key);
    putchar('"');
    for (size_t i = 0; i < len; i++)
        printf("%02x", bytes[i]);
    putchar('"');
    after_value(json);
}

void cli_json_u64(struct cli_json *json, const char *key, uint64_t value)
{
    before_value(json, key);
    printf("%" PRIu64, value);
    after_value(json);
}

void cli_json_i64(struct cli_json *json, const char *key, int64_t value)
{
    before_value(json, key);
    printf("%" PRId64, value);
    after_value(json);
}

/* The fewest digits that read back as the same value; 17 always do. */
void cli_json_double(struct cli_json *json, const char *key, double value)
{
    char text[32];
    int digits = 1;

    if (!isfinite(value)) { /* JSON has no word for it */
        cli_json_null(json, key);
        return;
    }
    do
        snprintf(text, sizeof text, "%.*g", digits, value);
    while (strtod(text, NULL) != value && ++digits <= 17);
    before_value(json, key);
    fputs(text, stdout);
    after_value(json);
}

void cli_json_bool(struct cli_json *json, const char *key, bool value)
{
    before_value(json, key);
    fputs(value ? "true" : "false", stdout);
    after_value(json);
}

void cli_json_raw(struct cli_json *json, const char *key, const char *text)
{
    before_value(json, key);
    fputs(text, stdout);
    after_value(json);
}

void cli_json_null(struct cli_json *json, const char *key)
{
    cli_json_raw(json, key, "null");
}

/* Words for people. */

char *cli_bytes_text(uint64_t bytes, char out[CLI_TEXT])
{
    static const char *const unit[] = { "KB", "MB", "GB", "TB", "PB", "EB" };
    double value = (double)bytes / 1000;
    size_t i = 0;

    if (bytes < 1000) {
        snprintf(out, CLI_TEXT, "%u byte%s", (unsigned)bytes, bytes == 1 ? "" : "s");
        return out;
    }
    for (; value >= 999.95; i++) /* which %.1f would show as 1000.0 */
        value /= 1000;
    snprintf(out, CLI_TEXT, "%.1f %s", value, unit[i]);
    return out;
}

char *cli_count_text(uint64_t count, char out[CLI_TEXT])
{
    char digits[21];
    int len = snprintf(digits, sizeof digits, "%" PRIu64, count);
    char *to = out;

    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return out;
}

char *cli_seconds_text(double seconds, char out[CLI_TEXT])
{
    unsigned long whole;

    if (!(seconds > 0))
        seconds = 0;
    if (seconds > 1e9) /* 31 years */
        seconds = 1e9;
    whole = (unsigned long)(seconds + 0.5);
    if (seconds < 9.995)
        snprintf(out, CLI_TEXT, "%.2f s", seconds);
    else if (whole < 60)
        snprintf(out, CLI_TEXT, "%lu s", whole);
    else if (whole < 3600)
        snprintf(out, CLI_TEXT, "%lu:%02lu", whole / 60, whole % 60);
    else
        snprintf(out, CLI_TEXT, "%lu:%02lu:%02lu", whole / 3600, whole / 60 % 60, whole % 60);
    return out;
}

/* Columns that a text takes on a terminal: bytes that continue a character take none. */
static int text_width(const char *text)
{
    int width = 0;

    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static void put_spaces(int count)
{
    for (; count > 0; count--)
        putchar(' ');
}

static void put_cell(const struct cli_column *column, const char *text, bool last)
{
    int pad = column->width - text_width(text);

    if (column->right)
        put_spaces(pad);
    for (const char *p = text; *p; p++)
        putchar((unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p);
    if (last)
        return;
    if (!column->right)
        put_spaces(pad);
    put_spaces(2);
}

void cli_columns_row(const struct cli_column *column, size_t count, const char *const *cell)
{
    for (size_t i = 0; i < count; i++)
        put_cell(&column[i], cell[i], i + 1 == count);
    putchar('\n');
}

void cli_columns_title(const struct cli_column *column, size_t count)
{
    for (size_t i = 0; i < count; i++)
        put_cell(&column[i], column[i].title, i + 1 == count);
    putchar('\n');
}
