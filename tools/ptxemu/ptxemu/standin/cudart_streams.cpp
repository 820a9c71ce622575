// Streams, events and stream capture.  Work runs at once; on a capturing stream it is recorded.
#include "standin.hpp"

#include <time.h>
#include <algorithm>

std::recursive_mutex g_capture_mutex;
std::vector<Capture *> g_captures;
thread_local cudaStreamCaptureMode t_capture_mode = cudaStreamCaptureModeGlobal;

Capture *capture_of(cudaStream_t s) {
  for (Capture *c : g_captures)
    if (c->clock.count(s)) return c;
  return nullptr;
}

cudaError_t capture_error(Capture *c, cudaError_t e, const char *what, const char *why) {
  fprintf(stderr, "[ptxemu] %s: %s\n", what, why);
  c->invalid = true;
  return set_error(e);
}

// a call that is not allowed while some stream captures, such as cudaMalloc
cudaError_t forbid_during_capture(const char *what) {
  std::lock_guard<std::recursive_mutex> guard(g_capture_mutex);
  for (Capture *c : g_captures) {
    bool mine = c->thread == std::this_thread::get_id();
    bool relaxed = t_capture_mode == cudaStreamCaptureModeRelaxed || c->mode == cudaStreamCaptureModeRelaxed;
    if (relaxed || (c->mode == cudaStreamCaptureModeThreadLocal && !mine)) continue;
    return capture_error(c, cudaErrorStreamCaptureUnsupported, what,
                         "not permitted while a stream is capturing");
  }
  return cudaSuccess;
}

cudaError_t forbid_sync(cudaStream_t s, bool all, const char *what) { // host waits for a stream (or all)
  std::lock_guard<std::recursive_mutex> guard(g_capture_mutex);
  for (Capture *c : g_captures)
    if (all || c->clock.count(s))
      return capture_error(c, cudaErrorStreamCaptureUnsupported, what,
                           "synchronisation is not permitted while a stream is capturing");
  return cudaSuccess;
}

static bool legacy(cudaStream_t s) { return (uint64_t)s <= 1; }

// run f, or record it when s is capturing
cudaError_t submit(cudaStream_t s, const char *what, std::function<cudaError_t()> f) {
  {
    std::lock_guard<std::recursive_mutex> guard(g_capture_mutex);
    if (Capture *c = capture_of(s)) {
      if (c->invalid) return set_error(cudaErrorStreamCaptureInvalidated);
      c->clock[s][s]++;
      c->graph->nodes.push_back(std::move(f));
      return cudaSuccess;
    }
    for (Capture *c : g_captures) {
      if (legacy(s) && !(((Stream *)c->origin)->flags & cudaStreamNonBlocking))
        return capture_error(c, cudaErrorStreamCaptureImplicit, what,
                             "on the legacy stream would wait for a capturing stream");
      if (c->thread == std::this_thread::get_id() && t_capture_mode != cudaStreamCaptureModeRelaxed)
        fprintf(
            stderr,
            "[ptxemu] warning: %s on stream %p runs now: only work on stream %p becomes part of the graph\n",
            what, (void *)s, (void *)c->origin);
    }
  }
  return f();
}

static double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

API cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority) {
  *s = (cudaStream_t) new Stream{flags, priority};
  return cudaSuccess;
}

API cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) {
  return cudaStreamCreateWithPriority(s, flags, 0);
}

API cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithPriority(s, 0, 0); }

API cudaStreamDestroy(cudaStream_t s) {
  if ((uint64_t)s > 2) delete (Stream *)s;
  return cudaSuccess;
}

API cudaStreamSynchronize(cudaStream_t s) { return forbid_sync(s, false, "cudaStreamSynchronize"); }

API cudaStreamQuery(cudaStream_t s) { return forbid_sync(s, false, "cudaStreamQuery"); }

API cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  std::lock_guard<std::recursive_mutex> guard(g_capture_mutex);
  Event *event = (Event *)e;
  Capture *c = capture_of(s);
  for (Capture *x : g_captures)
    if (event->capture == x->id) { // the stream joins the capture, or learns what the event knows
      if (c && c != x)
        return capture_error(x, cudaErrorStreamCaptureMerge, "cudaStreamWaitEvent",
                             "would merge two captures");
      Clock &known = x->clock[s];
      for (auto &p : event->clock) known[p.first] = std::max(known[p.first], p.second);
      return cudaSuccess;
    }
  if (c && event->recorded && !event->capture)
    return capture_error(c, cudaErrorStreamCaptureIsolation, "cudaStreamWaitEvent",
                         "a capturing stream waits for work outside the capture");
  return cudaSuccess;
}

API cudaStreamGetPriority(cudaStream_t s, int *p) {
  *p = (uint64_t)s > 2 ? ((Stream *)s)->priority : 0;
  return cudaSuccess;
}

API cudaStreamGetFlags(cudaStream_t s, unsigned *f) {
  *f = (uint64_t)s > 2 ? ((Stream *)s)->flags : 0;
  return cudaSuccess;
}

API cudaStreamGetDevice(cudaStream_t, int *d) {
  *d = 0;
  return cudaSuccess;
}

API cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void *d) {
  return submit(s, "cudaLaunchHostFunc", [=] { return f(d), cudaSuccess; });
}

API cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t f, void *d, unsigned) {
  f(s, cudaSuccess, d);
  return cudaSuccess;
}

API cudaEventCreate(cudaEvent_t *e) {
  *e = (cudaEvent_t) new Event{now()};
  return cudaSuccess;
}

API cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) { return cudaEventCreate(e); }

API cudaEventDestroy(cudaEvent_t e) {
  delete (Event *)e;
  return cudaSuccess;
}

API cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned flags) {
  std::lock_guard<std::recursive_mutex> guard(g_capture_mutex);
  Event *event = (Event *)e;
  Capture *c = capture_of(s);
  if (c && flags == cudaEventRecordExternal)
    return submit(s, "cudaEventRecord", [=] { return event->milliseconds = now(), cudaSuccess; });
  event->milliseconds = now();
  event->recorded = true;
  event->capture = c ? c->id : 0;
  event->clock = c ? c->clock[s] : Clock();
  return cudaSuccess;
}

API cudaEventRecord(cudaEvent_t e, cudaStream_t s) { return cudaEventRecordWithFlags(e, s, 0); }

static cudaError_t forbid_captured_event(cudaEvent_t e, const char *what) {
  if (!((Event *)e)->capture) return cudaSuccess;
  fprintf(stderr, "[ptxemu] %s: the event was recorded in a capturing stream\n", what);
  return set_error(cudaErrorCapturedEvent);
}

API cudaEventQuery(cudaEvent_t e) {
  cudaError_t r = forbid_captured_event(e, "cudaEventQuery");
  return r ? r : forbid_during_capture("cudaEventQuery");
}

API cudaEventSynchronize(cudaEvent_t e) { return forbid_captured_event(e, "cudaEventSynchronize"); }

API cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
  cudaError_t r = forbid_captured_event(a, "cudaEventElapsedTime");
  if (!r) r = forbid_captured_event(b, "cudaEventElapsedTime");
  *ms = (float)(((Event *)b)->milliseconds - ((Event *)a)->milliseconds);
  return r;
}
