/*
 * opt.h - options and arguments of a command, as a table:
 *
 *   const char *url = NULL;
 *   int jobs = 2;
 *   uint64_t memory = 256 << 20;
 *   struct cli_common common = CLI_COMMON_INIT;
 *   const struct cli_opt opts[] = {
 *       OPT_ARG("url", &url, "the checkpoint: a path"),
 *       OPT_INT('j', "jobs", &jobs, 1, "files hashed at the same time (default 2)"),
 *       OPT_SIZE(0, "memory", &memory, 1, "bound of the buffers (default 256MiB)"),
 *       OPT_DONE,
 *   };
 *   int code;
 *
 *   if (!cli_opt_parse(self, opts, argc, argv, &common, &code))
 *       return code;
 *
 * What is not given keeps the value that the variable had. `--name value`,
 * `--name=value`, `-j N` and `-jN` are the same; options and arguments come in any
 * order; `--` ends the options; of a repeated option the last wins. --json, --quiet
 * and --help need no row: every command has them.
 */
#ifndef MIXCKPT_CLI_OPT_H
#define MIXCKPT_CLI_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cli_cmd;
struct cli_common;

enum cli_opt_kind {
    CLI_OPT_DONE, CLI_OPT_ARG, CLI_OPT_FLAG, CLI_OPT_INT, CLI_OPT_U64, CLI_OPT_SIZE,
    CLI_OPT_TEXT, CLI_OPT_CHOICE, CLI_OPT_ALIAS
};

struct cli_opt {
    enum cli_opt_kind kind;
    char letter;       /* 'j', or 0 */
    bool may_miss;     /* an argument that need not be there */
    const char *name;  /* "jobs" */
    const char *shows; /* how help calls its value: "N", "SIZE", "hf|mixckpt" */
    const char *help;
    uint64_t min;
    union {            /* where the value goes; it lives as long as argv */
        const char **text;
        bool *flag;
        int *number;
        uint64_t *u64;
    } to;
};

/* An argument that must be there, and one that may be. Arguments fill rows in order. */
#define OPT_ARG(name_, text_, help_) \
    { .kind = CLI_OPT_ARG, .name = (name_), .to.text = (text_), .help = (help_) }
#define OPT_ARG_MAYBE(name_, text_, help_) \
    { .kind = CLI_OPT_ARG, .name = (name_), .to.text = (text_), .help = (help_), \
      .may_miss = true }

#define OPT_FLAG(letter_, name_, flag_, help_) \
    { .kind = CLI_OPT_FLAG, .letter = (letter_), .name = (name_), .to.flag = (flag_), \
      .help = (help_) }

/* A whole number of at least `min_`: an int, or a uint64_t. */
#define OPT_INT(letter_, name_, int_, min_, help_) \
    { .kind = CLI_OPT_INT, .letter = (letter_), .name = (name_), .shows = "N", \
      .to.number = (int_), .min = (min_), .help = (help_) }
#define OPT_U64(letter_, name_, u64_, min_, help_) \
    { .kind = CLI_OPT_U64, .letter = (letter_), .name = (name_), .shows = "N", \
      .to.u64 = (u64_), .min = (min_), .help = (help_) }

/* Bytes, as cli_size_parse() reads them; at least `min_`. */
#define OPT_SIZE(letter_, name_, u64_, min_, help_) \
    { .kind = CLI_OPT_SIZE, .letter = (letter_), .name = (name_), .shows = "SIZE", \
      .to.u64 = (u64_), .min = (min_), .help = (help_) }

/* Any text; `shows_` names it in help: "GLOB", "<url>". */
#define OPT_TEXT(letter_, name_, text_, shows_, help_) \
    { .kind = CLI_OPT_TEXT, .letter = (letter_), .name = (name_), .shows = (shows_), \
      .to.text = (text_), .help = (help_) }

/* One of a few words: `choices_` is "hdf5|safetensors". */
#define OPT_CHOICE(letter_, name_, text_, choices_, help_) \
    { .kind = CLI_OPT_CHOICE, .letter = (letter_), .name = (name_), .shows = (choices_), \
      .to.text = (text_), .help = (help_) }

/* A second long name of the option in the row above. */
#define OPT_ALIAS(name_) { .kind = CLI_OPT_ALIAS, .name = (name_) }

#define OPT_DONE { .kind = CLI_OPT_DONE }

/*
 * Read argv[0, argc). False if there is nothing left to do: --help was printed, or the
 * usage was wrong and has been reported; *code is then the exit code.
 */
bool cli_opt_parse(const struct cli_cmd *self, const struct cli_opt *opts, int argc,
                   char **argv, struct cli_common *common, int *code);

/* True if "--json" stands before any "--": for errors met before a command is known. */
bool cli_opt_wants_json(int argc, char **argv);

/* Decimal digits and nothing else, at most UINT64_MAX. *out is untouched on failure. */
bool cli_u64_parse(const char *text, uint64_t *out);

/* "1048576", "5GB" (KB MB GB TB: powers of 1000), "256MiB" (KiB MiB GiB TiB). Likewise. */
bool cli_size_parse(const char *text, uint64_t *out);

/*
 * Which known name was meant by a mistyped one: try all of them, then look at `best`,
 * which is NULL if none is near.
 */
struct cli_guess {
    const char *typed, *best;
    size_t distance; /* of `best` */
};
void cli_guess_try(struct cli_guess *guess, const char *name);

/*
 * Print text for people on stdout: words flow up to column 80, every line begins at
 * column `indent`; the cursor stands at `column` now. "\n" in the text ends a line.
 */
void cli_print_wrapped(const char *text, int column, int indent);

#endif
