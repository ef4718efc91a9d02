/* mixckpt inspect - what a URL holds. */
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "ckpt/digest_tree.h"
#include "cli/job.h"

static uint64_t total_bytes(const struct mix_manifest *m)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < m->tensor_count; i++)
        bytes += m->tensor[i].bytes;
    return bytes;
}

static bool is_wanted(const struct mix_ckpt_tensor *t, const char *glob)
{
    return !glob || !fnmatch(glob, t->name, 0);
}

static const char *container_name(const struct mix_checkpoint *ckpt)
{
    if (ckpt->form == MIX_FORM_MIXCKPT || ckpt->form == MIX_FORM_HDF5)
        return mix_container_name(ckpt->m.container);
    return mix_container_name(MIX_SAFETENSORS);
}

static void print_sizes(struct cli_json *json, const char *key, uint32_t rank,
                        const uint64_t *size)
{
    cli_json_begin_array(json, key);
    for (uint32_t i = 0; i < rank; i++)
        cli_json_u64(json, NULL, size[i]);
    cli_json_end_array(json);
}

static enum mix_rc print_pieces(struct cli_json *json, struct mix_reader *reader,
                                const struct mix_ckpt_tensor *t, struct mix_err *err)
{
    uint64_t start[MIX_MAX_RANK], length[MIX_MAX_RANK];
    struct mix_place place;
    enum mix_rc rc = MIX_OK;

    cli_json_begin_array(json, "pieces");
    for (uint64_t k = 0; k < mix_cut_pieces(&t->cut) && !cli_out_failed() && !rc; k++) {
        if ((rc = mix_reader_place(reader, t, k, &place, err)))
            break;
        mix_cut_box(&t->cut, t->rank, t->shape, k / t->cut.column_parts, k % t->cut.column_parts,
                    start, length);
        cli_json_begin_object(json, NULL);
        cli_json_string(json, "file", reader->ckpt->m.file[place.file].name);
        print_sizes(json, "offsets", t->rank, start);
        print_sizes(json, "lengths", t->rank, length);
        cli_json_end_object(json);
    }
    cli_json_end_array(json);
    return rc;
}

static enum mix_rc print_json(const struct mix_checkpoint *ckpt, const char *glob,
                              struct mix_err *err)
{
    const struct mix_manifest *m = &ckpt->m;
    struct cli_json json = CLI_JSON_INIT;
    struct mix_reader reader;
    enum mix_rc rc = mix_reader_init(&reader, ckpt, err);

    if (rc)
        return rc;
    cli_json_begin_object(&json, NULL);
    cli_json_string(&json, "format", mix_form_name(ckpt->form));
    cli_json_raw(&json, "model", m->model ? m->model : "null");
    if (ckpt->form == MIX_FORM_MIXCKPT) {
        cli_json_begin_object(&json, "mesh");
        cli_json_u64(&json, "ep", m->mesh.ep);
        cli_json_u64(&json, "hsd", m->mesh.hsd);
        cli_json_u64(&json, "tp", m->mesh.tp);
        cli_json_end_object(&json);
    } else {
        cli_json_null(&json, "mesh");
    }
    if (m->has_step)
        cli_json_u64(&json, "step", m->step);
    else
        cli_json_null(&json, "step");
    cli_json_string(&json, "container", container_name(ckpt));
    cli_json_begin_array(&json, "tensors");
    for (size_t i = 0; i < m->tensor_count && !cli_out_failed() && !rc; i++) {
        const struct mix_ckpt_tensor *t = &m->tensor[i];

        if (!is_wanted(t, glob))
            continue;
        cli_json_begin_object(&json, NULL);
        cli_json_string(&json, "name", t->name);
        cli_json_string(&json, "dtype", mix_dtype_name(t->dtype));
        print_sizes(&json, "shape", t->rank, t->shape);
        cli_json_u64(&json, "bytes", t->bytes);
        rc = print_pieces(&json, &reader, t, err);
        cli_json_end_object(&json);
    }
    cli_json_end_array(&json);
    cli_json_u64(&json, "tensor_count", m->tensor_count);
    cli_json_u64(&json, "total_bytes", total_bytes(m));
    cli_json_texts(&json, "warnings", &ckpt->warnings);
    cli_json_end_object(&json);
    mix_reader_release(&reader);
    return rc;
}

static void print_head(const struct mix_checkpoint *ckpt)
{
    const struct mix_manifest *m = &ckpt->m;
    const struct mix_geometry *g = &ckpt->geometry;
    char bytes[CLI_TEXT], count[CLI_TEXT];

    printf("format     %s, %s\n", mix_form_name(ckpt->form), container_name(ckpt));
    if (g->family)
        printf("model      %s: %" PRIu64 " layers, %" PRIu64 " experts (%" PRIu64 " a token), "
               "hidden %" PRIu64 ", intermediate %" PRIu64 ", %" PRIu64 " heads (%" PRIu64
               " key-value), vocabulary %" PRIu64 "\n", g->model_type, g->layers, g->experts,
               g->topk, g->hidden, g->intermediate, g->heads, g->kv_heads, g->vocab);
    else if (*g->model_type)
        printf("model      %s\n", g->model_type);
    if (ckpt->form == MIX_FORM_MIXCKPT)
        printf("mesh       ep %" PRIu64 " x hsd %" PRIu64 " x tp %" PRIu64 "\n", m->mesh.ep,
               m->mesh.hsd, m->mesh.tp);
    if (m->has_step)
        printf("step       %" PRIu64 "\n", m->step);
    printf("tensors    %s in %zu files, %s\n", cli_count_text(m->tensor_count, count),
           m->file_count, cli_bytes_text(total_bytes(m), bytes));
}

static enum mix_rc print_text(const struct mix_checkpoint *ckpt, const char *glob,
                              struct mix_err *err)
{
    static const struct cli_column column[] = {
        { "dtype", 7, false }, { "shape", 16, false }, { "bytes", 10, true },
        { "pieces", 6, true }, { "name", 0, false },
    };
    char shape[MIX_SHAPE_TEXT], bytes[CLI_TEXT], pieces[CLI_TEXT];

    (void)err;
    print_head(ckpt);
    printf("\n");
    cli_columns_title(column, 5);
    for (size_t i = 0; i < ckpt->m.tensor_count && !cli_out_failed(); i++) {
        const struct mix_ckpt_tensor *t = &ckpt->m.tensor[i];

        if (!is_wanted(t, glob))
            continue;
        snprintf(pieces, sizeof pieces, "%" PRIu64, mix_cut_pieces(&t->cut));
        const char *const cell[] = { mix_dtype_name(t->dtype),
                                     mix_shape_text(t->rank, t->shape, shape),
                                     cli_bytes_text(t->bytes, bytes), pieces, t->name };
        cli_columns_row(column, 5, cell);
    }
    return MIX_OK;
}

static int run(const struct cli_cmd *self, int argc, char **argv)
{
    struct cli_common common = CLI_COMMON_INIT;
    const char *url = NULL, *glob = NULL;
    const struct cli_opt opts[] = {
        OPT_ARG("url", &url, "the checkpoint, or one file of weights"),
        OPT_TEXT(0, "tensors", &glob, "GLOB", "list only tensors whose name matches, as in "
                 "'*.experts.3.*'"),
        OPT_DONE,
    };
    struct mix_checkpoint *ckpt = NULL;
    struct mix_err err = { 0 };
    int code = CLI_OK;

    if (!cli_opt_parse(self, opts, argc, argv, &common, &code))
        return code;
    if (mix_checkpoint_open(url, NULL, &ckpt, &err))
        return cli_failed(&common, &err);
    cli_warn_of(ckpt, &common);
    if (common.json ? print_json(ckpt, glob, &err) : print_text(ckpt, glob, &err))
        code = cli_failed(&common, &err);
    mix_checkpoint_close(ckpt);
    return code;
}

const struct cli_cmd cmd_inspect = {
    .name = "inspect",
    .summary = "format, model, mesh, and the tensors",
    .usage = "<url> [--tensors GLOB]",
    .help = "Says what is there: the format, the model, the mesh and step of a mixckpt "
            "checkpoint, and every tensor with its name, dtype, shape and bytes. With --json "
            "also which file holds which box of each tensor. Only headers and the manifest are "
            "read.",
    .examples = { "mixckpt inspect Mixtral-8x7B-v0.1",
                  "mixckpt inspect step-00001000 --tensors '*.experts.3.w2.*' --json" },
    .group = CLI_LOOK,
    .run = run,
};
