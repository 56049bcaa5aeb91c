/* The path of a record, compiled: what Producer.produce, HashedLane and StickyLane do in Python, for the
 * arguments that records have nearly always. For all others it calls the Python it was bound to, so there is
 * one place that knows the rare cases, and their errors are the same. docs/sdk-performance.md says why.
 *
 * It relies on the GIL: between looking a lane up and using it nothing else runs, or a reference is held.
 */

#include "produce.h"

#ifndef CLOCK_MONOTONIC
#error "no POSIX clock: the pure path is taken"
#endif
#ifdef Py_GIL_DISABLED
#error "there is no GIL to rely on: the pure path is taken"
#endif

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
