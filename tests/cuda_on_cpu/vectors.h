// The vector types of CUDA C++.
#pragma once

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// Vectors of 2 and 4 are aligned like one word of their size, up to 16 bytes, so that the mode "address" sees a
// misaligned access.
#define CUDA_ON_CPU_VECTORS(T, name, align2, align4)                                             \
  struct alignas(align2) name##2 {                                                               \
    T x, y;                                                                                      \
  };                                                                                             \
  struct name##3 {                                                                               \
    T x, y, z;                                                                                   \
  };                                                                                             \
  struct alignas(align4) name##4 {                                                               \
    T x, y, z, w;                                                                                \
  };                                                                                             \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                     \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                             \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CUDA_ON_CPU_VECTORS(signed char, char, 2, 4)
CUDA_ON_CPU_VECTORS(unsigned char, uchar, 2, 4)
CUDA_ON_CPU_VECTORS(short, short, 4, 8)
CUDA_ON_CPU_VECTORS(unsigned short, ushort, 4, 8)
CUDA_ON_CPU_VECTORS(int, int, 8, 16)
CUDA_ON_CPU_VECTORS(unsigned, uint, 8, 16)
CUDA_ON_CPU_VECTORS(long long, longlong, 16, 16)
CUDA_ON_CPU_VECTORS(unsigned long long, ulonglong, 16, 16)
CUDA_ON_CPU_VECTORS(float, float, 8, 16)
CUDA_ON_CPU_VECTORS(double, double, 16, 16)
