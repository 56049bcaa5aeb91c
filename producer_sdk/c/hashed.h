/* A route with dimensions; for values that it does not know it asks the lane in Python. */

#ifndef HOTKEY_HASHED_H
#define HOTKEY_HASHED_H

#include "route.h"
#include "xxh64.h"

#define PACKED_MAX 512 /* bytes of one record's values; more are hashed in Python */
#define BUCKET_MAX 16

typedef struct {
    PyObject *name;
    PyObject *header;        /* NULL: no header carries it */
    long long width_seconds; /* 0: the record's time does not give it */
    long long bucket;        /* the last one, and its name */
    Py_ssize_t bucket_size;
    char bucket_name[BUCKET_MAX];
} Reader;

typedef struct {
    PyObject_HEAD
    Route route;
    Counts *counts;
    PyObject *pure;        /* the lane in Python: for values that this one does not know */
    PyObject *time_bucket; /* names a bucket */
    uint64_t seed;
    Py_ssize_t readers_count;
    Reader *readers;
} HashedLane;

typedef enum { FAILED = -1, UNKNOWN = 0, CHOSEN = 1 } Choice; /* UNKNOWN: Python knows */

typedef struct {
    unsigned char bytes[PACKED_MAX];
    Py_ssize_t size;
} Packed;

static Choice
pack(Packed *packed, const char *data, Py_ssize_t size)
{
    if (size > PACKED_MAX - 4 - packed->size) {
        return UNKNOWN;
    }
    unsigned char *to = packed->bytes + packed->size;
    to[0] = (unsigned char)size;
    to[1] = (unsigned char)(size >> 8);
    to[2] = to[3] = 0;
    memcpy(to + 4, data, (size_t)size);
    packed->size += 4 + size;
    return CHOSEN;
}

static Choice
pack_integer(Packed *packed, PyObject *value)
{
    char digits[24], *at = digits + sizeof digits;
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) {
        return UNKNOWN;
    }
    unsigned long long rest = number < 0 ? 0ULL - (unsigned long long)number : (unsigned long long)number;
    do {
        *--at = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (number < 0) {
        *--at = '-';
    }
    return pack(packed, at, digits + sizeof digits - at);
}

static Choice
pack_value(Packed *packed, PyObject *value)
{
    if (PyUnicode_CheckExact(value)) {
        Py_ssize_t size;
        const char *text = utf8_of(value, &size);
        if (text == NULL) {
            PyErr_Clear();
            return UNKNOWN;
        }
        return pack(packed, text, size);
    }
    if (PyBytes_CheckExact(value)) {
        return pack(packed, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
    }
    return PyLong_CheckExact(value) ? pack_integer(packed, value) : UNKNOWN;
}

/* What the caller's dict has under the name, borrowed; NULL where it has none. */
static Choice
given_value(PyObject *dimensions, PyObject *name, PyObject **value)
{
    PyObject *first;
    Py_ssize_t at = 0;
    if (PyDict_Next(dimensions, &at, &first, value) && first == name) { /* nearly always, and quicker found */
        return CHOSEN;
    }
    *value = PyDict_GetItemWithError(dimensions, name);
    return *value == NULL && PyErr_Occurred() ? FAILED : CHOSEN;
}

/* The value of a header, borrowed; NULL where there is none. Of several with one name the last counts. */
static Choice
header_of(PyObject *headers, PyObject *name, PyObject **value)
{
    if (headers == NULL || headers == Py_None) {
        return CHOSEN;
    }
    if (PyDict_CheckExact(headers)) {
        return given_value(headers, name, value);
    }
    if (!PyList_CheckExact(headers)) {
        return UNKNOWN;
    }
    for (Py_ssize_t index = PyList_GET_SIZE(headers) - 1; index >= 0; index--) {
        PyObject *pair = PyList_GET_ITEM(headers, index);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2
            || !PyUnicode_CheckExact(PyTuple_GET_ITEM(pair, 0))) {
            return UNKNOWN;
        }
        if (PyUnicode_Compare(PyTuple_GET_ITEM(pair, 0), name) == 0) {
            *value = PyTuple_GET_ITEM(pair, 1);
            return CHOSEN;
        }
    }
    return CHOSEN;
}

/* The record's time in unix milliseconds; now where it has none. */
static Choice
time_of(PyObject *timestamp, long long *milliseconds)
{
    *milliseconds = 0;
    if (timestamp != NULL) {
        int overflow = 0;
        if (!PyLong_CheckExact(timestamp)) {
            return UNKNOWN;
        }
        *milliseconds = PyLong_AsLongLongAndOverflow(timestamp, &overflow);
        if (overflow || *milliseconds < 0) {
            return UNKNOWN;
        }
    }
    if (*milliseconds == 0) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        *milliseconds = (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    }
    return CHOSEN;
}

static Choice
pack_bucket(HashedLane *self, Reader *reader, Packed *packed, PyObject *timestamp)
{
    long long milliseconds;
    if (time_of(timestamp, &milliseconds) != CHOSEN) {
        return UNKNOWN;
    }
    long long bucket = milliseconds / 1000 / reader->width_seconds;
    if (bucket != reader->bucket) { /* neighbours mostly share a bucket */
        PyObject *name = PyObject_CallFunction(self->time_bucket, "LL", milliseconds, reader->width_seconds);
        Py_ssize_t size;
        const char *text = name == NULL ? NULL : PyUnicode_AsUTF8AndSize(name, &size);
        if (text == NULL || size > BUCKET_MAX) {
            Py_XDECREF(name);
            if (text == NULL && !PyErr_ExceptionMatches(PyExc_OverflowError)) {
                return FAILED;
            }
            PyErr_Clear(); /* beyond the calendar */
            return UNKNOWN;
        }
        memcpy(reader->bucket_name, text, (size_t)size);
        reader->bucket_size = size;
        reader->bucket = bucket;
        Py_DECREF(name);
    }
    return pack(packed, reader->bucket_name, reader->bucket_size);
}

static Choice
pack_dimension(HashedLane *self, Reader *reader, Packed *packed, PyObject *dimensions, PyObject *headers,
               PyObject *timestamp, int *missing)
{
    PyObject *value = NULL;
    if (dimensions != NULL && dimensions != Py_None) {
        if (!PyDict_CheckExact(dimensions)) {
            return UNKNOWN;
        }
        if (given_value(dimensions, reader->name, &value) == FAILED) {
            return FAILED;
        }
    }
    if (value == NULL || value == Py_None) {
        value = NULL;
        if (reader->header != NULL) {
            Choice found = header_of(headers, reader->header, &value);
            if (found != CHOSEN) {
                return found;
            }
        }
        else if (reader->width_seconds) {
            return pack_bucket(self, reader, packed, timestamp);
        }
    }
    if (value == NULL || value == Py_None) {
        *missing = 1;
        return pack(packed, "", 0);
    }
    return pack_value(packed, value);
}

static Choice
hashed_choose(HashedLane *self, PyObject *dimensions, PyObject *headers, PyObject *timestamp, uint64_t *slot)
{
    Packed packed;
    int missing = 0;
    packed.size = 0;
    for (Py_ssize_t index = 0; index < self->readers_count; index++) {
        Choice found =
            pack_dimension(self, &self->readers[index], &packed, dimensions, headers, timestamp, &missing);
        if (found != CHOSEN) {
            return found;
        }
    }
    self->counts->missing_dimension += missing;
    *slot = xxh64(packed.bytes, (size_t)packed.size, self->seed);
    return CHOSEN;
}

static PyObject *
hashed_choose_method(HashedLane *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t slot;
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "choose() takes value, dimensions, headers and timestamp");
        return NULL;
    }
    switch (hashed_choose(self, args[1], args[2], args[3], &slot)) {
    case CHOSEN:
        return destination_at(&self->route, slot);
    case UNKNOWN:
        return PyObject_CallMethod(self->pure, "choose", "OOOO", args[0], args[1], args[2], args[3]);
    default:
        return NULL;
    }
}

static int
reader_of(Reader *reader, PyObject *dimension)
{
    reader->bucket = -1;
    reader->name = PyObject_GetAttrString(dimension, "name");
    if (reader->name == NULL) {
        return -1;
    }
    PyUnicode_InternInPlace(&reader->name); /* a caller's literal is then the same object */
    reader->header = PyObject_GetAttrString(dimension, "header");
    PyObject *width = PyObject_GetAttrString(dimension, "time_bucket_seconds");
    if (reader->header == NULL || width == NULL) {
        Py_XDECREF(width);
        return -1;
    }
    if (reader->header == Py_None) {
        Py_CLEAR(reader->header);
    }
    reader->width_seconds = width == Py_None ? 0 : PyLong_AsLongLong(width);
    Py_DECREF(width);
    return reader->width_seconds < 0 ? -1 : 0;
}

static PyObject *
hashed_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *destinations, *dimensions, *counts, *pure, *time_bucket;
    unsigned long long seed;
    if (!PyArg_ParseTuple(args, "O!KO!O!OO:HashedLane", &PyTuple_Type, &destinations, &seed, &PyTuple_Type,
                          &dimensions, &CountsType, &counts, &pure, &time_bucket)) {
        return NULL;
    }
    HashedLane *self = (HashedLane *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->seed = seed;
    self->counts = (Counts *)Py_NewRef(counts);
    self->pure = Py_NewRef(pure);
    self->time_bucket = Py_NewRef(time_bucket);
    if (route_of(&self->route, destinations) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(dimensions);
    self->readers = PyMem_Calloc((size_t)count + 1, sizeof(Reader));
    if (self->readers == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    while (self->readers_count < count) {
        Py_ssize_t index = self->readers_count++; /* counted first: what it holds is then given back */
        if (reader_of(&self->readers[index], PyTuple_GET_ITEM(dimensions, index)) < 0) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static int
hashed_traverse(HashedLane *self, visitproc visit, void *arg)
{
    Py_VISIT(self->route.destinations);
    Py_VISIT(self->counts);
    Py_VISIT(self->pure);
    Py_VISIT(self->time_bucket);
    return 0;
}

static void
hashed_dealloc(HashedLane *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->pure);
    Py_CLEAR(self->time_bucket);
    for (Py_ssize_t index = 0; index < self->readers_count; index++) {
        Py_CLEAR(self->readers[index].name);
        Py_CLEAR(self->readers[index].header);
    }
    PyMem_Free(self->readers);
    route_clear(&self->route);
    Py_CLEAR(self->counts);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *
hashed_refused(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_NONE;
}

static PyMethodDef hashed_methods[] = {
    {"choose", (PyCFunction)(void (*)(void))hashed_choose_method, METH_FASTCALL,
     "choose($self, value, dimensions, headers, timestamp, /)\n--\n\nThe record's destination."},
    {"refused", (PyCFunction)hashed_refused, METH_NOARGS,
     "refused($self, /)\n--\n\nNothing: here the values choose the shard, not what it has had."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject HashedLaneType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "hotkey_sdk._fast.HashedLane",
    .tp_doc = "A route with dimensions: the same values always take the same shard.",
    .tp_basicsize = sizeof(HashedLane),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = hashed_new,
    .tp_dealloc = (destructor)hashed_dealloc,
    .tp_traverse = (traverseproc)hashed_traverse,
    .tp_methods = hashed_methods,
};

#endif
