// A runner: whose turn it is among the threads of a block, what happens when they meet, and block after block of a
// launch.
//
// The threads of a block run in rounds. In a round each thread that can run does, in a given order, until it has to
// wait or has come to its end; a thread that waits hands over to the next one itself. After a round the runtime lets
// those go on whose partners have all come. If nobody can go on and some have not come to their end, the launch has
// failed, with a sentence that says who waits where.
#pragma once

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "fibers.h"
#include "runtime.h"

namespace cuda_on_cpu {

using Clock = std::chrono::steady_clock;

constexpr unsigned MEETINGS = 64;    // addresses by which the meetings of a warp are ordered, used in turn
constexpr unsigned PATIENCE = 1024;  // atomic operations of a thread in a row, after which others get their turn

// A launch, as all its runners see it.
struct Run {
  const Launch &launch;
  const Kernel &kernel;

  Run(const Launch &launch, const Kernel &kernel) : launch(launch), kernel(kernel) {}

  std::atomic<bool> failed{false};
  std::atomic<unsigned> rounds{0};  // in which somebody got on, of all runners
  std::mutex mutex;
  std::string sentence;

  void stop(const std::string &why) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (sentence.empty()) sentence = why;
    failed = true;
  }
};

inline uint64_t blocks_of(const Launch &launch) { return uint64_t(launch.grid[0]) * launch.grid[1] * launch.grid[2]; }

// The block that comes k-th: shuffled, they go round the grid in steps that meet each of them once.
inline uint64_t block_at(const Launch &launch, uint64_t k) {
  const uint64_t n = blocks_of(launch), seed = launch.order * 0x9E3779B97F4A7C15u;
  if (launch.order < 2) return launch.order ? n - 1 - k : k;
  uint64_t step = 1 + (seed >> 32) % n;
  while (std::gcd(step, n) != 1) ++step;
  return uint64_t(((unsigned __int128)step * k + seed) % n);
}

// Denormal floats are flushed to zero while it lives, as CuPy has it on the card (-ftz=true).
#if defined(__SSE2__)
class Flush {
 public:
  explicit Flush(bool wanted) : before_(_mm_getcsr()) {
    if (wanted) _mm_setcsr(before_ | 0x8040);
  }
  ~Flush() { _mm_setcsr(before_); }

 private:
  const unsigned before_;
};
#else
struct Flush {
  explicit Flush(bool) {}
};
#endif

// Runs blocks, one after the other, in one thread of the system. It keeps its fibers from launch to launch.
class Runner : public Block {
 public:
  // Runs the blocks first, first + step, ... of a launch.
  void run_blocks(Run &run, uint64_t first, uint64_t step);

  // What the thread that runs calls.
  void run_thread();
  void meet(State, const char *site);
  void give_way(const char *site);
  void count_atomic();
  void fence();
  int votes() const { return votes_; }
  [[noreturn]] void fail(const char *site, const char *why);

 private:
  Thread *next();
  bool provide(unsigned count);
  void go_on(Fiber &own);
  void *order_of(const Thread &);

  void gather_warps();
  void gather_block();
  void explain();
  void wait();
  void stop_at(const Thread &, const char *site, const char *format, ...) __attribute__((format(printf, 4, 5)));
  bool failed() const { return run_->failed.load(std::memory_order_relaxed); }

  void lay_out(const Launch &);
  void shuffle();
  void run_block(uint64_t number);

  Run *run_ = nullptr;
  std::vector<Thread> all_;
  std::vector<Warp> all_warps_;
  std::vector<unsigned> order_;
  std::vector<Fiber *> idle_, used_;  // that run no thread, and may run one of this block, or not before the next
  Fiber home_;                        // the runner's own
  char *shared_ = nullptr, *shared_end_ = nullptr;  // static shared memory, to be filled before each block
  uint64_t chance_ = 0;

  unsigned alive_ = 0, ready_ = 0;                  // threads
  unsigned position_ = 0, ran_ = 0, gave_way_ = 0;  // of this round: where it stands, and how many threads did so
  unsigned phase_ = 0;                              // barriers so far
  int votes_ = 0;                                   // in the last one
  const Thread *last_ = nullptr;                    // that did an atomic operation
  unsigned atomics_ = 0;                            // that it did in a row
  unsigned rounds_seen_ = 0;
  Clock::time_point since_;

  char barriers_[2], started_, ended_, block_fences_;  // addresses that stand for an order
  std::vector<char> meetings_;
};

// Not inlined: a fiber may go on in another thread of the system than before, where `block` lies elsewhere.
__attribute__((noinline)) inline void run_next_thread() { static_cast<Runner *>(block)->run_thread(); }

// What every fiber does, for ever.
inline void run_threads() {
  arrive();
  for (;;) run_next_thread();
}

inline bool same(const char *a, const char *b) { return a == b || !strcmp(a, b); }

// Turns ---------------------------------------------------------------------------------------------------------------

// The next thread of this round that can run, or null.
inline Thread *Runner::next() {
  while (position_ < threads) {
    Thread *t = &all_[order_[position_++]];
    if (t->state == State::ready) {
      ++ran_;
      return t;
    }
  }
  return nullptr;
}

// Sees that so many fibers are idle; returns whether there are. Not inlined: it would burden every turn.
__attribute__((noinline)) inline bool Runner::provide(unsigned count) {
  while (idle_.size() < count) {
    Fiber *made = make_fiber(run_threads);
    if (!made) return run_->stop("there is no memory for the stacks of so many threads"), false;
    idle_.push_back(made);
  }
  return true;
}

// Hands over from the running fiber to the next thread, or home where the round is over.
inline void Runner::go_on(Fiber &own) {
  Thread *t = next();
  if (t && !t->fiber) {
    if (idle_.empty() && !provide(1)) {
      t = nullptr;
    } else {
      t->fiber = idle_.back();
      idle_.pop_back();
    }
  }
  thread = t;
  Fiber &to = t ? *t->fiber : home_;
  if (&to != &own) jump(own, to);
}

inline void Runner::meet(State state, const char *site) {
  Thread &own = *thread;
  own.state = state;
  own.site = site;
  --ready_;
  void *order = order_of(own);
  order_after_me(order);
  go_on(*own.fiber);
  order_before_me(order);
}

inline void Runner::give_way(const char *site) {
  ++gave_way_;
  thread->site = site;
  go_on(*thread->fiber);
}

inline void Runner::count_atomic() {
  if (thread != last_) last_ = thread, atomics_ = 0;
  if (++atomics_ % PATIENCE == 0) give_way("a loop of atomic operations");
}

inline void Runner::fence() {
  order_before_me(&block_fences_);
  order_after_me(&block_fences_);
}

// What stands for the order that the meeting makes in which a thread waits.
inline void *Runner::order_of(const Thread &t) {
  return t.state == State::at_block_barrier ? &barriers_[phase_ % 2]
                                            : &meetings_[t.number / 32 * MEETINGS + t.meeting % MEETINGS];
}

inline void Runner::run_thread() {
  order_before_me(&started_);
  run_->kernel.body(run_->kernel.arguments);
  Fiber *own = thread->fiber;
  thread->state = State::done;
  thread->fiber = nullptr;
  --ready_, --alive_;
  order_after_me(&ended_);
  (SHARE ? idle_ : used_).push_back(own);
  go_on(*own);
}

// Meetings ------------------------------------------------------------------------------------------------------------

// Lets the lanes go on whose whole mask has come to the same place.
inline void Runner::gather_warps() {
  for (Warp &warp : all_warps_) {
    Thread *lanes = &all_[32 * (&warp - &all_warps_[0])];
    for (unsigned left = warp.waiting; left;) {
      Thread &one = lanes[__builtin_ctz(left)];
      left &= left - 1;
      bool all_here = (warp.waiting & one.mask) == one.mask;
      for (unsigned m = one.mask; m; m &= m - 1) {
        const Thread &other = lanes[__builtin_ctz(m)];
        if (other.state == State::done) {
          return stop_at(one, one.site, "a warp collective names lane %d, which has left the kernel", __builtin_ctz(m));
        }
        all_here = all_here && other.mask == one.mask;
        if (all_here && !same(other.site, one.site)) {
          return stop_at(one, one.site, "lanes meet in different warp collectives, also %s", other.site);
        }
      }
      if (!all_here) continue;
      for (unsigned m = one.mask; m; m &= m - 1) {
        Thread &other = lanes[__builtin_ctz(m)];
        warp.values[__builtin_ctz(m)] = other.value;
        other.state = State::ready;
      }
      warp.waiting &= ~one.mask;
      left &= ~one.mask;
      ready_ += __builtin_popcount(one.mask);
    }
  }
}

// Lets the threads of the block go on if all of them have come to the same barrier; nobody else can run.
inline void Runner::gather_block() {
  votes_ = 0;
  for (const Thread &t : all_) {
    if (t.state != State::at_block_barrier || !same(t.site, all_[0].site)) return explain();
    votes_ += t.vote;
  }
  for (Thread &t : all_) t.state = State::ready;
  ready_ = threads;
  ++phase_;
}

// Says why nobody can run.
inline void Runner::explain() {
  const Thread *barrier = nullptr;
  for (const Thread &t : all_) {
    if (t.state == State::at_warp_collective) {
      for (unsigned m = t.mask; m; m &= m - 1) {
        const Thread &other = all_[t.number / 32 * 32 + __builtin_ctz(m)];
        if (other.state == t.state && other.mask == t.mask) continue;
        return stop_at(t, t.site, "a warp collective with mask %#x waits for lane %d, which waits in %s", t.mask,
                       __builtin_ctz(m), other.site);
      }
    }
    if (t.state != State::at_block_barrier) continue;
    if (!barrier) barrier = &t;
    if (!same(t.site, barrier->site))
      return stop_at(t, t.site, "threads wait in different barriers, also %s", barrier->site);
  }
  stop_at(*barrier, barrier->site, "a barrier waits for %u threads that have left the kernel", threads - alive_);
}

// Everybody who could run only gave way: time for other blocks, unless none of them gets on either.
inline void Runner::wait() {
  const unsigned rounds = run_->rounds.load(std::memory_order_relaxed);
  const Clock::time_point now = Clock::now();
  if (rounds != rounds_seen_) {
    rounds_seen_ = rounds;
    since_ = now;
  } else if (std::chrono::duration<double>(now - since_).count() > run_->launch.patience) {
    const char *cure =
        run_->launch.at_once < blocks_of(run_->launch) ? ": a barrier of the grid needs a cooperative launch" : "";
    for (const Thread &t : all_) {
      if (t.state == State::ready)
        return stop_at(t, t.site, "nobody got on for %g seconds%s", run_->launch.patience, cure);
    }
  }
  sched_yield();
}

// The launch has failed, since this thread waits at this site.
inline void Runner::stop_at(const Thread &t, const char *site, const char *format, ...) {
  char why[300], sentence[600];
  va_list list;
  va_start(list, format);
  vsnprintf(why, sizeof why, format, list);
  va_end(list);
  const uint3 b = index, own = t.index;
  snprintf(sentence, sizeof sentence, "%s: %s [block (%u, %u, %u), thread (%u, %u, %u)]", site, why, b.x, b.y, b.z,
           own.x, own.y, own.z);
  run_->stop(sentence);
}

inline void Runner::fail(const char *site, const char *why) {
  stop_at(*thread, site, "%s", why);
  jump(*thread->fiber, home_);
  abort();
}

// Blocks --------------------------------------------------------------------------------------------------------------

inline void Runner::lay_out(const Launch &launch) {
  const unsigned *n = launch.block;
  grid = {launch.grid[0], launch.grid[1], launch.grid[2]};
  if (size.x == n[0] && size.y == n[1] && size.z == n[2] && threads) return;
  size = {n[0], n[1], n[2]};
  threads = n[0] * n[1] * n[2];
  all_.assign(threads, Thread{});
  all_warps_.assign((threads + 31) / 32, Warp{});
  warps = all_warps_.data();
  order_.resize(threads);
  meetings_.resize(MEETINGS * all_warps_.size());
  for (unsigned k = 0; k < threads; ++k) {
    all_[k].number = k;
    all_[k].index = {k % n[0], k / n[0] % n[1], k / (n[0] * n[1])};
  }
}

inline void Runner::shuffle() {
  for (unsigned k = threads; k > 1; --k) {
    chance_ = chance_ * 6364136223846793005u + 1442695040888963407u;
    std::swap(order_[k - 1], order_[(chance_ >> 33) % k]);
  }
}

inline void Runner::run_block(uint64_t number) {
  index = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
  if (run_->launch.dynamic_shared) memset(dynamic_shared, 0xFF, run_->launch.dynamic_shared);
  memset(shared_, 0xFF, shared_end_ - shared_);
  for (Thread &t : all_) t.state = State::ready;
  alive_ = ready_ = threads;
  order_after_me(&started_);
  while (alive_ && !failed()) {
    if (run_->launch.order > 1) shuffle();
    position_ = ran_ = gave_way_ = 0;
    go_on(home_);
    if (gave_way_ == ran_) {
      wait();
    } else {
      run_->rounds.fetch_add(1, std::memory_order_relaxed);
    }
    if (!failed()) gather_warps();
    if (!failed() && alive_ && !ready_) gather_block();
  }
  order_before_me(&ended_);
  for (Thread &t : all_) {  // of a launch that has failed
    if (t.fiber) drop(t.fiber, home_);
    t.fiber = nullptr;
  }
  for (Warp &warp : all_warps_) warp.waiting = 0;
  idle_.insert(idle_.end(), used_.begin(), used_.end());
  used_.clear();
}

inline void Runner::run_blocks(Run &run, uint64_t first, uint64_t step) {
  const Launch &launch = run.launch;
  const Flush flush(launch.flush_denormals);
  run_ = &run;
  rounds_seen_ = ~0u;
  lay_out(launch);
  adopt(home_);
  // here, since the sanitizer sees memory that is allocated in a fiber as the CUDA thread's
  if (!SHARE && !provide(threads)) return;
  used_.reserve(idle_.size());
  dynamic_shared = nullptr;
  void *room = nullptr;  // of the exact size and alignment, for the mode "address"
  if (launch.dynamic_shared && posix_memalign(&room, 16, launch.dynamic_shared))
    return run.stop("there is no memory for a block's shared memory");
  dynamic_shared = static_cast<char *>(room);
  shared_ = shared_end_ = nullptr;
  if (run.kernel.find_shared) run.kernel.find_shared(&shared_, &shared_end_);
  for (unsigned k = 0; k < threads; ++k) order_[k] = launch.order == 1 ? threads - 1 - k : k;
  chance_ = launch.order * 0x9E3779B97F4A7C15u + first;
  block = this;
  for (uint64_t k = first; k < blocks_of(launch) && !run.failed; k += step) run_block(block_at(launch, k));
  block = nullptr;
  free(room);
}

}  // namespace cuda_on_cpu
