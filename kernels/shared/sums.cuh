// Sums over rows and over the parts of a gradient, in an order that the sizes fix: the same for any grid, on any card.

constexpr int SIDE = 8;              // threads that share a column, each taking every SIDE-th row or part
constexpr int THREADS = WARP * SIDE;  // of a block: 32 columns by SIDE

// Sums `own` over the SIDE rows of threads, in order; the first row of threads gets it. Each of V columns a thread.
template <typename C, int V>
__device__ __forceinline__ void add_rows(C (&own)[V], C (&room)[SIDE][WARP * V]) {
  const int x = threadIdx.x % WARP, y = threadIdx.x / WARP;
#pragma unroll
  for (int k = 0; k < V; ++k) room[y][x * V + k] = own[k];
  __syncthreads();
  if (y == 0) {
#pragma unroll
    for (int k = 0; k < V; ++k) {
      own[k] = 0;
#pragma unroll
      for (int side = 0; side < SIDE; ++side) own[k] += room[side][x * V + k];
    }
  }
}

// Columns of piece number `piece` of n: as many whole warps of columns in each piece, the last ones fewer or none.
__device__ __forceinline__ u64 piece_of(u64 n, int piece, int pieces) {
  const u64 warps = (n + WARP - 1) / WARP, each = (warps + pieces - 1) / pieces;
  return min(n, piece * each * WARP);
}

// total[i] = the sum of sums[k * stride + i] over the parts k, for the columns i of one piece, or nothing if null;
// returns their squares to thread 0.
template <typename C>
__device__ __forceinline__ C sum_piece(const C *sums, u64 stride, int parts, C *total, u64 n, int piece, int pieces,
                                       C (&room)[SIDE][WARP]) {
  const u64 stop = piece_of(n, piece + 1, pieces);
  C square = 0;
  for (u64 first = piece_of(n, piece, pieces); first < stop; first += WARP) {
    const u64 i = first + threadIdx.x % WARP;
    C own[1] = {};
    if (i < stop) {
#pragma unroll 4
      for (int k = threadIdx.x / WARP; k < parts; k += SIDE) own[0] += sums[k * stride + i];
    }
    add_rows<C, 1>(own, room);
    if (threadIdx.x < WARP && i < stop) {
      if (total) total[i] = own[0];
      square += own[0] * own[0];
    }
    __syncthreads();
  }
  return threadIdx.x < WARP ? warp_sum(square) : C(0);
}

// The length of a gradient whose pieces have these squares, the same in every thread of every block.
template <typename C>
__device__ __forceinline__ C length(const C *squares, int pieces, C (&room)[SIDE][WARP]) {
  C square = 0;
  for (int k = threadIdx.x; k < pieces; k += THREADS) square += squares[k];
  return sqrt(block_sum<THREADS>(square, room[0]));
}
