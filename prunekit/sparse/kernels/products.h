/* Products of sparse weights with dense maps, in single precision.
 *
 * One idea serves every layer. A block of the input is copied to a buffer that stays in the second-level cache, so that
 * a weight reads its inputs for 64 neighbouring outputs at one offset from the first output's place. For each output
 * channel, 64 sums stay in registers while the channel's non-zero weights go by: one broadcast, four multiply-adds.
 *
 * Letters: n images, g groups, k input channels and m output channels of a group, h w sizes, t outputs of a tile.
 */
#include "vectors.h"

/* sums[m][t] = bias[m] + sum of value[i] * block[offset[i] + t], for outputs m0 .. m1 */
static void tile(const sparse *w, const float *block, int m0, int m1, float *sums, ptrdiff_t pitch)
{
    for (int m = m0; m < m1; m++, sums += pitch) {
        vec sum[TILE / LANES];
        for (int t = 0; t < TILE / LANES; t++)
            sum[t] = SPREAD(w->bias ? w->bias[m] : 0.0f);
        for (int32_t i = w->rows[m]; i < w->rows[m + 1]; i++)
            for (int t = 0; t < TILE / LANES; t++)
                sum[t] += w->value[i] * READ(block + w->offset[i] + t * LANES);
        for (int t = 0; t < TILE / LANES; t++)
            AT(sums + t * LANES) = sum[t];
    }
}

typedef struct shape {
    int32_t images, groups, inputs, outputs; /* inputs and outputs of one group */
    int32_t height, width, out_height, out_width;
    int32_t stride_h, stride_w, pad_h, pad_w;
    int32_t band_rows, band_cols;     /* outputs that one block serves */
    int32_t block_rows, block_cols;   /* of one phase of one channel: every stride-th row and column */
} shape;

/* Copy what the outputs from row top, column left on need of one input channel: [phase h][phase w][row][column]. */
static void pack(const shape *s, const float *x, int top, int left, float *block)
{
    for (int ph = 0; ph < s->stride_h; ph++)
        for (int pw = 0; pw < s->stride_w; pw++)
            for (int r = 0; r < s->block_rows; r++, block += s->block_cols) {
                int y = (top + r) * s->stride_h + ph - s->pad_h;
                int from = left * s->stride_w + pw - s->pad_w;
                int low = from >= 0 ? 0 : (-from + s->stride_w - 1) / s->stride_w;
                int high = s->width > from ? (s->width - from + s->stride_w - 1) / s->stride_w : 0;
                low = least(low, s->block_cols);
                high = most(low, least(high, s->block_cols));
                if (y < 0 || y >= s->height)
                    low = high = s->block_cols;
                const float *row = x + (ptrdiff_t)y * s->width + from;
                memset(block, 0, low * sizeof(float));
                if (s->stride_w == 1)
                    memcpy(block + low, row + low, (high - low) * sizeof(float));
                else
                    for (int c = low; c < high; c++)
                        block[c] = row[(ptrdiff_t)c * s->stride_w];
                memset(block + high, 0, (s->block_cols - high) * sizeof(float));
            }
}

/* Write 64 sums, which run on from row to row of the block, to the rows of the output that they belong to. */
static void scatter(const shape *s, const float *sums, int at, int rows, int cols, float *y)
{
    int r = at / s->block_cols, c = at % s->block_cols;
    for (int t = 0; t < TILE && r < rows; r++, c = 0) {
        int here = least(TILE - t, s->block_cols - c);
        if (c < cols)
            memcpy(y + (ptrdiff_t)r * s->out_width + c, sums + t, least(here, cols - c) * sizeof(float));
        t += here;
    }
}

/* x [n][g * k][h][w], y [n][g * m][out h][out w]; scratch holds stride floats for each thread. */
void COPY(pk_conv)(const shape *s, const sparse *weights, const float *x, float *y, float *scratch, ptrdiff_t stride, int threads)
{
    int downs = (s->out_height + s->band_rows - 1) / s->band_rows;
    int acrosses = (s->out_width + s->band_cols - 1) / s->band_cols;
    ptrdiff_t plane = (ptrdiff_t)s->height * s->width, out_plane = (ptrdiff_t)s->out_height * s->out_width;
    ptrdiff_t channel = (ptrdiff_t)s->stride_h * s->stride_w * s->block_rows * s->block_cols;
    ptrdiff_t tasks = (ptrdiff_t)s->images * s->groups * downs * acrosses;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (ptrdiff_t task = 0; task < tasks; task++) {
        int left = task % acrosses * s->band_cols, top = task / acrosses % downs * s->band_rows;
        ptrdiff_t map = task / acrosses / downs; /* n * groups + g */
        const sparse *w = weights + map % s->groups;
        float *block = scratch + THREAD * stride, sums[16 * TILE];
        for (int k = 0; k < s->inputs; k++)
            pack(s, x + (map * s->inputs + k) * plane, top, left, block + k * channel);
        int rows = least(s->band_rows, s->out_height - top), cols = least(s->band_cols, s->out_width - left);
        int end = (rows - 1) * s->block_cols + cols;
        float *out = y + map * s->outputs * out_plane + (ptrdiff_t)top * s->out_width + left;
        for (int at = 0; at < end; at += TILE)
            for (int m = 0; m < s->outputs; m += 16) {
                int some = least(16, s->outputs - m);
                tile(w, block + at, m, m + some, sums, TILE);
                for (int i = 0; i < some; i++)
                    scatter(s, sums + i * TILE, at, rows, cols, out + (m + i) * out_plane);
            }
    }
}

/* One step of a transposition: exchange the off-diagonal parts of pairs of rows that are `step` apart. */
#define STEP(step, low, high)                                                                                          \
    for (int i = 0; i < LANES; i++)                                                                                    \
        if (!(i & step)) {                                                                                             \
            vec p = r[i], q = r[i + step];                                                                             \
            r[i] = PICK(p, q, low);                                                                                    \
            r[i + step] = PICK(p, q, high);                                                                            \
        }
#define LIST(...) __VA_ARGS__

/* to[j * to_pitch + i] = from[i * from_pitch + j] for i, j below LANES */
static inline __attribute__((always_inline)) void turn(const float *from, ptrdiff_t from_pitch, float *to, ptrdiff_t to_pitch)
{
    vec r[LANES];
    for (int i = 0; i < LANES; i++)
        r[i] = READ(from + i * from_pitch);
#if LANES == 16
    STEP(8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
         LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    STEP(4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
         LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    STEP(2, LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
         LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    STEP(1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
         LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#elif LANES == 8
    STEP(4, LIST(0, 1, 2, 3, 8, 9, 10, 11), LIST(4, 5, 6, 7, 12, 13, 14, 15))
    STEP(2, LIST(0, 1, 8, 9, 4, 5, 12, 13), LIST(2, 3, 10, 11, 6, 7, 14, 15))
    STEP(1, LIST(0, 8, 2, 10, 4, 12, 6, 14), LIST(1, 9, 3, 11, 5, 13, 7, 15))
#else
    STEP(2, LIST(0, 1, 4, 5), LIST(2, 3, 6, 7))
    STEP(1, LIST(0, 4, 2, 6), LIST(1, 5, 3, 7))
#endif
    for (int i = 0; i < LANES; i++)
        AT(to + i * to_pitch) = r[i];
}

/* to[j * to_pitch + i] = from[i * from_pitch + j] for i below rows, j below cols */
static void transpose(const float *from, ptrdiff_t from_pitch, int rows, int cols, float *to, ptrdiff_t to_pitch)
{
    for (int i = 0; i < rows; i += LANES)
        for (int j = 0; j < cols; j += LANES)
            if (i + LANES <= rows && j + LANES <= cols)
                turn(from + i * from_pitch + j, from_pitch, to + j * to_pitch + i, to_pitch);
            else
                for (int a = i; a < least(i + LANES, rows); a++)
                    for (int b = j; b < least(j + LANES, cols); b++)
                        to[b * to_pitch + a] = from[a * from_pitch + b];
}

/* x [tokens][inputs], y [tokens][outputs]: the same product where the channels lie side by side. */
void COPY(pk_linear)(ptrdiff_t tokens, int inputs, int outputs, const sparse *w, const float *x, float *y, float *scratch,
               ptrdiff_t stride, int threads)
{
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (ptrdiff_t t = 0; t < tokens; t += TILE) {
        int here = tokens - t < TILE ? (int)(tokens - t) : TILE;
        float *block = scratch + THREAD * stride, sums[16 * TILE];
        transpose(x + t * inputs, inputs, here, inputs, block, TILE);
        for (int m = 0; m < outputs; m += 16) {
            int some = least(16, outputs - m);
            tile(w, block, m, m + some, sums, TILE);
            transpose(sums, TILE, some, here, y + t * outputs + m, outputs);
        }
    }
}
