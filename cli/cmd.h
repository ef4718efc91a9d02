/*
 * cmd.h - what a command is. Each lives in a file of its own, cmd_<name>.c, which
 * parses its arguments (opt.h), calls one library function, and reports (report.h).
 * A new command is that file, its `extern` below, and one line in main.c.
 */
#ifndef MIXCKPT_CLI_CMD_H
#define MIXCKPT_CLI_CMD_H

#include <stdbool.h>

/* Exit codes; scripts rely on them. */
enum cli_code {
    CLI_OK = 0,            /* done; the answer is yes */
    CLI_FOUND = 1,         /* the answer is no: defects, differences */
    CLI_USAGE = 2,         /* wrong usage, impossible degrees */
    CLI_FAILED = 3,        /* could not do it */
    CLI_INTERRUPTED = 130, /* SIGINT */
    CLI_TERMINATED = 143,  /* SIGTERM */
};

/* The options that every command has; cli_opt_parse() fills it. */
struct cli_common {
    bool json;  /* one JSON document on stdout, and nothing else */
    bool quiet; /* no progress, warnings, notes; results and errors stay */
};
#define CLI_COMMON_INIT { 0 }

/* Where `mixckpt help` lists a command. */
enum cli_group {
    CLI_LOOK,  /* what is there, what would happen */
    CLI_MAKE,  /* write a checkpoint */
    CLI_PROVE, /* compare, verify */
    CLI_ABOUT, /* this program */
};

/* What main() sets up around a command: bits of `needs`. */
enum {
    /*
     * The command looks at mix_cancel_requested() (or mix_cancel_check()) at every
     * step and stops in good order. Without this bit the first SIGINT or SIGTERM
     * ends it on the spot, with the same exit codes.
     */
    CLI_NEEDS_CANCEL = 1,
};

struct cli_cmd {
    const char *name;        /* "verify" */
    const char *summary;     /* one line, no full stop: "check every byte against ..." */
    const char *usage;       /* behind the name: "<url> [--against <url>] [--deep]" */
    const char *help;        /* what it does; wrapped for printing, "\n\n" between paragraphs */
    const char *examples[4]; /* whole command lines, two or so; NULL behind the last */
    enum cli_group group;
    unsigned needs;

    /* argv[0, argc) is what stands behind the command's name. Returns an exit code. */
    int (*run)(const struct cli_cmd *self, int argc, char **argv);
};

extern const struct cli_cmd cmd_convert;
extern const struct cli_cmd cmd_diff;
extern const struct cli_cmd cmd_digest;
extern const struct cli_cmd cmd_help;
extern const struct cli_cmd cmd_init;
extern const struct cli_cmd cmd_inspect;
extern const struct cli_cmd cmd_plan;
extern const struct cli_cmd cmd_reshard;
extern const struct cli_cmd cmd_verify;
extern const struct cli_cmd cmd_version;

/* All of them, in the order of `mixckpt help`; NULL behind the last. In main.c. */
extern const struct cli_cmd *const cli_cmds[];

/* The command of that name. NULL after a line on stderr, with the closest name. */
const struct cli_cmd *cli_cmd_find(const char *name, const struct cli_common *common);

#endif
