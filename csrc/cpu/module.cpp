// The Python module `fusedres._C`. Importing it loads the library, whose static initialisers register
// the kernels with torch's dispatcher; its functions are what a dispatcher's op cannot be.
#include <Python.h>

#include <exception>

#include "cpu/isa.h"
#include "cpu/watched.h"

namespace {

PyObject* cpu_isa(PyObject*, PyObject*) {
  try {
    return PyUnicode_FromString(fusedres::isa_name(fusedres::active_isa()));
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

PyMethodDef kMethods[] = {
    {"cpu_isa", cpu_isa, METH_NOARGS, "The instruction set of the CPU kernels: portable, avx2 or avx512."},
    {"same_objects", fusedres::same_objects, METH_VARARGS,
     "same_objects(modules, types, namespaces, dicts, values, empty) -> bool\n\nWhether each module has "
     "its type and its namespace, the dicts hold these very values in order, and others are empty."},
    {"same_tensors", fusedres::same_tensors, METH_VARARGS,
     "same_tensors(tensors, marks) -> bool\n\nWhether each tensor's (data_ptr, _version, dtype, shape) "
     "is its mark."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef kModule = {
    PyModuleDef_HEAD_INIT, "_C", "The CPU kernels.", -1, kMethods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C(void) { return PyModule_Create(&kModule); }
