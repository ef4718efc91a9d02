/* mixckpt version - which build this is, and what is in it. */
#include <stddef.h>
#include <stdio.h>

#include "ckpt/base/bytes.h"
#include "ckpt/format/shard.h"
#include "ckpt/store/schemes.h"
#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/report.h"

/* What is built in, a list a row; every list ends with NULL. */
struct built_in {
    const char *key, *title;
    const char *const *names;
};

static void print_text(const struct built_in *list, size_t count)
{
    printf("mixckpt %s (commit %s)\n", MIXCKPT_VERSION, MIXCKPT_COMMIT);
    for (size_t i = 0; i < count; i++) {
        printf("%-15s ", list[i].title);
        for (const char *const *name = list[i].names; *name; name++)
            printf("%s%s", name == list[i].names ? "" : ", ", *name);
        printf("%s\n", *list[i].names ? "" : "none");
    }
}

static void print_json(const struct built_in *list, size_t count)
{
    struct cli_json json = CLI_JSON_INIT;

    cli_json_begin_object(&json, NULL);
    cli_json_string(&json, "version", MIXCKPT_VERSION);
    cli_json_string(&json, "commit", MIXCKPT_COMMIT);
    for (size_t i = 0; i < count; i++) {
        cli_json_begin_array(&json, list[i].key);
        for (const char *const *name = list[i].names; *name; name++)
            cli_json_string(&json, NULL, *name);
        cli_json_end_array(&json);
    }
    cli_json_end_object(&json);
}

static int run(const struct cli_cmd *self, int argc, char **argv)
{
    const char *const containers[] = { mix_container_name(MIX_HDF5),
                                       mix_container_name(MIX_SAFETENSORS), NULL };
    const char *const none[] = { NULL }; /* there is no trainer in this program */
    const struct built_in list[] = {
        { "schemes", "URL schemes:", mix_store_schemes() },
        { "containers", "containers:", containers },
        { "devices", "devices:", none },
        { "communicators", "communicators:", none },
    };
    struct cli_common common = CLI_COMMON_INIT;
    const struct cli_opt opts[] = { OPT_DONE };
    int code;

    if (!cli_opt_parse(self, opts, argc, argv, &common, &code))
        return code;
    if (common.json)
        print_json(list, MIX_ARRAY_LEN(list));
    else
        print_text(list, MIX_ARRAY_LEN(list));
    return CLI_OK;
}

const struct cli_cmd cmd_version = {
    .name = "version",
    .summary = "version, git commit, and what is built in",
    .usage = "[--json]",
    .help = "Prints the version, the git commit, and what is built in: the URL schemes that "
            "can be read, the containers of shard files, the devices to train on, and the "
            "communicators between processes.",
    .examples = { "mixckpt version", "mixckpt version --json" },
    .group = CLI_ABOUT,
    .run = run,
};
