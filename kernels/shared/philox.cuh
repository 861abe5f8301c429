// The random words of bdiff_np/rng.py: Philox4x32-10 (Salmon et al. 2011).
//
// A round is two products of 32 x 32 -> 64 bits and four exclusive ors of 32: some 80 integer operations a block of four
// words, on registers alone. A draw that is compared with a threshold takes a byte, 5 operations; and since of the 512
// draws of a warp one or two tie as a rule, which takes the warp a block more, 12 in all. An H100 (132 SMs of 64 integer
// lanes at 1.7 GHz) makes some 1.2e12 such draws and 7e11 words a second.

constexpr u32 TIE = 1u << 31;  // of a stream: the words that decide where a byte does not

struct Key {
  u64 seed;
  u32 stream, step;
  __device__ __forceinline__ Key(u64 seed, u64 stream, u64 step)
      : seed(seed), stream(u32(stream)), step(u32(step)) {}
};

// Four words of 32 bits, read as words or as sixteen bytes, the lowest of a word first.
struct Words {
  u32 w[4];
  __device__ __forceinline__ u32 operator[](int k) const { return w[k]; }
  __device__ __forceinline__ u32 byte(int k) const { return w[k / 4] >> (8 * (k % 4)) & 255; }
};

// Block number `block` of a key.
__device__ __forceinline__ Words philox(Key key, u64 block) {
  constexpr u32 M0 = 0xD2511F53u, M1 = 0xCD9E8D57u, W0 = 0x9E3779B9u, W1 = 0xBB67AE85u;
  u32 c0 = u32(block), c1 = u32(block >> 32), c2 = key.step, c3 = key.stream;
  u32 k0 = u32(key.seed), k1 = u32(key.seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const u64 p0 = u64(M0) * c0, p1 = u64(M1) * c2;
    c0 = u32(p1 >> 32) ^ c1 ^ k0;
    c1 = u32(p1);
    c2 = u32(p0 >> 32) ^ c3 ^ k1;
    c3 = u32(p0);
    k0 += W0;
    k1 += W1;
  }
  return {{c0, c1, c2, c3}};
}

// Elements 16 j .. 16 j + 15 of a row of D, as far as there are so many: which of their words (rng.draws) lie below
// `threshold(d)`, 0 to 2^32, as bits 0 .. 15.
template <typename Threshold>
__device__ __forceinline__ u32 draw_below(Key key, u64 row, int j, int D, Threshold threshold) {
  const Words words = philox(key, row * u64((D + 15) / 16) + j);
  u32 yes = 0, tied = 0;
#pragma unroll
  for (int k = 0; k < 16; ++k) {
    if (16 * j + k < D) {
      const u32 top = u32(threshold(16 * j + k) >> 24), byte = words.byte(k);
      yes |= u32(byte < top) << k;
      tied |= u32(byte == top) << k;
    }
  }
  while (tied) {  // threads of a warp meet here, each with the next of its own
    const int k = __ffs(tied) - 1, d = 16 * j + k;
    tied &= tied - 1;
    const Words low = philox({key.seed, key.stream | TIE, key.step}, row * u64((D + 3) / 4) + d / 4);
    const u32 word = d % 4 == 0 ? low[0] : d % 4 == 1 ? low[1] : d % 4 == 2 ? low[2] : low[3];
    const u64 limit = threshold(d);
    yes |= u32(((limit >> 24) << 24 | word >> 8) < limit) << k;
  }
  return yes;
}

// The steps that belong to a batch of n rows, spread evenly over 1..T: rng.stratified_t. `offset` is the same for all
// rows.
__device__ __forceinline__ u64 time_offset(Key key, int T) { return u64(philox(key, 0)[0]) * u64(T) >> 32; }
__device__ __forceinline__ int stratified_t(u64 row, u64 offset, u64 n, int T) {
  return 1 + int((row * u64(T) + offset) / n);
}
