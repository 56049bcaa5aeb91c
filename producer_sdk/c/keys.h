/* Where a record's lane is found: its topic, then its key. */

#ifndef HOTKEY_KEYS_H
#define HOTKEY_KEYS_H

#include "route.h"
#include "xxh64.h"

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
        data = utf8_of(key, &size);
        if (data == NULL) {
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

#endif
