/* activation.c - elementwise activations: LeakyReLU, GELU [Hendrycks & Gimpel 2016] (by erf and by tanh), SiLU, tanh,
 * sigmoid, softplus, ELU [Clevert et al. 2016], Mish [Misra 2019], hard swish and sigmoid [Howard et al. 2019]. Each
 * has a forward and a backward function in one table. Path: stage 3. */
#include "nn/nn.h"
#include "tensor/vmath.h"

typedef void forward_fn(int64_t n, float a, const float *restrict x, float *restrict y);
/* s: the input x, for tanh and sigmoid the result y; a: LeakyReLU's negative slope, ELU's alpha, softplus's threshold,
 * ignored by the others */
typedef void backward_fn(int64_t n, float a, const float *restrict s, const float *restrict gy, float *restrict gx);

#define ACTIVATION(name, value, slope)                                                                                 \
    ATOMO_CLONES static void name##_forward(int64_t n, float a, const float *restrict in, float *restrict y)           \
    {                                                                                                                  \
        (void)a;                                                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const float x = in[i];                                                                                     \
            y[i] = value;                                                                                              \
        }                                                                                                              \
    }                                                                                                                  \
    ATOMO_CLONES static void name##_backward(int64_t n, float a, const float *restrict in, const float *restrict gy,   \
                                             float *restrict gx)                                                       \
    {                                                                                                                  \
        (void)a;                                                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const float x = in[i];                                                                                     \
            gx[i] = gy[i] * (slope);                                                                                   \
        }                                                                                                              \
    }

static inline float gelu_slope(float x) /* Phi(x) + x phi(x) */
{
    return 0.5f * (1.0f + atomo__erf(x * 0.70710678f)) + x * 0.39894228f * atomo__exp_above(-0.5f * x * x);
}

static inline float gelu_inner(float x) /* sqrt(2/pi) (x + 0.044715 x^3) */
{
    return 0.79788456f * (x + 0.044715f * x * x * x);
}

static inline float gelu_tanh_slope(float x)
{
    const float t = atomo__tanh(gelu_inner(x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.79788456f * (1.0f + 3.0f * 0.044715f * x * x);
}

static inline float silu_slope(float x)
{
    const float s = atomo__sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

static inline float softplus(float x) /* log(1 + e^x) */
{
    return (x > 0 ? x : 0.0f) + log1pf(atomo__exp(-fabsf(x)));
}

static inline float mish_slope(float x)
{
    const float t = atomo__tanh(softplus(x));
    return t + x * (1.0f - t * t) * atomo__sigmoid(x);
}

static inline float hard_swish(float x)
{
    const float up = x + 3.0f < 0 ? 0 : x + 3.0f;
    return x * (up > 6.0f ? 6.0f : up) / 6.0f;
}

static inline float hard_sigmoid(float x)
{
    const float up = x + 3.0f < 0 ? 0 : x + 3.0f;
    return (up > 6.0f ? 6.0f : up) / 6.0f;
}

ACTIVATION(leaky_relu, x > 0 ? x : a * x, x > 0 ? 1.0f : a)
ACTIVATION(gelu, 0.5f * x * (1.0f + atomo__erf(x * 0.70710678f)), gelu_slope(x))
ACTIVATION(gelu_tanh, 0.5f * x * (1.0f + atomo__tanh(gelu_inner(x))), gelu_tanh_slope(x))
ACTIVATION(silu, x *atomo__sigmoid(x), silu_slope(x))
ACTIVATION(tanh, atomo__tanh(x), 1.0f - x * x)
ACTIVATION(sigmoid, atomo__sigmoid(x), x *(1.0f - x))
ACTIVATION(softplus, x > a ? x : softplus(x), x > a ? 1.0f : atomo__sigmoid(x))
ACTIVATION(elu, x > 0 ? x : a * expm1f(x), x > 0 ? 1.0f : a * atomo__exp(x))
ACTIVATION(mish, x *atomo__tanh(softplus(x)), mish_slope(x))
ACTIVATION(hard_swish, hard_swish(x), x<-3.0f ? 0.0f : x> 3.0f ? 1.0f : x / 3.0f + 0.5f)
ACTIVATION(hard_sigmoid, hard_sigmoid(x), x > -3.0f && x < 3.0f ? 1.0f / 6.0f : 0.0f)

static const struct {
    const char *name;
    forward_fn *forward;
    backward_fn *backward;
} activations[ATOMO_ACTIVATION_COUNT] = {
    [ATOMO_LEAKY_RELU] = {"leaky_relu", leaky_relu_forward, leaky_relu_backward},
    [ATOMO_GELU] = {"gelu", gelu_forward, gelu_backward},
    [ATOMO_GELU_TANH] = {"gelu", gelu_tanh_forward, gelu_tanh_backward},
    [ATOMO_SILU] = {"silu", silu_forward, silu_backward},
    [ATOMO_ACT_TANH] = {"tanh", tanh_forward, tanh_backward},
    [ATOMO_ACT_SIGMOID] = {"sigmoid", sigmoid_forward, sigmoid_backward},
    [ATOMO_SOFTPLUS] = {"softplus", softplus_forward, softplus_backward},
    [ATOMO_ELU] = {"elu", elu_forward, elu_backward},
    [ATOMO_MISH] = {"mish", mish_forward, mish_backward},
    [ATOMO_HARD_SWISH] = {"hardswish", hard_swish_forward, hard_swish_backward},
    [ATOMO_HARD_SIGMOID] = {"hardsigmoid", hard_sigmoid_forward, hard_sigmoid_backward},
};

enum { BLOCK = 1 << 13 };

static int check(int kind, const atomo_tensor *x)
{
    ATOMO_REQUIRE(kind >= 0 && kind < ATOMO_ACTIVATION_COUNT, ATOMO_EARG, "activation: kind %d, expected 0 to %d", kind,
                  ATOMO_ACTIVATION_COUNT - 1);
    return atomo__expect_argument(x, ATOMO_F32, -1, activations[kind].name, "input");
}

int atomo_activation(int kind, const atomo_tensor *x, double a, atomo_tensor **out)
{
    ATOMO_MAKING(made, x);
    ATOMO_TRY(check(kind, x));
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, x->ndim, x->shape, activations[kind].name));
    const int64_t n = atomo__numel(x);
    const float *xd = atomo__f32(x);
    float *y = atomo__f32(*out);
    forward_fn *forward = activations[kind].forward;
    ATOMO_FOR(i, n, BLOCK, n > ATOMO_PARALLEL_MIN, forward(ATOMO_MIN(BLOCK, n - i), (float)a, xd + i, y + i));
    return atomo__made(&made, ATOMO_OK);
}

int atomo_activation_backward(int kind, const atomo_tensor *saved, double a, const atomo_tensor *gy, atomo_tensor **gx)
{
    ATOMO_MAKING(made, saved, gy);
    ATOMO_TRY(check(kind, saved));
    ATOMO_TRY(atomo__expect_gradient(gy, saved->ndim, saved->shape, activations[kind].name));
    ATOMO_TRY(atomo__make(&made, gx, ATOMO_F32, saved->ndim, saved->shape, activations[kind].name));
    const int64_t n = atomo__numel(saved);
    const float *s = atomo__f32(saved), *g = atomo__f32(gy);
    float *out = atomo__f32(*gx);
    backward_fn *backward = activations[kind].backward;
    ATOMO_FOR(i, n, BLOCK, n > ATOMO_PARALLEL_MIN, backward(ATOMO_MIN(BLOCK, n - i), (float)a, s + i, g + i, out + i));
    return atomo__made(&made, ATOMO_OK);
}
