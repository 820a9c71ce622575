// The interface between generated kernels, the runtime library, the stand-in device and ptxemu/abi.py.
//
// Runtime functions take the warp, the mask of lanes that execute the instruction, operands (an address is a
// lane vector and a constant offset) and the PTX line for messages.
#pragma once
#include "vec.hpp"

// what a block returns as the next one: the end of the kernel; a block per lane, in Warp::brx
enum { PC_EXIT = 0xffffffffu, PC_MULTI = 0xfffffffeu };

// lanes should converge before the block; the block ends in a barrier
enum BlockFlag { BF_CONV = 1, BF_BAR = 2 };

// classes of the instruction counters, in the order of ptxemu/lower/classes.py
enum InstrClass {
  CL_INT,
  CL_FP32,
  CL_FP64,
  CL_HALF,
  CL_SFU,
  CL_CVT,
  CL_MOV,
  CL_PRED,
  CL_LDG,
  CL_STG,
  CL_LDS,
  CL_STS,
  CL_LDL,
  CL_ATOM,
  CL_MMA,
  CL_LDSM,
  CL_CPASYNC,
  CL_BAR,
  CL_BRANCH,
  CL_WARP,
  CL_OTHER,
  CLASS_COUNT
};

enum { COUNTERS_AFTER_CLASSES = 21 }; // ptxemu/counters.py names them

// see Module.launch in ptxemu/module.py
struct LaunchOptions {
  uint32_t count, race, threads, seed, quantum, check_init, max_errors, cooperative;
  uint64_t max_blocks;
};

struct Warp;
struct Cta;
typedef uint64_t (*BlockFn)(Warp *,
                            uint32_t mask); // returns the next block | lanes that jump to target << 32

// a basic block: where its branch goes, its first PTX line, how many instructions of each class it has
struct BlockDesc {
  BlockFn fn;
  uint32_t target, flags, line;
  uint16_t cls[CLASS_COUNT];
};

// from PTX line `ptx` on, the source is at this line of this file
struct LocationDesc {
  uint32_t ptx, file, line;
};

struct KernelDesc {
  const char *name;
  const BlockDesc *blocks;
  uint32_t block_count, register_file_bytes, shared_static, shared_align, local_bytes, param_count,
      param_bytes;
  const uint32_t *param_offset, *param_size;
  uint32_t race_granularity, max_threads, cluster[3], uses_mbarrier, sm, has_dynamic_shared;
  const LocationDesc *locations;
  uint32_t location_count;
  const char *const *files;
};

struct VariableDesc {
  const char *name;
  void *pointer;
  uint64_t size;
  uint32_t space;
};

struct ModuleDesc {
  uint32_t kernel_count, variable_count;
  const KernelDesc *kernels;
  const VariableDesc *variables;
};

// lanes that are at the same block; state: 0 they can run, 1 + id they wait at a barrier
struct Group {
  uint32_t pc, mask, state;
};

struct Warp {
  char *rf; // register file
  Cta *cta;
  V32 tid[3];
  uint32_t wid, group_count; // index in its CTA; groups of lanes
  uint32_t live, nlanes;     // lanes that have not exited; lanes it started with
  uint32_t yield, bypass;    // give up the turn; how often converging lanes were passed over
  Group groups[33];
  // the barrier that the last block ended in, and the result of bar.red
  uint32_t bar_id, bar_cnt, bar_kind, bar_op, bar_pred, bar_result;
  uint32_t brx[32]; // where brx.idx sends each lane
  char *local_base;
  uint32_t local_stride; // lane l: local_base + l*local_stride
  const char *params;
  uint32_t ntid[3], ctaid[3], nctaid[3], cluster_ctaid[3], cluster_nctaid[3], cluster_rank, cluster_size,
      dyn_smem, tot_smem, gridid;
  uint64_t gridws;
  void *cp;               // cp.async queue
  void *wg;               // wgmma / bulk state
  uint32_t cluster_token; // phase of the cluster barrier at its arrival
  uint32_t wg_pend;       // registers that hold accumulators in flight (race mode)
};

extern "C" {
// loads and stores of global (g), shared (s) and local (l) memory; es = bytes of an element, nv = elements
// per lane; dst and src hold nv lane vectors (V16 for elements of 1 and 2 bytes)
#define DECL_MEM(es, nv) \
  void pe_ldg_##es##_##nv(Warp *, P m, const V64 *a, int64_t imm, void *dst, uint32_t line); \
  void pe_stg_##es##_##nv(Warp *, P m, const V64 *a, int64_t imm, const void *src, uint32_t line); \
  void pe_lds_##es##_##nv(Warp *, P m, const V32 *a, int64_t imm, void *dst, uint32_t line); \
  void pe_sts_##es##_##nv(Warp *, P m, const V32 *a, int64_t imm, const void *src, uint32_t line); \
  void pe_ldl_##es##_##nv(Warp *, P m, const V32 *a, int64_t imm, void *dst, uint32_t line); \
  void pe_stl_##es##_##nv(Warp *, P m, const V32 *a, int64_t imm, const void *src, uint32_t line);
#define FOR_MEM(X) \
  X(1, 1) \
  X(1, 2) X(1, 4) X(2, 1) X(2, 2) X(2, 4) X(2, 8) X(4, 1) X(4, 2) X(4, 4) X(4, 8) X(8, 1) X(8, 2) X(8, 4)
FOR_MEM(DECL_MEM)

// atomics; space: 0 global, 1 shared; dst may be null (red)
enum AtomicType {
  AD_U32,
  AD_S32,
  AD_U64,
  AD_S64,
  AD_F32,
  AD_F64,
  AD_F16,
  AD_BF16,
  AD_F16X2,
  AD_BF16X2,
  AD_B16
};

enum AtomicOp { AO_ADD, AO_MIN, AO_MAX, AO_AND, AO_OR, AO_XOR, AO_INC, AO_DEC, AO_EXCH, AO_CAS };

void pe_atom(Warp *, P m, int space, const void *addr, int64_t imm, int dt, int op, int nv, const void *b,
             const void *c, void *dst, uint32_t line);
V64 pe_shared_to_generic(Warp *, const V64 *);
V64 pe_generic_to_shared(Warp *, P m, const V64 *, uint32_t line);
V64 pe_local_to_generic(Warp *, const V64 *);
V64 pe_generic_to_local(Warp *, const V64 *);
P pe_isspace(Warp *, P m, const V64 *, int space);
// warp ops
void pe_shfl(Warp *, P m, int mode, const V32 *src, const V32 *lane, const V32 *clamp, const V32 *members,
             V32 *dst, P *pred, uint32_t line);
void pe_warpsync(Warp *, P m, const V32 *members, uint32_t line);
void pe_match(Warp *, P m, int all, const V64 *v, const V32 *members, V32 *dst, P *pred);
P pe_vote(Warp *, P m, int kind, P pred, const V32 *members, V32 *ballot, uint32_t line);
void pe_wmma_mem(Warp *, P m, int load, int rows, int cols, int col, int es, int n, int shared,
                 const void *addr, int64_t imm, const V32 *stride, V32 *r, uint32_t line);
void pe_wmma(Warp *, P m, int mm, int nn, int kk, int ta, int c32, int d32, const V32 *a, const V32 *b,
             const V32 *c, V32 *d, uint32_t line);

enum ReduceOp {
  REDUCE_ADD,
  REDUCE_MIN_UNSIGNED,
  REDUCE_MAX_UNSIGNED,
  REDUCE_MIN_SIGNED,
  REDUCE_MAX_SIGNED,
  REDUCE_AND,
  REDUCE_OR,
  REDUCE_XOR,
  REDUCE_MIN_FLOAT,
  REDUCE_MAX_FLOAT
};

void pe_redux(Warp *, P m, int op, const V32 *v, const V32 *members, V32 *dst);
void pe_ldmatrix(Warp *, P m, const V32 *a, int64_t imm, int n, int trans, V32 *dst, uint32_t line);
void pe_stmatrix(Warp *, P m, const V32 *a, int64_t imm, int n, int trans, const V32 *src, uint32_t line);
void pe_movmatrix(Warp *, P m, const V32 *a, V32 *d, uint32_t line);

// matrix operands; MT_F32 is tf32 as a factor
enum MatrixType { MT_F16, MT_BF16, MT_F32, MT_S8, MT_U8, MT_F64, MT_E4M3, MT_E5M2, MT_S32 };

void pe_mma(Warp *, P m, int mm, int nn, int kk, int ta, int tb, int tc, int td, const void *a, const void *b,
            const void *c, void *d, uint32_t line);
// cp.async
void pe_cp_async(Warp *, P m, const V32 *dst, int64_t dimm, const V64 *src, int64_t simm, int size,
                 const V32 *srcsize, P ignore, uint32_t line);
void pe_cp_commit(Warp *, P m);
void pe_cp_wait(Warp *, P m, uint32_t n, uint32_t line);
void pe_cp_wait_all(Warp *, P m, uint32_t line);
void pe_cp_mbar_arrive(Warp *, P m, const V32 *bar, int64_t imm, int noinc, uint32_t line);
// mbarrier
void pe_mbar_init(Warp *, P m, const V32 *a, int64_t imm, const V32 *cnt, uint32_t line);
void pe_mbar_inval(Warp *, P m, const V32 *a, int64_t imm, uint32_t line);

enum MbarArrive { MBAR_ARRIVE, MBAR_ARRIVE_DROP, MBAR_ARRIVE_EXPECT_TX, MBAR_EXPECT_TX, MBAR_COMPLETE_TX };

void pe_mbar_arrive(Warp *, P m, const V32 *a, int64_t imm, int kind, const V32 *cnt, V64 *state,
                    uint32_t line);
P pe_mbar_test(Warp *, P m, const V32 *a, int64_t imm, int parity, const V64 *stp, int is_try, uint32_t line);
// sm_90 bulk copies / wgmma
void pe_bulk_g2s(Warp *, P m, const V32 *dst, int64_t dimm, const V64 *src, int64_t simm, const V32 *size,
                 const V32 *bar, int64_t bimm, const V32 *mcast, uint32_t line);
void pe_bulk_s2g(Warp *, P m, const V64 *dst, int64_t dimm, const V32 *src, int64_t simm, const V32 *size,
                 uint32_t line);
void pe_tma_load(Warp *, P m, int nd, int im2col, const V32 *dst, int64_t dimm, const V64 *map, int64_t mimm,
                 const V32 *coords, const V16 *offs, const V32 *bar, int64_t bimm, const V32 *mcast,
                 uint32_t line);
void pe_tma_store(Warp *, P m, int nd, int red, const V64 *map, int64_t mimm, const V32 *coords,
                  const V32 *src, int64_t simm, uint32_t line);
void pe_tensormap_replace(Warp *, P m, int shared, const void *addr, int64_t imm, int field, int ord,
                          const V64 *val, uint32_t line);
void pe_tensormap_copy(Warp *, P m, const V64 *dst, int64_t dimm, const V32 *src, int64_t simm,
                       uint32_t line);
void pe_bulk_commit(Warp *, P m);
void pe_bulk_wait(Warp *, P m, int n, int read, uint32_t line);
void pe_wgmma(Warp *, P m, int n, int kk, int ta, int tb, int a_reg, const void *areg, const V64 *adesc,
              const V64 *bdesc, P scale_d, int sa, int sb, int tra, int trb, int dtype, V32 *d,
              uint32_t line);
// registers (by id) that hold accumulators of wgmma in flight: set by issue, copied by mov, an error when
// read
void pe_wg_issue(Warp *, P m, const uint16_t *ids, int n);
void pe_wg_copy(Warp *, P m, const uint16_t *dst, int nd, const uint16_t *src, int ns);
void pe_wg_read(Warp *, P m, const uint16_t *ids, int n, uint32_t line);
void pe_wgmma_commit(Warp *, P m);
void pe_wgmma_wait(Warp *, P m, int n);
// scalar-loop helpers
void pe_un(int op, const void *a, void *d);
void pe_bin(int op, const void *a, const void *b, void *d);
void pe_tri(int op, const void *a, const void *b, const void *c, void *d);
void pe_cvt(int dt, int st, int rnd, int sat, const void *a, void *d);
void pe_printf(Warp *, P m, const V64 *fmt, const V64 *args, V32 *ret);
void pe_trap(Warp *, P m, const char *what, uint32_t line);
void pe_assertfail(Warp *, P m, const V64 *msg, const V64 *file, const V32 *ln, const V64 *func,
                   uint32_t line);
uint64_t pe_clock();
uint64_t pe_globaltimer();
void pe_mapa_check(Warp *, P m);
V32 pe_mapa32(Warp *, P m, const V32 *a, const V32 *rank);
V64 pe_mapa64(Warp *, P m, const V64 *a, const V32 *rank, uint32_t line);
}

// operations of pe_un, pe_bin and pe_tri
enum UnaryOp {
  U_SIN,
  U_COS,
  U_TANH,
  U_EX2,
  U_LG2,
  U_RSQRT,
  U_RSQRT64,
  U_RCP64,
  U_BREV32,
  U_BREV64,
  U_BFIND_U32,
  U_BFIND_S32,
  U_BFIND_U64,
  U_BFIND_S64,
  U_EX2_F16X2,
  U_TANH_F16X2,
  U_EX2_BF16X2,
  U_TANH_BF16X2,
  U_TANH64
};

enum BinaryOp {
  B_DIVU16,
  B_DIVS16,
  B_REMU16,
  B_REMS16,
  B_DIVU32,
  B_DIVS32,
  B_REMU32,
  B_REMS32,
  B_DIVU64,
  B_DIVS64,
  B_REMU64,
  B_REMS64,
  B_MULHIU64,
  B_MULHIS64,
  B_ADDSATS32,
  B_SUBSATS32,
  B_MULWIDE_U64,
  // 16-bit float pairs: operate on the 2 (or 1) zmm of a V32 / V16
  B_HADD,
  B_HSUB,
  B_HMUL,
  B_HMIN,
  B_HMAX,
  B_HMINNAN,
  B_HMAXNAN,
  B_BADD,
  B_BSUB,
  B_BMUL,
  B_BMIN,
  B_BMAX,
  B_BMINNAN,
  B_BMAXNAN
};

enum TernaryOp {
  T_PRMT,
  T_BFE_U32,
  T_BFE_S32,
  T_BFE_U64,
  T_BFE_S64,
  T_DP4A_SS,
  T_DP4A_UU,
  T_DP4A_SU,
  T_DP4A_US,
  T_SAD_S32,
  T_SAD_U32
};

// types of pe_cvt
enum ConvertType {
  C_U8,
  C_S8,
  C_U16,
  C_S16,
  C_U32,
  C_S32,
  C_U64,
  C_S64,
  C_F16,
  C_BF16,
  C_F32,
  C_F64,
  C_E4M3,
  C_E5M2
};

enum RoundingMode { RN_N = 0, RN_M = 1, RN_P = 2, RN_Z = 3, RN_A = 4 };

#define R64(next, taken) ((uint64_t)(uint32_t)(next) | (uint64_t)(uint32_t)(taken) << 32)
extern const V32 pe_iota, pe_lt_mask, pe_le_mask, pe_gt_mask, pe_ge_mask, pe_eq_mask;
