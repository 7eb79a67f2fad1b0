/** How many orders of steps are tried, and from which seed: the same numbers try the same ones. */
export const effort = {
  numRuns: Number(process.env['INTERLEAVINGS'] ?? 100),
  seed: Number(process.env['INTERLEAVING_SEED'] ?? 2027),
};

/** Time for so many runs on a slow machine. */
export const timeFor = (runs: number): number => 20_000 + runs * 400;
