/* digest.c - from the digests of tensors to those of a model and its optimizer state. */
#include "ckpt/digest.h"

#include <string.h>

#include "ckpt/digest_tree.h"

enum mix_rc mix_digest_line(const struct mix_ckpt_tensor *t, struct mix_buf *out,
                            struct mix_err *err)
{
    char hex[MIX_SHA256_HEX], shape[MIX_SHAPE_TEXT];

    mix_hex(t->digest, 32, hex);
    return mix_buf_putf(out, err, "%s  %s  %s  %s\n", hex, mix_dtype_name(t->dtype),
                        mix_shape_text(t->rank, t->shape, shape), t->name);
}

enum mix_rc mix_digest_totals(const struct mix_manifest *m, struct mix_digests *out,
                              struct mix_err *err)
{
    struct mix_sha256 model, optimizer;
    struct mix_buf line = MIX_BUF_INIT;
    unsigned char sha[32];
    enum mix_rc rc = MIX_OK;

    memset(out, 0, sizeof *out);
    mix_sha256_init(&model);
    mix_sha256_init(&optimizer);
    for (size_t i = 0; i < m->tensor_count && !rc; i++) {
        bool is_state = strchr(m->tensor[i].name, '@') != NULL;

        mix_buf_clear(&line);
        if ((rc = mix_digest_line(&m->tensor[i], &line, err)))
            break;
        mix_sha256_put(is_state ? &optimizer : &model, line.data, line.len);
        out->has_optimizer |= is_state;
    }
    mix_buf_release(&line);
    mix_sha256_end(&model, sha);
    mix_hex(sha, 32, out->model);
    mix_sha256_end(&optimizer, sha);
    mix_hex(sha, 32, out->optimizer);
    return rc;
}
