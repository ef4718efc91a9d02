/* mixckpt help - the commands, or one of them. */
#include <stddef.h>
#include <stdio.h>

#include "ckpt/base/bytes.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/report.h"

static void print_group(enum cli_group group, const char *title)
{
    for (const struct cli_cmd *const *cmd = cli_cmds; *cmd; cmd++) {
        if ((*cmd)->group != group)
            continue;
        if (title)
            printf("\n%s:\n", title);
        title = NULL;
        cli_print_wrapped((*cmd)->summary, printf("  %s", (*cmd)->name), 12);
    }
}

static void print_list(void)
{
    static const char *const title[] = {
        [CLI_LOOK] = "look at a checkpoint",
        [CLI_MAKE] = "make a checkpoint",
        [CLI_PROVE] = "prove that nothing was lost",
        [CLI_ABOUT] = "about this program",
    };

    printf("usage: mixckpt <command> [options] <arguments>\n\n");
    cli_print_wrapped("Moves Mixtral (MoE) checkpoints between every parallel layout, and "
                      "proves that nothing was lost.", 0, 0);
    for (size_t i = 0; i < MIX_ARRAY_LEN(title); i++)
        print_group((enum cli_group)i, title[i]);
    printf("\n");
    cli_print_wrapped("'mixckpt help <command>' explains a command, its options, and gives "
                      "examples. Results go to stdout, everything else to stderr. Exit codes: "
                      "0 done or yes; 1 the answer is no (defects, differences); 2 wrong "
                      "usage; 3 could not do it; 130 interrupted; 143 told to stop.", 0, 0);
}

static void emit_cmd(struct cli_json *json, const struct cli_cmd *cmd)
{
    cli_json_begin_object(json, NULL);
    cli_json_string(json, "name", cmd->name);
    cli_json_string(json, "summary", cmd->summary);
    cli_json_string(json, "usage", cmd->usage);
    cli_json_string(json, "help", cmd->help);
    cli_json_begin_array(json, "examples");
    for (size_t i = 0; i < MIX_ARRAY_LEN(cmd->examples) && cmd->examples[i]; i++)
        cli_json_string(json, NULL, cmd->examples[i]);
    cli_json_end_array(json);
    cli_json_end_object(json);
}

/* All commands, or only that one. */
static void emit_list(const struct cli_cmd *only)
{
    struct cli_json json = CLI_JSON_INIT;

    cli_json_begin_object(&json, NULL);
    cli_json_begin_array(&json, "commands");
    for (const struct cli_cmd *const *cmd = cli_cmds; *cmd; cmd++)
        if (!only || *cmd == only)
            emit_cmd(&json, *cmd);
    cli_json_end_array(&json);
    cli_json_end_object(&json);
}

static int run(const struct cli_cmd *self, int argc, char **argv)
{
    const char *name = NULL;
    struct cli_common common = CLI_COMMON_INIT;
    const struct cli_opt opts[] = {
        OPT_ARG_MAYBE("command", &name, "the one to explain (default: list them all)"),
        OPT_DONE,
    };
    char ask[] = "--help", *asks[] = { ask, NULL };
    const struct cli_cmd *cmd = NULL;
    int code;

    if (!cli_opt_parse(self, opts, argc, argv, &common, &code))
        return code;
    if (name && !(cmd = cli_cmd_find(name, &common)))
        return CLI_USAGE;
    if (common.json)
        emit_list(cmd);
    else if (cmd)
        return cmd->run(cmd, 1, asks); /* its table of options stands in there */
    else
        print_list();
    return CLI_OK;
}

const struct cli_cmd cmd_help = {
    .name = "help",
    .summary = "list the commands, or explain one",
    .usage = "[<command>]",
    .help = "Prints the list of commands, or what one of them does, its options and examples; "
            "'mixckpt <command> --help' prints the same.",
    .examples = { "mixckpt help", "mixckpt help version" },
    .group = CLI_ABOUT,
    .run = run,
};
