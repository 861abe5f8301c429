// Dense layers, one number at a time: activations with their slopes, time's scale and shift, AdamW. Formulas:
// derivation, sections 12 and 13.

enum Activation { RELU, SILU, GELU, TANH, SIGMOID, IDENTITY };  // as CODES of dense_codes.py

template <typename C>
struct Active {
  C y, slope;  // act(v) and act'(v)
};

template <typename C>
__device__ __forceinline__ Active<C> act(int code, C v) {
  if (code == RELU) return {v <= 0 ? C(0) : v, v > 0 ? C(1) : C(0)};  // NaN stays NaN
  if (code == SILU) {
    const C s = 1 / (1 + exp(-v));
    return {v * s, s + v * s * (1 - s)};
  }
  if (code == GELU) {  // in the tanh form of Hendrycks and Gimpel 2016
    constexpr C c1 = C(0.7978845608028654), c3 = C(0.7978845608028654 * 0.044715);
    const C w = tanh(v * (c1 + c3 * v * v));
    return {C(0.5) * v * (1 + w), C(0.5) * (1 + w) + C(0.5) * v * (1 - w * w) * (c1 + 3 * c3 * v * v)};
  }
  if (code == TANH) {
    const C w = tanh(v);
    return {w, 1 - w * w};
  }
  if (code == SIGMOID) {
    const C s = 1 / (1 + exp(-v));
    return {s, s * (1 - s)};
  }
  return {v, 1};
}

// y = act(u (1 + scale) + shift), u = z + bias.
template <typename C>
__device__ __forceinline__ Active<C> film_act(int code, C u, C scale, C shift) {
  return act(code, u * (1 + scale) + shift);
}

// The numbers of one AdamW step, as rates() of dense_codes.py: scale of the gradient, 1 - beta1, 1 - beta2, lr
// / (1 - beta1^step), 1 / sqrt(1 - beta2^step), eps, lr weight_decay, 1 - ema_decay.
template <typename C>
struct Rates {
  C scale, m, v, step, root, eps, decay, ema;
};

// The factor on the scale that clips a gradient of this norm; `most` is the largest norm allowed, infinite for any.
template <typename C>
__device__ __forceinline__ C clip(C norm, C most) { return norm <= most ? C(1) : most / norm; }

namespace one {  // the kernel of dense.cu has the same name, for whole buffers

// AdamW and the moving average of the weights, for parameter number i of flat buffers. Derivation, section 13.
template <typename C>
__device__ __forceinline__ void adamw(const Rates<C> &rates, C factor, C gradient, bool decays, size_t i, C *params,
                                      C *m, C *v, C *ema) {
  const C g = gradient * (rates.scale * factor), m_i = m[i] + rates.m * (g - m[i]),
          v_i = v[i] + rates.v * (g * g - v[i]);
  const C p = params[i] * (1 - (decays ? rates.decay : 0)) - rates.step * m_i / (sqrt(v_i) * rates.root + rates.eps);
  m[i] = m_i;
  v[i] = v_i;
  params[i] = p;
  ema[i] += rates.ema * (p - ema[i]);
}

}  // namespace one
