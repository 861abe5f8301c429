// What happens between matrix products, each stage in one pass over its data: bias + time + activation and its backward
// with the bias's gradient, LayerNorm, dropout's mask, sums in a fixed order, and AdamW with clipping and the average
// of the weights.
//
// B rows of H units. A block of 32 x 8 threads takes 32 V columns, V of them a thread so that loads are wide, and the
// rows of one part of the batch; parts come from sizes, so sums over rows have one order. Bounds are for an H100's 3.35
// TB/s.

#include "device.cuh"
#include "sums.cuh"
#include "dense.cuh"

// V neighbours in memory, as one load or store.
template <typename C, int V>
struct alignas(sizeof(C) * V) Pack {
  C x[V];
};
template <typename C, int V>
__device__ __forceinline__ Pack<C, V> get(const C *p) { return *reinterpret_cast<const Pack<C, V> *>(p); }
template <typename C, int V>
__device__ __forceinline__ void set(C *p, const Pack<C, V> &x) { *reinterpret_cast<Pack<C, V> *>(p) = x; }

// activate: y = act((z + bias) (1 + scale) + shift), [scale, shift] = film (B, 2H), or one row of it for all if shared,
// or none if null. Reads 4 bytes a unit and 8 of film, writes 4: bound by bytes, 4.8 ps a unit; some 15 operations.
template <typename C, int V>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    activate(const C *z, const C *__restrict__ bias, const C *film, int shared, int code, C *y, int B, int H) {
  const int j = (blockIdx.x * WARP + threadIdx.x % WARP) * V;
  if (j >= H) return;
  const Rows rows = part(B, blockIdx.y, gridDim.y);
  for (int r = rows.lo + threadIdx.x / WARP; r < rows.hi; r += SIDE) {
    const size_t i = size_t(r) * H + j, at = shared ? j : 2 * i - j;
    const Pack<C, V> in = get<C, V>(z + i);
    Pack<C, V> scale = {}, shift = {}, out;
    if (film) scale = get<C, V>(film + at), shift = get<C, V>(film + at + H);
#pragma unroll
    for (int k = 0; k < V; ++k) out.x[k] = film_act(code, in.x[k] + bias[j + k], scale.x[k], shift.x[k]).y;
    set<C, V>(y + i, out);
  }
}

// activate_backward: dz (B, H) and dfilm (B, 2H) from dy and what activate was given; sums (parts, stride), the part's
// own sum of dz over its rows. dz may be dy, and dfilm film. The slope is worked out again: an exponential costs less
// than four bytes. Reads 8 bytes a unit and 8 of film, writes 4 and 8: bound by bytes, 8.4 ps a unit; some 25
// operations.
template <typename C, int V>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    activate_backward(const C *dy, const C *z, const C *bias, const C *film, int code, C *dz, C *dfilm, C *sums,
                      u64 stride, int B, int H) {
  __shared__ C room[SIDE][WARP * V];
  const int j = (blockIdx.x * WARP + threadIdx.x % WARP) * V;
  const Rows rows = part(B, blockIdx.y, gridDim.y);
  C own[V] = {};
  for (int r = rows.lo + threadIdx.x / WARP; r < rows.hi && j < H; r += SIDE) {
    const size_t i = size_t(r) * H + j, at = 2 * i - j;
    const Pack<C, V> in = get<C, V>(z + i);
    Pack<C, V> grad = get<C, V>(dy + i), scale = {}, shift = {};
    if (film) scale = get<C, V>(film + at), shift = get<C, V>(film + at + H);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const C u = in.x[k] + bias[j + k], dv = grad.x[k] * film_act(code, u, scale.x[k], shift.x[k]).slope;
      grad.x[k] = dv * (1 + scale.x[k]);
      scale.x[k] = dv * u;
      shift.x[k] = dv;
      own[k] += grad.x[k];
    }
    set<C, V>(dz + i, grad);
    if (film) set<C, V>(dfilm + at, scale), set<C, V>(dfilm + at + H, shift);
  }
  add_rows<C, V>(own, room);
  if (threadIdx.x < WARP && j < H) {
#pragma unroll
    for (int k = 0; k < V; ++k) sums[blockIdx.y * stride + j + k] = own[k];
  }
}

// column_sums: sums (parts, stride), the part's own sum of x (B, H) over its rows. Reads 4 bytes a unit: 1.2 ps; 1
// operation.
template <typename C, int V>
__global__ void __launch_bounds__(THREADS, BLOCKS) column_sums(const C *x, C *sums, u64 stride, int B, int H) {
  __shared__ C room[SIDE][WARP * V];
  const int j = (blockIdx.x * WARP + threadIdx.x % WARP) * V;
  const Rows rows = part(B, blockIdx.y, gridDim.y);
  C own[V] = {};
  for (int r = rows.lo + threadIdx.x / WARP; r < rows.hi && j < H; r += SIDE) {
    const Pack<C, V> in = get<C, V>(x + size_t(r) * H + j);
#pragma unroll
    for (int k = 0; k < V; ++k) own[k] += in.x[k];
  }
  add_rows<C, V>(own, room);
  if (threadIdx.x < WARP && j < H) {
#pragma unroll
    for (int k = 0; k < V; ++k) sums[blockIdx.y * stride + j + k] = own[k];
  }
}

// sum_parts: total (n,) = the sum of sums (parts, stride) over the parts, and squares (pieces,), those of each piece of
// it; a block takes a piece. Reads 4 bytes a number and part, writes 4 a number: 1.2 ps for each of them; 1 operation a
// part, 2 a number.
template <typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    sum_parts(const C *sums, u64 stride, int parts, C *total, C *squares, u64 n) {
  __shared__ C room[SIDE][WARP];
  const C square = sum_piece(sums, stride, parts, total, n, blockIdx.x, gridDim.x, room);
  if (threadIdx.x == 0) squares[blockIdx.x] = square;
}

// norm: norms[clock[1]] = the length of a gradient whose pieces have these squares (pieces,); nan from the first one on
// that is not finite, which halted (1,) remembers. One block: reads 4 bytes a piece, 1 operation; bound by the time of
// its few loads, some 1 us.
template <typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    norm(const C *squares, int pieces, C *norms, const u64 *clock, int *halted) {
  __shared__ C room[SIDE][WARP];
  const C size = length(squares, pieces, room);
  if (threadIdx.x) return;
  if (!isfinite(size)) *halted = 1;
  norms[clock[1]] = *halted ? C(nan("")) : size;
}

// adamw: one step on flat buffers of n parameters, with the average of the weights; rates (steps, 8) and norms
// (steps,), of step clock[1]. The scaled gradient is clipped to the length `most`. Nothing happens where the norm is
// not finite. Reads 21 bytes a parameter, writes 16: bound by bytes, 11 ps a parameter; some 20 operations.
template <typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    adamw(C *params, const C *grads, C *m, C *v, C *ema, const u8 *decayed, const C *norms, const C *rates, C most,
          const u64 *clock, u64 n) {
  const Rates<C> now = *reinterpret_cast<const Rates<C> *>(rates + 8 * clock[1]);
  const C norm = norms[clock[1]] * now.scale;
  if (!isfinite(norm)) return;
  for (u64 i = u64(blockIdx.x) * THREADS + threadIdx.x; i < n; i += u64(gridDim.x) * THREADS) {
    one::adamw(now, clip(norm, most), grads[i], decayed[i], i, params, m, v, ema);
  }
}

// layer_norm: y = gain unit + shift, unit the rows of x (B, H) at mean 0 and variance 1; moments (B, 2): mean, and 1
// over the deviation. A warp takes a row, which it reads three times, twice from the cache: 4 bytes a unit, writes 4:
// bound by bytes, 2.4 ps; 8 operations.
template <typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    layer_norm(const C *x, const C *gain, const C *shift, C eps, C *y, C *moments, int B, int H) {
  const int r = blockIdx.x * SIDE + threadIdx.x / WARP;
  if (r >= B) return;
  const C *row = x + size_t(r) * H;
  C sum = 0, square = 0;
  for (int j = lane(); j < H; j += WARP) sum += row[j];
  const C mean = warp_sum(sum) / H;
  for (int j = lane(); j < H; j += WARP) square += (row[j] - mean) * (row[j] - mean);
  const C rate = 1 / sqrt(warp_sum(square) / H + eps);
  for (int j = lane(); j < H; j += WARP) y[size_t(r) * H + j] = (row[j] - mean) * rate * gain[j] + shift[j];
  if (lane() == 0) moments[2 * r] = mean, moments[2 * r + 1] = rate;
}

// layer_norm_backward: dx (B, H) from dy and what layer_norm was given and left.
// Reads 8 bytes a unit, writes 4: bound by bytes, 3.6 ps; 20 operations.
template <typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    layer_norm_backward(const C *dy, const C *x, const C *gain, const C *moments, C *dx, int B, int H) {
  const int r = blockIdx.x * SIDE + threadIdx.x / WARP;
  if (r >= B) return;
  const C mean = moments[2 * r], rate = moments[2 * r + 1];
  C sum = 0, along = 0;
  for (int j = lane(); j < H; j += WARP) {
    const size_t i = size_t(r) * H + j;
    sum += dy[i] * gain[j];
    along += dy[i] * gain[j] * ((x[i] - mean) * rate);
  }
  sum = warp_sum(sum) / H;
  along = warp_sum(along) / H;
  for (int j = lane(); j < H; j += WARP) {
    const size_t i = size_t(r) * H + j;
    dx[i] = rate * (dy[i] * gain[j] - sum - (x[i] - mean) * rate * along);
  }
}

// layer_norm_sums: sums (parts, stride) of dy unit, the gradient of the gain, then H further on of dy, that of the
// shift. Reads 8 bytes a unit: bound by bytes, 2.4 ps; 5 operations.
template <typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    layer_norm_sums(const C *dy, const C *x, const C *moments, C *sums, u64 stride, int B, int H) {
  __shared__ C room[2][SIDE][WARP];
  const int j = blockIdx.x * WARP + threadIdx.x % WARP;
  const Rows rows = part(B, blockIdx.y, gridDim.y);
  C dgain[1] = {}, dshift[1] = {};
  for (int r = rows.lo + threadIdx.x / WARP; r < rows.hi && j < H; r += SIDE) {
    const size_t i = size_t(r) * H + j;
    dgain[0] += dy[i] * (x[i] - moments[2 * r]) * moments[2 * r + 1];
    dshift[0] += dy[i];
  }
  add_rows<C, 1>(dgain, room[0]);
  add_rows<C, 1>(dshift, room[1]);
  if (threadIdx.x < WARP && j < H)
    sums[blockIdx.y * stride + j] = dgain[0], sums[blockIdx.y * stride + H + j] = dshift[0];
}
