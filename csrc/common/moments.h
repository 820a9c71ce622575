// Mean and variance of a set from those of its parts.
#pragma once

#include "common/element.h"

namespace fusedres {

// How the moments of n_a and n_b values merge: the factors depend on the counts alone, so that a loop
// over channels needs no division.
//   Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
template <typename Real>
struct ChanMerge {
  Real weight;  // n_b / (n_a + n_b)
  Real cross;   // n_a * n_b / (n_a + n_b)

  FUSEDRES_HD ChanMerge(Real n_a, Real n_b) : weight(n_b / (n_a + n_b)), cross(n_a * weight) {}

  // (mean, m2) of a becomes that of a and b together. n_b must not be 0.
  FUSEDRES_HD void operator()(Real& mean, Real& m2, Real mean_b, Real m2_b) const {
    const Real delta = mean_b - mean;
    mean += delta * weight;
    m2 += m2_b + delta * delta * cross;
  }
};

}  // namespace fusedres
