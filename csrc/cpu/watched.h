// Whether Python objects are what they were: the sweep behind fusedres/nn/_watched.py.
#pragma once

#include <Python.h>

namespace fusedres {

// same_objects(modules, types, namespaces, dicts, values, empty) -> bool
PyObject* same_objects(PyObject* self, PyObject* args);
// same_tensors(tensors, marks) -> bool
PyObject* same_tensors(PyObject* self, PyObject* args);

}  // namespace fusedres
