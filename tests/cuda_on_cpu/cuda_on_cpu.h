// CUDA on the CPU: what a .cu file needs so that g++ compiles it as it stands. compile.py includes this ahead of the
// file; README.md says why.
//
// Every thread of a block is a fiber. It runs until it has to wait for others; then the next one does. runner.h decides
// who goes on.
#pragma once

#define CUDA_ON_CPU 1

#include "vectors.h"
#include "runtime.h"
#include "block.h"
#include "warp.h"
#include "memory.h"
#include "functions.h"
#include "launch.h"
#include "language.h"
