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

/* ------------------------------------------------------------------ Keys: a topic's lanes by record key */

typedef struct {
    uint64_t hash;
    PyObject *key;  /* bytes */
    PyObject *lane; /* NULL: the place is free */
} Entry;

/* Text is looked up by its UTF-8, so that a record's key is hashed once, and quicker than by a dict. */
typedef struct {
    PyObject_HEAD
    Entry *entries;
    uint64_t mask;
} Keys;

static Entry *
entry_of(Keys *keys, uint64_t hash, const char *data, Py_ssize_t size)
{
    uint64_t at = hash & keys->mask;
    for (;; at = (at + 1) & keys->mask) {
        Entry *entry = &keys->entries[at];
        if (entry->lane == NULL
            || (entry->hash == hash && PyBytes_GET_SIZE(entry->key) == size
                && memcmp(PyBytes_AS_STRING(entry->key), data, (size_t)size) == 0)) {
            return entry;
        }
    }
}

/* The lane, borrowed, or NULL; UNKNOWN for a key that Python looks up. Runs nothing but C. */
static Choice
keys_find(Keys *keys, PyObject *key, PyObject **lane)
{
    const char *data;
    Py_ssize_t size;
    if (PyUnicode_CheckExact(key)) {
        data = PyUnicode_AsUTF8AndSize(key, &size);
        if (data == NULL) { /* half a character */
            PyErr_Clear();
            return UNKNOWN;
        }
    }
    else if (PyBytes_CheckExact(key)) {
        data = PyBytes_AS_STRING(key);
        size = PyBytes_GET_SIZE(key);
    }
    else {
        return UNKNOWN;
    }
    *lane = entry_of(keys, xxh64((const unsigned char *)data, (size_t)size, 0), data, size)->lane;
    return CHOSEN;
}

static PyObject *
keys_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *lanes, *key, *lane;
    if (!PyArg_ParseTuple(args, "O!:Keys", &PyDict_Type, &lanes)) {
        return NULL;
    }
    size_t places = 2;
    while (places < 2 * (size_t)PyDict_GET_SIZE(lanes)) { /* at least half of them stay free */
        places *= 2;
    }
    Keys *self = (Keys *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->mask = places - 1;
    self->entries = PyMem_Calloc(places, sizeof(Entry));
    if (self->entries == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t at = 0; PyDict_Next(lanes, &at, &key, &lane);) {
        if (!PyBytes_CheckExact(key)) {
            PyErr_Format(PyExc_TypeError, "a key is %R, expected bytes", key);
            Py_DECREF(self);
            return NULL;
        }
        const char *data = PyBytes_AS_STRING(key);
        Py_ssize_t size = PyBytes_GET_SIZE(key);
        uint64_t hash = xxh64((const unsigned char *)data, (size_t)size, 0);
        Entry *entry = entry_of(self, hash, data, size);
        entry->hash = hash;
        entry->key = Py_NewRef(key);
        entry->lane = Py_NewRef(lane);
    }
    return (PyObject *)self;
}

static int
keys_traverse(Keys *self, visitproc visit, void *arg)
{
    for (uint64_t at = 0; self->entries != NULL && at <= self->mask; at++) {
        Py_VISIT(self->entries[at].lane);
    }
    return 0;
}

static void
keys_dealloc(Keys *self)
{
    PyObject_GC_UnTrack(self);
    for (uint64_t at = 0; self->entries != NULL && at <= self->mask; at++) {
        Py_CLEAR(self->entries[at].key);
        Py_CLEAR(self->entries[at].lane);
    }
    PyMem_Free(self->entries);
    Py_TYPE(self)->tp_free(self);
}

static PyTypeObject KeysType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "hotkey_sdk._fast.Keys",
    .tp_doc = "A topic's lanes by record key.",
    .tp_basicsize = sizeof(Keys),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = keys_new,
    .tp_dealloc = (destructor)keys_dealloc,
    .tp_traverse = (traverseproc)keys_traverse,
};

/* ------------------------------------------------------------------ Recent: the topics written to last */

#define RECENT 4

/* What the dict of topics said of a topic's text object. Whoever changes the dict calls clear(). */
typedef struct {
    PyObject_HEAD
    struct {
        PyObject *topic;
        Keys *keys; /* NULL: nothing of it is routed */
    } entries[RECENT];
} Recent;

static inline unsigned
recent_at(PyObject *topic)
{
    return (unsigned)((uintptr_t)topic >> 5) % RECENT;
}

static void
recent_set(Recent *self, unsigned at, PyObject *topic, PyObject *keys)
{
    PyObject *old_topic = self->entries[at].topic, *old_keys = (PyObject *)self->entries[at].keys;
    self->entries[at].topic = Py_XNewRef(topic);
    self->entries[at].keys = (Keys *)Py_XNewRef(keys);
    Py_XDECREF(old_topic);
    Py_XDECREF(old_keys);
}

static PyObject *
recent_clear(Recent *self, PyObject *Py_UNUSED(nothing))
{
    for (unsigned at = 0; at < RECENT; at++) {
        recent_set(self, at, NULL, NULL);
    }
    Py_RETURN_NONE;
}

static int
recent_traverse(Recent *self, visitproc visit, void *arg)
{
    for (unsigned at = 0; at < RECENT; at++) {
        Py_VISIT(self->entries[at].keys);
    }
    return 0;
}

static void
recent_dealloc(Recent *self)
{
    PyObject_GC_UnTrack(self);
    for (unsigned at = 0; at < RECENT; at++) {
        recent_set(self, at, NULL, NULL);
    }
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef recent_methods[] = {
    {"clear", (PyCFunction)(void (*)(void))recent_clear, METH_NOARGS,
     "clear($self, /)\n--\n\nForget: the dict of topics has changed."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject RecentType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "hotkey_sdk._fast.Recent",
    .tp_doc = "The topics that a producer has written to last.",
    .tp_basicsize = sizeof(Recent),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)recent_dealloc,
    .tp_traverse = (traverseproc)recent_traverse,
    .tp_methods = recent_methods,
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
    Py_ssize_t by_topic, recent, keys; /* offsets of slots */
    PyObject *spare[PARAMETERS];       /* by length, tuples that no one else holds */
    PyObject *doc;
} bound;

static inline PyObject *
slot_at(PyObject *object, Py_ssize_t offset)
{
    return *(PyObject **)((char *)object + offset);
}

/* The arguments of one call, borrowed; `last`: of those that the original knows. */
typedef struct {
    PyObject *at[PARAMETERS];
    Py_ssize_t last;
} Given;

/* 0: the call is wrong, or its names are not interned; Python sees to it. */
static int
arrange_named(Given *given, PyObject *const *values, PyObject *names)
{
    for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(names); index++) {
        PyObject *name = PyTuple_GET_ITEM(names, index);
        int at = PARAMETERS - 1;
        while (at >= 0 && name != bound.names[at]) {
            at--;
        }
        if (at < 0 || given->at[at] != NULL) {
            return 0;
        }
        given->at[at] = values[index];
        if (at > given->last && at < DIMENSIONS) {
            given->last = at;
        }
    }
    for (Py_ssize_t at = VALUE; at < given->last; at++) {
        if (given->at[at] == NULL) {
            given->at[at] = bound.defaults[at];
        }
    }
    return given->at[TOPIC] != NULL;
}

static inline int
arrange(Given *given, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count > PARAMETERS) {
        return 0;
    }
    for (Py_ssize_t at = 0; at < PARAMETERS; at++) {
        given->at[at] = at < count ? args[at] : NULL;
    }
    given->last = count > DIMENSIONS ? HEADERS : count - 1;
    return names == NULL ? count > 0 : arrange_named(given, args + count, names);
}

static PyObject *
call_original(PyObject *self, PyObject *arguments)
{
    if (bound.function != NULL) {
        return bound.function(self, arguments, NULL);
    }
    PyObject *all[1 + PARAMETERS] = {self};
    Py_ssize_t count = PyTuple_GET_SIZE(arguments);
    memcpy(all + 1, &PyTuple_GET_ITEM(arguments, 0), (size_t)count * sizeof *all);
    return PyObject_Vectorcall(bound.original, all, (size_t)count + 1, NULL);
}

/* A tuple of so many places, all empty; unknown to the collector, which must not show it as it is. */
static PyObject *
taken(Py_ssize_t size)
{
    PyObject *arguments = bound.spare[size];
    if (arguments != NULL) {
        bound.spare[size] = NULL;
        return arguments;
    }
    arguments = PyTuple_New(size);
    if (arguments != NULL) {
        PyObject_GC_UnTrack(arguments);
    }
    return arguments;
}

/* For the next call, unless the original has kept it. */
static void
give_back(PyObject *arguments)
{
    Py_ssize_t size = PyTuple_GET_SIZE(arguments);
    if (Py_REFCNT(arguments) != 1) {
        PyObject_GC_Track(arguments);
        Py_DECREF(arguments);
        return;
    }
    for (Py_ssize_t at = 0; at < size; at++) {
        PyObject *item = PyTuple_GET_ITEM(arguments, at);
        PyTuple_SET_ITEM(arguments, at, NULL);
        Py_DECREF(item); /* may run what produces again, with another tuple */
    }
    if (bound.spare[size] == NULL) {
        bound.spare[size] = arguments;
    }
    else {
        Py_DECREF(arguments);
    }
}

/* By position, and no more than were given: the original parses that quickest. */
static PyObject *
hand_on(PyObject *self, const Given *given)
{
    Py_ssize_t last = given->last;
    PyObject *callback = given->at[CALLBACK];
    if (last >= ON_DELIVERY && (callback == NULL || callback == Py_None)) {
        callback = given->at[ON_DELIVERY];
    }
    PyObject *arguments = taken(last + 1);
    if (arguments == NULL) {
        return NULL;
    }
    for (Py_ssize_t at = 0; at <= last; at++) {
        PyTuple_SET_ITEM(arguments, at, Py_NewRef(given->at[at]));
    }
    if (last >= ON_DELIVERY) { /* there a None for one of the two hides the other */
        Py_SETREF(PyTuple_GET_ITEM(arguments, CALLBACK), Py_NewRef(callback));
        Py_SETREF(PyTuple_GET_ITEM(arguments, ON_DELIVERY), Py_NewRef(Py_None));
    }
    PyObject *result = call_original(self, arguments);
    give_back(arguments);
    return result;
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
send_to(PyObject *self, const Given *given, const Place *place, Counts *counts)
{
    Given routed = *given;
    routed.at[TOPIC] = place->topic;
    routed.at[PARTITION] = place->partition;
    if (place->key != NULL) {
        routed.at[KEY] = place->key;
    }
    if (routed.last < PARTITION) {
        routed.last = PARTITION;
    }
    counts->routed++;
    PyObject *result = hand_on(self, &routed);
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

/* Let `recent` know what the dict of topics says of this one. */
static Choice
look_up(PyObject *self, Recent *recent, PyObject *topic)
{
    PyObject *by_topic = slot_at(self, bound.by_topic);
    if (by_topic == NULL || !PyDict_CheckExact(by_topic) || !PyUnicode_CheckExact(topic)) {
        return UNKNOWN;
    }
    PyObject *lanes = PyDict_GetItemWithError(by_topic, topic);
    if (lanes == NULL || !Py_IS_TYPE(lanes, bound.lanes_type)) {
        return PyErr_Occurred() ? FAILED : UNKNOWN;
    }
    PyObject *keys = PyDict_GET_SIZE(lanes) == 0 ? NULL : slot_at(lanes, bound.keys);
    if (keys != NULL && !Py_IS_TYPE(keys, &KeysType)) {
        return UNKNOWN;
    }
    recent_set(recent, recent_at(topic), topic, keys);
    return CHOSEN;
}

/* The lane of the record, a new reference, or NULL; UNKNOWN: Python looks. */
static Choice
lane_of(PyObject *self, const Given *given, PyObject **lane)
{
    Recent *recent = (Recent *)slot_at(self, bound.recent);
    PyObject *topic = given->at[TOPIC];
    unsigned at = recent_at(topic);
    if (recent == NULL || !Py_IS_TYPE(recent, &RecentType)) {
        return UNKNOWN;
    }
    if (recent->entries[at].topic != topic) {
        Choice found = look_up(self, recent, topic);
        if (found != CHOSEN || recent->entries[at].topic != topic) { /* or changed by what it freed */
            return found == CHOSEN ? UNKNOWN : found;
        }
    }
    Keys *keys = recent->entries[at].keys;
    if (keys == NULL) {
        return CHOSEN;
    }
    Choice found = keys_find(keys, given->at[KEY], lane);
    Py_XINCREF(*lane);
    return found;
}

static Choice
slot_of(PyObject *lane, const Given *given, uint64_t *slot, Route **route, Counts **counts)
{
    if (Py_IS_TYPE(lane, &HashedLaneType)) {
        HashedLane *hashed = (HashedLane *)lane;
        *route = &hashed->route;
        *counts = hashed->counts;
        return hashed_choose(hashed, given->at[DIMENSIONS], given->at[HEADERS], given->at[TIMESTAMP], slot);
    }
    if (Py_IS_TYPE(lane, &StickyLaneType)) {
        StickyLane *sticky = (StickyLane *)lane;
        *route = &sticky->route;
        *counts = sticky->counts;
        return sticky_choose(sticky, given->at[VALUE], slot);
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

/* Where the record goes; NULL: where the caller says. */
static Choice
place_for(PyObject *self, const Given *given, PyObject **lane, Place **place, Counts **counts)
{
    Choice found = lane_of(self, given, lane);
    if (found != CHOSEN || *lane == NULL) {
        return found;
    }
    int any = any_partition(given->at[PARTITION]);
    if (any != 1) {
        return any < 0 ? UNKNOWN : CHOSEN;
    }
    uint64_t slot;
    Route *route;
    found = slot_of(*lane, given, &slot, &route, counts);
    if (found == CHOSEN) {
        *place = &route->places[slot & route->mask];
    }
    return found;
}

static PyObject *
produce(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Given given;
    PyObject *lane = NULL, *result;
    Place *place = NULL;
    Counts *counts = NULL;
    Choice found = CHOSEN;
    if (!arrange(&given, args, count, names)) {
        return call_pure(self, args, count, names);
    }
    if (given.at[KEY] != NULL && given.at[KEY] != Py_None) {
        found = place_for(self, &given, &lane, &place, &counts);
    }
    if (found == CHOSEN) {
        result = place == NULL ? hand_on(self, &given) : send_to(self, &given, place, counts);
    }
    else {
        result = found == UNKNOWN ? call_pure(self, args, count, names) : NULL;
    }
    Py_XDECREF(lane);
    return result;
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
    if (offset_of(type, "_by_topic", &bound.by_topic) < 0 || offset_of(type, "_recent", &bound.recent) < 0
        || offset_of(lanes_type, "index", &bound.keys) < 0 || bind_parameters(names, defaults) < 0) {
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
        || PyModule_AddType(made, &StickyLaneType) < 0 || PyModule_AddType(made, &KeysType) < 0
        || PyModule_AddType(made, &RecentType) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}
