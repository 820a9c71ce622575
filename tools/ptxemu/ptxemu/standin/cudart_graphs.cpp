// CUDA graphs: a graph replays the work recorded in it, in capture order.
#include "standin.hpp"

#include <algorithm>

API cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  static unsigned long long next = 1;
  std::lock_guard<std::recursive_mutex> guard(g_capture_mutex);
  if ((uint64_t)stream <= 2) {
    fprintf(stderr, "[ptxemu] cudaStreamBeginCapture: the default stream cannot be captured\n");
    return set_error(cudaErrorStreamCaptureUnsupported);
  }
  if (capture_of(stream)) return set_error(cudaErrorIllegalState);
  g_captures.push_back(new Capture{new Graph(), stream, mode, std::this_thread::get_id(), next++});
  g_captures.back()->clock[stream];
  return cudaSuccess;
}

API cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
  std::lock_guard<std::recursive_mutex> guard(g_capture_mutex);
  *out = nullptr;
  Capture *capture = capture_of(stream);
  if (!capture) return set_error(cudaErrorIllegalState);
  if (capture->origin != stream)
    return capture_error(capture, cudaErrorStreamCaptureUnmatched, "cudaStreamEndCapture",
                         "the capture began on another stream");
  cudaError_t error = capture->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
  for (auto &entry : capture->clock)
    if (!error && capture->clock[stream][entry.first] < entry.second[entry.first])
      error = capture_error(capture, cudaErrorStreamCaptureUnjoined, "cudaStreamEndCapture",
                            "work on another stream was not joined to the first one");
  g_captures.erase(std::find(g_captures.begin(), g_captures.end(), capture));
  if (!error) *out = (cudaGraph_t)capture->graph;
  else delete capture->graph;
  delete capture;
  return set_error(error);
}

API cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
  std::lock_guard<std::recursive_mutex> guard(g_capture_mutex);
  Capture *capture = capture_of(stream);
  *status = !capture           ? cudaStreamCaptureStatusNone
            : capture->invalid ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

API cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status, unsigned long long *id,
                             cudaGraph_t *graph, const cudaGraphNode_t **d, const cudaGraphEdgeData **error,
                             size_t *count) {
  std::lock_guard<std::recursive_mutex> guard(g_capture_mutex);
  Capture *capture = capture_of(stream);
  if (status) cudaStreamIsCapturing(stream, status);
  if (id) *id = capture ? capture->id : 0;
  if (graph) *graph = capture ? (cudaGraph_t)capture->graph : nullptr;
  if (d) *d = nullptr;
  if (error) *error = nullptr;
  if (count) *count = 0;
  return cudaSuccess;
}

API cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *m) {
  std::swap(*m, t_capture_mode);
  return cudaSuccess;
}

API cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
  *exec = (cudaGraphExec_t) new Graph(*(Graph *)graph);
  return cudaSuccess;
}

API cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long f) {
  return cudaGraphInstantiate(exec, graph, f);
}

API cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  auto nodes = ((Graph *)exec)->nodes;
  return submit(stream, "cudaGraphLaunch", [=] {
    for (auto &f : nodes)
      if (cudaError_t error = f()) return error;
    return cudaSuccess;
  });
}

API cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

API cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
  size_t have = ((Graph *)graph)->nodes.size();
  for (size_t i = 0; nodes && i < *count; i++)
    nodes[i] = i < have ? (cudaGraphNode_t) & ((Graph *)graph)->nodes[i] : nullptr;
  *count = nodes && *count < have ? *count : have;
  return cudaSuccess;
}

API cudaGraphDestroy(cudaGraph_t graph) {
  delete (Graph *)graph;
  return cudaSuccess;
}

API cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete (Graph *)exec;
  return cudaSuccess;
}
