/*
 * report.h - how commands speak. stdout is the result, for people or as one JSON
 * document; stderr is the talk: errors, warnings, notes.
 */
#ifndef MIXCKPT_CLI_REPORT_H
#define MIXCKPT_CLI_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cli_common;
struct mix_err;

/*
 * Say what went wrong: "mixckpt: <words>" on stderr, and with --json the error document
 * on stdout (unless a document has been begun there: what stands there then does not
 * parse, as it should not). Returns the exit code.
 */
int cli_failed(const struct cli_common *common, const struct mix_err *err);

/* "mixckpt: warning: ..." and "mixckpt: ..." on stderr, one line; nothing with --quiet. */
void cli_warn(const struct cli_common *common, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void cli_note(const struct cli_common *common, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* True once a write to stdout has failed: a long listing may stop. main() says why. */
bool cli_out_failed(void);

/*
 * Close stdout at the very end of main(). Results that did not reach it turn the exit
 * codes 0 and 1 into 3, with a line on stderr. Returns the exit code.
 */
int cli_close_stdout(int code);

/*
 * JSON onto stdout as it is made: nothing is kept but the nesting.
 *
 *   struct cli_json json = CLI_JSON_INIT;
 *
 *   cli_json_begin_object(&json, NULL);
 *   cli_json_string(&json, "format", "hf");
 *   cli_json_begin_array(&json, "shape");
 *   cli_json_u64(&json, NULL, 4096);
 *   cli_json_end_array(&json);
 *   cli_json_end_object(&json);              {"format":"hf","shape":[4096]}
 *
 * `key` is the name of a member of an object, and NULL everywhere else.
 */
enum { CLI_JSON_DEPTH = 16 };
struct cli_json {
    unsigned depth;
    bool filled[CLI_JSON_DEPTH + 1];    /* a comma comes before the next value */
    bool is_object[CLI_JSON_DEPTH + 1];
};
#define CLI_JSON_INIT { 0 }

void cli_json_begin_object(struct cli_json *json, const char *key);
void cli_json_end_object(struct cli_json *json);
void cli_json_begin_array(struct cli_json *json, const char *key);
void cli_json_end_array(struct cli_json *json);

/* Bytes that are not UTF-8 become U+FFFD. A NULL text is null. */
void cli_json_string(struct cli_json *json, const char *key, const char *text);
void cli_json_hex(struct cli_json *json, const char *key, const unsigned char *bytes,
                  size_t len); /* lower-case digits, quoted */
void cli_json_u64(struct cli_json *json, const char *key, uint64_t value);
void cli_json_i64(struct cli_json *json, const char *key, int64_t value);
void cli_json_double(struct cli_json *json, const char *key, double value); /* NaN, Inf: null */
void cli_json_bool(struct cli_json *json, const char *key, bool value);
void cli_json_null(struct cli_json *json, const char *key);
/* A value that is JSON already. */
void cli_json_raw(struct cli_json *json, const char *key, const char *text);

/* Words for people. All return `out`. */
enum { CLI_TEXT = 32 };
char *cli_bytes_text(uint64_t bytes, char out[CLI_TEXT]);     /* "93.4 GB", "512 bytes" */
char *cli_count_text(uint64_t count, char out[CLI_TEXT]);     /* "93,405,714,976" */
char *cli_seconds_text(double seconds, char out[CLI_TEXT]);   /* "0.42 s", "2:05", "1:02:05" */

/*
 * Lines of aligned columns on stdout. A cell that is too wide pushes the rest of its
 * line; the last column is not padded. Control characters are shown as '?'.
 */
struct cli_column {
    const char *title;
    int width;
    bool right; /* numbers */
};
void cli_columns_title(const struct cli_column *column, size_t count);
void cli_columns_row(const struct cli_column *column, size_t count, const char *const *cell);

#endif
