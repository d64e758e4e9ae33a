/* A chain of operators on maps that lives in a band of rows: what the interpreter and the operators share.
 *
 * Every map between two operators is a ring of rows, [row][channel][pitch], or a whole map in memory. Where a k x k kernel
 * reads it, there are zeros beside its rows: what lies around the image.
 */
#ifndef PRUNEKIT_BANDS_H
#define PRUNEKIT_BANDS_H
#include "vectors.h"

/* DEPTHWISE: with an activation other than NONE it multiplies the first half, activated, by the second. */
enum { LOAD, STORE, NORM, SPARSE, DENSE, DEPTHWISE, GATE, ACTIVATE, ADD, AFFINE, GRAM, SUM };
enum { IDENTITY, RELU, GELU, NONE = -1 };

typedef struct {
    int32_t rows;       /* that the ring holds; 0 where it is not a ring but a whole map, `tensor` of the call */
    int32_t margin;     /* zeros before and after each row, and a row of zeros after all: what lies around the image */
    int32_t channels, tensor;
    int64_t at;         /* floats from the start of the scratch memory, or of an image in the tensor */
    int64_t image, row, pitch; /* floats from image to image, row to row, channel to channel */
} ring;

typedef struct {
    int32_t kind, mode;      /* an activation; DENSE, GRAM: heads; SUM: 1 for squares */
    int32_t halo;            /* rows that must be done beyond those that the band is to finish */
    int32_t channels;        /* of the result */
    int32_t a, a_at, b, b_at, to, to_at; /* rings and first channels of operands and result; b: -1 for none */
    int32_t tensor, size;    /* STORE, LOAD, DENSE, AFFINE, sinks: which tensor of the call; floats of it for one image */
    int32_t kernel;          /* SPARSE, DEPTHWISE: rows and columns of the kernel */
    int32_t inputs;          /* SPARSE, DENSE: channels read, of one head */
    int32_t columns;         /* SPARSE: 1 where the non-zeros are in order of the kernel's column, for `band_three` */
    float epsilon;
    int64_t flat;            /* SPARSE by columns: room for its offsets, floats from the start of the scratch memory */
    int64_t row, plane;      /* LOAD, STORE: floats from row to row and from channel to channel of the tensor */
    const float *weight, *bias;
    sparse w;
} op;

typedef struct {
    int32_t images, height, width;
    int32_t tall, wide, edge; /* rows and columns of an item, and columns more that it reads on either side */
    int32_t band;             /* rows finished at a time */
    int32_t ops, rings;
    const op *op;
    const ring *ring;
    int64_t scratch; /* floats for each thread */
} program;

/* What one thread works on: rows top .. bottom and columns left .. right of an image, read from column `from` on. */
typedef struct {
    const program *p;
    float *scratch;
    float *const *tensors;
    int image, index; /* index: of the item among all images' */
    int top, bottom, left, right, from, until;
} item;

#define MARGIN UNIT
#define WIDEST 4096 /* columns of a row at most: an item's, and an edge on either side */

static inline float *row_of(const item *it, int index, int channel, int row)
{
    const ring *r = it->p->ring + index;
    ptrdiff_t at = r->at + channel * r->pitch;
    if (r->rows) {
        int slot = row < 0 || row >= it->p->height ? r->rows : row % r->rows;
        return it->scratch + at + r->margin + slot * r->row;
    }
    return it->tensors[r->tensor] + it->image * r->image + at + row * r->row + it->from;
}

static inline ptrdiff_t pitch_of(const item *it, int index) { return it->p->ring[index].pitch; }

/* Columns that are worked on, in whole units. */
static inline int span(const item *it) { return (it->until - it->from + UNIT - 1) / UNIT * UNIT; }

#endif
