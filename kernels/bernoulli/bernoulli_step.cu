// take: many optimiser steps of Bernoulli diffusion with a narrow perceptron in one launch: the five lines of
// bdiff_np/train.py, fused.
//
// A block takes a group of the batch's rows, R at a time, through noise, forward, KL gradient and backward, all in
// shared memory, and adds up their gradient; then all blocks together sum the gradients of all groups, and each takes
// its share of AdamW. Between these three phases the whole grid meets, so the launch is cooperative. Groups, pieces and
// the order of every sum come from sizes alone: on a card of one kind, the weights do not depend on how many
// multiprocessors it has.
//
// Per row of a 20-50-50-20 net: 3 bytes of data read, 38,000 operations, 20 random draws. Per step: 40 bytes a
// parameter for AdamW and 8 more for each group. Products read 8 numbers from shared memory for 16 multiply-adds, so
// they are bound by shared memory at half of an H100's 67 TFLOP/s: 1.2 ns a row; a step of few rows is bound by three
// meetings of the grid, 1 to 2 us each, and by the length of one thread's sums.

#include "device.cuh"
#include "philox.cuh"
#include "bernoulli.cuh"
#include "sums.cuh"
#include "dense.cuh"
#include "mlp.cuh"
#include "training.cuh"

// The streams of noise, as in bdiff_np/rng.py.
constexpr u64 TIME = 2, Q_NOISE = 3;

// A batch and how it is cut.
struct Batch {
  u64 seed, step;
  const u8 *packed;   // (N, ceil(D / 8)): all rows of the data
  const int *index;   // (rows,): which of them
  // rows of the data in a batch; rows of the batch, which shows each B / rows times; rows that a block takes together
  int rows, B, R;
};

// The noisy bits of rows lo .. hi - 1, and what the network reads of them. `bits`: x_0, then x_t, packed, R rows each;
// then t.
__device__ __forceinline__ void noise(const Net &net, const Law<float> &law, const Batch &batch, const float *tables,
                                      float *room, int lo, int hi) {
  const int bytes = (net.D + 7) / 8, R = batch.R;
  u8 *x0 = reinterpret_cast<u8 *>(room + net.bits), *x_t = x0 + R * bytes;
  const u64 offset = time_offset({batch.seed, TIME, batch.step}, law.T);
  const int parts = (net.D + 15) / 16;  // a thread draws for two bytes of a row, the second of which may be none
  for (int e = threadIdx.x; e < R * parts; e += THREADS) {
    // rows too many repeat the last one, and leave no gradient
    const int r = e / parts, j = e % parts, row = min(lo + r, hi - 1), at = r * bytes + 2 * j;
    const bool two = 2 * j + 1 < bytes;
    const int t = stratified_t(row, offset, batch.B, law.T);
    const u8 *packed = batch.packed + size_t(batch.index[row % batch.rows]) * bytes + 2 * j;
    const u32 clean = __brev(u32(packed[0]) << 24 | (two ? u32(packed[1]) << 16 : 0));
    const u64 lost = law.noise[t];
    const float odds = net.odds ? tables[size_t(law.T + 1) * net.features + t] : 0.0f;
    const u32 noisy = draw_below({batch.seed, Q_NOISE, batch.step}, row, j, net.D, [&](int d) {
      return noisy_below(lost, pi_word(law, d), clean >> (d - 16 * j) & 1);
    });
    for (int d = 16 * j; d < min(net.D, 16 * j + 16); ++d) {
      read_bit(net, room, r, d, noisy >> (d - 16 * j) & 1, odds);
    }
    const u32 there = __brev(clean), shown = __brev(noisy);
    x0[at] = there >> 24, x_t[at] = shown >> 24;
    if (two) x0[at + 1] = there >> 16, x_t[at + 1] = shown >> 16;
  }
  for (int e = threadIdx.x; e < R * net.features; e += THREADS) {
    const int r = e / net.features, j = e % net.features, t = stratified_t(min(lo + r, hi - 1), offset, batch.B, law.T);
    room[net.time + r * pitch(net.features) + j] = tables[size_t(t) * net.features + j];
  }
}

// All layers. u, 1 + scale and the slope stay for the way back; the last layer's s holds the logits.
__device__ __forceinline__ void forward(const Net &net, float *room, int R) {
  for (int k = 0; k < net.layers; ++k) {
    const Layer layer = net.layer[k];
    const int H = layer.n_out, p = pitch(H), in = pitch(layer.n_in + 1), time = pitch(net.features);
    const bool last = k + 1 == net.layers;
    float *y = last ? nullptr : room + net.layer[k + 1].x;
    for_tiles(R, H, [&](int r, int n) {
      Tile u = {};
      product<true, false>(u, room + layer.x + r * in, in, room + layer.w + n, p, fours(layer.n_in + 1));
      if (last) {
#pragma unroll
        for (int i = 0; i < 4; ++i) put4(room + layer.s + (r + i) * p + n, H - n, u[i]);
        return;
      }
      Tile scale = {}, shift = {};
      const float *features = room + net.time + r * time, *F = room + layer.f + n;
      product<true, false>(scale, features, time, F, p, fours(net.features));
      product<true, false>(shift, features, time, F + fours(net.features) * p, p, fours(net.features));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float out[4], slope[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const Active<float> a = film_act(layer.code, u[i][j], scale[i][j], shift[i][j]);
          out[j] = a.y, slope[j] = a.slope, scale[i][j] += 1;
        }
        put4(y + (r + i) * pitch(H + 1) + n, H - n, out);
        put4(room + layer.u + (r + i) * p + n, H - n, u[i]);
        put4(room + layer.s + (r + i) * p + n, H - n, scale[i]);
        put4(room + layer.g + (r + i) * p + n, H - n, slope);
      }
    });
    __syncthreads();
  }
}

// The logits' gradients in the place of the logits; and the KL of rows lo .. hi - 1 in nats, where it is wanted. A warp
// takes a row.
__device__ __forceinline__ void loss(const Net &net, const Law<float> &law, const Batch &batch, float *room, float *kl,
                                     bool logged, int lo, int hi) {
  const int bytes = (net.D + 7) / 8, R = batch.R;
  const u8 *x0 = reinterpret_cast<u8 *>(room + net.bits), *x_t = x0 + R * bytes;
  float *logits = room + net.layer[net.layers - 1].s;
  const u64 offset = time_offset({batch.seed, TIME, batch.step}, law.T);
  for (int r = threadIdx.x / WARP; r < R; r += THREADS / WARP) {
    const bool there = lo + r < hi;
    const int t = stratified_t(min(lo + r, hi - 1), offset, batch.B, law.T);
    float total = 0;
    for (int d = lane(); d < net.D; d += WARP) {
      const int byte = r * bytes + d / 8, at = 7 - d % 8;
      float &logit = logits[r * pitch(net.D) + d];
      const bit::KL<float> bit = bit::kl_grad(law, logit, x0[byte] >> at & 1, x_t[byte] >> at & 1, t, d, logged);
      logit = there ? bit.slope : 0.0f;
      total += bit.value;
    }
    if (logged) {
      total = warp_sum(total);
      if (there && lane() == 0) kl[lo + r] = total;
    }
  }
}

// From the last layer's dz down to the first's.
__device__ __forceinline__ void backward(const Net &net, float *room, int R) {
  for (int k = net.layers - 2; k >= 0; --k) {
    const Layer layer = net.layer[k], above = net.layer[k + 1];
    const int H = layer.n_out, p = pitch(H), q = pitch(above.n_out);
    for_tiles(R, H, [&](int r, int n) {
      Tile dy = {};
      product<true, true>(dy, room + above.s + r * q, q, room + above.w + n * q, q, fours(above.n_out));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float *u = room + layer.u + (r + i) * p + n, *s = room + layer.s + (r + i) * p + n,
              *g = room + layer.g + (r + i) * p + n;
        float dz[4], dscale[4], dshift[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          dshift[j] = dy[i][j] * g[j];
          dz[j] = dshift[j] * s[j];
          dscale[j] = dshift[j] * u[j];
        }
        put4(s, H - n, dz);
        put4(u, H - n, dscale);
        put4(g, H - n, dshift);
      }
    });
    __syncthreads();
  }
}

// One tile of a gradient: grads (height, width) = or += a^T b, over R rows in order.
__device__ __forceinline__ void gradient_tile(const float *a, int a_pitch, const float *b, int b_pitch, int R,
                                              float *grads, int pitch, int height, int width, int i, int n, bool add) {
  Tile acc = {};
  float *out = grads + size_t(i) * pitch + n;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (add && i + k < height && n + j < width) acc[k][j] = out[k * pitch + j];
    }
  }
  product<false, false>(acc, a + i, a_pitch, b + n, b_pitch, R);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (i + k < height && n + j < width) out[k * pitch + j] = acc[k][j];
    }
  }
}

// The gradients of all parameters, of R rows; `add`: on top of those of the rows before.
__device__ __forceinline__ void gradients(const Net &net, float *room, float *grads, int R, bool add) {
  for (int k = 0; k < net.layers; ++k) {
    const Layer layer = net.layer[k];
    const int H = layer.n_out, p = pitch(H), in = pitch(layer.n_in + 1), time = pitch(net.features);
    for_tiles(layer.n_in + 1, H, [&](int i, int n) {
      gradient_tile(room + layer.x, in, room + layer.s, p, R, grads + layer.W, H, layer.n_in + 1, H, i, n, add);
    });
    if (layer.F < 0) continue;
    for (int half = 0; half < 2; ++half) {  // scale, shift
      for_tiles(net.features, H, [&](int i, int n) {
        gradient_tile(room + net.time, time, room + (half ? layer.g : layer.u), p, R, grads + layer.F + half * H, 2 * H,
                      net.features, H, i, n, add);
      });
    }
  }
}

// Losses and norms are left alone from the first step on whose gradient is not finite.
__global__ void __launch_bounds__(THREADS, 1) take(const Steps steps, const Law<float> law) {
  DYN_SHARED(float, room);
  const Net net = read_net(steps.plan);
  float(&sums)[SIDE][WARP] = *reinterpret_cast<float(*)[SIDE][WARP]>(room + net.end);
  u32 meeting = 0;
  clear(net, room, steps.R);
  for (int s = 0; s < steps.count; ++s) {
    const Batch batch{steps.seed, steps.first + s, static_cast<const u8 *>(steps.data),
                      steps.index + size_t(s) * steps.rows, steps.rows, steps.B, steps.R};
    load_weights(net, room, steps.params, true);
    for (int group = blockIdx.x; group < steps.groups; group += gridDim.x) {
      const Rows own = part(steps.B, group, steps.groups);
      for (int lo = own.lo; lo < own.hi; lo += steps.R) {
        noise(net, law, batch, steps.tables, room, lo, own.hi);
        __syncthreads();
        forward(net, room, steps.R);
        loss(net, law, batch, room, steps.kl, steps.logged[s], lo, own.hi);
        __syncthreads();
        backward(net, room, steps.R);
        gradients(net, room, steps.grads + size_t(group) * net.P, steps.R, lo > own.lo);
        __syncthreads();
      }
    }
    grid_barrier(steps.arrived, ++meeting);
    for (int piece = blockIdx.x; piece < steps.pieces; piece += gridDim.x) {
      const float square =
          sum_piece<float>(steps.grads, net.P, steps.groups, steps.total, net.P, piece, steps.pieces, sums);
      if (threadIdx.x == 0) steps.squares[piece] = square;
    }
    grid_barrier(steps.arrived, ++meeting);
    const Rates<float> now = *reinterpret_cast<const Rates<float> *>(steps.rates + 8 * s);
    const float norm = length(steps.squares, steps.pieces, sums);
    if (!isfinite(norm * now.scale)) return;  // all blocks read the same
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < net.P; i += gridDim.x * THREADS) {
      one::adamw(now, clip(norm * now.scale, steps.most), steps.total[i], steps.decayed[i], i, steps.params, steps.m,
                 steps.v, steps.ema);
    }
    if (blockIdx.x == 0) {
      if (threadIdx.x == 0) steps.norms[s] = norm;
      if (steps.logged[s]) {
        float mean = 0;
        for (int r = threadIdx.x; r < steps.B; r += THREADS) mean += steps.kl[r];
        mean = block_sum<THREADS>(mean, sums[0]);
        if (threadIdx.x == 0) steps.losses[s] = mean / steps.B;
      }
    }
    grid_barrier(steps.arrived, ++meeting);
  }
}
