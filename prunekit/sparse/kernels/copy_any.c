/* For any machine: AArch64 has vectors of its own, plain x86-64 four floats at a time. */
#define COPY(name) name##_any
#include "copy.h"
