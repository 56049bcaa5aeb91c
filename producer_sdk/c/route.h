/* The producer's counters, and the destinations of a route's slots. */

#ifndef HOTKEY_ROUTE_H
#define HOTKEY_ROUTE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdint.h>
#include <string.h>
#include <time.h>

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

/* Borrowed from the text; NULL with an error set where it has half a character. */
static inline const char *
utf8_of(PyObject *text, Py_ssize_t *size)
{
    if (!PyUnicode_IS_COMPACT_ASCII(text)) {
        return PyUnicode_AsUTF8AndSize(text, size);
    }
    *size = PyUnicode_GET_LENGTH(text); /* its characters are its UTF-8 */
    return (const char *)PyUnicode_1BYTE_DATA(text);
}

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

#endif
