// Fibers: stacks of their own between which one thread of the system switches, in some nanoseconds, without asking the
// system.
//
// Sanitizers have to be told of every switch. For the mode "thread" each fiber is a thread whose accesses nothing
// orders but what the runtime declares by order_after_me and order_before_me.
#pragma once

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef CUDA_ON_CPU_UCONTEXT
#include <ucontext.h>
#endif

#ifdef CUDA_ON_CPU_ADDRESS
extern "C" void __sanitizer_start_switch_fiber(void **own, const void *bottom, size_t size);
extern "C" void __sanitizer_finish_switch_fiber(void *own, const void **old_bottom, size_t *old_size);
extern "C" void __asan_unpoison_memory_region(const volatile void *, size_t);
#endif
#ifdef CUDA_ON_CPU_THREAD
extern "C" void *__tsan_get_current_fiber();
extern "C" void *__tsan_create_fiber(unsigned);
extern "C" void __tsan_destroy_fiber(void *);
extern "C" void __tsan_switch_to_fiber(void *, unsigned);
extern "C" void __tsan_acquire(void *);
extern "C" void __tsan_release(void *);
#endif

namespace cuda_on_cpu {

#ifdef CUDA_ON_CPU_THREAD
// What the caller did comes before what others do after `order_before_me` with the same address.
inline void order_after_me(void *address) { __tsan_release(address); }
inline void order_before_me(void *address) { __tsan_acquire(address); }
// whether a fiber may run several CUDA threads, one after the other: they would count as ordered
constexpr bool SHARE = false;
#else
inline void order_after_me(void *) {}
inline void order_before_me(void *) {}
constexpr bool SHARE = true;
#endif

#if defined(CUDA_ON_CPU_ADDRESS) || defined(CUDA_ON_CPU_THREAD)
constexpr size_t STACK = 256 << 10;  // sanitizers lay gaps around local variables
#else
constexpr size_t STACK = 64 << 10;
#endif

struct Fiber {
  char *stack = nullptr;
  size_t size = 0;
#ifdef CUDA_ON_CPU_UCONTEXT
  ucontext_t context;
#else
  void *top = nullptr;
#endif
#ifdef CUDA_ON_CPU_ADDRESS
  void *fake = nullptr;
#endif
#ifdef CUDA_ON_CPU_THREAD
  void *twin = nullptr;
#endif
};

#ifndef CUDA_ON_CPU_UCONTEXT
// Pushes what a function must preserve, changes stacks, and pops it: (where the old top of stack goes, the new one).
extern "C" void cuda_on_cpu_switch(void **, void *);
asm(R"(
  .text
  .p2align 4
  .type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");
#endif

// Leaves `from` where it stands and goes on with `to`.
inline void jump(Fiber &from, Fiber &to) {
#ifdef CUDA_ON_CPU_THREAD
  __tsan_switch_to_fiber(to.twin, 1);  // 1: without an order between the two
#endif
#ifdef CUDA_ON_CPU_ADDRESS
  __sanitizer_start_switch_fiber(&from.fake, to.stack, to.size);
#endif
#ifdef CUDA_ON_CPU_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  cuda_on_cpu_switch(&from.top, to.top);
#endif
#ifdef CUDA_ON_CPU_ADDRESS
  __sanitizer_finish_switch_fiber(from.fake, nullptr, nullptr);
#endif
}

// To be called first on a fiber's own stack.
inline void arrive() {
#ifdef CUDA_ON_CPU_ADDRESS
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

// A fiber with a stack of its own, above a page that nobody may touch: too deep a stack is a fault, not silent damage.
// It runs `start`, which must not return. Null if there is no memory.
inline Fiber *make_fiber(void (*start)()) {
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  void *memory =
      mmap(nullptr, page + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  if (mprotect(memory, page, PROT_NONE)) {
    munmap(memory, page + STACK);
    return nullptr;
  }
  Fiber *fiber = new Fiber;
  fiber->stack = static_cast<char *>(memory) + page;
  fiber->size = STACK;
#ifdef CUDA_ON_CPU_THREAD
  fiber->twin = __tsan_create_fiber(0);
#endif
#ifdef CUDA_ON_CPU_UCONTEXT
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack;
  fiber->context.uc_stack.ss_size = STACK;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, start, 0);
#else
  // a function finds the stack 8 bytes off a multiple of 16
  void **top = reinterpret_cast<void **>(fiber->stack + STACK) - 1;
  *--top = reinterpret_cast<void *>(start);
  fiber->top = top - 6;
#endif
  return fiber;
}

// The end of a fiber that stands somewhere in a kernel and will not go on. What it did comes before what `home`, the
// caller, does next.
inline void drop(Fiber *fiber, [[maybe_unused]] Fiber &home) {
#ifdef CUDA_ON_CPU_ADDRESS
  __asan_unpoison_memory_region(fiber->stack, STACK);
#endif
#ifdef CUDA_ON_CPU_THREAD
  char end;
  __tsan_switch_to_fiber(fiber->twin, 1);
  __tsan_release(&end);
  __tsan_switch_to_fiber(home.twin, 1);
  __tsan_acquire(&end);
  __tsan_destroy_fiber(fiber->twin);
#endif
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  munmap(fiber->stack - page, page + STACK);
  delete fiber;
}

// Makes a fiber of the calling thread of the system, as it runs.
inline void adopt([[maybe_unused]] Fiber &fiber) {
#ifdef CUDA_ON_CPU_ADDRESS
  static thread_local void *stack;
  static thread_local size_t size;
  if (!stack) {
    pthread_attr_t attributes;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &stack, &size);
    pthread_attr_destroy(&attributes);
  }
  fiber.stack = static_cast<char *>(stack);
  fiber.size = size;
#endif
#ifdef CUDA_ON_CPU_THREAD
  fiber.twin = __tsan_get_current_fiber();
#endif
}

}  // namespace cuda_on_cpu
