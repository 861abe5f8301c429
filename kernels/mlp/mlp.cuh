// A perceptron of dense layers inside one block: weights and the activations of R rows in shared memory, products in
// registers.
//
// A matrix lies there with rows `pitch` numbers apart, a multiple of 4 whose fourth is odd: then eight threads that
// read four numbers each from eight neighbouring rows meet all banks once, as do eight that read along one row. What
// fills a row up is zero and stays it, so that sums run over whole fours. The last column of a layer's input is one,
// and its bias the last row of its weights, so that one product brings both. Each number is summed by one thread in
// order of k: it does not depend on which rows share a block, or on R.

__host__ __device__ constexpr int fours(int n) { return (n + 3) / 4 * 4; }
__host__ __device__ constexpr int pitch(int n) { return fours(n) % 8 ? fours(n) : fours(n) + 4; }

// W and F : where weights with their bias, and time's scale and shift, begin in the flat parameters. w, f : in shared
// memory.
// x, u, s, g : in shared memory, for R rows: the input; u = z + bias, later its gradient by scale; 1 + scale, later dz;
// the slope, later dshift.
struct Layer {
  int n_in, n_out, code, W, F, w, f, x, u, s, g;
};

// What the host laid out (mlp_plan.py).
struct Net {
  // odds : whether bits are read a second time, weighted by the log odds that they carry
  int layers, D, inputs, features, P, odds;
  // in shared memory: the input, the features of time, packed bits, and all of it, in floats
  int x, time, bits, end;
  const Layer *layer;
};

constexpr int NET = 10;  // numbers of a plan before its layers
__device__ __forceinline__ Net read_net(const int *p) {
  return {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], reinterpret_cast<const Layer *>(p + NET)};
}

typedef float Tile[4][4];

// acc[i][j] += the sum over k < K of a(i, k) b(k, j). ALONG_K: k runs along a row of the matrix, i or j from row to
// row; else the other way round.
template <bool A_ALONG_K, bool B_ALONG_K>
__device__ __forceinline__ void product(Tile &acc, const float *a, int a_pitch, const float *b, int b_pitch, int K) {
#pragma unroll 1
  for (int k = 0; k < K; k += 4) {
    float4 as[4], bs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      as[i] = *reinterpret_cast<const float4 *>(A_ALONG_K ? a + i * a_pitch + k : a + (k + i) * a_pitch);
      bs[i] = *reinterpret_cast<const float4 *>(B_ALONG_K ? b + i * b_pitch + k : b + (k + i) * b_pitch);
    }
#pragma unroll
    for (int kk = 0; kk < 4; ++kk) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float left = A_ALONG_K ? (&as[i].x)[kk] : (&as[kk].x)[i],
                      right = B_ALONG_K ? (&bs[j].x)[kk] : (&bs[kk].x)[j];
          acc[i][j] = fmaf(left, right, acc[i][j]);
        }
      }
    }
  }
}

// The first `n` of four numbers.
__device__ __forceinline__ void put4(float *p, int n, const float (&x)[4]) {
  if (n >= 4) {
    *reinterpret_cast<float4 *>(p) = make_float4(x[0], x[1], x[2], x[3]);
  } else {
#pragma unroll
    for (int j = 0; j < 3; ++j) {
      if (j < n) p[j] = x[j];
    }
  }
}

// All the block's threads share the tiles of `rows` by `columns`: body(r, n) for the tile whose corner is row r, column
// n.
template <typename Body>
__device__ __forceinline__ void for_tiles(int rows, int columns, Body body) {
  const int across = fours(columns) / 4, tiles = fours(rows) / 4 * across;
  for (int e = threadIdx.x; e < tiles; e += blockDim.x) body(e / across * 4, e % across * 4);
}

// Zeros to begin with, wherever nothing else will stand; and the ones that bring the biases. Nothing of `room` is used
// before it returns.
__device__ __forceinline__ void clear(const Net &net, float *room, int R) {
  for (int e = threadIdx.x; e < net.end; e += blockDim.x) room[e] = 0;
  __syncthreads();
  for (int k = 0; k < net.layers; ++k) {
    const Layer layer = net.layer[k];
    for (int r = threadIdx.x; r < R; r += blockDim.x) room[layer.x + r * pitch(layer.n_in + 1) + layer.n_in] = 1;
  }
}

// The parameters from global memory; without time's, which a sampler has as a table.
__device__ __forceinline__ void load_weights(const Net &net, float *room, const float *params, bool with_time) {
  for (int k = 0; k < net.layers; ++k) {
    const Layer layer = net.layer[k];
    const int H = layer.n_out, p = pitch(H);
    for (int e = threadIdx.x; e < (layer.n_in + 1) * H; e += blockDim.x)
      room[layer.w + e / H * p + e % H] = params[layer.W + e];
    if (!with_time || layer.F < 0) continue;
    for (int e = threadIdx.x; e < net.features * 2 * H; e += blockDim.x) {
      const int j = e / (2 * H), n = e % (2 * H);
      room[layer.f + (n < H ? 0 : fours(net.features) * p) + j * p + n % H] = params[layer.F + e];
    }
  }
}

// The network's input for one bit of row r, which shows v.
__device__ __forceinline__ void read_bit(const Net &net, float *room, int r, int d, int v, float odds) {
  float *row = room + net.x + r * pitch(net.inputs + 1);
  row[d] = v ? 1.0f : -1.0f;
  if (net.odds) row[net.D + d] = v ? odds : -odds;
}
