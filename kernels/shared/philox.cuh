// The random words of bdiff_np/rng.py: Philox4x64-10 (Salmon et al. 2011), the same words as numpy.random.Philox.
//
// About 20 multiplications of 64 bits a block of eight 32-bit words, each some 5 instructions on 32-bit integers: 160
// integer operations and additions a word at most, on registers alone. An H100 (132 SMs of 64 integer lanes at 1.7 GHz)
// makes some 4e11 words a second.

struct Key {
  u64 seed, stream, step;
};

// Four words of 64 bits, read as eight of 32 bits, low half first.
struct Words {
  u64 w[4];
  __device__ __forceinline__ u32 operator[](int j) const { return u32(w[j / 2] >> (32 * (j % 2))); }
};

// Block number `block` of a key. NumPy's generator counts up before it draws, hence the 1; a counter that starts at
// (block, step, 0, 0) never carries.
__device__ __forceinline__ Words philox(Key key, u64 block) {
  constexpr u64 M0 = 0xD2E7470EE14C6C93ull, M1 = 0xCA5A826395121157ull, W0 = 0x9E3779B97F4A7C15ull,
                W1 = 0xBB67AE8584CAA73Bull;
  u64 c0 = block + 1, c1 = key.step, c2 = 0, c3 = 0, k0 = key.seed, k1 = key.stream;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const u64 high0 = __umul64hi(M0, c0), low0 = M0 * c0, high1 = __umul64hi(M1, c2), low1 = M1 * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += W0;
    k1 += W1;
  }
  return {{c0, c1, c2, c3}};
}

// The steps that belong to a batch of n rows, spread evenly over 1..T: rng.stratified_t. `offset` is the same for all
// rows.
__device__ __forceinline__ u64 time_offset(Key key, int T) { return u64(philox(key, 0)[0]) * u64(T) >> 32; }
__device__ __forceinline__ int stratified_t(u64 row, u64 offset, u64 n, int T) {
  return 1 + int((row * u64(T) + offset) / n);
}
