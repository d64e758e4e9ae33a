/* What happens to each map of a band on its own, or to the channels of one pixel. */
#include "bands.h"

/* The normal distribution function: a polynomial of degree 13 in x^2 on -5 .. 5, whose largest error is 2e-7,
 * fitted to erf by weighted least squares; outside, the function is 0 or 1 to single precision. */
static inline __attribute__((always_inline)) vec normal(vec x)
{
    static const float c[] = {
        0.141363812f, -0.070296786f, 0.0515184398f, -0.0404270643f, 0.0314699577f, -0.0234041518f, 0.0162687362f,
        -0.0106615178f, 0.00669656809f, -0.00358737694f, 0.00144300326f, -0.000840804188f, 0.000710500362f,
        -0.000253380095f,
    };
    vec u = x * x * 0.08f - 1.0f, v = u * u, none = {0}, even = SPREAD(c[12]), odd = SPREAD(c[13]);
    for (int i = 10; i >= 0; i -= 2) { /* two short chains of sums in place of a long one */
        even = even * v + c[i];
        odd = odd * v + c[i + 1];
    }
    vec sum = odd * u + even;
    vec share = x * sum + 0.5f;
    share = CHOOSE(x > 5.0f, SPREAD(1.0f), share);
    return CHOOSE(x < -5.0f, none, share);
}

static inline __attribute__((always_inline)) vec gelu(vec x) { return x * normal(x); }

static inline __attribute__((always_inline)) vec activated(vec x, int mode)
{
    vec none = {0};
    return mode == GELU ? gelu(x) : mode == RELU ? CHOOSE(x < none, none, x) : x;
}

/* y = act(a) * b */
static inline __attribute__((always_inline)) void gate(const float *a, const float *b, float *y, int wide, int mode)
{
    if (mode == GELU)
        for (int x = 0; x < wide; x += LANES)
            AT(y + x) = activated(READ(a + x), GELU) * READ(b + x);
    else
        for (int x = 0; x < wide; x += LANES)
            AT(y + x) = activated(READ(a + x), mode) * READ(b + x);
}

static void gate_row(const float *a, const float *b, float *y, int wide, int mode) { gate(a, b, y, wide, mode); }

static void activate_row(const float *a, float *y, int wide, int mode)
{
    for (int x = 0; x < wide; x += LANES)
        AT(y + x) = activated(READ(a + x), mode);
}

static void add_row(const float *a, const float *b, float *y, int wide)
{
    for (int x = 0; x < wide; x += LANES)
        AT(y + x) = READ(a + x) + READ(b + x);
}

static void affine_row(const float *a, float scale, float shift, float *y, int wide)
{
    for (int x = 0; x < wide; x += LANES)
        AT(y + x) = READ(a + x) * scale + shift;
}

static void band_pointwise(const item *it, const op *o, int low, int high)
{
    int wide = span(it);
    ptrdiff_t a_pitch = pitch_of(it, o->a), b_pitch = o->b < 0 ? 0 : pitch_of(it, o->b), pitch = pitch_of(it, o->to);
    const float *scale = o->weight;
    if (o->kind == AFFINE && o->tensor >= 0)
        scale = it->tensors[o->tensor] + (ptrdiff_t)it->image * o->size;
    for (int r = low; r < high; r++) {
        const float *a = row_of(it, o->a, o->a_at, r), *b = o->b < 0 ? a : row_of(it, o->b, o->b_at, r);
        float *y = row_of(it, o->to, o->to_at, r);
        for (int c = 0; c < o->channels; c++, a += a_pitch, b += b_pitch, y += pitch)
            if (o->kind == AFFINE)
                affine_row(a, scale ? scale[c] : 1.0f, o->bias ? o->bias[c] : 0.0f, y, wide);
            else if (o->kind == ACTIVATE)
                activate_row(a, y, wide, o->mode);
            else if (o->kind == GATE)
                gate_row(a, b, y, wide, o->mode);
            else
                add_row(a, b, y, wide);
    }
}

/* Normalise four vectors of pixels over their channels: mean and variance first, then each channel. */
static void norm_four(const op *o, const float *const *x, ptrdiff_t x_pitch, float *const *y, ptrdiff_t pitch)
{
    vec mean[4] = {{0}}, scale[4] = {{0}};
    for (ptrdiff_t c = 0; c < o->channels; c++)
        for (int j = 0; j < 4; j++)
            mean[j] += READ(x[j] + c * x_pitch);
    for (int j = 0; j < 4; j++)
        mean[j] /= (float)o->channels;
    for (ptrdiff_t c = 0; c < o->channels; c++)
        for (int j = 0; j < 4; j++) {
            vec d = READ(x[j] + c * x_pitch) - mean[j];
            scale[j] += d * d;
        }
    for (int j = 0; j < 4; j++) {
        float s[LANES];
        AT(s) = scale[j] / (float)o->channels + o->epsilon;
        for (int i = 0; i < LANES; i++)
            s[i] = 1.0f / __builtin_sqrtf(s[i]);
        scale[j] = READ(s);
    }
    for (ptrdiff_t c = 0; c < o->channels; c++) {
        float weight = o->weight ? o->weight[c] : 1.0f, bias = o->bias ? o->bias[c] : 0.0f;
        for (int j = 0; j < 4; j++)
            AT(y[j] + c * pitch) = (READ(x[j] + c * x_pitch) - mean[j]) * scale[j] * weight + bias;
    }
}

static void band_norm(const item *it, const op *o, int low, int high)
{
    int vectors = span(it) / LANES, count = (high - low) * vectors;
    for (int at = 0; at < count; at += 4) {
        const float *x[4];
        float *y[4];
        for (int j = 0; j < 4; j++) {
            int v = least(at + j, count - 1), row = low + v / vectors, column = v % vectors * LANES;
            x[j] = row_of(it, o->a, o->a_at, row) + column;
            y[j] = row_of(it, o->to, o->to_at, row) + column;
        }
        norm_four(o, x, pitch_of(it, o->a), y, pitch_of(it, o->to));
    }
}

/* y[x] = bias + sum over i, j of w[i][j] * rows[i][x + j - 1]: the sums of three rows for each of the kernel's columns,
 * where vectors lie as they are read; then two shifts. */
static inline __attribute__((always_inline)) void three(const float *p, const float *q, const float *r, const vec *w,
                                                        vec bias, float *y, int wide)
{
    vec a = READ(p), b = READ(q), c = READ(r);
    vec before = w[0] * READ(p - LANES) + w[3] * READ(q - LANES) + w[6] * READ(r - LANES);
    vec left = w[0] * a + w[3] * b + w[6] * c, middle = bias + w[1] * a + w[4] * b + w[7] * c;
    vec right = w[2] * a + w[5] * b + w[8] * c;
    for (int x = 0; x < wide; x += LANES) {
        a = READ(p + x + LANES), b = READ(q + x + LANES), c = READ(r + x + LANES);
        vec next = w[2] * a + w[5] * b + w[8] * c;
        AT(y + x) = middle + LEFT(before, left) + RIGHT(right, next);
        before = left, right = next;
        left = w[0] * a + w[3] * b + w[6] * c, middle = bias + w[1] * a + w[4] * b + w[7] * c;
    }
}

/* Three rows of one channel, as `three` does, for each of `count` results */
static void three_each(float *const *rows, int count, ptrdiff_t at, const float *weight, float bias, float *const *y, int wide)
{
    vec w[9];
    for (int i = 0; i < 9; i++)
        w[i] = SPREAD(weight[i]);
    for (int r = 0; r < count; r++)
        three(rows[r] + at, rows[r + 1] + at, rows[r + 2] + at, w, SPREAD(bias), y[r], wide);
}

/* y[r][x] = bias + sum over i, j of w[i][j] * rows[r + i][x + j - size / 2] */
static void any_each(float *const *rows, int count, ptrdiff_t at, int size, const float *w, float bias, float *const *y,
                     int wide)
{
    for (int r = 0; r < count; r++)
        for (int x = 0; x < wide; x += LANES) {
            vec sum = SPREAD(bias);
            for (int i = 0; i < size; i++)
                for (int j = 0; j < size; j++)
                    sum += w[i * size + j] * READ(rows[r + i] + at + x + j - size / 2);
            AT(y[r] + x) = sum;
        }
}

static void depthwise_channel(const op *o, float *const *rows, int count, ptrdiff_t pitch, int channel, float *const *y,
                              int wide)
{
    const float *w = o->weight + (ptrdiff_t)channel * o->kernel * o->kernel;
    float bias = o->bias ? o->bias[channel] : 0.0f;
    if (o->kernel == 3)
        three_each(rows, count, channel * pitch, w, bias, y, wide);
    else
        any_each(rows, count, channel * pitch, o->kernel, w, bias, y, wide);
}

#define TOGETHER 8 /* rows of one channel that are done in turn, while its weights are at hand */

/* An odd square kernel, stride 1, zeros around the image; with an activation, the two halves gated. */
static void band_depthwise(const item *it, const op *o, int low, int high)
{
    int wide = span(it), both = o->mode != NONE, together = least(TOGETHER, WIDEST / wide);
    ptrdiff_t from = pitch_of(it, o->a), pitch = pitch_of(it, o->to);
    for (int first = low; first < high; first += together) {
        float *rows[TOGETHER + 2 * MARGIN], *to[TOGETHER], *y[TOGETHER], parts[2][WIDEST];
        int count = least(together, high - first);
        for (int i = 0; i < count + o->kernel - 1; i++)
            rows[i] = row_of(it, o->a, o->a_at, first + i - o->kernel / 2);
        for (int r = 0; r < count; r++)
            to[r] = row_of(it, o->to, o->to_at, first + r);
        for (int c = 0; c < o->channels; c++)
            for (int half = 0; half <= both; half++) {
                for (int r = 0; r < count; r++)
                    y[r] = both ? parts[half] + r * wide : to[r] + c * pitch;
                depthwise_channel(o, rows, count, from, c + half * o->channels, y, wide);
                for (int r = 0; r < count && half; r++)
                    gate(parts[0] + r * wide, parts[1] + r * wide, to[r] + c * pitch, wide, o->mode);
            }
    }
}

/* tensor [item][channel] += the sum, or the sum of squares, over the columns and rows that are the item's own */
static void sum_row(const float *x, int wide, int squares, float *sum)
{
    vec s = {0};
    int at = 0;
    for (; at + LANES <= wide; at += LANES) {
        vec v = READ(x + at);
        if (squares)
            v *= v;
        s += v;
    }
    for (int i = 0; i < LANES; i++)
        *sum += s[i];
    for (; at < wide; at++)
        *sum += squares ? x[at] * x[at] : x[at];
}

static void band_sum(const item *it, const op *o, int low, int high, float *sums)
{
    for (int r = low; r < high; r++) {
        const float *x = row_of(it, o->a, o->a_at, r) + it->left - it->from;
        for (int c = 0; c < o->channels; c++)
            sum_row(x + c * pitch_of(it, o->a), it->right - it->left, o->mode, sums + c);
    }
}
