/* The interpreter: runs a chain of operators down an image, a band of rows at a time, so that what lies between two
 * operators stays in the cache.
 *
 * An operator with halo h is h rows ahead of the band that is being finished: as many as the k x k kernels after it
 * will look at. Threads take items, pieces of the image; only the halo of a piece is computed twice.
 */
#include "bands.h"

/* A row of each channel */
static void copy_rows(const float *from, ptrdiff_t from_pitch, float *to, ptrdiff_t to_pitch, int channels, int count)
{
    for (int c = 0; c < channels; c++, from += from_pitch, to += to_pitch) {
        int i = 0;
        for (; i + LANES <= count; i += LANES)
            AT(to + i) = READ(from + i);
        for (; i < count; i++)
            to[i] = from[i];
    }
}

static void load(const item *it, const op *o, int low, int high)
{
    const float *x = it->tensors[o->tensor] + (ptrdiff_t)it->image * o->size + o->a_at * o->plane + it->from;
    for (int r = low; r < high; r++)
        copy_rows(x + r * o->row, o->plane, row_of(it, o->to, o->to_at, r), pitch_of(it, o->to), o->channels,
                  it->until - it->from);
}

static void store(const item *it, const op *o, int low, int high)
{
    float *y = it->tensors[o->tensor] + (ptrdiff_t)it->image * o->size + it->left;
    for (int r = low; r < high; r++)
        copy_rows(row_of(it, o->a, o->a_at, r) + it->left - it->from, pitch_of(it, o->a), y + r * o->row, o->plane,
                  o->channels, it->right - it->left);
}

/* Where an item gathers its part of a sum. */
static float *sums(const item *it, const op *o) { return it->tensors[o->tensor] + (ptrdiff_t)it->index * o->size; }

/* Columns beyond the image, up to a whole vector, are zeros to whoever looks at their neighbours or adds them up. */
static void clear_beyond(const item *it, const op *o, int low, int high)
{
    int used = it->until - it->from, beyond = span(it) - used;
    if (!beyond || o->kind == STORE || o->kind == GRAM || o->kind == SUM)
        return;
    for (int r = low; r < high; r++) {
        float *row = row_of(it, o->to, o->to_at, r) + used;
        for (int c = 0; c < o->channels; c++)
            memset(row + c * pitch_of(it, o->to), 0, beyond * sizeof(float));
    }
}

/* The rows that an operator has to do for the band that begins there: one with halo h begins h rows above the item and
 * ends h below it, as far as there is an image. */
static int first_row(const item *it, const op *o, int begin)
{
    return most(most(0, it->top - o->halo), begin + o->halo);
}

static int last_row(const item *it, const op *o, int begin)
{
    return least(least(it->p->height, it->bottom + o->halo), begin + it->p->band + o->halo);
}

static void apply(const item *it, const op *o, int low, int high)
{
    switch (o->kind) {
    case LOAD: load(it, o, low, high); break;
    case STORE: store(it, o, low, high); break;
    case NORM: band_norm(it, o, low, high); break;
    case SPARSE: (o->columns ? band_three : band_sparse)(it, o, low, high); break;
    case DENSE: band_dense(it, o, low, high); break;
    case DEPTHWISE: band_depthwise(it, o, low, high); break;
    case GRAM: band_gram(it, o, low, high, sums(it, o)); break;
    case SUM: band_sum(it, o, low, high, sums(it, o)); break;
    default: band_pointwise(it, o, low, high);
    }
    clear_beyond(it, o, low, high);
}

/* The zeros around a map; nobody writes there. */
static void clear_margins(const item *it)
{
    int wide = span(it);
    for (int i = 0; i < it->p->rings; i++) {
        const ring *r = it->p->ring + i;
        if (!r->rows || !r->margin)
            continue;
        float *rows = it->scratch + r->at;
        memset(rows, 0, r->margin * sizeof(float));
        for (ptrdiff_t k = 0; k < (ptrdiff_t)r->channels * r->rows; k++)
            memset(rows + r->margin + k * r->pitch + wide, 0, (r->pitch - wide) * sizeof(float));
        memset(rows + r->margin + r->rows * r->row, 0, r->row * sizeof(float));
    }
}

/* Operators that look ahead begin before the item's first band. */
static void run_item(const item *it)
{
    const program *p = it->p;
    int most_halo = 0;
    for (int i = 0; i < p->ops; i++)
        most_halo = most(most_halo, p->op[i].halo);
    int early = (2 * most_halo + p->band - 1) / p->band * p->band;
    clear_margins(it);
    for (int begin = it->top - early; begin < it->bottom; begin += p->band)
        for (int i = 0; i < p->ops; i++) {
            const op *o = p->op + i;
            int low = first_row(it, o, begin), high = last_row(it, o, begin);
            if (low < high)
                apply(it, o, low, high);
        }
}

/* Each item has left its part of a sum behind the one before it: add them up in their order, whatever the threads. */
static void add_parts(const program *p, float *const *tensors, int items)
{
    for (int i = 0; i < p->ops; i++) {
        const op *o = p->op + i;
        if (o->kind != GRAM && o->kind != SUM)
            continue;
        for (int n = 0; n < p->images; n++) {
            float *to = tensors[o->tensor] + (ptrdiff_t)n * items * o->size;
            for (int k = 1; k < items; k++)
                for (int j = 0; j < o->size; j++)
                    to[j] += to[(ptrdiff_t)k * o->size + j];
        }
    }
}

/* tensors: whole maps, [n][c][h][w] or [n][h][c][w], matrices and sums, as the operators number them. */
void COPY(pk_bands)(const program *p, float *const *tensors, float *scratch, int threads)
{
    int downs = (p->height + p->tall - 1) / p->tall, acrosses = (p->width + p->wide - 1) / p->wide;
    int items = downs * acrosses;
    (void)threads;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int task = 0; task < p->images * items; task++) {
        item it = {.p = p, .scratch = scratch + THREAD * p->scratch, .tensors = tensors};
        it.image = task / items, it.index = task;
        it.top = task % items / acrosses * p->tall, it.bottom = least(p->height, it.top + p->tall);
        it.left = task % acrosses * p->wide, it.right = least(p->width, it.left + p->wide);
        it.from = most(0, it.left - p->edge), it.until = least(p->width, it.right + p->edge);
        for (int i = 0; i < p->ops; i++)
            if (p->op[i].kind == GRAM || p->op[i].kind == SUM)
                memset(sums(&it, p->op + i), 0, p->op[i].size * sizeof(float));
        run_item(&it);
    }
    add_parts(p, tensors, items);
}
