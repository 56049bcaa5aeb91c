/* A route without an order: one shard for as long as a batch, then the one furthest behind; as in _lanes.py. */

#ifndef HOTKEY_STICKY_H
#define HOTKEY_STICKY_H

#include "route.h"

#include <limits.h>
#include <math.h>

#ifdef CLOCK_MONOTONIC_COARSE
#define CLOCK_OF_BATCHES CLOCK_MONOTONIC_COARSE /* a tick off, 1 to 10 ms, at a quarter of the cost */
#else
#define CLOCK_OF_BATCHES CLOCK_MONOTONIC
#endif

typedef struct {
    uint64_t slot;           /* one of the shard's */
    long long slots, behind; /* behind: in records times all slots; the sum over all shards is 0 */
} Share;

typedef struct {
    PyObject_HEAD
    Route route;
    Counts *counts;
    PyObject *clock; /* NULL: the machine's own */
    double seconds, until;
    long long records, records_left, size_bytes, bytes_left;
    Share *shares, *current; /* in the order in which equals have their turn */
    Py_ssize_t shards;
} StickyLane;

static int
sticky_now(StickyLane *self, double *now)
{
    if (self->clock != NULL) {
        PyObject *said = PyObject_CallNoArgs(self->clock);
        *now = said == NULL ? -1.0 : PyFloat_AsDouble(said);
        Py_XDECREF(said);
        return *now == -1.0 && PyErr_Occurred() ? -1 : 0;
    }
    struct timespec time;
    clock_gettime(CLOCK_OF_BATCHES, &time);
    *now = (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
    return 0;
}

static void
sticky_next(StickyLane *self, double now)
{
    long long sent = self->records - self->records_left, most = LLONG_MIN;
    Share *next = self->shares, *end = self->shares + self->shards;
    self->current->behind -= (long long)(self->route.mask + 1) * sent;
    for (Share *share = self->shares; share < end; share++) {
        long long behind = share->behind + share->slots * sent;
        share->behind = behind;
        if (behind > most) {
            most = behind;
            next = share;
        }
    }
    self->current = next;
    self->until = now + self->seconds;
    self->records_left = self->records;
    self->bytes_left = self->size_bytes;
}

static Choice
sticky_choose(StickyLane *self, PyObject *value, uint64_t *slot)
{
    double now;
    Py_ssize_t size = 0;
    if (sticky_now(self, &now) < 0) {
        return FAILED;
    }
    if (value != NULL && value != Py_None) {
        size = PyBytes_CheckExact(value) ? PyBytes_GET_SIZE(value) : PyObject_Size(value);
        if (size < 0) {
            return FAILED;
        }
    }
    if (now >= self->until || self->records_left <= 0 || self->bytes_left <= 0) {
        sticky_next(self, now);
    }
    self->records_left--;
    self->bytes_left -= size;
    *slot = self->current->slot;
    return CHOSEN;
}

/* The record chosen for last was not taken: a caller who waits for room offers it again and again. */
static PyObject *
sticky_refused(StickyLane *self, PyObject *Py_UNUSED(ignored))
{
    self->records_left++;
    Py_RETURN_NONE;
}

static PyObject *
sticky_choose_method(StickyLane *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t slot;
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "choose() takes value, dimensions, headers and timestamp");
        return NULL;
    }
    return sticky_choose(self, args[0], &slot) == CHOSEN ? destination_at(&self->route, slot) : NULL;
}

static int
sticky_share(StickyLane *self, PyObject *shares)
{
    self->shards = PyTuple_GET_SIZE(shares);
    self->current = self->shares = PyMem_Calloc((size_t)self->shards + 1, sizeof(Share));
    if (self->shares == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t at = 0; at < self->shards; at++) {
        unsigned long long slot;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(shares, at), "KL:share", &slot, &self->shares[at].slots)) {
            return -1;
        }
        self->shares[at].slot = slot;
    }
    return 0;
}

static PyObject *
sticky_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *destinations, *counts, *shares, *clock;
    double seconds;
    long long records, size_bytes;
    if (!PyArg_ParseTuple(args, "O!O!dLLO!O:StickyLane", &PyTuple_Type, &destinations, &CountsType, &counts,
                          &seconds, &records, &size_bytes, &PyTuple_Type, &shares, &clock)) {
        return NULL;
    }
    StickyLane *self = (StickyLane *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->counts = (Counts *)Py_NewRef(counts);
    self->clock = clock == Py_None ? NULL : Py_NewRef(clock);
    self->seconds = seconds;
    self->until = -HUGE_VAL;
    self->records = self->records_left = records;
    self->size_bytes = self->bytes_left = size_bytes;
    if (route_of(&self->route, destinations) < 0 || sticky_share(self, shares) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
sticky_traverse(StickyLane *self, visitproc visit, void *arg)
{
    Py_VISIT(self->route.destinations);
    Py_VISIT(self->counts);
    Py_VISIT(self->clock);
    return 0;
}

static void
sticky_dealloc(StickyLane *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->clock);
    PyMem_Free(self->shares);
    route_clear(&self->route);
    Py_CLEAR(self->counts);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef sticky_methods[] = {
    {"choose", (PyCFunction)(void (*)(void))sticky_choose_method, METH_FASTCALL,
     "choose($self, value, dimensions, headers, timestamp, /)\n--\n\nThe current batch's destination."},
    {"refused", (PyCFunction)sticky_refused, METH_NOARGS,
     "refused($self, /)\n--\n\nThe Kafka client did not take the record that was chosen for last."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject StickyLaneType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "hotkey_sdk._fast.StickyLane",
    .tp_doc = "A route without an order: one shard for a batch.",
    .tp_basicsize = sizeof(StickyLane),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = sticky_new,
    .tp_dealloc = (destructor)sticky_dealloc,
    .tp_traverse = (traverseproc)sticky_traverse,
    .tp_methods = sticky_methods,
};

#endif
