// Where kernels meet the runtime: the state of the block that runs, and the calls by which its threads wait for each
// other.
//
// The runtime is a library of its own, compiled once for all modules and without sanitizers, which are to look at
// kernels alone.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vectors.h"

#pragma GCC visibility push(default)
namespace cuda_on_cpu {

struct Fiber;

enum class State : unsigned char { ready, at_block_barrier, at_warp_collective, done };

// A CUDA thread.
struct Thread {
  uint3 index;         // threadIdx
  unsigned number;     // in its block: x runs fastest
  unsigned mask;       // of the warp collective that it waits in
  int vote;            // what it brings to a block barrier
  uint64_t value;      // what it brings to a warp collective
  const char *site;    // "file:line" of what it waits in
  Fiber *fiber;        // null before it starts
  unsigned meeting;    // which of the warp's meetings it waits in (mode "thread")
  State state;
};

// The values that the lanes of a warp brought to its last collective.
struct Warp {
  uint64_t values[32];
  unsigned waiting;  // lanes that wait in a collective
  unsigned meetings;
};

// The block that the calling thread of the system runs.
struct Block {
  Thread *thread = nullptr;  // that runs now
  Warp *warps = nullptr;
  uint3 index{};
  dim3 size, grid;
  unsigned threads = 0;
  char *dynamic_shared = nullptr;
};
#define CUDA_ON_CPU_FAST __attribute__((tls_model("initial-exec")))  // found without a call
extern CUDA_ON_CPU_FAST __thread Block *block;

struct Launch {
  unsigned grid[3], block[3];
  unsigned dynamic_shared;  // bytes
  unsigned order;           // 0 forward, 1 backward, else the seed of a shuffle
  unsigned at_once;         // blocks that run at the same time; all of them in a cooperative launch
  unsigned flush_denormals;
  double patience;  // seconds in which nobody gets on, after which the launch has failed
};

// A module's own part of a launch.
struct Kernel {
  void (*body)(void *arguments);  // runs the thread `block->thread`
  void *arguments;
  // static shared memory of the calling thread of the system; may be null
  void (*find_shared)(char **begin, char **end);
};

// Runs all blocks. Returns a sentence that says what went wrong, or null; it stays until the next launch.
const char *run(const Launch &, const Kernel &);

// Ends the launch; nobody comes back from here.
[[noreturn]] void fail(const char *site, const char *format, ...) __attribute__((format(printf, 2, 3)));

// __syncthreads: comes back when all threads of the block have come to this site; the number of them that voted.
int meet_block(const char *site, int vote);

// A warp collective: comes back when all lanes of the mask have come to this site; what the 32 lanes brought.
const uint64_t *meet_warp(const char *site, unsigned mask, uint64_t value);

// Lets all others run that can.
void give_way(const char *site);

// Comes with every atomic operation: a loop of them that waits for another thread gives way now and then.
void count_atomic();

// What others wrote before such a fence of theirs is seen after this one: others of the same block, or of the whole
// grid.
void fence_block();
void fence_grid();

}  // namespace cuda_on_cpu
#pragma GCC visibility pop

// Where a barrier stands in the source, as the source's own #line says.
#define CUDA_ON_CPU_TEXT_(x) #x
#define CUDA_ON_CPU_TEXT(x) CUDA_ON_CPU_TEXT_(x)
#define CUDA_ON_CPU_SITE __FILE__ ":" CUDA_ON_CPU_TEXT(__LINE__)
