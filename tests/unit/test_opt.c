/* Options and arguments: what is taken, what is refused and in which words, and help. */
#include "cli/opt.h"

#include <limits.h>
#include <unistd.h>

#include "cli/cmd.h"
#include "tests/support/capture.h"
#include "tests/support/test.h"

static const struct cli_cmd self = {
    .name = "move",
    .usage = "<from> <to> [<more>] [--jobs N] [--memory SIZE] [--tensors GLOB] [--to hf|mixckpt]",
    .help = "A first paragraph that is long enough to be wrapped, because it goes on beyond the "
            "eightieth column of the line.\n\nA second one.",
    .examples = { "mixckpt move a b", "mixckpt move a b --jobs 2" },
};

/* Every kind of row, and what it filled. */
struct values {
    const char *from, *to, *more, *tensors, *form;
    int jobs, degree;
    uint64_t seed, memory;
    bool deep;
    struct cli_common common;
    int code;
};

static bool parse(int argc, char **argv, struct values *v)
{
    const struct cli_opt opts[] = {
        OPT_ARG("from", &v->from, "where it is"),
        OPT_ARG("to", &v->to, "where it goes"),
        OPT_ARG_MAYBE("more", &v->more, "what else there is to say about it"),
        OPT_INT('j', "jobs", &v->jobs, 1, "files at the same time (default 4)"),
        OPT_INT(0, "ep", &v->degree, 1, "parts that the experts are divided into"),
        OPT_ALIAS("expert-parallel-degree"),
        OPT_ALIAS("experts"),
        OPT_U64(0, "seed", &v->seed, 0, "where random numbers begin"),
        OPT_SIZE(0, "memory", &v->memory, 1, "bound of the buffers (default 256MiB)"),
        OPT_TEXT('t', "tensors", &v->tensors, "GLOB", "only these"),
        OPT_CHOICE(0, "form", &v->form, "hf|mixckpt", "the form to write"),
        OPT_FLAG('d', "deep", &v->deep, "look at every value"),
        OPT_DONE,
    };

    *v = (struct values){ .jobs = 4, .code = -1 };
    return cli_opt_parse(&self, opts, argc, argv, &v->common, &v->code);
}

/* Words are separated by one space; "~" stands for an empty word. */
static bool parse_line(const char *line, struct values *v)
{
    static char text[512];
    char *argv[32];
    int argc = 0;

    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        argv[argc++] = strcmp(word, "~") ? word : "";
    return parse(argc, argv, v);
}

static void test_opt__takes_options_and_arguments_in_any_order(void **state)
{
    static const char *const lines[] = {
        "a b c --jobs 2 --ep 8 --seed 9 --memory 1KiB --tensors x* --form hf --deep --json",
        "--json --deep a --jobs=2 --experts=8 b --seed=9 --memory=1KiB c -t x* --form=hf",
        "-j2 -d -tx* --expert-parallel-degree 8 --seed=9 --memory 1024 --form hf --json -- a b c",
        "a -j 2 -- b c --seed 9", /* behind --, options are arguments: refused below */
    };
    struct values v;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        test_row(lines[i]);
        assert_true(parse_line(lines[i], &v));
        assert_string_equal(v.from, "a");
        assert_string_equal(v.to, "b");
        assert_string_equal(v.more, "c");
        assert_string_equal(v.tensors, "x*");
        assert_string_equal(v.form, "hf");
        assert_int_equal(v.jobs, 2);
        assert_int_equal(v.degree, 8);
        assert_int_equal(v.seed, 9);
        assert_int_equal(v.memory, 1024);
        assert_true(v.deep && v.common.json);
    }
    test_capture_begin(STDERR_FILENO);
    bool taken = parse_line(lines[3], &v);
    assert_text(test_capture_end(STDERR_FILENO), "one argument too many: '--seed'");
    assert_false(taken);
}

static void test_opt__keeps_what_is_not_given(void **state)
{
    struct values v;

    (void)state;
    assert_true(parse_line("a b", &v));
    assert_null(v.more);
    assert_null(v.tensors);
    assert_int_equal(v.jobs, 4);
    assert_false(v.deep || v.common.json || v.common.quiet);
    assert_true(parse_line("a --quiet b", &v) && v.common.quiet);
    assert_true(parse_line("-q a b", &v) && v.common.quiet);
}

static void test_opt__last_of_a_repeated_option_wins(void **state)
{
    struct values v;

    (void)state;
    assert_true(parse_line("a b --ep 2 --jobs 3 -j 5 --expert-parallel-degree 7", &v));
    assert_int_equal(v.jobs, 5);
    assert_int_equal(v.degree, 7);
}

static void test_opt__takes_odd_words_as_they_are(void **state)
{
    struct values v;

    (void)state;
    assert_true(parse_line("- ~ --tensors=--x=y", &v)); /* "-" and "" are arguments */
    assert_string_equal(v.from, "-");
    assert_string_equal(v.to, "");
    assert_string_equal(v.tensors, "--x=y");
    assert_true(parse_line("a b --tensors -x --tensors=", &v));
    assert_string_equal(v.tensors, "");
    assert_true(parse_line("a b -t -x", &v));
    assert_string_equal(v.tensors, "-x");
    assert_true(parse_line("a b --jobs 2147483647 --seed 18446744073709551615", &v));
    assert_int_equal(v.jobs, INT_MAX);
    assert_true(v.seed == UINT64_MAX);
}

static const struct {
    const char *line, *says;
} wrong[] = {
    { "a", "mixckpt: move: <to> is missing; usage: mixckpt move <from> <to>" },
    { "", "move: <from> is missing" },
    { "a b c d", "move: one argument too many: 'd'" },
    { "a b --jbos 2", "move: unknown option '--jbos', did you mean '--jobs'?" },
    { "a b --jbos=2", "unknown option '--jbos', did you mean '--jobs'?" },
    { "a b -jobs=2", "-j takes a whole number from 1 to 2147483647, found 'obs=2'" },
    { "a b -ep 2", "unknown option '-ep', did you mean '--ep'?" },
    { "a b --expert-parallel 2", "did you mean '--expert-parallel-degree'?" },
    { "a b --qiet", "did you mean '--quiet'?" },
    { "a b --zzzzzz", "unknown option '--zzzzzz'; 'mixckpt move --help' lists what there is" },
    { "a b -z", "unknown option '-z'" },
    { "a b -dx", "unknown option '-dx'" },
    { "a b --from x", "unknown option '--from'" },
    { "a b --jobs", "--jobs needs a value (N), found nothing behind it" },
    { "a b --jobs --deep", "--jobs needs a value (N), found '--deep' behind it" },
    { "a b --tensors -- c", "--tensors needs a value (GLOB), found '--' behind it" },
    { "a b --jobs 0", "--jobs takes a whole number from 1 to 2147483647, found '0'" },
    { "a b -j -3", "-j takes a whole number from 1 to 2147483647, found '-3'" },
    { "a b --jobs 2147483648", "found '2147483648'" },
    { "a b --jobs +2", "found '+2'" },
    { "a b --jobs 2x", "found '2x'" },
    { "a b --jobs 0x2", "found '0x2'" },
    { "a b --jobs=", "--jobs takes a whole number from 1 to 2147483647, found ''" },
    { "a b --expert-parallel-degree x", "--expert-parallel-degree takes a whole number" },
    { "a b --seed 18446744073709551616",
      "--seed takes a whole number from 0 to 18446744073709551615" },
    { "a b --memory 1.5GB", "--memory takes a size: bytes, or a whole number of KB MB GB TB" },
    { "a b --memory 0", "--memory takes a size of at least 1 byte, found '0'" },
    { "a b --form dcp", "--form takes hf|mixckpt, found 'dcp'" },
    { "a b --form h", "--form takes hf|mixckpt, found 'h'" },
    { "a b --form hf|mixckpt", "--form takes hf|mixckpt, found 'hf|mixckpt'" },
    { "a b --form=", "--form takes hf|mixckpt, found ''" },
    { "a b --deep=yes", "--deep takes no value, found 'yes'" },
};

static void test_opt__names_what_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(wrong); i++) {
        struct values v;

        test_row(wrong[i].line);
        test_capture_begin(STDERR_FILENO);
        bool taken = parse_line(wrong[i].line, &v);
        const char *said = test_capture_end(STDERR_FILENO);
        assert_text(said, wrong[i].says);
        assert_text(said, "mixckpt: move: ");
        assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1); /* one line */
        assert_false(taken);
        assert_int_equal(v.code, CLI_USAGE);
    }
}

static void test_opt__knows_of_json_before_it_is_reached(void **state)
{
    struct values v;

    (void)state;
    test_capture_begin(STDOUT_FILENO);
    test_capture_begin(STDERR_FILENO);
    parse_line("a b --jobs x --json", &v);
    test_capture_end(STDERR_FILENO);
    assert_text(test_capture_end(STDOUT_FILENO),
                "{\"error\":{\"kind\":\"usage\",\"message\":\"move: --jobs takes a whole number");
    assert_true(v.common.json);
    assert_false(cli_opt_wants_json(2, (char *[]){ "--", "--json" }));
}

static void test_opt__help_is_aligned_and_wrapped(void **state)
{
    struct values v;

    (void)state;
    test_capture_begin(STDOUT_FILENO);
    bool taken = parse_line("--help --no-such-option", &v);
    assert_string_equal(
        test_capture_end(STDOUT_FILENO),
        "usage: mixckpt move <from> <to> [<more>] [--jobs N] [--memory SIZE] [--tensors\n"
        "                    GLOB] [--to hf|mixckpt]\n"
        "\n"
        "A first paragraph that is long enough to be wrapped, because it goes on beyond\n"
        "the eightieth column of the line.\n"
        "\n"
        "A second one.\n"
        "\n"
        "arguments:\n"
        "  <from>                 where it is\n"
        "  <to>                   where it goes\n"
        "  <more>                 what else there is to say about it\n"
        "\n"
        "options:\n"
        "  -j, --jobs N           files at the same time (default 4)\n"
        "      --ep N             parts that the experts are divided into (also\n"
        "                         --expert-parallel-degree) (also --experts)\n"
        "      --seed N           where random numbers begin\n"
        "      --memory SIZE      bound of the buffers (default 256MiB)\n"
        "  -t, --tensors GLOB     only these\n"
        "      --form hf|mixckpt  the form to write\n"
        "  -d, --deep             look at every value\n"
        "      --json             print one JSON document on stdout, and nothing else\n"
        "  -q, --quiet            no progress, warnings or notes on stderr; errors still\n"
        "  -h, --help             print this help\n"
        "\n"
        "examples:\n"
        "  mixckpt move a b\n"
        "  mixckpt move a b --jobs 2\n");
    assert_false(taken);
    assert_int_equal(v.code, CLI_OK);
}

static void test_opt__lines_end_at_column_80(void **state)
{
    char text[128], wanted[128];

    (void)state;
    for (int second = 31; second <= 32; second++) { /* 8 + 40 + 1 + 31 = 80 */
        memset(text, 'x', sizeof text);
        text[40] = ' ';
        text[41 + second] = '\0';
        snprintf(wanted, sizeof wanted, "        %.40s%s%.*s\n", text,
                 second == 31 ? " " : "\n        ", second, text + 41);
        test_capture_begin(STDOUT_FILENO);
        cli_print_wrapped(text, 0, 8);
        assert_string_equal(test_capture_end(STDOUT_FILENO), wanted);
    }
}

static const struct {
    const char *text;
    bool legal;
    uint64_t bytes;
} sizes[] = {
    { "0", true, 0 },
    { "17", true, 17 },
    { "1KB", true, 1000 },
    { "2MB", true, 2000000 },
    { "5GB", true, 5000000000 },
    { "3TB", true, 3000000000000 },
    { "1KiB", true, 1024 },
    { "256MiB", true, 268435456 },
    { "2GiB", true, 2147483648 },
    { "1TiB", true, 1099511627776 },
    { "18446744073709551615", true, UINT64_MAX },
    { "16777215TiB", true, 16777215ull << 40 },
    { "18446744073709551616", false, 0 },
    { "16777216TiB", false, 0 },
    { "18446745TB", false, 0 },
    { "99999999999999999999999999KB", false, 0 },
    { "", false, 0 },
    { "-1", false, 0 },
    { "+1", false, 0 },
    { " 1", false, 0 },
    { "1 ", false, 0 },
    { "1 KB", false, 0 },
    { "KB", false, 0 },
    { "1K", false, 0 },
    { "1kb", false, 0 },
    { "1KBs", false, 0 },
    { "1.5GB", false, 0 },
    { "0x10", false, 0 },
};

static void test_opt__reads_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(sizes); i++) {
        uint64_t bytes = 12345;

        test_row(sizes[i].text);
        if (cli_size_parse(sizes[i].text, &bytes) != sizes[i].legal ||
            bytes != (sizes[i].legal ? sizes[i].bytes : 12345))
            fail_msg("'%s' became %llu", sizes[i].text, (unsigned long long)bytes);
    }
}

static void test_opt__guesses_only_what_is_near(void **state)
{
    static const char *const known[] = { "reshard", "verify", "version", "digest", "diff" };
    static const struct {
        const char *typed, *meant;
    } cases[] = {
        { "reshrad", "reshard" }, /* two letters swapped */
        { "resard", "reshard" },  /* one left out */
        { "veriffy", "verify" },  /* one too many */
        { "version", "version" },
        { "vresoin", "version" }, /* two swaps */
        { "dif", "diff" },        /* cut short */
        { "dig", "digest" },      /* cut shorter */
        { "x", NULL },
        { "d", NULL }, /* too short to be half of a name */
        { "train", NULL },
        { "", NULL },
        { "a-word-that-is-longer-than-any-name-could-sensibly-be-and-so-is-not-compared", NULL },
    };

    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(cases); i++) {
        struct cli_guess guess = { .typed = cases[i].typed };

        for (size_t j = 0; j < MIX_ARRAY_LEN(known); j++)
            cli_guess_try(&guess, known[j]);
        if (!cases[i].meant)
            assert_null(guess.best);
        else
            assert_string_equal(guess.best, cases[i].meant);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opt__takes_options_and_arguments_in_any_order),
        cmocka_unit_test(test_opt__keeps_what_is_not_given),
        cmocka_unit_test(test_opt__last_of_a_repeated_option_wins),
        cmocka_unit_test(test_opt__takes_odd_words_as_they_are),
        cmocka_unit_test(test_opt__names_what_is_wrong),
        cmocka_unit_test(test_opt__knows_of_json_before_it_is_reached),
        cmocka_unit_test(test_opt__help_is_aligned_and_wrapped),
        cmocka_unit_test(test_opt__lines_end_at_column_80),
        cmocka_unit_test(test_opt__reads_sizes),
        cmocka_unit_test(test_opt__guesses_only_what_is_near),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
