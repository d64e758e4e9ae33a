/* For x86-64 with AVX-512. */
#ifdef __x86_64__
#define TARGET "arch=x86-64-v4"
#define LANES 16
#define COPY(name) name##_v4
#include "copy.h"
#endif
