// The kernels of Bernoulli diffusion, one launch each: prior, q_sample, read, kl_grad, p_flip, p_sample.
//
// B rows of D bits, T steps. A thread draws the sixteen bytes of one Philox block, which are the noise of bits 16 j ..
// 16 j + 15 of a row. `clock` is (step, count) on the device: what a captured graph cannot be told from outside. Bounds
// are for an H100: 3.35 TB/s, 67 TFLOP/s, some 1.2e12 random draws a second (philox.cuh). Operations are of floating
// point; where none are named, all is integers.

#include "device.cuh"
#include "philox.cuh"
#include "bernoulli.cuh"

// Part j of row r, and which bits of the row it has, for thread number i of all.
struct Part {
  int r, j, lo, hi;
  __device__ __forceinline__ Part(u32 i, int D)
      : r(i / ((D + 15) / 16)), j(i % ((D + 15) / 16)), lo(16 * j), hi(min(D, 16 * j + 16)) {}
};

// Writes bits lo .. hi - 1 of a row, the k-th of `bits` a byte each. Eight of them go out in one store where rows lie on
// multiples of eight.
__device__ __forceinline__ void put(u8 *row, const Part &part, int D, u32 bits) {
  if (D % 8 == 0) {
    for (int lo = part.lo; lo < part.hi; lo += 8, bits >>= 8) {
      u64 all = 0;
#pragma unroll
      for (int k = 0; k < 8; ++k) all |= u64(bits >> k & 1) << (8 * k);
      *reinterpret_cast<u64 *>(row + lo) = all;
    }
  } else {
    for (int d = part.lo; d < part.hi; ++d, bits >>= 1) row[d] = bits & 1;
  }
}

// The bits of a part of a packed row, whose first bit is a byte's highest.
__device__ __forceinline__ u32 packed_bits(const u8 *row, const Part &part, int D) {
  const u32 first = row[2 * part.j], second = part.hi - part.lo > 8 ? row[2 * part.j + 1] : 0;
  return __brev(first << 24 | second << 16);
}

// prior: x_T ~ B(pi), x (B, D).
// Writes 1 byte a bit; one draw a bit: bound by the draws, .83 ps a bit.
template <int THREADS>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    prior(const u64 *pi, int per_bit, u64 seed, u64 stream, u64 step, u64 first_row, u8 *x, int B, int D) {
  const u32 i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= u32(B) * ((D + 15) / 16)) return;
  const Part part(i, D);
  const auto threshold = [&](int d) { return pi[per_bit ? d : 0]; };
  put(x + size_t(part.r) * D, part, D, draw_below({seed, stream, step}, first_row + part.r, part.j, D, threshold));
}

// q_sample: x_t ~ q(x_t | x_0), x_t (B, D): 1 where the word lies below floor(beta_bar_t pi) + (x_0 ? 1 - beta_bar_t :
// 0), in units of 2^-32. Reads and writes 1 byte a bit, .6 ps; one draw a bit: bound by the draws, .83 ps.
template <int THREADS, typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    q_sample(const Law<C> law, const u8 *x0, const long long *t, u64 seed, u64 stream, u64 step, u64 first_row, u8 *x_t,
             int B) {
  const int D = law.D;
  const u32 i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= u32(B) * ((D + 15) / 16)) return;
  const Part part(i, D);
  const u64 lost = law.noise[t[part.r]];
  const u8 *row = x0 + size_t(part.r) * D;
  const auto threshold = [&](int d) { return noisy_below(lost, pi_word(law, d), row[d]); };
  put(x_t + size_t(part.r) * D, part, D, draw_below({seed, stream, step}, first_row + part.r, part.j, D, threshold));
}

// q_batch: the same for rows that lie packed on the device: x_0 and x_t (B, D) of rows index[r], in a captured step.
// Reads 1/8 byte a bit, writes 2, .63 ps; one draw a bit: bound by the draws, .83 ps.
template <int THREADS, typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    q_batch(const Law<C> law, const u8 *packed, const int *index, int rows, const long long *t, u64 seed, u64 stream,
            const u64 *clock, u8 *x0, u8 *x_t, int B) {
  const int D = law.D;
  const u32 i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= u32(B) * ((D + 15) / 16)) return;
  const Part part(i, D);
  const u64 lost = law.noise[t[part.r]];
  const u32 clean = packed_bits(packed + size_t(index[clock[1] * rows + part.r % rows]) * ((D + 7) / 8), part, D);
  const auto threshold = [&](int d) { return noisy_below(lost, pi_word(law, d), clean >> (d - part.lo) & 1); };
  put(x0 + size_t(part.r) * D, part, D, clean);
  put(x_t + size_t(part.r) * D, part, D, draw_below({seed, stream, clock[0]}, part.r, part.j, D, threshold));
}

// unpack: rows index[r] of packed rows as bytes, x (B, D). Reads 1/8 byte a bit, writes 1: bound by bytes, .34 ps a
// bit.
template <int THREADS>
__global__ void __launch_bounds__(THREADS, BLOCKS) unpack(const u8 *packed, const int *index, u8 *x, int B, int D) {
  const u32 i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= u32(B) * ((D + 15) / 16)) return;
  const Part part(i, D);
  put(x + size_t(part.r) * D, part, D, packed_bits(packed + size_t(index[part.r]) * ((D + 7) / 8), part, D));
}

// read: the network's input x (B, W), bits as -1 and +1, and where W = 2 D each a second time times odds[t]; and the
// features of time f (B, F). Reads 1 byte a bit, writes 4 or 8: bound by bytes, 1.5 or 2.7 ps a bit; no operation.
template <int THREADS, typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    read(const u8 *x_t, const long long *t, const C *odds, const C *features, C *x, C *f, int B, int D, int W, int F) {
  const int r = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
  if (r >= B) return;
  for (int d = lane(); d < W; d += WARP) {
    const C size = d < D ? C(1) : odds[t[r]];
    x[size_t(r) * W + d] = x_t[size_t(r) * D + d % D] ? size : -size;
  }
  for (int j = lane(); j < F; j += WARP) f[size_t(r) * F + j] = features[size_t(t[r]) * F + j];
}

// kl_grad: KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), summed over the bits of a row, kl (B,) nats; and dlogits (B,
// D), its gradient with the auxiliary cross entropy's. logits (B, D) lack their bias (D,). A warp takes a row, so that
// the sum has one order; kl is written where logged[clock[1]] says so.
// Reads 4 + 2 bytes a bit, writes 4: bound by bytes, 3 ps a bit; some 40 operations a bit, 1 exponential; with the
// value 5 logarithms more.
template <int THREADS, typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    kl_grad(const Law<C> law, const C *logits, const C *bias, const u8 *x0, const u8 *x_t, const long long *t,
            const u8 *logged, const u64 *clock, C *kl, C *dlogits, int B) {
  const int D = law.D;
  const bool value = logged[clock[1]];
  const int r = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
  if (r >= B) return;  // whole warps leave
  C total = 0;
  for (int d = lane(); d < D; d += WARP) {
    const size_t i = size_t(r) * D + d;
    const bit::KL<C> one = bit::kl_grad(law, logits[i] + bias[d], x0[i], x_t[i], t[r], d, value);
    dlogits[i] = one.slope;
    total += one.value;
  }
  if (!value) return;
  total = warp_sum(total);
  if (lane() == 0) kl[r] = total;
}

// p_flip: p(x_{t-1} != x_t | x_t) of the learned reverse step, p (B, D).
// Reads 4 + 1 bytes a bit, writes 4: bound by bytes, 2.7 ps a bit; some 20 operations, 1 exponential.
template <int THREADS, typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    p_flip(const Law<C> law, const C *logits, const u8 *x_t, const long long *t, C *p, int B) {
  const int D = law.D;
  const int r = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
  if (r >= B) return;
  for (int d = lane(); d < D; d += WARP) {
    const size_t i = size_t(r) * D + d;
    const int v = x_t[i];
    const Columns<C> c = look_up(law, t[r], v, d);
    p[i] = bit::p_flip(law, c, sigmoids(bit::shown_logit(law, c, logits[i], v))).up;
  }
}

// p_sample: x_{t-1} ~ p(x_{t-1} | x_t), x_s (B, D), which may be x_t itself. Bits that are held (B, D) stay; null holds
// none. Reads 4 + 1 bytes a bit, writes 1, 1.8 ps; some 20 operations, 1 exponential and 1 draw, .83 ps: bound by bytes.
template <int THREADS, typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    p_sample(const Law<C> law, const C *logits, const C *bias, const u8 *x_t, const long long *t, const u8 *held,
             u64 seed, u64 stream, u64 step, u64 first_row, u8 *x_s, int B) {
  const int D = law.D;
  const u32 i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= u32(B) * ((D + 15) / 16)) return;
  const Part part(i, D);
  const size_t row = size_t(part.r) * D;
  u32 shown = 0;
  for (int d = part.lo; d < part.hi; ++d) shown |= u32(x_t[row + d]) << (d - part.lo);
  const auto threshold = [&](int d) -> u64 {
    if (held && held[row + d]) return 0;
    const int v = shown >> (d - part.lo) & 1;
    const Columns<C> c = look_up(law, t[part.r], v, d);
    return next_word(bit::p_flip(law, c, sigmoids(bit::shown_logit(law, c, logits[row + d] + bias[d], v))).up);
  };
  const u32 flips = draw_below({seed, stream, step}, first_row + part.r, part.j, D, threshold);
  put(x_s + row, part, D, shown ^ flips);
}
