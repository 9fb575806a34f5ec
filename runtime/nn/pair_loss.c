/* pair_loss.c - losses between two tensors of one shape, computed together with both gradients: squared, absolute,
 * smooth and Huber's error, and binary cross entropy of logits (with weights of elements and of positives). PyTorch's
 * formulas, computed in double and summed in order. Path: stage 3. */
#include "nn/nn.h"
#include <math.h>

typedef struct slopes {
    double x, t; /* derivatives with respect to the input and the target */
} slopes;

static double mse(double x, double t, double p, slopes *s)
{
    (void)p;
    *s = (slopes){2 * (x - t), 2 * (t - x)};
    return (x - t) * (x - t);
}

/* -p t log s(x) - (1 - t) log(1 - s(x)) = (1 - t) x + (1 + (p - 1) t) log(1 + e^-x), safe for large |x| */
static double bce(double x, double t, double p, slopes *s)
{
    const double softplus = log1p(exp(-fabs(x))) + (x < 0 ? -x : 0), share = 1 + (p - 1) * t;
    *s = (slopes){1 - t - share / (1 + exp(x)), (p == 1 ? 0 : (p - 1) * softplus) - x};
    return (1 - t) * x + share * softplus;
}

static double sign_of(double d)
{
    return d > 0 ? 1 : d < 0 ? -1 : 0;
}

static double l1(double x, double t, double p, slopes *s)
{
    (void)p;
    *s = (slopes){sign_of(x - t), sign_of(t - x)};
    return fabs(x - t);
}

/* Squared below p, straight above; p = 0: as l1. The slope at NaN is NaN, as PyTorch's, and that of l1 is 0. */
static double smooth_l1(double x, double t, double p, slopes *s)
{
    const double d = x - t, size = fabs(d);
    if (size >= p) {
        *s = (slopes){sign_of(d), sign_of(-d)};
        return size - p / 2;
    }
    *s = (slopes){d / p, -d / p};
    return d * d / (2 * p);
}

static double huber(double x, double t, double p, slopes *s)
{
    const double value = smooth_l1(x, t, p, s);
    *s = (slopes){p * s->x, p * s->t};
    return p * value;
}

static const struct {
    const char *name;
    double (*value)(double x, double t, double p, slopes *s);
} losses[ATOMO_LOSS_COUNT] = {
    [ATOMO_MSE] = {"mse_loss", mse},       [ATOMO_BCE_WITH_LOGITS] = {"bce_with_logits", bce},
    [ATOMO_L1] = {"l1_loss", l1},          [ATOMO_SMOOTH_L1] = {"smooth_l1_loss", smooth_l1},
    [ATOMO_HUBER] = {"huber_loss", huber},
};

static int check(const char *fn, const char *name, const atomo_tensor *t, const atomo_tensor *x)
{
    ATOMO_TRY(atomo__expect_argument(t, ATOMO_F32, -1, fn, name));
    ATOMO_REQUIRE(atomo__same_shape(x, t), ATOMO_ESHAPE, "%s: input is %s, %s is %s, expected the same", fn,
                  atomo__shape_text(x), name, atomo__shape_text(t));
    return ATOMO_OK;
}

int atomo_pair_loss(int kind, const atomo_tensor *x, const atomo_tensor *target, const atomo_tensor *weight,
                    const atomo_tensor *pos_weight, int reduction, atomo_tensor **loss, atomo_tensor **gx,
                    atomo_tensor **gtarget)
{
    ATOMO_MAKING(made, x, target, weight, pos_weight);
    ATOMO_REQUIRE(kind >= 0 && kind < ATOMO_LOSS_COUNT, ATOMO_EARG, "pair_loss: kind %d, expected 0 to %d", kind,
                  ATOMO_LOSS_COUNT - 1);
    const char *fn = losses[kind].name;
    ATOMO_TRY(atomo__check_reduction(fn, reduction));
    ATOMO_TRY(check(fn, "input", x, x));
    ATOMO_TRY(check(fn, "target", target, x));
    if (weight) ATOMO_TRY(check(fn, "weight", weight, x));
    if (pos_weight) ATOMO_TRY(check(fn, "pos_weight", pos_weight, x));
    const int64_t n = atomo__numel(x);
    ATOMO_REQUIRE(n > 0, ATOMO_ESHAPE, "%s: input is %s, an empty batch has no loss", fn, atomo__shape_text(x));
    const bool each = reduction == ATOMO_REDUCE_NONE;
    ATOMO_TRY(atomo__make(&made, loss, ATOMO_F32, each ? x->ndim : 0, x->shape, fn));
    if (gx) ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, x->ndim, x->shape, fn));
    if (gtarget) ATOMO_TRY(atomo__make(&made, gtarget, ATOMO_F32, x->ndim, x->shape, fn));
    const double scale = reduction == ATOMO_REDUCE_MEAN ? 1 / (double)n : 1;
    const float *xd = atomo__f32(x), *td = atomo__f32(target), *w = weight ? atomo__f32(weight) : NULL;
    const float *p = pos_weight ? atomo__f32(pos_weight) : NULL;
    float *y = atomo__f32(*loss), *g = gx ? atomo__f32(*gx) : NULL, *gt = gtarget ? atomo__f32(*gtarget) : NULL;
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        slopes s;
        const double share = w ? (double)w[i] : 1;
        const double one = share * losses[kind].value((double)xd[i], (double)td[i], p ? (double)p[i] : 1, &s);
        if (each)
            y[i] = (float)one;
        else
            total += one;
        if (g) g[i] = (float)(share * s.x * scale);
        if (gt) gt[i] = (float)(share * s.t * scale);
    }
    if (!each) *y = (float)(total * scale);
    return atomo__made(&made, ATOMO_OK);
}
