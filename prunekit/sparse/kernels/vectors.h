/* LANES floats at a time, in the vector extensions of GCC and Clang: as many as a register of the machine has. Compilers
 * make bad code of vectors that are wider than its registers.
 */
#ifndef PRUNEKIT_VECTORS_H
#define PRUNEKIT_VECTORS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef _OPENMP
#define THREAD omp_get_thread_num()
#else
#define THREAD 0
#endif
#ifndef LANES
#define LANES 4
#endif
#define UNIT 16 /* floats: rows are whole units on every machine */
#define TILE 64
#define VECTORS (UNIT / LANES) /* of a unit */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t lanes __attribute__((vector_size(4 * LANES)));

#if defined(__clang__) || __GNUC__ >= 12
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (lanes){__VA_ARGS__})
#endif

/* The lanes before and after: of two neighbouring vectors, all but the last of the second, all but the first of the first */
#if LANES == 16
#define LEFT(a, b) PICK(a, b, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30)
#define RIGHT(a, b) PICK(a, b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
#elif LANES == 8
#define LEFT(a, b) PICK(a, b, 7, 8, 9, 10, 11, 12, 13, 14)
#define RIGHT(a, b) PICK(a, b, 1, 2, 3, 4, 5, 6, 7, 8)
#else
#define LEFT(a, b) PICK(a, b, 3, 4, 5, 6)
#define RIGHT(a, b) PICK(a, b, 1, 2, 3, 4)
#endif

#define AT(p) (*(vec *)(p))
#define READ(p) (*(const vec *)(p))

/* One number in every lane */
#define SPREAD(s) ((vec){0} + (s))

/* mask is all ones or all zeros in each lane */
#define CHOOSE(mask, a, b) (vec)(((lanes)(a) & (mask)) | ((lanes)(b) & ~(mask)))

static inline int least(int a, int b) { return a < b ? a : b; }
static inline int most(int a, int b) { return a > b ? a : b; }

/* The weights of one group: row m has the non-zeros rows[m] .. rows[m + 1]. */
typedef struct {
    const int32_t *rows, *offset;
    const float *value, *bias;
} sparse;

#endif
