/* Producer.produce: finds the record's lane and calls the original with what that says. */

#ifndef HOTKEY_PRODUCE_H
#define HOTKEY_PRODUCE_H

#include "hashed.h"
#include "keys.h"
#include "sticky.h"

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
send_to(PyObject *self, const Given *given, PyObject *lane, const Place *place, Counts *counts)
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
    if (result == NULL && Py_IS_TYPE(lane, &StickyLaneType) && PyErr_ExceptionMatches(PyExc_BufferError)) {
        ((StickyLane *)lane)->records_left++;
        return NULL;
    }
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
        result = place == NULL ? hand_on(self, &given) : send_to(self, &given, lane, place, counts);
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

#endif
