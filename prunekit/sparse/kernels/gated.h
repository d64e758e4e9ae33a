/* A depthwise 3x3 convolution, then GELU of the first half of the channels times the second half: what lies between the
 * two pointwise convolutions of a gated feed-forward layer, for training. Both ways read the map once and write the result
 * once; what the convolution makes is computed again on the way back, which is cheaper than to have kept it.
 *
 * A map is [images][height][width][2][channels], the product has half of it. A task is a block of channels of an image: a few rows of it, with a margin
 * of zeros, stay in the cache. Sums over pixels are taken in one order, whatever the number of threads.
 */
#ifndef PRUNEKIT_GATED_H
#define PRUNEKIT_GATED_H
#include "few.h"
#include "vectors.h"

#define BLOCK 64
#define TAPS 9
#define PIXEL (BLOCK / LANES) /* vectors */

typedef struct gated {
    int32_t images, height, width, channels;
    const float *map, *taps; /* [2][channels][3][3] */
    float *out;              /* forward: the product */
    const float *slope;      /* backward: of the product */
    float *map_slope;        /* backward */
    float *tap_slopes;       /* backward: [images][2][9][channels] */
} gated;

/* Rows y - 1, y, y + 1 of a block of a map: of width + 2 pixels, the first and the last of them zero. */
typedef struct window {
    float *row[3];
} window;

/* Of task t: an image, and its channels from .. from + count */
typedef struct part {
    int image, from, count;
} part;

static inline part part_of(const gated *s, int t)
{
    int blocks = (s->channels + BLOCK - 1) / BLOCK, from = t % blocks * BLOCK;
    return (part){t / blocks, from, least(BLOCK, s->channels - from)};
}

static inline ptrdiff_t place(const gated *s, part p, int y)
{
    return ((ptrdiff_t)p.image * s->height + y) * s->width * s->channels + p.from;
}

static inline ptrdiff_t in_map(const gated *s, part p, int half, int y)
{
    return (((ptrdiff_t)p.image * s->height + y) * s->width * 2 + half) * s->channels + p.from;
}

static inline window window_at(const gated *s, float *scratch)
{
    ptrdiff_t row = (s->width + 2) * BLOCK;
    memset(scratch, 0, 3 * row * sizeof(float));
    return (window){{scratch, scratch + row, scratch + 2 * row}};
}

/* The rows move up, and the last becomes row y of the map, or zeros where it has none. */
static void move(const gated *s, part p, window *r, int half, int y)
{
    float *row = r->row[0], *to = row + BLOCK;
    r->row[0] = r->row[1], r->row[1] = r->row[2], r->row[2] = row;
    if (y >= s->height) {
        memset(to, 0, s->width * BLOCK * sizeof(float));
        return;
    }
    const float *from = s->map + in_map(s, p, half, y);
    if (p.count == BLOCK)
        for (int x = 0; x < s->width; x++, from += 2 * s->channels, to += BLOCK)
            memcpy(to, from, BLOCK * sizeof(float));
    else
        for (int x = 0; x < s->width; x++, from += 2 * s->channels, to += BLOCK)
            memcpy(to, from, p.count * sizeof(float));
}

/* [channels][9] -> [9][BLOCK] */
static void taps_of(const gated *s, part p, int half, float *to)
{
    memset(to, 0, TAPS * BLOCK * sizeof(float));
    for (int c = 0; c < p.count; c++)
        for (int t = 0; t < TAPS; t++)
            to[t * BLOCK + c] = s->taps[((ptrdiff_t)half * s->channels + p.from + c) * TAPS + t];
}

/* Vector v of pixel x, convolved; `back` is for slopes, which go the other way. */
static inline __attribute__((always_inline)) vec convolved(const window *r, const vec *taps, int x, int v, int back)
{
    vec sum = {0};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            sum += taps[back ? 8 - (3 * i + j) : 3 * i + j] * READ(r->row[i] + (x + j) * BLOCK + v * LANES);
    return sum;
}

static inline __attribute__((always_inline)) void put(float *to, vec x, int v, int count)
{
    if ((v + 1) * LANES <= count)
        AT(to + v * LANES) = x;
    else
        memcpy(to + v * LANES, &x, (count - v * LANES) * sizeof(float));
}

#define LOAD_TAPS(name, from)                                                                                          \
    vec name[TAPS];                                                                                                    \
    for (int t = 0; t < TAPS; t++)                                                                                     \
    name[t] = READ(from + t * BLOCK + v * LANES)

static void gated_forward(const gated *s, part p, float *scratch)
{
    float gate_taps[TAPS * BLOCK], value_taps[TAPS * BLOCK];
    window gates = window_at(s, scratch), values = window_at(s, scratch + 3 * (s->width + 2) * BLOCK);
    int vectors = (p.count + LANES - 1) / LANES;
    taps_of(s, p, 0, gate_taps), taps_of(s, p, 1, value_taps);
    move(s, p, &gates, 0, 0), move(s, p, &values, 1, 0);
    for (int y = 0; y < s->height; y++) {
        move(s, p, &gates, 0, y + 1), move(s, p, &values, 1, y + 1);
        for (int v = 0; v < vectors; v++) {
            LOAD_TAPS(gate, gate_taps);
            LOAD_TAPS(value, value_taps);
            float *out = s->out + place(s, p, y);
            for (int x = 0; x < s->width; x++, out += s->channels)
                put(out, gelu(convolved(&gates, gate, x, v, 0)) * convolved(&values, value, x, v, 0), v, p.count);
        }
    }
}

/* What GELU makes of x, and how steep it is there */
static inline __attribute__((always_inline)) vec gelu_and_slope(vec x, vec *slope)
{
    vec share = normal(x);
    *slope = share + x * exponential(x * x * -0.5f) * 0.398942280f;
    return x * share;
}

/* One row of slopes of both convolutions' results, from those of the product; vector v. */
static void slopes_row(const gated *s, part p, const window *gates, const window *values, const float *gate_taps,
                       const float *value_taps, window *gate_slopes, window *value_slopes, int y, int v)
{
    LOAD_TAPS(gate, gate_taps);
    LOAD_TAPS(value, value_taps);
    const float *slope = s->slope + place(s, p, y) + v * LANES;
    float *to_gate = gate_slopes->row[2] + BLOCK + v * LANES, *to_value = value_slopes->row[2] + BLOCK + v * LANES;
    int count = least(LANES, p.count - v * LANES);
    for (int x = 0; x < s->width; x++, slope += s->channels, to_gate += BLOCK, to_value += BLOCK) {
        vec g = {0}, steep, y_gate = gelu_and_slope(convolved(gates, gate, x, v, 0), &steep);
        if (count == LANES)
            g = READ(slope);
        else
            memcpy(&g, slope, count * sizeof(float));
        AT(to_gate) = g * convolved(values, value, x, v, 0) * steep;
        AT(to_value) = g * y_gate;
    }
}

/* sums[tap] += slope of the row's results times what the tap saw; vector v. The row's own sum is made first. */
static void tap_row(const gated *s, const window *r, const float *slopes, float *sums, int v)
{
    vec sum[TAPS] = {{0}};
    for (int x = 0; x < s->width; x++) {
        vec slope = READ(slopes + (x + 1) * BLOCK + v * LANES);
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++)
                sum[3 * i + j] += slope * READ(r->row[i] + (x + j) * BLOCK + v * LANES);
    }
    for (int t = 0; t < TAPS; t++)
        AT(sums + t * BLOCK + v * LANES) += sum[t];
}

static void back_row(const gated *s, part p, const window *slopes, const float *taps, float *to, int v)
{
    LOAD_TAPS(tap, taps);
    for (int x = 0; x < s->width; x++, to += 2 * s->channels)
        put(to, convolved(slopes, tap, x, v, 1), v, p.count);
}

static void gated_backward(const gated *s, part p, float *scratch)
{
    float gate_taps[TAPS * BLOCK], value_taps[TAPS * BLOCK], sums[2 * TAPS * BLOCK] = {0};
    ptrdiff_t size = 3 * (s->width + 2) * BLOCK;
    window gates = window_at(s, scratch), values = window_at(s, scratch + size);
    window gate_slopes = window_at(s, scratch + 2 * size), value_slopes = window_at(s, scratch + 3 * size);
    int vectors = (p.count + LANES - 1) / LANES;
    taps_of(s, p, 0, gate_taps), taps_of(s, p, 1, value_taps);
    move(s, p, &gates, 0, 0), move(s, p, &values, 1, 0);
    for (int y = 0; y <= s->height; y++) { /* slopes of row y, then of the maps' row before it */
        move(s, p, &gates, 0, y + 1), move(s, p, &values, 1, y + 1);
        move(s, p, &gate_slopes, 0, s->height), move(s, p, &value_slopes, 0, s->height); /* zeros, as yet */
        for (int v = 0; v < vectors; v++) {
            if (y < s->height) {
                slopes_row(s, p, &gates, &values, gate_taps, value_taps, &gate_slopes, &value_slopes, y, v);
                tap_row(s, &gates, gate_slopes.row[2], sums, v);
                tap_row(s, &values, value_slopes.row[2], sums + TAPS * BLOCK, v);
            }
            if (y) {
                back_row(s, p, &gate_slopes, gate_taps, s->map_slope + in_map(s, p, 0, y - 1), v);
                back_row(s, p, &value_slopes, value_taps, s->map_slope + in_map(s, p, 1, y - 1), v);
            }
        }
    }
    for (int t = 0; t < 2 * TAPS; t++)
        memcpy(s->tap_slopes + ((ptrdiff_t)p.image * 2 * TAPS + t) * s->channels + p.from, sums + t * BLOCK,
               p.count * sizeof(float));
}

/* scratch: for each thread 12 rows of (width + 2) * 64 floats */
void COPY(pk_gated)(const gated *s, int backward, float *scratch, int threads)
{
    int tasks = s->images * ((s->channels + BLOCK - 1) / BLOCK);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int t = 0; t < tasks; t++) {
        float *own = scratch + (ptrdiff_t)THREAD * 12 * (s->width + 2) * BLOCK;
        if (backward)
            gated_backward(s, part_of(s, t), own);
        else
            gated_forward(s, part_of(s, t), own);
    }
    (void)threads;
}

#endif
