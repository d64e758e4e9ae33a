/* For x86-64 with AVX2 and fused multiply-adds. */
#ifdef __x86_64__
#define TARGET "arch=x86-64-v3"
#define LANES 8
#define COPY(name) name##_v3
#include "copy.h"
#endif
