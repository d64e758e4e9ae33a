/* Products within a band: sparse and dense matrices with the channels of a pixel, and the products of maps. */
#include "bands.h"

/* y[m][t] = bias[m] + more[m][t] + sum over i, j of value[j] * x[i][offset[j] + t], for up to four units t that may
 * lie anywhere: x[i] has the rows that row i of the kernel looks at, and w->rows where its non-zeros of output m begin. */
static inline __attribute__((always_inline)) void sparse_some(int count, const sparse *w, int kernel, int outputs,
                                                              float *const (*x)[4], float *const *more, ptrdiff_t more_pitch,
                                                              float *const *y, ptrdiff_t pitch)
{
    const int32_t *rows = w->rows;
    for (ptrdiff_t m = 0; m < outputs; m++) {
        vec sum[4][VECTORS];
        for (int t = 0; t < count; t++)
            for (int v = 0; v < VECTORS; v++) {
                sum[t][v] = SPREAD(w->bias[m]);
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
                        sum[t][v] += w->value[j] * READ(from[t] + w->offset[j] + v * LANES);
        }
        for (int t = 0; t < count; t++)
            for (int v = 0; v < VECTORS; v++)
                AT(y[t] + m * pitch + v * LANES) = sum[t][v];
    }
}

#define SPARSE_SOME(name, count)                                                                                       \
    static void name(const sparse *w, int kernel, int outputs, float *const (*x)[4], float *const *more,               \
                     ptrdiff_t more_pitch, float *const *y, ptrdiff_t pitch)                                           \
    {                                                                                                                  \
        sparse_some(count, w, kernel, outputs, x, more, more_pitch, y, pitch);                                         \
    }
SPARSE_SOME(sparse_one, 1)
SPARSE_SOME(sparse_two, 2)
SPARSE_SOME(sparse_of_three, 3)
SPARSE_SOME(sparse_four, 4)

/* The same for a kernel of three rows and columns and units that are neighbours. The non-zeros of an output are in
 * order of the kernel's column, then row: what one column adds up is read as it lies, and shifted once. */
static void sparse_three(const sparse *w, int outputs, float *const (*x)[4], float *const *more, ptrdiff_t more_pitch,
                         float *y, ptrdiff_t pitch)
{
    enum { wide = TILE / LANES };
    const int32_t *rows = w->rows;
    for (ptrdiff_t m = 0; m < outputs; m++, y += pitch) {
        vec sum[3][wide + 1];
        for (int column = 0; column < 3; column++) {
            vec s[wide + 1] = {{0}};
            for (int i = 0; i < 3; i++, rows++) {
                const float *from = x[i][0] - (column == 0 ? LANES : 0);
                for (int32_t j = rows[0]; j < rows[1]; j++) {
                    const float *p = from + w->offset[j];
                    float value = w->value[j];
                    for (int v = 0; v < wide; v++)
                        s[v] += value * READ(p + v * LANES);
                    if (column != 1)
                        s[wide] += value * READ(p + TILE);
                }
            }
            for (int v = 0; v <= wide; v++)
                sum[column][v] = s[v];
        }
        for (int v = 0; v < wide; v++) {
            vec total = sum[1][v] + LEFT(sum[0][v], sum[0][v + 1]) + RIGHT(sum[2][v], sum[2][v + 1]);
            total += SPREAD(w->bias[m]);
            if (more)
                total += READ(more[v / VECTORS] + m * more_pitch + v % VECTORS * LANES);
            AT(y + v * LANES) = total;
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

/* y[m][t] = bias[m] + sum of weight[m][k] * x[k][t], DOWN rows m and ACROSS vectors t at a time */
static inline __attribute__((always_inline)) void dense_some(const float *weight, const float *bias, int inputs, int outputs,
                                                             const float *const *x, ptrdiff_t x_pitch, float *const *y,
                                                             ptrdiff_t pitch)
{
    for (int m = 0; m < outputs; m += DOWN) {
        const float *w[DOWN];
        vec sum[DOWN][ACROSS];
        for (int i = 0; i < DOWN; i++) {
            int row = least(m + i, outputs - 1);
            w[i] = weight + (ptrdiff_t)row * inputs;
            for (int j = 0; j < ACROSS; j++)
                sum[i][j] = SPREAD(bias ? bias[row] : 0.0f);
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

/* The same for four units */
static void dense_four(const float *weight, const float *bias, int inputs, int outputs, float *const *x,
                       ptrdiff_t x_pitch, float *const *y, ptrdiff_t pitch)
{
    for (int first = 0; first < 4 * VECTORS; first += ACROSS) {
        const float *from[ACROSS];
        float *to[ACROSS];
        for (int j = 0; j < ACROSS; j++) {
            int v = first + j;
            from[j] = x[v / VECTORS] + v % VECTORS * LANES, to[j] = y[v / VECTORS] + v % VECTORS * LANES;
        }
        dense_some(weight, bias, inputs, outputs, from, x_pitch, to, pitch);
    }
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
        if (o->mode)
            sparse_three(&o->w, o->channels, x, more, more_pitch, y[0], pitch);
        else
            (count - at == 1   ? sparse_one
             : count - at == 2 ? sparse_two
             : count - at == 3 ? sparse_of_three
                               : sparse_four)(&o->w, kernel, o->channels, x, more, more_pitch, y, pitch);
    }
}

/* A matrix of the layer's own, or one for each image and head out of a tensor of the call. */
static void band_dense(const item *it, const op *o, int low, int high)
{
    int count = (high - low) * (span(it) / UNIT), heads = o->mode, outputs = o->channels / heads;
    const float *weight = o->weight ? o->weight : it->tensors[o->tensor] + (ptrdiff_t)it->image * o->size;
    for (int at = 0; at < count; at += 4)
        for (int h = 0; h < heads; h++) {
            float *x[4], *y[4];
            four(it, o->a, o->a_at + h * o->inputs, low, at, count, x);
            four(it, o->to, o->to_at + h * outputs, low, at, count, y);
            dense_four(weight + (ptrdiff_t)h * outputs * o->inputs, o->bias, o->inputs, outputs, x,
                       pitch_of(it, o->a), y, pitch_of(it, o->to));
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
