// What the kernels do with a random word, for words that are chosen: thresholds at their edges, which no draw would
// meet.

#include "device.cuh"
#include "philox.cuh"
#include "bernoulli.cuh"

extern "C" __global__ void noisy_bits(const u32 *words, const u64 *lost, const u64 *pi, const u8 *x0, u8 *x_t, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x_t[i] = words[i] < noisy_below(lost[i], pi[i], x0[i]);
}

extern "C" __global__ void below_float(const u32 *words, const float *p, u8 *yes, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) yes[i] = words[i] < next_word(p[i]);
}

extern "C" __global__ void philox_words(const u64 *address, u32 *out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const Words words = philox({address[4 * i], address[4 * i + 1], address[4 * i + 2]}, address[4 * i + 3]);
  for (int k = 0; k < 4; ++k) out[4 * i + k] = words[k];
}

// Which draws of (rows, D) lie below their thresholds; address : seed, stream, step, first row, D.
extern "C" __global__ void draws_below(const u64 *threshold, const u64 *address, u8 *out, int n) {
  const int D = int(address[4]), parts = (D + 15) / 16, i = blockIdx.x * blockDim.x + threadIdx.x, r = i / parts;
  if (i >= n / D * parts) return;
  const u32 yes = draw_below({address[0], address[1], address[2]}, address[3] + r, i % parts, D,
                             [&](int d) { return threshold[r * D + d]; });
  for (int k = 0; k < 16; ++k) {
    if (i % parts * 16 + k < D) out[r * D + i % parts * 16 + k] = yes >> k & 1;
  }
}

extern "C" __global__ void phi_float(const float *y, float *out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = phi(y[i], log(1.0f + y[i]));
}
