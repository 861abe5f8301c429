// Warp collectives. Each lane brings up to 8 bytes; when all lanes of the mask have come, each takes from what they
// brought.
#pragma once

#include <string.h>

#include "runtime.h"

namespace cuda_on_cpu {

inline void sync_warp(const char *site, unsigned mask = ~0u) { meet_warp(site, mask, 0); }

inline unsigned ballot(const char *site, unsigned mask, bool vote) {
  const uint64_t *votes = meet_warp(site, mask, vote);
  unsigned found = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) found |= unsigned(votes[lane]) << lane;
  }
  return found;
}

enum class Shuffle { from, up, down, exclusive_or };

// The value of another lane of the same segment of `width` lanes, or the lane's own where that one would lie outside.
template <Shuffle kind, typename T>
T shuffle(const char *site, unsigned mask, T value, int by, int width = 32) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
  if (width < 1 || width > 32 || (width & (width - 1)))
    fail(site, "a shuffle's width is a power of two up to 32, not %d", width);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  const uint64_t *values = meet_warp(site, mask, bits);
  const int lane = block->thread->number % 32, first = lane & -width, stop = first + width;
  int source = kind == Shuffle::from   ? first + (by & (width - 1))
               : kind == Shuffle::up   ? lane - by
               : kind == Shuffle::down ? lane + by
                                       : lane ^ by;
  if (source >= stop || (kind != Shuffle::exclusive_or && source < first)) source = lane;
  if (!(mask >> source & 1)) fail(site, "a shuffle reads lane %d, which its mask %#x does not name", source, mask);
  memcpy(&value, &values[source], sizeof value);
  return value;
}

}  // namespace cuda_on_cpu

#define __syncwarp(...) ::cuda_on_cpu::sync_warp(CUDA_ON_CPU_SITE __VA_OPT__(, ) __VA_ARGS__)
#define __ballot_sync(mask, vote) ::cuda_on_cpu::ballot(CUDA_ON_CPU_SITE, mask, (vote) != 0)
#define __any_sync(mask, vote) (::cuda_on_cpu::ballot(CUDA_ON_CPU_SITE, mask, (vote) != 0) != 0)
#define __all_sync(mask, vote) (::cuda_on_cpu::ballot(CUDA_ON_CPU_SITE, mask, !(vote)) == 0)

#define CUDA_ON_CPU_SHUFFLE(kind, mask, value, ...) \
  ::cuda_on_cpu::shuffle<::cuda_on_cpu::Shuffle::kind>(CUDA_ON_CPU_SITE, mask, value, __VA_ARGS__)
#define __shfl_sync(mask, value, ...) CUDA_ON_CPU_SHUFFLE(from, mask, value, __VA_ARGS__)
#define __shfl_up_sync(mask, value, ...) CUDA_ON_CPU_SHUFFLE(up, mask, value, __VA_ARGS__)
#define __shfl_down_sync(mask, value, ...) CUDA_ON_CPU_SHUFFLE(down, mask, value, __VA_ARGS__)
#define __shfl_xor_sync(mask, value, ...) CUDA_ON_CPU_SHUFFLE(exclusive_or, mask, value, __VA_ARGS__)
