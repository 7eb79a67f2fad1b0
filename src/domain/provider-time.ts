/**
 * To which unit one of our times is cut before it is compared with one of the provider's, which tells some to the
 * second only. A unit of `date_trunc`.
 */
export const resolutionOf = (at: Date | null): 'second' | 'milliseconds' =>
  at !== null && at.getTime() % 1_000 === 0 ? 'second' : 'milliseconds';
