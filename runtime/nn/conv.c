/* conv.c - 2-D convolution: checks arguments and chooses the engine that computes it. Path: stage 3.
 *
 * Engines (conv.h) receive checked, non-empty arrays. A policy picks the engine for each layer and pass from the
 * layer's shape and the CPU, never by timing, so every run computes the same. ATOMO_CONV or atomo_conv_set_engine sets
 * the policy.
 *
 * In precision BF16 a direct convolution has rounded operands. oneDNN multiplies them where the CPU has the
 * instructions and that is faster, else any engine gets them as f32. With AMX that includes the layers for which
 * Winograd is the faster one in fp32. What Winograd computes stays in fp32, since its transforms would enlarge the
 * error of rounding; so do grouped convolutions, whose kernels are slower in bf16.
 */
#include "linalg/product.h"
#include "nn/conv.h"
#include "nn/nn.h"
#include "tensor/float16.h"
#include <stdlib.h>
#include <string.h>

static const conv_engine *pick_gemm(const conv_shape *s, enum conv_pass pass)
{
    (void)s, (void)pass;
    return &atomo__conv_gemm;
}

#ifdef ATOMO_HAVE_ONEDNN
static const conv_engine *pick_onednn(const conv_shape *s, enum conv_pass pass)
{
    (void)s, (void)pass;
    return &atomo__conv_onednn;
}

static bool has_amx(void)
{
    const char *unit = atomo__bf16_unit();
    return unit && strcmp(unit, "AMX") == 0;
}

/* Does oneDNN compute this pass in bf16? The rules here and below are measured on Sapphire Rapids with oneDNN 2.6,
 * batch 64 and 128, with the time of rounding. Its bf16 gradient of the weights of small images takes twice as long as
 * fp32. */
static bool in_bf16(const conv_shape *s, enum conv_pass pass)
{
    if (s->precision != ATOMO_PRECISION_BF16 || !atomo__bf16_unit()) return false;
    return !has_amx() || pass != PASS_WEIGHTS || s->kh * s->kw == 1 || s->oh * s->ow >= 64;
}

/* Is this pass faster in bf16 than by Winograd in fp32? With AMX by 1.6 to 4 times, the gradient of the weights by 1.1
 * to 1.7, but not for small images. With AVX512-BF16 alone it is not. */
static bool beats_winograd(const conv_shape *s, enum conv_pass pass)
{
    if (!in_bf16(s, pass) || !has_amx()) return false;
    return pass == PASS_WEIGHTS ? s->oh * s->ow >= 128 : s->h * s->w >= 32;
}
#else
static bool beats_winograd(const conv_shape *s, enum conv_pass pass)
{
    (void)s, (void)pass;
    return false;
}
#endif

static const conv_engine *pick_direct(const conv_shape *s, enum conv_pass pass)
{
#ifdef ATOMO_HAVE_ONEDNN
    if (in_bf16(s, pass)) return pick_onednn(s, pass);
#endif
    if (atomo__conv_window_pays(s, pass)) return &atomo__conv_window;
#ifdef ATOMO_HAVE_ONEDNN
    if (!atomo__conv_gemm_pays(s, pass)) return pick_onednn(s, pass);
#endif
    return pick_gemm(s, pass);
}

static const conv_engine *pick_winograd(const conv_shape *s, enum conv_pass pass)
{
    return atomo__conv_winograd_fits(s) ? &atomo__conv_winograd : pick_direct(s, pass);
}

static const conv_engine *pick_auto(const conv_shape *s, enum conv_pass pass)
{
    const bool winograd = !beats_winograd(s, pass) && atomo__conv_winograd_fits(s) && atomo__conv_winograd_pays(s);
    return winograd ? &atomo__conv_winograd : pick_direct(s, pass);
}

typedef struct policy {
    const char *name;
    const conv_engine *(*pick)(const conv_shape *s, enum conv_pass pass);
} policy;

static const policy policies[] = {
    {"auto", pick_auto},         /* the default: Winograd where it is faster, else as "direct" */
    {"direct", pick_direct},     /* no Winograd */
    {"winograd", pick_winograd}, /* Winograd for all shapes that it can compute */
#ifdef ATOMO_HAVE_ONEDNN
    {"onednn", pick_onednn},
#endif
    {"gemm", pick_gemm},
};
static const policy *chosen;
#define POLICY_NAMES "auto, direct, winograd, onednn or gemm"

static int set_policy(const char *name, const char *from)
{
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        if (strcmp(policies[i].name, name) == 0) {
            chosen = &policies[i];
            return ATOMO_OK;
        }
    ATOMO_REQUIRE(strcmp(name, "onednn") != 0, ATOMO_EUNSUPPORTED,
                  "%s: \"onednn\", but this build has no oneDNN (apt install libdnnl-dev and build again, or use auto)",
                  from);
    return atomo__fail(ATOMO_EARG, "%s: \"%s\", expected " POLICY_NAMES, from, name);
}

static int get_policy(const policy **out)
{
    const char *name;
    if (!chosen && (name = getenv("ATOMO_CONV")) && *name) ATOMO_TRY(set_policy(name, "ATOMO_CONV"));
    if (!chosen) chosen = policies;
    *out = chosen;
    return ATOMO_OK;
}

int atomo_conv_set_engine(const char *name)
{
    ATOMO_REQUIRE(name, ATOMO_EARG, "conv_set_engine: name is missing, expected " POLICY_NAMES);
    return set_policy(name, "conv_set_engine");
}

const char *atomo_conv_engine(void)
{
    const policy *p;
    return get_policy(&p) < 0 ? "" : p->name;
}

int atomo__conv_shape(const char *fn, const atomo_tensor *x, const atomo_tensor *w, const atomo_window *g,
                      int precision, conv_shape *s)
{
    ATOMO_TRY(atomo__expect_precision(fn, precision));
    ATOMO_TRY(atomo__expect(x, ATOMO_F32, 4, "conv2d: x"));
    ATOMO_TRY(atomo__expect(w, ATOMO_F32, 4, "conv2d: weight"));
    ATOMO_TRY(atomo__check_window(g, fn));
    memset(s, 0, sizeof *s);
    s->n = atomo__size(x, 0), s->h = atomo__size(x, 1), s->w = atomo__size(x, 2), s->c = atomo__size(x, 3);
    s->oc = atomo__size(w, 0), s->kh = atomo__size(w, 1), s->kw = atomo__size(w, 2);
    s->groups = g->groups;
    s->precision = precision;
    ATOMO_REQUIRE(w->numel > 0, ATOMO_ESHAPE, "%s: weight is %s, it has no elements", fn, atomo__shape_text(w));
    ATOMO_REQUIRE(s->groups >= 1 && s->c % s->groups == 0 && s->oc % s->groups == 0, ATOMO_ESHAPE,
                  "%s: %d groups do not divide input %s and weight %s", fn, g->groups, atomo__shape_text(x),
                  atomo__shape_text(w));
    const int64_t wanted = atomo__size(w, 3) * s->groups;
    ATOMO_REQUIRE(s->c == wanted, ATOMO_ESHAPE, "%s: weight is %s, input %s has %d channels, expected %d%s", fn,
                  atomo__shape_text(w), atomo__shape_text(x), (int)s->c, (int)wanted,
                  s->h == wanted ? "; images are N,H,W,C here, this looks like N,C,H,W" : "");
    for (int i = 0; i < 2; i++) {
        s->stride[i] = g->stride[i];
        s->padding[i] = g->padding[i];
        s->dilation[i] = g->dilation[i];
    }
    s->oh = atomo__window_count(s->h, s->kh, s->stride[0], s->padding[0], s->dilation[0]);
    s->ow = atomo__window_count(s->w, s->kw, s->stride[1], s->padding[1], s->dilation[1]);
    ATOMO_REQUIRE(s->oh > 0 && s->ow > 0, ATOMO_ESHAPE,
                  "%s: input %s with padding {%d,%d} is smaller than weight %s with dilation {%d,%d}", fn,
                  atomo__shape_text(x), g->padding[0], g->padding[1], atomo__shape_text(w), g->dilation[0],
                  g->dilation[1]);
    return ATOMO_OK;
}

static int check_gradient(const char *fn, const conv_shape *s, const atomo_tensor *gy)
{
    double shape[4] = {(double)s->n, (double)s->oh, (double)s->ow, (double)s->oc};
    return atomo__expect_gradient(gy, 4, shape, fn);
}

/* gx += the engine's gradient, by way of scratch memory if the engine has no backward_data_add. */
static int backward_data_add(const conv_engine *engine, const conv_shape *s, const float *gy, const float *w, float *gx)
{
    enum { BLOCK = 1 << 14 };
    if (engine->backward_data_add) return engine->backward_data_add(s, gy, w, gx);
    const int64_t n = atomo__conv_images(s);
    void *space;
    ATOMO_TRY(atomo__scratch(&space, (size_t)n * sizeof(float)));
    const float *apart = space;
    const int rc = engine->backward_data(s, gy, w, space);
    if (rc == 0) {
#pragma omp parallel for schedule(static) if (n > ATOMO_PARALLEL_MIN)
        for (int64_t i = 0; i < n; i += BLOCK) atomo__add_to(ATOMO_MIN(BLOCK, n - i), apart + i, gx + i);
    }
    atomo__free(space);
    return rc;
}

/* What a pass reads and writes: x, w, b -> y; gy, w -> gx (+= with add); x, gy -> gw. */
typedef struct pass_operands {
    const float *a, *b, *bias;
    bool add;
    float *out;
} pass_operands;

static int run_engine(const conv_engine *e, const conv_shape *s, enum conv_pass pass, const pass_operands *o)
{
    if (pass == PASS_FORWARD) return e->forward(s, o->a, o->b, o->bias, o->out);
    if (pass == PASS_WEIGHTS) return e->backward_weights(s, o->a, o->b, o->out);
    return o->add ? backward_data_add(e, s, o->a, o->b, o->out) : e->backward_data(s, o->a, o->b, o->out);
}

/* Runs a pass in fp32 on rounded copies of its operands. */
static int run_copies(const policy *p, conv_shape *s, enum conv_pass pass, const pass_operands *o)
{
    const int64_t na = pass == PASS_DATA ? atomo__conv_results(s) : atomo__conv_images(s);
    const int64_t nb = pass == PASS_WEIGHTS ? atomo__conv_results(s) : atomo__conv_weights(s);
    atomo__factor a = {0}, b = {0};
    int rc = atomo__factor_rounded(1, na, o->a, na, &a);
    if (rc == 0) rc = atomo__factor_rounded(1, nb, o->b, nb, &b);
    pass_operands copies = *o;
    copies.a = a.f32, copies.b = b.f32;
    s->precision = ATOMO_PRECISION_FP32;
    if (rc == 0) rc = run_engine(p->pick(s, pass), s, pass, &copies);
    atomo__factor_free(&a);
    atomo__factor_free(&b);
    return rc;
}

/* *e = the engine of a pass; s->precision becomes that of its arithmetic. */
static void plan_pass(const policy *p, conv_shape *s, enum conv_pass pass, const conv_engine **e)
{
    if (s->groups > 1) s->precision = ATOMO_PRECISION_FP32;
    *e = p->pick(s, pass);
    if (*e == &atomo__conv_winograd) s->precision = ATOMO_PRECISION_FP32;
}

/* Does the engine of a pass multiply bf16 operands? */
static bool multiplies_bf16(const conv_engine *e, const conv_shape *s, enum conv_pass pass)
{
#ifdef ATOMO_HAVE_ONEDNN
    return e == &atomo__conv_onednn && in_bf16(s, pass);
#else
    (void)e, (void)s, (void)pass;
    return false;
#endif
}

static int run_pass(const policy *p, conv_shape *s, enum conv_pass pass, const pass_operands *o)
{
    const conv_engine *e;
    plan_pass(p, s, pass, &e);
    if (s->precision == ATOMO_PRECISION_FP32) return run_engine(e, s, pass, o);
    if (multiplies_bf16(e, s, pass)) {
        const int rc = run_engine(e, s, pass, o);
        if (rc != ATOMO_EUNSUPPORTED) return rc;
    }
    return run_copies(p, s, pass, o);
}

int atomo_conv2d_pass_precision(const atomo_tensor *x, const atomo_tensor *w, const atomo_window *g, int precision,
                                int pass)
{
    conv_shape s;
    const policy *p;
    const conv_engine *e;
    ATOMO_REQUIRE(pass >= 0 && pass < PASSES, ATOMO_EARG, "conv2d: pass %d, expected 0 to %d", pass, PASSES - 1);
    ATOMO_TRY(get_policy(&p));
    ATOMO_TRY(atomo__conv_shape("conv2d", x, w, g, precision, &s));
    plan_pass(p, &s, (enum conv_pass)pass, &e);
    const bool rounded = s.precision == ATOMO_PRECISION_BF16 && multiplies_bf16(e, &s, (enum conv_pass)pass);
    return rounded ? ATOMO_PRECISION_BF16 : ATOMO_PRECISION_FP32;
}

/* The gradient of the weights for a packed x. */
static int run_packed(const policy *p, conv_shape *s, const uint16_t *x, const float *gy, float *gw)
{
#ifdef ATOMO_HAVE_ONEDNN
    if (s->groups == 1 && p->pick(s, PASS_WEIGHTS) == &atomo__conv_onednn && in_bf16(s, PASS_WEIGHTS)) {
        const int rc = atomo__conv_onednn_weights(s, x, gy, gw);
        if (rc != ATOMO_EUNSUPPORTED) return rc;
    }
#endif
    float *values;
    ATOMO_TRY(atomo__bf16_unpacked(x, atomo__conv_images(s), &values));
    const pass_operands o = {values, gy, NULL, false, gw};
    const int rc = run_pass(p, s, PASS_WEIGHTS, &o);
    atomo__free(values);
    return rc;
}

int atomo_conv2d(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *b, const atomo_window *g,
                 int precision, atomo_tensor **out)
{
    ATOMO_MAKING(made, x, w, b);
    conv_shape s;
    const policy *p;
    ATOMO_TRY(get_policy(&p));
    ATOMO_TRY(atomo__conv_shape("conv2d", x, w, g, precision, &s));
    if (b) ATOMO_TRY(atomo__expect(b, ATOMO_F32, 1, "conv2d: bias"));
    ATOMO_REQUIRE(!b || atomo__numel(b) == s.oc, ATOMO_ESHAPE, "conv2d: bias is %s, weight is %s: expected [%d]",
                  atomo__shape_text(b), atomo__shape_text(w), (int)s.oc);
    double shape[4] = {(double)s.n, (double)s.oh, (double)s.ow, (double)s.oc};
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, 4, shape, "conv2d"));
    if (s.n == 0) return atomo__made(&made, ATOMO_OK);
    const pass_operands o = {atomo__f32(x), atomo__f32(w), b ? atomo__f32(b) : NULL, false, atomo__f32(*out)};
    return atomo__made(&made, run_pass(p, &s, PASS_FORWARD, &o));
}

int atomo_conv2d_backward_data(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *gy,
                               const atomo_window *g, int precision, int add, atomo_tensor **gx)
{
    ATOMO_MAKING(made, w, gy);
    made.updates = add != 0;
    conv_shape s;
    const policy *p;
    ATOMO_TRY(get_policy(&p));
    atomo_tensor as;
    x = atomo__bf16_seen(x, &as);
    ATOMO_TRY(atomo__conv_shape("conv2d backward", x, w, g, precision, &s));
    ATOMO_TRY(check_gradient("conv2d backward", &s, gy));
    ATOMO_REQUIRE(!add || (gx && *gx), ATOMO_EARG, "conv2d backward: nothing to add to, gx is missing");
    ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, 4, x->shape, "conv2d backward: gx"));
    if (s.n == 0) return atomo__made(&made, ATOMO_OK);
    const pass_operands o = {atomo__f32(gy), atomo__f32(w), NULL, add != 0, atomo__f32(*gx)};
    return atomo__made(&made, run_pass(p, &s, PASS_DATA, &o));
}

int atomo_conv2d_backward_weights(const atomo_tensor *x, const atomo_tensor *w, const atomo_tensor *gy,
                                  const atomo_window *g, int precision, atomo_tensor **gw, atomo_tensor **gb)
{
    ATOMO_MAKING(made, x, gy);
    conv_shape s;
    const policy *p;
    ATOMO_TRY(get_policy(&p));
    atomo_tensor as;
    const atomo_tensor *seen = atomo__bf16_seen(x, &as);
    ATOMO_TRY(atomo__conv_shape("conv2d backward", seen, w, g, precision, &s));
    ATOMO_TRY(check_gradient("conv2d backward", &s, gy));
    ATOMO_TRY(atomo__make(&made, gw, ATOMO_F32, 4, w->shape, "conv2d backward: gw"));
    if (gb) ATOMO_TRY(atomo__make(&made, gb, ATOMO_F32, 1, w->shape, "conv2d backward: gb"));
    if (s.n == 0) {
        memset((*gw)->data, 0, (size_t)(*gw)->numel * sizeof(float));
        if (gb) memset((*gb)->data, 0, (size_t)(*gb)->numel * sizeof(float));
        return atomo__made(&made, ATOMO_OK);
    }
    if (seen != x) {
        ATOMO_TRY(run_packed(p, &s, x->data, atomo__f32(gy), atomo__f32(*gw)));
    } else {
        const pass_operands o = {atomo__f32(x), atomo__f32(gy), NULL, false, atomo__f32(*gw)};
        ATOMO_TRY(run_pass(p, &s, PASS_WEIGHTS, &o));
    }
    if (gb) ATOMO_TRY(atomo__column_sums(atomo__f32(gy), s.n * s.oh * s.ow, s.oc, atomo__f32(*gb)));
    return atomo__made(&made, ATOMO_OK);
}
