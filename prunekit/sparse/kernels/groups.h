/* N:M masks: the best n of every m weights that lie `inner` apart.
 *
 * A piece that stays in the first-level cache is turned into integers that order as its scores do, cut weights below all;
 * then of each weight it is counted how many of its group go before it, for a vector of groups, or of columns, at a time.
 */
#include "vectors.h"

#define GROUP 16         /* weights of a group at most */
#define PIECE 1024       /* weights that are done at a time */
#define CUT (-INT32_MAX) /* below the order of any number */
typedef lanes loose __attribute__((aligned(4), may_alias));
typedef int32_t word __attribute__((may_alias));

/* Every second lane of two neighbouring vectors, from the first or from the second on */
#if LANES == 16
#define EVEN(a, b) PICK(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODD(a, b) PICK(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#elif LANES == 8
#define EVEN(a, b) PICK(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODD(a, b) PICK(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#else
#define EVEN(a, b) PICK(a, b, 0, 2, 4, 6)
#define ODD(a, b) PICK(a, b, 1, 3, 5, 7)
#endif

/* x = the order of each score, -0.0 as 0.0; return whether that of one that lives is no number. */
static int ordered(const word *restrict bits, const uint8_t *restrict alive, int32_t *restrict x, int count)
{
    int32_t nan = 0;
    for (int i = 0; i < count; i++) {
        int32_t sign = bits[i] >> 31, live = -(int32_t)(alive[i] != 0);
        nan |= live & -((bits[i] & INT32_MAX) > 0x7f800000);
        x[i] = (((bits[i] ^ (sign & INT32_MAX)) - sign) & live) | (CUT & ~live);
    }
    return nan & 1;
}

/* chosen[i] = -1 in the lanes where x[i] is among the n best of x[0] .. x[m - 1] that live; of equals the first goes
 * before. A comparison is -1 where it is true. */
static inline __attribute__((always_inline)) void choose(const lanes *x, int n, int m, lanes *chosen)
{
    for (int i = 0; i < m; i++)
        chosen[i] = (lanes){0} + (1 - m + i); /* all that follow go before it, until it wins */
    for (int i = 0; i < m; i++)
        for (int j = i + 1; j < m; j++) {
            lanes wins = x[i] >= x[j];
            chosen[i] -= wins;
            chosen[j] += wins;
        }
    for (int i = 0; i < m; i++)
        chosen[i] = (chosen[i] > -n) & (x[i] > CUT);
}

/* Groups of four neighbours: a lane is a group, and a word of `kept` its four flags, the first lowest. */
static void fours(const int32_t *x, int32_t *kept, int groups, int n)
{
    for (int g = 0; g < groups; g += LANES, x += 4 * LANES) {
        lanes v[4], y[4];
        for (int i = 0; i < 4; i++)
            v[i] = *(const loose *)(x + i * LANES);
        for (int i = 0; i < 4; i += 2)
            y[i / 2] = EVEN(v[i], v[i + 1]), y[2 + i / 2] = ODD(v[i], v[i + 1]);
        for (int i = 0; i < 4; i += 2)
            v[i / 2] = EVEN(y[i], y[i + 1]), v[2 + i / 2] = ODD(y[i], y[i + 1]);
        choose(v, n, 4, y);
        *(loose *)(kept + g) = (y[0] & 1) | (y[1] & 1 << 8) | (y[2] & 1 << 16) | (y[3] & 1 << 24);
    }
}

/* Rows of `inner` neighbours: written in order, so that lanes past the end of a row are overwritten by the next. */
static inline __attribute__((always_inline)) void rows(const int32_t *x, int32_t *kept, int groups, int inner, int n, int m)
{
    lanes v[GROUP], chosen[GROUP];
    for (int g = 0; g < groups; g++, x += m * inner, kept += m * inner)
        for (int c = 0; c < inner; c += LANES) {
            int at = most(0, least(c, inner - LANES));
            for (int i = 0; i < m; i++)
                v[i] = *(const loose *)(x + i * inner + at);
            choose(v, n, m, chosen);
            for (int i = 0; i < m; i++)
                *(loose *)(kept + i * inner + at) = chosen[i];
        }
}

/* Any other groups: LANES columns are brought together and taken back. */
static void columns(const int32_t *x, int32_t *kept, int groups, int inner, int n, int m)
{
    for (int first = 0; first < groups * inner; first += LANES) {
        lanes v[GROUP], chosen[GROUP];
        int at[LANES], some = least(LANES, groups * inner - first);
        for (int c = 0; c < LANES; c++) {
            at[c] = (first + c) / inner * m * inner + (first + c) % inner;
            for (int i = 0; i < m; i++)
                v[i][c] = c < some ? x[at[c] + i * inner] : CUT;
        }
        choose(v, n, m, chosen);
        for (int c = 0; c < some; c++)
            for (int i = 0; i < m; i++)
                kept[at[c] + i * inner] = chosen[i][c];
    }
}

/* The lowest bit of each */
static void as_flags(const int32_t *chosen, uint8_t *kept, int count)
{
    for (int i = 0; i < count; i++)
        kept[i] = chosen[i] & 1;
}

/* [groups][m][inner] weights in so many runs, `stride` apart. */
static int piece(const word *score, const uint8_t *alive, uint8_t *kept, int runs, ptrdiff_t stride, int groups,
                 int inner, int n, int m)
{
    int32_t x[PIECE + 4 * LANES], chosen[PIECE + LANES];
    int run = groups * m * inner / runs, nan = 0;
    for (int r = 0; r < runs; r++)
        nan |= ordered(score + r * stride, alive + r * stride, x + r * run, run);
    if (inner == 1 && m == 4) {
        fours(x, chosen, groups, n);
        memcpy(kept, chosen, run);
        return nan;
    }
    if (2 * inner <= LANES)
        columns(x, chosen, groups, inner, n, m);
    else if (m == 4)
        rows(x, chosen, groups, inner, n, 4);
    else
        rows(x, chosen, groups, inner, n, m);
    for (int r = 0; r < runs; r++)
        as_flags(chosen + r * run, kept + r * stride, run);
    return nan;
}

/* score, alive, kept [groups][m][inner]: of those that live the best n of every m, of equals the first; m is GROUP at
 * most, and the flags are bytes. Returns 1 where the score of one that lives is NaN, else 0. */
int COPY(pk_groups)(ptrdiff_t groups, ptrdiff_t inner, int n, int m, const float *score, const uint8_t *alive,
                    uint8_t *kept, int threads)
{
    if (!groups || !inner)
        return 0;
    int wide = m * inner <= PIECE ? (int)inner : PIECE / m, some = PIECE / (m * wide), nan = 0;
    ptrdiff_t across = (inner + wide - 1) / wide, tasks = (groups + some - 1) / some * across;
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads) reduction(| : nan)
    for (ptrdiff_t task = 0; task < tasks; task++) {
        ptrdiff_t g = task / across * some, c = task % across * wide, at = g * m * inner + c;
        int these = groups - g < some ? (int)(groups - g) : some, columns = inner - c < wide ? (int)(inner - c) : wide;
        nan |= piece((const word *)score + at, alive + at, kept + at, across > 1 ? m : 1, inner, these, columns, n, m);
    }
    return nan;
}
