// A recalled inference asks on every call whether a model's 150 modules and 267 tensors are what they were.
// By then the caches hold none of them: an object costs its misses. Here each is looked at once, where
// Python's map() goes through all of them for each question.
#include "cpu/watched.h"

namespace fusedres {
namespace {

// Of a list that the caller holds and that nobody else knows.
PyObject* item(PyObject* list, Py_ssize_t i) { return PyList_GetItem(list, i); }

bool same_modules(PyObject* modules, PyObject* types, PyObject* namespaces) {
  const Py_ssize_t count = PyList_Size(modules);
  if (PyList_Size(types) != count || PyList_Size(namespaces) != count) return false;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* module = item(modules, i);
    if (reinterpret_cast<PyObject*>(Py_TYPE(module)) != item(types, i)) return false;
    PyObject* own = PyObject_GenericGetDict(module, nullptr);
    Py_XDECREF(own);  // the module keeps it
    if (own != item(namespaces, i)) return false;
  }
  return true;
}

bool same_values(PyObject* dicts, PyObject* values) {
  const Py_ssize_t count = PyList_Size(values);
  Py_ssize_t seen = 0;
  for (Py_ssize_t i = 0; i < PyList_Size(dicts); ++i) {
    Py_ssize_t at = 0;
    PyObject *key, *value;
    while (PyDict_Next(item(dicts, i), &at, &key, &value))
      if (seen == count || value != item(values, seen++)) return false;
  }
  return seen == count;
}

bool all_empty(PyObject* dicts) {
  for (Py_ssize_t i = 0; i < PyList_Size(dicts); ++i)
    if (PyDict_Size(item(dicts, i)) != 0) return false;
  return true;
}

// 1: equal, 0: not, -1: an exception is set. Takes `value` over.
int equals(PyObject* value, PyObject* expected) {
  if (value == nullptr) return -1;
  const int equal = PyObject_RichCompareBool(value, expected, Py_EQ);
  Py_DECREF(value);
  return equal;
}

}  // namespace

PyObject* same_objects(PyObject*, PyObject* args) {
  PyObject *modules, *types, *namespaces, *dicts, *values, *empty;
  if (!PyArg_ParseTuple(
          args, "O!O!O!O!O!O!:same_objects", &PyList_Type, &modules, &PyList_Type, &types, &PyList_Type,
          &namespaces, &PyList_Type, &dicts, &PyList_Type, &values, &PyList_Type, &empty))
    return nullptr;
  const bool same =
      same_modules(modules, types, namespaces) && all_empty(empty) && same_values(dicts, values);
  if (PyErr_Occurred() != nullptr) return nullptr;  // something is not what the caller must give
  return PyBool_FromLong(same);
}

PyObject* same_tensors(PyObject*, PyObject* args) {
  PyObject *tensors, *marks;
  if (!PyArg_ParseTuple(args, "O!O!:same_tensors", &PyList_Type, &tensors, &PyTuple_Type, &marks))
    return nullptr;
  static PyObject* const kDataPtr = PyUnicode_InternFromString("data_ptr");
  static PyObject* const kStride = PyUnicode_InternFromString("stride");
  static PyObject* const kAttributes[] = {
      PyUnicode_InternFromString("_version"), PyUnicode_InternFromString("dtype"),
      PyUnicode_InternFromString("shape")};
  const Py_ssize_t count = PyList_Size(tensors);
  if (PyTuple_Size(marks) != count) Py_RETURN_FALSE;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject *tensor = item(tensors, i), *mark = PyTuple_GetItem(marks, i);
    Py_ssize_t field = 0;
    int same = equals(PyObject_CallMethodObjArgs(tensor, kDataPtr, nullptr), PyTuple_GetItem(mark, field++));
    for (PyObject* attribute : kAttributes)
      if (same == 1) same = equals(PyObject_GetAttr(tensor, attribute), PyTuple_GetItem(mark, field++));
    if (same == 1)
      same = equals(PyObject_CallMethodObjArgs(tensor, kStride, nullptr), PyTuple_GetItem(mark, field));
    if (same < 0) return nullptr;
    if (same == 0) Py_RETURN_FALSE;
  }
  Py_RETURN_TRUE;
}

}  // namespace fusedres
