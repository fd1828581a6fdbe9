"""The exact Gaussian mixture: everything a diffusion model of it should know, in closed form.

In the coordinates of `diffusion.core` (x = x_0 + sigma eps) a mixture stays a mixture: component k becomes
N(mean_k, cov_k + sigma**2 I). Works in whatever precision x has.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Mixture:
    """weights: [K]; means: [K, D]; covs: [K, D, D]."""

    weights: np.ndarray
    means: np.ndarray
    covs: np.ndarray

    @property
    def dim(self):
        return self.means.shape[1]

    def mean(self):
        return self.weights @ self.means

    def cov(self):
        centred = self.means - self.mean()
        return np.einsum('k,kij->ij', self.weights, self.covs + np.einsum('ki,kj->kij', centred, centred))

    def _eigen(self):
        return np.linalg.eigh(self.covs)

    def log_parts(self, x, sigma):
        """x: [B, D], sigma: [B] -> log(weight_k N(x; mean_k, cov_k + sigma**2 I)): [B, K]."""
        values, vectors = (jnp.asarray(a, x.dtype) for a in self._eigen())
        centred = jnp.einsum('kij,bki->bkj', vectors, x[:, None] - jnp.asarray(self.means, x.dtype))
        spread = values + sigma[:, None, None] ** 2
        square = jnp.sum(centred**2 / spread + jnp.log(2 * jnp.pi * spread), -1)
        return jnp.log(jnp.asarray(self.weights, x.dtype)) - 0.5 * square

    def log_density(self, x, sigma):
        return jax.nn.logsumexp(self.log_parts(x, sigma), -1)

    def denoise(self, x, sigma):
        """E[x_0 | x]: x: [B, D], sigma: [B] -> [B, D]."""
        values, vectors = (jnp.asarray(a, x.dtype) for a in self._eigen())
        means = jnp.asarray(self.means, x.dtype)
        centred = jnp.einsum('kij,bki->bkj', vectors, x[:, None] - means)
        shrunk = centred * values / (values + sigma[:, None, None] ** 2)
        parts = means + jnp.einsum('kij,bkj->bki', vectors, shrunk)
        return jnp.einsum('bk,bkd->bd', jax.nn.softmax(self.log_parts(x, sigma), -1), parts)

    def score(self, x, sigma):
        return (self.denoise(x, sigma) - x) / sigma[:, None] ** 2

    def velocity(self, x, sigma):
        """dx/dsigma of the probability-flow ODE."""
        return (x - self.denoise(x, sigma)) / sigma[:, None]

    def sample(self, key, count):
        pick, noise = jax.random.split(key)
        k = jax.random.choice(pick, len(self.weights), (count,), p=jnp.asarray(self.weights))
        roots = jnp.linalg.cholesky(jnp.asarray(self.covs))
        eps = jax.random.normal(noise, (count, self.dim))
        return jnp.asarray(self.means)[k] + jnp.einsum('bij,bj->bi', roots[k], eps)

    def component(self, k):
        """The law of one component: the class-conditional oracle."""
        return Mixture(np.ones(1), self.means[k : k + 1], self.covs[k : k + 1])

    def images(self):
        """The denoiser on pictures: x: [B, 1, 1, D]."""
        return lambda x, sigma: self.denoise(x.reshape(x.shape[0], -1), sigma).reshape(x.shape)

    def conditional(self):
        """The class-conditional denoiser on pictures: cond['label']: [B] names a component, -1 all of the mixture."""

        def denoise(x, sigma, cond):
            laws = [self, *(self.component(k) for k in range(len(self.weights)))]
            every = jnp.stack([law.images()(x, sigma) for law in laws])
            return every[cond['label'] + 1, jnp.arange(len(x))]

        return denoise

    def measured(self, matrix, value, noise):
        """The law of x_0 given value = matrix x_0 + N(0, noise**2 I): a mixture again, in closed form (float64).

        matrix: [M, D]; value: [M]. Component k is N(m + K (y - A m), C - K A C) with K = C A^T (A C A^T + s^2)^-1, and
        weighs as much more as N(A m, A C A^T + s^2) gives to y. What A maps to 0 says nothing.
        """
        left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
        seen = sizes > 1e-5 * sizes[0]
        matrix, value = sizes[seen, None] * right[seen], left[:, seen].T @ value
        parts, logs = [], []
        for mean, cov in zip(self.means, self.covs):
            seen = matrix @ cov @ matrix.T + noise**2 * np.eye(len(value))
            gain = np.linalg.solve(seen, matrix @ cov).T
            off = value - matrix @ mean
            parts.append((mean + gain @ off, cov - gain @ matrix @ cov))
            logs.append(-0.5 * (off @ np.linalg.solve(seen, off) + np.linalg.slogdet(2 * np.pi * seen)[1]))
        logs = np.log(self.weights) + logs
        weights = np.exp(logs - logs.max())
        means, covs = (np.stack(values) for values in zip(*parts))
        return Mixture(weights / weights.sum(), means, covs)

    def log_posterior(self, x, sigma, label):
        """log p(label | x): x: [B, D], sigma: [B], label: [B] -> [B]."""
        return jax.nn.log_softmax(self.log_parts(x, sigma), -1)[jnp.arange(len(x)), label]

    def log_tilted(self, x, sigma, tilts):
        """log p(x) (p(x | k) / p(x))**w ... over tilts: ((k, w), ...), not normalised: x: [B, D] -> [B]."""
        base = self.log_density(x, sigma)
        return base + sum(w * (self.component(k).log_density(x, sigma) - base) for k, w in tilts)


def plane():
    """Three unequal, correlated modes in the plane."""
    covs = np.array([[[0.09, 0.04], [0.04, 0.05]], [[0.04, 0.0], [0.0, 0.16]], [[0.02, -0.01], [-0.01, 0.05]]])
    return Mixture(np.array([0.5, 0.3, 0.2]), np.array([[1.0, 0.5], [-1.0, 0.0], [0.2, -1.2]]), covs)


def several(dim, count=3, seed=0):
    """A mixture of Gaussians of any covariance, for pictures of `dim` numbers."""
    parts = [gaussian(dim, seed + k) for k in range(count)]
    means, covs = (np.concatenate([getattr(part, name) for part in parts]) for name in ('means', 'covs'))
    return Mixture(np.full(count, 1 / count), means, covs)


def gaussian(dim=4, seed=0):
    """One Gaussian of any covariance: its probability-flow ODE has a closed solution."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(dim, dim)) / np.sqrt(dim)
    return Mixture(np.ones(1), rng.normal(size=(1, dim)), (root @ root.T + 0.1 * np.eye(dim))[None])


def flow_map(law: Mixture, x, sigma):
    """Where the exact probability-flow ODE takes x: [B, D] from sigma to 0, for a law of one component.

    Along each eigenvector, dx/dsigma = sigma (x - m) / (v + sigma**2): x - m scales with sqrt(v + sigma**2).
    """
    values, vectors = np.linalg.eigh(law.covs[0])
    centred = (x - law.means[0]) @ vectors
    return law.means[0] + (centred * np.sqrt(values / (values + sigma**2))) @ vectors.T
