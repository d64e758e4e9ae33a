/* A depthwise 3x3 convolution for training; or, of twice the channels, one and then GELU of the first half times the second:
 * what lies between the two pointwise convolutions of a gated feed-forward layer. Both ways read the map once and write the
 * result once; what the convolution makes is computed again on the way back, which is cheaper than to have kept it.
 *
 * A map is [images][height][width][halves][channels], the result has one half. A task is a block of channels of an image:
 * a few rows of it, with a margin of zeros, stay in the cache. Sums over pixels are taken in one order, whatever the number
 * of threads.
 */
#ifndef PRUNEKIT_DEPTHWISE_H
#define PRUNEKIT_DEPTHWISE_H
#include "few.h"
#include "vectors.h"

#define BLOCK 64
#define TAPS 9
#define PIXEL (BLOCK / LANES) /* vectors */

typedef struct depthwise {
    int32_t images, height, width, halves, channels;
    const float *map, *taps; /* [halves][channels][3][3] */
    float *out;              /* forward: the result */
    const float *slope;      /* backward: of the result */
    float *map_slope;        /* backward */
    float *tap_slopes;       /* backward: [images][halves][9][channels] */
} depthwise;

/* Rows y - 1, y, y + 1 of a block of a map: of width + 2 pixels, the first and the last of them zero. */
typedef struct window {
    float *row[3];
} window;

/* Of task t: an image, and its channels from .. from + count */
typedef struct part {
    int image, from, count;
} part;

static inline part part_of(const depthwise *s, int t)
{
    int blocks = (s->channels + BLOCK - 1) / BLOCK, from = t % blocks * BLOCK;
    return (part){t / blocks, from, least(BLOCK, s->channels - from)};
}

static inline ptrdiff_t place(const depthwise *s, part p, int y)
{
    return ((ptrdiff_t)p.image * s->height + y) * s->width * s->channels + p.from;
}

static inline ptrdiff_t in_map(const depthwise *s, part p, int half, int y)
{
    return (((ptrdiff_t)p.image * s->height + y) * s->width * s->halves + half) * s->channels + p.from;
}

/* Row `number` of a task's scratch: whole vectors, so that no access to it crosses lines of the cache. */
static inline float *scratch_row(const depthwise *s, float *scratch, int number)
{
    return scratch + (ptrdiff_t)number * (s->width + 2) * BLOCK;
}

static inline window window_at(const depthwise *s, float *scratch, int number)
{
    float *row = scratch_row(s, scratch, number);
    memset(row, 0, 3 * (s->width + 2) * BLOCK * sizeof(float));
    return (window){{row, scratch_row(s, scratch, number + 1), scratch_row(s, scratch, number + 2)}};
}

/* The rows move up, and the last becomes what is there, at each pixel a step further, or zeros where nothing is. */
static void move(const depthwise *s, part p, window *r, const float *from, ptrdiff_t step)
{
    float *row = r->row[0], *to = row + BLOCK;
    r->row[0] = r->row[1], r->row[1] = r->row[2], r->row[2] = row;
    if (!from)
        memset(to, 0, s->width * BLOCK * sizeof(float));
    else if (p.count == BLOCK)
        for (int x = 0; x < s->width; x++, from += step, to += BLOCK)
            memcpy(to, from, BLOCK * sizeof(float));
    else
        for (int x = 0; x < s->width; x++, from += step, to += BLOCK)
            memcpy(to, from, p.count * sizeof(float));
}

static void move_map(const depthwise *s, part p, window *r, int half, int y)
{
    move(s, p, r, y < s->height ? s->map + in_map(s, p, half, y) : NULL, s->halves * s->channels);
}

/* [channels][9] -> [9][BLOCK] */
static void taps_of(const depthwise *s, part p, int half, float *to)
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

#define LOAD_TAPS(name, from)                                                                                          \
    vec name[TAPS];                                                                                                    \
    for (int t = 0; t < TAPS; t++)                                                                                     \
    name[t] = READ(from + t * BLOCK + v * LANES)

/* Vector v of a row's results, or of its map's slopes where the convolution goes back */
static inline __attribute__((always_inline)) void convolved_row(const depthwise *s, const window *r, const float *taps,
                                                                float *made, int v, int back)
{
    LOAD_TAPS(tap, taps);
    for (int x = 0; x < s->width; x++)
        AT(made + x * BLOCK + v * LANES) = convolved(r, tap, x, v, back);
}

static void gated_row(const depthwise *s, const window *r, const float *gate_taps, const float *value_taps, float *made,
                      int v)
{
    LOAD_TAPS(gate, gate_taps);
    LOAD_TAPS(value, value_taps);
    for (int x = 0; x < s->width; x++)
        AT(made + x * BLOCK + v * LANES) = gelu(convolved(&r[0], gate, x, v, 0)) * convolved(&r[1], value, x, v, 0);
}

/* A row goes where it belongs, all channels of a pixel at once: they lie on no borders of the cache's lines. */
static void put_row(const depthwise *s, part p, const float *made, float *to, ptrdiff_t step)
{
    for (int x = 0; x < s->width; x++, to += step, made += BLOCK)
        if (p.count == BLOCK)
            memcpy(to, made, BLOCK * sizeof(float));
        else
            memcpy(to, made, p.count * sizeof(float));
}

static void forward(const depthwise *s, part p, float *scratch)
{
    float taps[2][TAPS * BLOCK], *made = scratch_row(s, scratch, 6);
    int vectors = (p.count + LANES - 1) / LANES;
    window rows[2];
    for (int half = 0; half < s->halves; half++) {
        rows[half] = window_at(s, scratch, 3 * half);
        taps_of(s, p, half, taps[half]), move_map(s, p, &rows[half], half, 0);
    }
    for (int y = 0; y < s->height; y++) {
        for (int half = 0; half < s->halves; half++)
            move_map(s, p, &rows[half], half, y + 1);
        for (int v = 0; v < vectors; v++)
            if (s->halves == 2)
                gated_row(s, rows, taps[0], taps[1], made, v);
            else
                convolved_row(s, rows, taps[0], made, v, 0);
        put_row(s, p, made, s->out + place(s, p, y), s->channels);
    }
}

/* What GELU makes of x, and how steep it is there */
static inline __attribute__((always_inline)) vec gelu_and_slope(vec x, vec *slope)
{
    vec share = normal(x);
    *slope = share + x * exponential(x * x * -0.5f) * 0.398942280f;
    return x * share;
}

/* One row of slopes of both convolutions' results, from those of the product, which lie in place of the second; vector v. */
static void slopes_row(const depthwise *s, const window *r, const float *gate_taps, const float *value_taps,
                       float *gate_slopes, float *value_slopes, int v)
{
    LOAD_TAPS(gate, gate_taps);
    LOAD_TAPS(value, value_taps);
    for (int x = 0; x < s->width; x++) {
        ptrdiff_t at = (x + 1) * BLOCK + v * LANES;
        vec slope = READ(value_slopes + at), steep, y_gate = gelu_and_slope(convolved(&r[0], gate, x, v, 0), &steep);
        AT(gate_slopes + at) = slope * convolved(&r[1], value, x, v, 0) * steep;
        AT(value_slopes + at) = slope * y_gate;
    }
}

/* sums[tap] += slope of the row's results times what the tap saw; vector v. The row's own sum is made first. */
static void tap_row(const depthwise *s, const window *r, const float *slopes, float *sums, int v)
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

static void backward(const depthwise *s, part p, float *scratch)
{
    float taps[2][TAPS * BLOCK], sums[2][TAPS * BLOCK] = {{0}}, *made = scratch_row(s, scratch, 12);
    int vectors = (p.count + LANES - 1) / LANES, last = s->halves - 1;
    window rows[2], slopes[2];
    for (int half = 0; half <= last; half++) {
        rows[half] = window_at(s, scratch, 3 * half), slopes[half] = window_at(s, scratch, 6 + 3 * half);
        taps_of(s, p, half, taps[half]), move_map(s, p, &rows[half], half, 0);
    }
    for (int y = 0; y <= s->height; y++) { /* slopes of row y, then of the map's row before it */
        const float *slope = y < s->height ? s->slope + place(s, p, y) : NULL;
        for (int half = 0; half <= last; half++) {
            move_map(s, p, &rows[half], half, y + 1);
            move(s, p, &slopes[half], half == last ? slope : NULL, s->channels);
        }
        for (int v = 0; v < vectors && slope && last; v++)
            slopes_row(s, rows, taps[0], taps[1], slopes[0].row[2], slopes[1].row[2], v);
        for (int half = 0; half <= last; half++) {
            for (int v = 0; v < vectors; v++) {
                if (slope)
                    tap_row(s, &rows[half], slopes[half].row[2], sums[half], v);
                if (y)
                    convolved_row(s, &slopes[half], taps[half], made, v, 1);
            }
            if (y)
                put_row(s, p, made, s->map_slope + in_map(s, p, half, y - 1), s->halves * s->channels);
        }
    }
    for (int t = 0; t < s->halves * TAPS; t++)
        memcpy(s->tap_slopes + ((ptrdiff_t)p.image * s->halves * TAPS + t) * s->channels + p.from, sums[0] + t * BLOCK,
               p.count * sizeof(float));
}

/* scratch: for each thread 13 rows of (width + 2) * 64 floats */
void COPY(pk_depthwise)(const depthwise *s, int back, float *scratch, int threads)
{
    int tasks = s->images * ((s->channels + BLOCK - 1) / BLOCK);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int t = 0; t < tasks; t++)
        (back ? backward : forward)(s, part_of(s, t), scratch_row(s, scratch, 13 * THREAD));
    (void)threads;
}

#endif
