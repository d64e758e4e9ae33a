/* Products within a band: sparse and dense matrices with the channels of a pixel, and the products of maps. */
#include "bands.h"

/* A product's result, activated: only this costs too little for a pass of its own. */
static inline vec rectified(vec x, int mode)
{
    vec none = {0};
    return mode == RELU ? CHOOSE(x < none, none, x) : x;
}

/* y[m][t] = bias[m] + more[m][t] + sum over i, j of value[j] * x[i][offset[j] + t], for up to four units t that may
 * lie anywhere: x[i] has the rows that row i of the kernel looks at, and w->rows where its non-zeros of output m begin. */
static inline __attribute__((always_inline)) void sparse_some(int count, const op *o, float *const (*x)[4],
                                                              float *const *more, ptrdiff_t more_pitch, float *const *y,
                                                              ptrdiff_t pitch)
{
    const sparse w = o->w; /* a copy, which no result can overwrite */
    const int kernel = o->kernel, outputs = o->channels, mode = o->mode;
    const int32_t *rows = w.rows;
    for (ptrdiff_t m = 0; m < outputs; m++) {
        vec sum[4][VECTORS];
        for (int t = 0; t < count; t++)
            for (int v = 0; v < VECTORS; v++) {
                sum[t][v] = SPREAD(w.bias[m]);
                if (more)
                    sum[t][v] += READ(more[t] + m * more_pitch + v * LANES);
            }
        for (int i = 0; i < kernel; i++, rows++) {
            const float *from[4];
            for (int t = 0; t < count; t++)
                from[t] = x[i][t];
            for (int32_t j = rows[0]; j < rows[1]; j++)
                for (int t = 0; t < count; t++)
                    for (int v = 0; v < VECTORS; v++)
                        sum[t][v] += w.value[j] * READ(from[t] + w.offset[j] + v * LANES);
        }
        for (int t = 0; t < count; t++)
            for (int v = 0; v < VECTORS; v++)
                AT(y[t] + m * pitch + v * LANES) = rectified(sum[t][v], mode);
    }
}

#define SPARSE_SOME(name, count)                                                                                       \
    static void name(const op *o, float *const (*x)[4], float *const *more, ptrdiff_t more_pitch, float *const *y,     \
                     ptrdiff_t pitch)                                                                                  \
    {                                                                                                                  \
        sparse_some(count, o, x, more, more_pitch, y, pitch);                                                          \
    }
SPARSE_SOME(sparse_one, 1)
SPARSE_SOME(sparse_two, 2)
SPARSE_SOME(sparse_of_three, 3)
SPARSE_SOME(sparse_four, 4)

/* sum[v] = sum over j of value[j] * from[flat[j]], in vectors that are neighbours */
static inline __attribute__((always_inline)) void column_sum(int count, const float *value, const int32_t *flat,
                                                             const int32_t *rows, const float *from, vec *sum)
{
    for (int v = 0; v < count; v++)
        sum[v] = SPREAD(0.0f);
    for (int32_t j = rows[0]; j < rows[1]; j++)
        for (int v = 0; v < count; v++)
            sum[v] += value[j] * READ(from + flat[j] + v * LANES);
}

/* The same for a kernel of three rows and columns and vectors that are neighbours. The non-zeros of an output are in
 * order of the kernel's column: what one column adds up is read as it lies, and shifted once. flat: see `flatten`. */
static inline __attribute__((always_inline)) void sparse_three(int count, const op *o, const int32_t *flat, const float *x,
                                                               const float *more, ptrdiff_t more_pitch, float *y,
                                                               ptrdiff_t pitch)
{
    const sparse w = o->w;
    const int outputs = o->channels, mode = o->mode;
    const int32_t *rows = w.rows;
    for (ptrdiff_t m = 0; m < outputs; m++, y += pitch, rows += 3) {
        vec left[9], middle[8], right[9];
        column_sum(count + 1, w.value, flat, rows, x - LANES, left);
        column_sum(count, w.value, flat, rows + 1, x, middle);
        column_sum(count + 1, w.value, flat, rows + 2, x, right);
        for (int v = 0; v < count; v++) {
            vec sum = middle[v] + LEFT(left[v], left[v + 1]) + RIGHT(right[v], right[v + 1]) + SPREAD(w.bias[m]);
            if (more)
                sum += READ(more + m * more_pitch + v * LANES);
            AT(y + v * LANES) = rectified(sum, mode);
        }
    }
}

/* Where the inputs of all non-zeros lie, from the first of three rows on: an offset has the kernel's row in its last two
 * bits, and the rows are somewhere in a ring. */
static void flatten(const int32_t *offset, int32_t count, const float *const *x, int32_t *flat)
{
    int32_t second = (int32_t)(x[1] - x[0]), third = (int32_t)(x[2] - x[0]);
    for (int32_t j = 0; j < count; j++) {
        int32_t row = offset[j] & 3;
        flat[j] = (offset[j] >> 2) + (row == 1 ? second : 0) + (row == 2 ? third : 0);
    }
}

/* A kernel of three rows and columns: as many neighbours at a time as have their sums in registers. */
static void band_three(const item *it, const op *o, int low, int high)
{
    int32_t *flat = (int32_t *)(it->scratch + o->flat);
    ptrdiff_t more_pitch = o->b < 0 ? 0 : pitch_of(it, o->b), pitch = pitch_of(it, o->to);
    for (int r = low; r < high; r++) {
        const float *x[3], *more = o->b < 0 ? NULL : row_of(it, o->b, o->b_at, r);
        float *y = row_of(it, o->to, o->to_at, r);
        for (int i = 0; i < 3; i++)
            x[i] = row_of(it, o->a, o->a_at, r + i - 1);
        flatten(o->w.offset, o->w.rows[3 * o->channels], x, flat);
        for (int at = 0, left = span(it) / LANES, here; left; left -= here, at += here * LANES) {
            const float *others = more ? more + at : NULL;
            here = left >= 8 ? 8 : left >= 4 ? 4 : 1;
            if (here == 8)
                sparse_three(8, o, flat, x[0] + at, others, more_pitch, y + at, pitch);
            else if (here == 4)
                sparse_three(4, o, flat, x[0] + at, others, more_pitch, y + at, pitch);
            else
                sparse_three(1, o, flat, x[0] + at, others, more_pitch, y + at, pitch);
        }
    }
}

/* Rows and vectors of a dense product whose sums stay in registers: of 32 or, before AVX-512, 16. */
#if LANES == 8
enum { DOWN = 6, ACROSS = 2 };
#elif defined(__x86_64__) && LANES == 4
enum { DOWN = 4, ACROSS = 2 };
#else
enum { DOWN = 4, ACROSS = 4 };
#endif

/* y[m][t] = bias[m] + more[m][t] + sum of weight[m][k] * x[k][t], DOWN rows m and ACROSS vectors t at a time */
static inline __attribute__((always_inline)) void dense_some(const float *weight, const float *bias, int inputs, int outputs,
                                                             float *const *x, ptrdiff_t x_pitch, float *const *more,
                                                             ptrdiff_t more_pitch, float *const *y, ptrdiff_t pitch)
{
    for (int m = 0; m < outputs; m += DOWN) {
        const float *w[DOWN];
        vec sum[DOWN][ACROSS];
        for (int i = 0; i < DOWN; i++) {
            int row = least(m + i, outputs - 1);
            w[i] = weight + (ptrdiff_t)row * inputs;
            for (int j = 0; j < ACROSS; j++) {
                sum[i][j] = SPREAD(bias ? bias[row] : 0.0f);
                if (more)
                    sum[i][j] += READ(more[j] + row * more_pitch);
            }
        }
        for (int k = 0; k < inputs; k++) {
            vec v[ACROSS];
            for (int j = 0; j < ACROSS; j++)
                v[j] = READ(x[j] + k * x_pitch);
            for (int i = 0; i < DOWN; i++)
                for (int j = 0; j < ACROSS; j++)
                    sum[i][j] += w[i][k] * v[j];
        }
        for (int i = 0; i < least(DOWN, outputs - m); i++)
            for (int j = 0; j < ACROSS; j++)
                AT(y[j] + (m + i) * pitch) = sum[i][j];
    }
}

/* ACROSS vectors of four units, from vector `first` on */
static void across(float *const *units, int first, float **vectors)
{
    for (int j = 0; j < ACROSS; j++)
        vectors[j] = units[(first + j) / VECTORS] + (first + j) % VECTORS * LANES;
}

/* Point at the next four units of a ring's rows low .. ; where fewer are left, the last one is taken again. */
static void four(const item *it, int index, int channel, int low, int at, int count, float **x)
{
    int units = span(it) / UNIT;
    for (int j = 0; j < 4; j++) {
        int u = least(at + j, count - 1);
        x[j] = row_of(it, index, channel, low + u / units) + u % units * UNIT;
    }
}

static void band_sparse(const item *it, const op *o, int low, int high)
{
    int count = (high - low) * (span(it) / UNIT), kernel = o->kernel;
    ptrdiff_t more_pitch = o->b < 0 ? 0 : pitch_of(it, o->b), pitch = pitch_of(it, o->to);
    for (int at = 0; at < count; at += 4) {
        float *x[2 * MARGIN][4], *some[4], *y[4], *const *more = o->b < 0 ? NULL : some;
        for (int i = 0; i < kernel; i++)
            four(it, o->a, o->a_at, low + i - kernel / 2, at, count, x[i]);
        four(it, o->to, o->to_at, low, at, count, y);
        if (more)
            four(it, o->b, o->b_at, low, at, count, some);
        (count - at == 1   ? sparse_one
         : count - at == 2 ? sparse_two
         : count - at == 3 ? sparse_of_three
                           : sparse_four)(o, x, more, more_pitch, y, pitch);
    }
}

/* A matrix of the layer's own, or one for each image and head out of a tensor of the call. */
static void band_dense(const item *it, const op *o, int low, int high)
{
    int count = (high - low) * (span(it) / UNIT), heads = most(1, o->mode), outputs = o->channels / heads;
    const float *weight = o->weight ? o->weight : it->tensors[o->tensor] + (ptrdiff_t)it->image * o->size;
    ptrdiff_t x_pitch = pitch_of(it, o->a), more_pitch = o->b < 0 ? 0 : pitch_of(it, o->b), pitch = pitch_of(it, o->to);
    for (int at = 0; at < count; at += 4)
        for (int h = 0; h < heads; h++) {
            const float *own = weight + (ptrdiff_t)h * outputs * o->inputs;
            float *x[4], *some[4], *y[4], *from[ACROSS], *more[ACROSS], *to[ACROSS];
            four(it, o->a, o->a_at + h * o->inputs, low, at, count, x);
            four(it, o->to, o->to_at + h * outputs, low, at, count, y);
            if (o->b >= 0)
                four(it, o->b, o->b_at + h * outputs, low, at, count, some);
            for (int first = 0; first < 4 * VECTORS; first += ACROSS) {
                across(x, first, from), across(y, first, to);
                if (o->b >= 0)
                    across(some, first, more);
                dense_some(own, o->bias, o->inputs, outputs, from, x_pitch, o->b < 0 ? NULL : more, more_pitch, to, pitch);
            }
        }
}

#define PIXELS 128
#define COLUMNS 48         /* of k at a time */
#define TURN (3 * LANES)   /* of them whose sums stay in registers */

/* sum[i][e] += sum over rows r and pixels p of q[r][i][p] * k[r][p][e], for four i and TURN columns e */
static void gram_four(const float *const *q, ptrdiff_t pitch, int some, const float *k, int rows, int pixels, float *sum,
                      ptrdiff_t across, int columns)
{
    vec s[4][3] = {{{0}}};
    for (int r = 0; r < rows; r++) {
        const float *w[4];
        for (int i = 0; i < 4; i++)
            w[i] = q[r] + least(i, some - 1) * pitch;
        for (int p = 0; p < pixels; p++, k += COLUMNS) {
            vec v[3] = {READ(k), READ(k + LANES), READ(k + 2 * LANES)};
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 3; j++)
                    s[i][j] += w[i][p] * v[j];
        }
    }
    for (int i = 0; i < some; i++, sum += across)
        for (int j = 0; j < 3; j++)
            if ((j + 1) * LANES <= columns)
                AT(sum + j * LANES) += s[i][j];
            else
                for (int e = j * LANES; e < columns; e++)
                    sum[e] += s[i][j][e % LANES];
}

/* The products of one head's q and k on rows low .. high, so few and narrow that they are at most 128 pixels. */
static void gram_head(const item *it, const op *o, int head, int low, int high, int left, int right, float *sums)
{
    int d = o->channels / o->mode, e = o->inputs, pixels = right - left;
    float turned[PIXELS * COLUMNS];
    memset(turned, 0, sizeof turned);
    for (int e0 = 0; e0 < e; e0 += COLUMNS) {
        int columns = least(COLUMNS, e - e0);
        for (int r = low; r < high; r++)
            transpose(row_of(it, o->b, o->b_at + head * e + e0, r) + left - it->from, pitch_of(it, o->b), columns, pixels,
                      turned + (ptrdiff_t)(r - low) * pixels * COLUMNS, COLUMNS);
        for (int i = 0; i < d; i += 4) {
            const float *q[PIXELS];
            for (int r = low; r < high; r++)
                q[r - low] = row_of(it, o->a, o->a_at + head * d + i, r) + left - it->from;
            for (int first = 0; first < columns; first += TURN)
                gram_four(q, pitch_of(it, o->a), least(4, d - i), turned + first, high - low, pixels,
                          sums + (ptrdiff_t)i * e + e0 + first, e, columns - first);
        }
    }
}

/* tensor [item][head][d][e] += q k^T, over the columns and rows that are the item's own */
static void band_gram(const item *it, const op *o, int low, int high, float *sums)
{
    int wide = it->right - it->left, rows = most(1, PIXELS / wide), head = o->channels / o->mode * o->inputs;
    for (int r = low; r < high; r += rows)
        for (int left = it->left; left < it->right; left += PIXELS)
            for (int h = 0; h < o->mode; h++)
                gram_head(it, o, h, r, least(r + rows, high), left, least(left + PIXELS, it->right), sums + (ptrdiff_t)h * head);
}
