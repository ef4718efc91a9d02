/* main.c - the table of commands, and the way into one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ckpt/base/cancel.h"
#include "ckpt/base/err.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/report.h"

/* A new command is one line here, and its `extern` in cmd.h. */
const struct cli_cmd *const cli_cmds[] = {
    &cmd_inspect,
    &cmd_plan,
    &cmd_init,
    &cmd_convert,
    &cmd_reshard,
    &cmd_verify,
    &cmd_digest,
    &cmd_diff,
    &cmd_help,
    &cmd_version,
    NULL,
};

const struct cli_cmd *cli_cmd_find(const char *name, const struct cli_common *common)
{
    struct cli_guess guess = { .typed = name };
    struct mix_err err = { 0 };

    for (const struct cli_cmd *const *cmd = cli_cmds; *cmd; cmd++) {
        if (!strcmp((*cmd)->name, name))
            return *cmd;
        cli_guess_try(&guess, (*cmd)->name);
    }
    if (guess.best)
        mix_fail(&err, MIX_USAGE, "there is no command '%s', did you mean '%s'?", name,
                 guess.best);
    else
        mix_fail(&err, MIX_USAGE, "there is no command '%s'; 'mixckpt help' lists them", name);
    cli_failed(common, &err);
    return NULL;
}

/*
 * A standard descriptor that the caller has closed would be given to the next file that
 * is opened, and results would be written into a checkpoint. So each is opened, the
 * wrong way round: using it still fails.
 */
static enum mix_rc hold_standard_descriptors(struct mix_err *err)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
            continue;
        if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return mix_fail_errno(err, "/dev/null: cannot stand in for descriptor %d", fd);
    }
    return MIX_OK;
}

static int short_help(void)
{
    fprintf(stderr, "usage: mixckpt <command> [options] <arguments>\n"
                    "'mixckpt help' lists the commands, 'mixckpt help <command>' "
                    "explains one.\n");
    return CLI_USAGE;
}

/* `mixckpt --help` and `mixckpt --version` are commands for whoever expects them so. */
static const char *command_name(const char *word)
{
    if (!strcmp(word, "--help") || !strcmp(word, "-h"))
        return cmd_help.name;
    if (!strcmp(word, "--version"))
        return cmd_version.name;
    return word;
}

static int dispatch(int argc, char **argv)
{
    const struct cli_common common = { .json = cli_opt_wants_json(argc, argv) };
    struct mix_err err = { 0 };
    const struct cli_cmd *cmd;
    const char *name = argc > 1 ? command_name(argv[1]) : NULL;

    if (hold_standard_descriptors(&err))
        return cli_failed(&common, &err);
    if (!name)
        return short_help();
    if (name[0] == '-') {
        mix_fail(&err, MIX_USAGE, "found '%s' where a command was expected: options stand "
                 "behind it, as in 'mixckpt version --json'", name);
        return cli_failed(&common, &err);
    }
    cmd = cli_cmd_find(name, &common);
    if (!cmd)
        return CLI_USAGE;
    if (mix_cancel_install(cmd->needs & CLI_NEEDS_CANCEL ? MIX_CANCEL_ASK
                                                         : MIX_CANCEL_AT_ONCE, &err))
        return cli_failed(&common, &err);
    return cmd->run(cmd, argc - 2, argv + 2);
}

int main(int argc, char **argv)
{
    return cli_close_stdout(dispatch(argc, argv));
}
