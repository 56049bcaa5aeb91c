/* The path of a record, compiled: what Producer.produce, HashedLane and StickyLane do in Python, for the
 * arguments that records have nearly always. For all others it calls the Python it was bound to, so there is
 * one place that knows the rare cases, and their errors are the same. docs/sdk-performance.md says why.
 *
 * It relies on the GIL: between looking a lane up and using it nothing else runs, or a reference is held.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdint.h>
#include <string.h>
#include <time.h>

#ifndef CLOCK_MONOTONIC
#error "no POSIX clock: the pure path is taken"
#endif
#ifdef Py_GIL_DISABLED
#error "there is no GIL to rely on: the pure path is taken"
#endif

/* ------------------------------------------------------------------ XXH64, from its specification */

#define PRIME_1 0x9E3779B185EBCA87ULL
#define PRIME_2 0xC2B2AE3D27D4EB4FULL
#define PRIME_3 0x165667B19E3779F9ULL
#define PRIME_4 0x85EBCA77C2B2AE63ULL
#define PRIME_5 0x27D4EB2F165667C5ULL

static inline uint64_t
rotated(uint64_t number, int bits)
{
    return number << bits | number >> (64 - bits);
}

static inline uint64_t
read_32(const unsigned char *at)
{
    return (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24;
}

static inline uint64_t
read_64(const unsigned char *at)
{
    return read_32(at) | read_32(at + 4) << 32;
}

static inline uint64_t
round_of(uint64_t sum, uint64_t lane)
{
    return rotated(sum + lane * PRIME_2, 31) * PRIME_1;
}

static inline uint64_t
merged(uint64_t sum, uint64_t lane)
{
    return (sum ^ round_of(0, lane)) * PRIME_1 + PRIME_4;
}

static uint64_t
stripes(const unsigned char **at, const unsigned char *end, uint64_t seed)
{
    uint64_t one = seed + PRIME_1 + PRIME_2, two = seed + PRIME_2, three = seed, four = seed - PRIME_1;
    for (; end - *at >= 32; *at += 32) {
        one = round_of(one, read_64(*at));
        two = round_of(two, read_64(*at + 8));
        three = round_of(three, read_64(*at + 16));
        four = round_of(four, read_64(*at + 24));
    }
    uint64_t sum = rotated(one, 1) + rotated(two, 7) + rotated(three, 12) + rotated(four, 18);
    return merged(merged(merged(merged(sum, one), two), three), four);
}

static uint64_t
xxh64(const unsigned char *at, size_t size, uint64_t seed)
{
    const unsigned char *end = at + size;
    uint64_t sum = size >= 32 ? stripes(&at, end, seed) : seed + PRIME_5;
    sum += size;
    for (; end - at >= 8; at += 8) {
        sum = rotated(sum ^ round_of(0, read_64(at)), 27) * PRIME_1 + PRIME_4;
    }
    if (end - at >= 4) {
        sum = rotated(sum ^ read_32(at) * PRIME_1, 23) * PRIME_2 + PRIME_3;
        at += 4;
    }
    for (; at < end; at++) {
        sum = rotated(sum ^ *at * PRIME_5, 11) * PRIME_1;
    }
    sum = (sum ^ sum >> 33) * PRIME_2;
    sum = (sum ^ sum >> 29) * PRIME_3;
    return sum ^ sum >> 32;
}

static PyObject *
module_xxh64(PyObject *Py_UNUSED(module), PyObject *args)
{
    const unsigned char *data;
    Py_ssize_t size;
    unsigned long long seed = 0;
    if (!PyArg_ParseTuple(args, "y#|K", &data, &size, &seed)) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(xxh64(data, (size_t)size, seed));
}

/* ------------------------------------------------------------------ Counts: as in _lanes, in C integers */

typedef struct {
    PyObject_HEAD
    long long routed, missing_dimension, fell_back, not_durable;
} Counts;

static PyMemberDef counts_members[] = {
    {"routed", T_LONGLONG, offsetof(Counts, routed), 0, NULL},
    {"missing_dimension", T_LONGLONG, offsetof(Counts, missing_dimension), 0, NULL},
    {"fell_back", T_LONGLONG, offsetof(Counts, fell_back), 0, NULL},
    {"not_durable", T_LONGLONG, offsetof(Counts, not_durable), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject CountsType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "hotkey_sdk._fast.Counts",
    .tp_doc = "The producer's counters.",
    .tp_basicsize = sizeof(Counts),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_members = counts_members,
};

/* ------------------------------------------------------------------ Route: the destinations of a lane's slots */

typedef struct {
    PyObject *topic, *partition, *key; /* key NULL: the caller's own key stays on the record */
} Place;

typedef struct {
    PyObject *destinations; /* the tuple that the places were read from, one for each slot */
    Place *places;
    uint64_t mask;
} Route;

static int
place_of(PyObject *destination, Place *place)
{
    place->topic = PyObject_GetAttrString(destination, "topic");
    place->partition = PyObject_GetAttrString(destination, "partition");
    place->key = PyObject_GetAttrString(destination, "key");
    if (place->topic == NULL || place->partition == NULL || place->key == NULL) {
        return -1;
    }
    if (place->key == Py_None) {
        Py_CLEAR(place->key);
    }
    return 0;
}

static int
route_of(Route *route, PyObject *destinations)
{
    Py_ssize_t size = PyTuple_GET_SIZE(destinations);
    if (size == 0 || (size & (size - 1)) != 0) {
        PyErr_Format(PyExc_ValueError, "there are %zd destinations, expected a power of two", size);
        return -1;
    }
    route->places = PyMem_Calloc((size_t)size, sizeof(Place));
    if (route->places == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    route->mask = (uint64_t)size - 1;
    route->destinations = Py_NewRef(destinations);
    for (Py_ssize_t slot = 0; slot < size; slot++) {
        if (place_of(PyTuple_GET_ITEM(destinations, slot), &route->places[slot]) < 0) {
            return -1;
        }
    }
    return 0;
}

static void
route_clear(Route *route)
{
    for (uint64_t slot = 0; route->places != NULL && slot <= route->mask; slot++) {
        Py_CLEAR(route->places[slot].topic);
        Py_CLEAR(route->places[slot].partition);
        Py_CLEAR(route->places[slot].key);
    }
    PyMem_Free(route->places);
    route->places = NULL;
    Py_CLEAR(route->destinations);
}

static inline PyObject *
destination_at(Route *route, uint64_t slot)
{
    return Py_NewRef(PyTuple_GET_ITEM(route->destinations, (Py_ssize_t)(slot & route->mask)));
}

/* ------------------------------------------------------------------ HashedLane */

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
        const char *text = PyUnicode_AsUTF8AndSize(value, &size);
        if (text == NULL) { /* half a character */
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

/* The value of a header, borrowed; NULL where there is none. Of several with one name the last counts. */
static Choice
header_of(PyObject *headers, PyObject *name, PyObject **value)
{
    if (headers == NULL || headers == Py_None) {
        return CHOSEN;
    }
    if (PyDict_CheckExact(headers)) {
        *value = PyDict_GetItemWithError(headers, name);
        return *value == NULL && PyErr_Occurred() ? FAILED : CHOSEN;
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
        value = PyDict_GetItemWithError(dimensions, reader->name);
        if (value == NULL && PyErr_Occurred()) {
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

static PyMethodDef hashed_methods[] = {
    {"choose", (PyCFunction)(void (*)(void))hashed_choose_method, METH_FASTCALL,
     "choose($self, value, dimensions, headers, timestamp, /)\n--\n\nThe record's destination."},
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

/* ------------------------------------------------------------------ StickyLane */

typedef struct {
    PyObject_HEAD
    Route route;
    Counts *counts;
    PyObject *clock; /* NULL: the machine's own */
    double seconds, until;
    long long records, records_left, size_bytes, bytes_left;
    uint64_t slot, stride;
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
    clock_gettime(CLOCK_MONOTONIC, &time);
    *now = (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
    return 0;
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
        self->slot += self->stride;
        self->until = now + self->seconds;
        self->records_left = self->records;
        self->bytes_left = self->size_bytes;
    }
    self->records_left--;
    self->bytes_left -= size;
    *slot = self->slot;
    return CHOSEN;
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

static PyObject *
sticky_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *destinations, *counts, *clock;
    double seconds;
    long long records, size_bytes;
    unsigned long long slot, stride;
    if (!PyArg_ParseTuple(args, "O!O!dLLKKO:StickyLane", &PyTuple_Type, &destinations, &CountsType, &counts,
                          &seconds, &records, &size_bytes, &slot, &stride, &clock)) {
        return NULL;
    }
    StickyLane *self = (StickyLane *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->counts = (Counts *)Py_NewRef(counts);
    self->clock = clock == Py_None ? NULL : Py_NewRef(clock);
    self->seconds = seconds;
    self->records = records;
    self->size_bytes = size_bytes;
    self->slot = slot;
    self->stride = stride;
    if (route_of(&self->route, destinations) < 0) {
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
    route_clear(&self->route);
    Py_CLEAR(self->counts);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef sticky_methods[] = {
    {"choose", (PyCFunction)(void (*)(void))sticky_choose_method, METH_FASTCALL,
     "choose($self, value, dimensions, headers, timestamp, /)\n--\n\nThe current batch's destination."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject StickyLaneType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "hotkey_sdk._fast.StickyLane",
    .tp_doc = "A route without an order: one slot for a batch.",
    .tp_basicsize = sizeof(StickyLane),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = sticky_new,
    .tp_dealloc = (destructor)sticky_dealloc,
    .tp_traverse = (traverseproc)sticky_traverse,
    .tp_methods = sticky_methods,
};

/* ------------------------------------------------------------------ produce */

enum { TOPIC, VALUE, KEY, PARTITION, CALLBACK, ON_DELIVERY, TIMESTAMP, HEADERS, DIMENSIONS, PARAMETERS };

/* What produce is bound to, once per process. */
static struct {
    PyObject *names[PARAMETERS];
    PyObject *defaults[PARAMETERS];
    PyObject *original; /* confluent_kafka's method, and where it may be called at once, its C function */
    PyCFunctionWithKeywords function;
    PyObject *pure;
    PyObject *is_gone;
    PyObject *kafka_error;
    PyTypeObject *lanes_type;
    Py_ssize_t by_topic, text, raw; /* offsets of slots */
    PyObject *doc;
} bound;

static inline PyObject *
slot_at(PyObject *object, Py_ssize_t offset)
{
    return *(PyObject **)((char *)object + offset);
}

/* The arguments in their places, borrowed; 0: the call is wrong, and Python says so. */
static int
arrange(PyObject **given, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    if (count > PARAMETERS) {
        return 0;
    }
    memcpy(given, args, (size_t)count * sizeof *given);
    memset(given + count, 0, (size_t)(PARAMETERS - count) * sizeof *given);
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    for (Py_ssize_t index = 0; index < named; index++) {
        PyObject *name = PyTuple_GET_ITEM(keywords, index);
        int at = PARAMETERS - 1; /* names of keywords are interned; others are left to Python */
        while (at >= 0 && name != bound.names[at]) {
            at--;
        }
        if (at < 0 || given[at] != NULL) {
            return 0;
        }
        given[at] = args[count + index];
    }
    return given[TOPIC] != NULL;
}

static PyObject *
call_original(PyObject *self, PyObject *arguments)
{
    PyObject *result;
    if (arguments == NULL) {
        return NULL;
    }
    if (bound.function != NULL) {
        result = bound.function(self, arguments, NULL);
    }
    else {
        PyObject *all[1 + PARAMETERS] = {self};
        Py_ssize_t count = PyTuple_GET_SIZE(arguments);
        memcpy(all + 1, &PyTuple_GET_ITEM(arguments, 0), (size_t)count * sizeof *all);
        result = PyObject_Vectorcall(bound.original, all, (size_t)count + 1, NULL);
    }
    Py_DECREF(arguments);
    return result;
}

/* The original's arguments by position, and no more than were given: it parses those quickest. */
static PyObject *
in_line(PyObject **given)
{
    PyObject *line[DIMENSIONS];
    Py_ssize_t count = 1;
    memcpy(line, given, sizeof line);
    if (line[CALLBACK] == NULL || line[CALLBACK] == Py_None) {
        line[CALLBACK] = line[ON_DELIVERY];
    }
    line[ON_DELIVERY] = NULL; /* there a None for one of the two hides the other */
    for (Py_ssize_t at = 0; at < DIMENSIONS; at++) {
        if (line[at] != NULL) {
            count = at + 1;
        }
        else {
            line[at] = bound.defaults[at];
        }
    }
    PyObject *arguments = PyTuple_New(count);
    for (Py_ssize_t at = 0; arguments != NULL && at < count; at++) {
        PyTuple_SET_ITEM(arguments, at, Py_NewRef(line[at]));
    }
    return arguments;
}

static inline PyObject *
hand_on(PyObject *self, PyObject **given)
{
    return call_original(self, in_line(given));
}

/* 1: what was raised says that the shard's partition or topic is gone, and is forgotten. */
static int
is_gone(void)
{
    PyObject *type, *error, *traceback;
    if (!PyErr_ExceptionMatches(bound.kafka_error)) {
        return 0;
    }
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *said = PyObject_CallOneArg(bound.is_gone, error);
    int gone = said == Py_True;
    Py_XDECREF(said);
    if (gone || said == NULL) {
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(traceback);
    }
    else {
        PyErr_Restore(type, error, traceback);
    }
    return gone;
}

static PyObject *
send_to(PyObject *self, PyObject **given, Place *place, Counts *counts)
{
    PyObject *routed[PARAMETERS];
    memcpy(routed, given, sizeof routed);
    routed[TOPIC] = place->topic;
    routed[PARTITION] = place->partition;
    if (place->key != NULL) {
        routed[KEY] = place->key;
    }
    counts->routed++;
    PyObject *result = hand_on(self, routed);
    if (result == NULL && is_gone()) {
        counts->fell_back++;
        return hand_on(self, given);
    }
    return result;
}

/* -1: Python decides; 0: the partition is the caller's choice; 1: it is ours. */
static int
any_partition(PyObject *partition)
{
    if (partition == NULL || partition == bound.defaults[PARTITION]) {
        return 1;
    }
    if (!PyLong_CheckExact(partition)) {
        return -1;
    }
    int overflow;
    return PyLong_AsLongAndOverflow(partition, &overflow) == -1 && !overflow;
}

/* The lane of the record, a new reference; UNKNOWN: Python looks. */
static Choice
lane_of(PyObject *self, PyObject **given, PyObject **lane)
{
    PyObject *by_topic = slot_at(self, bound.by_topic), *topic = given[TOPIC], *key = given[KEY];
    if (by_topic == NULL || !PyDict_CheckExact(by_topic) || !PyUnicode_CheckExact(topic)) {
        return UNKNOWN;
    }
    PyObject *lanes = PyDict_GetItemWithError(by_topic, topic);
    if (lanes == NULL || !Py_IS_TYPE(lanes, bound.lanes_type)) {
        return PyErr_Occurred() ? FAILED : UNKNOWN;
    }
    if (PyDict_GET_SIZE(lanes) == 0) {
        return CHOSEN;
    }
    Py_ssize_t kind = PyUnicode_CheckExact(key) ? bound.text : PyBytes_CheckExact(key) ? bound.raw : 0;
    PyObject *of_kind = kind ? slot_at(lanes, kind) : NULL; /* text is never compared with bytes */
    if (of_kind == NULL || !PyDict_CheckExact(of_kind)) {
        return UNKNOWN;
    }
    *lane = Py_XNewRef(PyDict_GetItemWithError(of_kind, key));
    return *lane == NULL && PyErr_Occurred() ? FAILED : CHOSEN;
}

static Choice
slot_of(PyObject *lane, PyObject **given, uint64_t *slot, Route **route, Counts **counts)
{
    if (Py_IS_TYPE(lane, &HashedLaneType)) {
        HashedLane *hashed = (HashedLane *)lane;
        *route = &hashed->route;
        *counts = hashed->counts;
        return hashed_choose(hashed, given[DIMENSIONS], given[HEADERS], given[TIMESTAMP], slot);
    }
    if (Py_IS_TYPE(lane, &StickyLaneType)) {
        StickyLane *sticky = (StickyLane *)lane;
        *route = &sticky->route;
        *counts = sticky->counts;
        return sticky_choose(sticky, given[VALUE], slot);
    }
    return UNKNOWN;
}

static PyObject *
call_pure(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    PyObject **all = PyMem_Malloc((size_t)(1 + count + named) * sizeof *all);
    if (all == NULL) {
        return PyErr_NoMemory();
    }
    all[0] = self;
    memcpy(all + 1, args, (size_t)(count + named) * sizeof *all);
    PyObject *result = PyObject_Vectorcall(bound.pure, all, (size_t)count + 1, keywords);
    PyMem_Free(all);
    return result;
}

static PyObject *
produce(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *given[PARAMETERS], *lane = NULL, *result = NULL;
    if (!arrange(given, args, count, keywords)) {
        return call_pure(self, args, count, keywords);
    }
    if (given[KEY] == NULL || given[KEY] == Py_None) {
        return hand_on(self, given);
    }
    Choice found = lane_of(self, given, &lane);
    if (found == CHOSEN && lane != NULL) {
        int any = any_partition(given[PARTITION]);
        if (any == 1) {
            uint64_t slot;
            Route *route;
            Counts *counts;
            found = slot_of(lane, given, &slot, &route, &counts);
            if (found == CHOSEN) {
                result = send_to(self, given, &route->places[slot & route->mask], counts);
                Py_DECREF(lane);
                return result;
            }
        }
        else if (any < 0) {
            found = UNKNOWN;
        }
    }
    Py_XDECREF(lane);
    switch (found) {
    case CHOSEN:
        return hand_on(self, given);
    case UNKNOWN:
        return call_pure(self, args, count, keywords);
    default:
        return NULL;
    }
}

static PyMethodDef produce_def = {
    "produce", (PyCFunction)(void (*)(void))produce, METH_FASTCALL | METH_KEYWORDS, NULL,
};

/* ------------------------------------------------------------------ binding */

static int
offset_of(PyObject *type, const char *name, Py_ssize_t *offset)
{
    PyObject *member = PyObject_GetAttrString(type, name);
    if (member == NULL) {
        return -1;
    }
    int fits = Py_IS_TYPE(member, &PyMemberDescr_Type)
               && ((PyMemberDescrObject *)member)->d_member->type == T_OBJECT_EX;
    if (fits) {
        *offset = ((PyMemberDescrObject *)member)->d_member->offset;
    }
    else {
        PyErr_Format(PyExc_TypeError, "%s of %R is %R, expected one of its __slots__", name, type, member);
    }
    Py_DECREF(member);
    return fits ? 0 : -1;
}

static void
bind_original(PyObject *original)
{
    bound.original = Py_NewRef(original);
    bound.function = NULL;
    if (Py_IS_TYPE(original, &PyMethodDescr_Type)) {
        PyMethodDef *method = ((PyMethodDescrObject *)original)->d_method;
        if (method->ml_flags == (METH_VARARGS | METH_KEYWORDS)) {
            bound.function = (PyCFunctionWithKeywords)(void (*)(void))method->ml_meth;
        }
    }
}

static int
bind_parameters(PyObject *names, PyObject *defaults)
{
    if (PyTuple_GET_SIZE(names) != PARAMETERS || PyTuple_GET_SIZE(defaults) != PARAMETERS) {
        PyErr_Format(PyExc_TypeError, "produce has %zd parameters and %zd defaults, expected %d of each",
                     PyTuple_GET_SIZE(names), PyTuple_GET_SIZE(defaults), PARAMETERS);
        return -1;
    }
    for (Py_ssize_t at = 0; at < PARAMETERS; at++) {
        bound.names[at] = Py_NewRef(PyTuple_GET_ITEM(names, at));
        PyUnicode_InternInPlace(&bound.names[at]);
        bound.defaults[at] = Py_NewRef(PyTuple_GET_ITEM(defaults, at));
    }
    return 0;
}

/* What produce is bound to stays for ever, like any method of a class. */
static PyObject *
module_bind(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *type, *original, *pure, *names, *defaults, *doc, *is_gone, *kafka_error, *lanes_type;
    if (!PyArg_ParseTuple(args, "O!OOO!O!SOOO!:bind", &PyType_Type, &type, &original, &pure, &PyTuple_Type, &names,
                          &PyTuple_Type, &defaults, &doc, &is_gone, &kafka_error, &PyType_Type, &lanes_type)) {
        return NULL;
    }
    if (bound.doc != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "produce is bound already");
        return NULL;
    }
    if (offset_of(type, "_by_topic", &bound.by_topic) < 0
        || offset_of(lanes_type, "text", &bound.text) < 0 || offset_of(lanes_type, "raw", &bound.raw) < 0
        || bind_parameters(names, defaults) < 0) {
        return NULL;
    }
    bind_original(original);
    bound.pure = Py_NewRef(pure);
    bound.is_gone = Py_NewRef(is_gone);
    bound.kafka_error = Py_NewRef(kafka_error);
    bound.lanes_type = (PyTypeObject *)Py_NewRef(lanes_type);
    bound.doc = Py_NewRef(doc);
    produce_def.ml_doc = PyBytes_AS_STRING(doc);
    return PyDescr_NewMethod((PyTypeObject *)type, &produce_def);
}

static PyMethodDef module_methods[] = {
    {"xxh64", module_xxh64, METH_VARARGS, "xxh64(data, seed=0, /)\n--\n\nThe unsigned 64-bit hash."},
    {"bind", module_bind, METH_VARARGS,
     "bind(type, original, pure, names, defaults, doc, is_gone, kafka_error, lanes_type, /)\n--\n\n"
     "The compiled method `produce` of `type`; once per process."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "hotkey_sdk._fast",
    .m_doc = "The path of a record, compiled.",
    .m_size = -1,
    .m_methods = module_methods,
};

PyMODINIT_FUNC
PyInit__fast(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made == NULL) {
        return NULL;
    }
    if (PyModule_AddType(made, &CountsType) < 0 || PyModule_AddType(made, &HashedLaneType) < 0
        || PyModule_AddType(made, &StickyLaneType) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}
