// Bernoulli diffusion of one bit: what every kernel of the family is made of. Definitions:
// bdiff_np/diffusion/bernoulli.py; derivation, 2 to 7.
//
// Flip domain throughout: v is the value that the bit shows at t, and to flip is x_{t-1} != v. Sums of positive
// numbers, no clip.

// The numbers of bernoulli_codes.py, which says what they are.
constexpr float LOW = -0.5f, NEAR_LOW = -0.25f, NEAR_HIGH = 0.5f, LEAST = 1e-30f, TINY = 1e-37f, MARGIN = 1e-5f;
enum Form { PER_BIT = 1, X_PREV = 2, SKIP = 4 };

template <typename C>
struct Law {
  const u64 *noise;  // beta_bar (T + 1,), then pi (1,) or (D,), in units of 2^-32
  // one pi: Columns of a bit that shows v at t in row 2 t + v, (2 T + 2, 6). A pi for each bit: steps (T + 1, 6), then
  // pi (2, D)
  const C *table;
  int T, D, form;
  C bce;  // weight of the cross entropy of x_0 in the gradient
};

// q(x_{t-1} != x_t | x_t, x_0) where x_0 agrees with x_t and where not, what each leaves to 1, their difference; x_t's
// own evidence.
template <typename C>
struct Columns {
  C agree, disagree, not_agree, not_disagree, gap, own;
};

// The word below which x_t is 1: integers only, so that every back end draws the same bits. Derivation, section 14.
__device__ __forceinline__ u64 noisy_below(u64 lost, u64 pi, u8 x0) {
  return (lost * pi >> 32) + (x0 ? (u64(1) << 32) - lost : 0);
}

template <typename C>
__device__ __forceinline__ u64 pi_word(const Law<C> &law, int d) {
  return law.noise[law.T + 1 + (law.form & PER_BIT ? d : 0)];
}

// The word below which a draw says yes, which it does with probability p. p 2^32 is exact, and a word lies below it if it
// lies below the next whole number.
template <typename C>
__device__ __forceinline__ u64 next_word(C p) { return u64(ceil(p * C(4294967296.0))); }

template <typename C>
__device__ __forceinline__ Columns<C> look_up(const Law<C> &law, int t, int v, int d) {
  if (!(law.form & PER_BIT)) {
    const C *row = law.table + 6 * (2 * t + v);
    return {row[0], row[1], row[2], row[3], row[4], row[5]};
  }
  const C *step = law.table + 6 * t, *pi = law.table + 6 * (law.T + 1);
  const C ab_s = step[0], ab_t = step[1], bb_s = step[2], bb_t = step[3], keep = step[4], redraw = step[5];
  const C pi_v = pi[v * law.D + d], pi_o = pi[(1 - v) * law.D + d], still = ab_t + bb_t * pi_v;
  const C signal = law.form & X_PREV ? keep : ab_t, lost = law.form & X_PREV ? redraw : bb_t;
  const C odds = log((signal + lost * pi_v) / (lost * pi_o));
  return {bb_s * pi_o * redraw * pi_v / still,
          (ab_s + bb_s * pi_o) * redraw / bb_t,
          (ab_s + bb_s * pi_v) * (keep + redraw * pi_v) / still,
          bb_s * (keep + redraw * pi_v) / bb_t,
          redraw * (ab_s * pi_v + ab_t * pi_o) / (bb_t * still),
          v ? odds : -odds};
}

// sigmoid(z) and sigmoid(-z), each to its own full relative precision; the small one never below 1e-37, so that 0/0 at
// t = 1 stays away.
template <typename C>
struct Pair {
  C up, down;
};
template <typename C>
__device__ __forceinline__ Pair<C> sigmoids(C z) {
  const C e = max(exp(-fabs(z)), C(TINY)), large = 1 / (1 + e), small = e * large;
  return z >= 0 ? Pair<C>{large, small} : Pair<C>{small, large};
}

template <typename C>
__device__ __forceinline__ C softplus(C z) { return max(z, C(0)) + log1p(exp(-fabs(z))); }

// y - log(1 + y) >= 0. In float32 two terms of nearly one size would cancel for small y; with s = y / (2 + y), log(1 +
// y) is 2 atanh(s), and what is left is y s - 2 s^3 (1/3 + s^2/5 + ...), whose terms do not. `log_ratio` is log(1 + y),
// wanted where y itself has lost its digits.
__device__ __forceinline__ float phi(float y, float log_ratio) {
  if (y < LOW) return y - log_ratio;
  if (y < NEAR_LOW || y > NEAR_HIGH) return y - log1p(y);
  const float s = y / (2.0f + y), q = s * s;
  return s * y - 2.0f * s * q * (1.0f / 3 + q * (1.0f / 5 + q * (1.0f / 7 + q * (1.0f / 9))));
}
__device__ __forceinline__ double phi(double y, double log_ratio) { return y < LOW ? y - log_ratio : y - log1p(y); }

namespace bit {  // the kernels of bernoulli.cu have the same names, for whole batches

// Probability that the learned reverse step flips the bit, and what it leaves to 1. z : the logit with its evidence, of
// "the bit is v".
template <typename C>
__device__ __forceinline__ Pair<C> p_flip(const Law<C> &law, const Columns<C> &c, Pair<C> sure) {
  if (law.form & X_PREV) return {sure.down, sure.up};
  return {sure.up * c.agree + sure.down * c.disagree, sure.up * c.not_agree + sure.down * c.not_disagree};
}

// The logit of a 1 as the network gives it, turned into that of "the bit is v", evidence included.
template <typename C>
__device__ __forceinline__ C shown_logit(const Law<C> &law, const Columns<C> &c, C logit, int v) {
  const C z = law.form & SKIP ? logit + c.own : logit;
  return v ? z : -z;
}

template <typename C>
struct KL {
  C value, slope;  // nats; d KL / d logit, plus the auxiliary cross entropy's
};

// KL(q || p) of one bit's reverse step and its gradient. Without `value` no logarithm is taken.
template <typename C>
__device__ __forceinline__ KL<C> kl_grad(const Law<C> &law, C logit, int x0, int v, int t, int d, bool value) {
  const Columns<C> c = look_up(law, t, v, d);
  const C z = shown_logit(law, c, logit, v);
  const Pair<C> sure = sigmoids(z), p = p_flip(law, c, sure);
  const bool same = x0 == v;
  const C q = same ? c.agree : c.disagree, not_q = same ? c.not_agree : c.not_disagree;
  C off, slope;  // p - q, to full precision
  if (law.form & X_PREV) {
    off = p.up - q;
    slope = v ? -off : off;
  } else {
    const C missing = same ? sure.down : sure.up;  // probability that the net does not give to the true x_0
    // how much the step tells about x_0: 1 at t = 1
    const C weight = c.gap * c.gap * (sure.up * sure.down) / (p.up * p.down);
    off = same ? missing * c.gap : -missing * c.gap;
    slope = (weight + law.bce) * (x0 ? -missing : missing);
  }
  if (!value) return {0, slope};
  if (t == 1) return {softplus(same ? -z : z), slope};
  // Nothing holds logits of x_{t-1} back: there, logarithms have more range than the probabilities.
  const C ratio = p.up > C(LEAST) ? log(p.up / q) : -softplus(z) - log(q);
  const C not_ratio = p.down > C(LEAST) ? log(p.down / not_q) : -softplus(-z) - log(not_q);
  return {q * phi(off / q, ratio) + not_q * phi(-off / not_q, not_ratio), slope};
}

}  // namespace bit
