/* The entry points: each picks the copy for the machine that it runs on. */
#include "bands.h"

#define COPIES(type, name, ...)                                                                                        \
    type name##_any(__VA_ARGS__);                                                                                      \
    type name##_v3(__VA_ARGS__);                                                                                       \
    type name##_v4(__VA_ARGS__);

typedef struct shape shape;
typedef struct few few;
typedef struct depthwise depthwise;
#define BANDS const program *p, float *const *tensors, float *scratch, int threads
#define CONV const shape *s, const sparse *weights, const float *x, float *y, float *scratch, ptrdiff_t stride, int threads
#define LINEAR                                                                                                         \
    ptrdiff_t tokens, int inputs, int outputs, const sparse *w, const float *x, float *y, float *scratch,              \
        ptrdiff_t stride, int threads
#define FEW const few *ops, int count, float *const *bases
#define DEPTHWISE_CALL const depthwise *s, int back, float *scratch, int threads
#define GROUPS                                                                                                         \
    ptrdiff_t groups, ptrdiff_t inner, int n, int m, const float *score, const uint8_t *alive, uint8_t *kept, int threads
COPIES(void, pk_bands, BANDS)
COPIES(void, pk_few, FEW)
COPIES(void, pk_conv, CONV)
COPIES(void, pk_linear, LINEAR)
COPIES(void, pk_depthwise, DEPTHWISE_CALL)
COPIES(int, pk_groups, GROUPS)

static int has(int machine)
{
#ifdef __x86_64__
    if (machine == 4)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    if (machine == 3)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#endif
    return machine == 1;
}

static int chosen = 1;

/* To be called before all else: run the copies for the best machine that this one can be, `best` at most; return which:
 * 4 or 3 for that level of x86-64, 1 for any machine. */
int pk_machine(int best)
{
    for (chosen = 4; chosen > 1 && (chosen > best || !has(chosen));)
        chosen--;
    return chosen;
}

#ifdef __x86_64__
#define BEST(name) (chosen == 4 ? name##_v4 : chosen == 3 ? name##_v3 : name##_any)
#else
#define BEST(name) name##_any
#endif

void pk_bands(BANDS) { BEST(pk_bands)(p, tensors, scratch, threads); }

void pk_few(FEW) { BEST(pk_few)(ops, count, bases); }

void pk_conv(CONV) { BEST(pk_conv)(s, weights, x, y, scratch, stride, threads); }

void pk_linear(LINEAR) { BEST(pk_linear)(tokens, inputs, outputs, w, x, y, scratch, stride, threads); }

void pk_depthwise(DEPTHWISE_CALL) { BEST(pk_depthwise)(s, back, scratch, threads); }

int pk_groups(GROUPS) { return BEST(pk_groups)(groups, inner, n, m, score, alive, kept, threads); }
