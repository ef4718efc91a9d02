/* Which worker of how many: the option, the launchers' variables, and what is malformed. */
#include "cli/worker.h"

#include <stdlib.h>

#include "tests/support/test.h"

static const char *const variables[] = { "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                                         "SLURM_PROCID", "SLURM_STEP_NUM_TASKS" };

static const struct {
    const char *option;
    const char *value[4]; /* of `variables`; NULL: not set */
    unsigned index, count;
    const char *says;     /* NULL: legal */
} cases[] = {
    { NULL, { NULL, NULL, NULL, NULL }, 0, 1, NULL },
    { "0/1", { NULL, NULL, NULL, NULL }, 0, 1, NULL },
    { "65535/65536", { NULL, NULL, NULL, NULL }, 65535, 65536, NULL },
    { NULL, { "3", "8", NULL, NULL }, 3, 8, NULL },
    { NULL, { NULL, NULL, "5", "6" }, 5, 6, NULL },
    { NULL, { NULL, NULL, "5", NULL }, 0, 1, NULL },  /* an interactive shell */
    { NULL, { NULL, NULL, NULL, "6" }, 0, 1, NULL },
    { NULL, { "3", NULL, "5", "6" }, 5, 6, NULL },
    { NULL, { "3", "8", "0", "2" }, 3, 8, NULL },     /* mpirun inside of a batch job */
    { "1/2", { "x", "8", "0", "2" }, 1, 2, NULL },    /* the option is stronger */
    { "2/2", { NULL, NULL, NULL, NULL }, 0, 0, "--worker takes I/N with 0 <= I < N <= 65536" },
    { "0/0", { NULL, NULL, NULL, NULL }, 0, 0, "found '0/0'" },
    { "0/65537", { NULL, NULL, NULL, NULL }, 0, 0, "found '0/65537'" },
    { "-1/2", { NULL, NULL, NULL, NULL }, 0, 0, "found '-1/2'" },
    { "1", { NULL, NULL, NULL, NULL }, 0, 0, "found '1'" },
    { "/2", { NULL, NULL, NULL, NULL }, 0, 0, "found '/2'" },
    { "1/", { NULL, NULL, NULL, NULL }, 0, 0, "found '1/'" },
    { "1/2/3", { NULL, NULL, NULL, NULL }, 0, 0, "found '1/2/3'" },
    { "000000000000000000000000000000000000/2", { NULL, NULL, NULL, NULL }, 0, 0, "--worker" },
    { "", { NULL, NULL, NULL, NULL }, 0, 0, "found ''" },
    { NULL, { "8", "8", NULL, NULL }, 0, 0,
      "OMPI_COMM_WORLD_RANK must be a number from 0 to 7 (OMPI_COMM_WORLD_SIZE is 8), found '8'" },
    { NULL, { "0", "0", NULL, NULL }, 0, 0,
      "OMPI_COMM_WORLD_SIZE must be a number from 1 to 65536, found '0'" },
    { NULL, { "0", "many", "0", "1" }, 0, 0, "OMPI_COMM_WORLD_SIZE" },
    { NULL, { NULL, NULL, "", "2" }, 0, 0, "SLURM_PROCID" },
    { NULL, { NULL, NULL, "-1", "2" }, 0, 0, "SLURM_PROCID" },
    { NULL, { NULL, NULL, "0", "2(x3)" }, 0, 0, "SLURM_STEP_NUM_TASKS" },
};

static void test_worker__is_found_or_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < MIX_ARRAY_LEN(cases); i++) {
        unsigned index = 77, count = 77;
        struct mix_err err = { 0 };
        char row[16];

        snprintf(row, sizeof row, "row %zu", i);
        test_row(row);
        for (size_t j = 0; j < MIX_ARRAY_LEN(variables); j++)
            if (cases[i].value[j])
                setenv(variables[j], cases[i].value[j], 1);
            else
                unsetenv(variables[j]);
        enum mix_rc rc = cli_worker_find(cases[i].option, &index, &count, &err);
        if (cases[i].says) {
            assert_text(err.text, cases[i].says);
            assert_int_equal(rc, MIX_USAGE);
        } else {
            assert_ok(rc, &err);
            assert_int_equal(index, cases[i].index);
            assert_int_equal(count, cases[i].count);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_worker__is_found_or_refused) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
