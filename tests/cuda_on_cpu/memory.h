// Memory that several threads use: atomic operations, fences, and loads and stores with a hint to the cache.
#pragma once

#include <type_traits>

#include "runtime.h"

namespace cuda_on_cpu {

// Atomics order nothing but themselves (relaxed), as on the card: what one publishes stands between fences.
template <typename T>
constexpr void check_atomic() {
  static_assert(!std::is_floating_point_v<T>,
                "no atomics on floats: their order is chance, and so would be the rounding");
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, long long> ||
                    std::is_same_v<T, unsigned long long>,
                "CUDA has atomics on int, unsigned and (unsigned) long long");
}

template <typename T>
using As = std::enable_if_t<true, T>;  // a parameter that is converted to T, and does not decide what T is

// *p = change(*p), at once for all threads; returns what was there.
template <typename T, typename Change>
T update(T *p, Change change) {
  check_atomic<T>();
  count_atomic();
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(p, &old, change(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_ATOMIC(name, builtin)                 \
  template <typename T>                                   \
  T name(T *p, ::cuda_on_cpu::As<T> value) {              \
    ::cuda_on_cpu::check_atomic<T>();                     \
    ::cuda_on_cpu::count_atomic();                        \
    return builtin(p, value, __ATOMIC_RELAXED);           \
  }
CUDA_ON_CPU_ATOMIC(atomicAdd, __atomic_fetch_add)
CUDA_ON_CPU_ATOMIC(atomicSub, __atomic_fetch_sub)
CUDA_ON_CPU_ATOMIC(atomicAnd, __atomic_fetch_and)
CUDA_ON_CPU_ATOMIC(atomicOr, __atomic_fetch_or)
CUDA_ON_CPU_ATOMIC(atomicXor, __atomic_fetch_xor)
CUDA_ON_CPU_ATOMIC(atomicExch, __atomic_exchange_n)

template <typename T>
T atomicMin(T *p, ::cuda_on_cpu::As<T> value) {
  return ::cuda_on_cpu::update(p, [=](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicMax(T *p, ::cuda_on_cpu::As<T> value) {
  return ::cuda_on_cpu::update(p, [=](T old) { return value > old ? value : old; });
}
template <typename T>
T atomicCAS(T *p, ::cuda_on_cpu::As<T> expected, ::cuda_on_cpu::As<T> value) {
  return ::cuda_on_cpu::update(p, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned *p, unsigned last) {
  return ::cuda_on_cpu::update(p, [=](unsigned old) { return old >= last ? 0 : old + 1; });
}
inline unsigned atomicDec(unsigned *p, unsigned last) {
  return ::cuda_on_cpu::update(p, [=](unsigned old) { return old == 0 || old > last ? last : old - 1; });
}

inline void __threadfence() { ::cuda_on_cpu::fence_grid(); }
inline void __threadfence_block() { ::cuda_on_cpu::fence_block(); }
#define __nanosleep(nanoseconds) (static_cast<void>(nanoseconds), ::cuda_on_cpu::give_way(CUDA_ON_CPU_SITE))

#define CUDA_ON_CPU_LOAD(name) \
  template <typename T>        \
  T name(const T *p) {         \
    return *p;                 \
  }
CUDA_ON_CPU_LOAD(__ldg)
CUDA_ON_CPU_LOAD(__ldca)
CUDA_ON_CPU_LOAD(__ldcg)
CUDA_ON_CPU_LOAD(__ldcs)

#define CUDA_ON_CPU_STORE(name)                     \
  template <typename T>                             \
  void name(T *p, ::cuda_on_cpu::As<T> value) {     \
    *p = value;                                     \
  }
CUDA_ON_CPU_STORE(__stcg)
CUDA_ON_CPU_STORE(__stcs)
CUDA_ON_CPU_STORE(__stwb)
CUDA_ON_CPU_STORE(__stwt)
