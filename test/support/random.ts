/** Choices that come out the same for the same seed; `LATCHKEY_TEST_SEED` repeats those of an earlier run. */
export interface Random {
  seed: number;
  /** One of them. */
  of<T>(choices: readonly T[]): T;
  chance(probability: number): boolean;
}

/** @see https://en.wikipedia.org/wiki/Linear_congruential_generator with the constants of Numerical Recipes */
export function createRandom(): Random {
  const seed = Number(process.env['LATCHKEY_TEST_SEED'] ?? Date.now() % 1_000_000);
  let state = seed;
  const next = () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
  return {
    seed,
    of: (choices) => choices[Math.floor(next() * choices.length)]!,
    chance: (probability) => next() < probability,
  };
}

/** How many random operations a test tries: as many as `LATCHKEY_TEST_OPERATIONS` says. */
export const operationsToTry = (): number => Number(process.env['LATCHKEY_TEST_OPERATIONS'] ?? 1_000);
