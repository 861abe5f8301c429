// walk_back: rows through many steps of the reverse chain of Bernoulli diffusion with a narrow perceptron in one
// launch.
//
// A block keeps the weights and its rows' bits in shared memory and meets no other. A bit of x_t flips if its random
// word lies below p 2^32, and p = a agree + b disagree with a + b = 1 is never above `disagree`, whatever the network
// says. So the network is asked only for rows that have a word below that, C of them at a time: with 20 bits and 2000
// steps it is one row in twelve, with the same result. Derivation, section 11.
//
// Per row and step of a 20-50-50-20 net: 20 random draws, and 4,600 multiply-adds for one row in twelve. On an H100 the
// draws take 17 ps, the products (bound by shared memory at half of 67 TFLOP/s) 23 ps; x
// itself is read and written once.

#include "device.cuh"
#include "philox.cuh"
#include "bernoulli.cuh"
#include "dense.cuh"
#include "mlp.cuh"
#include "training.cuh"

constexpr u64 P_NOISE = 6;       // the stream of noise, as in bdiff_np/rng.py
constexpr int THREADS = 256;

// The word below which a bit that shows v may flip at t.
__device__ __forceinline__ u64 may_below(const Law<float> &law, int t, int v, int d) {
  return law.form & X_PREV ? u64(1) << 32 : next_word(min(1.0f, look_up(law, t, v, d).disagree * (1 + MARGIN)));
}

// All layers, for C rows that are all at one t: film (.) has scale beside shift of each hidden layer. The last layer's
// s holds the logits.
__device__ __forceinline__ void forward(const Net &net, float *room, const float *film, int C) {
  for (int k = 0; k < net.layers; ++k) {
    const Layer layer = net.layer[k];
    const int H = layer.n_out, p = pitch(H), in = pitch(layer.n_in + 1);
    const bool last = k + 1 == net.layers;
    float *out = last ? room + layer.s : room + net.layer[k + 1].x;
    const int q = last ? p : pitch(H + 1);
    for_tiles(C, H, [&](int r, int n) {
      Tile u = {};
      product<true, false>(u, room + layer.x + r * in, in, room + layer.w + n, p, fours(layer.n_in + 1));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int at = min(n + j, H - 1);
          if (!last) u[i][j] = film_act(layer.code, u[i][j], film[at], film[H + at]).y;
        }
        put4(out + (r + i) * q + n, H - n, u[i]);
      }
    });
    film += 2 * H;
    __syncthreads();
  }
}

// Dynamic shared memory: net.end floats; then packed bits, (rows, ceil(D / 8)) rounded up to words; a word for 32 rows;
// a number for each row.
__global__ void __launch_bounds__(THREADS, 2) walk_back(const Walk walk, const Law<float> law) {
  DYN_SHARED(float, room);
  const Net net = read_net(walk.plan);
  const int bytes = (net.D + 7) / 8, parts = (net.D + 15) / 16, rows = walk.rows, C = walk.C, lo = blockIdx.x * rows,
            own = min(rows, walk.B - lo), words_of_flags = (rows + 31) / 32;
  u8 *x = static_cast<u8 *>(walk.x), *bits = reinterpret_cast<u8 *>(room + net.end);
  u32 *flags = reinterpret_cast<u32 *>(room + net.end + (rows * bytes + 3) / 4);
  int *chosen = reinterpret_cast<int *>(flags + words_of_flags);
  clear(net, room, C);
  load_weights(net, room, walk.params, false);
  for (int e = threadIdx.x; e < own * bytes; e += THREADS) {
    u32 byte = 0;
    for (int k = 0; k < min(8, net.D - e % bytes * 8); ++k)
      byte |= u32(x[size_t(lo + e / bytes) * net.D + e % bytes * 8 + k]) << (7 - k);
    bits[e] = byte;
  }
  for (int w = threadIdx.x; w < words_of_flags; w += THREADS) flags[w] = 0;
  __syncthreads();
  for (int t = walk.first; t > walk.first - walk.steps; --t) {
    const Key key{walk.seed, P_NOISE, u64(t)};
    for (int e = threadIdx.x; e < own * parts; e += THREADS) {
      const int r = e / parts;
      const u8 *row = bits + r * bytes;
      const u32 may = draw_below(key, walk.first_row + lo + r, e % parts, net.D, [&](int d) {
        return may_below(law, t, row[d / 8] >> (7 - d % 8) & 1, d);
      });
      if (may) atomicOr(&flags[r / 32], 1u << r % 32);
    }
    __syncthreads();
    int count = 0;  // all threads count; the rows of a word are listed by the thread of its number
    for (int w = 0; w < words_of_flags; ++w) {
      if (threadIdx.x == w) {
        int at = count;
        for (u32 left = flags[w]; left; left &= left - 1) chosen[at++] = 32 * w + __ffs(left) - 1;
      }
      count += __popc(flags[w]);
    }
    __syncthreads();
    for (int w = threadIdx.x; w < words_of_flags; w += THREADS) flags[w] = 0;
    for (int from = 0; from < count; from += C) {
      const int some = min(C, count - from);
      for (int e = threadIdx.x; e < some * net.D; e += THREADS) {
        const int c = e / net.D, d = e % net.D;
        read_bit(net, room, c, d, bits[chosen[from + c] * bytes + d / 8] >> (7 - d % 8) & 1, walk.odds[t]);
      }
      __syncthreads();
      forward(net, room, walk.films + size_t(t) * walk.width, some);
      const float *logits = room + net.layer[net.layers - 1].s;
      for (int e = threadIdx.x; e < some * parts; e += THREADS) {
        const int c = e / parts, j = e % parts, r = chosen[from + c];
        u8 *row = bits + r * bytes;
        const u32 flips = __brev(draw_below(key, walk.first_row + lo + r, j, net.D, [&](int d) -> u64 {
          if (walk.held && walk.held[size_t(lo + r) * net.D + d]) return 0;
          const int v = row[d / 8] >> (7 - d % 8) & 1;
          const Columns<float> columns = look_up(law, t, v, d);
          const float z = bit::shown_logit(law, columns, logits[c * pitch(net.D) + d], v);
          return next_word(bit::p_flip(law, columns, sigmoids(z)).up);
        }));
        row[2 * j] ^= flips >> 24;
        if (2 * j + 1 < bytes) row[2 * j + 1] ^= flips >> 16;
      }
      __syncthreads();
    }
    __syncthreads();
  }
  for (int e = threadIdx.x; e < own * net.D; e += THREADS) {
    x[size_t(lo) * net.D + e] = bits[e / net.D * bytes + e % net.D / 8] >> (7 - e % net.D % 8) & 1;
  }
}
