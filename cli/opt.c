/*
 * opt.c - options and arguments of a command: read them by its table, say what is
 * wrong with them, and print the table as help.
 */
#include "cli/opt.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/base/bytes.h"
#include "ckpt/base/err.h"
#include "cli/cmd.h"
#include "cli/report.h"

enum { COLUMNS = 80 };

/* Numbers and sizes. */

/* Digits from `text` on; *end is behind the last. At least one, and no overflow. */
static bool parse_digits(const char *text, uint64_t *out, const char **end)
{
    uint64_t value = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9'; p++)
        if (!mix_mul(value, 10, &value) || !mix_add(value, (uint64_t)(*p - '0'), &value))
            return false;
    if (p == text)
        return false;
    *out = value;
    *end = p;
    return true;
}

bool cli_u64_parse(const char *text, uint64_t *out)
{
    uint64_t value;
    const char *end;

    if (!parse_digits(text, &value, &end) || *end)
        return false;
    *out = value;
    return true;
}

bool cli_size_parse(const char *text, uint64_t *out)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {
        { "", 1 },
        { "KB", 1000 }, { "MB", 1000000 }, { "GB", 1000000000 }, { "TB", 1000000000000 },
        { "KiB", 1 << 10 }, { "MiB", 1 << 20 }, { "GiB", 1 << 30 }, { "TiB", 1ull << 40 },
    };
    uint64_t value;
    const char *unit;

    if (!parse_digits(text, &value, &unit))
        return false;
    for (size_t i = 0; i < MIX_ARRAY_LEN(units); i++)
        if (!strcmp(unit, units[i].name))
            return mix_mul(value, units[i].bytes, out);
    return false;
}

/* Guessing what was meant. */

enum { GUESS_LONGEST = 63 };

static size_t smallest(size_t a, size_t b, size_t c)
{
    a = a < b ? a : b;
    return a < c ? a : c;
}

/*
 * How many letters must be inserted, dropped, changed or swapped with their neighbour to
 * turn one word into the other (the restricted Damerau-Levenshtein distance). Row i of
 * the table speaks of the first i letters of `a`; only three rows are kept.
 */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[3][GUESS_LONGEST + 1];
    size_t a_len = strlen(a), b_len = strlen(b);

    if (a_len > GUESS_LONGEST || b_len > GUESS_LONGEST)
        return SIZE_MAX;
    for (size_t i = 0; i <= a_len; i++) {
        size_t *now = row[i % 3], *above = row[(i + 2) % 3], *two_above = row[(i + 1) % 3];

        now[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            if (i == 0) {
                now[j] = j;
                continue;
            }
            now[j] = smallest(above[j] + 1, now[j - 1] + 1,
                              above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = smallest(now[j], two_above[j - 2] + 1, SIZE_MAX);
        }
    }
    return row[a_len % 3][b_len];
}

void cli_guess_try(struct cli_guess *guess, const char *name)
{
    size_t len = strlen(guess->typed);
    size_t limit = len > 7 ? 3 : (len + 2) / 3; /* a third of it may be wrong */
    size_t distance = edit_distance(guess->typed, name);

    if (len >= 3 && !strncmp(guess->typed, name, len))
        distance = 1; /* cut short: "conv" */
    if (distance <= limit && (!guess->best || distance < guess->distance)) {
        guess->best = name;
        guess->distance = distance;
    }
}

/* Reading. */

/* The command's own rows and those that every command has. */
struct tables {
    const struct cli_opt *own, *shared;
};

struct parser {
    const struct cli_cmd *self;
    struct tables tables;
    const struct cli_opt *argument; /* the row that the next argument fills */
    struct mix_err err;
};

static const struct cli_opt *find_in(const struct cli_opt *row, const char *name, size_t len)
{
    const struct cli_opt *option = row; /* an alias stands for the row above it */

    for (; row->kind != CLI_OPT_DONE; row++) {
        if (row->kind != CLI_OPT_ALIAS)
            option = row;
        if (row->kind != CLI_OPT_ARG && strlen(row->name) == len &&
            !memcmp(row->name, name, len))
            return option;
    }
    return NULL;
}

static const struct cli_opt *find_long(const struct tables *tables, const char *name,
                                       size_t len)
{
    const struct cli_opt *row = find_in(tables->own, name, len);

    return row ? row : find_in(tables->shared, name, len);
}

static const struct cli_opt *find_letter(const struct tables *tables, char letter)
{
    const struct cli_opt *const table[] = { tables->own, tables->shared };

    for (size_t i = 0; i < MIX_ARRAY_LEN(table); i++)
        for (const struct cli_opt *row = table[i]; row->kind != CLI_OPT_DONE; row++)
            if (row->letter && row->letter == letter)
                return row;
    return NULL;
}

static enum mix_rc unknown_option(struct parser *p, const char *word)
{
    const struct cli_opt *const table[] = { p->tables.own, p->tables.shared };
    char name[GUESS_LONGEST + 1];
    struct cli_guess guess = { .typed = name };
    int len = (int)strcspn(word, "=");

    /* "-ep" and "--epp" both meant "--ep". */
    snprintf(name, sizeof name, "%.*s", len - (int)strspn(word, "-"),
             word + strspn(word, "-"));
    for (size_t i = 0; i < MIX_ARRAY_LEN(table); i++)
        for (const struct cli_opt *row = table[i]; row->kind != CLI_OPT_DONE; row++)
            if (row->kind != CLI_OPT_ARG)
                cli_guess_try(&guess, row->name);
    if (guess.best)
        return mix_fail(&p->err, MIX_USAGE, "unknown option '%.*s', did you mean '--%s'?",
                        len, word, guess.best);
    return mix_fail(&p->err, MIX_USAGE,
                    "unknown option '%.*s'; 'mixckpt %s --help' lists what there is", len,
                    word, p->self->name);
}

/* True if `value` is one of the words of "hdf5|safetensors"; *out is then that word. */
static bool is_choice(const char *choices, const char *value)
{
    size_t len = strlen(value);

    for (const char *at = choices; *at; at += at[0] == '|') {
        size_t word = strcspn(at, "|");

        if (word == len && !memcmp(at, value, len))
            return true;
        at += word;
    }
    return false;
}

/* `option` is how it was typed: "--jobs" or "-j". */
static enum mix_rc take_number(struct parser *p, const struct cli_opt *row,
                               const char *option, const char *value)
{
    uint64_t most = row->kind == CLI_OPT_INT ? INT_MAX : UINT64_MAX, number;

    if (!cli_u64_parse(value, &number) || number < row->min || number > most)
        return mix_fail(&p->err, MIX_USAGE,
                        "%s takes a whole number from %" PRIu64 " to %" PRIu64 ", found '%s'",
                        option, row->min, most, value);
    if (row->kind == CLI_OPT_INT)
        *row->to.number = (int)number;
    else
        *row->to.u64 = number;
    return MIX_OK;
}

static enum mix_rc take_size(struct parser *p, const struct cli_opt *row, const char *option,
                             const char *value)
{
    uint64_t bytes;

    if (!cli_size_parse(value, &bytes))
        return mix_fail(&p->err, MIX_USAGE,
                        "%s takes a size: bytes, or a whole number of KB MB GB TB or KiB MiB "
                        "GiB TiB, such as 256MiB; found '%s'",
                        option, value);
    if (bytes < row->min)
        return mix_fail(&p->err, MIX_USAGE,
                        "%s takes a size of at least %" PRIu64 " byte%s, found '%s'", option,
                        row->min, row->min == 1 ? "" : "s", value);
    *row->to.u64 = bytes;
    return MIX_OK;
}

static enum mix_rc take_value(struct parser *p, const struct cli_opt *row, const char *option,
                              const char *value)
{
    switch (row->kind) {
    case CLI_OPT_INT:
    case CLI_OPT_U64:
        return take_number(p, row, option, value);
    case CLI_OPT_SIZE:
        return take_size(p, row, option, value);
    case CLI_OPT_CHOICE:
        if (!is_choice(row->shows, value))
            return mix_fail(&p->err, MIX_USAGE, "%s takes %s, found '%s'", option, row->shows,
                            value);
        break;
    default:
        break;
    }
    *row->to.text = value;
    return MIX_OK;
}

/* The value of an option stands in the same word (`inside`), or is the next one. */
static enum mix_rc take_option(struct parser *p, const struct cli_opt *row,
                               const char *option, const char *inside, int *at, int argc,
                               char **argv)
{
    if (row->kind == CLI_OPT_FLAG) {
        if (inside)
            return mix_fail(&p->err, MIX_USAGE, "%s takes no value, found '%s'", option,
                            inside);
        *row->to.flag = true;
        return MIX_OK;
    }
    if (inside)
        return take_value(p, row, option, inside);
    if (*at + 1 == argc)
        return mix_fail(&p->err, MIX_USAGE, "%s needs a value (%s), found nothing behind it",
                        option, row->shows);
    /* A forgotten value must not swallow the next option. */
    if (!strncmp(argv[*at + 1], "--", 2))
        return mix_fail(&p->err, MIX_USAGE,
                        "%s needs a value (%s), found '%s' behind it; a value that begins with "
                        "'--' is written %s=%s",
                        option, row->shows, argv[*at + 1], option, argv[*at + 1]);
    return take_value(p, row, option, argv[++*at]);
}

/* "--name", "--name=value". */
static enum mix_rc take_long(struct parser *p, int *at, int argc, char **argv)
{
    const char *word = argv[*at], *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    const struct cli_opt *row = find_long(&p->tables, word + 2, len - 2);
    char option[GUESS_LONGEST + 1];

    if (!row)
        return unknown_option(p, word);
    snprintf(option, sizeof option, "%.*s", (int)len, word);
    return take_option(p, row, option, equals ? equals + 1 : NULL, at, argc, argv);
}

/* "-j", "-j4". */
static enum mix_rc take_short(struct parser *p, int *at, int argc, char **argv)
{
    const char *word = argv[*at];
    const struct cli_opt *row = find_letter(&p->tables, word[1]);
    const char option[] = { '-', word[1], '\0' };

    if (!row || (row->kind == CLI_OPT_FLAG && word[2]))
        return unknown_option(p, word);
    return take_option(p, row, option, word[2] ? word + 2 : NULL, at, argc, argv);
}

static const struct cli_opt *next_argument(const struct cli_opt *row)
{
    while (row->kind != CLI_OPT_DONE && row->kind != CLI_OPT_ARG)
        row++;
    return row;
}

static enum mix_rc take_argument(struct parser *p, const char *word)
{
    if (p->argument->kind == CLI_OPT_DONE)
        return mix_fail(&p->err, MIX_USAGE, "one argument too many: '%s'; usage: mixckpt %s %s",
                        word, p->self->name, p->self->usage);
    *p->argument->to.text = word;
    p->argument = next_argument(p->argument + 1);
    return MIX_OK;
}

static enum mix_rc check_arguments(struct parser *p)
{
    if (p->argument->kind == CLI_OPT_DONE || p->argument->may_miss)
        return MIX_OK;
    return mix_fail(&p->err, MIX_USAGE, "<%s> is missing; usage: mixckpt %s %s",
                    p->argument->name, p->self->name, p->self->usage);
}

/* Stops early where --help was asked for. */
static enum mix_rc parse(struct parser *p, int argc, char **argv, const bool *help)
{
    bool ended = false; /* by "--" */
    enum mix_rc rc = MIX_OK;

    for (int at = 0; at < argc && !rc && !*help; at++) {
        const char *word = argv[at];

        if (ended || word[0] != '-' || !word[1])
            rc = take_argument(p, word);
        else if (!strcmp(word, "--"))
            ended = true;
        else if (word[1] == '-')
            rc = take_long(p, &at, argc, argv);
        else
            rc = take_short(p, &at, argc, argv);
    }
    return rc || *help ? rc : check_arguments(p);
}

bool cli_opt_wants_json(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (!strcmp(argv[i], "--json"))
            return true;
    return false;
}

/* Help. */

static void go_to(int *column, int wanted)
{
    if (*column > wanted) {
        putchar('\n');
        *column = 0;
    }
    for (; *column < wanted; ++*column)
        putchar(' ');
}

void cli_print_wrapped(const char *text, int column, int indent)
{
    bool line_begins = true;

    while (*text) {
        int len = (int)strcspn(text, " \n");

        if (len) {
            if (!line_begins && column + 1 + len > COLUMNS)
                line_begins = true, putchar('\n'), column = 0;
            if (line_begins)
                go_to(&column, indent);
            else
                putchar(' '), column++;
            printf("%.*s", len, text);
            column += len;
            line_begins = false;
        }
        text += len;
        if (*text == '\n')
            line_begins = true, putchar('\n'), column = 0;
        text += *text != '\0';
    }
    putchar('\n');
}

/* "-j, --jobs N", "<url>". Letters have a column of their own. */
static void left_side(const struct cli_opt *row, char *out, size_t out_bytes)
{
    char letter[] = { '-', row->letter, ',', ' ', '\0' };

    if (row->kind == CLI_OPT_ARG)
        snprintf(out, out_bytes, "<%s>", row->name);
    else
        snprintf(out, out_bytes, "%s--%s%s%s", row->letter ? letter : "    ", row->name,
                 row->shows ? " " : "", row->shows ? row->shows : "");
}

static int widest(const struct cli_opt *row, int so_far)
{
    enum { LIMIT = 28 }; /* a wider one has its help in the next line */
    char left[128];

    for (; row->kind != CLI_OPT_DONE; row++) {
        if (row->kind == CLI_OPT_ALIAS)
            continue;
        left_side(row, left, sizeof left);
        if ((int)strlen(left) > so_far && strlen(left) <= LIMIT)
            so_far = (int)strlen(left);
    }
    return so_far;
}

static void print_row(const struct cli_opt *row, int width)
{
    char left[128], right[1024];
    size_t used;

    left_side(row, left, sizeof left);
    snprintf(right, sizeof right, "%s", row->help);
    for (; row[1].kind == CLI_OPT_ALIAS; row++) {
        used = strlen(right);
        snprintf(right + used, sizeof right - used, " (also --%s)", row[1].name);
    }
    printf("  %s", left);
    cli_print_wrapped(right, 2 + (int)strlen(left), 2 + width + 2);
}

/* The rows that are arguments, or those that are options, below a title. */
static void print_rows(const char *title, const struct cli_opt *row, bool arguments,
                       int width)
{
    for (; row->kind != CLI_OPT_DONE; row++) {
        if (row->kind == CLI_OPT_ALIAS || (row->kind == CLI_OPT_ARG) != arguments)
            continue;
        if (title)
            printf("\n%s:\n", title);
        title = NULL;
        print_row(row, width);
    }
}

static bool has_options(const struct cli_opt *row)
{
    while (row->kind == CLI_OPT_ARG)
        row++;
    return row->kind != CLI_OPT_DONE;
}

static void print_help(const struct cli_cmd *self, const struct tables *tables)
{
    int width = widest(tables->shared, widest(tables->own, 0));
    int column = printf("usage: mixckpt %s ", self->name);

    cli_print_wrapped(self->usage, column, column);
    printf("\n");
    cli_print_wrapped(self->help, 0, 0);
    print_rows("arguments", tables->own, true, width);
    print_rows("options", tables->own, false, width);
    print_rows(has_options(tables->own) ? NULL : "options", tables->shared, false, width);
    printf("\nexamples:\n");
    for (size_t i = 0; i < MIX_ARRAY_LEN(self->examples) && self->examples[i]; i++)
        printf("  %s\n", self->examples[i]);
}

bool cli_opt_parse(const struct cli_cmd *self, const struct cli_opt *opts, int argc,
                   char **argv, struct cli_common *common, int *code)
{
    bool help = false;
    const struct cli_opt shared[] = {
        OPT_FLAG(0, "json", &common->json,
                 "print one JSON document on stdout, and nothing else"),
        OPT_FLAG('q', "quiet", &common->quiet,
                 "no progress, warnings or notes on stderr; errors still"),
        OPT_FLAG('h', "help", &help, "print this help"),
        OPT_DONE,
    };
    struct parser p = { .self = self, .tables = { opts, shared },
                        .argument = next_argument(opts) };

    common->json = cli_opt_wants_json(argc, argv); /* for errors in front of it, too */
    if (parse(&p, argc, argv, &help)) {
        mix_err_at(&p.err, "%s", self->name);
        *code = cli_failed(common, &p.err);
        return false;
    }
    if (help) {
        print_help(self, &p.tables);
        *code = CLI_OK;
        return false;
    }
    return true;
}
