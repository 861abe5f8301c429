// The runtime: launches, and what kernels call while they run.

#include "runtime.h"

#include <memory>
#include <system_error>
#include <thread>

#include "runner.h"

namespace cuda_on_cpu {

CUDA_ON_CPU_FAST __thread Block *block;

namespace {

Runner &runner() { return *static_cast<Runner *>(block); }

char fences;  // stands for the order that fences make in the whole grid

}  // namespace

const char *run(const Launch &launch, const Kernel &kernel) {
  static std::mutex one_at_a_time;
  static std::vector<std::unique_ptr<Runner>> runners;
  static std::string sentence;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  Run run(launch, kernel);
  const unsigned crowd = unsigned(std::min<uint64_t>(launch.at_once, blocks_of(launch)));
  while (runners.size() < crowd) runners.push_back(std::make_unique<Runner>());
  std::vector<std::thread> others;
  try {
    for (unsigned k = 1; k < crowd; ++k) others.emplace_back([&, k] { runners[k]->run_blocks(run, k, crowd); });
  } catch (const std::system_error &) {
    run.stop("the system gives no more threads: take a smaller grid");
  }
  runners[0]->run_blocks(run, 0, crowd);
  for (std::thread &other : others) other.join();
  sentence = run.sentence;
  return run.failed ? sentence.c_str() : nullptr;
}

void fail(const char *site, const char *format, ...) {
  char buffer[300];
  va_list list;
  va_start(list, format);
  vsnprintf(buffer, sizeof buffer, format, list);
  va_end(list);
  runner().fail(site, buffer);
}

int meet_block(const char *site, int vote) {
  Runner &own = runner();
  own.thread->vote = vote;
  own.meet(State::at_block_barrier, site);
  return own.votes();
}

const uint64_t *meet_warp(const char *site, unsigned mask, uint64_t value) {
  Thread &own = *block->thread;
  Warp &warp = block->warps[own.number / 32];
  const unsigned lane = own.number % 32, first = own.number - lane;
  if (!(mask >> lane & 1)) fail(site, "lane %u is in a warp collective whose mask %#x does not name it", lane, mask);
  const unsigned there = block->threads - first;
  if (there < 32 && mask >> there) fail(site, "the mask %#x of a warp collective names lanes beyond the block", mask);
  own.mask = mask;
  own.value = value;
  own.meeting = ~0u;
  for (unsigned m = warp.waiting & mask; m && own.meeting == ~0u; m &= m - 1) {
    const Thread &other = (&own - lane)[__builtin_ctz(m)];
    if (other.mask == mask) own.meeting = other.meeting;
  }
  if (own.meeting == ~0u) own.meeting = warp.meetings++;
  warp.waiting |= 1u << lane;
  runner().meet(State::at_warp_collective, site);
  return warp.values;
}

void give_way(const char *site) { runner().give_way(site); }

void count_atomic() { runner().count_atomic(); }

void fence_block() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  runner().fence();
}

void fence_grid() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  order_before_me(&fences);
  order_after_me(&fences);
}

}  // namespace cuda_on_cpu
