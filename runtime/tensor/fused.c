/* fused.c - runs a chain of elementwise operations, to which atomo.elementwise compiles an expression, in one pass over
 * memory: all operations are applied to one block of elements while it is in the first-level cache. Path: stage 3. */
#include "tensor/vmath.h"
#include "tensor/iterator.h"
#include <omp.h>

enum { BLOCK = 1024, MOST_STEPS = 256, MOST_REGISTERS = 64 }; /* BLOCK: elements of a register */

#define FAST(name, expr)                                                                                               \
    ATOMO_CLONES static void name(const float *restrict a, int64_t sa, float *restrict o, int64_t n)                   \
    {                                                                                                                  \
        (void)sa; /* is 1 in every call */                                                                             \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const float x = a[i];                                                                                      \
            o[i] = (expr);                                                                                             \
        }                                                                                                              \
    }
FAST(fast_exp, atomo__exp(x))
FAST(fast_tanh, atomo__tanh(x))
FAST(fast_sigmoid, atomo__sigmoid(x))

static atomo__unary_row *unary(int op)
{
    switch (op) { /* these three have vectorised versions that do not call libm */
    case ATOMO_EXP:
        return fast_exp;
    case ATOMO_TANH:
        return fast_tanh;
    case ATOMO_SIGMOID:
        return fast_sigmoid;
    default:
        return atomo__unary_of(op);
    }
}

typedef struct program {
    const atomo_step *step;
    const float *in[ATOMO_FUSED_INPUTS];
    int count;
} program;

/* Returns operand k of the block that starts at element `at`: input -1 - k if k < 0, else register k. */
static const float *operand(const program *p, const float *registers, int32_t k, int64_t at)
{
    return k < 0 ? p->in[-1 - k] + at : registers + (int64_t)k * BLOCK;
}

static void run_block(const program *p, float *registers, int64_t at, int64_t n, float *out)
{
    for (int i = 0; i < p->count; i++) {
        const atomo_step *s = &p->step[i];
        float *to = i == p->count - 1 ? out + at : registers + (int64_t)s->to * BLOCK;
        const float *a = operand(p, registers, s->a, at), value = s->value;
        if (s->kind == ATOMO_STEP_FILL)
            for (int64_t k = 0; k < n; k++) to[k] = value;
        else if (s->kind == ATOMO_STEP_UNARY)
            unary(s->op)(a, 1, to, n);
        else if (s->kind == ATOMO_STEP_SCALAR)
            atomo__binary_of(s->op)(a, 1, &value, 0, to, n);
        else
            atomo__binary_of(s->op)(a, 1, operand(p, registers, s->b, at), 1, to, n);
    }
}

static bool is_place(int32_t k, int inputs, int registers)
{
    return k < 0 ? -k <= inputs : k < registers;
}

static int check_step(const atomo_step *s, int i, int inputs, int registers)
{
    const bool op = s->kind == ATOMO_STEP_UNARY ? s->op >= 0 && s->op < ATOMO_UNARY_COUNT
                                                : s->op >= 0 && s->op < ATOMO_BINARY_COUNT;
    ATOMO_REQUIRE(
        s->kind >= 0 && s->kind < ATOMO_STEP_KINDS && op && is_place(s->a, inputs, registers) &&
            is_place(s->b, inputs, registers) && s->to >= 0 && s->to < registers && s->to != s->a && s->to != s->b,
        ATOMO_EARG, "elementwise: step %d (kind %d, op %d, a %d, b %d, to %d) is invalid with %d inputs, %d registers",
        i + 1, s->kind, s->op, s->a, s->b, s->to, inputs, registers);
    return ATOMO_OK;
}

int atomo_fused(const atomo_step *step, int count, int registers, const atomo_tensor *const *in, int inputs,
                atomo_tensor **out)
{
    ATOMO_MAKING(made, NULL);
    made.input = in;
    program p = {.step = step, .count = count};
    ATOMO_REQUIRE(count >= 1 && count <= MOST_STEPS && registers >= 1 && registers <= MOST_REGISTERS && inputs >= 1 &&
                      inputs <= ATOMO_FUSED_INPUTS,
                  ATOMO_EARG, "elementwise: %d steps (at most %d), %d registers (%d), %d inputs (%d)", count,
                  MOST_STEPS, registers, MOST_REGISTERS, inputs, ATOMO_FUSED_INPUTS);
    for (int i = 0; i < count; i++) ATOMO_TRY(check_step(&step[i], i, inputs, registers));
    for (int i = 0; i < inputs; i++) {
        ATOMO_TRY(atomo__expect(in[i], ATOMO_F32, -1, "elementwise: input"));
        ATOMO_REQUIRE(atomo__same_shape(in[i], in[0]), ATOMO_ESHAPE, "elementwise: input 1 is %s, input %d is %s",
                      atomo__shape_text(in[0]), i + 1, atomo__shape_text(in[i]));
        p.in[i] = atomo__f32(in[i]);
    }
    made.inputs = inputs;
    ATOMO_TRY(atomo__make(&made, out, ATOMO_F32, in[0]->ndim, in[0]->shape, "elementwise"));
    const int64_t n = atomo__numel(in[0]), each = (int64_t)registers * BLOCK;
    void *space;
    const int rc = atomo__alloc(&space, (size_t)(omp_get_max_threads() * each) * sizeof(float));
    if (rc != 0) return atomo__made(&made, rc);
    float *y = atomo__f32(*out);
    ATOMO_FOR(at, n, BLOCK, n > ATOMO_PARALLEL_MIN,
              run_block(&p, (float *)space + omp_get_thread_num() * each, at, ATOMO_MIN(BLOCK, n - at), y));
    atomo__free(space);
    return atomo__made(&made, ATOMO_OK);
}
