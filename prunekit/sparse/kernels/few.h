/* Operators on few numbers, which lie anyhow: what is left to do between two chains, without a word to torch. */
#ifndef PRUNEKIT_FEW_H
#define PRUNEKIT_FEW_H
#include "vectors.h"

#define DIMS 6
enum { MULTIPLY, PLUS, MINUS, DIVIDE, LARGER, ROOT, INVERSE_ROOT, SOFTMAX };

/* bases[to] [..][size[0]] .. [size[dims - 1]] = a op b, each with its own step along each dimension; the result is
 * contiguous. SOFTMAX is along the last dimension, where the step of a is 1. */
typedef struct few {
    int32_t kind, dims, a, b, to;
    int64_t a_at, b_at;
    int64_t size[DIMS], a_step[DIMS], b_step[DIMS];
} few;

#define EACH(expression)                                                                                               \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        float p = a[i * a_step], q = b[i * b_step];                                                                    \
        (void)q;                                                                                                       \
        y[i] = expression;                                                                                             \
    }                                                                                                                  \
    break;

static inline __attribute__((always_inline)) void few_row(int kind, const float *a, int64_t a_step, const float *b,
                                                          int64_t b_step, float *restrict y, int64_t n)
{
    switch (kind) {
    case MULTIPLY: EACH(p * q)
    case PLUS: EACH(p + q)
    case MINUS: EACH(p - q)
    case DIVIDE: EACH(p / q)
    case LARGER: EACH(p < q ? q : p)
    case ROOT: EACH(__builtin_sqrtf(p))
    default: EACH(1.0f / __builtin_sqrtf(p))
    }
}

/* e^x for x <= 0: 2^n times a polynomial on -ln 2 / 2 .. ln 2 / 2; 0 where it is not a normal number */
static inline vec exponential(vec x)
{
    static const float c[] = {1.0f, 1.0f, 0.5f, 1.0f / 6, 1.0f / 24, 1.0f / 120, 1.0f / 720, 1.0f / 5040};
    lanes tiny = x < -87.0f;
    vec none = {0}, y = CHOOSE(tiny, SPREAD(-87.0f), x);
    lanes n = __builtin_convertvector(y * 1.44269504f - 0.5f, lanes); /* towards zero: to the nearest */
    vec whole = __builtin_convertvector(n, vec), r = y - whole * 0.693359375f + whole * 2.12194440e-4f, p = SPREAD(c[7]);
    for (int i = 6; i >= 0; i--)
        p = p * r + c[i];
    p *= (vec)((n + 127) << 23);
    return CHOOSE(tiny, none, p);
}

/* Up to LANES numbers, and minus infinity beyond them */
static inline vec some(const float *x, int64_t count)
{
    vec v = SPREAD(-__builtin_inff());
    if (count >= LANES)
        return READ(x);
    memcpy(&v, x, count * sizeof(float));
    return v;
}

static void softmax_row(const float *x, float *y, int64_t n)
{
    vec v = SPREAD(-__builtin_inff());
    for (int64_t i = 0; i < n; i += LANES) {
        vec next = some(x + i, n - i);
        v = CHOOSE(next > v, next, v);
    }
    float top = v[0], sum = 0;
    for (int i = 1; i < LANES; i++)
        top = v[i] > top ? v[i] : top;
    v = SPREAD(0.0f);
    for (int64_t i = 0; i < n; i += LANES) {
        vec e = exponential(some(x + i, n - i) - top);
        v += e;
        memcpy(y + i, &e, (n - i < LANES ? n - i : LANES) * sizeof(float));
    }
    for (int i = 0; i < LANES; i++)
        sum += v[i];
    for (int64_t i = 0; i < n; i++)
        y[i] /= sum;
}

static void few_one(const few *o, float *const *bases)
{
    int last = o->dims - 1;
    int64_t n = o->size[last], at[DIMS] = {0}, a_step = o->a_step[last], b_step = o->b_step[last];
    const float *a = bases[o->a] + o->a_at, *b = bases[o->b] + o->b_at;
    for (float *y = bases[o->to];; y += n) {
        if (o->kind == SOFTMAX)
            softmax_row(a, y, n);
        else if (a_step == 1 && b_step == 1)
            few_row(o->kind, a, 1, b, 1, y, n);
        else if (a_step == 1 && b_step == 0)
            few_row(o->kind, a, 1, b, 0, y, n);
        else
            few_row(o->kind, a, a_step, b, b_step, y, n);
        int d = last - 1;
        for (; d >= 0; d--) {
            a += o->a_step[d], b += o->b_step[d];
            if (++at[d] < o->size[d])
                break;
            a -= o->size[d] * o->a_step[d], b -= o->size[d] * o->b_step[d], at[d] = 0;
        }
        if (d < 0)
            return;
    }
}

void COPY(pk_few)(const few *ops, int count, float *const *bases)
{
    for (int i = 0; i < count; i++)
        few_one(ops + i, bases);
}

#endif
