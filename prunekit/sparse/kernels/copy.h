/* One copy of the kernels. A file that includes this says by COPY what they are called, and for which machine they are:
 * the vectors of GCC and Clang become what the target has, if it is known before anything else is. */
#ifdef _OPENMP
#include <omp.h>
#endif
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(TARGET) && defined(__clang__)
#define TELL(text) _Pragma(#text)
#define APPLY(target_) TELL(clang attribute push(__attribute__((target(target_))), apply_to = function))
APPLY(TARGET)
#elif defined(TARGET)
#define TELL(text) _Pragma(#text)
#define APPLY(target_) TELL(GCC target(target_))
APPLY(TARGET)
#endif

#include "bands_maps.h"
#include "products.h" /* bands_products.h needs its transpose */

#include "bands_products.h"

#include "bands_run.h"
#include "few.h"
#include "depthwise.h"
#include "groups.h"

#if defined(TARGET) && defined(__clang__)
#pragma clang attribute pop
#endif
