// What the host hands to the fused step and to the fused chain of any family, by value: cuda_source.layout reads these
// lines. Beside it a family's kernel takes its law.

// Many optimiser steps: B rows a step, `rows` of them of the data, in groups, of which a block takes R rows together.
struct Steps {
  const int *plan;                     // mlp.cuh: Net and its layers
  const float *tables;                 // features of time (T + 1, features), then odds (T + 1,)
  float *params, *m, *v, *ema;         // (P,)
  const u8 *decayed;                   // (P,)
  const void *data;                    // all rows of the data, as the family has them on a device
  const int *index;                    // (count, rows): which of them
  const float *rates;                  // (count, 8): Rates
  const u8 *logged;                    // (count,): whether a step's loss is wanted
  // (count,): mean KL in nats where it is; length of the gradient, before its scale
  float *losses, *norms;
  float *kl, *grads, *total, *squares; // room: (B,), (groups, P), (P,), (pieces,)
  u32 *arrived;                        // 0 at the start
  u64 seed, first;                     // first : number of the first step
  float most;                          // length to which a gradient is clipped
  int count, rows, B, groups, R, pieces;
};

// Steps first, first - 1, ... of the reverse chain, for B rows: `rows` of them a block, C together for the network.
struct Walk {
  const int *plan;      // mlp.cuh: Net and its layers
  const float *params;  // (P,)
  const float *films;   // (T + 1, width): scale beside shift of all hidden layers
  const float *odds;    // (T + 1,)
  const u8 *held;       // (B, D): elements that stay; null for none
  void *x;              // (B, D), in place
  u64 seed, first_row;
  int width, B, rows, C, first, steps;
};
