// Winograd's F(4x4, 3x3): each 6 x 6 patch of the input gives 4 x 4 outputs through 36 products a channel
// pair instead of 144.
//
// Its interpolation points are 0, +-11/16, +-3/2 and infinity, not the customary 0, +-1, +-2: the same number
// of operations and half the error, since the powers of the points, up to 8 there, multiply roundings. All
// products of the points that the transforms use are exact in fp32. With d the patch's column, the points a
// and -a and the other pair's b:
//
//   B'd:  p^2 q^2 d0 - (p^2 + q^2) d2 + d4;  (d4 - b^2 d2) +- a (d3 - b^2 d1);
//         p^2 q^2 d1 - (p^2 + q^2) d3 + d5
//   Gg:   g0 / (p^2 q^2);  (g0 +- a g1 + a^2 g2) / (2 a^2 (a^2 - b^2));  g2
//   A'm:  output i sums a^i m over the points, infinity counting in the last alone
#pragma once

namespace fusedres::conv::winograd_f4 {

constexpr float kP = 11.0f / 16, kQ = 3.0f / 2;

// G applied to three weights.
inline void filter_column(double g0, double g1, double g2, double out[6]) {
  constexpr double pp = double{kP} * kP, qq = double{kQ} * kQ;
  constexpr double of_p = 1 / (2 * pp * (pp - qq)), of_q = 1 / (2 * qq * (qq - pp));
  out[0] = g0 / (pp * qq);
  out[1] = (g0 + kP * g1 + pp * g2) * of_p;
  out[2] = (g0 - kP * g1 + pp * g2) * of_p;
  out[3] = (g0 + kQ * g1 + qq * g2) * of_q;
  out[4] = (g0 - kQ * g1 + qq * g2) * of_q;
  out[5] = g2;
}

}  // namespace fusedres::conv::winograd_f4
