// The Python module `fusedres._C_cuda`. Importing it loads the library, whose static initialisers register
// the kernels with torch's dispatcher; its one function says which architectures they are compiled for.
#include <Python.h>

namespace {

PyObject* cuda_archs(PyObject*, PyObject*) { return PyUnicode_FromString(FUSEDRES_CUDA_ARCHS); }

PyMethodDef kMethods[] = {
    {"cuda_archs", cuda_archs, METH_NOARGS, "What FUSEDRES_CUDA_ARCHS was for this build, as 8.0+PTX;9.0."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef kModule = {
    PyModuleDef_HEAD_INIT, "_C_cuda", "The CUDA kernels.", -1, kMethods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C_cuda(void) { return PyModule_Create(&kModule); }
